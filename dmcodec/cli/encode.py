"""`dmcodec encode`: speech files to token files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BackendOption,
    BundleOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    RunProviderOption,
    ThreadsOption,
    load_codec,
    speed,
)

if TYPE_CHECKING:
    from dmcodec.tokens import Tokens

    from .files import FileProgress


def encode(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Audio files, globs or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="OUT.dmc, or a folder for several inputs.")],
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: RunProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    n_q: NqOption = None,
    context_s: Annotated[
        float | None,
        typer.Option(help="Seconds of context around each window of clips over 30 s (default: as measured at export)."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode speech files to token files (.dmc)."""
    from dmcodec.audio import AUDIO_SUFFIXES

    from .files import plan, run_files

    pairs = plan(inputs, output, ".dmc", AUDIO_SUFFIXES, force)
    codec = load_codec(bundle, backend, provider, threads, engine_cache)
    codec.load_graphs("encoder", "quantizer")

    def work(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        start = time.perf_counter()
        tokens = codec.encode_file(source, target, n_q, context_s, progress)
        compute_s = time.perf_counter() - start
        return {**token_facts(tokens), "file_bytes": target.stat().st_size, **speed(compute_s, tokens.duration_s)}

    run_files("encode", pairs, work, _describe, as_json)


def token_facts(tokens: Tokens) -> dict[str, Any]:
    """What is worth saying of tokens, with units in the names."""
    return {
        "duration_s": tokens.duration_s,
        "num_samples": tokens.num_samples,
        "frames": tokens.num_frames,
        "n_q": tokens.n_q,
        "first_level": tokens.first_level,
        "bitrate_bps": tokens.bitrate_bps,
    }


def _describe(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['duration_s']:.2f} s, {result['frames']} frames x {result['n_q']} levels, "
        f"{result['file_bytes']} bytes, {result['bitrate_bps'] / 1000:g} kbit/s, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    )
