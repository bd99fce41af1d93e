"""`dmcodec train fit`: whole small runs, killed and resumed, on one process and on two, and what may go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from dmcodec.config import CodecConfig
from dmcodec.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    DataError,
    OutputExistsError,
    TeacherNotFoundError,
    TrainingError,
)
from dmcodec.nn import DMCodec
from dmcodec.training.batches import BatchPlan, Segments, training_batches
from dmcodec.training.config import (
    DiscriminatorConfig,
    DistillationConfig,
    LossConfig,
    MelScaleConfig,
    OptimizerConfig,
    SpectralConfig,
    TrainingConfig,
)
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training.loop import RunOptions
from dmcodec.training.run_folder import RunFolder, read_lines

QUIET = RunOptions(checkpoint_every=2, validate_every=3, samples=1, tensorboard=False)


@pytest.fixture(scope="session")
def config(tiny_config: CodecConfig) -> TrainingConfig:
    return TrainingConfig(
        codec=tiny_config,
        losses=LossConfig(mel=(MelScaleConfig(512, 120, 45.0), MelScaleConfig(128, 30, 1.0))),
        discriminators=DiscriminatorConfig((2,), 1, 0.05, (128,), 2),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        batch_size=2,
        steps=6,
    )


@pytest.fixture(scope="session")
def data(tiny_data: Path) -> PreparedData:
    return PreparedData.open(tiny_data)


@pytest.fixture(scope="session")
def unbroken(data: PreparedData, config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit(data, out, config, dataclasses.replace(QUIET, tensorboard=True))
    return out


def train(data: Path, out: Path, config: TrainingConfig, *arguments: str) -> subprocess.Popen[str]:
    """`dmcodec train fit` as a process."""
    file = out.parent / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "dmcodec", "train", "fit", str(data), "-o", str(out), "--config", str(file)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=120)
    return output, errors


def same_run(first: Path, second: Path) -> None:
    """The same losses at every step, and the same weights at the end, bit by bit."""
    assert read_lines(first / "train.jsonl") == read_lines(second / "train.jsonl")
    assert read_lines(first / "validation.jsonl") == read_lines(second / "validation.jsonl")
    last = RunFolder(first).steps()[-1]
    one, other = RunFolder(first).load(last), RunFolder(second).load(last)
    assert all(torch.equal(one.codec[name], other.codec[name]) for name in one.codec)
    torch.testing.assert_close(dict(one.state), dict(other.state), rtol=0, atol=0)


def test_a_run_leaves_what_it_promises(unbroken: Path, config: TrainingConfig) -> None:
    lines = read_lines(unbroken / "train.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    names = {"waveform", "mel", "commitment", "distillation_lm", "distillation_sm", "adversarial", "feature_matching"}
    assert names < lines[0].keys()
    assert [line["step"] for line in read_lines(unbroken / "validation.jsonl")] == [0, 3, 6]
    assert RunFolder(unbroken).steps() == [2, 4, 6]  # of 0, 2, 4, 6 the last three
    originals = list((unbroken / "samples").glob("*/original.wav"))
    assert len(originals) == 1
    output, rate = soundfile.read(originals[0].parent / "step-00000006.wav")
    assert rate == 16000
    assert len(output) == len(soundfile.read(originals[0])[0])
    assert list((unbroken / "tensorboard").iterdir())
    assert json.loads((unbroken / "run.json").read_text())["config"] == config.to_dict()


def test_tensorboard_holds_losses_audio_and_spectrograms(unbroken: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(unbroken / "tensorboard"), size_guidance={"audio": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/mel", "train/generator", "validation/mel", "validation/perplexity_0"} <= set(tags["scalars"])
    assert any(tag.endswith("output/audio") for tag in tags["audio"])
    assert any(tag.endswith("original/mel") for tag in tags["images"])
    line = read_lines(unbroken / "train.jsonl")[-1]
    assert events.Scalars("train/mel")[-1].value == pytest.approx(line["mel"])


def test_the_best_is_the_one_with_the_lowest_mel_distance(unbroken: Path) -> None:
    best = json.loads((unbroken / "best" / "metrics.json").read_text())
    found = [line for line in read_lines(unbroken / "validation.jsonl") if line["step"] > 0]
    assert best["mel"] == min(line["mel"] for line in found)
    DMCodec.from_checkpoint(unbroken / "best" / "config.json", unbroken / "best" / "codec.safetensors")


def test_what_was_trained_exports(unbroken: Path, tmp_path: Path) -> None:
    checkpoint, bundle = RunFolder(unbroken).checkpoint_folder(6), tmp_path / "bundle"
    command = [sys.executable, "-m", "dmcodec", "export", "--out", str(bundle), "--json"]
    command += ["--checkpoint", str(checkpoint / "codec.safetensors"), "--config", str(checkpoint / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["cases"]


def test_a_run_that_ended_early_goes_on_exactly(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(step: int, _total: int, _losses: object) -> None:
        if step == 5:
            raise StopError

    out = tmp_path / "run"
    with pytest.raises(StopError):
        fit(data, out, config, QUIET, report=stop)
    assert RunFolder(out).steps() == [0, 2, 4]
    assert [line["step"] for line in read_lines(out / "train.jsonl")] == [1, 2, 3, 4, 5]
    torch.randn(5)  # other random numbers in between
    fit(data, out, config, QUIET, resume=True)
    same_run(unbroken, out)


def test_a_killed_run_goes_on_exactly(tiny_data: Path, config: TrainingConfig, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--checkpoint-every", "2", "--validate-every", "3", "--samples", "1", "--no-tensorboard"]
    process = train(tiny_data, out, config, *options)
    deadline = time.monotonic() + 100
    while len(read_lines(out / "train.jsonl")) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(read_lines(out / "train.jsonl")) < 6
    resumed = train(tiny_data, out, config, *options, "--resume", "--json")
    output, errors = finished(resumed)
    assert resumed.returncode == 0, errors
    assert json.loads(output)["steps"] == 6
    same_run(unbroken, out)


def test_gradient_accumulation_adds_up(data: PreparedData, config: TrainingConfig, tmp_path: Path) -> None:
    changed = dataclasses.replace(config, gradient_accumulation=2, steps=2)
    fit(data, tmp_path / "run", changed, QUIET)
    lines = read_lines(tmp_path / "run" / "train.jsonl")
    assert [line["step"] for line in lines] == [1, 2]


def test_losses_fall_and_a_resumed_finished_run_is_finished(
    data: PreparedData, config: TrainingConfig, tmp_path: Path
) -> None:
    longer = dataclasses.replace(config, steps=25, discriminators=DiscriminatorConfig((), 0, 1.0, (), 1))
    options = dataclasses.replace(QUIET, checkpoint_every=100, validate_every=100)
    result = fit(data, tmp_path / "run", longer, options)
    lines = read_lines(tmp_path / "run" / "validation.jsonl")
    assert lines[-1]["mel"] < 0.8 * lines[0]["mel"]
    assert "adversarial" not in read_lines(tmp_path / "run" / "train.jsonl")[0]
    again = fit(data, tmp_path / "run", longer, options, resume=True)
    assert again["steps"] == result["steps"] == 25
    assert again["best_mel"] == result["best_mel"]


def test_discriminators_join_at_their_step(data: PreparedData, config: TrainingConfig, tmp_path: Path) -> None:
    later = dataclasses.replace(
        config, steps=3, discriminators=dataclasses.replace(config.discriminators, start_step=2)
    )
    fit(data, tmp_path / "run", later, QUIET)
    assert ["adversarial" in line for line in read_lines(tmp_path / "run" / "train.jsonl")] == [False, False, True]


def test_training_starts_from_a_checkpoint(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    initial = unbroken / "best" / "codec.safetensors"
    fit(data, tmp_path / "run", dataclasses.replace(config, steps=1), QUIET, initial=initial)
    start = RunFolder(tmp_path / "run").load(0).codec
    wanted = DMCodec.from_checkpoint(config.codec, initial).state_dict()
    assert all(torch.equal(start[name], wanted[name]) for name in wanted)


def test_fine_tuning_keeps_the_codebooks_it_starts_from(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    initial = unbroken / "best" / "codec.safetensors"
    gentle = dataclasses.replace(config, steps=2, optimizer=OptimizerConfig(learning_rate=1e-7))
    fit(data, tmp_path / "run", gentle, QUIET, initial=initial)
    before, after = (RunFolder(tmp_path / "run").load(step).codec for step in (0, 2))
    name = "quantizer.vq.layers.0._codebook.embed"
    moved = (after[name] - before[name]).norm(dim=1) / before[name].norm(dim=1)
    assert moved.median() < 0.05
    assert (
        json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())["mel"]
        <= read_lines(tmp_path / "run" / "validation.jsonl")[0]["mel"]
    )


def test_a_fine_tuning_run_without_a_checkpoint_resumes_from_its_codec(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    initial, short = unbroken / "best" / "codec.safetensors", dataclasses.replace(config, steps=1)
    fit(data, tmp_path / "run", short, QUIET, initial=initial)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    fit(data, tmp_path / "run", short, QUIET, resume=True)
    start = RunFolder(tmp_path / "run").load(0).codec
    wanted = DMCodec.from_checkpoint(config.codec, initial).state_dict()
    assert all(torch.equal(start[name], wanted[name]) for name in wanted)
    assert [line["step"] for line in read_lines(tmp_path / "run" / "validation.jsonl")] == [0, 1]


def test_force_deletes_nothing_that_the_run_needs_and_no_run_for_a_typo(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    with pytest.raises(ArgumentError, match="--init lies in the run"):
        fit(data, out, config, QUIET, initial=out / "best" / "codec.safetensors", force=True)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        fit(data, out, config, QUIET, initial=tmp_path / "typo.safetensors", force=True)
    assert RunFolder(out).steps() == [2, 4, 6]


def test_what_else_lies_about_is_left_alone(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.copytree(RunFolder(out).checkpoint_folder(6), out / "checkpoints" / "step-good")
    (out / "checkpoints" / ".step-00000008.abc").mkdir()
    assert fit(data, out, config, QUIET, resume=True)["steps"] == 6
    assert sorted(path.name for path in (out / "checkpoints").iterdir())[-2:] == ["step-00000006", "step-good"]
    assert not (out / "checkpoints" / ".step-00000008.abc").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExistsError, match="is a file"):
        fit(data, tmp_path / "file", config, QUIET)


def test_nan_is_found_at_once_and_the_last_checkpoint_survives(
    data: PreparedData, config: TrainingConfig, tmp_path: Path
) -> None:
    exploding = dataclasses.replace(config, optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"step \d+: .*NaN or infinite .*segments"):
        fit(data, tmp_path / "run", exploding, QUIET)
    steps = RunFolder(tmp_path / "run").steps()
    assert all(torch.isfinite(tensor).all() for tensor in RunFolder(tmp_path / "run").load(steps[-1]).codec.values())


def test_a_run_is_not_overwritten(data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="--resume"):
        fit(data, unbroken, config, QUIET)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no run"):
        fit(data, foreign, config, QUIET, force=True)
    assert (foreign / "thesis.txt").exists()
    with pytest.raises(CheckpointError, match="no run to resume"):
        fit(data, tmp_path / "none", config, QUIET, resume=True)


def test_another_configuration_is_no_resume(data: PreparedData, config: TrainingConfig, unbroken: Path) -> None:
    other = dataclasses.replace(config, losses=dataclasses.replace(config.losses, waveform=100.0))
    with pytest.raises(ConfigError, match=r"config\.losses\.waveform \(500\.0, now 100\.0\)"):
        fit(data, unbroken, other, QUIET, resume=True)


def test_a_run_from_before_a_setting_came_in_resumes(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    facts = json.loads((out / "run.json").read_text())
    del facts["config"]["losses"]["spectral"], facts["config"]["crop_s"]
    (out / "run.json").write_text(json.dumps(facts))
    assert fit(data, out, config, QUIET, resume=True)["steps"] == config.steps


def test_other_data_are_no_resume(tiny_data: Path, config: TrainingConfig, unbroken: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    meta = copy / "teachers" / "lm" / "meta.json"
    meta.write_text(meta.read_text().replace('"random"', '"another"'))
    with pytest.raises(ConfigError, match=r"data\.teachers\.lm\.model"):
        fit(PreparedData.open(copy), unbroken, config, QUIET, resume=True)


@pytest.mark.parametrize("name", ["codec.safetensors", "training.pt", "progress.json"])
def test_a_damaged_checkpoint_is_named(
    data: PreparedData, config: TrainingConfig, unbroken: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    file = RunFolder(out).checkpoint_folder(6) / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="step-00000006"):
        fit(data, out, config, QUIET, resume=True)


def test_data_that_do_not_fit(data: PreparedData, config: TrainingConfig, tiny_data: Path, tmp_path: Path) -> None:
    slower = dataclasses.replace(config, codec=dataclasses.replace(config.codec, sample_rate=8000))
    wide = dataclasses.replace(config, losses=LossConfig(mel=(MelScaleConfig(16384, 240, 1.0),)))
    with pytest.raises(DataError, match="16000 Hz"):
        fit(data, tmp_path / "a", slower, QUIET)
    spectral = dataclasses.replace(config, losses=LossConfig(spectral=(SpectralConfig(16384, 240, 1.0),)))
    for n, too_wide in enumerate((wide, spectral)):
        with pytest.raises(DataError, match="shortest segment has 8000 samples"):
            fit(data, tmp_path / f"b{n}", too_wide, QUIET)
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    shutil.rmtree(copy / "teachers" / "sm")
    with pytest.raises(TeacherNotFoundError, match="has no sm teacher"):
        fit(PreparedData.open(copy), tmp_path / "c", config, QUIET)
    fit(
        PreparedData.open(copy),
        tmp_path / "d",
        dataclasses.replace(config, steps=1, distillation=DistillationConfig(("lm",))),
        QUIET,
    )
    assert not (tmp_path / "a").exists()


def test_options_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="--checkpoint-every"):
        RunOptions(checkpoint_every=0)
    with pytest.raises(ArgumentError, match="--workers"):
        RunOptions(workers=-1)


def limited(megabytes: float) -> Callable[[], None]:
    """What makes a child process unable to write files above that size: as a full disk, in mid-save."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6), int(megabytes * 1e6)))

    return limit


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["codec", "state"])
def test_a_full_disk_in_mid_save_leaves_the_last_good_checkpoint(
    tiny_data: Path, config: TrainingConfig, unbroken: Path, tmp_path: Path, share: float
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    for step in (4, 6):
        shutil.rmtree(RunFolder(out).checkpoint_folder(step))
    size = (RunFolder(out).checkpoint_folder(2) / "codec.safetensors").stat().st_size
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
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
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000002"]
    fit(PreparedData.open(tiny_data), out, config, dataclasses.replace(QUIET, samples=0), resume=True)
    assert read_lines(out / "train.jsonl") == read_lines(unbroken / "train.jsonl")


def test_other_segments_for_validation_are_no_resume(
    tiny_data: Path, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dmcodec.training.data.layout import sha256_of

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
        fit(PreparedData.open(copy), unbroken, config, QUIET, resume=True)


def test_mixed_precision_trains(tiny_data: Path, config: TrainingConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(config, steps=2)
    options = ["--mixed-precision", "bf16", "--no-tensorboard", "--samples", "0"]
    process = train(tiny_data, tmp_path / "run", short, *options)
    _, errors = finished(process)
    assert process.returncode == 0, errors
    lines = read_lines(tmp_path / "run" / "train.jsonl")
    assert len(lines) == 2
    checkpoint = RunFolder(tmp_path / "run").load(2).codec
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["mixed_precision"] == "bf16"


def test_the_command_line_reports_errors_in_one_line(tmp_path: Path, config: TrainingConfig) -> None:
    process = train(tmp_path / "nowhere", tmp_path / "run", config)
    _, errors = finished(process)
    assert process.returncode == 1
    assert errors.startswith("error: ")
    assert "nowhere" in errors
    assert len(errors.strip().splitlines()) == 1
    wrong = train(tmp_path / "nowhere", tmp_path / "run", config, "--distill", "gpt")
    _, errors = finished(wrong)
    assert wrong.returncode == 2


SCRIPT = """
import sys
import torch
from pathlib import Path
from dmcodec.training.config import TrainingConfig
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training import loop

data, out, config, folder = sys.argv[1:]
torch.set_num_threads(1)
save = loop.Loop._save
def each_process_s(self, step):
    torch.save(self.codec.state_dict(), Path(folder) / f"rank{self.accelerator.process_index}-{step}.pt")
    save(self, step)
loop.Loop._save = each_process_s
fit(PreparedData.open(data), out, TrainingConfig.from_json(config), loop.RunOptions(2, 3, tensorboard=False))
"""


def launch(folder: Path, *arguments: str, port: int) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with two processes. On a CPU its --multi_gpu is what starts several, over gloo."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=240
    )


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_processes_train_one_codec(tiny_data: Path, config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "steps": 4}))
    arguments = [str(tmp_path / "script.py"), str(tiny_data), str(tmp_path / "run"), str(tmp_path / "config.json")]
    done = launch(tmp_path, *arguments, str(tmp_path), port=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    for step in (2, 4):
        one, other = (torch.load(tmp_path / f"rank{rank}-{step}.pt") for rank in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)
    first, last = (torch.load(tmp_path / f"rank0-{step}.pt") for step in (2, 4))
    moved = [name for name in first if not torch.equal(first[name], last[name])]
    assert any("_codebook.embed" in name for name in moved)
    assert any(name.startswith("encoder") for name in moved)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    with pytest.raises(CheckpointError, match="resume with as many"):
        fit(
            PreparedData.open(tiny_data),
            tmp_path / "run",
            TrainingConfig.from_json(tmp_path / "config.json"),
            QUIET,
            resume=True,
        )


@pytest.mark.parametrize(("batch_size", "processes"), [(1, 1), (2, 1), (2, 2), (5, 3), (100, 1)])
def test_an_epoch_holds_every_segment(batch_size: int, processes: int) -> None:
    lengths = np.random.default_rng(0).integers(8000, 48000, 71)
    plan = BatchPlan(lengths, batch_size, processes, seed=3)
    for epoch in (0, 1):
        parts = [plan.epoch(epoch, process) for process in range(processes)]
        assert all(len(part) == plan.batches_per_epoch for part in parts)
        assert all(len(batch) == batch_size for part in parts for batch in part)
        assert {position for part in parts for batch in part for position in batch} == set(range(71))
    assert plan.epoch(0, 0) == BatchPlan(lengths, batch_size, processes, seed=3).epoch(0, 0)
    assert plan.epoch(0, 0) != plan.epoch(1, 0) or batch_size == 100


def test_batches_go_on_where_they_stopped(data: PreparedData, config: TrainingConfig) -> None:
    segments = Segments(data, data.segment_ids("train"), config.codec, ("lm", "sm"))
    plan = BatchPlan(data.num_samples[segments.ids], 2, 1, 0)
    count = 2 * plan.batches_per_epoch + 1

    def some(start: int, number: int) -> list[Any]:
        stream = training_batches(segments, plan, 0, start, workers=0)
        return [next(stream) for _ in range(number)]

    whole = some(0, count)
    for start in (1, plan.batches_per_epoch, plan.batches_per_epoch + 2):
        for wanted, found in zip(whole[start:], some(start, count - start), strict=True):
            assert wanted.segments == found.segments
            assert torch.equal(wanted.waveform, found.waveform)


def test_crops_are_stretches_of_segments_and_of_their_features(data: PreparedData, config: TrainingConfig) -> None:
    segments = Segments(data, data.segment_ids("train"), config.codec, ("lm", "sm"))
    plan = BatchPlan(data.num_samples[segments.ids], 2, 1, 0)
    crop = 10 * 320 + 100
    stream = training_batches(segments, plan, 0, 0, workers=0, crop_samples=crop)
    batches = [next(stream) for _ in range(2 * plan.batches_per_epoch)]
    starts: dict[int, set[int]] = {}
    for batch in batches:
        for row, segment in enumerate(batch.segments):
            whole = data.waveform(segment)
            samples, frames = int(batch.num_samples[row]), int(batch.num_frames[row])
            assert samples == min(crop, len(whole))
            found = batch.waveform[row, 0, :samples].numpy()
            (first,) = [
                frame
                for frame in range((len(whole) - samples) // 320 + 1)
                if np.array_equal(whole[frame * 320 : frame * 320 + samples], found)
            ]
            starts.setdefault(segment, set()).add(first)
            all_frames = config.codec.num_frames(len(whole))
            for kind in ("lm", "sm"):
                features = data.teacher(kind, segment, all_frames, 50.0)[first : first + frames]
                assert np.array_equal(batch.teachers[kind][row, : len(features)].numpy(), features)
    assert any(len(each) == 2 for each in starts.values())  # another stretch in the next epoch
    resumed = training_batches(segments, plan, 0, plan.batches_per_epoch + 1, workers=0, crop_samples=crop)
    assert torch.equal(next(resumed).waveform, batches[plan.batches_per_epoch + 1].waveform)


def test_a_batch_is_padded_with_silence(data: PreparedData, config: TrainingConfig) -> None:
    segments = Segments(data, data.segment_ids("train"), config.codec, ("lm", "sm"))
    short = int(np.argmin(data.num_samples[segments.ids]))
    long = int(np.argmax(data.num_samples[segments.ids]))
    batch = segments.collate([segments[short], segments[long]])
    samples = data.num_samples[segments.ids[[short, long]]].tolist()
    assert batch.num_samples.tolist() == samples
    assert batch.waveform.shape == (2, 1, samples[1])
    assert not batch.waveform[0, 0, samples[0] :].any()
    assert batch.frame_mask().sum(dim=1).tolist() == batch.num_frames.tolist() == [-(-n // 320) for n in samples]
    assert batch.sample_mask().sum(dim=(1, 2)).tolist() == samples
    assert batch.teachers["lm"].shape[2] == 24
    assert batch.teachers["sm"].shape[2] == 20
