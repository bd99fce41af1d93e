"""The `.dmc` token file as docs/reference/token-file.md describes it: round trips, and every way to damage one."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from platforms import linux

from dmcodec.errors import ArgumentError, TokenFileError, TokenFileNotFoundError
from dmcodec.token_file import TokenFileReader, read_header, token_file_writer
from dmcodec.tokens import Tokens

MODEL_ID = "0123456789abcdef"


def make(n_q: int, num_samples: int, codebook_size: int, hop: int = 320, seed: int = 0, model_id: str = "") -> Tokens:
    codes: Any = np.random.default_rng(seed).integers(0, codebook_size, (n_q, -(-num_samples // hop)))
    return Tokens(codes, num_samples, 16000, hop, codebook_size, model_id)


def raw_file(
    n_q: int = 1,
    codebook_size: int = 16,
    hop: int = 320,
    rate: int = 16000,
    num_samples: int = 640,
    payload: bytes = b"\x5a",
    version: int = 1,
    first_level: int = 0,
    reserved: int = 0,
    magic: bytes = b"\x89DMC",
) -> bytes:
    """A token file straight from the document's table, with valid checksums whatever it claims."""
    fields = (magic, version, n_q, first_level, reserved, codebook_size, hop, rate, num_samples, bytes(8))
    header = struct.pack("<4sBBBBIIIQ8s", *fields)
    return header + struct.pack("<I", zlib.crc32(header)) + payload + struct.pack("<I", zlib.crc32(payload))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path that hypothesis examples overwrite."""
    return tmp_path_factory.mktemp("tokens") / "clip.dmc"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small valid file whose last byte of codes has unused bits."""
    path = tmp_path / "small.dmc"
    make(3, 1500, 1000, model_id=MODEL_ID).save(path)
    return path


def test_the_file_of_two_frames_is_byte_for_byte_what_the_document_says(tmp_path: Path) -> None:
    # codes: frame 0 = (5, 2), frame 1 = (7, 0), frame 2 = (1, 6); codebook of 8: 3 bits each, frame by frame:
    # 101 010 111 000 001 110 -> 10101011 10000011 10(000000)
    codes: Any = [[5, 7, 1], [2, 0, 6]]
    tokens = Tokens(codes, 641, 16000, 320, 8, MODEL_ID, first_level=1)
    tokens.save(tmp_path / "a.dmc")
    header = bytes.fromhex(
        "89444d43"  # magic
        "01"  # version
        "02"  # n_q
        "01"  # first_level
        "00"  # reserved
        "08000000"  # codebook_size
        "40010000"  # hop_length 320
        "803e0000"  # sample_rate 16000
        "8102000000000000"  # num_samples 641
        "0123456789abcdef"  # model_id
    )
    head = header + zlib.crc32(header).to_bytes(4, "little")
    packed = bytes([0b10101011, 0b10000011, 0b10000000])
    assert (tmp_path / "a.dmc").read_bytes() == head + packed + zlib.crc32(packed).to_bytes(4, "little")
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the CRC-32 that the document means
    assert Tokens.load(tmp_path / "a.dmc") == tokens


@given(
    n_q=st.integers(1, 255),
    codebook_size=st.one_of(st.integers(2, 65536), st.sampled_from([2, 3, 1000, 1023, 1024, 1025, 65535, 65536])),
    hop=st.integers(1, 1000),
    frames=st.integers(0, 30),
    data=st.data(),
)
@settings(max_examples=150)
def test_what_is_saved_is_what_is_loaded(
    scratch: Path, n_q: int, codebook_size: int, hop: int, frames: int, data: st.DataObject
) -> None:
    num_samples = data.draw(st.integers((frames - 1) * hop + 1, frames * hop)) if frames else 0
    model_id = data.draw(st.sampled_from(["", MODEL_ID]))
    codes: Any = np.random.default_rng(frames).integers(0, codebook_size, (n_q, frames))
    if codes.size:
        codes[0, 0], codes[-1, -1] = 0, codebook_size - 1  # the extremes, always
    tokens = Tokens(codes, num_samples, data.draw(st.integers(1, 2**32 - 1)), hop, codebook_size, model_id)
    tokens.save(scratch)
    loaded = Tokens.load(scratch)
    assert loaded == tokens
    np.testing.assert_array_equal(loaded.codes, codes)
    assert loaded.codes.dtype == np.uint16
    payload = math.ceil(frames * n_q * math.ceil(math.log2(codebook_size)) / 8)
    assert scratch.stat().st_size == 44 + payload
    header = read_header(scratch)
    assert (header.n_q, header.num_frames, header.num_samples) == (n_q, frames, num_samples)
    assert header.model_id == model_id


