"""Parse sequences of ids, such as a language model generated: codes again, or where and why they are none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dmcodec.codes import Codes
from dmcodec.errors import TokensError

from .patterns import unflatten_frames, unflatten_levels
from .vocabulary import Vocabulary

_WAY_OUT = "lenient=True drops what does not fit"

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Consecutive ids that lenient parsing left out.

    Attributes:
        position: of the first, in the sequence as it was given.
        count: how many.
        reason: why, in words.
        level: row of the ids, where levels are parallel.
        clip: row of the batch; None where one sequence was parsed.
    """

    position: int
    count: int
    reason: str
    level: int | None = None
    clip: int | None = None

    def __str__(self) -> str:
        clip = "" if self.clip is None else f"clip {self.clip}, "
        level = "" if self.level is None else f"level {self.level}, "
        last = "" if self.count == 1 else f" to {self.position + self.count - 1}"
        return f"{clip}{level}position{'s' if last else ''} {self.position}{last}: {self.reason}"


@dataclasses.dataclass(frozen=True, eq=False)
class ParsedIds:
    """Codes of one sequence of ids, or of a batch.

    Attributes:
        codes: (n_q, frames) uint16, or a batch of them that is filled up with 0; int64 tensors for tensors.
        lengths: frames of each clip: (B,) for a batch, a whole number for one.
        dropped: what lenient parsing left out, in order; empty if all ids were legal.
    """

    codes: Any
    lengths: Any
    dropped: tuple[Dropped, ...] = ()


def parse_flat(
    ids: Ids, vocabulary: Vocabulary, by_level: bool, lenient: bool, where: str
) -> tuple[Codes, list[Dropped]]:
    """Parse a flattened sequence (length,).

    Args:
        ids: may begin with pad and bos, and end with eos and pad.
        vocabulary: of the ids.
        by_level: whether the codes lie level by level; else frame by frame.
        lenient: whether to drop what does not fit.
        where: begin of errors.

    Returns:
        Codes (n_q, frames), and what was dropped.

    Raises:
        TokensError: an id that is not due at its position (not if `lenient`), or levels that can't be told apart.
    """
    start = _begin(_is(ids, vocabulary.pad_id), _is(ids, vocabulary.bos_id))
    end, stray = _end(ids, start, vocabulary)
    body = ids[start:end]
    rows = vocabulary.rows(body)
    if not lenient:
        _check_body(body, start, rows, vocabulary, by_level, where)
        _check_end(ids, stray, vocabulary, where)
    kept = _kept_levels(rows, vocabulary, where) if by_level else _kept_frames(rows, vocabulary)
    dropped = [
        Dropped(start + first, last - first, _reason(body[first:last], rows[first:last], vocabulary))
        for first, last in _runs(~kept)
    ]
    dropped += [Dropped(end + 1 + first, last - first, "after the end") for first, last in _runs(stray)]
    unflatten = unflatten_levels if by_level else unflatten_frames
    return _codes(unflatten(body[kept], vocabulary.n_q), vocabulary), dropped


def parse_delayed(
    ids: Ids, vocabulary: Vocabulary, delays: Sequence[int], lenient: bool, where: str
) -> tuple[Codes, list[Dropped]]:
    """Parse parallel levels (n_q, steps), level k delayed by delays[k] steps; otherwise as `parse_flat`."""
    start = _begin(_is(ids, vocabulary.pad_id).all(axis=0), _is(ids, vocabulary.bos_id).all(axis=0))
    rows = [_row(row, start, steps, vocabulary) for row, steps in zip(ids, delays, strict=True)]
    if not lenient:
        for level, row in enumerate(rows):
            _check_row(row, level, vocabulary, f"{where}: level {level}")
        _check_lengths(rows, where)
    frames = min(row.length for row in rows)
    codes = np.stack([row.ids[row.begin : row.begin + frames] for row in rows])
    due = np.arange(vocabulary.n_q)[:, None] * vocabulary.level_offsets
    kept = (vocabulary.rows(codes) == due).all(axis=0)
    dropped = [each for level, row in enumerate(rows) for each in _dropped_of_row(row, level, kept)]
    return _codes(codes[:, kept], vocabulary), dropped


