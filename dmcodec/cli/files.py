"""Expands the inputs of a verb to files, and pairs each with its output: what is to be done, skipped, or can't be."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dmcodec.errors import ArgumentError, DmcodecError, OutputExistsError
from dmcodec.file_search import NO_NEEDS, STDIN, FoundFile, LeftOut, search
from dmcodec.files import STDOUT, is_special, is_stdout, refuse_existing, refuse_inputs

DASH = "-"  # as an output, stdout


@dataclass(frozen=True)
class Pair:
    """A file and its output.

    Attributes:
        source, target: the two.
        replace: whether an output that is there is replaced.
        channel: of the audio, from 0 on; None for the mean of all, or where there is no audio.
    """

    source: Path
    target: Path
    replace: bool = False
    channel: int | None = None


@dataclass(frozen=True)
class Failure:
    """A file that can't be used, or an argument that names none."""

    source: Path
    error: DmcodecError


@dataclass(frozen=True)
class Plan:
    """What to do with the inputs of a verb.

    Attributes:
        pairs: to be done, in the order of the inputs.
        failures: what can't be.
        skipped: what is done already (`--skip-existing`).
        left_out: what of the named folders does not count.
        one_file: whether a single file was named.
    """

    pairs: list[Pair] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: list[Pair] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    one_file: bool = False

    @property
    def num_files(self) -> int:
        """All files but those that are left out."""
        return len(self.pairs) + len(self.failures) + len(self.skipped)

    @property
    def is_one_error(self) -> bool:
        """Whether there is one file, or nothing is to be done, for one reason: then that is the error of the call."""
        reasons = {type(failure.error) for failure in self.failures}
        return self.num_files == 1 or (len(reasons) == 1 and not self.pairs and not self.skipped)

    @property
    def to_stdout(self) -> bool:
        """Whether the output is stdout."""
        return any(is_stdout(pair.target) for pair in self.pairs)


@dataclass(frozen=True)
class Outputs:
    """How a verb names and treats its outputs.

    Attributes:
        out: `--out`: a file for one input file; a folder for several, for a folder, where it is a folder already, has
            no suffix, or ends in a slash; "-" is stdout.
        suffix: of the outputs that go into a folder; the layout below an input folder is kept.
        check: raises an error for an output whose suffix is wrong.
        complete: returns whether an output is that of an input, and complete. It returns False for one that is to be
            made again, and raises an error for a file that isn't such an output.
        force: overwrite outputs that exist.
        skip_existing: leave out inputs whose output is complete.
        channel: of the audio, for each pair.
        each_of: returns the number of channels of an input: each channel then has an output of its own, OUT.ch0.dmc and
            so on.
    """

    out: str
    suffix: str
    check: Callable[[Path], object]
    complete: Callable[[Path, Path], bool]
    force: bool = False
    skip_existing: bool = False
    channel: int | None = None
    each_of: Callable[[Path], int] | None = None

    def __post_init__(self) -> None:
        if self.force and self.skip_existing:
            raise ArgumentError("--force and --skip-existing exclude each other; the one replaces what the other keeps")


def plan(
    inputs: Sequence[str], outputs: Outputs, suffixes: Collection[str], needs: Mapping[str, str] = NO_NEEDS
) -> Plan:
    """Pair each input file with its output file.

    Args:
        inputs: files, glob patterns, folders, which are searched for `suffixes`, or "-" for stdin.
        outputs: where they go.
        suffixes: that count in a folder.
        needs: suffixes that would count if something were there, each with what it needs.

    Raises:
        ArgumentError: several inputs and one output file, or an output of a wrong kind.
    """
    if STDIN in inputs and len(inputs) > 1:
        raise ArgumentError("- is stdin, and stands alone; name files, or pipe one")
    out = outputs.out
    found = search(inputs, suffixes, Path(out) if out != DASH else None, needs)
    files = list(dict.fromkeys(found.files))
    one_file = len(files) == 1 and len(inputs) == 1 and not _is_dir(inputs[0])
    failures = [Failure(problem.path, problem.error) for problem in found.problems]
    result = Plan(failures=failures, left_out=found.left_out, one_file=one_file)
    pairs = [
        part for pair in _paired(files, outputs, one_file) for part in _of_channels(pair, outputs, result.failures)
    ]
    for pair in _without_collisions(pairs, result.failures):
        _sort_in(pair, outputs, result)
    return result


