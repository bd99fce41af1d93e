"""`dmcodec evaluate`: columns of bundles, checkpoints and folders, their figures, and every failure with its reason."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run_evaluation
from dmcodec.benchmarks.evaluate.columns import Clip
from dmcodec.benchmarks.evaluate.result_tables import codebook_table, evaluation_tables, failure_table, quality_table
from dmcodec.benchmarks.evaluate.run import chosen_for_listening
from dmcodec.benchmarks.evaluate.signal_metrics import measure, si_sdr_db
from dmcodec.errors import ArgumentError, DmcodecError, EvaluationError, InputNotFoundError
from dmcodec.runtime import Codec
from dmcodec.sample import speech

# Where a package of the `evaluate` extra is missing, nothing here can be measured.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("pystoi", "pesq", "visqol", "jiwer", "scipy")
]

RATE = 16000
CHEAP = ("si-sdr", "mel")


class FakeRecogniser:
    """Hears five words, one of them wrong where there is noise."""

    description = "fake 1.0"

    def transcribe(self, waveform: Waveform) -> str:
        return "Red, green blue black white." if np.abs(waveform[:50]).max() < 0.05 else "red green blue black grey"


class FakeSpeaker:
    """Voices are told by their sign."""

    description = "fake voice 1.0"

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        return np.array([1.0, float(np.sign(waveform[20]))])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Originals a, b, c; "noisy" has them at 48 kHz stereo with noise, "partial" lacks one and has a silent one."""
    root = tmp_path_factory.mktemp("evaluate")
    for name in ("original/sub", "noisy/sub", "partial/sub"):
        (root / name).mkdir(parents=True)
    talk = speech(5 * RATE, RATE)
    random = np.random.default_rng(0)
    for index, name in enumerate(("a", "b", "sub/c")):
        wave = talk[index * RATE :][:RATE].copy()
        wave[:50] = 0.01
        soundfile.write(root / f"original/{name}.wav", wave, RATE)
        noisy = np.repeat(wave + 0.02 * random.standard_normal(RATE), 3)
        noisy[:150] = 0.5 if index else 0.01
        noisy = noisy[: 3 * 8000] if index == 1 else noisy
        soundfile.write(root / f"noisy/{name}.flac", np.stack([noisy, noisy], axis=1), 48000)
    soundfile.write(root / "partial/a.wav", talk[:RATE] * 0.9 + 0.001, RATE)
    soundfile.write(root / "partial/b.wav", np.zeros(RATE), RATE)
    return root


@pytest.fixture(scope="module")
def full(folders: Path, tiny_bundle: Path, tiny_model_files: tuple[Path, Path]) -> Evaluation:
    """One evaluation with all that there is."""
    checkpoint, config = tiny_model_files
    (folders / "texts.tsv").write_text("a.wav\tred green blue black white\nsub/c\tRed green blue.\n")
    options = EvaluateOptions(
        reference=folders / "original",
        codecs=(Named(tiny_bundle, "onnx"), Named(checkpoint, "torch")),
        config=config,
        against=(Named(folders / "noisy"), Named(folders / "partial", "<partial>")),
        n_q=(8, 2),
        metrics=("stoi", *CHEAP, "speaker", "wer", "wil"),
        recogniser="fake",
        transcripts=folders / "texts.tsv",
        allow_missing=True,
        report_clips=2,
        threads=1,
    )
    return run_evaluation(options, recogniser=FakeRecogniser(), speaker=FakeSpeaker())


def column(evaluation: Evaluation, name: str) -> Any:
    return next(found for found in evaluation.result.columns if found.column.name == name)


def test_each_codec_has_a_column_for_each_number_of_levels(full: Evaluation) -> None:
    names = [found.column.name for found in full.result.columns]
    assert names == ["onnx, n_q 8", "onnx, n_q 2", "torch, n_q 8", "torch, n_q 2", "noisy", "<partial>"]
    assert [found.column.bitrate_bps for found in full.result.columns] == [2400, 600, 2400, 600, None, None]
    assert [found.column.n_q for found in full.result.columns] == [8, 2, 8, 2, None, None]


