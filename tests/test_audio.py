"""Audio files of all kinds in, damaged ones refused by name, and waveforms made mono float32 at the codec's rate."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.audio import AUDIO_SUFFIXES, output_format, prepare_waveform, read_audio, write_audio
from dmcodec.errors import AudioError, AudioFileNotFoundError, OutputError
from dmcodec.sample import speech

RATE = 16000


def sine(num_samples: int, hz: float = 440.0, rate: int = RATE, amplitude: float = 0.5) -> NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(num_samples) / rate)).astype(np.float32)


def wav(
    samples: NDArray[Any],
    before: bytes = b"",
    behind: bytes = b"",
    data_bytes: int | None = None,
    riff_bytes: int | None = None,
) -> bytes:
    """A 16 kHz mono WAV written by hand: int16 or float32 by the samples' type."""
    data = samples.tobytes()
    width = samples.dtype.itemsize
    form = struct.pack("<HHIIHH", 1 if width == 2 else 3, 1, RATE, RATE * width, width, 8 * width)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", len(data) if data_bytes is None else data_bytes) + data + behind
    return b"RIFF" + struct.pack("<I", len(body) if riff_bytes is None else riff_bytes) + body


def int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.round(samples * 32767).astype(np.int16)


# Reading


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        (".wav", "PCM_U8", 1 / 100),
        (".wav", "PCM_16", 1e-4),
        (".wav", "PCM_24", 1e-6),
        (".wav", "PCM_32", 1e-6),
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 0),
        (".flac", "PCM_16", 1e-4),
        (".flac", "PCM_24", 1e-6),
        (".ogg", "VORBIS", 0.1),
        (".aiff", "PCM_16", 1e-4),
        (".au", "PCM_16", 1e-4),
        (".caf", "PCM_16", 1e-4),
        (".w64", "PCM_16", 1e-4),
        (".rf64", "PCM_16", 1e-4),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_formats(tmp_path: Path, suffix: str, subtype: str, tolerance: float, channels: int) -> None:
    assert suffix in AUDIO_SUFFIXES
    path = tmp_path / f"a{suffix}"
    wave = np.stack([sine(4000), sine(4000, 660)][:channels])
    soundfile.write(path, wave.T, 44100, subtype, format=suffix[1:].upper())
    samples, rate = read_audio(path)
    assert (samples.shape, rate) == ((channels, 4000), 44100)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, wave, atol=tolerance)


def test_one_sample(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(np.array([16384], np.int16)))
    samples, _ = read_audio(tmp_path / "a.wav")
    assert samples.tolist() == [[0.5]]


def test_chunks_around_the_samples_are_skipped(tmp_path: Path) -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"odd!!" + b"\0"
    path = tmp_path / "a.wav"
    path.write_bytes(wav(int16(sine(100)), before=odd, behind=odd))
    assert read_audio(path)[0].shape == (1, 100)
    path.write_bytes(wav(int16(sine(100)), before=odd)[:-1])
    with pytest.raises(AudioError, match=r"a\.wav: cut short, 1 of"):
        read_audio(path)


# What ffmpeg, sox and others leave where they can't go back to fill in the length.
@pytest.mark.parametrize("data_bytes", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36])
@pytest.mark.parametrize("riff_bytes", [None, 0xFFFFFFFF, 0x7FFFF024])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path: Path, data_bytes: int, riff_bytes: int | None) -> None:
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(int16(sine(3000)), data_bytes=data_bytes, riff_bytes=riff_bytes))
    samples, _ = read_audio(path)
    np.testing.assert_allclose(samples[0], sine(3000), atol=1e-4)