@dataclasses.dataclass(frozen=True)
class _Row:
    """One of the parallel levels: where its codes are, and what before the delay and behind the eos is not pad."""

    ids: Ids
    start: int
    begin: int
    end: int
    early: Mask
    stray: Mask

    @property
    def length(self) -> int:
        return self.end - self.begin


def _row(ids: Ids, start: int, steps: int, vocabulary: Vocabulary) -> _Row:
    begin = min(start + steps, len(ids))
    end, stray = _end(ids, begin, vocabulary)
    return _Row(ids, start, begin, end, ~_is(ids[start:begin], vocabulary.pad_id), stray)


def _check_row(row: _Row, level: int, vocabulary: Vocabulary, where: str) -> None:
    if row.early.any():
        raise TokensError(_not_due(where, row.ids, row.start + int(row.early.argmax()), vocabulary, "pad"))
    wrong = vocabulary.rows(row.ids[row.begin : row.end]) != level * vocabulary.level_offsets
    if wrong.any():
        what = "a code of this level" if vocabulary.level_offsets else "a code"
        raise TokensError(_not_due(where, row.ids, row.begin + int(wrong.argmax()), vocabulary, what))
    _check_end(row.ids, row.stray, vocabulary, where)


def _check_lengths(rows: Sequence[_Row], where: str) -> None:
    lengths = [row.length for row in rows]
    short, long = lengths.index(min(lengths)), lengths.index(max(lengths))
    if lengths[short] != lengths[long]:
        raise TokensError(
            f"{where}: level {short} has {lengths[short]} codes up to position {rows[short].end}, but level {long} has "
            f"{lengths[long]}; {_WAY_OUT}"
        )


def _dropped_of_row(row: _Row, level: int, kept: Mask) -> Iterator[Dropped]:
    """Yield what is left out of a level, in order, where `kept` are the frames that all levels have."""
    end = row.begin + len(kept)
    for first, mask, reason in (
        (row.start, row.early, "before the delay"),
        (row.begin, ~kept, "no whole frame"),
        (end, np.ones(row.end - end, bool), "after the end of another level"),
        (row.end + 1, row.stray, "after the end"),
    ):
        for begin, last in _runs(mask):
            yield Dropped(first + begin, last - begin, reason, level)


def _is(ids: Ids, special: int | None) -> Mask:
    return np.zeros(ids.shape, bool) if special is None else ids == special


def _begin(pads: Any, bos: Any) -> int:
    """Return where the codes begin: after pads of a batch that is filled up at its begin, and bos."""
    start = len(pads) if pads.all() else int(pads.argmin())
    return start + bool(start < len(bos) and bos[start])


def _end(row: Ids, start: int, vocabulary: Vocabulary) -> tuple[int, Mask]:
    """Return where the codes end, and what behind the eos there is not pad."""
    rest = row[start:]
    ends = _is(rest, vocabulary.eos_id)
    if ends.any():
        end = start + int(ends.argmax())
        return end, ~_is(row[end + 1 :], vocabulary.pad_id)
    pads = _is(rest, vocabulary.pad_id)[::-1]
    trailing = len(pads) if pads.all() else int(pads.argmin())
    return len(row) - trailing, np.zeros(0, bool)


def _check_body(body: Ids, start: int, rows: Ids, vocabulary: Vocabulary, by_level: bool, where: str) -> None:
    n_q = vocabulary.n_q
    places = np.arange(len(body))
    due = places // max(1, len(body) // n_q) if by_level else places % n_q
    due = np.minimum(due, n_q - 1) * vocabulary.level_offsets
    over = len(body) % n_q
    # With a wrong number of ids, nothing is due at a certain place where levels follow each other.
    wrong = rows < 0 if by_level and over else rows != due
    if wrong.any():
        place = int(wrong.argmax())
        what = f"a code of level {due[place]}" if vocabulary.level_offsets and not (by_level and over) else "a code"
        raise TokensError(_not_due(where, body, place, vocabulary, what, start))
    if over and by_level:
        counts = np.bincount(rows, minlength=n_q).tolist() if vocabulary.level_offsets else len(body)
        raise TokensError(
            f"{where}: levels must have the same number of codes; of {n_q} levels there are {counts}; {_WAY_OUT}"
        )
    if over:
        raise TokensError(
            f"{where}: ends within a frame: position {start + len(body) - over} and on hold {over} of {n_q} levels; "
            f"{_WAY_OUT}"
        )


