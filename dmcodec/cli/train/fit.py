"""`dmcodec train fit`: a data folder to checkpoints that `dmcodec export` takes."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.cli.common import JsonOption, missing_dependency, print_json
from dmcodec.cli.progress import show_progress
from dmcodec.cli.weights import named_checkpoint
from dmcodec.cpus import set_torch_threads
from dmcodec.errors import ArgumentError

if TYPE_CHECKING:
    from dmcodec.training.config import DistillationConfig, TrainingConfig

DISTILL = {"none": (), "lm": ("lm",), "sm": ("sm",), "lm+sm": ("lm", "sm")}
SHOWN_LOSSES = ("generator", "mel", "waveform", "discriminators")
TEACHERS = "Teachers"
TRAINING = "Training"
RECORD = "Checkpoints and logs"


def fit(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Data folder that `train prepare` and `train teach` wrote.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", metavar="RUN")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in RUN.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in RUN.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Training configuration, a JSON file (default: the released recipe; with --resume that of RUN).",
            metavar="FILE",
        ),
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(
            help="Teachers: lm, sm, lm+sm or none (default: as configured).", metavar="NAME", rich_help_panel=TEACHERS
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the two teachers; 0.5:0.5 is their mean (default: as configured).",
            metavar="LM:SM",
            rich_help_panel=TEACHERS,
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            help="Quantizer level that learns from the teachers (default: as configured).",
            metavar="LEVEL",
            rich_help_panel=TEACHERS,
        ),
    ] = None,
    lock: Annotated[
        str | None,
        typer.Option(
            help="lm or sm: this teacher stays on level 0, the other one moves to --level (default: as configured).",
            metavar="NAME",
            rich_help_panel=TEACHERS,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Codec checkpoint to start from, a file or folder, for fine-tuning (default: random weights).",
            metavar="FILE",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimizer steps; with --resume more than before, to extend a run (default: as configured).",
            metavar="N",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Segments in a batch of one process (default: as configured).", metavar="N", rich_help_panel=TRAINING
        ),
    ] = None,
    gradient_accumulation: Annotated[
        int | None,
        typer.Option(
            help="Batches in an optimizer step (default: as configured).", metavar="N", rich_help_panel=TRAINING
        ),
    ] = None,
    mixed_precision: Annotated[
        str | None,
        typer.Option(help="no, fp16 or bf16 (default: as configured).", metavar="NAME", rich_help_panel=TRAINING),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of weights, data order and other random choices (default: as configured).",
            metavar="N",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that load data; 0 loads it in the training process (default: 0).",
            metavar="N",
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads (default: torch's choice).", metavar="N", rich_help_panel=TRAINING),
    ] = None,
    checkpoint_every: Annotated[
        int,
        typer.Option(help="Steps between checkpoints (default: 1000).", metavar="N", rich_help_panel=RECORD),
    ] = 1000,
    keep: Annotated[
        int,
        typer.Option(
            help="Latest checkpoints to keep, besides `best` (default: 3).", metavar="N", rich_help_panel=RECORD
        ),
    ] = 3,
    validate_every: Annotated[
        int,
        typer.Option(help="Steps between validations (default: 1000).", metavar="N", rich_help_panel=RECORD),
    ] = 1000,
    samples: Annotated[
        int,
        typer.Option(
            help="Validation segments to reconstruct and keep at each validation (default: 4).",
            metavar="N",
            rich_help_panel=RECORD,
        ),
    ] = 4,
    no_tensorboard: Annotated[
        bool,
        typer.Option(
            "--no-tensorboard",
            help="Write no TensorBoard files (losses, audio and spectrograms).",
            rich_help_panel=RECORD,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a codec with the data of prepare and teach.

    Under `accelerate launch -m dmcodec train fit ...` the training uses several processes and GPUs. `dmcodec export`
    takes RUN/best/codec.safetensors with RUN/best/config.json.

    SIGTERM, SIGUSR1 and Ctrl-C end the run after a checkpoint. The exit code is 128 and the signal's number.
    """
    if resume and force:
        raise ArgumentError("--resume continues the run, --force replaces it; name one of them")
    if resume and init is not None:
        raise ArgumentError("--init is for a new run; a resumed run has its own weights")
    if init is not None:
        named_checkpoint(init)
    try:
        import torch  # noqa: F401

        from dmcodec.training.data.dataset import PreparedData
        from dmcodec.training.fit import fit as train
        from dmcodec.training.loop import RunOptions, describe
        from dmcodec.training.run_folder import RunFolder
        from dmcodec.training.stopping import StopSignals
    except ModuleNotFoundError as error:
        raise missing_dependency("training", error, "train") from None
    options = RunOptions(
        checkpoint_every=checkpoint_every,
        validate_every=validate_every,
        keep=keep,
        samples=samples,
        workers=workers,
        tensorboard=not no_tensorboard,
    )
    changes: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    base = RunFolder(out).config() if resume and config is None else None
    training_config = _configuration(config, changes, distill, weights, level, lock, base)
    if threads is not None and threads < 1:
        raise ArgumentError(f"--threads must be 1 or more, not {threads}")
    set_torch_threads(threads)
    with show_progress() as progress, StopSignals() as stop:

        def report(done: int, total: int, losses: Mapping[str, float]) -> None:
            shown = ", ".join(f"{name} {losses[name]:.3g}" for name in SHOWN_LOSSES if name in losses)
            progress("training", done, total, shown)

        result = train(
            PreparedData.open(data),
            out,
            training_config,
            options,
            initial=init,
            resume=resume,
            force=force,
            report=report,
            stop=stop,
        )
    from accelerate import PartialState

    if PartialState().is_main_process:
        if as_json:
            print_json(result)
        else:
            typer.echo(f"{out}: {describe(result)}")
            typer.echo(f"next: {_next_command(data, out, result['stopped'])}")
    if result["stopped"]:  # where another process got the signal, this one stops as after SIGTERM
        raise typer.Exit(stop.exit_code or 128 + signal.SIGTERM)


