"""How graphs hold the codebooks: each level's by itself, so that quantizer and dequantizer can share them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError
from dmcodec.export.graph_builder import GraphBuilder
from dmcodec.export.graph_files import read_weights


def codebook_name(level: int) -> str:
    """Name of the initializer with the entries [codebook_size, D] of a level."""
    return f"codebook_{level}"


def stored_codebooks(codebooks: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    """The entries [n_q, codebook_size, D] as a bundle of `precision` holds them: fp16-weights rounds all but level 0's.

    Level 0's are some ten times as large as the others', and so would be what rounding does to them: of a trained
    model's codes 1.1 % changed with all levels rounded, and 0.4 % with level 0 as it is, as many as with none rounded.
    """
    if precision != "fp16-weights":
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