def _check_end(row: Ids, stray: Mask, vocabulary: Vocabulary, where: str) -> None:
    if stray.any():
        position = len(row) - len(stray) + int(stray.argmax())
        raise TokensError(
            _not_due(where, row, position, vocabulary, "nothing more" if vocabulary.pad_id is None else "pad")
        )


def _not_due(where: str, ids: Ids, place: int, vocabulary: Vocabulary, due: str, start: int = 0) -> str:
    number = int(ids[place])
    holds = f"position {start + place} holds {number} ({vocabulary.describe(number)})"
    return f"{where}: {holds}, but {due} is due; {_WAY_OUT}"


def _reason(ids: Ids, rows: Ids, vocabulary: Vocabulary) -> str:
    """Return why consecutive ids were dropped, and what the first is."""
    what = "no code" if (rows < 0).all() else "no whole frame"
    return f"{what} ({vocabulary.describe(ids[0])})"


def _kept_frames(rows: Ids, vocabulary: Vocabulary) -> Mask:
    """Return which ids belong to whole frames: by their levels, or without level offsets by their places."""
    n_q, kept = vocabulary.n_q, np.zeros(len(rows), bool)
    whole = len(rows) // n_q * n_q
    if not vocabulary.level_offsets:
        kept[:whole] = np.repeat((rows[:whole].reshape(-1, n_q) >= 0).all(axis=1), n_q)
    elif whole:
        # No two frames overlap: only the first id of a frame is of level 0.
        firsts = np.flatnonzero((sliding_window_view(rows, n_q) == np.arange(n_q)).all(axis=1))
        kept[(firsts[:, None] + np.arange(n_q)).ravel()] = True
    return kept


def _kept_levels(rows: Ids, vocabulary: Vocabulary, where: str) -> Mask:
    """Return which ids belong to frames that all levels have."""
    n_q, kept = vocabulary.n_q, np.zeros(len(rows), bool)
    if not vocabulary.level_offsets:
        if len(rows) % n_q:
            raise TokensError(
                f"{where}: {len(rows)} ids are no {n_q} levels of the same length, and without level offsets nothing "
                "tells where a level begins; generate all levels, or make a layout with level_offsets"
            )
        return np.tile((rows.reshape(n_q, -1) >= 0).all(axis=0), n_q)
    places = [
        first + np.flatnonzero(rows[first:last] == level) for level, (first, last) in enumerate(_parts(rows, n_q))
    ]
    frames = min(map(len, places))
    kept[np.concatenate([part[:frames] for part in places])] = True
    return kept


def _parts(rows: Ids, n_q: int) -> list[tuple[int, int]]:
    """Cut a sequence in one part for each level, so that the parts hold as many ids of their levels as possible."""
    best = np.zeros(len(rows) + 1, np.int64)
    cuts = []
    for level in range(n_q):
        count = np.concatenate([[0], np.cumsum(rows == level)])
        gain = best - count
        top = np.maximum.accumulate(gain)
        cuts.append(np.maximum.accumulate(np.where(gain == top, np.arange(len(gain)), 0)))
        best = top + count
    parts, last = [], len(rows)
    for cut in reversed(cuts):
        parts.append((int(cut[last]), last))
        last = int(cut[last])
    return parts[::-1]


def _codes(rows: Ids, vocabulary: Vocabulary) -> Codes:
    return ((rows - vocabulary.first_id) % vocabulary.codebook_size).astype(np.uint16)


def _runs(mask: Mask) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
