"""`dmcodec encode`: speech files to token files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.errors import ArgumentError, TokenFileError

from .common import (
    BackendOption,
    BundleOption,
    DeviceIdOption,
    EngineCacheOption,
    ForceOption,
    JobsOption,
    JsonOption,
    NqOption,
    ProviderOption,
    SkipExistingOption,
    ThreadsOption,
    load_codec,
)

EACH = "each"
# What a token file is not called, besides the suffixes of audio that dmcodec reads.
RAW_SUFFIXES = frozenset({".raw", ".pcm"})

STREAM = "Stream"


def _streams(context: typer.Context, stream: bool) -> bool:
    """Make IN and --out optional with --stream, before they are looked for."""
    for parameter in context.command.params:
        if parameter.name in ("inputs", "out"):
            parameter.required = not stream
    return stream


def encode(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="IN", help="Audio files, globs or folders, or - for stdin.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="Token file, a folder for several inputs, or - for stdout.", metavar="OUT.dmc"
        ),
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
    device_id: DeviceIdOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Encode speech files to token files (.dmc), or with --stream stdin to stdout.

    A file that cannot be used does not stop the others; the exit code is then 1.
    """
    from dmcodec.audio import audio_needs, audio_suffixes

    from .files import Outputs, plan
    from .run_files import Printing, run_files
    from .work import Encode

    if stream:
        from .encode_stream import encode_stream

        others = (inputs, out, as_json, force, skip_existing, jobs != 1, resume)
        if any(others) or any(option is not None for option in (context_s, spool, channel)):
            raise ArgumentError(
                "--stream reads stdin and writes stdout; it takes no IN, --out, --context-s, --spool, --resume, "
                "--channel, --force, --skip-existing, --jobs or --json"
            )
        codec = load_codec(bundle, backend, provider, threads, engine_cache, device_id)
        encode_stream(codec, look_ahead_s, step_s, rate, n_q)
        return
    if look_ahead_s is not None or step_s is not None or rate is not None:
        raise ArgumentError("--look-ahead, --step and --rate belong to --stream; add it")
    assert inputs
    assert out
    complete = functools.partial(_is_complete, bundle, n_q)
    number, each = _channel_number(channel), _count_channels if channel == EACH else None
    outputs = Outputs(out, ".dmc", _check_name, complete, force, skip_existing, number, each)
    factory = Encode(bundle, backend, provider, threads, engine_cache, n_q, context_s, spool, resume, device_id)
    planned = plan(inputs, outputs, audio_suffixes(), audio_needs())
    run_files(planned, factory, jobs, Printing("encode", _line, as_json))


def _channel_number(channel: str | None) -> int | None:
    if channel is None or channel == EACH:
        return None
    if not (channel.isascii() and channel.isdigit()):
        raise ArgumentError(f"--channel {channel!r}: give the number of a channel, from 0 on, or {EACH}")
    return int(channel)


def _count_channels(source: Path) -> int:
    from dmcodec.audio import channel_count

    from .pipes import from_pipe, shown

    if from_pipe(source):
        raise ArgumentError(
            f"{shown(source)}: can be read once only, but --channel {EACH} reads it for each channel; name a file"
        )
    return channel_count(source)


def _check_name(target: Path) -> None:
    from dmcodec.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES

    if target.suffix.lower() in AUDIO_SUFFIXES | MEDIA_SUFFIXES | RAW_SUFFIXES:
        raise ArgumentError(f"--out {target}: holds tokens, and must not be called like audio; name it .dmc")


def _is_complete(bundle: Path | None, n_q: int | None, _source: Path, target: Path) -> bool:
    """Return whether `target` holds all tokens, of this bundle; False for a damaged token file, or an empty one."""
    from dmcodec.token_file import MAGIC, read_header

    from .files import foreign

    try:
        header = read_header(target)
    except TokenFileError:
        with target.open("rb") as file:
            if file.read(len(MAGIC)) in (b"", MAGIC):
                return False
        raise foreign(target, "no token file") from None
    model_id, levels = _model(bundle)
    if header.model_id != model_id:
        raise foreign(target, "of another model")
    if header.n_q != (n_q or levels) or header.first_level:
        raise foreign(target, f"of {header.n_q} levels from level {header.first_level} on")
    return True


@functools.cache
def _model(bundle: Path | None) -> tuple[str, int]:
    from dmcodec.bundle import Bundle, default_bundle_path

    manifest = Bundle.open(bundle or default_bundle_path()).manifest
    return manifest.model_id, manifest.config.n_q


def _line(result: dict[str, Any]) -> list[str]:
    return [
        f"{result['output']}: {result['duration_s']:.2f} s, {result['frames']} frames x {result['n_q']} levels, "
        f"{result['file_bytes']} bytes, {result['bitrate_bps'] / 1000:g} kbit/s, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    ]
