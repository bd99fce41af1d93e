"""Runs one function over many files: progress, errors that don't stop the others, and the results at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from dmcodec.cli.common import print_json, progress_bar
from dmcodec.errors import DmcodecError

Result = dict[str, Any]
FileProgress = Callable[[float, float], None]
LONG_S = 60.0  # files longer than this get a progress bar of their own


def run_files(
    verb: str,
    pairs: list[tuple[Path, Path]],
    work: Callable[[Path, Path, FileProgress], Result],
    describe: Callable[[Result], str],
    as_json: bool,
) -> None:
    """Calls work(input, output, progress) for each pair; progress takes the seconds done and the seconds there are.

    A file that fails is reported and the rest go on; what was written stays. Ends with exit code 1 if any failed. A
    single file's error is raised as it is.
    """
    results: list[Result] = []
    failures: list[Result] = []
    with progress_bar() as progress:
        seconds = progress.add_task("seconds", total=None, visible=False)

        def show(done_s: float, total_s: float) -> None:
            progress.update(seconds, completed=round(done_s), total=round(total_s), visible=total_s > LONG_S)

        for source, target in progress.track(pairs, description=verb):
            try:
                result = {"input": str(source), "output": str(target), **work(source, target, show)}
            except DmcodecError as error:
                if len(pairs) == 1:
                    raise
                failures.append({"input": str(source), "error": str(error)})
                typer.echo(f"error: {error}", err=True)
                continue
            results.append(result)
            if not as_json:
                typer.echo(describe(result))
    if as_json:
        print_json({"results": results, "failures": failures})
    if failures:
        typer.echo(f"error: {len(failures)} of {len(pairs)} files failed", err=True)
        raise typer.Exit(1)
