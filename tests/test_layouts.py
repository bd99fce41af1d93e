"""Layouts: ids are what is worked out by hand, and every layout has its inverse, whatever the shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_strategies import CODES, codes_for, layout, layouts

from dmcodec.errors import ArgumentError, TokensError
from dmcodec.layouts import (
    add_offsets,
    delay,
    flatten_frames,
    flatten_levels,
    remove_offsets,
    undelay,
    unflatten_frames,
    unflatten_levels,
)

BOS, EOS, PAD, SEP = 30, 31, 32, 33


# Worked out by hand


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [BOS, 1, 14, 27, 2, 15, 28, 3, 16, 20, EOS]),
        ({"level_offsets": False}, [BOS, 1, 4, 7, 2, 5, 8, 3, 6, 0, EOS]),
        ({"pattern": "level"}, [BOS, 1, 2, 3, 14, 15, 16, 27, 28, 20, EOS]),
        ({"pattern": "level", "bos_id": None, "level_offsets": False}, [1, 2, 3, 4, 5, 6, 7, 8, 0, EOS]),
        ({"pattern": "semantic", "n_q": 1}, [BOS, 1, 2, 3, EOS]),
        ({"first_id": 100, "eos_id": None}, [BOS, 101, 114, 127, 102, 115, 128, 103, 116, 120]),
    ],
)
def test_flattened_ids(fields: dict[str, Any], expected: list[int]) -> None:
    assert layout(**fields).ids(CODES).tolist() == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"bos_id": None, "eos_id": None},
            [[1, 2, 3, PAD, PAD], [PAD, 4, 5, 6, PAD], [PAD, PAD, 7, 8, 0]],
        ),
        (
            {},
            [
                [BOS, 1, 2, 3, EOS, PAD, PAD],
                [BOS, PAD, 4, 5, 6, EOS, PAD],
                [BOS, PAD, PAD, 7, 8, 0, EOS],
            ],
        ),
        (
            {"delays": (0, 2, 1), "bos_id": None, "eos_id": None, "level_offsets": True},
            [[1, 2, 3, PAD, PAD], [PAD, PAD, 14, 15, 16], [PAD, 27, 28, 20, PAD]],
        ),
        (
            {"delays": (0, 0, 0), "bos_id": None, "pad_id": None},
            [[1, 2, 3, EOS], [4, 5, 6, EOS], [7, 8, 0, EOS]],
        ),
    ],
)
def test_delayed_ids(fields: dict[str, Any], expected: list[list[int]]) -> None:
    made = layout(pattern="delay", **{"level_offsets": False, **fields})
    assert made.ids(CODES).tolist() == expected
    np.testing.assert_array_equal(made.codes(np.array(expected)), CODES)


def test_the_delay_pattern_is_that_of_musicgen_in_transformers() -> None:
    """transformers 5.24.0, MusicgenForCausalLM.build_delay_pattern_mask, with 32 as the id that begins and pads."""
    expected = [
        [32, 0, 1, 2, 3, 4, 32, 32, 32],
        [32, 32, 5, 6, 7, 8, 9, 32, 32],
        [32, 32, 32, 10, 11, 12, 13, 14, 32],
        [32, 32, 32, 32, 15, 16, 17, 18, 19],
    ]
    made = layout(n_q=4, codebook_size=20, pattern="delay", level_offsets=False, bos_id=PAD, eos_id=None)
    codes = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(made.ids(codes), expected)
    np.testing.assert_array_equal(made.codes(expected), codes)


def test_patterns_have_inverses() -> None:
    batch = np.random.default_rng(0).integers(0, 10, (2, 5, 3, 4))
    for inverse in (
        unflatten_frames(flatten_frames(batch), 3),
        unflatten_levels(flatten_levels(batch), 3),
        remove_offsets(add_offsets(batch, 10), 10),
        undelay(delay(batch, (2, 0, 1), -1), (2, 0, 1)),
    ):
        np.testing.assert_array_equal(inverse, batch)
    assert flatten_frames(CODES).tolist() == [1, 4, 7, 2, 5, 8, 3, 6, 0]
    assert delay(CODES[:2], (0, 1), -1).tolist() == [[1, 2, 3, -1], [-1, 4, 5, 6]]
    with pytest.raises(TokensError, match="10 are no whole frames of 3 levels"):
        unflatten_frames(np.zeros(10), 3)
    with pytest.raises(TokensError, match="14 in row 0, column 1"):
        remove_offsets(np.array([[1, 14], [10, 11]]), 10)
    with pytest.raises(TokensError, match="1 steps are fewer than the largest delay, 2"):
        undelay(np.zeros((3, 1)), (0, 1, 2))


# The inverse, whatever the layout and the shape


@given(st.data())
def test_one_clip_comes_back(data: st.DataObject) -> None:
    made = data.draw(layouts())
    codes = data.draw(codes_for(made))
    bos, eos = data.draw(st.booleans()), data.draw(st.booleans())
    ids = made.ids(codes, bos=bos, eos=eos)
    assert ids.dtype == np.int64
    assert ids.shape[-1] == made.num_ids(codes.shape[1], bos, eos)
    assert ids.size == 0 or 0 <= ids.min() <= ids.max() < made.vocab_size
    back = made.codes(ids)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, codes)
    parsed = made.parse(ids.tolist() if ids.size else ids, lenient=True)
    np.testing.assert_array_equal(parsed.codes, codes)
    assert (parsed.lengths, parsed.dropped) == (codes.shape[1], ())


@given(st.data())
def test_a_batch_comes_back(data: st.DataObject) -> None:
    made = data.draw(layouts())
    batch = data.draw(codes_for(made, data.draw(st.integers(1, 4))))
    ids = made.ids(batch)
    for index, codes in enumerate(batch):
        np.testing.assert_array_equal(ids[index], made.ids(codes))
    np.testing.assert_array_equal(made.codes(ids), batch)
    by_level = np.moveaxis(batch, 0, 1)
    turned = made.ids(by_level, axes="KBT")
    np.testing.assert_array_equal(np.moveaxis(turned, 1, 0) if made.parallel else turned, ids)
    np.testing.assert_array_equal(made.codes(turned, axes="KBT"), by_level)


@given(st.data())
def test_clips_of_different_lengths_come_back(data: st.DataObject) -> None:
    made = data.draw(layouts(padded=True))
    batch = data.draw(codes_for(made, data.draw(st.integers(1, 4))))
    lengths = np.array([data.draw(st.integers(0, batch.shape[-1])) for _ in batch])
    ids = made.ids(batch, lengths)
    clips = [codes[:, :length] for codes, length in zip(batch, lengths, strict=True)]
    padded, id_lengths = made.pad([made.ids(clip) for clip in clips])
    np.testing.assert_array_equal(ids, padded)
    np.testing.assert_array_equal(made.num_ids(lengths), id_lengths)
    for parsed in (made.parse(ids), made.parse(ids, id_lengths), made.parse(np.flip(ids, 0)[::-1], lenient=True)):
        np.testing.assert_array_equal(parsed.lengths, lengths)
        assert parsed.dropped == ()
        for codes, clip in zip(parsed.codes, clips, strict=True):
            np.testing.assert_array_equal(codes[:, : clip.shape[1]], clip)
            assert not codes[:, clip.shape[1] :].any()


@given(st.data())
def test_padding_before_a_clip_is_padding(data: st.DataObject) -> None:
    made = data.draw(layouts(padded=True))
    codes = data.draw(codes_for(made))
    ids = made.ids(codes)
    before = np.full((*ids.shape[:-1], 3), made.pad_id)
    np.testing.assert_array_equal(made.codes(np.concatenate([before, ids, before], axis=-1)), codes)


@given(st.data())
def test_joined_clips_come_back(data: st.DataObject) -> None:
    made = data.draw(layouts().filter(lambda each: each.sep_id is not None))
    clips = [data.draw(codes_for(made)) for _ in range(data.draw(st.integers(1, 3)))]
    back = made.split(made.join([made.ids(codes) for codes in clips]))
    assert len(back) == len(clips)
    for ids, codes in zip(back, clips, strict=True):
        np.testing.assert_array_equal(made.codes(ids), codes)


def test_tensors_in_tensors_out() -> None:
    torch = pytest.importorskip("torch")
    for made in (layout(), layout(pattern="delay"), layout(pattern="semantic", n_q=1)):
        for dtype in (torch.int64, torch.uint8, torch.uint16):
            codes = torch.from_numpy(CODES[: made.n_q]).to(dtype)
            ids = made.ids(codes)
            assert ids.dtype == torch.int64
            assert ids.tolist() == made.ids(CODES).tolist()
            back = made.codes(ids)
            assert back.dtype == torch.int64
            assert torch.equal(back, codes.long())
        batch = torch.stack([codes, codes]).long()
        parsed = made.parse(made.ids(batch, torch.tensor([3, 1])))
        assert torch.equal(parsed.lengths, torch.tensor([3, 1]))
        assert torch.equal(parsed.codes[1, :, :1], codes[:, :1].long())
        one, other = made.split(made.join([ids, ids]))
        assert torch.equal(one, ids)
        assert torch.equal(other, ids)
        assert all(isinstance(each, torch.Tensor) for each in made.pad([ids, ids]))


# What is no codes


@pytest.mark.parametrize(
    ("codes", "arguments", "reason"),
    [
        (CODES[:2, :2], {}, r"codes: 2 levels, but the layout has 3$"),
        (np.zeros((4, 2), int), {}, r"codes: 4 levels, but the layout has 3; take the first with codes\[:3\]"),
        (np.zeros((50, 3), int), {}, r"50 levels, but the layout has 3; transpose \(frames, n_q\) with .T"),
        (np.full((3, 2), 10), {}, "codes: values 10 to 10 are outside 0 to 9"),
        (np.zeros((3, 2)), {}, "codes: expected integers, got float64"),
        (np.zeros(3, int), {}, r"codes: expected shape \(n_q, frames\)"),
        (np.zeros((1, 1, 3, 2), int), {}, r"codes: expected shape"),
        (np.zeros((3, 2, 5), int), {}, r"of axes BKT has 2 levels, but the layout 3; give axes='KBT'"),
        (np.zeros((2, 3, 5), int), {"axes": "KBT"}, r"of axes KBT has 2 levels, but the layout 3; give axes='BKT'"),
        (np.zeros((0, 3, 5), int), {}, "codes: the batch holds no clips"),
        (np.zeros((2, 3, 5), int), {"lengths": [5]}, "codes: 1 lengths for 2 clips"),
        (np.zeros((2, 3, 5), int), {"lengths": [5, 6]}, "codes: length 6 of clip 1 is not within 0 to 5"),
        (np.zeros((2, 3, 5), int), {"lengths": [5, -1]}, "length -1 of clip 1"),
        (np.zeros((2, 3, 5), int), {"lengths": [5.0, 1.0]}, "expected integers"),
        (CODES, {"lengths": [2]}, r"lengths belong to a batch; cut one clip with codes\[:, :length\]"),
        (CODES, {"axes": "TKB"}, "axes must be BKT or KBT"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Any, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises((TokensError, ArgumentError), match=reason):
        layout().ids(codes, **arguments)


def test_the_semantic_layout_takes_level_0_of_codes_of_any_number_of_levels() -> None:
    made = layout(pattern="semantic", n_q=1)
    assert made.ids(np.stack([CODES, CODES + 1])).tolist() == [[BOS, 1, 2, 3, EOS], [BOS, 2, 3, 4, EOS]]
    with pytest.raises(TokensError, match="with 1 to 255 levels, got"):
        made.ids(np.zeros((300, 3), int))  # frames first


def test_what_a_layout_lacks_is_named() -> None:
    bare = layout(pad_id=None, sep_id=None)
    with pytest.raises(TokensError, match="clips of different lengths need a pad_id"):
        bare.ids(np.zeros((2, 3, 5), int), [5, 4])
    with pytest.raises(ArgumentError, match="has no sep_id; name 'sep' among its specials"):
        bare.join([[1, 2]])
    with pytest.raises(ArgumentError, match="has no sep_id"):
        bare.split([1, 2])
    with pytest.raises(TokensError, match="there are no sequences"):
        layout().pad([])
    with pytest.raises(TokensError, match=r"sequence 1 must have shape \(length,\), not \(1, 3\)"):
        layout().join([[1], [[1, 2, 3]]])
    with pytest.raises(TokensError, match=r"sequence 0 must have shape \(3, steps\), not \(2, 1\)"):
        layout(pattern="delay").pad([[[1], [2]]])
