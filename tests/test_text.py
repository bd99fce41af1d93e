"""Sizes as text."""

from __future__ import annotations

import pytest

from dmcodec.text import size_text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_440, "3.4 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_000_000, "12.0 MB"),
        (8_850_000_000, "8.8 GB"),
        (2_500_000_000_000, "2500.0 GB"),
    ],
)
def test_a_size_stands_in_the_unit_that_fits(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