def _next_command(data: Path, out: Path, stopped: bool) -> str:
    if stopped:
        return f"dmcodec train fit {shlex.quote(str(data))} --out {shlex.quote(str(out))} --resume"
    best, config = (shlex.quote(str(out / "best" / name)) for name in ("codec.safetensors", "config.json"))
    return f"dmcodec export --checkpoint {best} --config {config} --out BUNDLE"


def _configuration(
    path: Path | None,
    changes: Mapping[str, Any],
    distill: str | None,
    weights: str | None,
    level: int | None,
    lock: str | None,
    base: TrainingConfig | None = None,
) -> TrainingConfig:
    """Return `base`, or the configuration of the file, or the released recipe, with the changes by options."""
    from dmcodec.training.config import TrainingConfig

    config = base or (TrainingConfig.from_json(path) if path is not None else TrainingConfig())
    distillation = _distillation(config.distillation, distill, weights, level, lock)
    changed = {name: value for name, value in changes.items() if value is not None}
    return _replace(config, distillation=distillation, **changed)


def _distillation(
    config: DistillationConfig, distill: str | None, weights: str | None, level: int | None, lock: str | None
) -> DistillationConfig:
    changes: dict[str, Any] = {}
    if distill is not None:
        if distill not in DISTILL:
            raise ArgumentError(f"--distill {distill!r} is not known; use {', '.join(DISTILL)}")
        changes["teachers"] = DISTILL[distill]
        if len(DISTILL[distill]) < 2:
            changes["locked"] = None
    both = len(changes.get("teachers", config.teachers)) == 2
    if not both and (weights is not None or lock is not None):
        raise ArgumentError("--weights and --lock need two teachers; add --distill lm+sm")
    if weights is not None:
        changes["lm_weight"], changes["sm_weight"] = _two_numbers(weights)
    if level is not None:
        changes["level"] = level
    if lock is not None:
        changes["locked"] = lock
    return _replace(config, **changes)


def _replace(config: Any, **changes: Any) -> Any:
    """Return `config` with changes by options; ArgumentError, not ConfigError, where one is wrong."""
    from dmcodec.errors import ConfigError

    try:
        return dataclasses.replace(config, **changes)
    except ConfigError as error:
        raise ArgumentError(str(error).replace("training configuration", "options", 1)) from None


def _two_numbers(text: str) -> tuple[float, float]:
    try:
        lm, sm = (float(part) for part in text.split(":"))
    except ValueError:
        raise ArgumentError(f"--weights {text!r}: expected two numbers, as 0.5:0.5 (LM:SM)") from None
    return lm, sm
