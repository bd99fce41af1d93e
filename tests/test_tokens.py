"""Tokens: what may be one, and that one can't be changed behind its owner's back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from dmcodec.config import CodecConfig
from dmcodec.errors import TokensError
from dmcodec.tokens import Tokens

GOOD: dict[str, Any] = {
    "codes": np.array([[1, 2, 3], [4, 5, 6]]),
    "num_samples": 650,
    "sample_rate": 16000,
    "hop_length": 320,
    "codebook_size": 16,
    "model_id": "00ff00ff00ff00ff",
}


def tokens(**changes: Any) -> Tokens:
    return Tokens(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codes": np.array([[1.0, 2.0, 3.0]])}, "integers"),
        ({"codes": np.array([[True, False, True]])}, "integers"),
        ({"codes": np.array([["1", "2", "3"]])}, "integers"),
        ({"codes": None}, "shape"),
        ({"codes": 3}, "shape"),
        ({"codes": np.array([1, 2, 3])}, "shape"),
        ({"codes": np.zeros((1, 1, 3), int)}, "shape"),
        ({"codes": np.zeros((0, 3), int)}, "shape"),
        ({"codes": [[1, 2, 3], [4, 5]]}, "codes"),
        ({"codes": np.array([[1, -1, 3]])}, "outside 0 to 15"),
        ({"codes": np.array([[1, 16, 3]])}, "outside 0 to 15"),
        ({"codes": np.array([[1, 2**64 - 1, 3]], np.uint64)}, "outside 0 to 15"),
        ({"codes": np.array([[1, 65536, 3]])}, "outside 0 to 15"),
        ({"num_samples": 640}, "frames"),
        ({"num_samples": 961}, "frames"),
        ({"num_samples": 0}, "frames"),
        ({"num_samples": -1}, "num_samples|samples"),
        ({"codes": np.zeros((1, 0), int), "num_samples": -1}, "num_samples|samples"),
        ({"num_samples": 650.5}, "num_samples"),
        ({"num_samples": 2**64, "hop_length": 2**63}, "num_samples|hop_length"),
        ({"hop_length": 0}, "hop_length"),
        ({"hop_length": -320}, "hop_length"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": -16000}, "sample_rate"),
        ({"sample_rate": 2**32}, "sample_rate"),
        ({"codebook_size": 1, "codes": np.zeros((1, 3), int)}, "codebook_size"),
        ({"codebook_size": 0, "codes": np.zeros((1, 0), int), "num_samples": 0}, "codebook_size"),
        ({"codebook_size": 65537}, "codebook_size"),
        ({"codebook_size": 2**20, "codes": np.array([[70000, 2, 3]])}, "codebook_size"),
        ({"codes": np.zeros((256, 3), int)}, "255"),
        ({"model_id": "xyz"}, "model_id"),
        ({"model_id": "00FF00FF00FF00FF"}, "model_id"),
        ({"model_id": "00ff00ff00ff00f"}, "model_id"),
    ],
)
def test_what_is_not_tokens_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokensError, match=reason):
        tokens(**changes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_any_integers_in_range_become_uint16(dtype: type) -> None:
    made = tokens(codes=np.asarray(GOOD["codes"], dtype))
    assert made.codes.dtype == np.uint16
    np.testing.assert_array_equal(made.codes, GOOD["codes"])


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_the_callers_array_is_not_shared(dtype: type) -> None:
    codes: Any = np.asarray(GOOD["codes"], dtype)
    made = tokens(codes=codes)
    codes[0, 0] = 9
    assert made.codes[0, 0] == 1
    codes[0, 0] = 1  # and the caller's stays writable


def test_codes_are_read_only() -> None:
    made = tokens()
    for view in (made.codes, made.semantic, made.acoustic, made.levels(1).codes):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.num_samples = 3  # type: ignore[misc]


def test_equality_is_of_values() -> None:
    assert tokens() == tokens()
    different: list[dict[str, Any]] = [
        {"codes": np.array([[1, 2, 3], [4, 5, 7]])},
        {"codes": np.array([[1, 2, 3]])},
        {"num_samples": 651},
        {"sample_rate": 24000},
        {"codebook_size": 32},
        {"model_id": ""},
    ]
    for changes in different:
        assert tokens() != tokens(**changes), changes
    assert tokens() != "tokens"
    with pytest.raises(TypeError):
        hash(tokens())


def test_parts_of_tokens() -> None:
    made = tokens()
    assert (made.n_q, made.num_frames, made.duration_s) == (2, 3, 650 / 16000)
    assert made.semantic.tolist() == [1, 2, 3]
    assert made.acoustic.tolist() == [[4, 5, 6]]
    assert made.bitrate_bps == 50 * 2 * 4
    first = made.levels(1)
    assert first.codes.tolist() == [[1, 2, 3]]
    assert (first.num_samples, first.model_id) == (650, made.model_id)
    assert made.levels(2) == made


@pytest.mark.parametrize("n_q", [0, -1, 3])
def test_levels_that_are_not_there(n_q: int) -> None:
    with pytest.raises(TokensError, match="n_q must be 1 to 2"):
        tokens().levels(n_q)


def test_from_codes_takes_whole_frames_unless_told() -> None:
    config = CodecConfig(codebook_size=16)
    whole = Tokens.from_codes([[1, 2], [3, 4]], config)
    assert (whole.num_samples, whole.sample_rate, whole.hop_length) == (640, 16000, 320)
    assert Tokens.from_codes([[1, 2]], config, num_samples=321).num_samples == 321
    for codes in ([1, 2], 3, [[1, 2], [3]], [[1, 16]]):
        with pytest.raises(TokensError):
            Tokens.from_codes(codes, config)


def test_repr_is_one_line_that_says_what_matters() -> None:
    assert repr(tokens()) == "Tokens(2 x 3 codes of 16, 0.04 s at 16000 Hz, model 00ff00ff00ff00ff)"
    higher = tokens(first_level=3, model_id="")
    assert repr(higher) == "Tokens(2 x 3 codes of 16, levels 3 to 4, 0.04 s at 16000 Hz, model unknown)"
