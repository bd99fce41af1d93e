"""What was really built: the precision of an engine's layers, told by its inspector or by the builder's own report.

The inspector needs a GPU, since the engine has to be loaded. Without one the builder's list of layers in its verbose
log says the same.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dmcodec.errors import BackendError, EngineBuildError
from dmcodec.precision import ARITHMETICS, FP32
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine import Engine
from dmcodec.runtime.tensorrt.library import Library, LogLine

INSPECTOR, BUILD_LOG = "engine inspector", "builder's log"
# How layers' types are written: "Half", or within "Row major linear FP16 format".
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
    """What an engine's layers compute in.

    Attributes:
        source: who said so.
        layers: how many there are.
        tensors: precision -> number of layers' outputs in it, floating types and int8 only.
    """

    source: str
    layers: int
    tensors: dict[str, int]

    @property
    def precision(self) -> str:
        """That of most outputs."""
        return max(self.tensors, key=lambda name: self.tensors[name]) if self.tensors else "unknown"


def inspect_engine(
    library: Library, name: str, plan: bytes, lines: Sequence[LogLine], gpu: Gpu | None, host_code: bool = False
) -> Inspection:
    """Inspects a plan that was just built; `host_code`: it is version compatible, and brings its own runtime.

    Raises:
        EngineBuildError: neither the inspector nor the log tells of any layer.
    """
    found = None
    if gpu is not None:
        try:
            found = _from_information(Engine(library, plan, name, host_code).information())
        except BackendError:  # an engine for another GPU, say: the log knows it, too
            found = None
    found = found or _from_log(lines)
    if found is None:
        raise EngineBuildError(f"{name}: {library.flavour} {library.version} doesn't say what it built")
    return found


def require_precision(name: str, wanted: str, found: Inspection) -> None:
    """Raises EngineBuildError where the engine isn't in the precision of its graph.

    A float32 engine holds no tensor of fewer bits; in a half-precision one, most are (its ends stay float32).
    """
    fewer_bits = [precision for precision in found.tensors if precision != FP32.name]
    if (wanted == FP32.name and fewer_bits) or found.precision != wanted:
        counts = ", ".join(f"{count} {precision}" for precision, count in found.tensors.items()) or "none"
        raise EngineBuildError(
            f"{name}: asked for {wanted}, but the engine's layers give tensors in {counts} (by the {found.source}); "
            "it was not kept"
        )


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
