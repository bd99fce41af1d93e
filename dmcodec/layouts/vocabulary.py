"""Vocabulary: which id stands for which code of which level, and which are special."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import is_whole
from dmcodec.config import MAX_CODEBOOK_SIZE, MAX_N_Q
from dmcodec.errors import ArgumentError

SPECIALS = ("bos", "eos", "pad", "sep")
MAX_VOCABULARY = 2**31


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of codes and of special tokens.

    With level offsets, code c of row k has the id first_id + k * codebook_size + c; without them, all levels share the
    ids first_id + c, and the place in the sequence says the level.

    Attributes:
        codebook_size: entries per codebook.
        n_q: quantizer levels.
        level_offsets: whether each level has ids of its own.
        first_id: id of code 0 of row 0. The ids below it are those of a text vocabulary, for example.
        bos_id: stands before a clip; None where the layout has none.
        eos_id: stands after a clip; None where the layout has none.
        pad_id: fills up the shorter clips of a batch, and the delays of a delay pattern. It may be `eos_id`.
        sep_id: stands between the clips of one sequence (`join`).

    Raises:
        ArgumentError: values out of range, or a special id that is a code's.
    """

    codebook_size: int
    n_q: int
    level_offsets: bool = True
    first_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    sep_id: int | None = None

    def __post_init__(self) -> None:
        self._set_whole("codebook_size", 2, MAX_CODEBOOK_SIZE)
        self._set_whole("n_q", 1, MAX_N_Q)
        self._set_whole("first_id", 0, MAX_VOCABULARY - self.num_code_ids)
        if not isinstance(self.level_offsets, bool):
            raise ArgumentError(f"layout: level_offsets must be true or false, not {self.level_offsets!r}")
        for name in self.specials:
            self._set_whole(f"{name}_id", 0, MAX_VOCABULARY - 1)
            number = self.specials[name]
            if self.first_id <= number < self.first_id + self.num_code_ids:
                raise ArgumentError(
                    f"layout: {name}_id {number} is the id of a code; codes have the ids {self.first_id} to "
                    f"{self.first_id + self.num_code_ids - 1}"
                )
        others = {name: number for name, number in self.specials.items() if name != "sep"}
        if self.sep_id in others.values():
            raise ArgumentError(f"layout: sep_id {self.sep_id} is another special id, too; give it one of its own")

    def _set_whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not is_whole(value) or not low <= value <= high:
            raise ArgumentError(f"layout: {name} must be a whole number from {low} to {high}, not {value!r}")
        object.__setattr__(self, name, int(value))

    @property
    def num_code_ids(self) -> int:
        """Number of ids that stand for codes."""
        return self.codebook_size * (self.n_q if self.level_offsets else 1)

    @property
    def specials(self) -> dict[str, int]:
        """Special ids by name: bos, eos, pad, sep; those that the layout has."""
        numbers = {name: getattr(self, f"{name}_id") for name in SPECIALS}
        return {name: number for name, number in numbers.items() if number is not None}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows that an embedding needs."""
        return max(self.first_id + self.num_code_ids, *(number + 1 for number in self.specials.values()), 0)

    def id_of(self, level: int, code: int) -> int:
        """Return the id of a code of a row; ArgumentError where there is no such code."""
        for name, value, size in (("level", level, self.n_q), ("code", code, self.codebook_size)):
            if not is_whole(value) or not 0 <= value < size:
                raise ArgumentError(f"layout: {name} must be 0 to {size - 1}, not {value!r}")
        return self.first_id + int(code) + (int(level) * self.codebook_size if self.level_offsets else 0)

    def code_of(self, number: int) -> tuple[int | None, int]:
        """Return row and code of an id; the row is None where ids don't tell the level.

        Raises:
            ArgumentError: not the id of a code.
        """
        if not is_whole(number) or not 0 <= number - self.first_id < self.num_code_ids:
            raise ArgumentError(f"layout: {number!r} is not the id of a code: it is {self.describe(number)}")
        level, code = divmod(int(number) - self.first_id, self.codebook_size)
        return (level if self.level_offsets or self.n_q == 1 else None), code

    def describe(self, number: Any) -> str:
        """Return what an id stands for, in words: "code 5 of level 2", "eos", or "outside the vocabulary"."""
        names = [name for name, special in self.specials.items() if special == number]
        if names:
            return " and ".join(names)
        if not is_whole(number) or not 0 <= number - self.first_id < self.num_code_ids:
            return "outside the vocabulary" if self.first_id == 0 else "outside the vocabulary of codes"
        level, code = self.code_of(number)
        return f"code {code}" if level is None else f"code {code} of level {level}"

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each id, of the same shape; -1 where it is no code's, 0 without level offsets."""
        rows = (ids - self.first_id) // self.codebook_size
        return np.where((rows < 0) | (rows >= self.num_code_ids // self.codebook_size), -1, rows)


def numbered(names: Any, start: int) -> Mapping[str, int]:
    """Return special ids by field name: a mapping of names to ids as it is, names numbered from `start` on.

    Raises:
        ArgumentError: a name that is not known, or given twice.
    """
    given = list(names)
    unknown = [name for name in given if name not in SPECIALS]
    if isinstance(names, str) or unknown or len(set(given)) < len(given):
        raise ArgumentError(f"layout: specials are some of {', '.join(SPECIALS)}, each once, not {names!r}")
    numbers = names if isinstance(names, Mapping) else {name: start + index for index, name in enumerate(given)}
    return {f"{name}_id": number for name, number in numbers.items()}
