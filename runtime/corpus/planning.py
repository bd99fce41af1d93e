"""Makes a plan: lists the corpus, checks the ids, and cuts the list into shards of about equal audio."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from dmcodec.errors import ArgumentError, DataError, InputNotFoundError, OutputExistsError
from dmcodec.files import make_folder, write_bytes
from dmcodec.text import one_line

from .columns import ColumnTypes
from .items import Item
from .lengths import with_lengths
from .plan import ITEMS, PLAN, Plan, Settings, Shard, item_lines, plan_json, shard_name

# Seconds of audio in a shard, where nobody chooses: a 1024th of the corpus, within these bounds.
SHARD_S = (120.0, 4 * 3600.0)
MIN_SHARD_S, MAX_SHARD_S = 0.1, 24 * 3600.0
_SHARDS = 1024
_SHOW_EVERY = 1000

# Called with the number of clips that are listed.
Listed = Callable[[int], None]


@dataclass(frozen=True)
class Draft:
    """A plan that is not written yet. `lines`: all items, one a line, in a temporary file."""

    plan: Plan
    lines: BinaryIO

    def write(self) -> None:
        """Write the lists of the shards, then plan.json, which makes them a plan.

        Raises:
            OutputError: the folder can't be written to.
        """
        folder = self.plan.folder / ITEMS
        make_folder(folder)
        self.lines.seek(0)
        for index, shard in enumerate(self.plan.shards):
            data = b"".join(self.lines.readline() for _ in range(shard.items))
            write_bytes(folder / f"{shard_name(index)}.jsonl", data)
        write_bytes(self.plan.folder / PLAN, plan_json(self.plan))


@contextmanager
def drafted(
    items: Iterable[Item],
    folder: Path,
    inputs: Iterable[str],
    settings: Settings,
    shard_s: float | None = None,
    listed: Listed | None = None,
) -> Iterator[Draft]:
    """List a corpus and yield its plan. The items go to a temporary file: the memory stays small for any corpus.

    Args:
        items: of all sources, in order.
        folder: of the output. Nothing is written there before `Draft.write`.
        inputs: the arguments that name the corpus.
        settings: of the output.
        shard_s: seconds of audio in a shard, about; by default SHARD_S decides.
        listed: see `Listed`.

    Raises:
        InputNotFoundError: the corpus is empty, or an input can't be read.
        DataError: two clips have one id, or a manifest is not well-formed.
        ArgumentError: `shard_s` is out of range.
    """
    if shard_s is not None and not MIN_SHARD_S <= shard_s <= MAX_SHARD_S:
        raise ArgumentError(f"a shard holds {MIN_SHARD_S:g} s to {MAX_SHARD_S / 3600:g} h of audio, not {shard_s:g} s")
    inputs = tuple(inputs)
    with tempfile.TemporaryFile(prefix="dmcodec.") as file:
        lines = cast(BinaryIO, file)
        listing = _Listing(lines, listed or (lambda _count: None))
        digest = CorpusDigest()
        for item in with_lengths(digest.added(items)):
            listing.add(item)
        if not listing.audio_s:
            raise InputNotFoundError(f"{', '.join(inputs)}: the corpus is empty; name audio, or a list that holds some")
        listing.refuse_duplicates()
        shards = listing.shards(shard_s)
        yield Draft(Plan(folder, inputs, settings, listing.columns.result(), digest.value, shards), lines)


class CorpusDigest:
    """The SHA-256 of all items as sources list them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def added(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and take them into the digest."""
        for item in items:
            self._hash.update(item_lines([item]))
            yield item

    @property
    def value(self) -> str:
        """The digest of the items up to now, as hex digits."""
        return self._hash.hexdigest()


class _Listing:
    """What is known of the items: 24 bytes of each, and all of them in a file."""

    def __init__(self, lines: BinaryIO, listed: Listed) -> None:
        self._lines, self._listed = lines, listed
        self._ids = array("Q")  # the first 8 bytes of a hash
        self.audio_s, self._sizes = array("d"), array("q")
        self.columns = ColumnTypes()

    def add(self, item: Item) -> None:
        self._lines.write(item_lines([item]))
        self._ids.append(_short_hash(item.id))
        self.audio_s.append(item.audio_s or 0.0)
        self._sizes.append(item.size_bytes)
        self.columns.add(item)
        if len(self._ids) % _SHOW_EVERY == 0:
            self._listed(len(self._ids))

    def refuse_duplicates(self) -> None:
        """Raise DataError where two items have one id."""
        values, counts = np.unique(np.frombuffer(self._ids, np.uint64), return_counts=True)
        suspects = set(values[counts > 1].tolist())
        seen: dict[str, Item] = {}
        for item in self._items() if suspects else ():
            if _short_hash(item.id) not in suspects:
                continue
            if item.id in seen:
                raise DataError(
                    f"two clips have the id {one_line(item.id)}: {one_line(seen[item.id].source)} and "
                    f"{one_line(item.source)}; give each an id of its own, in a manifest with a column id"
                )
            seen[item.id] = item

    def shards(self, shard_s: float | None) -> tuple[Shard, ...]:
        """Cut the list into shards: as many as `shard_s` asks for, each of about the same length of audio."""
        lengths = np.frombuffer(self.audio_s, np.float64)
        total = float(lengths.sum())
        if shard_s is None:
            shard_s = min(max(total / _SHARDS, SHARD_S[0]), SHARD_S[1])
        count = min(len(lengths), max(1, math.ceil(total / shard_s)))
        middles = np.cumsum(lengths) - lengths / 2
        numbers = np.minimum((middles / max(total, 1e-9) * count).astype(np.int64), count - 1)
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(lengths)]
        self._lines.seek(0)
        sizes = np.frombuffer(self._sizes, np.int64)
        shards = []
        for start, stop in pairwise(bounds):
            audio_s, size_bytes = round(float(lengths[start:stop].sum()), 3), int(sizes[start:stop].sum())
            shards.append(Shard(stop - start, audio_s, size_bytes, self._digest(stop - start)))
        return tuple(shards)

    def _digest(self, count: int) -> str:
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(self._lines.readline())
        return digest.hexdigest()

    def _items(self) -> Iterator[Item]:
        self._lines.seek(0)
        for line in self._lines:
            yield Item.from_json(json.loads(line))
        self._lines.seek(0, 2)


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def refuse_another_corpus(plan: Plan, items: Iterable[Item]) -> None:
    """Raise OutputExistsError where a corpus is another one than when the plan was made; the first difference is named.

    Args:
        plan: that is in the folder.
        items: of all sources, in order, as they are now.
    """
    planned = (item for index in range(len(plan.shards)) for item in plan.items(index))
    for old, new in zip_longest(planned, items):
        if old is not None and new is not None and replace(old, audio_s=None) == replace(new, audio_s=None):
            continue
        if new is None or (old is not None and old.id < new.id and new.id != old.id):
            what = f"{old.source} is gone" if old is not None else ""
        elif old is None or old.id != new.id:
            what = f"{new.source} is new, or at another place"
        else:
            what = f"{new.source} was changed"
        raise OutputExistsError(
            f"{plan.folder}: holds the plan of another corpus: {one_line(what)}. Put that back, name another folder, "
            "go on with the old plan with --keep-plan, or begin again with --force"
        )
