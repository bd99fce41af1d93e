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


def parse_flat(ids: Ids, vocabulary: Vocabulary, by_level: bool, lenient: bool, where: str) -> tuple[Codes, list[Dropped]]:
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
    keep = _kept_levels if by_level else _kept_frames
    if not lenient:
        _check_body(body, start, rows, vocabulary, by_level, where)
        _check_end(ids, stray, vocabulary, where)
    kept = keep(rows, vocabulary, where)
    reasons = ("no whole frame", "no code")
    dropped = [
        Dropped(start + first, last - first, f"{reasons[int((rows[first:last] < 0).all())]} ({vocabulary.describe(body[first])})")
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
    begins = [min(start + steps, ids.shape[1]) for steps in delays]
    ends, dropped = [], []
    for level, (row, begin) in enumerate(zip(ids, begins, strict=True)):
        early = ~_is(row[start:begin], vocabulary.pad_id)
        end, stray = _end(row, begin, vocabulary)
        if not lenient:
            named = f"{where}: level {level}"
            if early.any():
                raise TokensError(_not_due(named, row, start + int(early.argmax()), vocabulary, "pad"))
            _check_level(row, level, begin, end, vocabulary, named)
            _check_end(row, stray, vocabulary, named)
        dropped += [Dropped(start + first, last - first, "before the delay", level) for first, last in _runs(early)]
        dropped += [Dropped(end + 1 + first, last - first, "after the end", level) for first, last in _runs(stray)]
        ends.append(end)
    lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
    frames = min(lengths)
    if not lenient and max(lengths) > frames:
        short, long = lengths.index(frames), lengths.index(max(lengths))
        raise TokensError(
            f"{where}: level {short} has {frames} codes up to position {ends[short]}, but level {long} has "
            f"{lengths[long]}; {_WAY_OUT}"
        )
    rows = np.stack([row[begin : begin + frames] for row, begin in zip(ids, begins, strict=True)])
    due = np.arange(vocabulary.n_q)[:, None] * vocabulary.level_offsets
    kept = (vocabulary.rows(rows) == due).all(axis=0)
    for level, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        for first, last in _runs(~kept):
            dropped.append(Dropped(begin + first, last - first, "no whole frame", level))
        if length > frames:
            dropped.append(Dropped(begin + frames, length - frames, "after the end of another level", level))
    return _codes(rows[:, kept], vocabulary), sorted(dropped, key=lambda each: (each.level, each.position))


def _is(ids: Ids, special: int | None) -> Mask:
    return np.zeros(ids.shape, bool) if special is None else ids == special


def _begin(pads: Mask, bos: Mask) -> int:
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


def _check_body(
    body: Ids, start: int, rows: Ids, vocabulary: Vocabulary, by_level: bool, where: str
) -> None:
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
        raise TokensError(f"{where}: levels must have the same number of codes; of {n_q} levels there are {counts}; {_WAY_OUT}")
    if over:
        raise TokensError(
            f"{where}: ends within a frame: position {start + len(body) - over} and on hold {over} of {n_q} levels; "
            f"{_WAY_OUT}"
        )


def _check_level(row: Ids, level: int, begin: int, end: int, vocabulary: Vocabulary, where: str) -> None:
    wrong = vocabulary.rows(row[begin:end]) != level * vocabulary.level_offsets
    if wrong.any():
        what = "a code of this level" if vocabulary.level_offsets else "a code"
        raise TokensError(_not_due(where, row, begin + int(wrong.argmax()), vocabulary, what))


def _check_end(row: Ids, stray: Mask, vocabulary: Vocabulary, where: str) -> None:
    if stray.any():
        position = len(row) - len(stray) + int(stray.argmax())
        raise TokensError(_not_due(where, row, position, vocabulary, "nothing more" if vocabulary.pad_id is None else "pad"))


def _not_due(where: str, ids: Ids, place: int, vocabulary: Vocabulary, due: str, start: int = 0) -> str:
    number = int(ids[place])
    return f"{where}: position {start + place} holds {number} ({vocabulary.describe(number)}), but {due} is due; {_WAY_OUT}"


def _kept_frames(rows: Ids, vocabulary: Vocabulary, where: str) -> Mask:
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
    places = [first + np.flatnonzero(rows[first:last] == level) for level, (first, last) in enumerate(_parts(rows, n_q))]
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
