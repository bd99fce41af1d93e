"""`dmcodec info`: what a bundle, a token file or a tokenized corpus holds."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError
from dmcodec.text import one_line

from .bundle_summary import bundle_lines
from .common import BundleOption, JsonOption, describe_tokens, print_json

if TYPE_CHECKING:
    from dmcodec.bundle import Manifest

# What marks a folder as the output of `dmcodec tokenize`.
PLAN = "plan.json"


def info(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.dmc",
            help="Token file, - for stdin, or the output of tokenize; without one, a bundle is shown.",
        ),
    ] = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a token file, the output of tokenize, or a bundle holds.

    A file or a bundle is checked first: it must be complete and unaltered. --json shows every field.
    """
    if file is not None and bundle is not None:
        raise ArgumentError("name either a token file or a bundle, not both")
    if file is not None and os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        if not (file / PLAN).exists():
            raise ArgumentError(f"{file} is a folder; for a bundle, run `dmcodec info --bundle {file}`")
        facts = _describe_corpus(file)
    else:
        facts = _describe_bundle(bundle or default_bundle_path()) if file is None else _describe_token_file(file)
    if as_json:
        print_json(facts)
        return
    if "bundle" in facts:
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
        for line in bundle_lines(facts, width):
            typer.echo(line)
        return
    for name, value in _rows(facts):
        typer.echo(f"{name:<32} {one_line(value)}")


def _describe_corpus(folder: Path) -> dict[str, Any]:
    from dmcodec.runtime.corpus.summary import read_summary

    return read_summary(folder).to_dict()


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
    reach = decoder_reach(config)
    look_ahead = reach.look_ahead_frames
    parity = {name: value for name, value in body["parity"].items() if name not in ("cases", "thresholds")}
    return {
        "bundle": str(path),
        "model_id": manifest.model_id,
        "precision": manifest.precision,
        "frame_rate": config.frame_rate,
        "bitrate_bps": config.bitrate_bps(),
        "bandwidths": {f"{kbps:g}": n_q for kbps, n_q in config.levels_of_bandwidth.items()},
        "config": body["config"],
        "size_bytes": manifest.size_bytes,
        "graphs": body["graphs"],
        "weights": body.get("weights"),
        "provenance": body["provenance"],
        "parity": parity,
        "int8": body.get("int8"),
        "engines": dict(manifest.engines),
        "long_clips": "encoded exactly" if manifest.has_encoder_parts else "encoded in windows",
        "encoder_context": body["encoder_context"],
        "window_overhead": window_plan(config, manifest.encoder_context["default_context_s"]).overhead,
        "live_encoding": _describe_live_encoding(manifest),
        "look_ahead_frames": look_ahead,
        "look_ahead_ms": 1000 * look_ahead / config.frame_rate,
        "first_audio_frames": reach.first_frames,
    }


def _describe_live_encoding(manifest: Manifest) -> dict[str, Any] | None:
    """Return look-ahead and delay of live encoding, and what was measured; None of a bundle that can't encode live."""
    from dmcodec.runtime.encoder_steps import EncoderSteps
    from dmcodec.runtime.stream_encoder import look_ahead_frames

    if not manifest.has_encoder_parts:
        return None
    look_ahead_s = manifest.default_look_ahead_s
    steps = EncoderSteps(manifest.config, look_ahead_frames(manifest.config, look_ahead_s))
    delay_s = steps.delay_samples / manifest.config.sample_rate
    return {"default_look_ahead_s": look_ahead_s, "delay_s": delay_s, **manifest.look_ahead}


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a name and a text for each line; nested values get a line each."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name == "levels":
            rows += [(f"level {level['level']}", _level_line(level)) for level in value]
        elif isinstance(value, dict):
            shown = {key: item for key, item in value.items() if item is not None and not isinstance(item, dict)}
            rows += [(f"{name}.{key}", _text(item)) for key, item in shown.items()]
        else:
            rows.append((name, _text(value)))
    return rows


def _level_line(level: dict[str, Any]) -> str:
    return (
        f"{level['entropy_bits']:.2f} bits of entropy, perplexity {level['perplexity']:.0f}, "
        f"{level['unused_entries']} entries unused"
    )


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
