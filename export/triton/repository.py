"""Writes a Triton model repository, and compares its simulated answers with `Codec` before it appears."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dmcodec import __version__
from dmcodec.bundle import Bundle
from dmcodec.errors import BundleNotFoundError, EngineError
from dmcodec.export.tensorrt.rewrite import rewritten
from dmcodec.export.weights import read_graph
from dmcodec.files import output_folder
from dmcodec.precision import refuse_int8
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.tensorrt.engine_store import EngineRecord, EngineStore, engine_folder
from dmcodec.runtime.tensorrt.library import TENSORRT
from dmcodec.runtime.tensorrt.profiles import Profile

from .batched_graphs import batched_dequantizer, batched_quantizer, batched_recurrent
from .configs import LENGTHS, Configs, Engine, TritonOptions, uses_tensorrt_accelerator
from .simulation import Simulation, require_agreement

CLIENT = Path(__file__).with_name("client.py")
ENGINE_GRAPHS = ("encoder", "decoder")  # the graphs that TensorRT runs on platform "tensorrt"
_README = """# dmcodec model repository

Written by dmcodec {version} from the bundle of model {model_id} ({precision}).
docs/how-to/serve-with-triton.md of dmcodec explains it.

    tritonserver --model-repository=$PWD
    python client.py speech.wav out.wav

`tokenize`: waveform [B, 1, samples] float32, lengths [B, 1] int64 -> codes [B, n_q, frames] int64, frames [B, 1].
`synthesize`: codes, first_level [B, 1], frames [B, 1] -> waveform [B, 1, frames x {hop_length}].
`dequantizer`, `decoder_recurrent`, `decoder_upsampler`: speech while codes arrive; see `SpeechStream` in client.py.
"""


def export_triton(
    bundle: str | Path,
    out: str | Path,
    options: TritonOptions | None = None,
    engines: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the model repository `out` for a bundle. It appears only when the simulated server agrees with `Codec`.

    Args:
        bundle: the bundle's folder.
        out: the folder to write.
        options: options of the server.
        engines: folder of TensorRT engines for platform "tensorrt"; by default the one within the bundle.
        force: replace `out` where it exists.

    Returns:
        The content of the repository's `dmcodec.json`.

    Raises:
        BundleError: there is no bundle, or there are no engines for it.
        MissingDependencyError: tritonclient, onnx or onnxruntime is not installed.
        ParityError: results of the models don't agree with those of `Codec`.
        OutputError: `out` exists, or can't be written.
    """
    options = options or TritonOptions()
    codec = Codec.load(bundle)
    opened = codec.bundle
    if (options.platform, options.kind) != ("onnxruntime", "cpu"):
        where = f"with platform {options.platform} and kind {options.kind}"
        refuse_int8(opened.manifest.precision, where, "choose platform onnxruntime and kind cpu")
    uses_engines = options.platform == "tensorrt"
    plans = find_engines(opened, engines, options.max_batch_size) if uses_engines else {}
    configs = Configs(opened, options)
    with output_folder(out, force) as folder:
        messages = configs.all(plans)
        for name, message in messages.items():
            _write_model(folder / name, name, message, opened, plans.get(name), options)
        shutil.copyfile(CLIENT, folder / "client.py")
        description = _description(opened, options, plans)
        (folder / "dmcodec.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        manifest = opened.manifest
        readme = _README.format(
            version=__version__,
            model_id=manifest.model_id,
            precision=manifest.precision,
            hop_length=manifest.config.hop_length,
        )
        (folder / "README.md").write_text(readme, encoding="utf-8")
        require_agreement(Simulation(folder, {name: opened.graph_path(name) for name in plans}), codec)
    return description


def _write_model(
    folder: Path, name: str, message: Any, bundle: Bundle, engine: Engine | None, options: TritonOptions
) -> None:
    from google.protobuf import text_format

    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")
    if message.platform == "ensemble":
        (version / ".keep").touch()  # the server needs the folder, and some copying tools drop empty ones
        return
    files = {entry.input_data_file for sample in message.model_warmup for entry in sample.inputs.values()} - {""}
    for file in sorted(files):
        (folder / "warmup").mkdir(exist_ok=True)
        (folder / "warmup" / file).write_bytes(np.array([int(file.removeprefix(LENGTHS))], "<i8").tobytes())
    path = version / message.default_model_filename
    config = bundle.manifest.config
    if engine:
        path.write_bytes(engine.plan)
    elif name == "quantizer":
        onnx.save(batched_quantizer(bundle.graph_path(name), config), path)
    elif name == "dequantizer":
        onnx.save(batched_dequantizer(bundle.graph_path("quantizer"), config), path)
    elif name == "decoder_recurrent":
        onnx.save(batched_recurrent(bundle.graph_path(name)), path)
    elif uses_tensorrt_accelerator(options, name):  # the form that TensorRT parses and builds
        path.write_bytes(rewritten(bundle.graph_path(name)))
    else:  # with its weights inside: each model's folder stands alone
        onnx.save(read_graph(bundle.graph_path(name)), path)


def _description(bundle: Bundle, options: TritonOptions, plans: Mapping[str, Engine]) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "exporter": f"dmcodec {__version__}",
        "model_id": manifest.model_id,
        "precision": manifest.precision,
        "graphs": {name: spec.sha256 for name, spec in manifest.graphs.items()},
        "engines": {name: {"file": engine.file, "tensorrt": engine.version} for name, engine in plans.items()},
        **{name: getattr(options, name) for name in options.__dataclass_fields__},
    }


