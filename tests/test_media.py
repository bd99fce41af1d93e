"""Formats that PyAV reads: lengths as the containers say, cut files refused, the extra named where it is missing."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dmcodec import media
from dmcodec.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES, audio_suffixes, read_audio, read_blocks
from dmcodec.errors import AudioDependencyError, AudioError, MissingDependencyError

av = pytest.importorskip("av")
RATE = 16000


def sine(num_samples: int, rate: int) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate)).astype(np.float32)


def container(
    kind: str,
    codec: str,
    rate: int = RATE,
    num_samples: int = 24000,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """A file of a sine, by PyAV."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=options or {}) as file:
        picture = file.add_stream("mpeg4", rate=10) if video else None
        stream = file.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = "mono", 64000
        resampler = av.AudioResampler(format=stream.codec_context.format or "fltp", layout="mono", rate=rate)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        if picture is not None:
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
            for index in range(15):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                image.pts = index
                file.mux(picture.encode(image))
            file.mux(picture.encode(None))
        samples = sine(num_samples, rate)[None]
        for start in range(0, num_samples, size):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + size].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            for converted in resampler.resample(frame):
                file.mux(stream.encode(converted))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def read(content: bytes) -> tuple[NDArray[np.float32], int]:
    return read_audio(io.BytesIO(content))


def level_and_pitch(samples: NDArray[np.float32], rate: int) -> tuple[float, float]:
    middle = samples[2000:-2000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return float(np.abs(middle).max()), float(np.argmax(spectrum) * rate / len(middle))


@pytest.mark.parametrize(
    ("kind", "codec", "rate", "filling"),  # filling: most samples that may follow, where the format has no length
    [
        ("ipod", "aac", 16000, 0), ("mp4", "aac", 44100, 0), ("mov", "aac", 48000, 0), ("mp4", "alac", 16000, 0),
        ("mp4", "flac", 16000, 0), ("mp4", "libopus", 48000, 0), ("webm", "libopus", 48000, 0),
        ("matroska", "aac", 16000, 2048), ("adts", "aac", 16000, 3072), ("ac3", "ac3", 48000, 3072),
        ("mpegts", "aac", 16000, 3072), ("flv", "aac", 44100, 3072), ("wv", "wavpack", 16000, 0),
        ("3gp", "libopencore_amrnb", 8000, 0), ("amr", "libopencore_amrnb", 8000, 320), ("avi", "mp2", 48000, 3072),
        ("ac3", "ac3", 44100, 3072), ("ac3", "ac3", 32000, 3072), ("eac3", "eac3", 48000, 3072),
    ],
)  # fmt: skip
def test_formats(kind: str, codec: str, rate: int, filling: int) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    samples, found_rate = read(container(kind, codec, rate))
    assert found_rate == rate
    assert len(samples) == 1
    assert 24000 - rate / 1000 < samples.shape[1] <= 24000 + filling  # PyAV writes the length of MP4 in milliseconds
    level, pitch = level_and_pitch(samples[0], rate)
    assert level == pytest.approx(0.3, abs=0.15)
    assert pitch == pytest.approx(440, abs=4)


def test_wma() -> None:
    """FFmpeg's encoder leaves out what doesn't fill its last frame."""
    samples, rate = read(container("asf", "wmav2"))
    assert 24000 - 2048 < samples.shape[1] <= 24000 + 2048
    assert level_and_pitch(samples[0], rate)[1] == pytest.approx(440, abs=4)


def test_the_delay_of_the_encoder_is_left_out() -> None:
    samples, _ = read(container("mp4", "aac"))
    np.testing.assert_allclose(samples[0][1000:-1000], sine(24000, RATE)[1000:-1000], atol=0.08)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_the_sound_track_of_a_video(kind: str) -> None:
    samples, _ = read(container(kind, "aac" if kind != "avi" else "mp2", 48000, 48000, video=True))
    assert 48000 <= samples.shape[1] <= 48000 + 3072


def test_a_video_without_sound() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        file.mux(stream.encode(image))
        file.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no sound track"):
        read(buffer.getvalue())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mp4", {}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("matroska", {}),
        ("webm", {}),
        ("adts", {}),
        ("ac3", {}),
        ("asf", {}),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.61, 0.9, 0.999])
def test_cut_files_are_refused(kind: str, options: dict[str, str], share: float) -> None:
    codec, rate = {"webm": ("libopus", 48000), "ac3": ("ac3", 44100), "asf": ("wmav2", RATE)}.get(kind, ("aac", RATE))
    content = container(kind, codec, rate, options=options)
    with pytest.raises(AudioError):
        read(content[: int(share * len(content))])


def test_blocks_and_their_progress(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(container("ipod", "aac", 44100, 441000))
    seen: list[tuple[float, float]] = []
    blocks = list(read_blocks(path, RATE, lambda done, total: seen.append((done, total))))
    assert sum(map(len, blocks)) == pytest.approx(160000, abs=2)
    assert len(seen) > 1
    assert seen[-1][0] == pytest.approx(10, abs=0.01)
    assert all(total == pytest.approx(10, abs=0.1) for _, total in seen)


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [("a.m4a", "ipod", "aac"), ("a.webm", "webm", "libopus"), ("a.wav", "mp4", "aac"), ("a.aac", "adts", "aac")],
)
def test_without_the_extra_its_name_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, codec: str
) -> None:
    (tmp_path / name).write_bytes(container(kind, codec, 48000))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == "av" else find_spec(wanted))
    hint = rf'{name}: .* needs PyAV.* `pip install "dmcodec\[media\]"`'
    with pytest.raises(AudioDependencyError, match=hint) as caught:
        read_audio(tmp_path / name)
    assert isinstance(caught.value, MissingDependencyError)
    assert audio_suffixes() == AUDIO_SUFFIXES


def test_suffixes() -> None:
    assert not AUDIO_SUFFIXES & MEDIA_SUFFIXES
    assert audio_suffixes() == AUDIO_SUFFIXES | MEDIA_SUFFIXES
    assert {".m4a", ".webm", ".mp4"} <= MEDIA_SUFFIXES
    assert all(each == each.lower() and each[0] == "." for each in AUDIO_SUFFIXES | MEDIA_SUFFIXES)


def test_other_files_are_not_guessed_at() -> None:
    """PyAV takes almost anything for some format; noise would be read from it."""
    for content in (b"text\n" * 999, np.random.default_rng(0).bytes(20000), bytes(9999)):
        with pytest.raises(AudioError, match="can't be read as audio"):
            read(content)
    assert media.media_format(b"OggS") is None


def test_pyav_is_imported_only_where_it_is_needed(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from dmcodec.audio import read_audio
        from dmcodec.sample import SPEECH_FILE
        read_audio(SPEECH_FILE)
        assert 'av' not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
