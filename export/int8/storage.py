"""Storage of the weights that are computed with in float32: large ones in 8 bits, others in float16.

A session makes float32 weights of them once, when it folds constants.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from dmcodec.errors import ExportError

from .nodes import Rewriting
from .quantization import GROUP, SCALE, rounded_groups

# From so many bytes of float32 on weights are stored in 8 bits, or in float16; rounding smaller ones saves no space.
_EIGHT_BITS_FROM, _HALF_FROM = 2_000_000, 16_384


def stored_narrow(rewriting: Rewriting, name: str, eight_bits: bool) -> tuple[str, NDArray[np.float32]]:
    """Store a weight in a narrower type; return the float32 tensor that is made of it, and its values.

    Args:
        rewriting: of the graph.
        name: of the weight.
        eight_bits: a large weight may be stored in 8 bits.

    Raises:
        ExportError: its values are too large for float16.
    """
    weight = rewriting.values(name)
    if weight.dtype != np.float32 or weight.nbytes < _HALF_FROM:
        return name, weight
    if not eight_bits or weight.nbytes < _EIGHT_BITS_FROM or weight.size % GROUP:
        half = _half(name, weight)
        return _float(rewriting, rewriting.store(name, half)), half.astype(np.float32)
    integers, scales = rounded_groups(weight)
    if not np.isfinite(scales).all():
        raise ExportError(f"{name}: values up to {np.abs(weight).max():g} don't fit 8 bits and a float16 scale")
    values = rewriting.op(
        "Mul",
        _float(rewriting, rewriting.store(name, integers)),
        _float(rewriting, rewriting.store(f"{name}.{SCALE}", scales)),
    )
    rounded = integers.astype(np.float32) * scales.astype(np.float32)
    return rewriting.op("Reshape", values, rewriting.ints(*weight.shape)), rounded.reshape(weight.shape)


def _half(name: str, weight: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(f"{name}: values up to {np.abs(weight).max():g} don't fit float16; export with fp32")
    return half


def _float(rewriting: Rewriting, name: str) -> str:
    return rewriting.op("Cast", name, to=onnx.TensorProto.FLOAT)
