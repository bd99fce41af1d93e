"""One file for the large weights of all graphs of a bundle, each content once: ONNX external data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

from dmcodec.bundle import WeightsSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError
from dmcodec.files import file_sha256
from dmcodec.precision import PRECISIONS

from .graph_builder import GraphBuilder

# FOLDED: How graphs hold the codebooks: each level's by itself, so that quantizer and dequantizer can share them.
# FOLDED: Reads the ONNX graphs of a bundle, with their weights.


FILE = "weights.bin"
# Smaller ones stay in the graph, where ONNX Runtime needs them to infer shapes.
FROM_BYTES = 1024
_ALIGNMENT_BYTES = 64
# In a graph's metadata: a digest of its weights, so that graphs that differ in their weights only have other hashes.
WEIGHTS_DIGEST = "weights_sha256"


class SharedWeights:
    """Moves weights out of graphs into the file `weights.bin` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._offsets: dict[bytes, int] = {}
        self._size_bytes = 0

    def take(self, model: onnx.ModelProto) -> None:
        """Moves the large initializers of `model` into the file, and points to them there."""
        digests = hashlib.sha256()
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < FROM_BYTES:
                continue
            digest = hashlib.sha256(tensor.raw_data).digest()
            digests.update(digest)
            if digest not in self._offsets:
                self._offsets[digest] = self._append(tensor.raw_data)
            set_external_data(tensor, FILE, self._offsets[digest], len(tensor.raw_data))
            tensor.ClearField("raw_data")
        onnx.helper.set_model_props(model, {WEIGHTS_DIGEST: digests.hexdigest()})

    def spec(self) -> WeightsSpec | None:
        """The finished file, None where there is none."""
        if not self._offsets:
            return None
        return WeightsSpec(FILE, file_sha256(self._path), self._size_bytes)

    def _append(self, content: bytes) -> int:
        padding = -self._size_bytes % _ALIGNMENT_BYTES
        with self._path.open("ab") as file:
            file.write(bytes(padding) + content)
        offset = self._size_bytes + padding
        self._size_bytes = offset + len(content)
        return offset


def codebook_name(level: int) -> str:
    """Name of the initializer with the entries [codebook_size, D] of a level."""
    return f"codebook_{level}"


def stored_codebooks(codebooks: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    """The entries [n_q, codebook_size, D] as a bundle of `precision` holds them: fp16-weights rounds all but level 0's.

    Level 0's are some ten times as large as the others', and so would be what rounding does to them: of a trained
    model's codes 1.1 % changed with all levels rounded, and 0.4 % with level 0 as it is, as many as with none rounded.
    """
    if not PRECISIONS[precision].rounds_weights:
        return codebooks
    return np.concatenate([codebooks[:1], codebooks[1:].astype(np.float16).astype(np.float32)])


def add_codebook(builder: GraphBuilder, level: int, codebook: NDArray[np.float32]) -> str:
    """Adds the entries [codebook_size, D] of a level, one of `stored_codebooks`."""
    return builder.weight(codebook_name(level), codebook, exact=level == 0)


def add_codebooks(builder: GraphBuilder, codebooks: NDArray[np.float32]) -> str:
    """Adds those of all levels; the name of them in one: [n_q * codebook_size, D]."""
    names = [add_codebook(builder, level, codebook) for level, codebook in enumerate(codebooks)]
    return builder.op("Concat", *names, axis=0)


def read_codebooks(quantizer: Path, config: CodecConfig) -> NDArray[np.float32]:
    """All entries [n_q, codebook_size, D], from the graph of the quantizer.

    Raises:
        ExportError: not a quantizer as `dmcodec export` writes it.
    """
    weights = read_weights(quantizer)
    try:
        return np.stack([weights[codebook_name(level)].astype(np.float32) for level in range(config.n_q)])
    except KeyError as error:
        raise ExportError(f"{quantizer}: not a quantizer as `dmcodec export` writes it, no {error}") from None


def read_graph(path: Path) -> onnx.ModelProto:
    """The ONNX graph at `path`, its weights in it wherever they were stored.

    Raises:
        ExportError: not an ONNX graph.
    """
    try:
        return onnx.load(path)
    except Exception as error:
        raise ExportError(f"{path}: can't be read as an ONNX graph ({type(error).__name__}: {error})") from error


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Every initializer of the graph at `path` by its name, in the type that it is stored in."""
    return {item.name: numpy_helper.to_array(item) for item in read_graph(path).graph.initializer}
