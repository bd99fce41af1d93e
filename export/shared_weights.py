"""One file for the large weights of all graphs of a bundle, each content once: ONNX external data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from dmcodec.bundle import WeightsSpec, file_sha256

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
