"""The clips: the reference folder's files, and what other folders hold under the same names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmcodec.audio import AUDIO_SUFFIXES, Waveform, prepare_waveform, read_audio
from dmcodec.benchmarks.evaluation.signal_metrics import SAMPLE_RATE
from dmcodec.errors import ArgumentError, InputNotFoundError

# A reconstruction this much longer or shorter is worth a remark: an offset or a wrong pairing is likely.
REMARKABLE_S, REMARKABLE_SHARE = 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class Clip:
    """One file of the reference folder; `name` is its path below the folder, without the suffix, with slashes."""

    name: str
    path: Path


def find_clips(folder: Path, limit: int | None = None) -> tuple[Clip, ...]:
    """All audio files below a folder, in order of their names; hidden files don't count.

    Raises:
        InputNotFoundError: no such folder, or no audio in it.
        ArgumentError: two files have the same name but for the suffix.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: no such folder of audio")
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in AUDIO_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise ArgumentError(f"{paths[name]} and {path} have the same name but for the suffix; keep one of them")
        paths[name] = path
    if not paths:
        raise InputNotFoundError(f"{folder}: no files in this folder end in {', '.join(sorted(AUDIO_SUFFIXES))}")
    return tuple(Clip(name, paths[name]) for name in sorted(paths)[:limit])


def pair(clips: Sequence[Clip], folder: Path, allow_missing: bool) -> Mapping[str, Path]:
    """Paths of the clips' counterparts in a folder of reconstructions, by name; any audio suffix will do.

    Raises:
        InputNotFoundError: a counterpart is missing and `allow_missing` is false, or all are missing.
    """
    found = {clip.name: clip.path for clip in find_clips(folder)}
    missing = [clip.name for clip in clips if clip.name not in found]
    if len(missing) == len(clips):
        raise InputNotFoundError(
            f"{folder}: none of the {len(clips)} reference files has a counterpart of its name here ({missing[0]}, say)"
        )
    if missing and not allow_missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputNotFoundError(
            f"{folder}: {len(missing)} of {len(clips)} reference files have no counterpart here: "
            f"{', '.join(missing[:3])}{more}; add them, or use --allow-missing"
        )
    return {clip.name: found[clip.name] for clip in clips if clip.name in found}


def load(path: Path) -> Waveform:
    """A file as metrics take it: mono float32 at 16 kHz."""
    return prepare_waveform(*read_audio(path), SAMPLE_RATE, str(path))


def remarkable(reference_samples: int, samples: int) -> bool:
    """Whether two lengths differ by more than 0.5 s or 5 % of the reference."""
    difference = abs(samples - reference_samples)
    return difference > REMARKABLE_S * SAMPLE_RATE or difference > REMARKABLE_SHARE * reference_samples
