"""Where a source is cut into segments, and which split a source goes to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from dmcodec.errors import DataError
from dmcodec.training.data.layout import TRAIN, VALIDATION


def cut(num_samples: int, segment_samples: int) -> list[tuple[int, int]]:
    """Cuts a source so that every sample lies in a segment.

    A source longer than a segment gives full segments only: the last is moved back to end where the source ends, and
    overlaps the one before. A shorter source is one segment of its own length.

    Returns:
        (start, length) of each segment, in samples, by start.
    """
    if num_samples <= segment_samples:
        return [(0, num_samples)] if num_samples > 0 else []
    starts = list(range(0, num_samples - segment_samples + 1, segment_samples))
    if starts[-1] + segment_samples < num_samples:
        starts.append(num_samples - segment_samples)
    return [(start, segment_samples) for start in starts]


def split_keys(keys: Collection[str], validation: float, seed: int) -> dict[str, str]:
    """Assigns each key (a speaker, a file) to a split by its hash: added keys move no others.

    Where the hashes leave one split empty, the key nearest to the border changes sides.

    Args:
        keys: of the sources.
        validation: share of the keys that validate, from 0 (none) to below 1.
        seed: another seed, another split.

    Raises:
        DataError: a single key can't be split.
    """
    places = {key: _place(key, seed) for key in keys}
    chosen = {key for key, place in places.items() if place < validation}
    if validation > 0 and len(places) < 2:
        only = next(iter(places), "")
        raise DataError(
            f"{only!r} alone can't be split into {TRAIN} and {VALIDATION}; "
            "use --validation 0, --split-by file, or more audio"
        )
    if validation > 0 and not chosen:
        chosen = {min(places, key=places.__getitem__)}
    if len(chosen) == len(places):
        chosen.discard(max(places, key=places.__getitem__))
    return {key: VALIDATION if key in chosen else TRAIN for key in places}


def _place(key: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
