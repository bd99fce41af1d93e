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

if TYPE_CHECKING:
    from dmcodec.tokens import Tokens

    from .files import FileProgress

STREAM = "Stream"


def _streams(context: typer.Context, stream: bool) -> bool:
    """Make IN and --out optional with --stream, before they are looked for."""
    for parameter in context.command.params:
        if parameter.name in ("inputs", "out"):
            parameter.required = not stream
    return stream


def encode(
    inputs: Annotated[list[str] | None, typer.Argument(metavar="IN", help="Audio files, globs or folders.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Token file, or a folder for several inputs.", metavar="OUT.dmc"),
    ],
    n_q: NqOption = None,
    context_s: Annotated[
        float | None,
        typer.Option(
            help="Encode clips over 30 s in windows with this context, an approximation (default: exactly).",
            metavar="SECONDS",
        ),
    ] = None,
    spool: Annotated[
        str | None,
        typer.Option(
            help="Where exact encoding keeps features: a folder, or memory (default: in memory up to 256 MiB, else in "
            "the system's folder for temporary files).",
            metavar="DIR|memory",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the progress in OUT.dmc.spool until it is done; go on from there after a stop."
        ),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Instead of files, encode stdin (16-bit mono samples without a header) to stdout (16-bit codes, frame "
            "by frame) while samples come in.",
            callback=_streams,
            is_eager=True,
            rich_help_panel=STREAM,
        ),
    ] = False,
    look_ahead_s: Annotated[
        float | None,
        typer.Option(
            "--look-ahead",
            help="With --stream, what the encoder waits for and reads of the future (default: the bundle's).",
            metavar="SECONDS",
            rich_help_panel=STREAM,
        ),
    ] = None,
    step_s: Annotated[
        float | None,
        typer.Option(
            "--step",
            help="With --stream, what is encoded at a time; longer steps cost less and delay more (default: 0.1, but "
            "at least 0.4 of the look-ahead).",
            metavar="SECONDS",
            rich_help_panel=STREAM,
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            help="With --stream, sample rate of stdin (default: the codec's).", metavar="HZ", rich_help_panel=STREAM
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
    """Encode speech files to token files (.dmc), or stdin to stdout."""
    if stream:
        from .encode_stream import encode_stream

        if inputs or out or as_json or force or context_s is not None:
            raise ArgumentError(
                "--stream reads stdin and writes stdout; it takes no IN, --out, --context-s, --force or --json"
            )
        encode_stream(load_codec(bundle, backend, provider, threads, engine_cache), look_ahead_s, step_s, rate, n_q)
        return
    if look_ahead_s is not None or step_s is not None or rate is not None:
        raise ArgumentError("--look-ahead, --step and --rate belong to --stream; add it")
    assert inputs
    assert out
    from dmcodec.audio import AUDIO_SUFFIXES

    from .files import plan, run_files

    pairs = plan(inputs, out, ".dmc", AUDIO_SUFFIXES, force)
    codec = load_codec(bundle, backend, provider, threads, engine_cache)
    codec.load_encoder(context_s)

    def work(source: Path, target: Path, progress: FileProgress) -> dict[str, Any]:
        start = time.perf_counter()
        tokens = codec.encode_file(source, target, n_q, context_s, progress, spool=spool, resume=resume)
        compute_s = time.perf_counter() - start
        return {**describe_tokens(tokens), "file_bytes": target.stat().st_size, **speed(compute_s, tokens.duration_s)}

    run_files("encode", pairs, work, _line, as_json)


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
