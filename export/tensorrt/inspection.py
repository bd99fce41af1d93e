"""The precision of an engine's layers, by the engine inspector or by the builder's log.

The inspector loads the engine, which needs a GPU. Without one, the list of layers in the builder's verbose log is read.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dmcodec.errors import BackendError
from dmcodec.precision import ARITHMETICS, FP32
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine import Engine
from dmcodec.runtime.tensorrt.library import Library, LogLine

INSPECTOR, BUILD_LOG, NOWHERE = "engine inspector", "builder's log", "nothing"
# Precision -> the words for it in a layer's type: "Half", or within "Row major linear FP16 format".
_TYPES = {
    **{name: arithmetic.tensorrt_types for name, arithmetic in ARITHMETICS.items()},
    "bf16": ("BFloat16", "BF16"),
    "fp8": ("FP8", "Float8"),
    "int8": ("Int8", "INT8"),
}
_LAYER = re.compile(r"^Name: .*?, LayerType: .*? Outputs: \[(.*)$", re.MULTILINE)
_DATATYPE = re.compile(r"Datatype: (\w+)")


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Precisions of an engine's layers.

    Attributes:
        source: INSPECTOR, BUILD_LOG, or NOWHERE: neither lists layers.
        layers: number of layers.
        tensors: precision -> number of layers' outputs in it; floating-point types and int8 only.
    """

    source: str
    layers: int
    tensors: dict[str, int]

    @property
    def precision(self) -> str:
        """The precision of most outputs; "unknown" without any."""
        return max(self.tensors, key=lambda name: self.tensors[name]) if self.tensors else "unknown"


def inspect_engine(
    library: Library, name: str, plan: bytes, lines: Sequence[LogLine], gpu: Gpu | None, host_code: bool = False
) -> Inspection:
    """Inspect a plan that was just built.

    Args:
        library: the TensorRT that built it.
        name: the graph's name, for messages.
        plan: the serialised engine.
        lines: the log of the build.
        gpu: of this machine; None where there is none.
        host_code: the plan is version compatible: it holds code for the host, which loading it has to allow.
    """
    found = None
    if gpu is not None:
        try:
            found = _from_information(Engine(library, plan, name, host_code).information())
        except BackendError:  # an engine for another GPU, for example
            found = None
    return found or _from_log(lines) or Inspection(NOWHERE, 0, {})


def precision_problem(wanted: str, found: Inspection) -> str | None:
    """Say in what an engine is not in the precision of its graph; return None where all is as expected.

    A float32 engine holds no tensor of fewer bits. A half-precision engine holds some: inputs, outputs and what its row
    of `dmcodec.precision` leaves in float32 are not. What layers are called differs from library to library, so this
    is a reason to look at an engine, and none to throw it away.
    """
    if not found.tensors:
        return "the precision of the engine is not known: it lists no layers with their types"
    fewer_bits = [precision for precision in found.tensors if precision != FP32.name]
    if fewer_bits if wanted == FP32.name else wanted not in found.tensors:
        counts = ", ".join(f"{count} {precision}" for precision, count in found.tensors.items())
        return f"asked for {wanted}, but the engine's layers give tensors in {counts} (by the {found.source})"
    return None


def _from_information(information: Any) -> Inspection | None:
    layers = information.get("Layers") if isinstance(information, dict) else None
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    outputs = (output for layer in layers for output in layer.get("Outputs", []))
    types = (str(output.get("Datatype") or output.get("Format/Datatype", "")) for output in outputs)
    return _inspection(INSPECTOR, len(layers), types)


def _from_log(lines: Sequence[LogLine]) -> Inspection | None:
    layers = [match for line in lines for match in _LAYER.findall(line.text)]
    types = (datatype for layer in layers for datatype in _DATATYPE.findall(layer))
    return _inspection(BUILD_LOG, len(layers), types)


def _inspection(source: str, layers: int, types: Iterable[str]) -> Inspection | None:
    counts = collections.Counter(_precisions(types))
    return Inspection(source, layers, dict(counts.most_common())) if counts else None


def _precisions(types: Iterable[str]) -> Iterator[str]:
    for text in types:
        words = text.replace(",", " ").split()
        for precision, names in _TYPES.items():
            if any(word in names for word in words):
                yield precision
                break