def with_flac_length(path: Path, num_samples: int) -> None:
    """Overwrites the 36-bit number of samples in a FLAC's STREAMINFO."""
    content = bytearray(path.read_bytes())
    field = int.from_bytes(content[21:26], "big")
    assert field & (2**36 - 1) == 4000
    content[21:26] = (field >> 36 << 36 | num_samples).to_bytes(5, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("num_samples", [3999, 4001, 2**36 - 1])
def test_a_flac_that_lies_about_its_length(tmp_path: Path, num_samples: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sine(4000), RATE)
    with_flac_length(path, num_samples)
    with pytest.raises(AudioError, match=r"a\.flac"):
        read_audio(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".aiff", ".au", ".caf", ".w64", ".rf64"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, share: float
) -> None:
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, noise, RATE, format=suffix[1:].upper())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AudioError, match=rf"cut\{suffix}: "):
        read_audio(path)
    capfd.readouterr()  # libmpg123 writes to stderr


def test_a_wav_cut_by_one_byte_or_one_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for missing in (1, 2, 3):
        path.write_bytes(wav(int16(sine(100)))[:-missing])
        with pytest.raises(AudioError, match=f"cut short, {missing} of"):
            read_audio(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "can't be read as audio"),
        (b"this is text\n" * 50, "can't be read as audio"),
        (bytes(1000), "can't be read as audio"),
        (b"RIFF", "can't be read as audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", "can't be read as audio"),
        (b"fLaC", "can't be read as audio"),
        (b"OggS" + bytes(60), "can't be read as audio"),
        (wav(np.zeros(0, np.int16)), "holds no samples"),
        (wav(np.zeros(0, np.int16), data_bytes=0xFFFFFFFF), "holds no samples|can't be read"),
    ],
)
def test_files_without_audio(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "none.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.wav", "none/none.wav", "x" * 5000 + ".wav", "nul\0.wav"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioFileNotFoundError, match="no such audio file"):
        read_audio(tmp_path / name)
    assert issubclass(AudioFileNotFoundError, FileNotFoundError)


def test_a_folder_is_not_an_audio_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder"):
        read_audio(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_float_file_with_nan_is_named(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "nan.wav"
    samples = sine(100)
    samples[50] = bad
    path.write_bytes(wav(samples))
    with pytest.raises(AudioError, match=r"nan\.wav: holds NaN or infinite"):
        prepare_waveform(*read_audio(path), RATE, source=str(path))


# Preparing


def test_channels_are_averaged() -> None:
    left, right = sine(100), sine(100, 1000)
    for dtype, tolerance in ((np.float32, 1e-7), (np.float64, 1e-7)):
        mono = prepare_waveform(np.stack([left, right]).astype(dtype), RATE, RATE)
        np.testing.assert_allclose(mono, (left + right) / 2, atol=tolerance)
    np.testing.assert_array_equal(prepare_waveform(left[None], RATE, RATE), left)
    opposite = prepare_waveform(np.array([[-32768, 32767], [32767, 32767]], np.int16), RATE, RATE)
    np.testing.assert_allclose(opposite, [-0.5 / 32768, 32767 / 32768], rtol=1e-6)


def test_int16_is_scaled_by_32768() -> None:
    prepared = prepare_waveform(np.array([-32768, -1, 0, 16384, 32767], np.int16), RATE, RATE)
    assert prepared.dtype == np.float32
    assert prepared.tolist() == [-1.0, -1 / 32768, 0.0, 0.5, 32767 / 32768]


@pytest.mark.parametrize("waveform", [sine(50), sine(50).astype(np.float64), sine(50).astype(np.float64).tolist()])
def test_floats_stay_as_they_are(waveform: Any) -> None:
    prepared = prepare_waveform(waveform, RATE, RATE)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, sine(50))


def test_the_callers_waveform_is_neither_changed_nor_shared() -> None:
    for given_waveform in (sine(50), np.stack([sine(50), sine(50)]), int16(sine(50))):
        before = given_waveform.copy()
        prepared = prepare_waveform(given_waveform, RATE, RATE)
        prepared[:] = 7
        np.testing.assert_array_equal(given_waveform, before)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(10, np.int32), "int32"),
        (np.zeros(10, np.uint8), "uint8"),
        (np.zeros(10, np.int64), "int64"),
        (np.zeros(10, bool), "bool"),
        (np.zeros(10, np.float16), "float16"),
        (np.zeros(10, np.complex64), "complex64"),
        (np.array(["a", "b"]), "<U1"),
        (np.array([None, None]), "object"),
        (None, "shape"),
        (0.5, "shape"),
        (np.zeros((1, 1, 10), np.float32), "shape"),
        (np.zeros((16000, 2), np.float32), "shape"),
        (np.zeros((0, 10), np.float32), "shape"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((2, 0), np.float32), "no samples"),
        ([[0.1, 0.2], [0.3]], "array"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([[0.0, np.inf], [0.0, -np.inf]]), "NaN"),
        (np.array([0.0, 1e300]), "too large"),
        (np.full((2, 3), 3e38, np.float32), "too large"),
    ],
)
def test_what_is_not_a_waveform_is_refused(waveform: Any, reason: str) -> None:
    with pytest.raises(AudioError, match=f"clip 7: .*{reason}"):
        prepare_waveform(waveform, RATE, RATE, source="clip 7")


