"""The columns of an evaluation: what stands beside the original, and where its audio comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dmcodec.audio import Waveform, prepare_waveform
from dmcodec.benchmarks.evaluation.clips import Clip, load, pair
from dmcodec.benchmarks.evaluation.codec_models import CodecModel, levels_of, open_codec
from dmcodec.benchmarks.evaluation.options import ORIGINAL, EvaluateOptions
from dmcodec.benchmarks.evaluation.signal_metrics import SAMPLE_RATE
from dmcodec.errors import ArgumentError, AudioError, MetricError, TokensError
from dmcodec.tokens import Codes


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
