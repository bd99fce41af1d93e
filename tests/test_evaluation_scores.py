"""The further scores of `dmcodec evaluate` (ESTOI, PESQ-NB, MCD, F0, DNSMOS, UTMOS), and files for other suites."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run_evaluation
from dmcodec.benchmarks.evaluate.exchange import codec_superb, versa_candidates, versa_lines, versa_paths
from dmcodec.benchmarks.evaluate.metrics import METRICS, NO_REFERENCE, require_packages
from dmcodec.benchmarks.evaluate.pitch import compare_pitch
from dmcodec.benchmarks.evaluate.result_tables import evaluation_tables, markdown_page, quality_table
from dmcodec.benchmarks.evaluate.signal_metrics import GROUPS, measure
from dmcodec.benchmarks.evaluate.spectra import log_mel, mel_cepstral_distortion_db
from dmcodec.benchmarks.evaluate.utmos import UtmosModel
from dmcodec.cli import main
from dmcodec.errors import ArgumentError, EvaluationError, InputNotFoundError, MetricError, PretrainedModelError
from dmcodec.sample import speech

# Where a package of the `evaluate` extra is missing, nothing here can be measured.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("pystoi", "pesq", "scipy", "librosa", "speechmos", "rapidfuzz", "torch")
]

RATE = 16000
DNSMOS = ("dnsmos", "dnsmos-sig", "dnsmos-bak", "dnsmos-p808")
PITCH = ("f0-corr", "f0-rmse", "vuv")


def noisy(wave: Waveform, scale: float) -> Waveform:
    return (wave + scale * np.random.default_rng(0).standard_normal(len(wave))).astype(np.float32)


def tone(f0_hz: NDArray[np.float64] | float, seconds: float = 1.0) -> Waveform:
    """A harmonic sound of this F0, which may vary: (samples,)."""
    samples = round(seconds * RATE)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0_hz, samples)) / RATE
    return (0.1 * sum(np.sin(k * phase) / k for k in range(1, 9))).astype(np.float32)


# signal metrics


def test_every_metric_has_a_group_or_a_model() -> None:
    grouped = [key for group in GROUPS for key in group]
    assert len(set(grouped)) == len(grouped)
    assert set(METRICS) - set(grouped) == {"speaker", "wer", "wil", "utmos"}
    assert set(NO_REFERENCE) == {*DNSMOS, "utmos"}


def test_good_speech_scores_better_than_bad_speech() -> None:
    wave = speech(2 * RATE, RATE)
    keys = ("estoi", "pesq-nb", "mcd", "superb-mel", "superb-stft", "superb-waveform")
    (good, none), (bad, still_none) = (measure(keys, wave, noisy(wave, scale)) for scale in (0.0005, 0.05))
    assert (none, still_none) == ({}, {})
    for key in keys:
        assert (good[key] > bad[key]) == METRICS[key].higher_is_better, key


def test_narrowband_pesq_is_that_of_the_package_at_8_khz() -> None:
    import pesq

    wave, other = speech(2 * RATE, RATE), noisy(speech(2 * RATE, RATE), 0.01)
    expected = pesq.pesq(8000, *(soxr.resample(each, RATE, 8000) for each in (wave, other)), "nb")
    assert measure(("pesq-nb",), wave, other)[0]["pesq-nb"] == pytest.approx(expected, abs=0.02)
    assert measure(("pesq-nb",), wave, wave)[0]["pesq-nb"] == pytest.approx(4.549, abs=1e-3)  # the most of P.862.1


def test_extended_stoi_is_that_of_the_package() -> None:
    from pystoi import stoi

    wave, other = speech(2 * RATE, RATE), noisy(speech(2 * RATE, RATE), 0.02)
    found = measure(("stoi", "estoi"), wave, other)[0]
    assert found["estoi"] == pytest.approx(stoi(wave, other, RATE, extended=True), abs=1e-4)
    assert found["estoi"] < found["stoi"]


def test_si_snr_is_si_sdr_of_zero_mean_signals() -> None:
    wave, other = speech(RATE, RATE), noisy(speech(RATE, RATE), 0.02) + np.float32(0.1)
    found = measure(("si-sdr", "si-snr"), wave, other)[0]
    assert found["si-snr"] == found["si-sdr"]


def test_mel_cepstral_distortion_by_its_sum() -> None:
    wave, other = speech(4000, RATE), noisy(speech(4000, RATE), 0.01)
    difference = log_mel(wave, RATE) - log_mel(other, RATE)
    bands = np.arange(80) + 0.5
    cepstra = [2 / 80 * (difference.T @ np.cos(np.pi * m * bands / 80)) for m in range(1, 25)]
    expected = np.mean(10 / math.log(10) * np.sqrt(2 * np.square(cepstra).sum(axis=0)))
    assert mel_cepstral_distortion_db(wave, other, RATE) == pytest.approx(expected)
    # a gain moves c_0 only
    random = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    assert mel_cepstral_distortion_db(random, 2 * random, RATE) == pytest.approx(0, abs=1e-4)


def test_codec_superb_s_distances_by_torch() -> None:
    import librosa
    import torch

    wave, other = (torch.from_numpy(each).double() for each in (speech(5000, RATE), noisy(speech(5000, RATE), 0.01)))
    stft = mel = 0.0
    for window, mels in ((2048, 150), (512, 80)):
        hann = torch.hann_window(window, dtype=torch.float64)
        spectra = [
            torch.stft(each, window, window // 4, window=hann, center=True, return_complex=True).abs()
            for each in (wave, other)
        ]
        filters = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=window, n_mels=mels)).double()
        for name, pair in (("stft", spectra), ("mel", [filters @ each for each in spectra])):
            logs = [each.clamp(1e-5).pow(2).log10() for each in pair]
            distance = ((logs[0] - logs[1]).abs().mean() + (pair[0] - pair[1]).abs().mean()).item()
            stft, mel = (stft + distance, mel) if name == "stft" else (stft, mel + distance)
    found = measure(("superb-mel", "superb-stft", "superb-waveform"), wave.float().numpy(), other.float().numpy())[0]
    assert found == pytest.approx(
        {"superb-mel": mel, "superb-stft": stft, "superb-waveform": (wave - other).abs().mean().item()}, rel=1e-5
    )


def test_pitch_of_tones() -> None:
    rising = np.linspace(100, 200, RATE)
    same = compare_pitch(tone(rising), tone(rising * 1.1), RATE)
    assert same["f0-corr"] > 0.99
    assert same["f0-rmse"] == pytest.approx(15, abs=1.5)  # a tenth of 100 to 200 Hz
    falling = compare_pitch(tone(rising), tone(rising[::-1].copy()), RATE)
    assert falling["f0-corr"] < -0.95


def test_voicing_errors_and_pitches_that_do_not_vary() -> None:
    half = tone(120.0)
    half[RATE // 2 :] = 0
    found = compare_pitch(tone(120.0), half, RATE)
    assert found["vuv"] == pytest.approx(50, abs=6)
    assert found["f0-rmse"] < 1
    values, reasons = measure(PITCH, half, np.zeros(RATE, np.float32))
    assert set(values) == {"vuv"}
    assert reasons["f0-corr"] == "fewer than 10 frames are voiced in both clips"


def test_dnsmos_is_that_of_the_package() -> None:
    from speechmos import dnsmos

    wave = speech(9 * RATE + 200, RATE)  # one window of 9.01 s
    wave /= np.abs(wave).max()
    expected = dnsmos.run(wave, sr=RATE)
    found, reasons = measure(DNSMOS, wave, wave)
    assert not reasons
    assert found == pytest.approx(
        {
            "dnsmos": expected["ovrl_mos"],
            "dnsmos-sig": expected["sig_mos"],
            "dnsmos-bak": expected["bak_mos"],
            "dnsmos-p808": expected["p808_mos"],
        }
    )
    # speechmos itself refuses samples beyond 1
    assert measure(DNSMOS, wave, 4 * wave)[0] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "samples", "reason"),
    [
        (("mcd",), 1000, "shorter than one window of 1024 samples"),
        (("superb-mel", "superb-stft"), 2000, "shorter than one window of 2048 samples"),
        (PITCH, 2000, "shorter than 0.128 s, too short for F0"),
        (DNSMOS, 15999, "shorter than 1 s, too short for DNSMOS"),
        (("pesq-nb",), 3000, "shorter than 0.25 s, too short for PESQ"),
        (("estoi",), 3000, "less than 0.4 s of speech, too little for STOI"),
    ],
)
def test_clips_that_are_too_short(keys: tuple[str, ...], samples: int, reason: str) -> None:
    wave = speech(samples, RATE)
    assert measure(keys, wave, wave) == ({}, dict.fromkeys(keys, reason))


def test_silence() -> None:
    wave, silence = speech(2 * RATE, RATE), np.zeros(2 * RATE, np.float32)
    assert measure(DNSMOS, wave, silence)[1] == dict.fromkeys(DNSMOS, "the clip is silent: DNSMOS has no meaning")
    keys = ("estoi", "pesq-nb", "si-snr", *PITCH)
    assert measure(keys, silence, wave)[1] == dict.fromkeys(keys, "the original is silent")


def test_a_package_that_speechmos_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match=r'needs requests, .*"dmcodec\[evaluate\]"'):
        require_packages(("dnsmos",))
    require_packages(("mcd",))


def test_definitions_have_packages_and_versions() -> None:
    assert "speechmos 0.0.1.1" in METRICS["dnsmos"].described()
    assert "librosa " in METRICS["f0-corr"].described()


# UTMOS


@pytest.fixture(scope="module")
def utmos_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript module whose score is 1 plus a hundred times the mean square."""
    import torch

    class Score(torch.nn.Module):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return 1 + 100 * waveform.square().mean(-1).flatten()

    path = tmp_path_factory.mktemp("utmos") / "utmos_scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Score(), torch.zeros(1, 1, 100)).save(str(path))
    return path