def test_ten_seconds_of_eight_levels_of_1024_take_5044_bytes(tmp_path: Path) -> None:
    make(8, 160000, 1024).save(tmp_path / "a.dmc")
    assert (tmp_path / "a.dmc").stat().st_size == 5044


def test_every_altered_byte_is_refused(small: Path) -> None:
    good = small.read_bytes()
    accepted = []
    for offset in range(len(good)):
        for flip in (0x01, 0x80, 0x10, 0x55, 0xFF):
            small.write_bytes(good[:offset] + bytes([good[offset] ^ flip]) + good[offset + 1 :])
            try:
                Tokens.load(small)
                accepted.append((offset, flip))
            except TokenFileError:
                continue
    assert accepted == []


def test_every_truncation_is_refused(small: Path) -> None:
    good = small.read_bytes()
    for length in range(len(good)):
        small.write_bytes(good[:length])
        with pytest.raises(TokenFileError, match=r"small\.dmc"):
            Tokens.load(small)
        with pytest.raises(TokenFileError, match=r"small\.dmc"):
            Tokens.load_frames(small, 0, 1)


@pytest.mark.parametrize("extra", [b"\0", b"\n", b"another file" * 100])
def test_bytes_behind_the_end_are_refused(small: Path, extra: bytes) -> None:
    small.write_bytes(small.read_bytes() + extra)
    with pytest.raises(TokenFileError, match="foreign bytes"):
        Tokens.load(small)


