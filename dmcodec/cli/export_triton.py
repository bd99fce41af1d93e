"""`dmcodec export --format triton`: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmcodec.errors import ArgumentError
from dmcodec.files import refuse_existing, refuse_inputs
from dmcodec.precision import refuse_int8

from .common import missing_dependency, print_json
from .weights import Weights, write_bundle

if TYPE_CHECKING:
    from dmcodec.export.triton import TritonOptions

SERVER = "Triton (--format triton)"

PlatformOption = Annotated[
    str,
    typer.Option(
        help="What runs encoder and decoder there: onnxruntime, onnxruntime-tensorrt or tensorrt (default: "
        "onnxruntime).",
        metavar="NAME",
        rich_help_panel=SERVER,
    ),
]
KindOption = Annotated[
    str, typer.Option(help="Device of the models: gpu or cpu (default: gpu).", metavar="NAME", rich_help_panel=SERVER)
]
InstancesOption = Annotated[
    int, typer.Option(help="Instances of each model (default: 1).", metavar="N", rich_help_panel=SERVER)
]
MaxBatchSizeOption = Annotated[
    int, typer.Option(help="Largest batch (default: 16).", metavar="N", rich_help_panel=SERVER)
]
MaxQueueDelayOption = Annotated[
    float,
    typer.Option(
        help="Longest time that a request waits for others to form a batch (default: 5).",
        metavar="MS",
        rich_help_panel=SERVER,
    ),
]
ServerCacheOption = Annotated[
    str,
    typer.Option(
        help="Folder on the server for what --platform onnxruntime-tensorrt builds (default: /tmp/dmcodec-engines).",
        metavar="DIR",
        rich_help_panel=SERVER,
    ),
]


def triton_options(
    *,
    platform: str,
    kind: str,
    instances: int,
    max_batch_size: int,
    max_queue_delay_ms: float,
    server_cache: str,
) -> TritonOptions:
    """Return the options of the model repository.

    Raises:
        ArgumentError: a value is not known or out of bounds.
        MissingDependencyError: a package that the repository needs is not installed.
    """
    try:
        from dmcodec.export.triton import TritonOptions
        from dmcodec.export.triton.configs import schema
    except ModuleNotFoundError as error:
        raise missing_dependency("--format triton", error, "cpu,triton") from None
    options = TritonOptions(
        platform=platform,
        kind=kind,
        instances=instances,
        max_batch_size=max_batch_size,
        max_queue_delay_ms=max_queue_delay_ms,
        server_cache=server_cache,
    )
    schema()  # fails without tritonclient, before minutes of work
    return options


def export_repository(
    out: Path,
    bundle: Path | None,
    weights: Weights,
    options: TritonOptions,
    engine_cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the model repository from a bundle, or from weights through a temporary bundle."""
    from dmcodec.export import triton

    if (options.platform, options.kind) != ("onnxruntime", "cpu"):
        where = f"with --platform {options.platform} and --kind {options.kind}"
        refuse_int8(weights.precision or "fp32", where, "take --platform onnxruntime and --kind cpu")
    refuse_existing(out, force)
    refuse_inputs(out, bundle, weights.checkpoint, weights.config)
    if bundle is not None and weights.precision is not None:
        raise ArgumentError("--precision: the bundle has its own; leave it out, or export the checkpoint again")
    if bundle is not None:
        facts = triton.export_triton(bundle, out, options, engine_cache, force)
    else:
        with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
            path = Path(folder) / "bundle"
            write_bundle(weights, path, force=False)
            facts = triton.export_triton(path, out, options, engine_cache, force)
    if as_json:
        print_json({"repository": str(out), **facts})
        return
    typer.echo(f"{out}: model {facts['model_id']}, {facts['precision']}, {facts['platform']} on {facts['kind']}")
    typer.echo("tokenize and synthesize agree with Codec in a simulation of the server")
