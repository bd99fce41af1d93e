"""Runs that a scheduler ends, that are extended, and that resume from their own files alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from platforms import posix
from train_runs import QUIET, finished, same_run, train

from dmcodec.errors import CheckpointError, ConfigError
from dmcodec.nn import DMCodec
from dmcodec.temporary import OLD, PART, name_of
from dmcodec.training.config import TrainingConfig
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training.metrics_log import read_lines
from dmcodec.training.quantizer import fill_statistics
from dmcodec.training.run_folder import RunFolder
from dmcodec.training.stopping import SIGNALS, StopSignals, ignore_stop_signals
from dmcodec.training.trainer import learning_rate

SHORT = dataclasses.replace(QUIET, samples=0)


def raises_signal(number: signal.Signals, at_step: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def report(step: int, _total: int, _losses: Mapping[str, float]) -> None:
        if step == at_step:
            signal.raise_signal(number)

    return report


@posix
def test_a_signal_saves_and_the_run_goes_on_exactly(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    """After steps 1, 3 and 4; at 4 there is a checkpoint anyway."""
    out = tmp_path / "run"
    for index, (number, step) in enumerate(((signal.SIGUSR1, 1), (signal.SIGTERM, 3), (signal.SIGINT, 4))):
        before = signal.getsignal(number)
        with StopSignals() as stop:
            report = raises_signal(number, step)
            result = fit(training_data, out, training_config, QUIET, resume=index > 0, report=report, stop=stop)
        assert (result["steps"], result["stopped"]) == (step, True)
        assert stop.exit_code == 128 + number
        assert RunFolder(out).steps()[-1] == step
        assert signal.getsignal(number) == before
    assert not fit(training_data, out, training_config, QUIET, resume=True)["stopped"]
    same_run(unbroken_run, out)


@posix
def test_the_command_ends_with_the_signals_number(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    """And the command that it prints goes on, with the configuration and the options of the run."""
    import shlex

    out = tmp_path / "a run"
    options = ["--checkpoint-every", "2", "--validate-every", "3", "--samples", "1", "--no-tensorboard"]
    process = train(tiny_data, out, training_config, *options, "--workers", "1")
    deadline = time.monotonic() + 100
    while not read_lines(out / "train.jsonl") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)  # schedulers send several
    output, errors = finished(process)
    assert process.returncode in (128 + signal.SIGUSR1, 128 + signal.SIGTERM), errors
    [hint] = [line.removeprefix("next: ") for line in output.splitlines() if line.startswith("next: ")]
    assert shlex.split(hint)[-1] == "--resume"
    steps = RunFolder(out).steps()[-1]
    assert steps == len(read_lines(out / "train.jsonl")) < 6
    from dmcodec.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*shlex.split(hint), *options])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    same_run(unbroken_run, out)


@posix
def test_signals_that_are_ignored_stay_ignored() -> None:
    """As nohup has it; and a second Ctrl-C ends the process at once."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGINT)
            assert stop.received == signal.SIGUSR2
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_loading_processes_ignore_the_signals() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ignore_stop_signals(0)
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_is_extended(training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path) -> None:
    """With the learning rate of the longer run from there on; and never shortened."""
    out, short = tmp_path / "run", dataclasses.replace(training_config, steps=2)
    fit(training_data, out, short, SHORT)
    result = fit(training_data, out, dataclasses.replace(training_config, steps=4), SHORT, resume=True)
    assert result["steps"] == 4
    rates = [line["learning_rate"] for line in read_lines(out / "train.jsonl")]
    optimizer = training_config.optimizer
    assert rates == [learning_rate(step, 2 if step < 2 else 4, optimizer) for step in range(4)]
    assert RunFolder(out).config().steps == 4
    record = json.loads((out / "run.json").read_text())["extended"]
    assert record == [{"after_step": 2, "steps": 2, "epochs": training_config.epochs}]
    with pytest.raises(ConfigError, match=r"run goes to 4 steps.* cut to 2.*--steps 4"):
        fit(training_data, out, short, SHORT, resume=True)


def test_a_run_resumes_without_the_checkpoint_it_started_from_and_with_moved_data(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    initial, moved, out = tmp_path / "init", tmp_path / "moved", tmp_path / "run"
    shutil.copytree(unbroken_run / "best", initial)
    shutil.copytree(tiny_data, tmp_path / "data")
    short = dataclasses.replace(training_config, steps=1)
    fit(PreparedData.open(tmp_path / "data"), out, short, SHORT, initial=initial)  # a folder
    shutil.rmtree(initial)
    (tmp_path / "data").rename(moved)
    longer = dataclasses.replace(training_config, steps=2)
    assert fit(PreparedData.open(moved), out, longer, SHORT, resume=True)["steps"] == 2
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(CheckpointError, match=f"{initial}: no such"):
        fit(PreparedData.open(moved), out, longer, SHORT, resume=True)


@pytest.mark.parametrize("new_is_whole", [True, False])
def test_a_kill_between_two_renames_loses_no_codec(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path, new_is_whole: bool
) -> None:
    """Of `best`, and of a checkpoint that is written a second time."""
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    wanted = (out / "best" / "codec.safetensors").read_bytes()
    last = RunFolder(out).checkpoint_folder(6)
    for folder in (out / "best", last):
        new, old = (folder.parent / f".{folder.name}.{name}" for name in ("k3j2h1", "old.a1b2c3"))
        shutil.copytree(folder, new)
        if not new_is_whole:
            (new / "codec.safetensors").write_bytes(b"x")
        old.mkdir()
        folder.rename(old / "was")
    fit(training_data, out, training_config, SHORT, resume=True)
    assert (out / "best" / "codec.safetensors").read_bytes() == wanted
    assert RunFolder(out).steps() == [2, 4, 6]
    assert not list(out.glob(".best*"))
    assert not list((out / "checkpoints").glob(".*"))
    RunFolder(out).load(6)


@posix
def test_what_a_killed_save_had_put_aside_comes_back(unbroken_run: Path, tmp_path: Path) -> None:
    """As systems have it that can't exchange two names."""
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    aside, new = (name_of(out / "best", mark) for mark in (OLD, PART))
    shutil.copytree(out / "best", new)
    (new / "codec.safetensors").write_bytes(b"newer")
    wanted = (out / "best" / "codec.safetensors").read_bytes()
    aside.mkdir()
    (out / "best").rename(aside / "best")
    RunFolder(out).recover()
    assert (out / "best" / "codec.safetensors").read_bytes() == wanted
    assert not list(out.glob(".*"))


def test_the_only_copy_may_be_the_new_one(unbroken_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    (out / "best").rename(out / ".best.k3j2h1")
    RunFolder(out).recover()
    assert (out / "best" / "metrics.json").is_file()
    (out / "best").rename(out / ".best.k3j2h1")
    (out / ".best.k3j2h1" / "metrics.json").unlink()  # the last file that is written
    RunFolder(out).recover()
    assert not (out / "best").exists()


def test_codebooks_without_statistics_are_kept_when_training_goes_on(training_config: TrainingConfig) -> None:
    """With counts of 0, every entry would be replaced in the first step."""
    from dmcodec.training.quantizer import update

    codec = DMCodec.seeded(training_config.codec)
    fill_statistics(codec.quantizer)
    book = codec.quantizer.levels[0]
    before = book.embed.clone()
    update(book, before[:3], torch.arange(3), training_config.quantizer, 100_000)
    torch.testing.assert_close(book.embed, before, rtol=1e-4, atol=1e-5)