@pytest.mark.parametrize(
    "content", [b"", b"\x89", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"hello, world\n" * 10, bytes(100), b"\x89PNG" * 20]
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.dmc"
    path.write_bytes(content)
    with pytest.raises(TokenFileError, match=r"foreign\.dmc"):
        Tokens.load(path)


def test_audio_is_not_a_token_file(speech_wav: Path) -> None:
    with pytest.raises(TokenFileError, match="not a token file"):
        Tokens.load(speech_wav)


def test_the_raw_file_that_the_next_tests_alter_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.dmc"
    path.write_bytes(raw_file())
    np.testing.assert_array_equal(Tokens.load(path).codes, [[5, 10]])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (raw_file(version=2), "update"),
        (raw_file(version=255, payload=b"whatever a later version holds"), "update"),
        (raw_file(version=0), "out of range"),
        (raw_file(reserved=1), "out of range"),
        (raw_file(first_level=255), "out of range"),
        (raw_file(n_q=0), "out of range"),
        (raw_file(codebook_size=0), "out of range"),
        (raw_file(codebook_size=1), "out of range"),
        (raw_file(codebook_size=65537), "out of range"),
        (raw_file(codebook_size=2**32 - 1), "out of range"),
        (raw_file(hop=0), "out of range"),
        (raw_file(rate=0), "out of range"),
        (raw_file(num_samples=2**63), "cut short"),
        (raw_file(num_samples=2**64 - 1, hop=1, n_q=255, codebook_size=65536), "cut short"),
        (raw_file(num_samples=0), "foreign bytes"),
        (raw_file(codebook_size=10), r"code 10, outside 0 to 9"),
        (raw_file(codebook_size=8, payload=bytes([0b10101001])), "unused bits"),
        (raw_file(codebook_size=8, payload=bytes([0b10101010])), "unused bits"),
        (raw_file(codebook_size=8, payload=bytes([0b10101110])), "unused bits"),
    ],
)
def test_headers_that_lie_are_refused_although_their_checksums_hold(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "hostile.dmc"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(TokenFileError, match=reason) as caught:
            Tokens.load(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "hostile.dmc" in str(caught.value)
    assert peak_bytes < 2_000_000


@linux
def test_a_header_that_claims_exabytes_is_refused_within_little_memory(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "huge.dmc"
    path.write_bytes(raw_file(num_samples=2**62, hop=1, n_q=255))
    code = "import sys; from dmcodec.tokens import Tokens; from dmcodec.errors import TokenFileError\n"
    code += "try: Tokens.load(sys.argv[1])\nexcept TokenFileError: print('refused')"
    limit = 4 * 2**30
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert (result.returncode, result.stdout.strip()) == (0, "refused"), result.stderr


@pytest.mark.parametrize("codebook_size", [1024, 1000, 3])
def test_every_range_of_frames_equals_the_slice_of_the_whole(tmp_path: Path, codebook_size: int) -> None:
    path = tmp_path / "a.dmc"
    whole = make(3, 9 * 320 + 17, codebook_size, model_id=MODEL_ID)
    whole.save(path)
    for start in range(whole.num_frames):
        for stop in range(start + 1, whole.num_frames + 3):
            part = Tokens.load_frames(path, start, stop)
            np.testing.assert_array_equal(part.codes, whole.codes[:, start:stop])
            assert part.num_samples == min(stop * 320, whole.num_samples) - start * 320
            assert part.model_id == MODEL_ID


@given(codebook_size=st.integers(2, 65536), n_q=st.integers(1, 20), frames=st.integers(1, 40), data=st.data())
@settings(max_examples=60)
@example(codebook_size=65536, n_q=1, frames=1, data=None)
def test_ranges_of_frames_of_any_file(scratch: Path, codebook_size: int, n_q: int, frames: int, data: Any) -> None:
    whole = make(n_q, frames * 7, codebook_size, hop=7)
    whole.save(scratch)
    start = data.draw(st.integers(0, frames - 1)) if data else 0
    stop = data.draw(st.integers(start + 1, frames)) if data else frames
    np.testing.assert_array_equal(Tokens.load_frames(scratch, start, stop).codes, whole.codes[:, start:stop])


@given(codebook_size=st.integers(2, 65536), n_q=st.integers(1, 9), sizes=st.lists(st.integers(0, 20), max_size=6))
@settings(max_examples=60)
def test_writing_and_reading_in_chunks_of_any_size(
    scratch: Path, codebook_size: int, n_q: int, sizes: list[int]
) -> None:
    whole = make(n_q, sum(sizes) * 7, codebook_size, hop=7)
    whole.save(scratch)
    content = scratch.read_bytes()
    with token_file_writer(scratch, dataclasses.replace(read_header(scratch), num_samples=0)) as writer:
        for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=bool(sizes)):
            writer.write(whole.codes[:, start : start + size])
        writer.finish(whole.num_samples)
    assert scratch.read_bytes() == content
    for size in (1, 3, 1000):
        chunks = list(TokenFileReader(io.BytesIO(content), "stream").chunks(size))
        np.testing.assert_array_equal(np.concatenate([whole.codes[:, :0], *chunks], axis=1), whole.codes)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 2), (5, 6), (100, 200), (0, -1), (0, 0)])
def test_ranges_outside_the_clip_are_refused(small: Path, start: int, stop: int) -> None:
    with pytest.raises(ArgumentError, match=r"small\.dmc"):
        Tokens.load_frames(small, start, stop)


def test_a_clip_without_frames_has_no_range(tmp_path: Path) -> None:
    make(2, 0, 16).save(tmp_path / "empty.dmc")
    assert Tokens.load(tmp_path / "empty.dmc").codes.shape == (2, 0)
    with pytest.raises(ArgumentError):
        Tokens.load_frames(tmp_path / "empty.dmc", 0, 1)


def test_a_range_with_a_code_out_of_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dmc"
    path.write_bytes(raw_file(codebook_size=10))
    assert Tokens.load_frames(path, 0, 1).codes.tolist() == [[5]]
    with pytest.raises(TokenFileError, match="code 10"):
        Tokens.load_frames(path, 1, 2)


READERS: list[Callable[[Path], object]] = [Tokens.load, read_header, lambda path: Tokens.load_frames(path, 0, 1)]


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_and_a_folder(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    with pytest.raises(TokenFileNotFoundError, match=r"none\.dmc"):
        reader(tmp_path / "none.dmc")
    assert issubclass(TokenFileNotFoundError, FileNotFoundError)
    with pytest.raises(TokenFileError, match=tmp_path.name):
        reader(tmp_path)
    with pytest.raises(TokenFileError):
        reader(tmp_path / ("long" * 2000))
