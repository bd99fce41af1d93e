"""`dmcodec reconstruct`: speech to tokens and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.errors import ArgumentError

from .common import (
    BackendOption,
    BundleOption,
    ChannelOption,
    DeviceIdOption,
    EngineCacheOption,
    ForceOption,
    JobsOption,
    JsonOption,
    NqOption,
    ProviderOption,
    SkipExistingOption,
    ThreadsOption,
)
from .decode import check_audio_name, holds_audio


def reconstruct(
    inputs: Annotated[list[str], typer.Argument(metavar="IN", help="Audio files, globs or folders, or - for stdin.")],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="Audio file (.wav, .flac or .ogg), a folder for several inputs, or - for stdout.",
            metavar="OUT.wav",
        ),
    ],
    n_q: NqOption = None,
    channel: ChannelOption = None,
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
    """Encode speech files and decode them; print bitrate and speed.

    A file that cannot be used does not stop the others; the exit code is then 1.
    """
    from dmcodec.audio import audio_needs, audio_suffixes

    from .files import Outputs, plan
    from .run_files import Printing, run_files
    from .work import Reconstruct

    if channel is not None and channel < 0:
        raise ArgumentError(f"--channel {channel}: give the number of a channel, from 0 on")
    outputs = Outputs(out, ".wav", check_audio_name, _is_complete, force, skip_existing, channel)
    factory = Reconstruct(bundle, backend, provider, threads, engine_cache, n_q, device_id=device_id)
    planned = plan(inputs, outputs, audio_suffixes(), audio_needs())
    describe = _lines if planned.num_files == 1 else _line
    run_files(planned, factory, jobs, Printing("reconstruct", describe, as_json, flat=True))


def _is_complete(_source: Path, target: Path) -> bool:
    return holds_audio(target)


def _lines(result: dict[str, Any]) -> list[str]:
    """Return the lines of a single file."""
    lines = [
        f"{result['output']}: {result['duration_s']:.2f} s through {result['frames']} frames x {result['n_q']} levels, "
        f"{result['bitrate_bps'] / 1000:g} kbit/s"
    ]
    for name in ("encode", "decode"):
        values = result[name]
        lines.append(f"{name}: {values['compute_s']:.3f} s, RTF {values['rtf']:.3f} (xRT {values['xrt']:.1f})")
    return lines


def _line(result: dict[str, Any]) -> list[str]:
    """Return the line of one of many files."""
    return [
        f"{result['output']}: {result['duration_s']:.2f} s through {result['frames']} frames x {result['n_q']} levels, "
        f"encode RTF {result['encode']['rtf']:.3f} (xRT {result['encode']['xrt']:.1f}), "
        f"decode RTF {result['decode']['rtf']:.3f} (xRT {result['decode']['xrt']:.1f})"
    ]
