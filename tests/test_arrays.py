"""Arrays, tensors and tokens as users bring them: taken, or an error of ours that says what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmcodec.audio import prepare_waveform
from dmcodec.errors import ArgumentError, AudioError, AudioWarning, DmcodecError, TokensError
from dmcodec.runtime import Codec, Tokens

RATE = 16000
X: NDArray[np.float32] = (np.random.default_rng(0).standard_normal(4000) * 0.1).astype(np.float32)
INT16 = np.rint(X * 32767).astype(np.int16)


class Subclass(np.ndarray[Any, Any]):
    """What pandas, astropy and others derive from arrays."""


class Foreign:
    """An object whose conversion fails in its own way."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("on another device\nsecond line")


def tensor(**change: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.from_numpy(X.copy()).requires_grad_(change.get("grad", False)).to(change.get("dtype", torch.float32))


def memmap(tmp_path: Path) -> Any:
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


TAKEN: dict[str, Callable[[], Any]] = {
    "big-endian float": lambda: X.astype(">f4"),
    "big-endian double": lambda: X.astype(">f8"),
    "list": lambda: X.tolist(),
    "tuple": lambda: tuple(X.tolist()),
    "every second": lambda: np.repeat(X, 2)[::2],
    "reversed twice": lambda: X[::-1].copy()[::-1],
    "column of a table": lambda: np.stack([X, X], axis=1)[:, 0],
    "column-major": lambda: np.asfortranarray(np.stack([X, X])),
    "masked, nothing masked": lambda: np.ma.masked_greater(X, 99),
    "subclass": lambda: X.view(Subclass),
    "read-only": lambda: np.frombuffer(X.tobytes(), np.float32),
    "tensor": tensor,
    "tensor with a graph": lambda: tensor(grad=True),
    "tensor of doubles": lambda: tensor().double(),
}


@pytest.mark.parametrize("name", TAKEN)
def test_waveforms_that_are_taken(name: str) -> None:
    np.testing.assert_allclose(prepare_waveform(TAKEN[name](), RATE, RATE), X, atol=1e-7)


def test_integers_of_16_bits_of_any_byte_order_and_place(tmp_path: Path) -> None:
    expected = prepare_waveform(INT16, RATE, RATE)
    np.testing.assert_array_equal(prepare_waveform(INT16.astype(">i2"), RATE, RATE), expected)
    np.testing.assert_array_equal(prepare_waveform(np.repeat(INT16, 3)[::3], RATE, RATE), expected)
    np.testing.assert_array_equal(prepare_waveform(memmap(tmp_path), RATE, RATE), X)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "int8": (lambda: X.astype(np.int8), r"int8.*/ 128\)"),
    "int32": (lambda: X.astype(np.int32), r"int32.*/ 2147483648\)"),
    "int64": (lambda: X.astype(np.int64), r"int64.*astype\(np.int16\)"),
    "uint8": (lambda: X.astype(np.uint8), r"uint8.*128"),
    "float16": (lambda: X.astype(np.float16), r"float16.*astype\(np.float32\)"),
    "bool": (lambda: X > 0, "bool"),
    "objects": (lambda: X.astype(object), "object"),
    "text": (lambda: np.array(["a"]), "<U1"),
    "bfloat16": (lambda: tensor().bfloat16(), r"bfloat16.*\.float\(\)"),
    "half tensor": (lambda: tensor().half(), "float16"),
    "masked": (lambda: np.ma.masked_greater(X, 0.1), r"masked.*filled"),
    "(samples, channels)": (lambda: np.stack([X, X], 1), r"\(4000, 2\).*\.T"),
    "few (samples, channels)": (lambda: np.stack([X, X], 1)[:20], r"20 channels of 2 samples.*\.T"),
    "batch": (lambda: X[None, None], r"\(1, 1, 4000\).*\[0\]"),
    "one number": (lambda: np.float32(1), "list of waveforms"),
    "path": (lambda: "speech.wav", "encode_file"),
    "Path": (lambda: Path("speech.wav"), "encode_file"),
    "row of a dataset": (lambda: {"array": X, "sampling_rate": RATE}, r"\[\"array\"\]"),
    "foreign": (Foreign, "can't be converted to an array .on another device.$"),
    "ragged": (lambda: [[0.1], [0.1, 0.2]], "can't be converted"),
    "None": (lambda: None, "shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_waveforms_that_are_refused(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(AudioError, match=f"clip: .*{reason}"):
        prepare_waveform(make(), RATE, RATE, "clip")


# Channels


def stereo(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([left, right])


def test_a_channel_can_be_chosen() -> None:
    both = stereo(X, 0.5 * X[::-1])
    np.testing.assert_array_equal(prepare_waveform(both, RATE, RATE, channel=1), 0.5 * X[::-1])
    np.testing.assert_array_equal(prepare_waveform(both, RATE, RATE, channel=np.int64(0)), X)  # type: ignore[arg-type]
    np.testing.assert_array_equal(prepare_waveform(X, RATE, RATE, channel=0), X)
    both[1, 5] = np.nan
    np.testing.assert_array_equal(prepare_waveform(both, RATE, RATE, channel=0), X)
    with pytest.raises(AudioError, match="clip: has no channel 2; it has 2 channels, numbers 0 to 1"):
        prepare_waveform(both, RATE, RATE, "clip", channel=2)
    with pytest.raises(AudioError, match="clip: has no channel 1; it has 1 channel, number 0"):
        prepare_waveform(X, RATE, RATE, "clip", channel=1)


@pytest.mark.parametrize("channel", [-1, 1.0, "0", True, float("nan")])
def test_what_is_no_channel(channel: Any) -> None:
    with pytest.raises(ArgumentError, match="channel must be a whole number"):
        prepare_waveform(stereo(X, X), RATE, RATE, channel=channel)


OTHER = np.random.default_rng(1).standard_normal(4000).astype(np.float32) * np.float32(0.1)


@pytest.mark.parametrize("right", [-X, -0.8 * X, -X + 0.01 * OTHER])
def test_a_warning_where_channels_cancel(right: NDArray[np.float32]) -> None:
    with pytest.warns(AudioWarning, match=r"clip: its 2 channels cancel each other .*channel=0 or --channel 0"):
        prepare_waveform(stereo(X, right), RATE, RATE, "clip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_waveform(stereo(X, right), RATE, RATE, channel=0)


@pytest.mark.parametrize("right", [X, OTHER, 0 * X, 0.1 * X, -0.1 * X, -0.5 * X])
def test_no_warning_where_they_do_not(right: NDArray[np.float32]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_waveform(stereo(X, right), RATE, RATE)
        prepare_waveform(stereo(1e-5 * X, -1e-5 * X), RATE, RATE)  # silence
        many = np.random.default_rng(2).standard_normal((32, 4000)).astype(np.float32) * np.float32(0.1)
        prepare_waveform(many, RATE, RATE)


@pytest.mark.parametrize(("scale", "bits"), [(128, 8), (32768, 16), (8388608, 24), (2147483648, 32)])
def test_a_warning_for_integers_as_floats(scale: int, bits: int) -> None:
    loud = X / np.abs(X).max()
    with pytest.warns(AudioWarning, match=f"probably {bits}-bit integers as floats: divide them by {scale}"):
        prepare_waveform(loud * (scale - 1), RATE, RATE, "clip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_waveform(loud * 4, RATE, RATE)


# Codec and tokens


@pytest.fixture(scope="module")
def tokens(tiny_codec: Codec) -> Tokens:
    return tiny_codec.encode(X, RATE)


@pytest.fixture(scope="module")
def tiny_codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


def test_encode_takes_a_channel(tiny_codec: Codec) -> None:
    both = stereo(X, OTHER)
    alone = [tiny_codec.encode(each, RATE) for each in both]
    assert [tiny_codec.encode(both, RATE, channel=index) for index in (0, 1)] == alone
    assert tiny_codec.encode_batch([both, both], RATE, channel=1) == [alone[1]] * 2


def test_batches_are_lists(tiny_codec: Codec, tokens: Tokens) -> None:
    assert tiny_codec.encode_batch((each for each in (X, X)), RATE) == [tokens, tokens]  # type: ignore[arg-type]
    assert tiny_codec.encode_batch(np.stack([X, X]), RATE) == [tokens, tokens]  # type: ignore[arg-type]
    for batch in (None, 1.0, "a.wav", {"array": X}, np.float32(1)):
        with pytest.raises(ArgumentError, match="expected a list of waveforms"):
            tiny_codec.encode_batch(batch, RATE)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=r"waveform 0: .*list of waveforms"):
        tiny_codec.encode_batch(X, RATE)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="expected a list of Tokens"):
        tiny_codec.decode_batch(tokens)  # type: ignore[arg-type]


def wrong_calls(codec: Codec, tokens: Tokens) -> list[tuple[Callable[[], Any], str]]:
    codes: Any = tokens.codes.astype(np.int64)
    anything: Any = codec
    return [
        (lambda: anything.encode(X, RATE, context_s="1"), "context_s"),
        (lambda: anything.encode(X, RATE, context_s=float("nan")), "context_s"),
        (lambda: anything.encode(X, RATE, n_q=True), "n_q"),
        (lambda: anything.encode(X, RATE, n_q=2.0), "n_q"),
        (lambda: anything.decode(codes), "Tokens.from_codes"),
        (lambda: anything.decode("a.dmc"), "Tokens.load"),
        (lambda: anything.decode(tokens, n_q="1"), "n_q"),
        (lambda: Tokens.from_codes(codes[None], codec.config), r"\[0\]"),
        (lambda: Tokens.from_codes(codes[:, None], codec.config), r"\[:, 0\]"),
        (lambda: Tokens.from_codes(codes.T, codec.config), "13 levels, but this codec has 8"),
        (lambda: Tokens.from_codes(codes.T[:9], codec.config), r"transpose .*\.T"),
        (lambda: Tokens.from_codes(codes.astype(float), codec.config), "astype"),
        (lambda: Tokens.from_codes(Foreign(), codec.config), "can't be converted"),
        (lambda: Tokens.from_codes(None, codec.config), "shape"),
        (lambda: Tokens(codes.T, tokens.num_samples, RATE, 320, 64), r"transpose .*\.T"),
        (lambda: Tokens(np.ma.masked_equal(codes, codes[0, 0]), 4000, RATE, 320, 64), "masked"),
        (lambda: tokens.levels(3.0), "n_q"),  # type: ignore[arg-type]
        (lambda: tokens.levels(skip="1"), "skip"),  # type: ignore[arg-type]
        (lambda: tokens.frames("1"), "whole"),  # type: ignore[arg-type]
        (lambda: Tokens.join([codes]), "join takes Tokens"),
        (lambda: Tokens.join(tokens), "join takes a list"),  # type: ignore[arg-type]
        (lambda: Tokens.load(b"\x89DMC\x01\x00"), "BytesIO"),  # type: ignore[arg-type]
        (lambda: Tokens.load(3.5), "path"),  # type: ignore[arg-type]
        (lambda: Tokens.load("a\0b.dmc"), "no such"),
        (lambda: codec.encode_file(7), "path"),  # type: ignore[arg-type]
        (lambda: codec.encode_file(b"RIFF"), "BytesIO"),  # type: ignore[arg-type]
        (lambda: codec.stream_decoder(n_q="8"), "n_q"),  # type: ignore[arg-type]
        (lambda: codec.stream_decoder(batch_size="8"), "batch_size"),  # type: ignore[arg-type]
        (lambda: codec.stream_decoder().push(codes.T), "expected codes"),
        (lambda: codec.stream_decoder().push(codes.astype(float)), "integers"),
        (lambda: codec.stream_decoder().push(Foreign()), "can't be converted"),
        (lambda: codec.stream_decoder().push(None), "expected codes"),
        (lambda: codec.stream_decoder().push([[1], [1, 2]]), "can't be converted"),
    ]


def test_wrong_calls_get_an_error_of_ours(tiny_codec: Codec, tokens: Tokens) -> None:
    for call, reason in wrong_calls(tiny_codec, tokens):
        with pytest.raises(DmcodecError, match=reason):
            call()


def test_tokens_of_what_users_have(tiny_codec: Codec, tokens: Tokens) -> None:
    torch = pytest.importorskip("torch")
    codes, config = tokens.codes, tiny_codec.config
    expected = Tokens.from_codes(codes, config)
    for given in (
        codes.tolist(),
        codes.astype(">i4"),
        torch.from_numpy(codes.astype(np.int64)),
        codes.astype(np.uint8),
    ):
        assert Tokens.from_codes(given, config) == expected
        stream = tiny_codec.stream_decoder(n_q=np.int64(8))  # type: ignore[arg-type]
        audio = np.concatenate([stream.push(given), stream.finish()])
        np.testing.assert_allclose(audio, tiny_codec.decode(expected), atol=1e-5)
    assert Tokens.from_codes(codes[2:], config, first_level=2) == expected.levels(skip=2)
    assert Tokens.join(each for each in [expected, expected]).num_frames == 2 * expected.num_frames
    with pytest.raises(TokensError, match="nothing to join"):
        Tokens.join([])
