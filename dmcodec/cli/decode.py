"""`dmcodec decode`: token files to speech files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.errors import ArgumentError

from .common import (
    DEFAULT_CHUNK_FRAMES,
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
    chunk_frames_option,
    load_codec,
)

STREAM = "Stream"


def decode(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="IN", help="Token files (.dmc), globs or folders, or - for stdin.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Audio file (.wav, .flac or .ogg), a folder for several inputs, or - for stdout.",
            metavar="OUT.wav",
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
    device_id: DeviceIdOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Decode token files (.dmc) to speech files, or stdin to stdout.

    WAV and FLAC files are written with 16 bits. A file that cannot be used does not stop the others; the exit code is
    then 1.
    """
    if stream:
        from .decode_stream import check_formats, decode_stream

        if inputs or out or as_json or force or skip_existing or jobs != 1:
            raise ArgumentError(
                "--stream reads stdin and writes stdout; it takes no IN, --out, --force, --skip-existing, --jobs or "
                "--json"
            )
        formats = (tokens, audio or "wav", DEFAULT_CHUNK_FRAMES if chunk_frames is None else chunk_frames)
        check_formats(*formats)
        decode_stream(load_codec(bundle, backend, provider, threads, engine_cache, device_id), *formats, n_q)
    elif tokens or audio or chunk_frames is not None:
        raise ArgumentError("--tokens, --audio and --chunk-frames belong to --stream; add it")
    elif not inputs or out is None:
        raise ArgumentError("name token files and an output: `dmcodec decode IN.dmc -o OUT.wav`; or use --stream")
    else:
        from .files import Outputs, plan
        from .run_files import Printing, run_files
        from .work import Decode

        outputs = Outputs(out, ".wav", check_audio_name, _is_complete, force, skip_existing)
        factory = Decode(bundle, backend, provider, threads, engine_cache, n_q, device_id=device_id)
        run_files(plan(inputs, outputs, {".dmc"}), factory, jobs, Printing("decode", _line, as_json))


def check_audio_name(target: Path) -> None:
    """Raise an error for an output that is not called like audio."""
    from dmcodec.audio import output_format

    if target.suffix.lower() == ".dmc":
        raise ArgumentError(f"--out {target}: holds audio, and must not be called like tokens; name it .wav")
    output_format(target)


def _is_complete(source: Path, target: Path) -> bool:
    from dmcodec.token_file import read_header

    from .files import foreign

    if not holds_audio(target):
        return False
    header = read_header(source)
    if audio_length(target) != (header.num_samples, header.sample_rate):
        raise foreign(target, f"not as long as {source}")
    return True


def holds_audio(target: Path) -> bool:
    """Return whether an output is audio; False for an empty file. Raises OutputExistsError for anything else."""
    from .files import foreign

    if target.stat().st_size == 0:
        return False
    if not audio_length(target)[0]:
        raise foreign(target, "no audio")
    return True


def audio_length(path: Path) -> tuple[int, int]:
    """Return the number of samples and the sample rate of an audio file; (0, 0) where it can't be read."""
    import soundfile

    try:
        with path.open("rb") as file:
            info = soundfile.info(file)
    except (soundfile.SoundFileError, OSError):
        return 0, 0
    return info.frames, info.samplerate


def _line(result: dict[str, Any]) -> list[str]:
    return [
        f"{result['output']}: {result['duration_s']:.2f} s, {result['n_q']} levels, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    ]
