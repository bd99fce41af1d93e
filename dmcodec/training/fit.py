"""`train fit`: a training run, from a data folder to checkpoints for `dmcodec export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from dmcodec.errors import ArgumentError, CheckpointError, ConfigError, DataError, TeacherNotFoundError
from dmcodec.nn import DMCodec
from dmcodec.training.data.dataset import PreparedData, teach_command

from .config import TrainingConfig
from .loop import Report, RunOptions, Stop, TrainingLoop, initial_codec
from .metrics_log import require_tensorboard
from .run_folder import CODEC, RunFolder


def fit(
    data: PreparedData,
    out: str | Path,
    config: TrainingConfig,
    options: RunOptions | None = None,
    *,
    initial: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    report: Report | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Train a codec; `run_folder` describes the files of a run.

    Under `accelerate launch` all its processes train together; `config.batch_size` is the number per process.

    Args:
        data: with the features of the teachers in `config.distillation`.
        out: folder of the run.
        config: of the training.
        options: how often to save and to validate.
        initial: checkpoint to start from, with its codebooks; None starts from random weights.
        resume: continue from the last checkpoint in `out`. `config` may ask for more steps than before: from the
            resumed step on, the learning rate is that of a run of all these steps.
        force: replace the run in `out`.
        report: called with (steps done, total steps, losses) after every step, in the main process.
        stop: called before every step; where it returns true in any process, a checkpoint is saved, and the run ends.

    Returns:
        {"steps", "stopped", "best_mel", "checkpoint", "best", "validation"}: paths of the last checkpoint and of the
        best codec, and the metrics of the last validation.

    Raises:
        DataError: the data do not match the configuration.
        TeacherNotFoundError: the data lack the features of a teacher.
        TrainingError: a loss became NaN.
        OutputError: a checkpoint can't be written; the earlier ones are unchanged.
    """
    check_data(data, config)
    options, folder = options or RunOptions(), RunFolder(out)
    # All checks come before the folder is changed: --force deletes a run.
    if options.tensorboard:
        require_tensorboard()
    accelerator = _accelerator(config)
    loop = TrainingLoop(accelerator, data, folder, config, options)
    initial = folder.initial() if resume else initial
    _check_not_within(Path(out), data.folder, initial, force)
    settings = _run_settings(data, config, accelerator.num_processes, initial)
    if resume:
        folder.check_same(settings)
        loop.check_steps(folder.config())
    codec = _resumed_codec(folder, accelerator, config, initial) if resume else initial_codec(config, initial)
    if accelerator.is_main_process:
        folder.start(settings, resume, force)
    accelerator.wait_for_everyone()
    loop.begin(codec, initial is not None, resume)
    return loop.run(report, stop)


def _resumed_codec(
    folder: RunFolder, accelerator: Accelerator, config: TrainingConfig, initial: str | Path | None
) -> DMCodec:
    """Return the codec of the last checkpoint, or where there is none yet, what the run started from."""
    if accelerator.is_main_process:
        folder.recover()
    accelerator.wait_for_everyone()
    steps = folder.steps()
    if not steps:
        return initial_codec(config, initial)
    last = folder.checkpoint_folder(steps[-1])
    try:
        return initial_codec(config, last / CODEC)
    except CheckpointError as error:
        raise CheckpointError(f"{last}: is damaged; remove it to resume from the checkpoint before") from error


def _accelerator(config: TrainingConfig) -> Accelerator:
    try:
        return Accelerator(
            mixed_precision=config.mixed_precision,
            # The codebooks are equal by themselves; broadcasting buffers would hide it if they were not.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except ValueError as error:
        raise ArgumentError(
            f"--mixed-precision {config.mixed_precision} can't be used on this machine; use --mixed-precision no"
        ) from error


def _check_not_within(out: Path, data: Path, initial: str | Path | None, force: bool) -> None:
    """Raise ArgumentError where replacing `out` would delete an input of the new run."""
    for name, path in (("the data", data), ("--init", initial)):
        if force and path is not None and Path(path).resolve().is_relative_to(out.resolve()):
            raise ArgumentError(
                f"{path}: {name} lies in the run that --force would delete; use another folder for the run"
            )


def check_data(data: PreparedData, config: TrainingConfig) -> None:
    """Raise DataError, TeacherNotFoundError or ConfigError where the data do not match the configuration."""
    if data.sample_rate != config.codec.sample_rate:
        raise DataError(
            f"{data.folder}: prepared at {data.sample_rate} Hz, but the codec of the configuration has "
            f"{config.codec.sample_rate} Hz; prepare again"
        )
    for teacher in config.distillation.teachers:
        if teacher not in data.teachers:
            raise TeacherNotFoundError(
                f"{data.folder}: has no {teacher} teacher; run `{teach_command(data.folder, teacher)}`, "
                "or leave it out with --distill"
            )
    longest = max(
        [scale.n_fft for scale in config.losses.mel]
        + [scale.n_fft for scale in config.losses.spectral]
        + [n_fft for n_fft in config.discriminators.stft_n_fft if config.discriminators.any]
    )
    shortest = int(data.num_samples.min(initial=longest))
    if shortest < longest:
        raise DataError(
            f"{data.folder}: its shortest segment has {shortest} samples, fewer than the longest spectrum "
            f"({longest}); prepare again with a larger --min-duration"
        )
    if config.crop_s is not None and round(config.crop_s * data.sample_rate) < longest:
        raise ConfigError(
            f"training configuration: crop_s {config.crop_s} is shorter than the longest spectrum ({longest} samples)"
        )
    for split in ("train", "validation"):
        if not len(data.segment_ids(split)):
            raise DataError(
                f"{data.folder}: no {split} segments; prepare again with more audio or another --validation"
            )


def _run_settings(
    data: PreparedData, config: TrainingConfig, processes: int, initial: str | Path | None
) -> dict[str, Any]:
    """Return the settings of a run for run.json."""
    import dmcodec

    described = ("model", "width", "frame_rate_hz", "layers", "aligned", "settings")
    teachers = {
        kind: {name: getattr(data.teachers[kind], name) for name in described} for kind in config.distillation.teachers
    }
    # The table of segments holds the split.
    identity = {"fingerprint": data.fingerprint, "segments_sha256": data.manifest.segments_sha256}
    return {
        "data": json.loads(json.dumps({**identity, "teachers": teachers})),
        "config": config.to_dict(),
        "processes": processes,
        "initial": None if initial is None else str(initial),
        "versions": {"dmcodec": dmcodec.__version__, "torch": torch.__version__},
    }
