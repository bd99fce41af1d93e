"""The models that teach, tiny and untrained: a batch gives what each clip or text gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from teachers import RATE, noises  # noqa: E402

from dmcodec.errors import ArgumentError, TeacherError  # noqa: E402 - after the packages that they need
from dmcodec.pretrained.recognisers import load_recogniser  # noqa: E402
from dmcodec.pretrained.transcription import Word  # noqa: E402
from dmcodec.training.teach.language_model import LanguageModel  # noqa: E402
from dmcodec.training.teach.speech_model import SpeechModel  # noqa: E402


@pytest.mark.parametrize("name", ["hubert", "wavlm", "whisper"])
@pytest.mark.parametrize("layer", ["avg", "last", "1"])
def test_a_batch_of_speech_is_each_alone(teacher_models: Path, name: str, layer: str) -> None:
    model = SpeechModel(str(teacher_models / name), layer, "cpu", RATE)
    assert model.pads == (name == "wavlm")
    assert (model.width, model.frame_rate_hz) == (16, 50.0)
    lengths = [16000, 9000, 12345] if model.pads else [12345, 12345, 12345]
    waveforms = noises(lengths)
    for waveform, found in zip(waveforms, model.features(waveforms), strict=True):
        (alone,) = model.features([waveform])
        assert found.shape == alone.shape
        assert abs(len(alone) - len(waveform) / 320) < 1.5
        assert np.abs(found - alone).max() < 1e-4 * max(1, np.abs(alone).max())


def test_layers_are_what_their_names_say(teacher_models: Path) -> None:
    waveform = noises([16000])
    layers = {
        layer: SpeechModel(str(teacher_models / "hubert"), layer, "cpu", RATE).features(waveform)[0] for layer in "012"
    }
    average = SpeechModel(str(teacher_models / "hubert"), "avg", "cpu", RATE).features(waveform)[0]
    last = SpeechModel(str(teacher_models / "hubert"), "last", "cpu", RATE).features(waveform)[0]
    assert np.allclose(average, np.mean(list(layers.values()), axis=0), atol=1e-5)
    assert np.array_equal(last, layers["2"])
    for wrong in ("3", "first", "-1"):
        with pytest.raises(ArgumentError, match="--sm-layer"):
            SpeechModel(str(teacher_models / "hubert"), wrong, "cpu", RATE)


@pytest.mark.parametrize("name", ["ctc", "ctc-layer", "whisper"])
def test_a_batch_is_transcribed_as_each_alone(teacher_models: Path, name: str) -> None:
    recogniser = load_recogniser(str(teacher_models / name), "cpu", RATE)
    lengths = [16000, 9000, 24000] if recogniser.pads else [16000, 16000, 16000]
    waveforms = noises(lengths)
    for waveform, transcription in zip(waveforms, recogniser.transcribe(waveforms), strict=True):
        (alone,) = recogniser.transcribe([waveform])
        assert alone.num_frames == transcription.num_frames
        assert abs(transcription.num_frames - len(waveform) / 320) < 1.5
        assert alone.text == transcription.text
        assert " ".join(word.text for word in transcription.words) == transcription.text
        duration_s = len(waveform) / RATE
        assert all(0 <= word.start_s <= word.end_s <= duration_s for word in transcription.words)
    assert any(transcription.text for transcription in recogniser.transcribe(waveforms))


def test_a_shorter_window_is_whispers_own_choice(teacher_models: Path) -> None:
    recogniser = load_recogniser(str(teacher_models / "whisper"), "cpu", RATE, None, 2.0)
    recogniser.transcribe(noises([16000]))
    with pytest.raises(TeacherError, match="--asr-window"):
        recogniser.transcribe(noises([48000]))
    with pytest.raises(ArgumentError, match="--asr-window"):
        load_recogniser(str(teacher_models / "whisper"), "cpu", RATE, None, 5.0)
    with pytest.raises(ArgumentError, match="Whisper"):
        load_recogniser(str(teacher_models / "ctc"), "cpu", RATE, "en")
    with pytest.raises(ArgumentError, match="English only"):
        load_recogniser(str(teacher_models / "whisper"), "cpu", RATE, "fr")


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_padded_text_has_a_row_a_frame(teacher_models: Path, name: str) -> None:
    model = LanguageModel(str(teacher_models / name), "avg", "cpu")
    texts, frames = ["seventeen a b c", "", "x y z " * 40], [50, 30, 50]
    found = model.padded(texts, frames)
    assert [each.shape for each in found] == [(count, 12) for count in frames]
    for text, count, each in zip(texts, frames, found, strict=True):
        (alone,) = model.padded([text], [count])
        assert np.abs(each - alone).max() < 1e-5
    with pytest.raises(TeacherError, match="positions"):
        model.padded(["a"], [161])


def test_aligned_text_follows_the_words(teacher_models: Path) -> None:
    model = LanguageModel(str(teacher_models / "bert"), "last", "cpu")
    words = [Word("seventeen", 0.1, 0.3), Word("a", 0.3, 0.304), Word("b", 0.5, 0.6)]
    (rows,) = model.aligned([words], [50], 50.0)
    silent = np.asarray(~rows.any(axis=1))
    assert silent[:5].all()
    assert not silent[5:16].any()
    assert silent[16:25].all()
    assert not silent[25:30].any()
    assert silent[30:].all()
    assert (rows[5:10] == rows[5]).all()  # "seven" and "##teen" share the word's time
    assert (rows[10:15] == rows[10]).all()
    assert not np.array_equal(rows[5], rows[10])
    texts = [words, [Word("z", 0.0, 1.0)], []]
    for each, alone in zip(model.aligned(texts, [50] * 3, 50.0), texts, strict=True):
        assert np.abs(each - model.aligned([alone], [50], 50.0)[0]).max() < 1e-5
