"""Files that hold no audio, or not all of it: the error says what they are."""

from __future__ import annotations

import io

import pytest
from sound_files import encoded, noise

from dmcodec.audio import read_audio
from dmcodec.errors import AudioError

WAV, FLAC = (encoded(noise(50000), kind, subtype="PCM_16") for kind in ("WAV", "FLAC"))
LENGTH = slice(21, 26)  # of the bytes of a FLAC header that hold the number of samples


def longer_by_its_header(flac: bytes, samples: int) -> bytes:
    field = int.from_bytes(flac[LENGTH], "big") + samples
    return flac[: LENGTH.start] + field.to_bytes(5, "big") + flac[LENGTH.stop :]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\x89DMC" + bytes(40), "is a token file, not audio; `dmcodec decode` reads it"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page, not audio"),
        (b"\xef\xbb\xbf<html lang=en>", "is a web page, not audio"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is the pointer of a Git LFS file"),
        *((WAV[:length], "cut short within its header") for length in (4, 11, 12, 20, 36, 40, 43)),
        (FLAC[: len(FLAC) // 2], "cut short, 24576 of 50000 samples are there"),
        (longer_by_its_header(FLAC, 1000), "cut short, 50000 of 51000 samples are there"),
        (FLAC[:-1], "its FLAC frames are cut short or damaged"),
    ],
)
def test_what_a_file_is(content: bytes, told: str) -> None:
    with pytest.raises(AudioError, match=r"^<BytesIO>: ") as caught:
        read_audio(io.BytesIO(content))
    assert told in str(caught.value)


def test_bytes_behind_a_flac_file_dont_make_it_a_cut_one() -> None:
    assert read_audio(io.BytesIO(FLAC + bytes(100)))[0].shape == (1, 50000)
