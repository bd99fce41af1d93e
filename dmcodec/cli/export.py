"""`dmcodec export`: a torch checkpoint to a bundle of graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError

from .common import EngineCacheOption, ForceOption, JsonOption, console, print_json
from .export_tensorrt import (
    BatchOption,
    ComputeCapabilityOption,
    DryRunOption,
    EngineBundleOption,
    EngineCall,
    FlavourOption,
    GraphsOption,
    HardwareCompatibilityOption,
    LadderOption,
    ProfileOption,
    RebuildOption,
    RefitOption,
    StripPlanOption,
    Tf32Option,
    VersionCompatibleOption,
    WorkspaceOption,
    export_engines,
)
from .export_triton import (
    InstancesOption,
    KindOption,
    MaxBatchSizeOption,
    MaxQueueDelayOption,
    PlatformOption,
    ServingCall,
    export_triton,
)
from .weights import Weights, _check_source, write_bundle

if TYPE_CHECKING:
    from dmcodec.bundle import Bundle


FORMATS = ("onnx", "trt", "triton")


def export(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Bundle folder to write.", metavar="BUNDLE")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="State dict (torch.save or .safetensors).", metavar="FILE")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration JSON (default: that of the released models).", metavar="FILE")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Untrained weights of this seed instead of a checkpoint, to measure speed.")
    ] = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format", help="onnx (a bundle), trt (and its TensorRT engines) or triton (a model repository)."
        ),
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32; fp16 for encoder and decoder (the RVQ stays fp32); or fp16-weights: stored in fp16, run in "
            "fp32 (default: fp32)."
        ),
    ] = None,
    bundle: EngineBundleOption = None,
    engine_cache: EngineCacheOption = None,
    profile: ProfileOption = None,
    batch: BatchOption = None,
    ladder: LadderOption = None,
    graphs: GraphsOption = None,
    flavour: FlavourOption = None,
    compute_capability: ComputeCapabilityOption = None,
    rebuild: RebuildOption = False,
    dry_run: DryRunOption = False,
    version_compatible: VersionCompatibleOption = False,
    hardware_compatibility: HardwareCompatibilityOption = "none",
    refit: RefitOption = False,
    strip_plan: StripPlanOption = False,
    workspace_mb: WorkspaceOption = None,
    tf32: Tf32Option = False,
    platform: PlatformOption = None,
    kind: KindOption = None,
    instances: InstancesOption = None,
    max_batch_size: MaxBatchSizeOption = None,
    max_queue_delay_ms: MaxQueueDelayOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a checkpoint to a bundle, and prove the graphs against torch; fails where they don't agree.

    With --format trt, build TensorRT engines for the bundle's graphs, too; with --format triton, write a model
    repository for NVIDIA Triton Inference Server. Where these two name no weights, they take the bundle that comes with
    dmcodec.
    """
    if output_format not in FORMATS:
        raise ArgumentError(f"--format {output_format!r} is not known; use {', '.join(FORMATS)}")
    weights_named = (checkpoint, config, seed) != (None, None, None)
    if bundle is None and not weights_named and (output_format == "triton" or (output_format == "trt" and out is None)):
        bundle = default_bundle_path()
    engines = EngineCall(
        bundle=bundle, profile=profile, batch=batch, ladder=ladder, graphs=graphs, flavour=flavour,
        compute_capability=compute_capability, engine_cache=engine_cache, rebuild=rebuild, dry_run=dry_run,
        version_compatible=version_compatible, hardware_compatibility=hardware_compatibility, refit=refit,
        strip_plan=strip_plan, workspace_mb=workspace_mb, tf32=tf32,
    )  # fmt: skip
    serving = ServingCall(platform, kind, instances, max_batch_size, max_queue_delay_ms)
    _refuse_foreign(output_format, engines, serving)
    if bundle is not None and weights_named:
        raise ArgumentError("--bundle: it has its weights; --checkpoint, --config and --seed are for a new bundle")
    if output_format == "triton":
        weights = Weights(checkpoint, config, seed, precision)
        export_triton(out, bundle, weights, serving, engine_cache, force, as_json)
        return
    if bundle is not None and force:
        raise ArgumentError("--force is for a new bundle; --rebuild builds engines again that are there")
    if bundle is not None and out is not None:
        raise ArgumentError("--bundle: it has its weights, and its engines go beside it; --out is for a new bundle")
    if bundle is None:
        _check_source(out, checkpoint, seed)

    def write() -> Bundle:
        return write_bundle(out or Path(), checkpoint, config, seed, precision or "fp32", force)

    if output_format == "trt":
        export_engines(engines, precision, write, as_json)
        return
    manifest = write().manifest
    if as_json:
        print_json({"bundle": str(out), **manifest.to_dict()})
        return
    console().print(_parity_table(manifest.parity))
    size = f"{manifest.size_bytes / 1e6:.1f} MB"
    typer.echo(f"{out}: {manifest.precision}, model {manifest.model_id}, {size}, parity passed")


def _refuse_foreign(output_format: str, engines: EngineCall, serving: ServingCall) -> None:
    """Raises ArgumentError where an option was given that belongs to another format."""
    shared = {"--bundle", "--engine-cache"}
    foreign = serving.given() if output_format != "triton" else []
    if foreign:
        raise ArgumentError(f"{foreign[0]} is for --format triton only")
    given = engines.given() if output_format != "trt" else []
    if output_format == "triton":
        given = [option for option in given if option not in shared]
    if given:
        formats = "trt and triton" if given[0] in shared else "trt"
        raise ArgumentError(f"{given[0]} is for --format {formats} only")


def _parity_table(parity: Any) -> Any:
    from rich.table import Table

    table = Table(title="Graphs against torch", caption=f"{parity['ties']} frames differ by a tie only")
    columns = {
        "signal": "signal",
        "samples": "num_samples",
        "batch": "batch",
        "latents max |err|": "latents_max_abs_error",
        "latents SNR dB": "latents_snr_db",
        "codes equal": "code_agreement",
        "frames agree": "frame_agreement",
        "decoder max |err|": "decoder_max_abs_error",
        "decoder SNR dB": "decoder_snr_db",
        "chain SNR dB": "chain_snr_db",
    }
    for title in columns:
        table.add_column(title, justify="right")
    for case in parity["cases"]:
        table.add_row(*(_cell(name, case[name]) for name in columns.values()))
    return table


def _cell(name: str, value: Any) -> str:
    if name.endswith("_agreement"):
        return f"{100 * value:.2f} %"
    if name.endswith("_error"):
        return f"{value:.1e}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
