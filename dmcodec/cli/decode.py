"""`dmcodec decode`: token files to speech files."""

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
    RunProviderOption,
    ThreadsOption,
    load_codec,
    speed,
)
from .files import plan

if TYPE_CHECKING:
    from dmcodec.runtime import Codec


def decode(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="IN...", help="Token files (.dmc), globs or folders.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="OUT.wav, or a folder for several inputs.")
    ] = None,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: RunProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    n_q: NqOption = None,
    stream: Annotated[bool, typer.Option("--stream", help="Decode stdin to stdout while tokens come in.")] = False,
    tokens: Annotated[
        str | None, typer.Option(help="With --stream: dmc (default), or u16 (raw codes, frame by frame).")
    ] = None,
    audio: Annotated[str | None, typer.Option(help="With --stream: wav (default), or s16 (raw samples).")] = None,
    chunk_frames: Annotated[
        int | None, typer.Option(help="With --stream: frames to decode at a time (default: 5).")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode token files (.dmc) to speech files (16-bit WAV or FLAC, or Ogg); or a stream of tokens."""
    if stream:
        from .decode_stream import check_formats, decode_stream

        if inputs or output or as_json or force:
            raise ArgumentError("--stream reads stdin and writes stdout; it takes no IN, -o, --force or --json")
        options = (tokens or "dmc", audio or "wav", 5 if chunk_frames is None else chunk_frames)
        check_formats(*options)
        decode_stream(load_codec(bundle, backend, provider, threads, engine_cache), *options, n_q)
    elif tokens or audio or chunk_frames is not None:
        raise ArgumentError("--tokens, --audio and --chunk-frames belong to --stream; add it")
    elif not inputs or output is None:
        raise ArgumentError("name token files and an output: dmcodec decode IN.dmc... -o OUT.wav (or use --stream)")
    else:
        pairs = plan(inputs, output, ".wav", {".dmc"}, force)
        _decode_files(pairs, load_codec(bundle, backend, provider, threads, engine_cache), n_q, as_json)


def _decode_files(pairs: list[tuple[Path, Path]], codec: Codec, n_q: int | None, as_json: bool) -> None:
    from dmcodec.audio import output_format
    from dmcodec.tokens import Tokens

    from .encode import token_facts
    from .files import FileProgress, run_files

    for _, target in pairs:
        output_format(target)
    codec.load_graphs("dequantizer", "decoder")

    def work(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        clip = Tokens.load(source)
        start = time.perf_counter()
        codec.decode_file(clip, target, n_q, progress)
        compute_s = time.perf_counter() - start
        return {**token_facts(clip.levels(n_q)), **speed(compute_s, clip.duration_s)}

    run_files("decode", pairs, work, _describe, as_json)


def _describe(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['duration_s']:.2f} s, {result['n_q']} levels, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    )
