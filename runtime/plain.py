"""The choice between a graph and its plain form, `dmcodec.plain_form`, for the inputs of one call."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from dmcodec.config import CodecConfig
from dmcodec.plain_form import HAVE_PLAIN_FORMS, least_plain_size, plain_name

from .bucket_shapes import PaddedValue, bucket_size

_LENGTHS = "lengths"


def fitting_form(
    config: CodecConfig, graphs: Container[str], graph: str, inputs: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    """Return name and inputs of the form to run: the plain one where there is one and all clips fill the tensor.

    Args:
        config: of the codec.
        graphs: names of the graphs that there are.
        graph: the one that was asked for.
        inputs: its inputs.
    """
    name = HAVE_PLAIN_FORMS.get(graph)
    if name is None or plain_name(graph) not in graphs or set(inputs) != {name, _LENGTHS}:
        return graph, inputs
    shape = _shape(inputs[name])
    fills = len(shape) == 3 and np.array_equal(inputs[_LENGTHS], np.full(shape[0], shape[-1]))
    if not fills or shape[-1] < least_plain_size(config, graph):
        return graph, inputs
    return plain_name(graph), {name: inputs[name]}


def is_bucket(config: CodecConfig, graph: str, inputs: Mapping[str, Any]) -> bool:
    """Return whether the inputs of a graph have the shape of a bucket as they are, so that nothing pads them."""
    name = HAVE_PLAIN_FORMS.get(graph)
    if name is None or name not in inputs or isinstance(inputs[name], PaddedValue):
        return False
    batch, *_, time = _shape(inputs[name])
    axis = "frames" if graph == "decoder" else "samples"
    return bucket_size("batch", batch, config) == batch and bucket_size(axis, time, config) == time


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an array, or of a tensor of a backend; of an OrtValue it is a method."""
    shape = getattr(value, "shape", None)
    return tuple(shape()) if callable(shape) else np.shape(value)


def first_form(graphs: Container[str], graph: str) -> str:
    """Return the form of a graph that one clip takes; clips of different lengths may take the other one later."""
    return plain_name(graph) if graph in HAVE_PLAIN_FORMS and plain_name(graph) in graphs else graph