def test_a_bundle_and_its_checkpoint_agree(full: Evaluation, folders: Path, tiny_bundle: Path) -> None:
    for levels in (8, 2):
        onnx, torch = column(full, f"onnx, n_q {levels}"), column(full, f"torch, n_q {levels}")
        assert onnx.codebooks == torch.codebooks
        for key in CHEAP:
            assert onnx.summary[key].value == pytest.approx(torch.summary[key].value, abs=1e-3)
    codec = Codec.load(tiny_bundle, threads=1)
    wave = soundfile.read(folders / "original/a.wav", dtype="float32")[0]
    tokens = codec.encode(wave, RATE)
    expected = si_sdr_db(wave, codec.decode(tokens, n_q=2))
    assert column(full, "onnx, n_q 2").clips["a"].values["si-sdr"] == pytest.approx(expected, abs=1e-3)


def test_codebook_use_counts_all_files(full: Evaluation, folders: Path, tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    waves = [soundfile.read(folders / f"original/{name}.wav", dtype="float32")[0] for name in ("a", "b", "sub/c")]
    codes = np.concatenate([codec.encode(wave, RATE).codes for wave in waves], axis=1)
    use = column(full, "onnx, n_q 8").codebooks
    assert (use.files, use.frames, len(use.levels)) == (3, 150, 8)
    for level, row in zip(use.levels, codes, strict=True):
        assert (level.used, level.dead) == (len(set(row)), 64 - len(set(row)))
        shares = np.bincount(row) / 150
        assert level.perplexity == pytest.approx(np.prod([share**-share for share in shares if share]))
        assert level.low <= level.perplexity <= level.high
    assert len(column(full, "onnx, n_q 2").codebooks.levels) == 2
    assert column(full, "noisy").codebooks is None


def test_folders_are_resampled_and_cut_to_the_common_length(full: Evaluation, folders: Path) -> None:
    noisy = column(full, "noisy")
    assert [noisy.clips[name].length_difference_s for name in ("a", "b", "sub/c")] == [0, -0.5, 0]
    assert any(
        remark.startswith("noisy: 1 file whose length differs") and "(b)" in remark for remark in full.result.remarks
    )
    assert set(noisy.clips["b"].values) >= {"si-sdr", "mel"}
    assert 0 < noisy.clips["a"].values["si-sdr"] < 25


def test_failures_are_counted_and_have_reasons(full: Evaluation) -> None:
    partial = column(full, "<partial>")
    assert (partial.summary["si-sdr"].files, partial.summary["si-sdr"].failed) == (1, 2)
    assert partial.summary["si-sdr"].low is None
    assert partial.clips["sub/c"].failures["stoi"] == "no file of this name"
    assert "minus infinity" in partial.clips["b"].failures["si-sdr"]
    assert partial.clips["b"].values["mel"] > 1
    rows = failure_table(full.result).rows
    assert ("<partial>", "all", "1", "no file of this name", "sub/c") in rows  # one row for all metrics
    cells = dict(zip(quality_table(full.result).columns, quality_table(full.result).rows[-1], strict=True))
    assert cells["SI-SDR, dB\n↑"].endswith("\nn = 1")
    for found in full.result.columns:
        for score in found.clips.values():
            assert set(score.values) | set(score.failures) == set(full.result.metrics)
            assert not set(score.values) & set(score.failures)


def test_word_errors_are_of_the_whole_corpus(full: Evaluation) -> None:
    original, noisy = full.result.original, column(full, "noisy")
    assert original is not None
    # a: 5 of 5 words; sub/c: 3 words and 2 too many; b has no transcript
    assert original.summary["wer"].value == pytest.approx(100 * 2 / 8)
    assert original.summary["wil"].value == pytest.approx(100 * (1 - 8 / 8 * 8 / 10))
    assert original.summary["wer"].failed == 1
    assert original.clips["b"].failures["wer"] == "no reference text for it"
    assert noisy.clips["sub/c"].text == "red green blue black grey"
    assert noisy.summary["wer"].value == pytest.approx(100 * 2 / 8)
    assert 0 <= noisy.summary["wer"].low <= noisy.summary["wer"].value <= noisy.summary["wer"].high
    definition = full.result.to_dict()["metrics"]["wer"]["definition"]
    assert all(part in definition for part in ("fake 1.0", "the transcripts", "jiwer 4", "English normaliser"))


def test_without_transcripts_the_recogniser_s_own_text_is_the_reference(folders: Path) -> None:
    options = EvaluateOptions(
        folders / "original", against=(Named(folders / "noisy"),), metrics=("wer",), recogniser="fake"
    )
    result = run_evaluation(options, recogniser=FakeRecogniser()).result
    assert result.original is None
    assert result.reference_texts["a"] == "Red, green blue black white."
    assert result.columns[0].clips["sub/c"].values["wer"] == pytest.approx(20)
    assert result.columns[0].summary["wer"].value == pytest.approx(100 * 2 / 15)
    assert any("recogniser's own text" in remark for remark in result.remarks)


def test_speaker_similarity_is_the_cosine(full: Evaluation) -> None:
    assert column(full, "noisy").clips["a"].values["speaker"] == pytest.approx(1)
    assert full.result.definitions["speaker"].endswith("fake voice 1.0")


def test_the_audio_that_is_kept(full: Evaluation) -> None:
    assert list(full.audio) == ["a", "b"]
    assert next(iter(full.audio["b"])) == "original"
    assert len(full.audio["b"]["noisy"]) == RATE // 2
    clips = [Clip(str(number), Path()) for number in range(10)]
    assert chosen_for_listening(clips, 3) == ("0", "3", "6")
    assert chosen_for_listening(clips, 99) == tuple(clip.name for clip in clips)


def test_the_result_is_json_and_tables(full: Evaluation) -> None:
    values = json.loads(json.dumps(full.result.to_dict(), allow_nan=False))
    assert values["columns"][0]["summary"]["si-sdr"]["files"] == 3
    assert values["columns"][0]["codebooks"]["levels"][0]["entries"] == 64
    assert [table.title.split()[0] for table in evaluation_tables(full.result)] == [
        "Quality", "Metrics", "Codebook", "Failures",
    ]  # fmt: skip
    assert len(codebook_table(full.result).rows) == 2 * (8 + 2)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"against": ()}, ArgumentError, "nothing to evaluate"),
        ({"metrics": ("mos",)}, ArgumentError, "'mos' is not known"),
        ({"metrics": ("wer",)}, ArgumentError, "need a recogniser"),
        ({"transcripts": Path("x.tsv")}, ArgumentError, "belongs to wer"),
        ({"recogniser": "x", "metrics": ("mel",)}, ArgumentError, "--asr belongs"),
        ({"n_q": (4,)}, ArgumentError, "--n-q belongs to a codec"),
        ({"jobs": 0}, ArgumentError, "jobs must be at least 1"),
        ({"limit": 0}, ArgumentError, "limit must be"),
        ({"normaliser": "x"}, ArgumentError, "normaliser 'x'"),
        ({"config": Path("c.json")}, ArgumentError, "--config belongs"),
        ({"against": (Named(Path("noisy")), Named(Path("other/noisy")))}, ArgumentError, "called 'noisy'"),
        ({"against": (Named(Path("x"), "original"),)}, ArgumentError, "can't be called 'original'"),
        ({"reference": Path("nowhere")}, InputNotFoundError, "nowhere: no such folder"),
    ],
)
def test_wrong_calls(folders: Path, changes: dict[str, Any], error: type[DmcodecError], reason: str) -> None:
    base = {"reference": folders / "original", "against": (Named(folders / "noisy"),)}
    with pytest.raises(error, match=reason):
        run_evaluation(EvaluateOptions(**{**base, **changes}))


