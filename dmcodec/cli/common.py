"""What the verbs share: options, loading a codec, progress, and printing results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from dmcodec.runtime import Codec

_DEFAULT_BUNDLE = "Bundle folder (default: the trained one that comes with dmcodec)."
BundleOption = Annotated[Path | None, typer.Option("--bundle", help=_DEFAULT_BUNDLE, metavar="DIR")]
BundleArgument = Annotated[Path | None, typer.Argument(help=_DEFAULT_BUNDLE, metavar="[BUNDLE]")]
BackendOption = Annotated[str, typer.Option(help="What runs the graphs: onnxruntime or tensorrt.")]
ProviderOption = Annotated[str, typer.Option(help="Where onnxruntime runs them: cpu, cuda or tensorrt.")]
RunProviderOption = Annotated[
    str | None,
    typer.Option("--provider", help="Where onnxruntime runs them: cpu, cuda or tensorrt (default: cpu)."),
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads (default: all CPUs of the process).")]
EngineCacheOption = Annotated[
    Path | None, typer.Option(help="Folder of TensorRT engines (default: engines/ in the bundle).", metavar="DIR")
]
NqOption = Annotated[int | None, typer.Option("--n-q", help="Quantizer levels to use (default: all).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]

PIPE_WIDTH = 160


def console(stderr: bool = False) -> Console:
    """A rich console; in a pipe it is wide enough for every table."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def note(message: str) -> None:
    """A remark to the user on stderr."""
    typer.echo(f"note: {message}", err=True)


def load_codec(
    bundle: Path | None,
    backend: str,
    provider: str | None,
    threads: int | None,
    engine_cache: Path | None = None,
) -> Codec:
    """The codec of `bundle`, or of the one that comes with dmcodec where none is named."""
    from dmcodec.runtime import Codec

    return Codec.load(bundle, backend=backend, provider=provider, threads=threads, engine_cache=engine_cache)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on a terminal, nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    errors = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True)
    if not errors.is_terminal:  # rich before 14.3 ends even a disabled bar with an empty line
        yield progress
        return
    with progress:
        yield progress


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for work that reports (stage, done, total)."""
    with progress_bar() as bar:
        task = bar.add_task("")

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield show


@contextmanager
def stage_bars(hide_done: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage of work that reports (stage, done, total)."""
    with progress_bar() as progress:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total, visible=done < total or not hide_done)

        yield report


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2))


def speed(compute_s: float, audio_s: float) -> dict[str, float]:
    """Compute time, RTF (compute time / audio time) and xRT (its inverse)."""
    return {"compute_s": compute_s, "rtf": compute_s / audio_s, "xrt": audio_s / compute_s}
