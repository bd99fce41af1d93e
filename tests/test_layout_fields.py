"""Layouts as values: their vocabulary, what they are made of, and their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from layout_strategies import CODES, MODEL, layout, layouts, tokens

from dmcodec.errors import ArgumentError, InputNotFoundError, TokensError
from dmcodec.layouts import TokenLayout
from dmcodec.tokens import Tokens

BOS, EOS, PAD, SEP = 30, 31, 32, 33


# Vocabulary


def test_the_vocabulary() -> None:
    made = layout(first_id=100)
    assert (made.vocab_size, made.num_code_ids) == (130, 30)
    assert layout().vocab_size == 34
    assert layout(level_offsets=False).vocab_size == 34
    assert layout(level_offsets=False, bos_id=10, eos_id=10, pad_id=10, sep_id=None).vocab_size == 11
    assert (made.id_of(2, 7), made.code_of(127)) == (127, (2, 7))
    assert layout(level_offsets=False).id_of(2, 7) == 7
    assert layout(level_offsets=False).code_of(7) == (None, 7)
    assert [made.describe(number) for number in (127, EOS, 99, 130, -1)] == [
        "code 7 of level 2", "eos", *["outside the vocabulary of codes"] * 3,
    ]  # fmt: skip
    assert made.specials == {"bos": BOS, "eos": EOS, "pad": PAD, "sep": SEP}
    for level, code in ((3, 0), (0, 10), (-1, 0), (0, 1.0), (True, 0)):
        with pytest.raises(ArgumentError, match=r"layout: (level|code) must be 0 to"):
            made.id_of(level, code)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="layout: 31 is not the id of a code: it is eos"):
        made.code_of(EOS)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pattern": "diagonal"}, "pattern must be one of frame, level, delay, semantic, not 'diagonal'"),
        ({"codebook_size": 1}, "codebook_size must be a whole number from 2"),
        ({"codebook_size": 10.0}, "codebook_size"),
        ({"n_q": 0}, "n_q"),
        ({"n_q": 256}, "n_q"),
        ({"first_id": -1}, "first_id"),
        ({"first_id": 2**31}, "first_id"),
        ({"eos_id": -1}, "eos_id"),
        ({"eos_id": "eos"}, "eos_id"),
        ({"eos_id": 29}, "eos_id 29 is the id of a code; codes have the ids 0 to 29"),
        ({"first_id": 25}, "bos_id 30 is the id of a code"),
        ({"sep_id": 31}, "sep_id 31 is another special id, too"),
        ({"level_offsets": 1}, "level_offsets"),
        ({"pattern": "semantic"}, "n_q must be 1"),
        ({"delays": (0, 1, 2)}, "delays belong to the pattern 'delay', not to 'frame'"),
        ({"pattern": "delay", "delays": (0, 1)}, "delays must be 3 whole numbers"),
        ({"pattern": "delay", "delays": (1, 2, 3)}, "the smallest 0"),
        ({"pattern": "delay", "delays": (0, -1, 1)}, "delays"),
        ({"pattern": "delay", "delays": 2}, "delays"),
        ({"pattern": "delay", "pad_id": None}, "a delay pattern needs a pad_id"),
        ({"model_id": "xyz"}, "model_id must be 16 hex digits or empty"),
        ({"model_id": MODEL * 2}, "model_id"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"hop_length": None}, "hop_length"),
        ({"first_level": 253}, "first_level"),
    ],
)
def test_what_is_no_layout_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArgumentError, match=f"^layout: .*{reason}"):
        layout(**fields)


# Of a codec or of tokens


def test_a_layout_of_tokens_numbers_its_special_ids() -> None:
    made = TokenLayout.of(tokens(), specials=("pad", "eos"), first_id=100)
    assert made == layout(bos_id=None, sep_id=None, pad_id=130, eos_id=131, first_id=100)
    assert TokenLayout.of(tokens(), "semantic", {"eos": 10}) == layout(
        pattern="semantic", n_q=1, bos_id=None, eos_id=10, pad_id=None, sep_id=None
    )
    delayed = TokenLayout.of(tokens(), "delay")
    assert (delayed.level_offsets, delayed.delays, delayed.pad_id, delayed.vocab_size) == (False, (0, 1, 2), 12, 13)
    assert TokenLayout.of(tokens().levels(skip=1)).first_level == 1
    assert TokenLayout.of(tokens(), n_q=2).ids(CODES[:2]).tolist() == [20, 1, 14, 2, 15, 3, 16, 21]
    for wrong in (("bos", "unknown"), "bos", ("bos", "bos")):
        with pytest.raises(ArgumentError, match="specials are some of bos, eos, pad, sep, each once"):
            TokenLayout.of(tokens(), specials=wrong)
    with pytest.raises(ArgumentError, match="no field 'codebooks'; fields are bos_id, "):
        TokenLayout.of(tokens(), codebooks=3)
    with pytest.raises(ArgumentError, match=r"of\(\) takes a Codec, its manifest, Tokens, .*, not str"):
        TokenLayout.of("my.bundle")
    with pytest.raises(ArgumentError, match="not dict"):
        TokenLayout.of({"codebook_size": 10, "n_q": 3, "sample_rate": 16000})
    facts = {
        "codebook_size": 10,
        "n_q": 3,
        "sample_rate": 16000,
        "hop_length": 320,
        "model_id": MODEL,
        "codes": "lists",
    }
    assert TokenLayout.of(facts) == TokenLayout.of(tokens())


def test_a_layout_of_a_codec(tiny_bundle: Path) -> None:
    from dmcodec.runtime import Codec

    codec = Codec.load(tiny_bundle)
    clip = codec.encode(np.zeros(5000, np.float32), 16000)
    for source in (codec, codec.bundle.manifest, clip):
        made = TokenLayout.of(source)
        assert (made.n_q, made.codebook_size, made.hop_length) == (8, 64, 320)
        assert made.model_id == codec.bundle.manifest.model_id
    back = Tokens.from_ids(made.ids(clip), made, clip.num_samples)
    assert back == clip
    np.testing.assert_array_equal(codec.decode(back), codec.decode(clip))


def test_tokens_come_back() -> None:
    for pattern in ("frame", "level", "delay"):
        made = TokenLayout.of(tokens(), pattern)
        assert Tokens.from_ids(made.ids(tokens()), made, 900) == tokens()
        assert Tokens.from_ids(made.ids(tokens()), made) == tokens(num_samples=960)
    made = TokenLayout.of(tokens(), "semantic")
    assert Tokens.from_ids(made.ids(tokens()), made, 900) == tokens().levels(1)
    with pytest.raises(TokensError, match=r"ids: are a batch; .* ids\[0\]"):
        Tokens.from_ids(made.ids(CODES[None]), made)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"model_id": "1234123412341234"},
            "made by model 1234123412341234, but the layout is of model 00ff00ff00ff00ff",
        ),
        ({"codebook_size": 16}, "codebook_size 16, but the layout has 10"),
        ({"sample_rate": 24000}, "sample_rate 24000"),
        ({"hop_length": 310}, "hop_length 310"),
        ({"first_level": 1}, "first_level 1"),
    ],
)
def test_tokens_of_another_model_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokensError, match=f"tokens: .*{reason}"):
        layout().ids(tokens(**changes))


def test_tokens_without_a_model_id_are_taken() -> None:
    assert layout().ids(tokens(model_id="")).tolist() == layout().ids(CODES).tolist()
    assert layout(model_id="").ids(tokens()).tolist() == layout().ids(CODES).tolist()


# The file


def test_a_layout_is_saved_and_loaded(tmp_path: Path) -> None:
    made = layout(pattern="delay", delays=(0, 0, 2))
    made.save(tmp_path / "layout.json")
    assert TokenLayout.load(tmp_path / "layout.json") == made


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "can't be read as a token layout"),
        ("[" * 100000, "can't be read as a token layout"),
        ("[]", "is no token layout"),
        ('{"format_version": true}', "is no token layout"),
        ('{"format_version": 2}', "format 2, this dmcodec reads 1; update dmcodec"),
        ('{"format_version": 1}', "field 'codebook_size' is missing"),
    ],
)
def test_what_is_no_layout_file_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text(content)
    with pytest.raises(TokensError, match=f"layout.json: {reason}"):
        TokenLayout.load(tmp_path / "layout.json")


def test_fields_of_a_layout_file_are_checked(tmp_path: Path) -> None:
    for change, reason in (
        ({"pattern": "x"}, "here: pattern must be"),
        ({"delays": [1]}, "here: delays belong to"),
        ({"colour": 1}, "here: field 'colour' is unknown"),
        ({"n_q": "3"}, "here: n_q must be"),
    ):
        with pytest.raises(TokensError, match=f"^{reason}"):
            TokenLayout.from_dict({**layout().to_dict(), **change}, "here")
    with pytest.raises(InputNotFoundError, match=r"missing.json: no such file"):
        TokenLayout.load(tmp_path / "missing.json")
    with pytest.raises(TokensError, match="can't be read as a token layout"):
        TokenLayout.load(tmp_path)


@given(layouts())
def test_a_layout_comes_back_from_json(made: TokenLayout) -> None:
    assert TokenLayout.from_dict(made.to_dict()) == made
