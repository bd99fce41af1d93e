"""Speech recognition with transformers: CTC models (wav2vec 2.0, HuBERT, ...) and Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dmcodec.audio import Waveform
from dmcodec.errors import ArgumentError

from .ctc import CtcRecogniser
from .loading import TEACHING, Purpose, load, transformers
from .transcription import Transcription
from .whisper import WhisperRecogniser


class Recogniser(Protocol):
    """A speech recogniser with greedy decoding.

    Attributes:
        kind: "CTC" or "Whisper".
        model_id: id on the hub, or local folder.
        weights_id: identifies the weights.
        language: that was set for a multilingual model, or None.
        frame_rate_hz: of its output.
        times: whether it finds the words' times.
        pads: whether waveforms in a batch may differ in length without changing any result.
    """

    kind: str
    model_id: str
    weights_id: str
    language: str | None
    frame_rate_hz: float
    times: bool
    pads: bool

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcription]:
        """Transcribe a batch of waveforms (samples,), of one length unless `pads`."""

    def transcribe_long(self, waveform: Waveform) -> str:
        """Return the text of a waveform (samples,) of any length."""


def model_type(model_id: str, purpose: Purpose) -> str:
    """Return the architecture that the configuration of a recogniser names, such as "whisper"."""
    module = transformers(purpose)
    return str(load(purpose, "recogniser", model_id, module.AutoConfig.from_pretrained).model_type)


def load_recogniser(
    model_id: str,
    device: str,
    sample_rate: int,
    language: str | None = None,
    window_s: float | None = None,
    *,
    times: bool = True,
    purpose: Purpose = TEACHING,
) -> Recogniser:
    """Load a CTC or a Whisper recogniser.

    Args:
        model_id: id on the hub, or local folder.
        device: of torch.
        sample_rate: of the waveforms, in Hz; they are resampled where the model was trained at another one.
        language: of the speech, for multilingual Whisper models; None lets the model detect it, clip by clip.
        window_s: of Whisper; None is its own 30 s, and shorter is faster.
        times: whether the words' times are needed; without them Whisper is faster.
        purpose: decides the class of the errors.

    Raises:
        ArgumentError: an option that the model does not have.
        DmcodecError: of the purpose's class, where the model can't be loaded, or is no recogniser.
    """
    kind = model_type(model_id, purpose)
    if kind == "whisper":
        return WhisperRecogniser(model_id, device, sample_rate, language, window_s, times, purpose)
    if language or window_s:
        raise ArgumentError(f"--language and --asr-window are for Whisper models; {model_id} is a {kind}")
    return CtcRecogniser(model_id, device, sample_rate, purpose)
