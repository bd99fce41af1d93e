"""The training loop: steps, checkpoints, validations and audio samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from dmcodec.audio import write_audio
from dmcodec.errors import ArgumentError, CheckpointError, ConfigError
from dmcodec.nn import DMCodec
from dmcodec.training.data.dataset import PreparedData

from .batches import BatchPlan, Segments, loader, training_batches
from .config import TrainingConfig
from .metrics_log import MetricsLog
from .quantizer import fill_statistics, prepare_codebooks
from .run_folder import Progress, RunFolder
from .trainer import Trainer
from .validation import codebook_use, validate

Report = Callable[[int, int, Mapping[str, float]], None]
Stop = Callable[[], bool]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options that do not change the result of a run.

    Args:
        checkpoint_every: steps between checkpoints; the first and the last step always have one.
        validate_every: steps between validations; the first and the last step always have one.
        keep: number of checkpoints to keep, the latest ones.
        samples: validation segments that are reconstructed at each validation, into files and TensorBoard.
        workers: processes that load data.
        tensorboard: whether to write TensorBoard files.
    """

    checkpoint_every: int = 1000
    validate_every: int = 1000
    keep: int = 3
    samples: int = 4
    workers: int = 0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            ("checkpoint_every", 1),
            ("validate_every", 1),
            ("keep", 1),
            ("samples", 0),
            ("workers", 0),
        ):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise ArgumentError(f"--{option} must be {least} or more, not {getattr(self, name)}")


def initial_codec(config: TrainingConfig, initial: str | Path | None) -> DMCodec:
    """Return the codec of a checkpoint with its codebooks, or without one a codec with random weights."""
    if initial is not None:
        codec = DMCodec.from_checkpoint(config.codec, initial)
        fill_statistics(codec.quantizer)
        return codec
    set_seed(config.seed)
    codec = DMCodec(config.codec)
    if config.initial_weights == "scaled":
        codec.scale_weights()
    prepare_codebooks(codec.quantizer)
    return codec


