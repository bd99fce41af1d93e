"""`dmcodec export --format triton`: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dmcodec.cli.common import print_json
from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.files import refuse_existing

if TYPE_CHECKING:
    from dmcodec.cli.export import Weights


def export_triton(
    out: Path,
    bundle: Path | None,
    weights: Weights,
    options: dict[str, Any],
    engine_cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Writes the repository from a bundle, or from weights by way of a bundle that is thrown away."""
    if (bundle is not None) + (weights.checkpoint is not None) + (weights.seed is not None) != 1:
        raise ArgumentError("name what to serve with --bundle DIR, --checkpoint FILE or --seed N: one of them")
    if engine_cache is not None and options.get("platform") != "tensorrt":
        raise ArgumentError("--engine-cache belongs to --platform tensorrt; add it")
    try:
        from dmcodec.export import triton
        from dmcodec.export.triton.configs import schema
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--format triton needs {error.name}, which isn't installed; run `pip install dmcodec[cpu,triton]`"
        ) from None
    wanted = triton.TritonOptions(**options)
    schema()  # before minutes of work
    refuse_existing(out, force)
    if bundle is not None:
        facts = triton.export_triton(bundle, out, wanted, engine_cache, force)
    else:
        from dmcodec.cli.export import write_bundle

        with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
            path = Path(folder) / "bundle"
            write_bundle(path, weights.checkpoint, weights.config, weights.seed, weights.precision, force=False)
            facts = triton.export_triton(path, out, wanted, engine_cache, force)
    if as_json:
        print_json({"repository": str(out), **facts})
        return
    typer.echo(f"{out}: model {facts['model_id']}, {facts['precision']}, {facts['platform']} on {facts['kind']}")
    typer.echo("tokenize and synthesize agree with Codec in a simulation of the server")
