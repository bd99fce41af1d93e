"""`dmcodec export`: a torch checkpoint to a bundle of graphs, TensorRT engines or a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError
from dmcodec.files import refuse_existing, refuse_inputs
from dmcodec.precision import PRECISIONS

from .bundles import named_bundle
from .common import ForceOption, JsonOption, ReportOption, command_line, console, listed, print_json
from .export_tensorrt import (
    ENGINES,
    BatchOption,
    ComputeCapabilityOption,
    DryRunOption,
    EngineChoice,
    FixedShapesOption,
    FlavourOption,
    GraphsOption,
    HardwareCompatibilityOption,
    ProfileOption,
    RebuildOption,
    RefitOption,
    StripPlanOption,
    Tf32Option,
    VersionCompatibleOption,
    WorkspaceOption,
    build_options,
    export_engines,
)
from .export_triton import (
    SERVER,
    InstancesOption,
    KindOption,
    MaxBatchSizeOption,
    MaxQueueDelayOption,
    PlatformOption,
    ServerCacheOption,
    export_repository,
    triton_options,
)
from .int8_rows import int8_rows
from .weights import Weights, write_bundle, write_bundle_again

if TYPE_CHECKING:
    from dmcodec.bundle import Bundle

FORMATS = ("onnx", "trt", "triton")
WEIGHTS = "Weights"
# Options that belong to some formats only: those of a panel of the help, and one that two formats share.
FORMATS_OF_PANEL: dict[str | None, tuple[str, ...]] = {ENGINES: ("trt",), SERVER: ("triton",)}
FORMATS_OF_OPTION = {"engine_cache": ("trt", "triton"), "report": ("onnx",)}


def export(
    ctx: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Bundle folder, or with --format triton model repository.", metavar="DIR"),
    ] = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx (a bundle), trt (a bundle's TensorRT engines) or triton (a model repository) (default: onnx).",
            metavar="NAME",
        ),
    ] = "onnx",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint of DM-Codec, SpeechTokenizer or EnCodec (torch.save or safetensors): file, folder, or "
            "ORG/NAME of the Hugging Face hub.",
            metavar="FILE",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration of --checkpoint (default: that of its folder, or of the released model that it is).",
            metavar="FILE",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Untrained weights of this seed instead of a checkpoint, to measure speed.",
            metavar="N",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"{'; '.join(f'{row.name}: {row.summary}' for row in PRECISIONS.values())} (default: fp32).",
            metavar="NAME",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of speech on which --precision int8 tries layers, and of which it holds back a part to judge "
            "the result (default: the sample speech of the package).",
            metavar="FOLDER",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Take the weights of this bundle: writes it again to --out with the graphs of today; with --format "
            "trt or triton, starts from it as it is (default there: the trained bundle that comes with dmcodec).",
            metavar="BUNDLE",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    profile: ProfileOption = None,
    batch: BatchOption = None,
    fixed_shapes: FixedShapesOption = None,
    graphs: GraphsOption = None,
    flavour: FlavourOption = None,
    compute_capability: ComputeCapabilityOption = None,
    engine_cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of TensorRT engines, also for --platform tensorrt (default: engines/ in the bundle).",
            metavar="DIR",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    rebuild: RebuildOption = False,
    dry_run: DryRunOption = False,
    version_compatible: VersionCompatibleOption = False,
    hardware_compatibility: HardwareCompatibilityOption = "none",
    refit: RefitOption = False,
    strip_plan: StripPlanOption = False,
    workspace_mb: WorkspaceOption = None,
    tf32: Tf32Option = False,
    platform: PlatformOption = "onnxruntime",
    kind: KindOption = "gpu",
    instances: InstancesOption = 1,
    max_batch_size: MaxBatchSizeOption = 16,
    max_queue_delay_ms: MaxQueueDelayOption = 5.0,
    server_cache: ServerCacheOption = "/tmp/dmcodec-engines",
    report: ReportOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export weights to a bundle, engines or a Triton repository.

    The graphs of a new bundle are compared with torch; the export fails where they differ too much. --bundle writes a
    bundle of an earlier version again, with the graphs of today. With --format trt,
    TensorRT engines of the graphs are built, too. With --format triton, a model repository for NVIDIA Triton Inference
    Server is written. With --report, a page proves a new bundle: each worst figure beside its threshold, and hashes.

    Options marked with ",..." take several values: --graphs encoder,decoder or --graphs
    encoder --graphs decoder.
    """
    if output_format not in FORMATS:
        raise ArgumentError(f"--format {output_format!r} is not known; use {', '.join(FORMATS)}")
    _refuse_foreign(ctx, output_format)
    weights = Weights(checkpoint, config, seed, precision, calibration)
    if precision is not None and precision not in PRECISIONS:
        raise ArgumentError(f"--precision {precision!r} is not known; use {', '.join(PRECISIONS)}")
    if calibration is not None and not PRECISIONS[precision or "fp32"].has_int8:
        raise ArgumentError("--calibration is for --precision int8; add it, or leave --calibration out")
    bundle = _checked_source(output_format, bundle, weights, out, force)
    if bundle is not None:
        bundle = Path(named_bundle(bundle))

    if output_format == "triton":
        if engine_cache is not None and platform != "tensorrt":
            raise ArgumentError("--engine-cache belongs to --platform tensorrt; add it")
        source = ctx.get_parameter_source("server_cache")
        if platform != "onnxruntime-tensorrt" and source is not None and source.name == "COMMANDLINE":
            raise ArgumentError("--server-cache belongs to --platform onnxruntime-tensorrt; add it")
        serving = triton_options(
            platform=platform,
            kind=kind,
            instances=instances,
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
            server_cache=server_cache,
        )
        export_repository(out or Path(), bundle, weights, serving, engine_cache, force, as_json)
        return

    def write() -> Bundle:
        return write_bundle(weights, out or Path(), force)

    if output_format == "trt":
        from dmcodec.runtime.tensorrt.profiles import ShapeRequest

        shapes = ",".join(listed("--fixed-shapes", fixed_shapes)) or None
        request = ShapeRequest.parse(profile, batch, shapes)
        building = build_options(
            version_compatible=version_compatible,
            hardware_compatibility=hardware_compatibility,
            refit=refit,
            strip_plan=strip_plan,
            workspace_mb=workspace_mb,
            tf32=tf32,
            compute_capability=compute_capability,
        )
        choice = EngineChoice(request, listed("--graphs", graphs), flavour, engine_cache, rebuild, dry_run)
        export_engines(bundle, write, precision, choice, building, as_json)
        return
    if report:
        _check_report(report, out or Path(), force, checkpoint, config)
    written = write() if bundle is None else write_bundle_again(bundle, out or Path(), precision, force, calibration)
    _print_bundle(written, as_json)
    if report:
        _write_report(report, written)


