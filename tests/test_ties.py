"""Ties: codes of two equally near entries count as equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.export import export_bundle
from dmcodec.export.agreement import tied_frames
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.sample import speech

SMALL = CodecConfig(n_filters=2, dimension=8, semantic_dimension=6, strides=(5, 2), codebook_size=16, n_q=3)


def differs_by_tie(
    model: DMCodec, latents: torch.Tensor, reference: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return tied_frames(model.quantizer.codebooks().numpy(), latents.numpy(), reference, test)


def codec_with(books: list[list[list[float]]]) -> DMCodec:
    """A codec whose codebooks are these: [n_q][entries][2]."""
    config = CodecConfig(
        n_filters=2,
        dimension=2,
        semantic_dimension=2,
        strides=(2,),
        n_q=len(books),
        codebook_size=len(books[0]),
    )
    model = DMCodec.seeded(config)
    for level, entries in zip(model.quantizer.levels, books, strict=True):
        level.embed.copy_(torch.tensor(entries))
    return model


# Two levels of four entries: corners of a square, and of a smaller one. With codes (0, 0) of (-1, -1) nothing remains.
BOOKS = [
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]],
    [[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [0.2, 0.2]],
]


@pytest.mark.parametrize(
    ("vector", "reference", "test", "tie"),
    [
        ((-1.0, -1.0), (0, 0), (0, 0), False),  # no difference
        ((0.0, -1.0), (0, 1), (1, 0), True),  # in the middle of entries 0 and 1; what follows may differ
        ((0.0, -1.0), (0, 1), (1, 3), True),
        ((0.0, -1.0), (0, 1), (2, 1), False),  # but not of 0 and 2
        ((1e-7, -1.0), (1, 0), (0, 0), True),  # so near the middle that rounding may decide
        ((1e-3, -1.0), (1, 0), (0, 0), False),  # and so far that it can't
        ((-0.2, -1.0), (0, 1), (1, 1), False),
        ((-0.9, -1.0), (0, 1), (0, 0), True),  # residual (0.1, 0) at level 1 is in the middle of entries 0 and 1
        ((-0.9, -1.0), (0, 1), (0, 2), False),
        ((-0.8, -1.0), (0, 1), (0, 0), False),  # residual (0.2, 0): entry 1 it is
        ((-0.9, -1.0), (0, 1), (1, 0), False),  # a tie at level 1 does not make level 0 a tie
    ],
)
def test_ties_are_recognised(
    vector: tuple[float, float], reference: tuple[int, int], test: tuple[int, int], tie: bool
) -> None:
    latents = torch.tensor(vector).reshape(1, 2, 1)
    ours, theirs = (np.array(codes, np.int64).reshape(2, 1, 1) for codes in (reference, test))
    assert differs_by_tie(codec_with(BOOKS), latents, ours, theirs).tolist() == [[tie]]


def test_ties_are_found_frame_by_frame() -> None:
    vectors = [(-1.0, -1.0), (0.0, -1.0), (-0.2, -1.0), (0.0, 1.0)]
    latents = torch.tensor(vectors).reshape(2, 2, 2).transpose(1, 2)  # [batch 2, dimension 2, frames 2]
    ours = np.array([[[0, 0], [0, 2]], [[0, 1], [1, 0]]], np.int64)
    theirs = np.array([[[0, 1], [1, 3]], [[0, 1], [1, 0]]], np.int64)
    assert differs_by_tie(codec_with(BOOKS), latents, ours, theirs).tolist() == [[False, True], [False, True]]


def test_a_codebook_with_entries_twice_passes_parity(tmp_path: Path) -> None:
    """Each choice between them is a tie; and the lowest index wins in torch and in the graph."""
    model = DMCodec.seeded(SMALL)
    for level in model.quantizer.levels:
        level.embed[8:] = level.embed[:8]
    bundle = export_bundle(model, tmp_path / "bundle")
    codes = Codec.load(bundle.path).encode(speech(5000, 16000), 16000).codes
    assert codes.max() < 8
