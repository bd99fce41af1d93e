"""Sizes in headers that don't fit the file: the true length where the format allows it, else an error."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sound_files import RATE, encoded, noise

from dmcodec.audio import read_audio, read_blocks
from dmcodec.errors import AudioError, AudioWarning

SAMPLES = noise(8001)
FORMATS = ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST")
GIB_4 = 1 << 32


def read(content: bytes) -> NDArray[np.float32]:
    return read_audio(io.BytesIO(content))[0]


def size_fields(kind: str, content: bytes) -> tuple[int, str, int]:
    """Where the size of the samples stands in the header, how it is written, and what the format adds to it."""
    return {
        "WAV": (content.find(b"data") + 4, "<I", 0),
        "RF64": (content.find(b"ds64") + 16, "<Q", 0),
        "W64": (content.find(b"data\xf3\xac") + 16, "<Q", 24),
        "AIFF": (content.find(b"SSND") + 4, ">I", 8),
        "AU": (8, ">I", 0),
        "CAF": (content.find(b"data") + 4, ">q", 4),
    }[kind]


def with_size(kind: str, content: bytes, size: int) -> bytes:
    """A file whose samples have another size by the header."""
    at, layout, added = size_fields(kind, content)
    field = struct.pack(layout, size if size < 0 or size > 1 << 31 else size + added)
    return content[:at] + field + content[at + len(field) :]


WHOLE = {kind: encoded(SAMPLES, kind, subtype="PCM_16") for kind in FORMATS}
EXPECTED = read(WHOLE["WAV"])


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_files(kind: str) -> None:
    np.testing.assert_array_equal(read(WHOLE[kind]), EXPECTED)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("WAV", 0xFFFFFFFF), ("WAV", 0x7FFFF000), ("WAV", 0x80000000), ("WAV", 0),
        ("RF64", 0), ("RF64", 2**64 - 1), ("W64", 2**64 - 1), ("W64", 2**63 - 1), ("W64", 0),
        ("AIFF", 0), ("AIFF", 0xFFFFFFFF), ("AU", 0xFFFFFFFF), ("AU", 0), ("CAF", -1),
    ],
)  # fmt: skip
def test_sizes_of_writers_that_dont_know_them(kind: str, size: int) -> None:
    np.testing.assert_array_equal(read(with_size(kind, WHOLE[kind], size)), EXPECTED)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_header_of_half_the_file(kind: str) -> None:
    with pytest.raises(AudioError, match=r"its header gives .*(follow|there are)"):
        read(with_size(kind, WHOLE[kind], 8000))


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_header_of_3_gb_and_a_cut_file(kind: str) -> None:
    content = with_size(kind, WHOLE[kind], 3_000_000_000)
    with pytest.raises(AudioError, match="cut short"):
        read(content)


@pytest.mark.parametrize("kind", FORMATS)
@given(share=st.floats(0.0, 0.9999))
def test_a_file_cut_anywhere(kind: str, share: float) -> None:
    content = WHOLE[kind]
    end = content.rfind(SAMPLES_END[kind]) + len(SAMPLES_END[kind])
    cut = content[: int(share * end)]
    with pytest.raises(AudioError):
        read(cut)


PCM = (np.rint(EXPECTED[0] * 32768)).astype(np.int16)
SAMPLES_END = {kind: PCM[-20:].astype(">i2" if kind in ("AIFF", "AU", "CAF") else "<i2").tobytes() for kind in FORMATS}


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_chunks_and_zeros_behind_the_samples(kind: str) -> None:
    size = "<I" if kind == "WAV" else ">I"
    chunk = b"LIST" + struct.pack(size, 5) + b"INFO!\0"
    tag = b"id3 " + struct.pack(size, 12) + b"ID3\x04" + bytes(8)
    for behind in (chunk, chunk + tag, bytes(2000), chunk[:-1]):
        np.testing.assert_array_equal(read(WHOLE[kind] + behind), EXPECTED)


@pytest.mark.parametrize("padded", [True, False])
def test_an_odd_number_of_bytes(padded: bool) -> None:
    """24-bit samples, odd in number: chunks after them begin at even places, by programs that know the rule."""
    content = encoded(SAMPLES[:333], "WAV", subtype="PCM_24")
    expected = read(content)
    at = content.find(b"data") + 8
    content = content[: at + 999] + (b"\0" if padded else b"")
    listed = b"LIST" + struct.pack("<I", 4) + b"INFO"
    np.testing.assert_array_equal(read(content), expected)
    np.testing.assert_array_equal(read(content + listed), expected)
    np.testing.assert_array_equal(read(with_size("WAV", content, 0xFFFFFFFF)), expected)


def test_a_wav_from_a_pipe_cut_within_a_sample() -> None:
    content = with_size("WAV", encoded(noise(100, 2), "WAV"), 0xFFFFFFFF)
    with pytest.raises(AudioError, match="cut short within a sample"):
        read(content[:-1])


def test_joined_wavs() -> None:
    other = encoded(noise(4410, 2, seed=1), "WAV", 44100)
    assert read(WHOLE["WAV"] + WHOLE["WAV"]).shape == (1, 16002)
    assert read(WHOLE["WAV"] + other + WHOLE["WAV"]).shape == (1, 8001 + 1600 + 8001)


@pytest.mark.parametrize("kind", ["AIFF", "W64", "AU", "CAF"])
def test_other_files_behind_the_samples_are_no_chunks(kind: str) -> None:
    for other in (WHOLE[kind], WHOLE["WAV"]):
        with pytest.raises(AudioError, match="its header gives"):
            read(WHOLE[kind] + other)


@pytest.mark.parametrize("kind", ["VOC", "SVX"])
def test_other_formats_that_give_their_size(kind: str) -> None:
    content = encoded(SAMPLES, kind)
    assert read(content).shape == (1, 8001)
    with pytest.raises(AudioError, match="cut short"):
        read(content[: len(content) // 2])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF"])
def test_a_tag_before_the_header(kind: str) -> None:
    content = encoded(SAMPLES, kind)
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x15" + b"TIT2" + bytes(17)
    np.testing.assert_array_equal(read(tag + content), read(content))


def test_bw64() -> None:
    np.testing.assert_array_equal(read(b"BW64" + WHOLE["RF64"][4:]), EXPECTED)


def sparse(path: Path, head: bytes, data_bytes: int) -> None:
    """A file whose samples are zeros that take no space on the disk, but for the last ones."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + data_bytes)
        file.seek(-4, io.SEEK_END)
        file.write(struct.pack("<2h", 16384, -16384))