def _paired(files: Sequence[FoundFile], outputs: Outputs, one_file: bool) -> list[Pair]:
    out = outputs.out
    if not files:
        return []
    if out == DASH:
        if not one_file:
            raise ArgumentError("--out -: stdout takes one file; several inputs, or a folder, need a folder as output")
        refuse_terminal()
        return [Pair(files[0].path, STDOUT)]
    path = Path(out)
    if _is_folder_name(out):
        if os.path.exists(path) and not _is_dir(out):  # noqa: PTH110 - Path.exists raises where the name is too long
            raise ArgumentError(f"--out {out}: is no folder; name a new one")
        return [Pair(file.path, path / _relative(file, outputs.suffix)) for file in files]
    if not one_file:
        raise ArgumentError(
            f"--out {out}: several inputs, or a folder, need a folder as output, not a file; end its name in a slash"
        )
    if not is_special(path):
        outputs.check(path)
    return [Pair(files[0].path, path)]


def _of_channels(pair: Pair, outputs: Outputs, failures: list[Failure]) -> Iterator[Pair]:
    """Yield a pair with its channel; or one for each channel, where each has an output of its own."""
    if outputs.each_of is None:
        yield replace(pair, channel=outputs.channel)
        return
    if is_special(pair.target):
        raise ArgumentError(f"--out {outputs.out}: takes one channel; several channels need a file or a folder")
    try:
        count = outputs.each_of(pair.source)
    except DmcodecError as error:
        failures.append(Failure(pair.source, error))
        return
    for channel in range(count):
        target = pair.target.with_name(f"{pair.target.stem}.ch{channel}{pair.target.suffix}")
        yield Pair(pair.source, target, channel=channel)


def _is_folder_name(out: str) -> bool:
    if out.endswith(("/", os.sep)) or _is_dir(out):
        return True
    return not Path(out).suffix and not is_special(Path(out))


def _relative(file: FoundFile, suffix: str) -> Path:
    return Path(f"stdin{suffix}") if str(file.path) == STDIN else file.relative.with_suffix(suffix)


def _is_dir(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where the name is too long


def _without_collisions(pairs: Sequence[Pair], failures: list[Failure]) -> list[Pair]:
    """Return the pairs whose output is theirs alone; the others are failures."""
    by_target: dict[Path, list[Pair]] = {}
    for pair in pairs:
        by_target.setdefault(pair.target, []).append(pair)
    alone = []
    for pair in pairs:
        others = [other for other in by_target[pair.target] if other is not pair]
        if others:
            error = ArgumentError(
                f"{pair.source} and {others[0].source} would both be written to {pair.target}; run them separately"
            )
            failures.append(Failure(pair.source, error))
        else:
            alone.append(pair)
    return alone


def _sort_in(pair: Pair, outputs: Outputs, result: Plan) -> None:
    """Put a pair where it belongs in the plan."""
    try:
        refuse_inputs(pair.target, pair.source)
        if outputs.skip_existing and os.path.exists(pair.target) and not is_special(pair.target):  # noqa: PTH110
            if outputs.complete(pair.source, pair.target):
                result.skipped.append(pair)
                return
            replaced = True
        else:
            refuse_existing(pair.target, outputs.force)
            replaced = outputs.force
    except DmcodecError as error:
        result.failures.append(Failure(pair.source, error))
    else:
        result.pairs.append(replace(pair, replace=replaced))


def foreign(target: Path, what: str) -> OutputExistsError:
    """Return the error for an output that `--skip-existing` finds, and that is something else."""
    return OutputExistsError(f"{target}: exists, but is {what}; remove it, give another name, or use --force")


def refuse_terminal() -> None:
    """Raise ArgumentError if stdout is closed, or a terminal, which audio and tokens would only garble."""
    import sys

    if sys.stdout is None:
        raise ArgumentError("--out -: stdout is closed")
    if sys.stdout.isatty():
        raise ArgumentError("--out -: stdout is a terminal; lead it into a file or a pipe, or name a file")
