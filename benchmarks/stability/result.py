"""Result of a measurement of token stability. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dmcodec.errors import ArgumentError

DEFAULT_FILES = 10
DEFAULT_ROUNDS = (1, 5, 25)
MAX_S, MIN_S = 10.0, 0.5


@dataclasses.dataclass(frozen=True)
class StabilityOptions:
    """How much is measured.

    Attributes:
        files: number of clips, evenly spread over the list.
        rounds: numbers of re-encodings after which the codes are compared with the first ones.
        seed: of noise and of the places of slices.
    """

    files: int = DEFAULT_FILES
    rounds: tuple[int, ...] = DEFAULT_ROUNDS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.files < 1:
            raise ArgumentError(f"--stability-files must be at least 1, not {self.files}")
        if not self.rounds or min(self.rounds) < 1:
            raise ArgumentError("--stability-rounds must be numbers of 1 or more")
        if len(set(self.rounds)) < len(self.rounds):
            raise ArgumentError("--stability-rounds has the same value twice; name each once")


@dataclasses.dataclass(frozen=True)
class ClipCounts:
    """Comparison of the codes of one clip: frames, and for each level the equal codes and the edit distance."""

    frames: int
    equal: tuple[int, ...]
    edits: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Codes of changed clips compared with those of the clips, over the frames of all files.

    Attributes:
        key, label, definition: of the change.
        frames: number of frames that were compared; 0 where there is no file.
        levels: share of equal codes of each level, 0 to 1.
        all_levels: share of equal codes of all levels; None without frames.
        edit_distance: Levenshtein distance of each level's codes / frames.
        edit_distance_all_levels: its mean over the levels; None without frames.
        lowest: the lowest share of all levels in a file; None without frames.
        clips: counts of each file.
        failures: reasons of the files without a value.
    """

    key: str
    label: str
    definition: str
    frames: int
    levels: tuple[float, ...]
    all_levels: float | None
    edit_distance: tuple[float, ...]
    edit_distance_all_levels: float | None
    lowest: float | None
    clips: Mapping[str, ClipCounts]
    failures: Mapping[str, str]

    @classmethod
    def of(
        cls, key: str, label: str, definition: str, clips: Mapping[str, ClipCounts], failures: Mapping[str, str]
    ) -> Agreement:
        """Sum the counts of all clips."""
        frames = sum(counts.frames for counts in clips.values())
        if not frames:
            return cls(key, label, definition, 0, (), None, (), None, None, clips, failures)
        levels = _shares([counts.equal for counts in clips.values()], frames)
        edits = _shares([counts.edits for counts in clips.values()], frames)
        lowest = min(sum(each.equal) / (each.frames * len(each.equal)) for each in clips.values())
        return cls(
            key, label, definition, frames, levels, sum(levels) / len(levels), edits, sum(edits) / len(edits), lowest,
            clips, failures,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Round:
    """What is left after a number of re-encodings.

    Attributes:
        rounds: number of times that decoded audio was encoded again; 0: the codes of the clip itself.
        agreement: with the codes of the clip.
        stoi: mean STOI of the audio that these codes decode to, against the clip; None where no file has one.
        stoi_files: number of files with a value of STOI.
    """

    rounds: int
    agreement: Agreement
    stoi: float | None
    stoi_files: int


@dataclasses.dataclass(frozen=True)
class Stability:
    """Token stability of one codec at one number of levels.

    Attributes:
        files: names of the clips that were measured.
        skipped: reasons of the chosen clips that were not.
        seconds: audio in all.
        changes: agreement for each change of the input.
        rounds: re-encoding, round 0 first.
    """

    files: tuple[str, ...]
    skipped: Mapping[str, str]
    seconds: float
    changes: tuple[Agreement, ...]
    rounds: tuple[Round, ...]


def _shares(counts: Sequence[tuple[int, ...]], frames: int) -> tuple[float, ...]:
    return tuple(sum(level) / frames for level in zip(*counts, strict=True))
