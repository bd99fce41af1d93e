"""Weights of a bundle's graphs: one shared file for the large ones, the stored form of codebooks, and their reading."""

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

WEIGHTS_FILE = "weights.bin"
# Smaller weights stay in the graph: ONNX Runtime needs them there to infer shapes.
MIN_EXTERNAL_BYTES = 1024
_ALIGNMENT_BYTES = 64
_DIRECTIONS = 2
# Key of a graph's metadata: a digest of its external weights, so that graphs with other weights have other hashes.
_WEIGHTS_DIGEST = "weights_sha256"


class SharedWeights:
    """The file `weights.bin` of a bundle: the large weights of all graphs as ONNX external data, each content once.

    The two halves of a weight whose first axis is 2 (the directions of an LSTM) count as contents, too: the graph of
    one direction refers to its half of the weight of both.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WEIGHTS_FILE
        self._offsets: dict[bytes, int] = {}
        self._size_bytes = 0

    def move_from(self, model: onnx.ModelProto) -> None:
        """Move the large initializers of `model` to the file, and leave references to them in the model."""
        digests = hashlib.sha256()
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < MIN_EXTERNAL_BYTES:
                continue
            digest = hashlib.sha256(tensor.raw_data).digest()
            digests.update(digest)
            if digest not in self._offsets:
                self._offsets[digest] = self._append(tensor.raw_data)
                if tensor.dims[0] == _DIRECTIONS:
                    self._add_halves(tensor.raw_data, self._offsets[digest])
            set_external_data(tensor, WEIGHTS_FILE, self._offsets[digest], len(tensor.raw_data))
            tensor.ClearField("raw_data")
        onnx.helper.set_model_props(model, {_WEIGHTS_DIGEST: digests.hexdigest()})

    def spec(self) -> WeightsSpec | None:
        """Describe the finished file for the manifest; return None where no weight was large."""
        if not self._offsets:
            return None
        return WeightsSpec(WEIGHTS_FILE, file_sha256(self._path), self._size_bytes)

    def _add_halves(self, content: bytes, offset: int) -> None:
        half = len(content) // 2
        for start in (0, half):
            digest = hashlib.sha256(content[start : start + half]).digest()
            self._offsets.setdefault(digest, offset + start)

    def _append(self, content: bytes) -> int:
        padding = -self._size_bytes % _ALIGNMENT_BYTES
        with self._path.open("ab") as file:
            file.write(bytes(padding) + content)
        offset = self._size_bytes + padding
        self._size_bytes = offset + len(content)
        return offset


def read_graph(path: Path) -> onnx.ModelProto:
    """Read the ONNX graph at `path` with its weights, also with those in other files.

    Raises:
        ExportError: the file is not an ONNX graph.
    """
    try:
        return onnx.load(path)
    except Exception as error:
        raise ExportError(f"{path}: can't be read as an ONNX graph ({type(error).__name__}: {error})") from error


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read all initializers of the graph at `path` by their names, in their stored types.

    Raises:
        ExportError: the file is not an ONNX graph.
    """
    return {item.name: numpy_helper.to_array(item) for item in read_graph(path).graph.initializer}


# Name of a transposed convolution's weight in the form of `two_taps`; earlier versions wrote it as it is, as "weight".
TAPS = "taps"


def two_taps(weight: NDArray[Any], stride: int) -> NDArray[Any]:
    """Return the weight of a transposed convolution [in, out, 2 * stride] as one of two taps: [out * stride, in, 2].

    Output channel c * stride + p is phase p of channel c. The taps are those of the step before, and of the step.
    """
    inputs, outputs, _ = weight.shape
    phases = weight.reshape(inputs, outputs, 2, stride)[:, :, ::-1].transpose(1, 3, 0, 2)
    return np.ascontiguousarray(phases.reshape(outputs * stride, inputs, 2))


def from_two_taps(taps: NDArray[Any], stride: int) -> NDArray[Any]:
    """Return the weight of a transposed convolution from that of `two_taps`."""
    outputs, inputs = len(taps) // stride, taps.shape[1]
    phases = taps.reshape(outputs, stride, inputs, 2)[..., ::-1].transpose(2, 0, 3, 1)
    return np.ascontiguousarray(phases.reshape(inputs, outputs, 2 * stride))


# Codebooks: quantizer and dequantizer store the entries of each level as a weight of its own, so that they share it.


def codebook_name(level: int) -> str:
    """Return the name of the initializer with a level's entries [codebook_size, D]."""
    return f"codebook_{level}"


def codebook_centre(codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean [D] of the entries [codebook_size, D], computed in float64; see `dmcodec.nn.rvq.Codebook`."""
    mean: NDArray[np.float32] = codebook.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def stored_codebooks(codebooks: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    """Round codebook entries [n_q, codebook_size, D] as a bundle of `precision` stores them.

    fp16-weights rounds all levels but level 0, whose entries, and so their rounding errors, are about ten times as
    large as the others: of a trained model's codes 1.1 % changed with all levels rounded, and 0.4 % with level 0 exact,
    as many as with all levels exact.

    Raises:
        ExportError: entries are too large for half precision.
    """
    if not PRECISIONS[precision].rounds_weights:
        return codebooks
    with np.errstate(over="ignore"):
        rounded = codebooks[1:].astype(np.float16).astype(np.float32)
    if not np.isfinite(rounded).all():
        largest = np.abs(codebooks[1:]).max()
        raise ExportError(f"codebook entries up to {largest:g} don't fit float16; export with --precision fp32")
    return np.concatenate([codebooks[:1], rounded])


def add_codebook(builder: GraphBuilder, level: int, codebook: NDArray[np.float32]) -> str:
    """Add the entries [codebook_size, D] of a level, as `stored_codebooks` rounded them; return the tensor's name."""
    return builder.weight(codebook_name(level), codebook, exact=level == 0)


def add_codebooks(builder: GraphBuilder, codebooks: NDArray[np.float32]) -> str:
    """Add the entries of all levels; return the name of one tensor [n_q * codebook_size, D] with all of them."""
    names = [add_codebook(builder, level, codebook) for level, codebook in enumerate(codebooks)]
    return builder.op("Concat", *names, axis=0)


def read_codebooks(quantizer: Path, config: CodecConfig) -> NDArray[np.float32]:
    """Read all entries [n_q, codebook_size, D] from the graph of the quantizer.

    Raises:
        ExportError: the graph was not written by `dmcodec export`.
    """
    weights = read_weights(quantizer)
    try:
        return np.stack([weights[codebook_name(level)].astype(np.float32) for level in range(config.n_q)])
    except KeyError as error:
        raise ExportError(f"{quantizer}: not a quantizer as `dmcodec export` writes it, no {error}") from None
