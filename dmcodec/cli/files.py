"""Inputs and outputs of a verb: globs and folders become files, and every file gets its output."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import typer

from dmcodec.errors import ArgumentError, DmcodecError
from dmcodec.files import refuse_existing

from .common import print_json, progress_bar

# FOLDED: Runs one function over many files: progress, errors that don't stop the others, and the results at the end.


def plan(inputs: list[str], output: Path, suffix: str, search: Collection[str], force: bool) -> list[tuple[Path, Path]]:
    """Pairs each input file with its output file.

    Args:
        inputs: files, glob patterns, and folders, which are searched for `search` suffixes.
        output: a file for one input file; a folder for several, for a folder, or where it is a folder already.
        suffix: of the outputs that go into a folder; the layout below an input folder is kept.
        search: suffixes that count in a folder.
        force: overwrite outputs that exist.

    Raises:
        InputNotFoundError: an input doesn't exist, or a folder or pattern holds nothing.
        ArgumentError: several inputs and one output file, or two inputs with the same output.
        OutputExistsError: an output exists, and `force` is false.
    """
    from dmcodec.audio_sources import find_files

    found = find_files(inputs, search)
    one_file = len(found) == 1 and not _is_dir(Path(inputs[0]))
    into_folder = _is_dir(output) or not output.suffix
    if not into_folder and not one_file:
        raise ArgumentError(f"-o {output}: several inputs, or a folder, need a folder as output, not a file")
    if into_folder:
        pairs = [(file.path, (output / file.relative).with_suffix(suffix)) for file in found]
    else:
        pairs = [(found[0].path, output)]
    _refuse_collisions(pairs)
    for _, target in pairs:
        refuse_existing(target, force)
    return pairs


def _is_dir(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where the name is too long


def _refuse_collisions(pairs: list[tuple[Path, Path]]) -> None:
    sources: dict[Path, Path] = {}
    for source, target in pairs:
        if target in sources and sources[target] != source:
            raise ArgumentError(f"{sources[target]} and {source} would both be written to {target}; run them apart")
        sources[target] = source


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