def test_more_levels_than_the_codec_has(folders: Path, tiny_bundle: Path) -> None:
    with pytest.raises(ArgumentError, match="--n-q 9: tiny has 8 levels"):
        run_evaluation(EvaluateOptions(folders / "original", codecs=(Named(tiny_bundle, "tiny"),), n_q=(9,)))


def test_a_folder_with_the_name_of_a_swept_column(folders: Path, tiny_bundle: Path) -> None:
    against = (Named(folders / "noisy", "tiny, n_q 2"),)
    codecs = (Named(tiny_bundle, "tiny"),)
    with pytest.raises(ArgumentError, match="two columns would be called 'tiny, n_q 2'"):
        run_evaluation(EvaluateOptions(folders / "original", codecs=codecs, against=against, n_q=(2, 4)))


def test_names_of_columns(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert Named.parse(str(odd)) == Named(odd)
    assert Named.parse("EnCodec=x/y") == Named(Path("x/y"), "EnCodec")
    assert Named.parse("weights.v2.pt").title == "weights.v2"
    with pytest.raises(ArgumentError):
        Named.parse("=x")


def test_nothing_measured_is_an_error(tmp_path: Path) -> None:
    for name in ("original", "codec"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"RIFF, not really")
    with pytest.raises(EvaluationError, match=r"nothing could be measured .*can't be read"):
        run_evaluation(EvaluateOptions(tmp_path / "original", against=(Named(tmp_path / "codec"),), metrics=("mel",)))


def test_command_line(folders: Path) -> None:
    command = [sys.executable, "-c", "from dmcodec.cli import main; main()"]
    arguments = ["evaluate", "--reference", str(folders / "original"), "--metrics", "mel,si-sdr", "--jobs", "1"]
    found = subprocess.run(
        [*command, *arguments, "--against", f"Noise={folders / 'noisy'}", "--json"], capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")
    values = json.loads(found.stdout)
    assert values["columns"][0]["column"]["name"] == "Noise"
    assert values["metrics"]["mel"]["higher_is_better"] is False
    wrong = subprocess.run(
        [*command, *arguments, "--against", str(folders / "partial")], capture_output=True, text=True
    )
    assert wrong.returncode == 1
    assert wrong.stderr == (
        f"error: {folders / 'partial'}: 1 of 3 reference files have no counterpart here: sub/c; add them, or use "
        "--allow-missing\n"
    )


# figures of the published samples, measured with pesq 0.0.4 and pystoi 0.4.1
SAMPLES = {
    "DM-Codec": {"stoi": 0.9116, "pesq": 3.175, "si-sdr": 9.3, "mel": 0.316},
    "EnCodec": {"stoi": 0.8873, "pesq": 2.829, "si-sdr": 5.2, "mel": 0.431},
    "SpeechTokenizer": {"stoi": 0.8646, "pesq": 2.706, "si-sdr": 7.0, "mel": 0.423},
    "FACodec": {"stoi": 0.8473, "pesq": 1.924, "si-sdr": -0.5, "mel": 0.447},
}


def test_published_samples(shared: Path) -> None:
    folder = shared / "speech/codec_samples"
    original = soundfile.read(folder / "Original_sample_118.flac", dtype="float32")[0]
    found = {}
    for codec, expected in SAMPLES.items():
        wave = soundfile.read(folder / f"{codec}_sample_118.flac", dtype="float32")[0]
        found[codec], reasons = measure(tuple(expected), original[: len(wave)], wave[: len(original)])
        assert not reasons
        assert found[codec]["stoi"] == pytest.approx(expected["stoi"], abs=0.002)
        assert found[codec]["pesq"] == pytest.approx(expected["pesq"], abs=0.02)
        assert found[codec]["si-sdr"] == pytest.approx(expected["si-sdr"], abs=0.06)
        assert found[codec]["mel"] == pytest.approx(expected["mel"], abs=0.002)
    for key in ("stoi", "pesq"):  # as listed: best first
        assert sorted(found, key=lambda codec: -found[codec][key]) == list(SAMPLES)


# pretrained models, tiny and untrained
