"""Codecs of other sample rates learn from teachers of 16 kHz: the audio is resampled, the frames are aligned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from teachers import RATE, teach_settings  # noqa: E402
from train_runs import QUIET  # noqa: E402

from dmcodec.audio import prepare_waveform  # noqa: E402 - after the packages that they need
from dmcodec.audio_sources import DatasetOptions, find_sources  # noqa: E402
from dmcodec.config import CodecConfig  # noqa: E402
from dmcodec.pretrained.recognisers import load_recogniser  # noqa: E402
from dmcodec.sample import speech  # noqa: E402
from dmcodec.training.config import TrainingConfig  # noqa: E402
from dmcodec.training.data import PreparedData  # noqa: E402
from dmcodec.training.data.prepare import PrepareSettings, prepare  # noqa: E402
from dmcodec.training.fit import fit  # noqa: E402
from dmcodec.training.teach.speech_model import SpeechModel  # noqa: E402
from dmcodec.training.teach.teach import teach  # noqa: E402


def prepared(folder: Path, rate: int) -> Path:
    folder.mkdir()
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", speech(2 * rate, rate)[index * 999 :], rate)
    settings = PrepareSettings(sample_rate=rate, segment_s=1.0, validation=0.3)
    prepare(find_sources([str(folder)], None, DatasetOptions()), folder / "data", settings)
    return folder / "data"


@pytest.mark.parametrize("rate", [24000, 8000, 22050])
def test_features_are_those_of_the_resampled_audio(teacher_models: Path, tmp_path: Path, rate: int) -> None:
    data = prepared(tmp_path / "audio", rate)
    teach(data, teach_settings(teacher_models, asr=str(teacher_models / "whisper")))
    read = PreparedData.open(data)
    assert {kind: info.frame_rate_hz for kind, info in read.teachers.items()} == {"sm": 50.0, "lm": 50.0}
    model = SpeechModel(str(teacher_models / "hubert"), "avg", "cpu", RATE)
    for segment in range(read.num_segments):
        waveform = read.waveform(segment)
        frames = -(-len(waveform) // 320)
        (expected,) = model.features([prepare_waveform(waveform, rate, RATE)])
        features = read.teacher("sm", segment, len(expected), 50.0)
        assert np.abs(features - expected).max() < 2e-3 * np.abs(expected).max()
        for kind in ("sm", "lm"):  # at the codec's own frame rate, to the end but for the teacher's last frame
            assert frames - rate / RATE - 1 <= len(read.teacher(kind, segment, frames, rate / 320)) <= frames


@pytest.mark.parametrize("name", ["ctc", "whisper"])
def test_words_of_resampled_audio_have_the_same_times(teacher_models: Path, name: str) -> None:
    waveform = speech(3 * 24000, 24000)
    (found,) = load_recogniser(str(teacher_models / name), "cpu", 24000).transcribe([waveform])
    recogniser = load_recogniser(str(teacher_models / name), "cpu", RATE)
    (expected,) = recogniser.transcribe([prepare_waveform(waveform, 24000, RATE)])
    assert found == expected
    assert recogniser.transcribe_long(prepare_waveform(waveform, 24000, RATE)) == load_recogniser(
        str(teacher_models / name), "cpu", 24000
    ).transcribe_long(waveform)


def test_a_codec_of_24_khz_trains_with_teachers_of_16_khz(
    teacher_models: Path, training_config: TrainingConfig, tmp_path: Path
) -> None:
    data = prepared(tmp_path / "audio", 24000)
    teach(data, teach_settings(teacher_models))
    codec = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=64, sample_rate=24000)
    config = dataclasses.replace(training_config, codec=codec, steps=1)
    result = fit(PreparedData.open(data), tmp_path / "run", config, QUIET)
    assert result["steps"] == 1
    [sample] = (tmp_path / "run" / "samples").glob("*/original.wav")
    assert soundfile.info(sample).samplerate == 24000