@pytest.mark.parametrize("rate", [0, -16000, 16000.0, "16000", None, True, 10**30, float("nan")])
def test_bad_sample_rates_are_refused(rate: Any) -> None:
    with pytest.raises(AudioError, match="sample_rate"):
        prepare_waveform(sine(10), rate, RATE)


def test_sample_rates_may_be_numpys() -> None:
    assert len(prepare_waveform(sine(100), np.int64(RATE), RATE)) == 100  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_resampling_keeps_duration_pitch_and_level(rate: int) -> None:
    clip = sine(rate, 1000, rate)
    resampled = prepare_waveform(clip, rate, RATE)
    assert resampled.dtype == np.float32
    assert abs(len(resampled) - RATE) <= 1
    middle = resampled[2000:14000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(1000, abs=2)
    np.testing.assert_allclose(middle, sine(RATE, 1000)[2000:14000], atol=1e-3)


def test_resampling_removes_what_would_alias() -> None:
    resampled = prepare_waveform(sine(48000, 11000, 48000), 48000, RATE)
    assert np.abs(resampled[1000:-1000]).max() < 0.01


@given(num_samples=st.integers(1, 3000), rate=st.sampled_from([8000, 22050, 44100, 48000, 192000, 12345]))
def test_any_number_of_samples_can_be_resampled(num_samples: int, rate: int) -> None:
    resampled = prepare_waveform(np.full(num_samples, 0.25, np.float32), rate, RATE)
    assert len(resampled) >= 1
    assert abs(len(resampled) - num_samples * RATE / rate) <= 1


# Writing


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_audio(path, sine(1000), 24000)
    samples, rate = read_audio(path)
    assert rate == 24000
    np.testing.assert_allclose(samples, sine(1000)[None], atol=1 / 32767)
    assert soundfile.info(path).subtype == "PCM_16"


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_loud_samples_are_clipped_and_do_not_wrap(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"loud{suffix}"
    write_audio(path, np.array([1.0, 1.5, 100.0, -1.0, -1.5, -100.0, 0.0], np.float32), RATE)
    samples = read_audio(path)[0][0]
    np.testing.assert_allclose(samples, [1, 1, 1, -1, -1, -1, 0], atol=1e-3)


def test_minutes_of_ogg(tmp_path: Path) -> None:
    """Written in one call, this much Vorbis overflows libsndfile's stack."""
    path = tmp_path / "a.ogg"
    clip = speech(RATE * 200, RATE)
    write_audio(path, clip, RATE)
    samples, _ = read_audio(path)
    assert samples.shape == (1, len(clip))
    assert np.corrcoef(samples[0], clip)[0, 1] > 0.9


@pytest.mark.parametrize("name", ["a.mp3", "a", "a.wav.txt", ".wav", "a.dmc"])
def test_suffixes_that_cant_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.wav, \.flac, \.ogg"):
        write_audio(tmp_path / name, sine(10), RATE)
    with pytest.raises(OutputError):
        output_format(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
