"""`dmcodec info`: what a bundle or a token file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError
from dmcodec.text import one_line

from .common import BundleOption, JsonOption, describe_tokens, print_json


def info(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.dmc", help="Token file, or - for stdin; without one, a bundle is shown."),
    ] = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a token file or a bundle holds.

    The file or the bundle is checked first: it must be complete and unaltered.
    """
    if file is not None and bundle is not None:
        raise ArgumentError("name either a token file or a bundle, not both")
    if file is not None and os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        raise ArgumentError(f"{file} is a folder; for a bundle, run `dmcodec info --bundle {file}`")
    facts = _describe_bundle(bundle or default_bundle_path()) if file is None else _describe_token_file(file)
    if as_json:
        print_json(facts)
        return
    for name, value in _rows(facts):
        typer.echo(f"{name:<32} {one_line(value)}")


def _describe_token_file(path: Path) -> dict[str, Any]:
    from dmcodec.tokens import Tokens

    from .pipes import stream_of

    tokens = Tokens.load(stream_of(path))
    return {
        "file": str(path),
        "file_bytes": tokens.file_bytes,
        **describe_tokens(tokens),
        "codebook_size": tokens.codebook_size,
        "hop_length": tokens.hop_length,
        "sample_rate": tokens.sample_rate,
        "model_id": tokens.model_id or "unknown",
    }


def _describe_bundle(path: Path) -> dict[str, Any]:
    from dmcodec.bundle import Bundle
    from dmcodec.receptive_field import decoder_reach
    from dmcodec.runtime.long_clips import window_plan

    manifest = Bundle.open(path).manifest
    config = manifest.config
    body = manifest.to_dict()
    look_ahead = decoder_reach(config).look_ahead_frames
    parity = {name: value for name, value in body["parity"].items() if name not in ("cases", "thresholds")}
    return {
        "bundle": str(path),
        "model_id": manifest.model_id,
        "precision": manifest.precision,
        "frame_rate": config.frame_rate,
        "bitrate_bps": config.bitrate_bps(),
        "config": body["config"],
        "size_bytes": manifest.size_bytes,
        "graphs": body["graphs"],
        "weights": body.get("weights"),
        "provenance": body["provenance"],
        "parity": parity,
        "engines": dict(manifest.engines),
        "encoder_context": body["encoder_context"],
        "window_overhead": window_plan(config, manifest.encoder_context["default_context_s"]).overhead,
        "look_ahead_frames": look_ahead,
        "look_ahead_ms": 1000 * look_ahead / config.frame_rate,
    }


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a name and a text for each line; nested values get a line each."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name == "graphs":
            rows += [(f"graph {graph}", _graph_line(spec)) for graph, spec in value.items()]
        elif name == "weights":
            rows += [(name, f"{value['size_bytes'] / 1e6:.1f} MB, shared by the graphs")] if value else []
        elif name == "engines":
            rows += [(f"engine {engine['graph']}", _engine_line(file, engine)) for file, engine in value.items()]
        elif name == "encoder_context":
            rows.append(("context of windows", f"{value['default_context_s']:g} s"))
            rows += [(f"context {case['context_s']:g} s", _context_line(case)) for case in value["cases"]]
        elif isinstance(value, dict):
            rows += [(f"{name}.{key}", _text(item)) for key, item in value.items() if item is not None]
        else:
            rows.append((name, _text(value)))
    return rows


def _graph_line(spec: dict[str, Any]) -> str:
    def tensors(key: str) -> str:
        return ", ".join(f"{each['name']} {each['dtype']} ({', '.join(map(str, each['axes']))})" for each in spec[key])

    size = f"{spec['size_bytes'] / 1e6:.1f} MB"
    return f"{spec['precision']}, {size}: {tensors('inputs')} -> {tensors('outputs')}"


def _engine_line(file: str, engine: dict[str, Any]) -> str:
    profiles = "; ".join(profile["name"] for profile in engine["profiles"])
    runs_on = f"{engine['flavour']} {engine['version']} for {', '.join(engine['architectures'])}"
    return f"{engine['precision']}, {engine['size_bytes'] / 1e6:.1f} MB, {runs_on}: {profiles} ({file})"


def _context_line(case: dict[str, Any]) -> str:
    return (
        f"latents differ by {case['latents_relative_error']:.1e} of their peak, codes equal "
        f"{100 * case['code_agreement']:.2f} %, level 0 {100 * case['level0_agreement']:.2f} %"
    )


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
