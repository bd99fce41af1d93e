"""Expands the inputs of a verb to files, pairs each with its output, and runs the work on each pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import typer

from dmcodec.errors import ArgumentError, DmcodecError
from dmcodec.files import refuse_existing

from .common import print_json
from .progress import Report, show_progress

Result = dict[str, Any]
FileProgress = Callable[[float, float], None]  # takes the seconds of audio done, and all of them
LONG_S = 60.0  # longer files show their own progress


def plan(inputs: list[str], output: Path, suffix: str, search: Collection[str], force: bool) -> list[tuple[Path, Path]]:
    """Pair each input file with its output file.

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
        raise ArgumentError(f"--out {output}: several inputs, or a folder, need a folder as output, not a file")
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
            raise ArgumentError(
                f"{sources[target]} and {source} would both be written to {target}; run them separately"
            )
        sources[target] = source


def run_files(
    verb: str,
    pairs: list[tuple[Path, Path]],
    work: Callable[[Path, Path, FileProgress], Result],
    describe: Callable[[Result], str],
    as_json: bool,
) -> None:
    """Call work(input, output, progress) for each pair and print the results.

    A file that fails is reported, and the others go on; outputs that are written stay. The exit code is then 1. Where
    there is one file only, its error is raised.
    """
    results: list[Result] = []
    failures: list[Result] = []
    with show_progress() as report:
        for index, (source, target) in enumerate(pairs):
            report(f"{verb}, files", index, len(pairs))
            progress = file_progress(report, f"{verb} {source.name}, seconds")
            try:
                result = {"input": str(source), "output": str(target), **work(source, target, progress)}
            except DmcodecError as error:
                if len(pairs) == 1:
                    raise
                failures.append({"input": str(source), "error": str(error)})
                typer.echo(f"error: {error}", err=True)
                continue
            results.append(result)
            if not as_json:
                typer.echo(describe(result))
        report(f"{verb}, files", len(pairs), len(pairs))
    if as_json:
        print_json({"results": results, "failures": failures})
    if failures:
        typer.echo(f"error: {len(failures)} of {len(pairs)} files failed", err=True)
        raise typer.Exit(1)


def file_progress(report: Report, stage: str) -> FileProgress:
    """Return a callback that reports a stage in seconds of audio; files of up to a minute are not reported."""

    def show(done_s: float, total_s: float) -> None:
        if total_s > LONG_S:
            report(stage, done_s, total_s)

    return show
