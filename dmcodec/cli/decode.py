"""`dmcodec decode`: token files to speech files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.errors import ArgumentError

from .common import (
    DEFAULT_CHUNK_FRAMES,
    BackendOption,
    BundleOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    ThreadsOption,
    chunk_frames_option,
    load_codec,
    speed,
)
from .files import plan

if TYPE_CHECKING:
    from dmcodec.runtime import Codec


STREAM = "Stream"


def decode(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="IN", help="Token files (.dmc), globs or folders.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Audio file (.wav, .flac or .ogg), or a folder for several inputs.", metavar="OUT.wav"
        ),
    ] = None,
    n_q: NqOption = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Decode stdin to stdout while tokens come in.", rich_help_panel=STREAM)
    ] = False,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="With --stream, format of stdin: dmc (a token file) or u16 (16-bit codes, frame by frame, as "
            "`encode --stream` writes them) (default: found by its first bytes).",
            metavar="NAME",
            rich_help_panel=STREAM,
        ),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            help="With --stream, format of stdout: wav or s16 (16-bit samples without a header) (default: wav).",
            metavar="NAME",
            rich_help_panel=STREAM,
        ),
    ] = None,
    chunk_frames: Annotated[int | None, chunk_frames_option(STREAM)] = None,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode token files (.dmc) to speech files, or stdin to stdout.

    WAV and FLAC files are written with 16 bits.
    """
    if stream:
        from .decode_stream import check_formats, decode_stream

        if inputs or out or as_json or force:
            raise ArgumentError("--stream reads stdin and writes stdout; it takes no IN, --out, --force or --json")
        formats = (tokens, audio or "wav", DEFAULT_CHUNK_FRAMES if chunk_frames is None else chunk_frames)
        check_formats(*formats)
        decode_stream(load_codec(bundle, backend, provider, threads, engine_cache), *formats, n_q)
    elif tokens or audio or chunk_frames is not None:
        raise ArgumentError("--tokens, --audio and --chunk-frames belong to --stream; add it")
    elif not inputs or out is None:
        raise ArgumentError("name token files and an output: `dmcodec decode IN.dmc -o OUT.wav`; or use --stream")
    else:
        pairs = plan(inputs, out, ".wav", {".dmc"}, force)
        _decode_files(pairs, load_codec(bundle, backend, provider, threads, engine_cache), n_q, as_json)


def _decode_files(pairs: list[tuple[Path, Path]], codec: Codec, n_q: int | None, as_json: bool) -> None:
    from dmcodec.audio import output_format
    from dmcodec.tokens import Tokens

    from .encode import describe_tokens
    from .files import FileProgress, run_files

    for _, target in pairs:
        output_format(target)
    codec.load_graphs("dequantizer", "decoder")

    def work(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        clip = Tokens.load(source)
        start = time.perf_counter()
        codec.decode_file(clip, target, n_q, progress)
        compute_s = time.perf_counter() - start
        return {**describe_tokens(clip.levels(n_q)), **speed(compute_s, clip.duration_s)}

    run_files("decode", pairs, work, _line, as_json)


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['duration_s']:.2f} s, {result['n_q']} levels, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    )