def test_a_utmos_file_is_run(utmos_file: Path) -> None:
    model = UtmosModel(utmos_file)
    assert model.score(np.full(2000, 0.1, np.float32)) == pytest.approx(2)
    assert "utmos_scripted.pt, sha256 " in model.description
    with pytest.raises(MetricError, match=r"shorter than 0\.1 s"):
        model.score(np.ones(1599, np.float32))
    with pytest.raises(MetricError, match="silent"):
        model.score(np.zeros(1600, np.float32))


def test_files_that_are_no_utmos(utmos_file: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(InputNotFoundError, match=r"none\.pt: no such file of UTMOS; take utmos_scripted\.pt"):
        UtmosModel(tmp_path / "none.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(PretrainedModelError, match=r"state\.pt: not a TorchScript file"):
        UtmosModel(tmp_path / "state.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 1, 100)).save(str(tmp_path / "same.pt"))
    with pytest.raises(PretrainedModelError, match=r"same\.pt: does not give one score"):
        UtmosModel(tmp_path / "same.pt")


# a whole evaluation


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scores")
    for name in ("original", "noisy"):
        (root / name).mkdir()
    for name, seconds in (("a", 9.1), ("b", 0.9)):  # one window of DNSMOS, and too short for it
        wave = speech(round(seconds * RATE), RATE)
        soundfile.write(root / "original" / f"{name}.wav", wave, RATE)
        soundfile.write(root / "noisy" / f"{name}.wav", noisy(wave, 0.01), RATE)
    soundfile.write(root / "original" / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "noisy" / "silent.wav", np.zeros(RATE), RATE)
    return root


@pytest.fixture(scope="module")
def full(folders: Path, tiny_bundle: Path, utmos_file: Path) -> Evaluation:
    options = EvaluateOptions(
        folders / "original",
        codecs=(Named(tiny_bundle, "tiny"),),
        against=(Named(folders / "noisy", "noisy, 2"),),
        metrics=("si-sdr", "utmos", "dnsmos", "dnsmos-bak", "stability"),
        utmos=utmos_file,
        superb=True,
        stability_files=2,
        stability_rounds=(1,),
        threads=1,
    )
    return run_evaluation(options)


def test_the_originals_have_the_metrics_without_a_reference(full: Evaluation) -> None:
    original = full.result.original
    assert original is not None
    assert set(original.summary) == {"utmos", "dnsmos", "dnsmos-bak"}
    assert (original.summary["utmos"].files, original.summary["utmos"].failed) == (2, 1)
    assert original.clips["silent"].failures["utmos"] == "the clip is silent: UTMOS has no meaning"
    assert original.clips["b"].failures["dnsmos"] == "shorter than 1 s, too short for DNSMOS"
    noise = full.result.columns[1].clips["a"]
    for key in ("dnsmos", "dnsmos-bak"):
        assert original.clips["a"].values[key] > noise.values[key] + 0.2
    assert quality_table(full.result).rows[0][0] == "original"
    assert "torch" in full.result.definitions["utmos"]


def test_stability_stands_beside_the_metrics(full: Evaluation) -> None:
    tiny, noise = full.result.columns
    assert tiny.stability is not None
    assert (tiny.stability.files, list(tiny.stability.skipped)) == (("a", "b"), [])
    assert tiny.stability.rounds[0].agreement.levels == (1.0,) * 8
    assert noise.stability is None
    assert "noisy, 2 has no token stability: it is a folder of audio, which has no codes." in full.result.remarks
    titles = [table.title.split(":")[0] for table in evaluation_tables(full.result)]
    assert titles[1:4] == ["Token stability", "Re-encoding", "Changes of the input"]
    values = json.loads(json.dumps(full.result.to_dict(), allow_nan=False))
    assert values["columns"][0]["stability"]["changes"][0]["key"] == "slice-0.2s"
    assert values["columns"][1]["stability"] is None


def test_stability_alone_reads_its_clips_only(folders: Path, tiny_bundle: Path) -> None:
    options = EvaluateOptions(
        folders / "original", codecs=(Named(tiny_bundle),), metrics=("stability",), stability_files=1,
        stability_rounds=(1,), threads=1,
    )  # fmt: skip
    result = run_evaluation(options).result
    assert list(result.clips) == ["a"]
    assert evaluation_tables(result)[0].title.startswith("Token stability")
    silent = folders / "only silence"
    silent.mkdir()
    soundfile.write(silent / "s.wav", np.zeros(RATE), RATE)
    with pytest.raises(EvaluationError, match=r"nothing could be measured \(the clip is silent"):
        run_evaluation(EvaluateOptions(silent, codecs=(Named(tiny_bundle),), metrics=("stability",), threads=1))


def test_markdown_has_all_tables(full: Evaluation) -> None:
    text = markdown_page(full.result)
    assert text.startswith("# dmcodec evaluate\n\n- reference: ")
    for table in evaluation_tables(full.result):
        assert f"## {table.title}\n\n| {table.columns[0]} |" in text
        for line in text.split(f"## {table.title}\n\n")[1].split("\n\n")[0].splitlines():
            assert line.replace("\\|", "").count("|") == len(table.columns) + 1


def test_versa_has_a_line_for_each_clip(full: Evaluation, tmp_path: Path) -> None:
    files = versa_paths(tmp_path / "s.jsonl", full.result)
    assert [path.name for path in files] == ["s.tiny.jsonl", "s.noisy_2.jsonl"]
    [tiny, _] = files.values()
    lines = [json.loads(line) for line in versa_lines(tiny, full.result).splitlines()]
    assert [line["key"] for line in lines] == ["a", "b", "silent"]
    assert lines[0]["si_snr"] == tiny.clips["a"].values["si-sdr"]
    assert {"key", "pesq", "stoi", "si_snr", "dns_overall", "utmos"} <= set(lines[0])
    assert "dns_overall" not in lines[1]
    assert "stoi" not in lines[2]  # a metric without a value has no key
    assert versa_candidates(tmp_path / "s.jsonl") == []
    (tmp_path / "s.other.jsonl").touch()
    assert versa_candidates(tmp_path / "s.jsonl") == [tmp_path / "s.other.jsonl"]


def test_codec_superb_s_file_has_means_by_category(full: Evaluation) -> None:
    values = json.loads(codec_superb(full.result))
    assert set(values) == {"tiny", "noisy, 2"}
    assert set(values["noisy, 2"]) == {"Speech", "overall"}
    found = values["noisy, 2"]["overall"]
    assert set(found) == {"mel", "stft", "waveform", "pesq", "pesq-wb", "stoi", "f0corr"}
    assert found["pesq"] == full.result.columns[1].summary["pesq"].value
    assert found["waveform"] == pytest.approx(0.008 * 2 / 3, rel=0.05)  # mean |noise|, and 0 for the silent clip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": ("stability",), "codecs": ()}, "stability compares codes, and a folder of audio"),
        ({"stability_files": 3}, "--stability-files belongs to stability"),
        ({"stability_rounds": (3,)}, "--stability-rounds belongs to stability"),
        ({"metrics": ("stability",), "stability_rounds": (0,)}, "--stability-rounds must be"),
        ({"metrics": ("utmos",)}, "utmos needs its model"),
        ({"metrics": ("mel",), "utmos": Path("x.pt")}, "--utmos belongs to utmos"),
    ],
)
def test_wrong_calls(changes: dict[str, Any], reason: str) -> None:
    base: dict[str, Any] = {"reference": Path("x"), "codecs": (Named(Path("c")),), "against": (Named(Path("f")),)}
    with pytest.raises(ArgumentError, match=reason):
        run_evaluation(EvaluateOptions(**{**base, **changes}))


def test_command_line(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*more: object) -> tuple[int, str, str]:
        arguments = ("evaluate", "--reference", folders / "original", "--against", f"n={folders / 'noisy'}", *more)
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        return int(caught.value.code or 0), done.out, done.err

    outputs = ("--markdown", tmp_path / "t.md", "--versa", tmp_path / "v.jsonl")
    code, _, errors = call("--metrics", "mcd,si-snr", "--jobs", 1, *outputs)
    assert (code, errors.count("written")) == (0, 2)
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("# dmcodec evaluate")
    assert json.loads((tmp_path / "v.jsonl").read_text().splitlines()[0])["mcd"] > 0
    code, _, errors = call("--metrics", "mcd", *outputs)
    assert (code, f"{tmp_path / 't.md'}" in errors, "--force" in errors) == (1, True, True)
    code, _, errors = call("--metrics", "mcd", "--force")
    assert (code, "belongs to --report, --markdown, --versa or --codec-superb" in errors) == (2, True)
    code, _, errors = call("--metrics", "mcd", "--markdown", tmp_path / "x", "--versa", tmp_path / "x")
    assert (code, "two outputs have the same path" in errors) == (2, True)
    code, _, errors = call("--metrics", "stability")
    assert (code, errors.splitlines()) == (
        2,
        ["error: stability compares codes, and a folder of audio (--against) has none; name a codec with --codec"],
    )
