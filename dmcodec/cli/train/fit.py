"""`dmcodec train fit`: a data folder to checkpoints that `dmcodec export` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.cli.common import JsonOption, print_json, progress_bar
from dmcodec.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from dmcodec.training.config import DistillationConfig, TrainingConfig

DISTILL = {"none": (), "lm": ("lm",), "sm": ("sm",), "lm+sm": ("lm", "sm")}
SHOWN = ("generator", "mel", "waveform", "discriminators")


def fit(
    data: Annotated[Path, typer.Argument(help="Data folder that `train prepare` and `train teach` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", metavar="RUN")],
    config: Annotated[
        Path | None,
        typer.Option(help="Training configuration JSON (default: the released recipe).", metavar="FILE"),
    ] = None,
    distill: Annotated[
        str | None, typer.Option(help="Teachers: lm, sm, lm+sm or none (default: as configured).")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the two teachers, as LM:SM (default: 0.5:0.5, their mean).")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Quantizer level that is distilled (default: 0).")] = None,
    lock: Annotated[
        str | None, typer.Option(help="lm or sm: that teacher stays on level 0, the other one goes to --level.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps (default: epochs of the configuration).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Segments a process and batch.")] = None,
    gradient_accumulation: Annotated[int | None, typer.Option(help="Batches an optimizer step.")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, fp16 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights, the order and all random choices.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint of a codec to start from (fine-tuning).", metavar="FILE")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 1000,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 1000,
    keep: Annotated[int, typer.Option(help="Checkpoints that stay, the latest ones; `best` stays anyway.")] = 3,
    samples: Annotated[int, typer.Option(help="Validation segments reconstructed at each validation.")] = 4,
    workers: Annotated[int, typer.Option(help="Processes that load data.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch (default: torch's own choice).")] = None,
    tensorboard: Annotated[bool, typer.Option(help="Write losses, audio and spectrograms for TensorBoard.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in RUN.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in RUN.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a codec. Under `accelerate launch -m dmcodec train fit ...` it uses all processes and GPUs."""
    if resume and force:
        raise ArgumentError("--resume goes on with the run, --force replaces it; name one of them")
    if resume and init is not None:
        raise ArgumentError("--init is for a new run; a resumed one has its own weights")
    try:
        import torch

        from dmcodec.training.data.dataset import PreparedData
        from dmcodec.training.fit import fit as train
        from dmcodec.training.loop import RunOptions, describe
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'training needs {error.name}, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    options = RunOptions(checkpoint_every, validate_every, keep, samples, workers, tensorboard)
    changes: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    wanted = _configuration(config, changes, distill, weights, level, lock)
    if threads is not None:
        if threads < 1:
            raise ArgumentError(f"--threads must be 1 or more, not {threads}")
        torch.set_num_threads(threads)
    with progress_bar() as progress:
        task = progress.add_task("training", total=None)

        def report(done: int, total: int, losses: Mapping[str, float]) -> None:
            shown = " ".join(f"{name} {losses[name]:.3g}" for name in SHOWN if name in losses)
            progress.update(task, completed=done, total=total, description=shown)

        result = train(
            PreparedData.open(data), out, wanted, options, initial=init, resume=resume, force=force, report=report
        )
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if as_json:
        print_json(result)
        return
    typer.echo(f"{out}: {describe(result)}")
    typer.echo(
        f"export: dmcodec export --checkpoint {out}/best/codec.safetensors --config {out}/best/config.json --out BUNDLE"
    )


def _configuration(
    path: Path | None,
    changes: Mapping[str, Any],
    distill: str | None,
    weights: str | None,
    level: int | None,
    lock: str | None,
) -> TrainingConfig:
    """The configuration file, or the released recipe, with the options of the command line in it."""
    from dmcodec.training.config import TrainingConfig

    config = TrainingConfig.from_json(path) if path is not None else TrainingConfig()
    distillation = _distillation(config.distillation, distill, weights, level, lock)
    given = {name: value for name, value in changes.items() if value is not None}
    return _checked(config, distillation=distillation, **given)


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
        raise ArgumentError("--weights and --lock are about two teachers; use them with --distill lm+sm")
    if weights is not None:
        changes["lm_weight"], changes["sm_weight"] = _two_numbers(weights)
    if level is not None:
        changes["level"] = level
    if lock is not None:
        changes["locked"] = lock
    return _checked(config, **changes)


def _checked(config: Any, **changes: Any) -> Any:
    """`config` with changes that came as options: what is wrong with them is a wrong call, not a wrong file."""
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