def _check_report(report: Path, out: Path, force: bool, *inputs: Path | None) -> None:
    """Refuse a page that can't be written, before the work.

    Raises:
        ArgumentError: it would lie in the bundle, or is an input.
        OutputExistsError: it exists, and `force` is false.
    """
    if out.absolute() in (report.absolute(), *report.absolute().parents):
        raise ArgumentError(f"--report {report}: lies in the bundle; name a file outside {out}")
    refuse_existing(report, force)
    refuse_inputs(report, *inputs)


def _write_report(report: Path, bundle: Bundle) -> None:
    from dmcodec.benchmarks.verify.proof import proof_of_export

    from .verify import write_proof

    write_proof(report, proof_of_export(bundle, command_line()))


def _checked_source(
    output_format: str, bundle: Path | None, weights: Weights, out: Path | None, force: bool
) -> Path | None:
    """Return the bundle to start from, or None where the weights are exported to a new one.

    Raises:
        ArgumentError: it isn't clear what to start from, the output isn't named, or an option would be ignored.
    """
    if bundle is not None and weights.named:
        raise ArgumentError("--bundle: it has its weights; --checkpoint, --config and --seed are for a new bundle")
    takes_default = output_format == "triton" or (output_format == "trt" and out is None)
    if bundle is None and not weights.named and takes_default:
        bundle = default_bundle_path()
    if output_format == "triton":
        if out is None:
            raise ArgumentError("name the model repository to write with --out DIR")
    elif bundle is None or output_format == "onnx":
        if out is None:
            raise ArgumentError("name the bundle to write with --out BUNDLE")
    elif force:
        raise ArgumentError("--force is for a new bundle; --rebuild builds engines again that exist")
    elif out is not None:
        raise ArgumentError("--bundle: it has its weights, and its engines go beside it; --out is for a new bundle")
    if bundle is None:
        weights.check()
    return bundle


def _refuse_foreign(ctx: typer.Context, output_format: str) -> None:
    """Refuse an option that was given and belongs to another format.

    Raises:
        ArgumentError: there is one.
    """
    for parameter in ctx.command.params:
        name = parameter.name or ""
        panel = getattr(parameter, "rich_help_panel", None)
        formats = FORMATS_OF_OPTION.get(name) or FORMATS_OF_PANEL.get(panel, FORMATS)
        source = ctx.get_parameter_source(name)
        if output_format not in formats and source is not None and source.name == "COMMANDLINE":
            raise ArgumentError(f"{parameter.opts[0]} is for --format {' and '.join(formats)} only")


def _print_bundle(bundle: Bundle, as_json: bool) -> None:
    manifest = bundle.manifest
    if as_json:
        print_json({"bundle": str(bundle.path), **manifest.to_dict()})
        return
    console().print(_parity_table(manifest.parity))
    if manifest.int8:
        for name, value in int8_rows(manifest.int8):
            typer.echo(f"{name:<32} {value}")
    size = f"{manifest.size_bytes / 1e6:.1f} MB"
    typer.echo(f"{bundle.path}: {manifest.precision}, model {manifest.model_id}, {size}, parity passed")
    if mixing := PRECISIONS[manifest.precision].mixing:
        typer.echo(mixing)


def _parity_table(parity: Any) -> Any:
    from rich.table import Table

    table = Table(
        title="Graphs against torch", caption=f"{parity['ties']} frames differ by a tie only; 200 dB: identical"
    )
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
