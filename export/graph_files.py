"""Reads the ONNX graphs of a bundle, with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dmcodec.errors import ExportError


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
