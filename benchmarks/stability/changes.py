"""The changes of the input whose effect on codes is measured. Each says which frames correspond to which.

Slices and surroundings are those of arXiv 2409.19283 (slice consistency).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.waveforms import resampler

from .mp3 import mp3_round_trip

MP3_KBIT_S = 64
BATCH = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One clip under test.

    Attributes:
        waveform: (samples,) float32 at `sample_rate`, a whole number of frames, not silent.
        neighbour: (samples,) float32, other speech.
        hop_length: samples per frame.
        seed: of noise and of the place of slices.
    """

    waveform: Waveform
    neighbour: Waveform
    sample_rate: int
    hop_length: int
    seed: tuple[int, ...]

    @property
    def frames(self) -> int:
        """Number of frames of the clip."""
        return len(self.waveform) // self.hop_length

    def frames_in(self, seconds: float) -> int:
        """Return the frames in some seconds, at least one."""
        return max(1, round(seconds * self.sample_rate / self.hop_length))

    def part(self, first: int, frames: int) -> Waveform:
        """Return the samples of some frames."""
        return self.waveform[first * self.hop_length : (first + frames) * self.hop_length]

    def random(self) -> np.random.Generator:
        """Return random numbers, the same ones at each call."""
        return np.random.default_rng(self.seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """One input of the codec.

    Attributes:
        waveforms: [B, 1, samples] float32. The first row is the changed clip.
        start: first frame of it that is compared.
        reference_start: the frame of the unchanged clip that it is compared with.
        frames: number of frames that are compared.
    """

    waveforms: NDArray[np.float32]
    start: int
    reference_start: int
    frames: int


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the input. `pieces` makes the inputs; their frames are joined before they are compared."""

    key: str
    label: str
    definition: str
    pieces: Callable[[Subject], Iterator[Piece]]


def changes(hop_length: int, sample_rate: int) -> tuple[Change, ...]:
    """Return all changes for a codec, in the order of the tables."""
    return (
        _slice("slice-0.2s", 0.2),
        _slice("slice-1s", 1.0),
        Change(
            "surroundings", "other surroundings", "1 s of another clip before and 1 s after it (of a single file: its "
            "own first second backwards)", _surrounded,
        ),
        Change("chunks", "chunks of 1 s", "consecutive pieces of 1 s, at most half the clip, encoded alone", _chunks),
        *(_shift(samples, hop_length) for samples in _shifts(hop_length)),
        Change("gain-6", "gain -6 dB", "all samples times 10^(-6/20)", _edited(_gain(-6))),
        Change("gain-12", "gain -12 dB", "all samples times 10^(-12/20)", _edited(_gain(-12))),
        Change("pad-end", "1 s of zeros after", "1 s of zeros after the clip", _padded(before=False)),
        Change("pad-start", "1 s of zeros before", "1 s of zeros before it, in whole frames", _padded(before=True)),
        Change("noise-30", "noise, 30 dB SNR", "white Gaussian noise, seeded, 30 dB below the clip's mean power",
               _edited(_noise(30))),
        Change("noise-20", "noise, 20 dB SNR", "white Gaussian noise, seeded, 20 dB below the clip's mean power",
               _edited(_noise(20))),
        Change("mp3", f"MP3 at {MP3_KBIT_S} kbit/s", f"MP3 at a constant {MP3_KBIT_S} kbit/s (LAME in libsndfile) and "
               "back, its delay compensated", _edited(_mp3)),
        *_resamplings(sample_rate),
        Change("batch", f"in a batch of {BATCH}", f"first row of a batch of {BATCH}: beside it the clip backwards, "
               "another clip, and silence", _batch),
    )  # fmt: skip


def _whole(waveform: Waveform, subject: Subject, start: int = 0) -> Piece:
    return Piece(waveform[None, None], start, 0, subject.frames)


def _edited(edit: Callable[[Subject], Waveform]) -> Callable[[Subject], Iterator[Piece]]:
    """Return the pieces of a change that leaves all frames in their places."""

    def pieces(subject: Subject) -> Iterator[Piece]:
        yield _whole(edit(subject).astype(np.float32), subject)

    return pieces


def _slice(key: str, seconds: float) -> Change:
    def pieces(subject: Subject) -> Iterator[Piece]:
        frames = min(subject.frames_in(seconds), max(1, subject.frames // 2))
        first = int(subject.random().integers(subject.frames - frames + 1))
        yield Piece(subject.part(first, frames)[None, None], 0, first, frames)

    text = f"{seconds:g} s of the clip, at most half of it, at a random frame, encoded alone"
    return Change(key, f"slice of {seconds:g} s", text, pieces)


def _surrounded(subject: Subject) -> Iterator[Piece]:
    frames = subject.frames_in(1.0)
    around = np.resize(subject.neighbour, 2 * frames * subject.hop_length)
    before, after = np.split(around, 2)
    yield _whole(np.concatenate([before, subject.waveform, after]), subject, frames)


def _chunks(subject: Subject) -> Iterator[Piece]:
    length = min(subject.frames_in(1.0), max(1, subject.frames // 2))
    for first in range(0, subject.frames, length):
        frames = min(length, subject.frames - first)
        yield Piece(subject.part(first, frames)[None, None], 0, first, frames)


def _shifts(hop_length: int) -> list[int]:
    """Return shifts from 1 sample to a whole frame, each once."""
    quarters = [hop_length * quarter // 4 for quarter in (1, 2, 3)]
    return sorted({samples for samples in (1, *quarters, hop_length - 1, hop_length) if samples > 0})


def _shift(samples: int, hop_length: int) -> Change:
    nearest = 0 if 2 * samples <= hop_length else 1

    def pieces(subject: Subject) -> Iterator[Piece]:
        yield Piece(subject.waveform[None, None, samples:], 0, nearest, subject.frames - 1)

    text = (
        f"without its first {samples} sample{'s' * (samples > 1)}; frame i is compared with frame i"
        f"{' + 1' if nearest else ''} of the clip, the nearest"
    )
    return Change(f"shift-{samples}", f"shift by {samples} sample{'s' * (samples > 1)}", text, pieces)


def _gain(decibels: float) -> Callable[[Subject], Waveform]:
    return lambda subject: subject.waveform * np.float32(10 ** (decibels / 20))


def _noise(snr_db: float) -> Callable[[Subject], Waveform]:
    def edit(subject: Subject) -> Waveform:
        power = float(np.square(subject.waveform, dtype=np.float64).mean())
        noise = subject.random().standard_normal(len(subject.waveform))
        return np.asarray(subject.waveform + noise * np.sqrt(power / 10 ** (snr_db / 10)), np.float32)

    return edit


def _padded(before: bool) -> Callable[[Subject], Iterator[Piece]]:
    def pieces(subject: Subject) -> Iterator[Piece]:
        frames = subject.frames_in(1.0)
        zeros = np.zeros(frames * subject.hop_length, np.float32)
        parts = (zeros, subject.waveform) if before else (subject.waveform, zeros)
        yield _whole(np.concatenate(parts), subject, frames if before else 0)

    return pieces


def _mp3(subject: Subject) -> Waveform:
    return mp3_round_trip(subject.waveform, subject.sample_rate, MP3_KBIT_S)


def _resamplings(sample_rate: int) -> Iterator[Change]:
    for key, rate in (("resample-half", sample_rate // 2), ("resample", 48000 if sample_rate == 44100 else 44100)):
        text = f"resampled from {sample_rate} to {rate} Hz and back (soxr, high quality)"
        yield Change(key, f"{rate / 1000:g} kHz and back", text, _edited(_resampled(rate)))


def _resampled(rate: int) -> Callable[[Subject], Waveform]:
    def edit(subject: Subject) -> Waveform:
        there = resampler(subject.sample_rate, rate)(subject.waveform, True)
        back = resampler(rate, subject.sample_rate)(there, True)
        return np.pad(back, (0, max(0, len(subject.waveform) - len(back))))[: len(subject.waveform)]

    return edit


def _batch(subject: Subject) -> Iterator[Piece]:
    samples = len(subject.waveform)
    rows = (subject.waveform, subject.waveform[::-1], np.resize(subject.neighbour, samples), np.zeros(samples))
    yield Piece(np.stack(rows).astype(np.float32)[:, None], 0, 0, subject.frames)
