"""Runs one function over many files: progress, errors that don't stop the others, and the results at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from dmcodec.cli.common import print_json, progress_bar
from dmcodec.errors import DmcodecError

Result = dict[str, Any]


def run_files(
    verb: str,
    pairs: list[tuple[Path, Path]],
    work: Callable[[Path, Path], Result],
    describe: Callable[[Result], str],
    as_json: bool,
) -> None:
    """Calls work(input, output) for each pair.

    A file that fails is reported and the rest go on; what was written stays. Ends with exit code 1 if any failed. A
    single file's error is raised as it is.
    """
    results: list[Result] = []
    failures: list[Result] = []
    with progress_bar() as progress:
        for source, target in progress.track(pairs, description=verb):
            try:
                result = {"input": str(source), "output": str(target), **work(source, target)}
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
