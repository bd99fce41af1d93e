"""Shared by the verbs: options, loading a codec, lists of values, and printing results."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.extras import missing_package

if TYPE_CHECKING:
    from rich.console import Console

    from dmcodec.runtime import Codec
    from dmcodec.tokens import Tokens

DEFAULT_CHUNK_FRAMES = 5
PIPE_WIDTH = 160

Number = TypeVar("Number", int, float)

# Panels of `--help`: options without one stand under "Options".
CODEC = "Codec"
COMPARISON = "Comparison"
MEASUREMENT = "Measurement"

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help="Bundle: a folder, a name of `dmcodec models`, or hf://ORG/REPO (default: the trained bundle that comes "
        "with dmcodec).",
        metavar="BUNDLE",
        rich_help_panel=CODEC,
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="What runs the graphs: onnxruntime, tensorrt or tensorrt-hybrid, whose LSTMs run in onnxruntime on CUDA "
        "(default: onnxruntime).",
        metavar="NAME",
        rich_help_panel=CODEC,
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        help="Execution provider of onnxruntime: cpu, cuda, tensorrt or nv-tensorrt-rtx (default: cpu).",
        metavar="NAME",
        rich_help_panel=CODEC,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="CPU threads (default: one for each CPU that this process may use; one for streams).",
        metavar="N",
        rich_help_panel=CODEC,
    ),
]
EngineCacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of TensorRT engines (default: engines/ in the bundle).", metavar="DIR", rich_help_panel=CODEC
    ),
]
DeviceIdOption = Annotated[
    int | None,
    typer.Option(
        "--device-id",
        help="Number of the GPU, among those that the process sees (default: 0).",
        metavar="N",
        rich_help_panel=CODEC,
    ),
]
NqOption = Annotated[
    int | None, typer.Option("--n-q", help="Quantizer levels to use, from level 0 on (default: all).", metavar="N")
]
TorchCheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Weights for torch (default: those of the bundle's seed, else those in the bundle).",
        metavar="FILE",
        rich_help_panel=COMPARISON,
    ),
]
TorchConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration of --checkpoint (default: that of the bundle).",
        metavar="FILE",
        rich_help_panel=COMPARISON,
    ),
]
TranscriptsOption = Annotated[
    Path | None,
    typer.Option(
        help="Transcripts of the audio: lines of file and text, or of file, start_s, end_s and text, separated by "
        "tabs.",
        metavar="FILE.tsv",
    ),
]
ReportOption = Annotated[Path | None, typer.Option(help="Also write a report: one HTML page.", metavar="FILE.html")]
ChannelOption = Annotated[
    int | None,
    typer.Option("--channel", help="Channel to encode, from 0 on (default: the mean of all).", metavar="N"),
]
SkipExistingOption = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave out files whose output is there: go on after an interruption."),
]
JobsOption = Annotated[
    int,
    typer.Option(help="Processes, each with its own codec; they share the CPUs (default: 1).", metavar="N"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite outputs that exist.")]


def duration_option(default: str) -> Any:
    """Return `--duration` of a measurement with clips of several lengths."""
    return typer.Option(help=f"Clip lengths (default: {default}).", metavar="SECONDS,...", rich_help_panel=MEASUREMENT)


def batch_option(default: str) -> Any:
    """Return `--batch` of a measurement with batches of several sizes."""
    return typer.Option(
        help=f"Batch sizes, with clips of 10 s or else of the longest --duration (default: {default}).",
        metavar="N,...",
        rich_help_panel=MEASUREMENT,
    )


def rounds_option(default: int) -> Any:
    """Return `--rounds` of a measurement."""
    return typer.Option(
        help=f"Timed runs of each operation (default: {default}).", metavar="N", rich_help_panel=MEASUREMENT
    )


def chunk_frames_option(panel: str) -> Any:
    """Return `--chunk-frames` of a streaming decoder."""
    return typer.Option(
        help=f"With --stream: frames to decode at a time (default: {DEFAULT_CHUNK_FRAMES}).",
        metavar="FRAMES",
        rich_help_panel=panel,
    )


def listed(option: str, values: Sequence[str] | None) -> tuple[str, ...]:
    """Return the values of an option that is repeated, or given once with commas or spaces between its values.

    Raises:
        ArgumentError: the option is given without a value.
    """
    found = tuple(value for text in values or () for value in text.replace(",", " ").split())
    if values and not found:
        raise ArgumentError(f"{option} needs at least one value")
    return found


def seconds(option: str, text: str) -> float:
    """Return a time such as `60`, `60s`, `1.5m` or `1h` in seconds.

    Raises:
        ArgumentError: it is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(s|m|h)?", text.strip())
    if match is None:
        raise ArgumentError(f"{option} {text!r} is not a time; give seconds or minutes, such as 60s or 2m")
    return float(match[1]) * {"h": 3600.0, "m": 60.0}.get(match[2], 1.0)


def numbers(option: str, values: Sequence[str] | None, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Return `listed` values as numbers.

    Raises:
        ArgumentError: a value is not a number of that kind, or there is none.
    """
    found = []
    for value in listed(option, values):
        try:
            found.append(kind(value))
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ArgumentError(f"{option} {value!r} is not {wanted}") from None
    return tuple(found)


def command_line() -> str:
    """Return the command that was called, for the record in results."""
    return shlex.join(["dmcodec", *sys.argv[1:]])


def missing_dependency(name: str, error: ImportError, extras: str) -> MissingDependencyError:
    """Return the error for a verb or an option that needs a package which is not installed."""
    return missing_package(error, name, extras)


def console(stderr: bool = False) -> Console:
    """Return a rich console; in a pipe it is wide enough for every table."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def note(message: str) -> None:
    """Print a remark on stderr."""
    typer.echo(f"note: {message}", err=True)


def load_codec(
    bundle: Path | None,
    backend: str,
    provider: str | None,
    threads: int | None,
    engine_cache: Path | None = None,
    device_id: int | None = None,
) -> Codec:
    """Load the codec of `bundle`; by default of the bundle that comes with dmcodec."""
    from dmcodec.runtime import Codec

    return Codec.load(
        bundle, backend=backend, provider=provider, threads=threads, engine_cache=engine_cache, device_id=device_id
    )


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2))


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


def speed(compute_s: float, audio_s: float) -> dict[str, float]:
    """Return compute time, RTF (compute time / audio time) and xRT (its inverse)."""
    return {"compute_s": compute_s, "rtf": compute_s / audio_s, "xrt": audio_s / compute_s}
