"""`dmcodec train fit`: whole small runs, on one process and on two, and what may go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from train_runs import QUIET, finished, train

from dmcodec.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    OutputExistsError,
    TeacherNotFoundError,
    TrainingError,
)
from dmcodec.nn import DMCodec
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
from dmcodec.training.metrics_log import read_lines
from dmcodec.training.run_folder import RunFolder


def test_a_run_leaves_what_it_promises(unbroken_run: Path, training_config: TrainingConfig) -> None:
    lines = read_lines(unbroken_run / "train.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    names = {"waveform", "mel", "commitment", "distillation_lm", "distillation_sm", "adversarial", "feature_matching"}
    assert names < lines[0].keys()
    assert [line["step"] for line in read_lines(unbroken_run / "validation.jsonl")] == [0, 3, 6]
    assert RunFolder(unbroken_run).steps() == [2, 4, 6]  # of 0, 2, 4, 6 the last three
    originals = list((unbroken_run / "samples").glob("*/original.wav"))
    assert len(originals) == 1
    output, rate = soundfile.read(originals[0].parent / "step-00000006.wav")
    assert rate == 16000
    assert len(output) == len(soundfile.read(originals[0])[0])
    assert list((unbroken_run / "tensorboard").iterdir())
    assert json.loads((unbroken_run / "run.json").read_text())["config"] == training_config.to_dict()


def test_tensorboard_holds_losses_audio_and_spectrograms(unbroken_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(unbroken_run / "tensorboard"), size_guidance={"audio": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/mel", "train/generator", "validation/mel", "validation/perplexity_0"} <= set(tags["scalars"])
    assert any(tag.endswith("output/audio") for tag in tags["audio"])
    assert any(tag.endswith("original/mel") for tag in tags["images"])
    line = read_lines(unbroken_run / "train.jsonl")[-1]
    assert events.Scalars("train/mel")[-1].value == pytest.approx(line["mel"])


def test_the_best_is_the_one_with_the_lowest_mel_distance(unbroken_run: Path) -> None:
    best = json.loads((unbroken_run / "best" / "metrics.json").read_text())
    found = [line for line in read_lines(unbroken_run / "validation.jsonl") if line["step"] > 0]
    assert best["mel"] == min(line["mel"] for line in found)
    DMCodec.from_checkpoint(unbroken_run / "best" / "config.json", unbroken_run / "best" / "codec.safetensors")


def test_what_was_trained_exports(unbroken_run: Path, tmp_path: Path) -> None:
    checkpoint, bundle = RunFolder(unbroken_run).checkpoint_folder(6), tmp_path / "bundle"
    command = [sys.executable, "-m", "dmcodec", "export", "--out", str(bundle), "--json"]
    command += ["--checkpoint", str(checkpoint / "codec.safetensors"), "--config", str(checkpoint / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["cases"]


def test_gradient_accumulation_adds_up(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path
) -> None:
    changed = dataclasses.replace(training_config, gradient_accumulation=2, steps=2)
    fit(training_data, tmp_path / "run", changed, QUIET)
    lines = read_lines(tmp_path / "run" / "train.jsonl")
    assert [line["step"] for line in lines] == [1, 2]


def test_losses_fall_and_a_resumed_finished_run_is_finished(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path
) -> None:
    longer = dataclasses.replace(training_config, steps=25, discriminators=DiscriminatorConfig((), 0, 1.0, (), 1))
    options = dataclasses.replace(QUIET, checkpoint_every=100, validate_every=100)
    result = fit(training_data, tmp_path / "run", longer, options)
    lines = read_lines(tmp_path / "run" / "validation.jsonl")
    assert lines[-1]["mel"] < 0.8 * lines[0]["mel"]
    assert "adversarial" not in read_lines(tmp_path / "run" / "train.jsonl")[0]
    again = fit(training_data, tmp_path / "run", longer, options, resume=True)
    assert again["steps"] == result["steps"] == 25
    assert again["best_mel"] == result["best_mel"]


def test_discriminators_join_at_their_step(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path
) -> None:
    later = dataclasses.replace(
        training_config, steps=3, discriminators=dataclasses.replace(training_config.discriminators, start_step=2)
    )
    fit(training_data, tmp_path / "run", later, QUIET)
    assert ["adversarial" in line for line in read_lines(tmp_path / "run" / "train.jsonl")] == [False, False, True]


def test_training_starts_from_a_checkpoint(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    initial = unbroken_run / "best" / "codec.safetensors"
    fit(training_data, tmp_path / "run", dataclasses.replace(training_config, steps=1), QUIET, initial=initial)
    start = RunFolder(tmp_path / "run").load(0).codec
    wanted = DMCodec.from_checkpoint(training_config.codec, initial).state_dict()
    assert all(torch.equal(start[name], wanted[name]) for name in wanted)


def test_fine_tuning_keeps_the_codebooks_it_starts_from(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    initial = unbroken_run / "best" / "codec.safetensors"
    gentle = dataclasses.replace(training_config, steps=2, optimizer=OptimizerConfig(learning_rate=1e-7))
    fit(training_data, tmp_path / "run", gentle, QUIET, initial=initial)
    before, after = (RunFolder(tmp_path / "run").load(step).codec for step in (0, 2))
    name = "quantizer.vq.layers.0._codebook.embed"
    moved = (after[name] - before[name]).norm(dim=1) / before[name].norm(dim=1)
    assert moved.median() < 0.05
    assert (
        json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())["mel"]
        <= read_lines(tmp_path / "run" / "validation.jsonl")[0]["mel"]
    )


def test_force_deletes_nothing_that_the_run_needs_and_no_run_for_a_typo(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    with pytest.raises(ArgumentError, match="--init lies in the run"):
        fit(training_data, out, training_config, QUIET, initial=out / "best" / "codec.safetensors", force=True)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        fit(training_data, out, training_config, QUIET, initial=tmp_path / "typo.safetensors", force=True)
    assert RunFolder(out).steps() == [2, 4, 6]


def test_what_else_lies_about_is_left_alone(
    training_data: PreparedData, training_config: TrainingConfig, unbroken_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken_run, out)
    shutil.copytree(RunFolder(out).checkpoint_folder(6), out / "checkpoints" / "step-good")
    (out / "checkpoints" / ".step-00000008.abc").mkdir()
    assert fit(training_data, out, training_config, QUIET, resume=True)["steps"] == 6
    assert sorted(path.name for path in (out / "checkpoints").iterdir())[-2:] == ["step-00000006", "step-good"]
    assert not (out / "checkpoints" / ".step-00000008.abc").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExistsError, match="is a file"):
        fit(training_data, tmp_path / "file", training_config, QUIET)


def test_nan_is_found_at_once_and_the_last_checkpoint_survives(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path
) -> None:
    exploding = dataclasses.replace(training_config, optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"step \d+: .*NaN or infinite .*segments"):
        fit(training_data, tmp_path / "run", exploding, QUIET)
    steps = RunFolder(tmp_path / "run").steps()
    assert all(torch.isfinite(tensor).all() for tensor in RunFolder(tmp_path / "run").load(steps[-1]).codec.values())


def test_data_that_do_not_fit(
    training_data: PreparedData, training_config: TrainingConfig, tiny_data: Path, tmp_path: Path
) -> None:
    slower = dataclasses.replace(training_config, codec=dataclasses.replace(training_config.codec, sample_rate=8000))
    wide = dataclasses.replace(training_config, losses=LossConfig(mel=(MelScaleConfig(16384, 240, 1.0),)))
    with pytest.raises(DataError, match="16000 Hz"):
        fit(training_data, tmp_path / "a", slower, QUIET)
    spectral = dataclasses.replace(training_config, losses=LossConfig(spectral=(SpectralConfig(16384, 240, 1.0),)))
    for n, too_wide in enumerate((wide, spectral)):
        with pytest.raises(DataError, match="shortest segment has 8000 samples"):
            fit(training_data, tmp_path / f"b{n}", too_wide, QUIET)
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    shutil.rmtree(copy / "teachers" / "sm")
    with pytest.raises(TeacherNotFoundError, match="has no sm teacher"):
        fit(PreparedData.open(copy), tmp_path / "c", training_config, QUIET)
    fit(
        PreparedData.open(copy),
        tmp_path / "d",
        dataclasses.replace(training_config, steps=1, distillation=DistillationConfig(("lm",))),
        QUIET,
    )
    assert not (tmp_path / "a").exists()


def test_options_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="--checkpoint-every"):
        RunOptions(checkpoint_every=0)
    with pytest.raises(ArgumentError, match="--workers"):
        RunOptions(workers=-1)


def test_mixed_precision_trains(tiny_data: Path, training_config: TrainingConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(training_config, steps=2)
    options = ["--mixed-precision", "bf16", "--no-tensorboard", "--samples", "0"]
    process = train(tiny_data, tmp_path / "run", short, *options)
    _, errors = finished(process)
    assert process.returncode == 0, errors
    lines = read_lines(tmp_path / "run" / "train.jsonl")
    assert len(lines) == 2
    checkpoint = RunFolder(tmp_path / "run").load(2).codec
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["mixed_precision"] == "bf16"


def test_the_command_line_reports_errors_in_one_line(tmp_path: Path, training_config: TrainingConfig) -> None:
    process = train(tmp_path / "nowhere", tmp_path / "run", training_config)
    _, errors = finished(process)
    assert process.returncode == 1
    assert errors.startswith("error: ")
    assert "nowhere" in errors
    assert len(errors.strip().splitlines()) == 1
    wrong = train(tmp_path / "nowhere", tmp_path / "run", training_config, "--distill", "gpt")
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
save = loop.TrainingLoop._save
def each_process_s(self, step):
    torch.save(self.codec.state_dict(), Path(folder) / f"rank{self.accelerator.process_index}-{step}.pt")
    save(self, step)
loop.TrainingLoop._save = each_process_s
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


def test_two_processes_train_one_codec(tiny_data: Path, training_config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.json").write_text(json.dumps({**training_config.to_dict(), "steps": 4}))
    arguments = [str(tmp_path / "script.py"), str(tiny_data), str(tmp_path / "run"), str(tmp_path / "config.json")]
    done = launch(tmp_path, *arguments, str(tmp_path), port=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    for step in (2, 4):
        one, other = (torch.load(tmp_path / f"rank{rank}-{step}.pt", weights_only=True) for rank in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)
    first, last = (torch.load(tmp_path / f"rank0-{step}.pt", weights_only=True) for step in (2, 4))
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
