"""The clips and the columns of an evaluation: codecs that run here, and folders of audio that other codecs made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dmcodec.audio import Waveform, audio_needs, audio_suffixes, prepare_waveform, read_audio
from dmcodec.benchmarks.codecs.interface import MeasuredCodec, bitrate_bps
from dmcodec.benchmarks.codecs.registry import levels_to_report, open_codec
from dmcodec.benchmarks.stability.measure import FAILURES
from dmcodec.codes import Codes
from dmcodec.errors import ArgumentError, AudioError, InputNotFoundError, MetricError, first_line
from dmcodec.file_search import describe_left_out, search
from dmcodec.text import utf8

from .options import ORIGINAL, EvaluateOptions
from .signal_metrics import SAMPLE_RATE

# Lengths that differ by more are reported: an offset or a wrong pairing is likely.
MAX_DIFFERENCE_S, MAX_DIFFERENCE_SHARE = 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class Clip:
    """One file of the reference folder. `name`: its path relative to the folder, without the suffix, with slashes.

    Bytes of the path that are no UTF-8 are escaped in the name.
    """

    name: str
    path: Path


def find_clips(folder: Path, limit: int | None = None) -> tuple[Clip, ...]:
    """Return all audio files below a folder except hidden ones, in order of their names.

    Raises:
        InputNotFoundError: no such folder, or no audio in it.
        ArgumentError: the names of two files differ only in the suffix.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder}: no such folder of audio")
    paths: dict[str, Path] = {}
    found = search([str(folder)], audio_suffixes(), needs=audio_needs())
    for file in found.files or found.only():
        name = utf8(file.relative.with_suffix("").as_posix())
        if name in paths:
            raise ArgumentError(
                f"{paths[name]} and {file.path} have the same name but for the suffix; keep one of them"
            )
        paths[name] = file.path
    return tuple(Clip(name, paths[name]) for name in sorted(paths)[:limit])


def left_out(folder: Path) -> str:
    """Return a line that counts and names what `find_clips` leaves out of a folder; "" where it is nothing."""
    return describe_left_out(search([str(folder)], audio_suffixes(), needs=audio_needs()).left_out)


def pair(clips: Sequence[Clip], folder: Path, allow_missing: bool) -> Mapping[str, Path]:
    """Return the path of each clip's counterpart in a folder of reconstructions, by name, with any audio suffix.

    Raises:
        InputNotFoundError: a counterpart is missing and `allow_missing` is false, or all are missing.
    """
    found = {clip.name: clip.path for clip in find_clips(folder)}
    missing = [clip.name for clip in clips if clip.name not in found]
    if len(missing) == len(clips):
        raise InputNotFoundError(
            f"{folder}: none of the {len(clips)} reference files has a counterpart of its name here "
            f"(for example {missing[0]})"
        )
    if missing and not allow_missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputNotFoundError(
            f"{folder}: {len(missing)} of {len(clips)} reference files have no counterpart here: "
            f"{', '.join(missing[:3])}{more}; add them, or use --allow-missing"
        )
    return {clip.name: found[clip.name] for clip in clips if clip.name in found}


def load(path: Path) -> Waveform:
    """Read a file as mono float32 (samples,) at 16 kHz, the input of the metrics."""
    return prepare_waveform(*read_audio(path), SAMPLE_RATE, str(path))


def lengths_differ(reference_samples: int, samples: int) -> bool:
    """Return whether two lengths at 16 kHz differ by more than 0.5 s or 5 % of the reference."""
    difference = abs(samples - reference_samples)
    return difference > MAX_DIFFERENCE_S * SAMPLE_RATE or difference > MAX_DIFFERENCE_SHARE * reference_samples


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the results. `n_q`, `bitrate_bps` and `codebook_size` are None for a folder of audio."""

    name: str
    source: str
    description: str
    n_q: int | None = None
    bitrate_bps: float | None = None
    codebook_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Original:
    """One clip of the reference.

    Attributes:
        samples: (channels, samples) float32, as in the file, at `sample_rate`.
        waveform: (samples,) float32, mono, at 16 kHz.
    """

    clip: Clip
    samples: Waveform
    sample_rate: int
    waveform: Waveform


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A column's reconstruction of a clip: waveform (samples,) at 16 kHz, and codes (n_q, frames) where known."""

    waveform: Waveform
    codes: Codes | None = None


