"""Formats of the audio on the listening page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

import soundfile

from dmcodec.audio import Waveform, to_pcm16
from dmcodec.errors import MissingDependencyError

from .signal_metrics import SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Sound:
    """One format, as libsndfile names it, and what the page tells of it."""

    format: str
    subtype: str
    media_type: str
    described: str

    def encode(self, waveform: Waveform) -> bytes:
        """Return a waveform (samples,) float32 at 16 kHz as a file of this format."""
        buffer = io.BytesIO()
        soundfile.write(buffer, to_pcm16(waveform), SAMPLE_RATE, subtype=self.subtype, format=self.format)
        return buffer.getvalue()

    def require(self) -> None:
        """Raise MissingDependencyError where the installed libsndfile can't write the format."""
        if self.format not in soundfile.available_formats():
            raise MissingDependencyError(
                f"libsndfile {soundfile.__libsndfile_version__} can't write {self.format}; "
                "run `pip install --upgrade soundfile`, or take --report-audio wav"
            )


SOUNDS: Mapping[str, Sound] = {
    # Not FLAC: Chromium fails to seek into its last block, which is a third of a second long.
    "wav": Sound("WAV", "PCM_16", "audio/wav", "16-bit WAV"),
    "mp3": Sound("MP3", "MPEG_LAYER_III", "audio/mpeg", "MP3 of about 40 kbit/s, which has losses of its own"),
}
