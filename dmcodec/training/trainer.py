"""The optimizer step of the recipe, and checkpoints for an exact resumption."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from dmcodec.errors import CheckpointError, TrainingError
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import load_state_dict

from .batches import Batch
from .config import OptimizerConfig, TrainingConfig
from .discriminators import Discriminators
from .generator import Generator
from .losses import Objective
from .run_folder import Checkpoint, Progress

PAST_WARMUP = 1_000_000  # a step after the warm-up of the codebooks' decay


class Trainer:
    """Generator, discriminators and their optimizers, in one process or several."""

    def __init__(
        self,
        accelerator: Accelerator,
        codec: DMCodec,
        config: TrainingConfig,
        teacher_widths: Mapping[str, int],
        total_steps: int,
        trained_codebooks: bool = False,
    ) -> None:
        """Prepare the networks.

        Args:
            accelerator: of this process.
            codec: trained in place; the same in all processes.
            config: of the run.
            teacher_widths: width of the features, by kind of teacher.
            total_steps: of the schedule; then the learning rate is 0.
            trained_codebooks: whether the codebooks are trained already, and start without the warm-up of the decay.
        """
        self.accelerator = accelerator
        self.config = config
        self.total_steps = total_steps
        self.codec = codec
        self._first_codebook_step = PAST_WARMUP if trained_codebooks else 0
        self.objective = Objective(config).to(accelerator.device)
        generator = Generator(codec, config, teacher_widths)
        self.generator = accelerator.prepare(generator)
        self.projections = generator.projections
        self.generator_optimizer = accelerator.prepare(_adam(generator, config.optimizer))
        self.discriminators: nn.Module | None = None
        if config.discriminators.any:
            self.plain_discriminators = Discriminators(config.discriminators)
            self.discriminators = accelerator.prepare(self.plain_discriminators)
            self.discriminator_optimizer = accelerator.prepare(_adam(self.plain_discriminators, config.optimizer))

    def step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """Do one optimizer step.

        The discriminators are updated before the generator's loss of the last micro-batch is computed.

        Args:
            step: its number, from 0.
            batches: the micro-batches.

        Returns:
            The losses by name, averaged over micro-batches and processes, the gradient norm and the learning rate.

        Raises:
            TrainingError: a loss or a gradient is not finite; the result of this step must not be saved.
        """
        self.generator.train()
        rate = learning_rate(step, self.total_steps, self.config.optimizer)
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = rate
        adversarial = self.discriminators is not None and step >= self.config.discriminators.start_step
        found: list[dict[str, Tensor]] = []
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            codebook_step = self._first_codebook_step + step * len(batches) + index
            batch = batch.to(self.accelerator.device)
            found.append(self._micro_step(codebook_step, batch, len(batches), last, adversarial))
        losses = self._mean(found)
        segments = [batch.segments for batch in batches]
        _check_finite(losses, step, segments)
        losses["generator_gradient_norm"] = self._update(self.generator_optimizer, self.generator)
        if self.accelerator.scaler is None:  # the scaler of fp16 skips steps with infinite gradients
            _check_finite(losses, step, segments)
        return {**losses, "learning_rate": rate}

    def _micro_step(
        self, codebook_step: int, batch: Batch, micro_batches: int, last: bool, adversarial: bool
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with ExitStack() as stack:
            if not last:
                stack.enter_context(self.accelerator.no_sync(self.generator))
                if adversarial:
                    stack.enter_context(self.accelerator.no_sync(self.discriminators))
            output = self.generator(batch, codebook_step)
            if adversarial:
                assert self.discriminators is not None
                loss = self.objective.discriminators(self.discriminators, batch, output)
                self.accelerator.backward(loss / micro_batches)
                found["discriminators"] = loss.detach()
                if last:
                    self._update(self.discriminator_optimizer, self.discriminators)
                self.plain_discriminators.requires_grad_(False)
            total, terms = self.objective.generator(self.plain_discriminators if adversarial else None, batch, output)
            self.accelerator.backward(total / micro_batches)
            if adversarial:
                self.plain_discriminators.requires_grad_(True)
        return {**found, "generator": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _optimizers(self) -> list[Any]:
        found = [self.generator_optimizer]
        return [*found, self.discriminator_optimizer] if self.discriminators is not None else found

    def _update(self, optimizer: Any, module: nn.Module) -> float:
        limit = self.config.optimizer.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(module.parameters(), math.inf if limit is None else limit)
        optimizer.step()
        optimizer.zero_grad()
        return float(norm) if norm is not None else 0.0

    def _mean(self, found: list[dict[str, Tensor]]) -> dict[str, float]:
        names = list(found[0])
        values = torch.stack([torch.stack([losses[name].float() for name in names]) for losses in found]).mean(dim=0)
        mean = self.accelerator.reduce(values, "mean")
        return dict(zip(names, mean.tolist(), strict=True))

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Return a checkpoint for an exact resumption. All processes must call this; the main one saves the result."""
        check_same_codebooks(self.codec)
        random = {"cpu": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.accelerator.device)
        state = {
            "projections": self.projections.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "random": gather_object([random]),
        }
        if self.discriminators is not None:
            state["discriminators"] = self.plain_discriminators.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return Checkpoint(progress, self.codec.state_dict(), state)

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Load a checkpoint of the same configuration.

        Args:
            checkpoint: to load.
            source: its name in errors.

        Raises:
            CheckpointError: the tensors differ from the codec's, or the number of processes differs.
        """
        state = checkpoint.state
        if len(state["random"]) != self.accelerator.num_processes:
            raise CheckpointError(
                f"{source}: written by {len(state['random'])} processes; resume with as many "
                f"(now {self.accelerator.num_processes})"
            )
        # `load_state_dict` replaces tensors, but the optimizer holds the present ones: copy the values into them.
        loaded = DMCodec(self.config.codec)
        load_state_dict(loaded, checkpoint.codec, source)
        self.codec.load_state_dict(loaded.state_dict())
        self.projections.load_state_dict(state["projections"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        if self.discriminators is not None:
            self.plain_discriminators.load_state_dict(state["discriminators"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        random = state["random"][self.accelerator.process_index]
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.accelerator.device)


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Return the learning rate: linear warm-up, then cosine annealing to 0 (Loshchilov & Hutter, arXiv 1608.03983)."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def check_same_codebooks(codec: DMCodec) -> None:
    """Raise TrainingError where the codebooks of the processes differ."""
    digest = torch.stack([codebook.embed.cpu().double().sum() for codebook in codec.quantizer.levels])
    digests = gather_object([digest.tolist()])
    if any(other != digests[0] for other in digests):
        raise TrainingError("the codebooks of the processes differ; this is a bug in dmcodec, please report it")


def _adam(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)


def _check_finite(losses: Mapping[str, float], step: int, segments: list[list[int]]) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {step + 1}: {', '.join(bad)} became NaN or infinite (this process had segments {segments}); the "
            "last checkpoint is intact; start from its codec.safetensors with --init, with a lower "
            "optimizer.learning_rate, or with optimizer.max_grad_norm"
        )