class Source(Protocol):
    """The source of the audio of one or more columns."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    def reconstruct(self, original: Original) -> Mapping[str, Reconstruction]:
        """Return the reconstruction in each column, by the column's name.

        Raises:
            MetricError: there is none; the message is the reason that the results show.
        """


class FolderSource:
    """A folder of audio that another codec made. Implements `Source`."""

    def __init__(self, title: str, folder: Path, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self.columns: tuple[Column, ...] = (Column(title, str(folder), "folder of audio"),)

    def reconstruct(self, original: Original) -> Mapping[str, Reconstruction]:
        path = self._paths.get(original.clip.name)
        if path is None:
            raise MetricError("no file of this name")
        try:
            return {self.columns[0].name: Reconstruction(load(path))}
        except AudioError as error:
            raise MetricError(str(error)) from None


class CodecSource:
    """A codec that runs here: it encodes a clip once, and decodes it at each number of levels. Implements `Source`.

    Attributes:
        codec: open.
        levels: numbers of levels by column.
    """

    def __init__(self, title: str, path: Path, codec: MeasuredCodec, levels: Sequence[int]) -> None:
        self.codec = codec
        self.columns: tuple[Column, ...] = tuple(
            Column(
                title if len(levels) == 1 and n_q == codec.n_q else f"{title}, n_q {n_q}",
                str(path),
                codec.description,
                n_q,
                bitrate_bps(codec, n_q),
                codec.codebook_size,
            )
            for n_q in levels
        )
        self.levels: Mapping[str, int] = {column.name: n_q for column, n_q in zip(self.columns, levels, strict=True)}

    def reconstruct(self, original: Original) -> Mapping[str, Reconstruction]:
        rate = self.codec.sample_rate
        try:
            waveform = prepare_waveform(original.samples, original.sample_rate, rate, str(original.clip.path))
            codes = self.codec.encode(waveform[None, None], max(self.levels.values()))
            reconstructions = {}
            for name, n_q in self.levels.items():
                decoded = self.codec.decode(codes[:n_q])[0, 0, : len(waveform)]
                audio = prepare_waveform(decoded, rate, SAMPLE_RATE, "the codec's output")
                reconstructions[name] = Reconstruction(audio, codes[:n_q, 0].astype(np.uint16))
        except FAILURES as error:
            raise MetricError(first_line(error)) from None
        return reconstructions


def open_sources(options: EvaluateOptions, clips: Sequence[Clip]) -> tuple[Source, ...]:
    """Open all sources, codecs first. Folders are paired with the clips before any codec is loaded.

    Raises:
        ArgumentError: two columns have the same name.
        InputNotFoundError: a folder lacks files (see `pair`).
        BundleError, CheckpointError, ConfigError, MissingDependencyError: a codec can't be loaded.
    """
    _check_titles([entry.title for entry in (*options.codecs, *options.against)])
    folders = [
        FolderSource(entry.title, entry.path, pair(clips, entry.path, options.allow_missing))
        for entry in options.against
    ]
    codecs = []
    for entry in options.codecs:
        codec = open_codec(entry.path, options.config, options.threads)
        levels = levels_to_report(codec, options.n_q, entry.title, options.bandwidths)
        codecs.append(CodecSource(entry.title, entry.path, codec, levels))
    sources: tuple[Source, ...] = (*codecs, *folders)
    _check_titles([column.name for source in sources for column in source.columns])
    return sources


def _check_titles(titles: Sequence[str]) -> None:
    for title in titles:
        if titles.count(title) > 1:
            raise ArgumentError(f"two columns would be called {title!r}; name them with NAME=PATH")
        if title == ORIGINAL:
            raise ArgumentError(f"a column can't be called {ORIGINAL!r}; name it with NAME=PATH")
