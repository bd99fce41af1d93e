"""What the tests of layouts share: a layout, tokens, and strategies of layouts and codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.layouts import TokenLayout
from dmcodec.layouts.layout import PATTERNS
from dmcodec.layouts.vocabulary import SPECIALS
from dmcodec.tokens import Tokens

MODEL = "00ff00ff00ff00ff"
CODES = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 0]])


def layout(**changes: Any) -> TokenLayout:
    """Three levels of ten codes, with the special ids 30, 31, 32, 33."""
    fields = {"codebook_size": 10, "n_q": 3, "sample_rate": 16000, "hop_length": 320, "model_id": MODEL}
    specials = {f"{name}_id": 30 + index for index, name in enumerate(SPECIALS)}
    return TokenLayout(**{**fields, **specials, **changes})


def tokens(**changes: Any) -> Tokens:
    """CODES as tokens that `layout()` takes."""
    fields: dict[str, Any] = {"codes": CODES, "num_samples": 900, "sample_rate": 16000, "hop_length": 320}
    return Tokens(**{**fields, "codebook_size": 10, "model_id": MODEL, **changes})


@st.composite
def layouts(draw: st.DrawFn, padded: bool = False) -> TokenLayout:
    """Layouts of all patterns, with and without special ids and offsets; `padded`: with a pad id."""
    pattern = draw(st.sampled_from(PATTERNS))
    n_q = 1 if pattern == "semantic" else draw(st.integers(1, 5))
    codebook_size, first_id = draw(st.integers(2, 12)), draw(st.sampled_from([0, 1, 100]))
    delays = draw(st.none() | st.lists(st.integers(0, 4), min_size=n_q, max_size=n_q)) if pattern == "delay" else None
    if delays:
        delays = [steps - min(delays) for steps in delays]
    names = {name for name in SPECIALS if draw(st.booleans())}
    if padded or (pattern == "delay" and (delays is None or max(delays))):
        names.add("pad")
    numbers = {f"{name}_id": first_id + codebook_size * n_q + index for index, name in enumerate(sorted(names))}
    if draw(st.booleans()) and {"pad", "eos"} <= names:
        numbers["pad_id"] = numbers["eos_id"]
    return TokenLayout(
        codebook_size=codebook_size, n_q=n_q, level_offsets=draw(st.booleans()), first_id=first_id, sample_rate=16000,
        hop_length=320, pattern=pattern, delays=tuple(delays) if delays else None, model_id=MODEL, **numbers,
    )  # fmt: skip


@st.composite
def codes_for(draw: st.DrawFn, made: TokenLayout, *batch: int) -> NDArray[np.int64]:
    """Codes (*batch, n_q, frames) of a layout."""
    seed, frames = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 9))
    return np.random.default_rng(seed).integers(0, made.codebook_size, (*batch, made.n_q, frames))
