"""Sequences of ids: formed of the codes of one clip, joined, and cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import Codes
from dmcodec.errors import TokensError

from .arrays import id_array
from .patterns import add_offsets, delay, flatten_frames, flatten_levels
from .vocabulary import Vocabulary

Ids = NDArray[np.int64]


def flat_sequence(codes: Codes, vocabulary: Vocabulary, by_level: bool, bos: bool, eos: bool) -> Ids:
    """Return [bos] codes [eos] (length,) of codes (n_q, frames), level by level or frame by frame."""
    ids = code_ids(codes, vocabulary)
    flat = flatten_levels(ids) if by_level else flatten_frames(ids)
    return np.concatenate([_special(vocabulary.bos_id, bos), flat, _special(vocabulary.eos_id, eos)])


def delayed_sequence(codes: Codes, vocabulary: Vocabulary, delays: Sequence[int], bos: bool, eos: bool) -> Ids:
    """Return rows [bos] pad... codes [eos] pad... (n_q, steps) of codes (n_q, frames), row k delays[k] steps later."""
    first, last = (
        np.tile(special, (len(codes), 1))
        for special in (_special(vocabulary.bos_id, bos), _special(vocabulary.eos_id, eos))
    )
    ended = np.concatenate([code_ids(codes, vocabulary), last], axis=1)
    fill = 0 if vocabulary.pad_id is None else vocabulary.pad_id  # without one there are no delays
    return np.concatenate([first, delay(ended, delays, fill)], axis=1)


def code_ids(codes: Codes, vocabulary: Vocabulary) -> Ids:
    """Return the id of each code (n_q, frames)."""
    rows = add_offsets(codes, vocabulary.codebook_size) if vocabulary.level_offsets else codes.astype(np.int64)
    return rows + vocabulary.first_id


def sequence_arrays(sequences: Sequence[Any], parallel_levels: int | None) -> list[Ids]:
    """Return sequences as arrays (length,), or (parallel_levels, steps); TokensError for another shape, or none."""
    arrays = [id_array(sequence) for sequence in sequences]
    if not arrays:
        raise TokensError("ids: there are no sequences")
    for index, array in enumerate(arrays):
        if array.ndim != 1 if parallel_levels is None else array.ndim != 2 or len(array) != parallel_levels:
            wanted = "(length,)" if parallel_levels is None else f"({parallel_levels}, steps)"
            raise TokensError(f"ids: sequence {index} must have shape {wanted}, not {array.shape}")
    return arrays


def joined(arrays: Sequence[Ids], separator: int) -> Ids:
    """Join sequences along their last axis, with a step of `separator` between them."""
    between = np.full((*arrays[0].shape[:-1], 1), separator)
    parts = [part for array in arrays for part in (between, array)]
    return np.concatenate(parts[1:], axis=-1)


def cut(array: Ids, separator: int) -> list[Ids]:
    """Cut a sequence at each step of `separator`: the inverse of `joined`."""
    steps = (np.atleast_2d(array) == separator).all(axis=0)
    bounds = [-1, *np.flatnonzero(steps).tolist(), array.shape[-1]]
    return [array[..., first + 1 : last] for first, last in itertools.pairwise(bounds)]


def _special(number: int | None, wanted: bool) -> Ids:
    return np.array([number] if wanted and number is not None else [], np.int64)
