"""The columns of an evaluation: what stands beside the original, and where its audio comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dmcodec.audio import AUDIO_SUFFIXES, Waveform, prepare_waveform, read_audio
from dmcodec.audio_sources import find_files
from dmcodec.benchmarks.codecs.checkpoint import open_codec
from dmcodec.benchmarks.codecs.interface import CodecModel, levels_of
from dmcodec.codes import Codes
from dmcodec.errors import ArgumentError, AudioError, InputNotFoundError, MetricError, TokensError

from .options import ORIGINAL, EvaluateOptions
from .signal_metrics import SAMPLE_RATE

# FOLDED: The clips: the reference folder's files, and what other folders hold under the same names.


@dataclasses.dataclass(frozen=True)
class Column:
    """One column. `n_q`, `bitrate_bps` and `codebook_size` are None for a folder of audio, which doesn't tell them."""

    name: str
    source: str
    description: str
    n_q: int | None = None
    bitrate_bps: float | None = None
    codebook_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Original:
    """One clip of the reference: `samples` (channels, samples) as in the file, `waveform` (samples,) at 16 kHz."""

    clip: Clip
    samples: Waveform
    sample_rate: int
    waveform: Waveform


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What a column made of a clip: (samples,) at 16 kHz, and its codes (n_q, frames) where they are known."""

    waveform: Waveform
    codes: Codes | None = None


class Source(Protocol):
    """Gives the audio of one or more columns."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    def reconstruct(self, original: Original) -> Mapping[str, Reconstruction]:
        """The clip in each of the columns, by their names; MetricError where it can't be had."""


class FolderSource:
    """A folder of audio that another codec made."""

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
    """A codec that is run here, once for each number of levels; the clip is encoded once."""

    def __init__(self, title: str, path: Path, model: CodecModel, levels: Sequence[int]) -> None:
        self._model = model
        config = model.config
        self.columns: tuple[Column, ...] = tuple(
            Column(
                title if len(levels) == 1 and n_q == config.n_q else f"{title}, n_q {n_q}",
                str(path),
                model.description,
                n_q,
                config.bitrate_bps(n_q),
                config.codebook_size,
            )
            for n_q in levels
        )
        self._levels = {column.name: n_q for column, n_q in zip(self.columns, levels, strict=True)}

    def reconstruct(self, original: Original) -> Mapping[str, Reconstruction]:
        rate = self._model.config.sample_rate
        try:
            waveform = prepare_waveform(original.samples, original.sample_rate, rate, str(original.clip.path))
            tokens = self._model.encode(waveform, max(self._levels.values()))
            found = {}
            for name, n_q in self._levels.items():
                chosen = tokens.levels(n_q)
                audio = prepare_waveform(self._model.decode(chosen), rate, SAMPLE_RATE, "the codec's output")
                found[name] = Reconstruction(audio, chosen.codes)
        except (AudioError, TokensError) as error:
            raise MetricError(str(error)) from None
        return found


def open_sources(options: EvaluateOptions, clips: Sequence[Clip]) -> tuple[Source, ...]:
    """All sources, codecs first; folders are paired with the clips before any codec is loaded.

    Raises:
        ArgumentError: two columns have the same name.
        InputNotFoundError: a folder lacks files (see `clips.pair`).
        BundleError, CheckpointError, ConfigError, MissingDependencyError: a codec can't be loaded.
    """
    _check_titles([entry.title for entry in (*options.codecs, *options.against)])
    folders = [
        FolderSource(entry.title, entry.path, pair(clips, entry.path, options.allow_missing))
        for entry in options.against
    ]
    codecs = []
    for entry in options.codecs:
        model = open_codec(entry.path, None if entry.path.is_dir() else options.config, options.threads)
        levels = levels_of(model.config, options.n_q, entry.title)
        codecs.append(CodecSource(entry.title, entry.path, model, levels))
    return (*codecs, *folders)


def _check_titles(titles: Sequence[str]) -> None:
    for title in titles:
        if titles.count(title) > 1:
            raise ArgumentError(f"two columns would be called {title!r}; name them with NAME=PATH")
        if title == ORIGINAL:
            raise ArgumentError(f"a column can't be called {ORIGINAL!r}; name it with NAME=PATH")


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
    for file in find_files([str(folder)], AUDIO_SUFFIXES):
        name = file.relative.with_suffix("").as_posix()
        if name in paths:
            raise ArgumentError(
                f"{paths[name]} and {file.path} have the same name but for the suffix; keep one of them"
            )
        paths[name] = file.path
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
