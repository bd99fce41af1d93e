"""Runs a verb on many files, and prints what became of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dmcodec.errors import ArgumentError, DmcodecError, OutputError, OutputExistsError
from dmcodec.files import is_stdout
from dmcodec.text import one_line

from .common import print_json
from .files import Pair, Plan
from .left_out import left_out_json, warn_left_out
from .pipes import from_pipe, shown
from .progress import Report, show_progress

if TYPE_CHECKING:
    from dmcodec.runtime.file_batches import Outcome

    from .work import WorkFactory

Facts = dict[str, Any]
FileProgress = Callable[[float, float], None]  # takes the seconds of audio done, and all of them
LONG_S = 60.0  # longer files show their own progress


@dataclass(frozen=True)
class Printing:
    """How results are printed.

    Attributes:
        verb: in messages.
        describe: returns the lines of a result.
        as_json: print one JSON document instead.
        flat: with `as_json`, print the result of a file that was named alone without a list around it.
    """

    verb: str
    describe: Callable[[Facts], Sequence[str]]
    as_json: bool
    flat: bool = False


def run_files(plan: Plan, factory: WorkFactory, jobs: int, printing: Printing) -> None:
    """Do the work on each pair of the plan and print the results.

    A file that fails is reported, and the others go on; outputs that are written stay. The exit code is then 1. After
    a signal, the JSON document holds what was done, and "interrupted": true.

    Raises:
        ArgumentError: `--json` together with an output to stdout, no positive number of jobs, or several for a pipe.
        DmcodecError: there is one file only, and it failed.
    """
    if jobs < 1:
        raise ArgumentError(f"--jobs {jobs} must be at least 1")
    if plan.to_stdout and printing.as_json:
        raise ArgumentError("--json and --out -: both go to stdout; leave one out")
    pipes = [shown(pair.source) for pair in plan.pairs if from_pipe(pair.source)]
    if jobs > 1 and pipes:
        raise ArgumentError(f"--jobs {jobs}: other processes can't read {pipes[0]}; leave out --jobs, or name a file")
    warn_left_out(plan.left_out)
    run = _Run(plan, printing)
    for failure in plan.failures:
        run.fail(failure.source, failure.error)
    if plan.pairs:
        _sweep_folders(plan.pairs)
        try:
            with show_progress() as report:
                run.go(factory, min(jobs, len(plan.pairs)), report)
        except (KeyboardInterrupt, SystemExit):
            run.interrupted()
            raise
    run.finish()


def _sweep_folders(pairs: list[Pair]) -> None:
    from dmcodec.temporary import sweep

    for folder in {pair.target.parent for pair in pairs}:
        sweep(folder)


@dataclass
class _Run:
    """The state of `run_files`."""

    plan: Plan
    printing: Printing
    results: list[Facts] = field(default_factory=list)
    failures: list[Facts] = field(default_factory=list)
    errors: list[DmcodecError] = field(default_factory=list)
    elapsed_s: float = 0.0

    def go(self, factory: WorkFactory, jobs: int, report: Report) -> None:
        """Do the work on all pairs, in this process or in several."""
        from dmcodec.runtime.file_batches import run_work

        from .jobs import run_jobs

        verb, pairs = self.printing.verb, self.plan.pairs
        done = 0

        def record(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            self._record(pairs[outcome.index], outcome)
            report(f"{verb}, files", done, len(pairs))

        def progress(pair: Pair) -> FileProgress:
            return file_progress(report, one_line(f"{verb} {shown(Path(pair.source.name))}, seconds"))

        report(f"{verb}, files", 0, len(pairs))
        work = factory() if jobs == 1 else None  # an error of the codec is one error, not one of each file
        start = time.perf_counter()
        try:
            if work is None:
                run_jobs(factory, pairs, jobs, record)
            else:
                run_work(work, pairs, record, progress)
        finally:
            self.elapsed_s = time.perf_counter() - start

    def _record(self, pair: Pair, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.fail(pair.source, outcome.error)
            return
        target = "stdout" if is_stdout(pair.target) else str(pair.target)
        channel = {} if pair.channel is None else {"channel": pair.channel}
        result = {"input": str(pair.source), "output": target, **channel, **(outcome.facts or {})}
        self.results.append(result)
        if not self.printing.as_json:
            typer.echo("\n".join(map(one_line, self.printing.describe(result))), err=self.plan.to_stdout)

    def fail(self, source: Path, error: DmcodecError) -> None:
        """Note that a file failed, and print why; the file is named."""
        text = str(error) if shown(source) in str(error) else f"{shown(source)}: {error}"
        self.failures.append({"input": str(source), "error": text})
        self.errors.append(error)
        if not self.plan.is_one_error:
            typer.echo(f"error: {one_line(text)}", err=True)

    def finish(self) -> None:
        """Print the totals; raise the error of a single file, or exit where files failed."""
        if self.printing.as_json:
            flat = self.printing.flat and self.plan.one_file and self.results
            print_json(self.results[0] if flat else self._document())
        elif (self.plan.num_files > 1 and not (self.errors and self.plan.is_one_error)) or self.plan.skipped:
            typer.echo(self._total_line(), err=self.plan.to_stdout)
        if self.errors and self.plan.is_one_error:
            raise _with_count(self.errors)
        if self.errors:
            typer.echo(f"error: {len(self.errors)} of {self.plan.num_files} files failed", err=True)
            raise typer.Exit(1)

    def _document(self) -> Facts:
        return {
            "results": self.results,
            "failures": self.failures,
            "skipped": [{"input": str(pair.source), "output": str(pair.target)} for pair in self.plan.skipped],
            "left_out": left_out_json(self.plan.left_out),
            "total": self._total(),
        }

    def _total(self) -> Facts:
        audio_s = sum(result["duration_s"] for result in self.results)
        return {
            "files": len(self.results),
            "failures": len(self.failures),
            "skipped": len(self.plan.skipped),
            "audio_s": audio_s,
            "elapsed_s": self.elapsed_s,
            "xrt": audio_s / self.elapsed_s if audio_s else None,
        }

    def _total_line(self) -> str:
        total = self._total()
        files = "file" if total["files"] == 1 else "files"
        speed = f" in {total['elapsed_s']:.1f} s (xRT {total['xrt']:.1f})" if total["xrt"] else ""
        return (
            f"total: {total['files']} {files}, {total['audio_s']:.1f} s of audio{speed}, "
            f"{total['failures']} failed, {total['skipped']} skipped"
        )

    def interrupted(self) -> None:
        """Say how to go on; with `--json`, print the document of what was done, too."""
        if self.printing.as_json:
            with contextlib.suppress(OutputError, OSError):  # the signal decides on the exit code
                print_json({**self._document(), "interrupted": True})
        if self.plan.num_files > 1:
            done = len(self.results) + len(self.plan.skipped)
            typer.echo(
                f"interrupted: {done} of {self.plan.num_files} files are done; "
                "the same command with --skip-existing goes on with the others",
                err=True,
            )


def _with_count(errors: list[DmcodecError]) -> DmcodecError:
    first = errors[0]
    if len(errors) == 1:
        return first
    hint = "; --skip-existing leaves them out" if isinstance(first, OutputExistsError) else ""
    return type(first)(f"{first} (and {len(errors) - 1} more{hint})")


def file_progress(report: Report, stage: str) -> FileProgress:
    """Return a callback that reports a stage in seconds of audio; files of up to a minute are not reported."""

    def show(done_s: float, total_s: float) -> None:
        if total_s > LONG_S:
            report(stage, done_s, total_s)

    return show
