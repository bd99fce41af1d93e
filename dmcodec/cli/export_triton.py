"""`dmcodec export --format triton`: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.files import refuse_existing

from .common import print_json
from .weights import Weights

PlatformOption = Annotated[
    str | None,
    typer.Option(help="triton: what runs there: onnxruntime (default), onnxruntime-tensorrt or tensorrt."),
]
KindOption = Annotated[str | None, typer.Option(help="triton: where: gpu (default) or cpu.")]
InstancesOption = Annotated[int | None, typer.Option(help="triton: instances of each model (default: 1).")]
MaxBatchSizeOption = Annotated[int | None, typer.Option(help="triton: items that run at once, at most (default: 16).")]
MaxQueueDelayOption = Annotated[
    float | None, typer.Option(help="triton: how long a request may wait for others (default: 5).")
]


class ServingCall(NamedTuple):
    """The options for the server, as typed."""

    platform: str | None = None
    kind: str | None = None
    instances: int | None = None
    max_batch_size: int | None = None
    max_queue_delay_ms: float | None = None

    def options(self) -> dict[str, Any]:
        """Those that were given, as arguments of TritonOptions."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def given(self) -> list[str]:
        """Those that were given, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name in self.options()]


def export_triton(
    out: Path | None,
    bundle: Path | None,
    weights: Weights,
    call: ServingCall,
    engine_cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Writes the repository from a bundle, or from weights by way of a bundle that is thrown away."""
    if out is None:
        raise ArgumentError("name the model repository to write with --out MODEL_REPO")
    if (bundle is not None) + (weights.checkpoint is not None) + (weights.seed is not None) != 1:
        raise ArgumentError("name what to serve with --bundle DIR, --checkpoint FILE or --seed N: one of them")
    if engine_cache is not None and call.platform != "tensorrt":
        raise ArgumentError("--engine-cache belongs to --platform tensorrt; add it")
    try:
        from dmcodec.export import triton
        from dmcodec.export.triton.configs import schema
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'--format triton needs {error.name}, which is not installed; run `pip install "dmcodec[cpu,triton]"`'
        ) from None
    wanted = triton.TritonOptions(**call.options())
    schema()  # before minutes of work
    refuse_existing(out, force)
    if bundle is not None and weights.precision is not None:
        raise ArgumentError("--precision: the bundle has its own; leave it out, or export the checkpoint anew")
    if bundle is not None:
        facts = triton.export_triton(bundle, out, wanted, engine_cache, force)
    else:
        from .weights import write_bundle

        with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
            path = Path(folder) / "bundle"
            write_bundle(
                path, weights.checkpoint, weights.config, weights.seed, weights.precision or "fp32", force=False
            )
            facts = triton.export_triton(path, out, wanted, engine_cache, force)
    if as_json:
        print_json({"repository": str(out), **facts})
        return
    typer.echo(f"{out}: model {facts['model_id']}, {facts['precision']}, {facts['platform']} on {facts['kind']}")
    typer.echo("tokenize and synthesize agree with Codec in a simulation of the server")
