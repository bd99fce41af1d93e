"""`train teach`, with tiny untrained teachers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from teachers import RATE, teach_settings  # noqa: E402

from dmcodec.audio_sources import DatasetOptions, find_sources  # noqa: E402
from dmcodec.errors import ArgumentError, DmcodecError, OutputExistsError, TeacherError, TeacherNotFoundError  # noqa: E402
from dmcodec.pretrained.recognisers import load_recogniser  # noqa: E402
from dmcodec.training.data import PreparedData  # noqa: E402
from dmcodec.training.data.prepare import PrepareSettings, prepare  # noqa: E402
from dmcodec.training.teach.language_model import LanguageModel  # noqa: E402
from dmcodec.training.teach.speech_model import SpeechModel  # noqa: E402
from dmcodec.training.teach.store import check_features  # noqa: E402
from dmcodec.training.teach.teach import teach  # noqa: E402
from dmcodec.training.teach.transcripts import read_transcripts  # noqa: E402
from dmcodec.transcripts import TextSpan  # noqa: E402


def test_teaching_and_reading(teacher_models: Path, untaught: Path) -> None:
    teach(untaught, teach_settings(teacher_models), per_shard=4)
    read = PreparedData.open(untaught)
    model = SpeechModel(str(teacher_models / "hubert"), "avg", "cpu", RATE)
    recogniser = load_recogniser(str(teacher_models / "ctc"), "cpu", RATE)
    language = LanguageModel(str(teacher_models / "bert"), "avg", "cpu")
    assert {kind: info.width for kind, info in read.teachers.items()} == {"sm": 16, "lm": 12}
    assert not read.teachers["lm"].aligned
    for segment in range(read.num_segments):
        (expected,) = model.features([read.waveform(segment)])
        found = read.teacher("sm", segment, 50, 50.0)
        assert np.abs(found - expected[:50]).max() < 2e-3 * np.abs(expected).max()
        (transcription,) = recogniser.transcribe([read.waveform(segment)])
        (expected,) = language.padded([transcription.text], [transcription.num_frames])
        assert np.abs(read.teacher("lm", segment, 50, 50.0) - expected).max() < 2e-3 * np.abs(expected).max()
    assert sorted(path.name for path in (untaught / "teachers" / "sm").iterdir()) == [
        "00000.npy",
        "00001.npy",
        "00002.npy",
        "meta.json",
        "offsets.npy",
    ]
    assert not (untaught / ".teach").exists()


def test_teaching_goes_on_where_it_stopped(
    teacher_models: Path, untaught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    features, transcribe = (
        SpeechModel.features,
        type(load_recogniser(str(teacher_models / "ctc"), "cpu", RATE)).transcribe,
    )

    def counted(of: Any, limit: int) -> Any:
        def run(self: Any, waveforms: Any) -> Any:
            runs.append(len(waveforms))
            if sum(runs) > limit:
                raise KeyboardInterrupt
            return of(self, waveforms)

        return run

    from dmcodec.pretrained.ctc import CtcRecogniser

    for taught, limit, total in ((SpeechModel, 6 + 2, 10), (CtcRecogniser, 4, 10)):
        name, of = ("features", features) if taught is SpeechModel else ("transcribe", transcribe)
        with monkeypatch.context() as patched:
            patched.setattr(taught, name, counted(of, limit))
            patched.setattr("dmcodec.training.teach.transcripts.SEGMENTS_PER_PART", 2)
            with pytest.raises(KeyboardInterrupt):
                teach(untaught, teach_settings(teacher_models, batch_size=1), per_shard=3)
        runs.clear()
        with monkeypatch.context() as patched:
            patched.setattr(taught, name, counted(of, 99))
            patched.setattr("dmcodec.training.teach.transcripts.SEGMENTS_PER_PART", 2)
            teach(
                untaught,
                teach_settings(teacher_models, batch_size=1, **({"lm": None} if taught is SpeechModel else {})),
                per_shard=3,
            )
        assert 0 < sum(runs) < total, taught
        runs.clear()
    PreparedData.open(untaught)
    before = {path: path.stat().st_mtime_ns for path in untaught.rglob("*") if path.is_file()}
    teach(untaught, teach_settings(teacher_models), per_shard=3)
    assert {path: path.stat().st_mtime_ns for path in untaught.rglob("*") if path.is_file()} == before


def test_other_settings_need_force(teacher_models: Path, untaught: Path) -> None:
    teach(untaught, teach_settings(teacher_models), per_shard=4)
    with pytest.raises(OutputExistsError, match="another layer"):
        teach(untaught, teach_settings(teacher_models, sm_layer="1"), per_shard=4)
    with pytest.raises(OutputExistsError, match=r"another .*align"):
        teach(untaught, teach_settings(teacher_models, align=True), per_shard=4)
    with pytest.raises(OutputExistsError, match="recogniser"):
        teach(untaught, teach_settings(teacher_models, sm=None, asr=str(teacher_models / "whisper")), per_shard=4)
    PreparedData.open(untaught)
    teach(untaught, teach_settings(teacher_models, sm=None, align=True, frame_rate_hz=25.0), per_shard=4, force=True)
    info = PreparedData.open(untaught).teachers["lm"]
    assert info.aligned
    assert info.frame_rate_hz == 25.0
    assert len(PreparedData.open(untaught).teacher("lm", 0, 50, 50.0)) == 50


def test_data_changed_after_teaching(teacher_models: Path, untaught_once: Path, untaught: Path) -> None:
    teach(untaught, teach_settings(teacher_models, lm=None), per_shard=4)
    sources = find_sources([str(untaught_once.parent / "0*.wav")], None, DatasetOptions())
    prepare(sources, untaught, PrepareSettings(segment_s=0.5, validation=0.3), force=True)
    with pytest.raises(TeacherError, match="changed after teaching"):
        PreparedData.open(untaught)
    with pytest.raises(OutputExistsError, match="another fingerprint"):
        teach(untaught, teach_settings(teacher_models, lm=None), per_shard=4)
    teach(untaught, teach_settings(teacher_models, lm=None), per_shard=4, force=True)
    PreparedData.open(untaught)


def test_given_transcripts_need_no_recogniser(teacher_models: Path, untaught: Path) -> None:
    texts = {f"{index:02d}": [TextSpan("seventeen a b")] for index in range(4)}
    with pytest.raises(TeacherError, match="2 of 10 segments have no transcript"):
        teach(untaught, teach_settings(teacher_models, sm=None, asr=None), texts)
    timed = texts | {"04": [TextSpan("x y", 0.0, 0.4), TextSpan("z", 0.9, 1.3)]}
    teach(untaught, teach_settings(teacher_models, sm=None, asr=None, align=True), timed)
    transcripts = read_transcripts(untaught / "transcripts.parquet")
    assert transcripts[0].text == "seventeen"  # of 2.5 s, the longest word takes the first
    assert {each.origin for each in transcripts} == {"given"}
    assert [each.text for each in transcripts[8:]] == ["x y", "y z"]
    rows = PreparedData.open(untaught).teacher("lm", 8, 50, 50.0)
    assert rows[:20].any(axis=1).all()
    assert not rows[20:].any()
    teach(untaught, teach_settings(teacher_models, sm=None, align=True), texts, force=True)
    assert {each.origin for each in read_transcripts(untaught / "transcripts.parquet")} == {"given", "recognised"}


def test_features_that_half_precision_cannot_hold() -> None:
    good = np.zeros((3, 2), np.float32)
    check_features(0, good, 2)
    for value, words in ((np.nan, "NaN"), (np.inf, "NaN or inf"), (7e4, "half precision")):
        bad = good.copy()
        bad[1, 1] = value
        with pytest.raises(TeacherError, match=f"segment 7.*{words}"):
            check_features(7, bad, 2)


def test_a_teacher_that_gives_nan(teacher_models: Path, untaught: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = Path(shutil.copytree(teacher_models / "hubert", tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "layers.1" in name and name.endswith("weight"))
    save_file({**weights, name: np.full_like(weights[name], np.nan)}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=r"segment \d+: .*NaN"):
        teach(untaught, teach_settings(teacher_models, sm=str(broken), lm=None))
    assert "sm" not in PreparedData.open(untaught).teachers


def test_a_full_disk_leaves_no_half_teacher(
    teacher_models: Path, untaught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(DmcodecError, match="No space left on device"):
            teach(untaught, teach_settings(teacher_models, lm=None))
    assert not PreparedData.open(untaught).teachers
    teach(untaught, teach_settings(teacher_models, lm=None))
    assert set(PreparedData.open(untaught).teachers) == {"sm"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sm": "/no/such/model"}, "/no/such/model"),
        ({"sm": "bert"}, "feature extractor"),
        ({"sm": None, "asr": "hubert"}, "no weights"),
        ({"sm": None, "lm": "hubert"}, "tokenizer"),
    ],
)
def test_models_of_the_wrong_kind(
    teacher_models: Path, untaught: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {
        key: str(teacher_models / value) if value and "/" not in value else value for key, value in changes.items()
    }
    with pytest.raises((TeacherError, TeacherNotFoundError), match=words) as caught:
        teach(untaught, teach_settings(teacher_models, **named))
    assert "\n" not in str(caught.value)


def test_wrong_calls(teacher_models: Path, untaught: Path) -> None:
    for changes in ({"sm": None, "lm": None}, {"batch_size": 0}, {"frame_rate_hz": 0.0}):
        with pytest.raises(ArgumentError):
            teach_settings(teacher_models, **changes)
    with pytest.raises(ArgumentError, match="--device"):
        teach(untaught, teach_settings(teacher_models, device="moon"))


def test_the_command(teacher_models: Path, untaught: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dmcodec", "train", "teach"]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        call = [*command, *map(str, arguments)]
        return subprocess.run(call, capture_output=True, text=True, timeout=120, env=environment)

    options = (
        "--sm",
        teacher_models / "whisper",
        "--lm",
        teacher_models / "bert",
        "--asr",
        teacher_models / "whisper",
        "--align",
        "--json",
    )
    done = run(untaught, *options, "--device", "cpu", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
    assert json.loads(done.stdout)["lm"]["aligned"] is True
    assert set(PreparedData.open(untaught).teachers) == {"sm", "lm"}
    for exit_code, words, arguments in (
        (2, "name a teacher", (untaught,)),
        (1, "no such data folder", (tmp_path / "none", "--sm", teacher_models / "hubert")),
    ):
        done = run(*arguments)
        assert done.returncode == exit_code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("error: ") == 1
