"""The further scores of `dmcodec evaluate` (ESTOI, PESQ-NB, MCD, F0, DNSMOS) against values worked out another way."""

from __future__ import annotations

import importlib.util
import math
import sys

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluate.metrics import METRICS, NO_REFERENCE, require_packages
from dmcodec.benchmarks.evaluate.signal_metrics import GROUPS, measure
from dmcodec.benchmarks.evaluate.spectra import log_mel, mel_cepstral_distortion_db
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
    return np.sum([0.1 * np.sin(k * phase) / k for k in range(1, 9)], axis=0).astype(np.float32)


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
    same = measure(PITCH, tone(rising), tone(rising * 1.1))[0]
    assert same["f0-corr"] > 0.99
    assert same["f0-rmse"] == pytest.approx(15, abs=1.5)  # a tenth of 100 to 200 Hz
    falling = measure(PITCH, tone(rising), tone(rising[::-1].copy()))[0]
    assert falling["f0-corr"] < -0.95


def test_voicing_errors_and_pitches_that_do_not_vary() -> None:
    half = tone(120.0)
    half[RATE // 2 :] = 0
    found = measure(PITCH, tone(120.0), half)[0]
    assert found["vuv"] == pytest.approx(50, abs=6)
    assert found["f0-rmse"] < 1
    values, reasons = measure(PITCH, half, np.zeros(RATE, np.float32))
    assert set(values) == {"vuv"}
    assert reasons["f0-corr"] == "fewer than 10 frames are voiced in both clips"


def test_dnsmos_is_that_of_the_package() -> None:
    from speechmos import dnsmos

    wave = speech(RATE * 5 // 2, RATE)  # repeated to 10 s: one window of 9.01 s
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