@pytest.mark.parametrize("channels", [1, 32])
def test_a_wav_over_4_gib_whose_sizes_wrapped(tmp_path: Path, channels: int) -> None:
    """The last samples are reached by seeking: to read all takes half a minute."""
    from dmcodec.audio import _opened

    data_bytes = GIB_4 + 1_000_000 * 64
    form = struct.pack("<HHIIHH", 1, channels, RATE, RATE * 2 * channels, 2 * channels, 16)
    sizes = [struct.pack("<I", (each + data_bytes) % GIB_4) for each in (36, 0)]
    sparse(tmp_path / "big.wav", b"RIFF" + sizes[0] + b"WAVEfmt \x10\0\0\0" + form + b"data" + sizes[1], data_bytes)
    with _opened(tmp_path / "big.wav") as audio, audio.sound_file(audio.parts[0]) as file:
        assert file.frames == data_bytes / (2 * channels)
        file.seek(-1, io.SEEK_END)
        assert file.read(1, always_2d=True)[0, -1] == -0.5
    first = next(read_blocks(tmp_path / "big.wav", RATE))
    assert not first.any()


def test_a_nist_file_that_says_more_than_it_holds() -> None:
    content = WHOLE["NIST"].replace(b"-i 8001", b"-i 9001")
    assert content != WHOLE["NIST"]
    with pytest.raises(AudioError, match="cut short, 2000 of"):
        read(content)


def test_samples_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(PCM.tobytes())
    with pytest.raises(AudioError, match=r"a\.raw: can't be read as audio .*convert the file to WAV"):
        read_audio(tmp_path / "a.raw")
    (tmp_path / "b.raw").write_bytes(WHOLE["WAV"])  # the content decides
    np.testing.assert_array_equal(read_audio(tmp_path / "b.raw")[0], EXPECTED)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8"])
def test_what_follows_the_end_of_a_voc_file_is_no_audio(subtype: str) -> None:
    content = encoded(SAMPLES, "VOC", subtype=subtype)
    expected = read(content)
    assert expected.shape == (1, 8001)
    with pytest.warns(AudioWarning, match="15 bytes after its last block are no audio"):
        np.testing.assert_array_equal(read(content + b"xyz" * 5), expected)
    np.testing.assert_array_equal(read(content + bytes(100)), expected)
    np.testing.assert_array_equal(read(content + content), np.tile(expected, 2))
