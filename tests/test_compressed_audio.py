"""MP3, Ogg and FLAC whose length is not in a header, or not right there: all is read, or an error names the file."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sound_files import RATE, changed_page, encoded, mp3_frames, noise, ogg_flac, ogg_pages, without_header

from dmcodec.audio import read_audio, read_blocks
from dmcodec.errors import AudioError, AudioWarning
from dmcodec.flac_frames import last_sample
from dmcodec.mp3_frames import parse_frame

BITRATE_MODES = "bitrate_mode" in inspect.signature(soundfile.write).parameters  # from soundfile 0.13 on
MPEG_DELAY = 529  # samples that a decoder of MP3 leaves out at the begin


def read(content: bytes) -> tuple[NDArray[np.float32], int]:
    return read_audio(io.BytesIO(content))


def mp3(num_samples: int = 24000, channels: int = 1, rate: int = RATE, seed: int = 0) -> bytes:
    return encoded(noise(num_samples, channels, seed), "MP3", rate)


# MP3


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])  # MPEG 2.5, 2 and 1
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_header(rate: int, channels: int, mode: str) -> None:
    more: dict[str, Any] = {"bitrate_mode": mode, "compression_level": 0.6} if BITRATE_MODES else {}
    whole = encoded(noise(48000, channels), "MP3", rate, **more)
    bare = without_header(whole)
    first = parse_frame(bare[:4])
    assert first is not None
    samples, found_rate = read(bare)
    expected = len(mp3_frames(bare)) * first.samples - MPEG_DELAY
    assert (samples.shape, found_rate) == ((channels, expected), rate)
    reference = read(whole)[0][0]
    begin = int(np.argmax(np.correlate(samples[0][:12000], reference[3000:6000], "valid"))) - 3000
    np.testing.assert_allclose(samples[0][begin : begin + 48000], reference, atol=1e-4)


def test_joined_mp3s_are_read_to_the_last() -> None:
    first, second = mp3(24000), mp3(16000, seed=1)
    expected = np.concatenate([read(first)[0], read(second)[0]], axis=1)
    assert expected.shape == (1, 40000)
    for tag in (b"", id3(b"x" * 300), b"TAG" + bytes(125), bytes(700)):
        np.testing.assert_array_equal(read(first + tag + second)[0], expected)


def test_joined_mp3s_whose_second_has_no_header() -> None:
    first, second = mp3(24000), without_header(mp3(16000, seed=1))
    samples = read(first + second)[0][0]
    np.testing.assert_array_equal(samples[:24000], read(first)[0][0])
    np.testing.assert_array_equal(samples[24000:], read(second)[0][0])


def test_joined_mp3s_of_other_rates_and_channels(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(mp3(16000) + mp3(44100, 2, 44100, seed=1) + mp3(16000, seed=2))
    samples, rate = read_audio(tmp_path / "a.mp3")
    assert (rate, samples.shape) == (16000, (1, 48000))
    blocks = np.concatenate(list(read_blocks(tmp_path / "a.mp3", 16000)))
    np.testing.assert_allclose(blocks, samples[0], atol=1e-4)


def id3(content: bytes) -> bytes:
    size = len(content)
    return b"ID3\x04\x00\x00" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + content


def ape(content: bytes) -> bytes:
    size = (len(content) + 32).to_bytes(4, "little")
    return (
        b"APETAGEX\xd0\x07\x00\x00" + size + bytes(4) + b"\x00\x00\x00\xa0" + bytes(8) + content
        + b"APETAGEX\xd0\x07\x00\x00" + size + bytes(4) + b"\x00\x00\x00\x80" + bytes(8)
    )  # fmt: skip


@pytest.mark.parametrize("bare", [False, True])
def test_tags_are_no_audio(bare: bool) -> None:
    content = without_header(mp3()) if bare else mp3()
    expected = read(content)[0]
    v1 = b"TAG" + bytes(125)
    for tagged in (
        id3(b"\xff\xfb\x90" * 99) + content,
        id3(b"a") + id3(b"b" * 3000) + content + v1,
        content + ape(b"\xff\xfb\x90\x00" * 40) + v1,
        content + bytes(5000),
    ):
        np.testing.assert_array_equal(read(tagged)[0], expected)


def test_foreign_bytes_between_frames_are_left_out_with_a_warning(tmp_path: Path) -> None:
    frames = mp3_frames(without_header(mp3()))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(frames[:9]) + b"garbage\xff\xfa" * 50 + b"".join(frames[9:]))
    with pytest.warns(AudioWarning, match=r"a\.mp3: 450 bytes between"):
        samples, _ = read_audio(path)
    np.testing.assert_array_equal(samples, read(b"".join(frames))[0])


@given(share=st.floats(0.001, 0.999), bare=st.booleans())
def test_an_mp3_cut_anywhere(share: float, bare: bool) -> None:
    content = MP3_BARE if bare else MP3
    cut = content[: int(share * len(content))]
    ends = [sum(map(len, mp3_frames(content)[:count])) for count in range(len(mp3_frames(content)) + 1)]
    if bare and len(cut) in ends[1:]:  # as whole as any other file without a header
        assert read(cut)[0].shape[1] == ends.index(len(cut)) * 576 - MPEG_DELAY
    else:
        with pytest.raises(AudioError):
            read(cut)


MP3 = mp3()
MP3_BARE = without_header(MP3)


def test_an_mp3_whose_header_counts_more_frames() -> None:
    frames = mp3_frames(MP3)
    with pytest.raises(AudioError, match=f"cut short, {len(frames) - 4} of {len(frames) - 1} frames"):
        read(b"".join(frames[:-3]))


def test_mp3_in_wav() -> None:
    data = MP3_BARE
    form = (
        b"\x55\x00\x01\x00" + (16000).to_bytes(4, "little") + (4000).to_bytes(4, "little") + b"\x01\x00\x00\x00\x00\x00"
    )
    body = b"WAVEfmt " + len(form).to_bytes(4, "little") + form + b"data" + len(data).to_bytes(4, "little") + data
    samples = read(b"RIFF" + len(body).to_bytes(4, "little") + body)[0]
    np.testing.assert_array_equal(samples, read(data)[0])


# Ogg

OGG = {
    "vorbis": encoded(noise(20001), "OGG", 16000, "VORBIS"),
    "opus": encoded(noise(20001), "OGG", 16000, "OPUS"),
    "flac": ogg_flac(encoded(noise(20001), "FLAC")),
}
OTHER = {
    "vorbis": encoded(noise(44100, 2), "OGG", 44100, "VORBIS"),
    "opus": encoded(noise(48000), "OGG", 48000, "OPUS"),
    "flac": ogg_flac(encoded(noise(48000), "FLAC", 48000)),
}


@pytest.mark.parametrize("codec", OGG)
def test_chained_ogg_is_read_to_its_last_link(codec: str) -> None:
    one, other = OGG[codec], OTHER[codec]
    samples, rate = read(one)
    assert (samples.shape, rate) == ((1, 20001), 16000)
    np.testing.assert_array_equal(read(one + one + one)[0], np.concatenate([samples] * 3, axis=1))
    mixed, rate = read(one + other)
    assert (mixed.shape, rate) == ((1, 36001), 16000)
    np.testing.assert_array_equal(mixed[:, :20001], samples)
    different = b"".join(OGG.values())
    assert read(different)[0].shape == (1, 60003)


@pytest.mark.parametrize("codec", OGG)
@given(share=st.floats(0.001, 0.999), links=st.integers(1, 2))
def test_an_ogg_cut_anywhere(codec: str, share: float, links: int) -> None:
    content = OGG[codec] * links
    cut = content[: int(share * len(content))]
    if cut == OGG[codec]:
        return
    with pytest.raises(AudioError):
        read(cut)


def test_ogg_pages_that_are_lost_or_damaged() -> None:
    pages = ogg_pages(OGG["vorbis"])
    assert len(pages) > 3
    with pytest.raises(AudioError, match="pages are missing between number 1 and 3"):
        read(b"".join(pages[:2] + pages[3:]))
    damaged = bytearray(OGG["vorbis"])
    damaged[-10] ^= 1
    with pytest.raises(AudioError, match="checksum"):
        read(bytes(damaged))
    open_end = [*pages[:-1], changed_page(pages[-1], flags=0)]
    with pytest.raises(AudioError, match=r"not the end of the stream.*ffmpeg"):
        read(b"".join(open_end))


def test_what_follows_the_last_ogg_page() -> None:
    expected = read(OGG["opus"])[0]
    for tag in (b"TAG" + bytes(125), bytes(900)):
        np.testing.assert_array_equal(read(OGG["opus"] + tag)[0], expected)
    with pytest.warns(AudioWarning, match="120 bytes after its last Ogg page"):
        np.testing.assert_array_equal(read(OGG["opus"] + b"junk" * 30)[0], expected)


def test_the_sound_of_a_multiplexed_ogg() -> None:
    """Pages of a stream that is no audio stand between those of the audio."""
    pages = ogg_pages(OGG["opus"])
    video = bytearray(pages[0])
    video[14:18] = b"abcd"
    video[27 + video[26] :][:8] = b"\x80theora "
    start = 27 + video[26]
    video[start : start + 8] = b"\x80theora "
    first, last = changed_page(bytes(video)), changed_page(bytes(video), flags=4, number=1)
    content = first + pages[0] + pages[1] + last + b"".join(pages[2:])
    np.testing.assert_array_equal(read(content)[0], read(OGG["opus"])[0])


# FLAC

FLAC = encoded(noise(20001), "FLAC")


def with_length(flac: bytes, num_samples: int) -> bytes:
    """FLAC with another number of samples in its header."""
    field = int.from_bytes(flac[21:26], "big") >> 36 << 36 | num_samples
    return flac[:21] + field.to_bytes(5, "big") + flac[26:]


def test_flac_of_unknown_length_is_read_to_its_end() -> None:
    unknown = with_length(FLAC, 0)
    np.testing.assert_array_equal(read(unknown)[0], read(FLAC)[0])
    np.testing.assert_array_equal(read(unknown + b"TAG" + bytes(125))[0], read(FLAC)[0])
    np.testing.assert_array_equal(read(ogg_flac(unknown))[0], read(FLAC)[0])
    np.testing.assert_array_equal(read(unknown + FLAC + unknown)[0], np.tile(read(FLAC)[0], 3))


@given(share=st.floats(0.001, 0.9999), length=st.sampled_from([0, 20001]))
def test_a_flac_cut_anywhere(share: float, length: int) -> None:
    content = with_length(FLAC, length)
    with pytest.raises(AudioError):
        read(content[: int(share * len(content))])


@pytest.mark.parametrize("num_samples", [1, 10000, 20000])
def test_a_flac_whose_header_gives_less(num_samples: int) -> None:
    with pytest.raises(AudioError, match=f"gives {num_samples} samples, but there are 20001"):
        read(with_length(FLAC, num_samples))


@given(num_samples=st.integers(16, 9000), rate=st.sampled_from([8000, 16000, 44100, 12345]), channels=st.integers(1, 2))
def test_the_last_flac_frame_says_how_long_a_file_is(num_samples: int, rate: int, channels: int) -> None:
    content = encoded(noise(num_samples, channels), "FLAC", rate)
    assert last_sample(content, int.from_bytes(content[8:10], "big")) == num_samples
    assert soundfile.info(io.BytesIO(content)).frames == num_samples
