"""The speech on which layers are tried, and the speech that is held out to judge the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dmcodec.audio import Waveform, audio_suffixes, prepare_waveform, read_audio
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, InputNotFoundError
from dmcodec.file_search import find_files
from dmcodec.sample import SPEECH_FILE, speech

_TRIED_S, _HELD_OUT_S = 6.0, 4.0
_EVERY = 4
_SHORTEST_S = 0.5
_MOST_S = 30.0  # of each part of a folder
_PEAK = 0.95


@dataclasses.dataclass(frozen=True)
class Speech:
    """Clips at the codec's rate.

    Attributes:
        source: of the clips, for the manifest.
        tried: clips on which layers are tried.
        held_out: clips that take no part in that.
    """

    source: str
    tried: tuple[Waveform, ...]
    held_out: tuple[Waveform, ...]

    def loud(self) -> tuple[Waveform, ...]:
        """Return the clips on which layers are tried, also as loud as they can be, for the ranges of layers."""
        louder = (clip * np.float32(_PEAK / max(float(np.abs(clip).max()), 1e-3)) for clip in self.tried)
        return (*self.tried, *louder)


def built_in_speech(config: CodecConfig) -> Speech:
    """Return the sample speech that comes with the package, cut in two."""
    rate = config.sample_rate
    tried = round(_TRIED_S * rate)
    clip = speech(tried + round(_HELD_OUT_S * rate), rate)
    return Speech(f"sample speech ({SPEECH_FILE.name})", (clip[:tried],), (clip[tried:],))


def speech_of_folder(folder: Path, config: CodecConfig) -> Speech:
    """Return the speech of a folder: each fourth clip, and at least one, is held out.

    Raises:
        InputNotFoundError: no such folder, or no audio in it.
        ArgumentError: fewer than two clips of at least 0.5 s.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"--calibration {folder}: no such folder; name a folder with speech")
    clips = []
    shortest = round(_SHORTEST_S * config.sample_rate)
    seconds = 0.0
    for file in find_files([str(folder)], audio_suffixes()):
        clip = prepare_waveform(*read_audio(file.path), config.sample_rate)[: round(_MOST_S * config.sample_rate)]
        if len(clip) >= shortest:
            clips.append(clip)
            seconds += len(clip) / config.sample_rate
        if seconds >= 2 * _MOST_S and len(clips) >= _EVERY:
            break
    if len(clips) < 2:
        raise ArgumentError(f"--calibration {folder}: needs at least two clips of {_SHORTEST_S:g} s of speech or more")
    held_out = clips[_EVERY - 1 :: _EVERY] or clips[-1:]
    tried = [clip for clip in clips if not any(clip is other for other in held_out)]
    return Speech(f"{len(clips)} clips of {folder.name}", tuple(tried), tuple(held_out))
