"""Runs graphs in memory, before they are part of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray

from dmcodec.cpus import default_threads
from dmcodec.runtime.onnxruntime_import import import_onnxruntime

_ERRORS_ONLY = 3


class Session:
    """A graph in ONNX Runtime on the CPU.

    Args:
        model: with its weights.
        more_outputs: names of tensors that are outputs, too.
    """

    def __init__(self, model: onnx.ModelProto, more_outputs: Sequence[str] = ()) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = _ERRORS_ONLY
        if more_outputs:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in more_outputs)
            model = copy
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the first output."""
        output: NDArray[Any] = self._session.run(self._names[:1], inputs)[0]
        return output

    def all_outputs(self, **inputs: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs by their names."""
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))
