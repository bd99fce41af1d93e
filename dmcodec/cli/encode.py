"""`dmcodec encode`: speech files to token files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.errors import ArgumentError

from .common import (
    BackendOption,
    BundleOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    ThreadsOption,
    load_codec,
    speed,
)

EACH = "each"

if TYPE_CHECKING:
    from dmcodec.tokens import Tokens

    from .files import FileProgress


def encode(
    inputs: Annotated[list[str], typer.Argument(metavar="IN", help="Audio files, globs or folders.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Token file, or a folder for several inputs.", metavar="OUT.dmc"),
    ],
    n_q: NqOption = None,
    context_s: Annotated[
        float | None,
        typer.Option(
            help="Context on each side of a window, for clips over 30 s (default: the bundle's).", metavar="SECONDS"
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(
            help="Channel to encode, from 0 on, or each: a token file for each channel, OUT.ch0.dmc and so on "
            "(default: the mean of all).",
            metavar="N",
        ),
    ] = None,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode speech files to token files (.dmc)."""
    from dmcodec.audio import audio_suffixes, channel_count
    from dmcodec.files import refuse_existing

    from .files import plan, run_files

    number = _channel_number(channel)
    pairs = plan(inputs, out, ".dmc", audio_suffixes(), force)
    codec = load_codec(bundle, backend, provider, threads, engine_cache)
    codec.load_graphs("encoder", "quantizer")

    def work(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        start = time.perf_counter()
        tokens = codec.encode_file(source, target, n_q, context_s, progress, number)
        compute_s = time.perf_counter() - start
        return {**describe_tokens(tokens), "file_bytes": target.stat().st_size, **speed(compute_s, tokens.duration_s)}

    def work_on_each(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        parts = []
        targets = [channel_path(target, index) for index in range(channel_count(source))]
        for path in targets:
            refuse_existing(path, force)
        for index, path in enumerate(targets):
            start = time.perf_counter()
            tokens = codec.encode_file(source, path, n_q, context_s, progress, index)
            compute_s = time.perf_counter() - start
            facts = {**describe_tokens(tokens), "file_bytes": path.stat().st_size}
            parts.append({"output": str(path), "channel": index, **facts, **speed(compute_s, tokens.duration_s)})
        return {"output": str(targets[0]), "channels": parts}

    if channel == EACH:
        run_files("encode", pairs, work_on_each, lambda result: "\n".join(map(_line, result["channels"])), as_json)
    else:
        run_files("encode", pairs, work, _line, as_json)


def channel_path(target: Path, channel: int) -> Path:
    """Return the token file of one channel: clip.dmc -> clip.ch0.dmc."""
    return target.with_name(f"{target.stem}.ch{channel}{target.suffix}")


def _channel_number(channel: str | None) -> int | None:
    if channel is None or channel == EACH:
        return None
    if not (channel.isascii() and channel.isdigit()):
        raise ArgumentError(f"--channel {channel!r}: give the number of a channel, from 0 on, or {EACH}")
    return int(channel)


def describe_tokens(tokens: Tokens) -> dict[str, Any]:
    """Return size and bitrate of tokens as JSON values, with units in the names."""
    return {
        "duration_s": tokens.duration_s,
        "num_samples": tokens.num_samples,
        "frames": tokens.num_frames,
        "n_q": tokens.n_q,
        "first_level": tokens.first_level,
        "bitrate_bps": tokens.bitrate_bps,
    }


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['duration_s']:.2f} s, {result['frames']} frames x {result['n_q']} levels, "
        f"{result['file_bytes']} bytes, {result['bitrate_bps'] / 1000:g} kbit/s, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    )