def find_engines(bundle: Bundle, folder: Path | None, max_batch_size: int) -> dict[str, Engine]:
    """Find the newest engines of encoder and decoder with a range of shapes for batches of 1 to `max_batch_size`.

    Engines of TensorRT-RTX are left out: Triton's backend does not load them.

    Args:
        bundle: the bundle of the engines.
        folder: of the engines; by default the one within the bundle.
        max_batch_size: largest batch that they have to run.

    Raises:
        BundleNotFoundError: there is no such engine.
    """
    store = EngineStore(engine_folder(bundle.path, folder))
    records, problems = store.records()
    found = {}
    for graph in ENGINE_GRAPHS:
        sha256 = bundle.manifest.graphs[graph].sha256
        own = [r for r in records if (r.key.graph, r.key.graph_sha256, r.key.flavour) == (graph, sha256, TENSORRT)]
        own = [r for r in own if not r.key.options.get("strip_plan")]  # a plan without weights can't run
        engine, refused = _newest(store, own, max_batch_size)
        if engine is None:
            more = "; ".join((refused + [problem for problem in problems if f"{graph}-" in problem])[:3])
            raise BundleNotFoundError(
                f"{store.folder}: no TensorRT engine of the {graph} for batches of 1 to {max_batch_size}"
                f"{f' ({more})' if more else ''}; build it on the server's kind of GPU with "
                f"`dmcodec export --format trt --bundle {bundle.path} --batch 1:1:{max_batch_size}`, "
                "or use --platform onnxruntime-tensorrt"
            )
        found[graph] = engine
    return found


def _newest(store: EngineStore, records: list[EngineRecord], max_batch_size: int) -> tuple[Engine | None, list[str]]:
    """Return the newest unaltered engine with such a profile, and the problems of newer ones."""
    problems: list[str] = []
    by_age = sorted(records, key=lambda record: (store.folder / record.key.file).stat().st_mtime, reverse=True)
    for record in by_age:
        profile = next((i for i, item in enumerate(record.key.profiles) if _covers_batches(item, max_batch_size)), None)
        if profile is None:
            continue
        try:
            return Engine(
                store.plan(record), profile, record.key.file, record.key.version, record.key.profiles[profile]
            ), problems
        except EngineError as error:
            problems.append(str(error))
    return None, problems


def _covers_batches(profile: Profile, max_batch_size: int) -> bool:
    if profile.fixed:  # one duration only
        return False
    batched = [shapes for shapes in profile.inputs.values() if shapes.min]
    return all(shapes.min[0] <= 1 and shapes.max[0] >= max_batch_size for shapes in batched)
