"""A whole training run: from a data folder to checkpoints that `dmcodec export` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from dmcodec.errors import ArgumentError, ConfigError, DataError, TeacherNotFoundError, first_line
from dmcodec.training.data.dataset import PreparedData

from .config import TrainingConfig
from .loop import Loop, Report, RunOptions, initial_codec
from .run_folder import RunFolder, require_tensorboard


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
) -> dict[str, Any]:
    """Trains a codec on `data` into the folder `out`; see `run_folder` for what is written.

    Run under `accelerate launch` it uses all of its processes; `config.batch_size` is a process's share.

    Args:
        data: prepared, and taught by the teachers of `config.distillation`.
        out: folder of the run.
        config: what is computed.
        options: how often to save and to validate.
        initial: a checkpoint to start from, with its codebooks, instead of random weights.
        resume: go on from the last checkpoint in `out`.
        force: replace the run in `out`.
        report: called with (steps done, all steps, losses) after every step, on the main process.

    Returns:
        {"steps", "best_mel", "checkpoint", "best", "validation"}: the last validation, and where things are.

    Raises:
        DataError: the data don't fit the configuration.
        TeacherNotFoundError: a teacher of the configuration isn't in the data.
        TrainingError: a loss became NaN.
        OutputError: a checkpoint can't be written; the former ones are whole.
    """
    check_data(data, config)
    options, folder = options or RunOptions(), RunFolder(out)
    # All that may be wrong comes before the folder is touched: --force replaces a run.
    if options.tensorboard:
        require_tensorboard()
    if resume:
        initial = folder.initial()
    _check_not_within(Path(out), data.folder, initial, force)
    codec = initial_codec(config, initial)
    accelerator = _accelerator(config)
    if accelerator.is_main_process:
        folder.start(_facts(data, config, accelerator.num_processes, initial), resume, force)
    accelerator.wait_for_everyone()
    loop = Loop(accelerator, data, folder, config, options)
    loop.begin(codec, initial is not None, resume)
    return loop.run(report)


def _accelerator(config: TrainingConfig) -> Accelerator:
    try:
        return Accelerator(
            mixed_precision=config.mixed_precision,
            # The codebooks keep themselves equal; broadcasting buffers would only hide it if they did not.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except ValueError as error:
        reason = first_line(error)
        raise ArgumentError(f"--mixed-precision {config.mixed_precision} can't be used here ({reason})") from None


def _check_not_within(out: Path, data: Path, initial: str | Path | None, force: bool) -> None:
    """Raises ArgumentError where replacing `out` would delete what the new run reads."""
    for name, path in (("the data", data), ("--init", initial)):
        if force and path is not None and Path(path).resolve().is_relative_to(out.resolve()):
            raise ArgumentError(f"{path}: {name} lies in the run that --force would delete; name another folder")


def check_data(data: PreparedData, config: TrainingConfig) -> None:
    """Raises DataError or TeacherNotFoundError where `data` can't be trained on with `config`."""
    if data.sample_rate != config.codec.sample_rate:
        raise DataError(
            f"{data.folder}: prepared at {data.sample_rate} Hz, but the codec of the configuration works at "
            f"{config.codec.sample_rate} Hz; prepare again"
        )
    for teacher in config.distillation.teachers:
        if teacher not in data.teachers:
            raise TeacherNotFoundError(
                f"{data.folder}: has no {teacher} teacher; run `dmcodec train teach {data.folder} --{teacher} MODEL`, "
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


def _facts(data: PreparedData, config: TrainingConfig, processes: int, initial: str | Path | None) -> dict[str, Any]:
    import dmcodec

    described = ("model", "width", "frame_rate_hz", "layers", "aligned", "settings")
    teachers = {
        kind: {name: getattr(data.teachers[kind], name) for name in described} for kind in config.distillation.teachers
    }
    # The table of segments says what is training and what validation.
    identity = {"fingerprint": data.fingerprint, "segments_sha256": data.manifest.segments_sha256}
    return {
        "data": json.loads(json.dumps({**identity, "teachers": teachers})),
        "config": config.to_dict(),
        "processes": processes,
        "initial": None if initial is None else str(initial),
        "versions": {"dmcodec": dmcodec.__version__, "torch": torch.__version__},
    }
