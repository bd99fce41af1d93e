"""Writes the model repository, and proves it before it appears: simulated requests against `Codec`."""

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
from dmcodec.export.graph_files import read_graph
from dmcodec.export.triton.configs import Configs, Engine
from dmcodec.export.triton.engines import find_engines
from dmcodec.export.triton.graphs import batched_dequantizer, batched_quantizer
from dmcodec.export.triton.options import TritonOptions
from dmcodec.export.triton.proof import require_equal
from dmcodec.export.triton.simulation import Simulation
from dmcodec.files import output_folder
from dmcodec.runtime.codec import Codec

CLIENT = Path(__file__).with_name("client.py")
_README = """# dmcodec model repository

Written by dmcodec {version} from the bundle of model {model_id} ({precision}); docs/serving.md of dmcodec explains it.

    tritonserver --model-repository=$PWD
    python client.py speech.wav out.wav

`tokenize`: waveform [B, 1, samples] float32, lengths [B, 1] int64 -> codes [B, n_q, frames] int64, frames [B, 1].
`synthesize`: codes, first_level [B, 1], frames [B, 1] -> waveform [B, 1, frames x {hop_length}].
"""


def export_triton(
    bundle: str | Path,
    out: str | Path,
    options: TritonOptions | None = None,
    engines: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Writes the model repository `out` for a bundle; it appears only when the simulation agrees with `Codec`.

    Args:
        bundle: the bundle's folder.
        out: the folder to write.
        options: how the server is to run the models.
        engines: folder of TensorRT engines for platform "tensorrt"; the one within the bundle by default.
        force: replace `out` where it exists.

    Returns:
        What `dmcodec.json` in it says.

    Raises:
        BundleError: no bundle, or no engines for it.
        MissingDependencyError: tritonclient, onnx or onnxruntime isn't installed.
        ParityError: what the models say isn't what `Codec` says.
        OutputError: `out` exists, or can't be written.
    """
    options = options or TritonOptions()
    codec = Codec.load(bundle)
    opened = codec.bundle
    wanted = options.platform == "tensorrt"
    plans = find_engines(opened, engines, options.max_batch_size) if wanted else {}
    configs = Configs(opened, options)
    with output_folder(out, force) as folder:
        messages = configs.all(plans)
        for name, message in messages.items():
            _write_model(folder / name, name, message, opened, plans.get(name), configs.warm_up_lengths(name))
        shutil.copyfile(CLIENT, folder / "client.py")
        facts = _facts(opened, options, plans)
        (folder / "dmcodec.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        manifest = opened.manifest
        readme = _README.format(
            version=__version__,
            model_id=manifest.model_id,
            precision=manifest.precision,
            hop_length=manifest.config.hop_length,
        )
        (folder / "README.md").write_text(readme, encoding="utf-8")
        require_equal(Simulation(folder, {name: opened.graph_path(name) for name in plans}), codec)
    return facts


def _write_model(
    folder: Path, name: str, message: Any, bundle: Bundle, engine: Engine | None, warm_up_length: int
) -> None:
    from google.protobuf import text_format

    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")
    if message.platform == "ensemble":
        (version / ".keep").touch()  # the server wants the folder, and copying tools drop empty ones
        return
    if any(entry.input_data_file for sample in message.model_warmup for entry in sample.inputs.values()):
        (folder / "warmup").mkdir()
        (folder / "warmup" / "lengths").write_bytes(np.array([warm_up_length], "<i8").tobytes())
    path = version / message.default_model_filename
    config = bundle.manifest.config
    if engine:
        path.write_bytes(engine.plan)
    elif name == "quantizer":
        onnx.save(batched_quantizer(bundle.graph_path(name), config), path)
    elif name == "dequantizer":
        onnx.save(batched_dequantizer(bundle.graph_path("quantizer"), config), path)
    else:  # its weights in it: a model's folder has to be whole without the others
        onnx.save(read_graph(bundle.graph_path(name)), path)


def _facts(bundle: Bundle, options: TritonOptions, plans: Mapping[str, Engine]) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "exporter": f"dmcodec {__version__}",
        "model_id": manifest.model_id,
        "precision": manifest.precision,
        "graphs": {name: spec.sha256 for name, spec in manifest.graphs.items()},
        "engines": {name: {"file": engine.file, "tensorrt": engine.version} for name, engine in plans.items()},
        **{name: getattr(options, name) for name in options.__dataclass_fields__},
    }
