"""`dmcodec train fit --resume`: runs that were ended, killed or out of disk, and what is no resume."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from platforms import posix
from train_runs import QUIET, finished, same_run, train

from dmcodec.errors import CheckpointError, ConfigError, OutputExistsError
from dmcodec.nn import DMCodec
from dmcodec.training.config import TrainingConfig
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training.metrics_log import read_lines
from dmcodec.training.run_folder import RunFolder


def test_a_run_that_ended_early_goes_on_exactly(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(step: int, _total: int, _losses: object) -> None:
        if step == 5:
            raise StopError

    out = tmp_path / "run"
    with pytest.raises(StopError):
        fit(training_data, out, training_config, QUIET, report=stop)
    assert RunFolder(out).steps() == [0, 2, 4]
    assert [line["step"] for line in read_lines(out / "train.jsonl")] == [1, 2, 3, 4, 5]
    torch.randn(5)  # other random numbers in between
    fit(training_data, out, training_config, QUIET, resume=True)
    same_run(unbroken_run, out)


@posix
def test_a_killed_run_goes_on_exactly(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--checkpoint-every", "2", "--validate-every", "3", "--samples", "1", "--no-tensorboard"]
    process = train(tiny_data, out, training_config, *options)
    deadline = time.monotonic() + 100
    while len(read_lines(out / "train.jsonl")) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(read_lines(out / "train.jsonl")) < 6
    resumed = train(tiny_data, out, training_config, *options, "--resume", "--json")
    output, errors = finished(resumed)
    assert resumed.returncode == 0, errors
    assert json.loads(output)["steps"] == 6
    same_run(unbroken_run, out)


def test_a_fine_tuning_run_without_a_checkpoint_resumes_from_its_codec(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    initial, short = unbroken_run / "best" / "codec.safetensors", dataclasses.replace(training_config, steps=1)
    fit(training_data, tmp_path / "run", short, QUIET, initial=initial)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    fit(training_data, tmp_path / "run", short, QUIET, resume=True)
    start = RunFolder(tmp_path / "run").load(0).codec
    wanted = DMCodec.from_checkpoint(training_config.codec, initial).state_dict()
    assert all(torch.equal(start[name], wanted[name]) for name in wanted)
    assert [line["step"] for line in read_lines(tmp_path / "run" / "validation.jsonl")] == [0, 1]


def test_a_run_is_not_overwritten(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputExistsError, match="--resume"):
        fit(training_data, unbroken_run, training_config, QUIET)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no run"):
        fit(training_data, foreign, training_config, QUIET, force=True)
    assert (foreign / "thesis.txt").exists()
    with pytest.raises(CheckpointError, match="no run to resume"):
        fit(training_data, tmp_path / "none", training_config, QUIET, resume=True)


def test_another_configuration_is_no_resume(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path
) -> None:
    other = dataclasses.replace(training_config, losses=dataclasses.replace(training_config.losses, waveform=100.0))
    with pytest.raises(ConfigError, match=r"config\.losses\.waveform \(500\.0, now 100\.0\)"):
        fit(training_data, unbroken_run, other, QUIET, resume=True)


def test_a_run_from_before_a_setting_came_in_resumes(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    facts = json.loads((out / "run.json").read_text())
    del facts["config"]["losses"]["spectral"], facts["config"]["crop_s"], facts["config"]["consistency"]
    (out / "run.json").write_text(json.dumps(facts))
    assert fit(training_data, out, training_config, QUIET, resume=True)["steps"] == training_config.steps


def test_other_data_are_no_resume(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    meta = copy / "teachers" / "lm" / "meta.json"
    meta.write_text(meta.read_text().replace('"random"', '"another"'))
    with pytest.raises(ConfigError, match=r"data\.teachers\.lm\.model"):
        fit(PreparedData.open(copy), unbroken_run, training_config, QUIET, resume=True)


@pytest.mark.parametrize("name", ["codec.safetensors", "training.pt", "progress.json"])
def test_a_damaged_checkpoint_is_named(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    file = RunFolder(out).checkpoint_folder(6) / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="step-00000006"):
        fit(training_data, out, training_config, QUIET, resume=True)


def limited(megabytes: float) -> Callable[[], None]:
    """What makes a child process unable to write files above that size: as a full disk, in mid-save."""

    import resource  # POSIX only

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6), int(megabytes * 1e6)))

    return limit


@posix
@pytest.mark.parametrize("share", [0.5, 1.5], ids=["codec", "state"])
def test_a_full_disk_in_mid_save_leaves_the_last_good_checkpoint(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path, share: float
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    for step in (4, 6):
        shutil.rmtree(RunFolder(out).checkpoint_folder(step))
    size = (RunFolder(out).checkpoint_folder(2) / "codec.safetensors").stat().st_size
    file = tmp_path / "config.json"
    file.write_text(json.dumps(training_config.to_dict()))
    command = [sys.executable, "-m", "dmcodec", "train", "fit", str(tiny_data), "-o", str(out), "--config", str(file)]
    command += ["--resume", "--checkpoint-every", "2", "--validate-every", "100", "--samples", "0", "--no-tensorboard"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(share * size / 1e6),
    )
    assert done.returncode == 1
    assert "step-00000004: can't be written" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000002"]
    fit(PreparedData.open(tiny_data), out, training_config, dataclasses.replace(QUIET, samples=0), resume=True)
    assert read_lines(out / "train.jsonl") == read_lines(unbroken_run / "train.jsonl")


def test_other_segments_for_validation_are_no_resume(
    tiny_data: Path, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dmcodec.training.data.storage import sha256_of

    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    table = pq.read_table(copy / "segments.parquet")
    turned = ["train" if split == "validation" else "validation" for split in table.column("split").to_pylist()]
    index = table.schema.get_field_index("split")
    table = table.set_column(index, table.schema.field(index), pa.array(turned))
    pq.write_table(table, copy / "segments.parquet")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["segments_sha256"] = sha256_of(copy / "segments.parquet")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="segments_sha256"):
        fit(PreparedData.open(copy), unbroken_run, training_config, QUIET, resume=True)
