"""The metrics of `dmcodec evaluate` against values worked out by hand or another way, and what they refuse."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluate.columns import find_clips, lengths_differ, pair
from dmcodec.benchmarks.evaluate.signal_metrics import MAX_PESQ_S, measure, si_sdr_db
from dmcodec.benchmarks.evaluate.speaker import similarity
from dmcodec.benchmarks.evaluate.spectra import HOP_SAMPLES, N_FFT, N_MELS, log_mel, mel_distance
from dmcodec.benchmarks.evaluate.statistics import Estimate, bootstrap, codebook_use, jackknife, mean_estimate
from dmcodec.benchmarks.evaluate.words import (
    WordCounts,
    count_words,
    load_normaliser,
    read_reference_texts,
    word_error_rate,
    word_information_lost,
)
from dmcodec.benchmarks.evaluate.workers import CRASHED, Task, run_tasks
from dmcodec.codebook_use import entropy_bits
from dmcodec.errors import ArgumentError, EvaluationError, InputNotFoundError, MetricError
from dmcodec.mel import mel_filters
from dmcodec.sample import speech

# Where a package of the `evaluate` extra is missing, nothing here can be measured.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("pystoi", "pesq", "visqol", "jiwer", "scipy")
]

RATE = 16000
ALL = ("stoi", "pesq", "visqol", "visqol-polynomial", "si-sdr", "mel")


def noisy(waveform: Waveform, scale: float = 0.01) -> Waveform:
    noise = np.random.default_rng(0).standard_normal(len(waveform))
    return (waveform + scale * noise).astype(np.float32)


# SI-SDR


def test_si_sdr_by_hand() -> None:
    target = np.array([1, -1, 1, -1], np.float32)
    orthogonal = np.array([1, 1, -1, -1], np.float32)
    assert si_sdr_db(target, 5 * target + orthogonal) == pytest.approx(10 * math.log10(25))
    # an offset and a scale change nothing
    assert si_sdr_db(target, 2 * (5 * target + orthogonal) + 3) == pytest.approx(10 * math.log10(25), abs=1e-4)


def test_si_sdr_without_a_number() -> None:
    wave = speech(4000, RATE)
    with pytest.raises(MetricError, match="infinite"):
        si_sdr_db(wave, 0.5 * wave)
    with pytest.raises(MetricError, match="minus infinity"):
        si_sdr_db(wave, np.zeros_like(wave))


# mel


def test_mel_filters_are_htk_triangles_of_unit_area() -> None:
    filters = mel_filters(N_FFT, N_MELS, RATE)
    assert filters.shape == (N_MELS, N_FFT // 2 + 1)
    assert filters.min() == 0
    # Slaney's norm: the area under each triangle is 1 (sampled every 15.6 Hz: the narrow ones only roughly)
    assert filters[40:].sum(axis=1) * RATE / N_FFT == pytest.approx(1, rel=0.01)
    # HTK: 1000 Hz is 1000 mel (999.99); 81 steps to 2840 mel put corner 29 (filter 28's peak) near there
    peaks_hz = filters.argmax(axis=1) * RATE / N_FFT
    assert peaks_hz[28] == pytest.approx(700 * (10 ** (29 / 81 * 2840.023 / 2595) - 1), abs=RATE / N_FFT)


def test_log_mel_of_a_tone() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    mels = log_mel(tone, RATE)
    assert mels.shape == (N_MELS, 1 + (RATE - HOP_SAMPLES) // HOP_SAMPLES)
    # all its magnitude, half the window's sum in the main bin and half as much beside, falls into one or two filters
    middle = mels[:, 30]
    row = mel_filters(N_FFT, N_MELS, RATE)[:, 2000 * N_FFT // RATE + np.array([-1, 0, 1])]
    assert np.exp(middle.max()) == pytest.approx((row @ (N_FFT / 4 * np.array([0.5, 1, 0.5]))).max(), rel=1e-3)
    assert middle.min() == pytest.approx(math.log(1e-5))


@given(gain=st.floats(0.5, 2))
def test_mel_distance_of_a_gain_is_its_logarithm(gain: float) -> None:
    noise = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    assert mel_distance(noise, gain * noise, RATE) == pytest.approx(abs(math.log(gain)), abs=1e-4)


# all signal metrics


def test_good_speech_scores_better_than_bad_speech() -> None:
    wave = speech(2 * RATE, RATE)
    good, failures = measure(ALL, wave, noisy(wave, 0.002))
    bad, more_failures = measure(ALL, wave, noisy(wave, 0.05))
    assert not failures
    assert not more_failures
    assert list(good) == list(ALL)
    for key in ALL:
        assert (good[key] < bad[key]) if key == "mel" else (good[key] > bad[key]), key
    assert 0.95 < good["stoi"] <= 1
    assert 1 <= bad["pesq"] < good["pesq"] <= 4.65
    assert 1 <= bad["visqol"] < good["visqol"] <= 5
    assert good["visqol"] != good["visqol-polynomial"]


@pytest.mark.parametrize(
    ("reference", "degraded", "expected"),
    [
        (np.zeros(32000), speech(32000, RATE), {key: "the original is silent" for key in ALL if key != "mel"}),
        (speech(32000, RATE), np.zeros(32000), {"visqol": "silent", "pesq": "not a number", "si-sdr": "minus"}),
        (speech(4000, RATE), speech(4000, RATE), {"stoi": "0.4 s", "visqol": "shorter than 1 s", "si-sdr": "infinite"}),
        (speech(300, RATE), noisy(speech(300, RATE)), dict.fromkeys(("stoi", "pesq", "visqol"), "short|too little")),
        (speech(1, RATE), noisy(speech(1, RATE)), dict.fromkeys(("stoi", "pesq", "visqol", "mel"), "short|little")),
        (np.zeros(0), np.zeros(0), {"stoi": "silent", "pesq": "silent", "mel": "shorter"}),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_no_number(
    reference: Waveform, degraded: Waveform, expected: dict[str, str]
) -> None:
    values, failures = measure(ALL, reference.astype(np.float32), degraded.astype(np.float32))
    assert set(values) | set(failures) == set(ALL)
    assert not set(values) & set(failures)
    assert all(math.isfinite(value) for value in values.values())
    for key, reason in expected.items():
        assert any(part in failures[key] for part in reason.split("|")), (key, failures[key])


def test_pesq_refuses_long_clips() -> None:
    wave = speech(round((MAX_PESQ_S + 1) * RATE), RATE)
    _, failures = measure(("pesq",), wave, noisy(wave))
    assert "longer than 60 s" in failures["pesq"]


def test_a_crash_costs_only_the_metric_that_crashed() -> None:
    # 80 bursts are more utterances than PESQ's code has room for: it writes past its arrays and dies.
    talk = speech(100_000, RATE)
    bursts = [np.concatenate([talk[i * 997 :][:4000], np.zeros(4000, np.float32)]) for i in range(80)]
    killer = np.concatenate(bursts)
    wave = speech(RATE, RATE)
    tasks = [
        Task("codec", "fine", ("pesq", "si-sdr"), wave, noisy(wave)),
        Task("codec", "killer", ("pesq",), killer, noisy(killer, 0.001)),
        *(Task("codec", f"later {i}", ("si-sdr",), wave, noisy(wave)) for i in range(3)),
    ]
    outcomes = {outcome.clip: outcome for outcome in run_tasks(tasks, jobs=1)}
    assert len(outcomes) == len(tasks)
    assert outcomes["killer"].failures == {"pesq": CRASHED}
    assert set(outcomes["fine"].values) == {"pesq", "si-sdr"}
    assert all(outcomes[f"later {i}"].values["si-sdr"] > 0 for i in range(3))


# words


def test_word_counts_and_rates_by_hand() -> None:
    counts = count_words("one two three four five six", "zero one two tree four six")
    assert counts == WordCounts(hits=4, substitutions=1, deletions=1, insertions=1)
    assert counts.sums == (3, 6, 6, 4)
    sums = np.array(counts.sums, float)
    assert word_error_rate(sums) == pytest.approx(100 * 3 / 6)
    assert word_information_lost(sums) == pytest.approx(100 * (1 - 4 / 6 * 4 / 6))


def test_nothing_heard_is_all_lost_and_nothing_said_has_no_rate() -> None:
    sums = np.array(count_words("a b", "").sums, float)
    assert word_error_rate(sums) == 100
    assert word_information_lost(sums) == 100
    with pytest.raises(MetricError, match="no words"):
        count_words("  ", "something")


def test_rates_over_files_are_of_the_summed_counts() -> None:
    sums = np.array([(1, 10, 10, 9), (3, 4, 4, 1)], float)
    assert bootstrap(sums, word_error_rate, 0, 0).value == pytest.approx(100 * 4 / 14)  # not the mean of 10 and 75


def test_normalisers() -> None:
    english, description = load_normaliser("english")
    assert english("Please, don't press twenty-five [beep] — Mr. Brown!") == "please do not press 25 mister brown"
    assert "transformers" in description
    basic, _ = load_normaliser("basic")
    assert basic("¿Qué día?  ¡25!") == "qué día 25"


# confidence


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(2, 0.5, 400)
    found = mean_estimate(list(values), failed=3, seed=0)
    reach = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.files, found.failed) == (400, 3)
    assert found.low == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.1 * reach)
    assert found == mean_estimate(list(values), failed=3, seed=0)
    assert found != mean_estimate(list(values), failed=3, seed=1)


def test_few_files_have_no_interval() -> None:
    assert mean_estimate([], 2, 0) == Estimate(None, None, None, 0, 2)
    assert mean_estimate([1.5], 0, 0) == Estimate(1.5, None, None, 1, 0)
    assert jackknife(1.0, np.array([1.0])) is None


def test_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0, 11.0])
    without_each = (values.sum() - values) / 4
    low, high = jackknife(values.mean(), without_each) or (0, 0)
    reach = 2.7764 * values.std(ddof=1) / math.sqrt(5)  # t quantile of 4 degrees of freedom
    assert low == pytest.approx(5 - reach, abs=1e-3)
    assert high == pytest.approx(5 + reach, abs=1e-3)


# codebooks


def test_codebook_use_by_hand() -> None:
    one = np.array([[0, 0, 1, 1], [5, 5, 5, 5]], np.uint16)
    other = np.array([[2, 2, 3, 3], [5, 5, 5, 5]], np.uint16)
    use = codebook_use([one, other], codebook_size=8)
    assert use is not None
    assert (use.files, use.frames) == (2, 8)
    first, second = use.levels
    assert first.perplexity == pytest.approx(4)  # four entries, equally often
    assert (first.used, first.dead, first.entries) == (4, 4, 8)
    assert (second.perplexity, second.used, second.dead) == (1, 1, 7)
    assert (second.low, second.high) == (1, 1)
    assert codebook_use([], 8) is None
    assert entropy_bits(np.array([3, 1])) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=200))
def test_perplexity_lies_between_one_and_the_entries_used(codes: list[int]) -> None:
    use = codebook_use([np.array([codes], np.uint16)], 16)
    assert use is not None
    assert 1 - 1e-9 <= use.levels[0].perplexity <= use.levels[0].used + 1e-9
    assert use.levels[0].used == len(set(codes))


# speaker


def test_cosine() -> None:
    assert similarity(np.array([1.0, 0]), np.array([1.0, 1.0])) == pytest.approx(math.sqrt(0.5))
    with pytest.raises(MetricError, match="no direction"), np.errstate(invalid="ignore"):
        similarity(np.zeros(2), np.ones(2))


# files


def write(path: Path, samples: int = 400) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(samples), RATE)
    return path


def test_clips_are_paired_by_path_without_suffix(tmp_path: Path) -> None:
    for name in ("b.wav", "sub/a.flac", "a.v2.wav", ".hidden.wav"):
        write(tmp_path / "original" / name)
    for name in ("b.flac", "sub/a.wav", "a.v2.ogg", "extra.wav"):
        write(tmp_path / "codec" / name)
    clips = find_clips(tmp_path / "original")
    assert [clip.name for clip in clips] == ["a.v2", "b", "sub/a"]
    assert [clip.name for clip in find_clips(tmp_path / "original", limit=2)] == ["a.v2", "b"]
    paths = pair(clips, tmp_path / "codec", allow_missing=False)
    assert {name: path.name for name, path in paths.items()} == {"a.v2": "a.v2.ogg", "b": "b.flac", "sub/a": "a.wav"}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "original" / f"{name}.wav")
    write(tmp_path / "codec" / "a.wav")
    write(tmp_path / "other" / "c.wav")
    clips = find_clips(tmp_path / "original")
    with pytest.raises(InputNotFoundError, match=r"codec: 1 of 2 reference files have no counterpart here: b;"):
        pair(clips, tmp_path / "codec", allow_missing=False)
    assert list(pair(clips, tmp_path / "codec", allow_missing=True)) == ["a"]
    with pytest.raises(InputNotFoundError, match="none of the 2"):
        pair(clips, tmp_path / "other", allow_missing=True)
    with pytest.raises(InputNotFoundError, match="no such folder"):
        find_clips(tmp_path / "nowhere")
    write(tmp_path / "original" / "a.flac")
    with pytest.raises(ArgumentError, match="same name"):
        find_clips(tmp_path / "original")


@pytest.mark.parametrize(
    ("reference", "samples", "expected"),
    [
        (16000, 16000, False),
        (16000, 16700, False),
        (16000, 16900, True),
        (320000, 329000, True),
        (320000, 327000, False),
    ],
)
def test_lengths_that_differ(reference: int, samples: int, expected: bool) -> None:
    assert lengths_differ(reference, samples) is expected


def test_transcripts(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text("\ufeffsub/a.flac\tHello  there.\n\nb.1\tOne\ttwo\n", encoding="utf-8")
    assert read_reference_texts(path) == {"sub/a": "Hello  there.", "b.1": "One\ttwo"}
    path.write_text("a.wav\t1\t2\ttwo\na.wav\t0\t1\tone\n", encoding="utf-8")
    assert read_reference_texts(path) == {"a": "one two"}
    path.write_text("text\tfile\nyes\ta.wav\n", encoding="utf-8")
    assert read_reference_texts(path) == {"a": "yes"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a.wav hello\n", "line 1 has no tab"),
        (b"a.wav\tx\na.flac\ty\n", "line 2 names a a second time"),
        (b"\n", "holds no transcripts"),
        (b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_transcripts_that_are_none(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "texts.tsv"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=reason):
        read_reference_texts(path)
    with pytest.raises(InputNotFoundError):
        read_reference_texts(tmp_path / "nothing.tsv")
