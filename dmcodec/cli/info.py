"""`dmcodec info`: what a bundle or a token file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.bundle import default_bundle_path

from .common import JsonOption, print_json


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE|FILE.dmc]",
            help="A bundle folder or a token file (default: the bundle that comes with dmcodec).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle or a token file holds, after checking that it is whole."""
    path = path or default_bundle_path()
    facts = _bundle_facts(path) if os.path.isdir(path) else _token_file_facts(path)  # noqa: PTH112 - not for names that are too long
    if as_json:
        print_json(facts)
        return
    for name, value in _flat(facts):
        typer.echo(f"{name:<32} {value}")


def _token_file_facts(path: Path) -> dict[str, Any]:
    from dmcodec.tokens import Tokens

    from .encode import token_facts

    tokens = Tokens.load(path)
    return {
        "file": str(path),
        "file_bytes": path.stat().st_size,
        **token_facts(tokens),
        "codebook_size": tokens.codebook_size,
        "hop_length": tokens.hop_length,
        "sample_rate": tokens.sample_rate,
        "model_id": tokens.model_id or "unknown",
    }


def _bundle_facts(path: Path) -> dict[str, Any]:
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


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name == "graphs":
            rows += [(f"graph {graph}", _graph_line(spec)) for graph, spec in value.items()]
        elif name == "weights":
            rows += [(name, f"{value['size_bytes'] / 1e6:.1f} MB, shared by the graphs")] if value else []
        elif name == "engines":
            rows += [(f"engine {facts['graph']}", _engine_line(file, facts)) for file, facts in value.items()]
        elif name == "encoder_context":
            rows.append(("context of windows", f"{value['default_context_s']:g} s"))
            rows += [(f"context {case['context_s']:g} s", _context_line(case)) for case in value["cases"]]
        elif isinstance(value, dict):
            rows += [(f"{name}.{key}", _plain(item)) for key, item in value.items() if item is not None]
        else:
            rows.append((name, _plain(value)))
    return rows


def _graph_line(spec: dict[str, Any]) -> str:
    def ends(tensors: list[dict[str, Any]]) -> str:
        return ", ".join(f"{t['name']} {t['dtype']} ({', '.join(map(str, t['axes']))})" for t in tensors)

    size = f"{spec['size_bytes'] / 1e6:.1f} MB"
    return f"{spec['precision']}, {size}: {ends(spec['inputs'])} -> {ends(spec['outputs'])}"


def _engine_line(file: str, facts: dict[str, Any]) -> str:
    profiles = "; ".join(profile["name"] for profile in facts["profiles"])
    where = f"{facts['flavour']} {facts['version']} for {', '.join(facts['architectures'])}"
    return f"{facts['precision']}, {facts['size_bytes'] / 1e6:.1f} MB, {where}: {profiles} ({file})"


def _context_line(case: dict[str, Any]) -> str:
    return (
        f"latents off by {case['latents_relative_error']:.1e} of their peak, codes equal "
        f"{100 * case['code_agreement']:.2f} %, level 0 {100 * case['level0_agreement']:.2f} %"
    )


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
