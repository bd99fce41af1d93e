"""Ids that a language model generated: errors name the place, and lenient parsing says what it dropped."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_strategies import layout, layouts

from dmcodec.errors import TokensError, TokensWarning
from dmcodec.layouts import TokenLayout
from dmcodec.tokens import Tokens

BOS, EOS, PAD, SEP = 30, 31, 32, 33
FRAMES = [1, 14, 27, 2, 15, 28]  # two frames of `layout()`
CODES = [[1, 2], [4, 5], [7, 8]]


# Legal sequences


@pytest.mark.parametrize(
    "ids",
    [
        FRAMES,
        [BOS, *FRAMES],
        [*FRAMES, EOS],
        [*FRAMES, EOS, PAD, PAD],
        [*FRAMES, PAD],
        [PAD, PAD, BOS, *FRAMES, EOS],
        [PAD, *FRAMES],
    ],
)
def test_special_ids_may_be_there_or_not(ids: list[int]) -> None:
    assert layout().codes(ids).tolist() == CODES


@pytest.mark.parametrize("ids", [[], [BOS], [EOS], [BOS, EOS], [PAD, PAD], [BOS, EOS, PAD]])
def test_no_frames(ids: list[int]) -> None:
    for pattern in ("frame", "level"):
        assert layout(pattern=pattern).codes(ids).shape == (3, 0)
    assert layout(pattern="delay").codes([[], [], []]).shape == (3, 0)
    if EOS not in ids:
        assert layout(pattern="delay").codes(np.tile(np.array(ids, np.int64), (3, 1))).shape == (3, 0)


def test_one_id_may_be_bos_eos_and_pad() -> None:
    made = layout(bos_id=30, eos_id=30, pad_id=30, sep_id=None)
    for ids in ([30, *FRAMES, 30], [30, 30, *FRAMES, 30, 30], FRAMES):
        assert made.codes(ids).tolist() == CODES
    with pytest.raises(TokensError, match=r"position 7 holds 1 \(code 1 of level 0\), but pad is due"):
        made.codes([*FRAMES, 30, 1, 14, 27])


# Errors


@pytest.mark.parametrize(
    ("fields", "ids", "reason"),
    [
        ({}, [BOS, 1, 14, 2], r"position 3 holds 2 \(code 2 of level 0\), but a code of level 2 is due"),
        ({}, [1, 14, 27, EOS, 2], r"position 4 holds 2 \(code 2 of level 0\), but pad is due"),
        ({"pad_id": None}, [1, 14, 27, EOS, 2], "position 4 holds 2 .*, but nothing more is due"),
        ({}, [1, 14, 27, SEP, 2, 15, 28], r"position 3 holds 33 \(sep\), but a code of level 0 is due"),
        ({}, [1, 14, 27, BOS, 2, 15, 28], r"position 3 holds 30 \(bos\)"),
        ({}, [1, 14, PAD, 27], r"position 2 holds 32 \(pad\), but a code of level 2"),
        ({}, [1, 14, 27, 2, 15], "ends within a frame: position 3 and on hold 2 of 3 levels"),
        ({}, [1, 14, 999], r"position 2 holds 999 \(outside the vocabulary\)"),
        ({}, [1, 14, -1], r"position 2 holds -1 \(outside the vocabulary\)"),
        ({"first_id": 40}, [41, 54, 2], r"position 2 holds 2 \(outside the vocabulary of codes\)"),
        ({"level_offsets": False}, [1, 4, 14], r"position 2 holds 14 \(outside the vocabulary\), but a code is due"),
        (
            {"pattern": "level"},
            [1, 2, 14, 15, 27, 3],
            r"position 5 holds 3 \(code 3 of level 0\), but a code of level 2",
        ),
        ({"pattern": "level"}, [1, 2, 14, 15, 27], r"same number of codes; of 3 levels there are \[2, 2, 1\]"),
        ({"pattern": "level"}, [1, 2, 14, 15, SEP], r"position 4 holds 33 \(sep\), but a code is due"),
        ({"pattern": "level", "level_offsets": False}, [1, 2, 3, 4], "same number of codes; of 3 levels there are 4"),
        ({}, [1.0, 14.0, 27.0], "ids: expected integers, got float64"),
        ({}, [True, False, True], "ids: expected integers, got bool"),
        ({}, ["1"], "ids: expected integers"),
        ({}, [[1, 14, 27], [1]], "ids: can't be converted"),
        ({}, None, "ids: expected integers"),
        ({}, 5, r"ids: expected shape \(length,\) or \(B, length\), got \(\)"),
        ({}, np.zeros((1, 1, 1), int), r"expected shape \(length,\) or \(B, length\)"),
        ({}, np.array([2**64 - 1], np.uint64), "18446744073709551615 is outside every vocabulary"),
    ],
)
def test_the_first_illegal_id_is_named(fields: dict[str, Any], ids: Any, reason: str) -> None:
    with pytest.raises(TokensError, match=f"^ids: .*{reason}|^{reason}"):
        layout(**fields).codes(ids)


DELAYED = [
    [BOS, 1, 2, EOS, PAD, PAD],
    [BOS, PAD, 4, 5, EOS, PAD],
    [BOS, PAD, PAD, 7, 8, EOS],
]


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        ((1, 1), 3, r"level 1: position 1 holds 3 \(code 3\), but pad is due"),
        ((2, 3), SEP, r"level 2: position 3 holds 33 \(sep\), but a code is due"),
        ((0, 5), 3, r"level 0: position 5 holds 3 \(code 3\), but pad is due"),
        ((0, 2), EOS, r"level 0: position 3 holds 31 \(eos\), but pad is due"),
        ((1, 3), 10, r"level 1: position 3 holds 10 \(outside the vocabulary\)"),
        ((2, 5), 3, r"level 0 has 2 codes up to position 3, but level 2 has 3"),
    ],
)
def test_the_first_illegal_id_of_parallel_levels_is_named(place: tuple[int, int], number: int, reason: str) -> None:
    made = layout(pattern="delay", level_offsets=False)
    ids = np.array(DELAYED)
    assert made.codes(ids).tolist() == CODES
    ids[place] = number
    with pytest.raises(TokensError, match=f"^ids: {reason}"):
        made.codes(ids)
    with pytest.raises(TokensError, match=f"^ids: clip 1: {reason}"):
        made.codes(np.stack([DELAYED, ids]))


def test_wrong_shapes_of_parallel_levels_are_refused() -> None:
    made = layout(pattern="delay")
    with pytest.raises(TokensError, match="ids: 2 levels, but the layout has 3"):
        made.codes(DELAYED[:2])
    with pytest.raises(TokensError, match=r"expected shape \(n_q, steps\) or a batch of axes BKT, got \(3,\)"):
        made.codes([1, 2, 3])
    with pytest.raises(TokensError, match="clip 0: 2 levels, but the layout has 3; see axes for a batch"):
        made.codes(np.zeros((3, 2, 5), int))


def test_batches_and_lengths_are_checked() -> None:
    made = layout()
    batch = [[*FRAMES, EOS], [1, 14, 27, EOS, PAD, PAD, PAD]]
    with pytest.raises(TokensError, match=r"the clips have different lengths; parse\(ids\)"):
        made.codes(batch)
    assert made.parse(batch).lengths.tolist() == [2, 1]
    assert made.codes(batch, [3, 3]).tolist() == [[[1], [4], [7]]] * 2
    with pytest.raises(TokensError, match="ids: clip 1: position 6 holds 5"):
        made.codes([batch[0], [*batch[1][:-1], 5]])
    with pytest.raises(TokensError, match="lengths belong to a batch"):
        made.codes(FRAMES, [3])
    with pytest.raises(TokensError, match="ids: length 8 of clip 1 is not within 0 to 7"):
        made.parse(batch, [7, 8])


# Lenient


@pytest.mark.parametrize(
    ("fields", "ids", "codes", "dropped"),
    [
        ({}, [BOS, *FRAMES, EOS], CODES, []),
        ({}, [*FRAMES, 3, 16], CODES, ["positions 6 to 7: no whole frame (code 3 of level 0)"]),
        ({}, [1, 14, 27, 5, 2, 15, 28], CODES, ["position 3: no whole frame (code 5 of level 0)"]),
        ({}, [1, 14, 27, SEP, 99, 2, 15, 28], CODES, ["positions 3 to 4: no code (sep)"]),
        ({}, [27, 1, 14, 27, 1, SEP, 27, 2, 15, 28], CODES,
         ["position 0: no whole frame (code 7 of level 2)", "positions 4 to 6: no whole frame (code 1 of level 0)"]),
        ({}, [*FRAMES, EOS, 1, PAD, 14], CODES, ["position 7: after the end", "position 9: after the end"]),
        ({}, [1, 2, 3, 4], [[], [], []], ["positions 0 to 3: no whole frame (code 1 of level 0)"]),
        ({"level_offsets": False}, [1, 4, 7, 3, SEP, 3, 2, 5, 8, 1], CODES,
         ["positions 3 to 5: no whole frame (code 3)", "position 9: no whole frame (code 1)"]),
        ({"pattern": "level"}, [1, 2, 14, 15, 27, 28, 29], CODES, ["position 6: no whole frame (code 9 of level 2)"]),
        ({"pattern": "level"}, [1, 29, 2, 14, 15, 1, 27, 28], CODES,
         ["position 1: no whole frame (code 9 of level 2)", "position 5: no whole frame (code 1 of level 0)"]),
        ({"pattern": "level"}, [1, 2, 3, 14, 15, 16, 27, 28], CODES,
         ["position 2: no whole frame (code 3 of level 0)", "position 5: no whole frame (code 6 of level 1)"]),
        ({"pattern": "level", "level_offsets": False}, [1, SEP, 2, 4, 3, 5, 7, 3, 8], CODES,
         ["position 1: no code (sep)", "position 4: no whole frame (code 3)", "position 7: no whole frame (code 3)"]),
    ],
)  # fmt: skip
def test_lenient_parsing_keeps_whole_frames(
    fields: dict[str, Any], ids: list[int], codes: list[list[int]], dropped: list[str]
) -> None:
    parsed = layout(**fields).parse(ids, lenient=True)
    assert parsed.codes.tolist() == codes
    assert [str(each) for each in parsed.dropped] == dropped


def test_levels_that_nothing_tells_apart_are_an_error() -> None:
    made = layout(pattern="level", level_offsets=False)
    with pytest.raises(
        TokensError, match="4 ids are no 3 levels of the same length, and without level offsets nothing"
    ):
        made.parse([1, 2, 3, 4], lenient=True)


def test_lenient_parsing_of_parallel_levels() -> None:
    made = layout(pattern="delay", level_offsets=False)
    ids = np.array(DELAYED)
    ids[1, 1], ids[2, 4], ids[0, 5] = 3, SEP, 4
    parsed = made.parse(np.stack([ids, DELAYED]), lenient=True)
    assert parsed.lengths.tolist() == [1, 2]
    assert parsed.codes[0, :, :1].tolist() == [[1], [4], [7]]
    assert parsed.codes[1].tolist() == CODES
    assert [str(each) for each in parsed.dropped] == [
        "clip 0, level 0, position 2: no whole frame",
        "clip 0, level 0, position 5: after the end",
        "clip 0, level 1, position 1: before the delay",
        "clip 0, level 1, position 3: no whole frame",
        "clip 0, level 2, position 4: no whole frame",
    ]
    cut = made.parse(np.array(DELAYED)[:, :4], lenient=True)  # generation that ended early
    assert cut.codes.tolist() == [[1], [4], [7]]
    assert [str(each) for each in cut.dropped] == [
        "level 0, position 2: after the end of another level",
        "level 1, position 3: after the end of another level",
    ]


def test_tokens_of_illegal_ids_come_with_a_warning() -> None:
    made = layout()
    with pytest.raises(TokensError, match="position 4 holds 2"):
        Tokens.from_ids([1, 14, 27, 5, 2, 15, 28], made)
    with pytest.warns(TokensWarning, match=r"ids: dropped 2; position 3: no whole frame \(code 5 of level 0\)"):
        clip = Tokens.from_ids([1, 14, 27, 5, 2, 15, 28, EOS, 1], made, lenient=True)
    assert clip.codes.tolist() == CODES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tokens.from_ids(FRAMES, made, lenient=True) == clip


@st.composite
def generated(draw: st.DrawFn) -> tuple[TokenLayout, Any]:
    """A layout and ids, some legal and some not."""
    made = draw(layouts())
    shape = (draw(st.integers(0, 14)),)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = made.ids(rng.integers(0, made.codebook_size, (made.n_q, shape[0])))
    for _ in range(draw(st.integers(0, 3))):
        if not ids.size:
            break
        place, number = draw(st.integers(0, ids.shape[-1] - 1)), draw(st.integers(-1, made.vocab_size))
        change = draw(st.sampled_from(["replace", "insert", "remove"]))
        if change == "remove":
            ids = np.delete(ids, place, axis=-1)
        elif change == "insert":
            ids = np.insert(ids, place, number, axis=-1)
        else:
            ids[..., place] = number
    return made, ids


@given(generated())
def test_lenient_parsing_drops_nothing_of_legal_ids_and_something_of_all_others(
    given_: tuple[TokenLayout, Any],
) -> None:
    made, ids = given_
    try:
        parsed = made.parse(ids, lenient=True)
    except TokensError as error:
        assert "nothing tells where a level begins" in str(error)  # noqa: PT017
        return
    assert parsed.codes.shape == (made.n_q, parsed.lengths)
    assert parsed.codes.size == 0 or parsed.codes.max() < made.codebook_size
    assert sum(each.count for each in parsed.dropped) + parsed.codes.size <= ids.size
    try:
        strict = made.codes(ids)
    except TokensError:
        assert parsed.dropped
    else:
        assert not parsed.dropped
        np.testing.assert_array_equal(strict, parsed.codes)
    np.testing.assert_array_equal(made.codes(made.ids(parsed.codes)), parsed.codes)


@given(st.integers(1, 3), st.lists(st.integers(0, 14), max_size=6), st.integers(0, 20))
def test_whole_frames_around_a_stray_id_are_kept(n_q: int, strays: list[int], frames: int) -> None:
    """With level offsets, an id too many costs at most the frame that it is in."""
    made = layout(n_q=n_q)
    ids = made.ids(np.random.default_rng(frames).integers(0, 10, (n_q, frames)), bos=False, eos=False)
    for stray in strays:
        ids = np.insert(ids, min(stray, len(ids)), SEP)
    parsed = made.parse(ids, lenient=True)
    assert frames - len(strays) <= parsed.lengths <= frames