def total_steps(config: TrainingConfig, plan: BatchPlan) -> int:
    """Return the optimizer steps of a run."""
    return config.steps or max(1, config.epochs * plan.batches_per_epoch // config.gradient_accumulation)


class TrainingLoop:
    """A run, from its present step to the last one; call `dmcodec.training.fit.fit`."""

    def __init__(
        self,
        accelerator: Accelerator,
        data: PreparedData,
        folder: RunFolder,
        config: TrainingConfig,
        options: RunOptions,
    ) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.config = config
        self.options = options
        teachers = config.distillation.teachers
        self.segments = Segments(data, data.segment_ids("train"), config.codec, teachers)
        self.validation_segments = Segments(data, data.segment_ids("validation"), config.codec, ())
        self.plan = BatchPlan(
            data.num_samples[self.segments.ids], config.batch_size, accelerator.num_processes, config.seed
        )
        self.crop_samples = None if config.crop_s is None else round(config.crop_s * config.codec.sample_rate)
        self.total_steps = total_steps(config, self.plan)
        self.teacher_widths = {kind: data.teachers[kind].width for kind in teachers}
        self.progress = Progress()

    def check_steps(self, before: TrainingConfig) -> None:
        """Raise ConfigError where the run has fewer steps than with the configuration that it had before."""
        steps = total_steps(before, self.plan)
        if self.total_steps < steps:
            raise ConfigError(
                f"{self.folder.path}: this run goes to {steps} steps, and can't be cut to {self.total_steps}; resume "
                f"with --steps {steps} or more"
            )

    def begin(self, codec: DMCodec, fine_tuning: bool, resume: bool) -> None:
        """Prepare the networks, and load the last checkpoint of a resumed run.

        Args:
            codec: of `initial_codec`, the same in all processes.
            fine_tuning: whether the codec comes from a checkpoint.
            resume: continue from the last checkpoint, if there is one.

        Raises:
            CheckpointError: the checkpoint can't be loaded, or the processes see different ones.
        """
        self.codec, self.fine_tuning = codec, fine_tuning
        set_seed(self.config.seed)  # the same projections and discriminators in all processes
        self.trainer = Trainer(
            self.accelerator, codec, self.config, self.teacher_widths, self.total_steps, trained_codebooks=fine_tuning
        )
        set_seed(self.config.seed + self.accelerator.process_index)
        steps = self.folder.steps()[-1:] if resume else []
        if any(other != steps for other in gather_object([steps])):
            raise CheckpointError(f"{self.folder.path}: the processes see different checkpoints; use a shared folder")
        self.restored = bool(steps)
        if steps:
            checkpoint = self.folder.load(steps[0])
            self.trainer.restore(checkpoint, str(self.folder.checkpoint_folder(steps[0])))
            self.progress = checkpoint.progress

    def run(self, report: Report | None, stop: Stop | None = None) -> dict[str, Any]:
        """Run to the last step, or save where `stop` asks for it; return what `fit` returns."""
        accumulation, step = self.config.gradient_accumulation, self.progress.step
        batches = training_batches(
            self.segments,
            self.plan,
            self.accelerator.process_index,
            step * accumulation,
            self.options.workers,
            self.crop_samples,
        )
        main = self.accelerator.is_main_process
        last_kept = step if self.restored else -1
        log = MetricsLog(self.folder.path, last_kept, self.options.tensorboard) if main else None
        validation: dict[str, float] = {}
        stopped = False
        try:
            if not self.restored:
                validation = self._validate(0, log)
                self._save(0)
            while step < self.total_steps:
                stopped = self._stop_asked(stop)
                if stopped:
                    if self.progress.step != step:
                        self._save(step)
                    break
                losses = self.trainer.step(step, [next(batches) for _ in range(accumulation)])
                step += 1
                last = step == self.total_steps
                if log is not None:
                    log.scalars("train", step, losses)
                if report is not None and main:
                    report(step, self.total_steps, losses)
                if last or step % self.options.validate_every == 0:
                    validation = self._validate(step, log)
                if last or step % self.options.checkpoint_every == 0:
                    self._save(step)
        finally:
            if log is not None:
                log.close()
        return {
            "steps": step,
            "stopped": stopped,
            "best_mel": self.progress.best_mel,
            "checkpoint": str(self.folder.checkpoint_folder(step)),
            "best": str(self.folder.path / "best"),
            "validation": validation,
        }

    def _stop_asked(self, stop: Stop | None) -> bool:
        """Return whether any of the processes was asked to stop; the same in all."""
        asked = stop is not None and stop()
        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor([float(asked)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _save(self, step: int) -> None:
        self.progress = dataclasses.replace(self.progress, step=step)
        checkpoint = self.trainer.checkpoint(self.progress)
        if self.accelerator.is_main_process:
            self.folder.save(checkpoint, self.config.codec, self.options.keep)
        self.accelerator.wait_for_everyone()

    def _validate(self, step: int, log: MetricsLog | None) -> dict[str, float]:
        self.codec.eval()
        ids = range(self.accelerator.process_index, len(self.validation_segments), self.accelerator.num_processes)
        batches = loader(self.validation_segments, [[position] for position in ids], self.options.workers)
        found = validate(self.codec, self.trainer.objective.mel, batches)
        if log is not None:
            log.scalars("validation", step, {**found, **self._training_codebook_use()})
            self._write_samples(step, log)
        best = self.progress.best_mel
        # Random weights are no candidate: their codebooks are not initialised yet.
        candidate = (step > 0 or self.fine_tuning) and math.isfinite(found["mel"])
        if candidate and (best is None or found["mel"] < best):
            self.progress = dataclasses.replace(self.progress, best_mel=found["mel"])
            if self.accelerator.is_main_process:
                self.folder.save_best(self.codec.state_dict(), self.config.codec, {"step": step, **found})
        return found

    def _training_codebook_use(self) -> dict[str, float]:
        """Return the perplexities over the last training steps, about 100, from the moving counts of the codebooks."""
        counts = torch.stack([codebook.cluster_size for codebook in self.codec.quantizer.levels])
        use = codebook_use(counts)
        return {f"training_{name}": value for name, value in use.items() if name.startswith("perplexity")}

    @torch.no_grad()
    def _write_samples(self, step: int, log: MetricsLog) -> None:
        rate = self.config.codec.sample_rate
        log_mel = self.trainer.objective.mel.scales[0]
        for position in range(min(self.options.samples, len(self.validation_segments))):
            segment, waveform, _ = self.validation_segments[position]
            original = torch.from_numpy(waveform).to(self.accelerator.device)
            output = self.codec.decode(self.codec.encode(original[None, None]))[0, 0, : len(original)]
            folder = self.folder.path / "samples" / f"segment-{segment}"
            outputs = [(f"step-{step:08d}", output)] + ([("original", original)] if step == 0 else [])
            for name, samples in outputs:
                write_audio(folder / f"{name}.wav", samples.cpu().numpy(), rate)
                log.audio(
                    f"segment-{segment}/{'original' if name == 'original' else 'output'}",
                    step,
                    samples.cpu(),
                    log_mel(samples[None])[0].cpu(),
                    rate,
                )


def describe(result: Mapping[str, Any]) -> str:
    """Describe a finished run in one line."""
    perplexities = [f"{value:.0f}" for name, value in result["validation"].items() if name.startswith("perplexity")]
    best = result["best_mel"]
    mel = "none yet" if best is None else f"{best:.4f}"
    found = f"; perplexity by level: {' '.join(perplexities)}" if perplexities else ""
    stopped = " so far, saved" if result["stopped"] else ""
    return f"{result['steps']} steps{stopped}; best mel distance {mel}{found}"
