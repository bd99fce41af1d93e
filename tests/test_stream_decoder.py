"""Decoding while tokens come in: the same audio as all at once, however the codes are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, StreamError, TokensError
from dmcodec.export import export_bundle
from dmcodec.nn import DMCodec
from dmcodec.receptive_field import decoder_reach
from dmcodec.runtime import Codec, StreamDecoder


def assert_same(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Within 1e-5 of full scale (untrained weights can be louder than that)."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


def random_codes(frames: int, n_q: int = 8, size: int = 64, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, size, (n_q, frames))


def whole(model: DMCodec, codes: NDArray[np.int64], first_level: int = 0) -> NDArray[np.float32]:
    """torch's decode of all codes (n_q, frames) at once."""
    return model.decode(torch.from_numpy(codes)[:, None], first_level)[0, 0].numpy()


def streamed(stream: StreamDecoder, codes: NDArray[np.int64], sizes: list[int]) -> NDArray[np.float32]:
    """Pushes of the given sizes, again and again, then the rest."""
    audio: list[NDArray[np.float32]] = []
    start = 0
    while start < codes.shape[-1]:
        size = sizes[len(audio) % len(sizes)]
        audio.append(stream.push(codes[..., start : start + size]))
        start += size
    return np.concatenate([*audio, stream.finish()], axis=-1)


@settings(max_examples=60)
@given(frames=st.integers(1, 40), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_any_cutting_gives_the_whole_clip(
    codec: Codec, tiny_model: DMCodec, frames: int, sizes: list[int], seed: int
) -> None:
    codes = random_codes(frames, seed=seed)
    audio = streamed(codec.stream_decoder(), codes, sizes)
    assert audio.dtype == np.float32
    assert_same(audio, whole(tiny_model, codes))


FAMILY: dict[str, dict[str, Any]] = {
    "two residual layers": {"n_residual_layers": 2},
    "three residual layers": {"n_residual_layers": 3},
    "three strides": {"strides": (4, 4, 2)},
    "short strides": {"strides": (2, 2)},
    "odd strides": {"strides": (3, 5)},
    "long kernel": {"residual_kernel_size": 7},
    "one lstm layer": {"lstm_layers": 1},
    "24 kHz": {"sample_rate": 24000, "strides": (8, 5, 4, 2)},
    "causal, short strides": {"causal": True, "strides": (2, 2)},
    "causal, trimmed at both ends": {"causal": True, "strides": (3, 4), "trim_right_ratio": 0.5},
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_configuration_of_the_family(tmp_path: Path, name: str) -> None:
    small: dict[str, Any] = {"n_filters": 4, "dimension": 8, "semantic_dimension": 8, "codebook_size": 16, "n_q": 2}
    model = DMCodec.seeded(CodecConfig(**{**small, **FAMILY[name]}), seed=5)
    export_bundle(model, tmp_path / "bundle")
    codec = Codec.load(tmp_path / "bundle", threads=1)
    for frames in (1, 2, 3, 4, 5, 7, 8, 9, 23):
        codes = random_codes(frames, n_q=2, size=16, seed=frames)
        for sizes in ([1], [2, 1], [5]):
            audio = streamed(codec.stream_decoder(), codes, sizes)
            assert_same(audio, whole(model, codes))


@pytest.mark.parametrize("name", ["released", *FAMILY])
def test_the_look_ahead_is_exactly_what_the_audio_depends_on(name: str) -> None:
    """A later frame changes nothing before; the first frame within the look-ahead does."""
    small: dict[str, Any] = {"n_filters": 4, "dimension": 8, "semantic_dimension": 8}
    model = DMCodec.seeded(CodecConfig(**{**small, **FAMILY.get(name, {})}), seed=1)
    look_ahead, hop = decoder_reach(model.config).look_ahead_frames, model.config.hop_length
    frames, frame = 40, 12  # audio of this frame is asked for
    latents = torch.randn(1, 8, frames, generator=torch.Generator().manual_seed(0))

    def audio_of_frame(changed_from: int) -> NDArray[np.float32]:
        changed = latents.clone()
        changed[..., changed_from:] += 10
        with torch.inference_mode():
            return model.decoder(changed)[0, 0, frame * hop : (frame + 1) * hop].numpy()

    original = audio_of_frame(frames)
    np.testing.assert_array_equal(audio_of_frame(frame + look_ahead + 1), original)
    assert np.abs(audio_of_frame(frame + look_ahead) - original).max() > 0


def test_the_released_configuration_looks_80_ms_ahead() -> None:
    reach = decoder_reach(CodecConfig())
    assert (reach.front, reach.future, reach.look_ahead_frames) == (3, 1, 4)
    assert 1000 * reach.look_ahead_frames / CodecConfig().frame_rate == 80


def test_audio_comes_as_soon_as_the_look_ahead_is_filled(codec: Codec) -> None:
    stream, codes = codec.stream_decoder(), random_codes(12)
    lengths = [len(stream.push(codes[:, [index]])) for index in range(12)]
    assert lengths == [0] * stream.look_ahead_frames + [codec.hop_length] * (12 - stream.look_ahead_frames)
    assert len(stream.finish()) == stream.look_ahead_frames * codec.hop_length


def test_memory_is_constant_in_time(codec: Codec) -> None:
    stream = codec.stream_decoder()
    sizes = set()
    for index in range(60):
        stream.push(random_codes(3, seed=index))
        state = stream.state
        if index > 5:
            sizes.add((state.latents.shape, state.features.shape, state.hidden.shape))
    assert len(sizes) == 1


def test_streams_do_not_disturb_each_other(codec: Codec, tiny_model: DMCodec) -> None:
    clips = [random_codes(20, seed=seed) for seed in range(3)]
    streams = [codec.stream_decoder() for _ in clips]
    pieces: list[list[NDArray[np.float32]]] = [[] for _ in clips]
    for start in range(0, 20, 2):
        for stream, clip, piece in zip(streams, clips, pieces, strict=True):
            piece.append(stream.push(clip[:, start : start + 2]))
        with pytest.raises(TokensError):  # nor does one that fails
            streams[0].push(np.full((8, 1), 64))
    for stream, clip, piece in zip(streams, clips, pieces, strict=True):
        piece.append(stream.finish())
        assert_same(np.concatenate(piece), whole(tiny_model, clip))


def test_a_batch_of_streams_in_step(codec: Codec, tiny_model: DMCodec) -> None:
    codes = np.stack([random_codes(17, seed=seed) for seed in range(3)], axis=1)  # (n_q, batch, frames)
    audio = streamed(codec.stream_decoder(batch_size=3), codes, [4, 1])
    assert audio.shape == (3, 17 * 320)
    for row in range(3):
        assert_same(audio[row], whole(tiny_model, codes[:, row]))


def test_the_state_is_a_value(codec: Codec, tiny_model: DMCodec) -> None:
    codes, other = random_codes(20), random_codes(20, seed=7)
    stream = codec.stream_decoder()
    start = stream.push(codes[:, :10])
    kept = stream.state
    stream.push(other[:, 10:])
    stream.finish()
    again = codec.stream_decoder()
    again.state = kept
    audio = np.concatenate([start, again.push(codes[:, 10:]), again.finish()])
    assert_same(audio, whole(tiny_model, codes))
    again.reset()
    assert_same(streamed(again, other, [3]), whole(tiny_model, other))
    with pytest.raises(ArgumentError, match="state"):
        codec.stream_decoder(batch_size=2).state = kept


def test_fewer_and_higher_levels(codec: Codec, tiny_model: DMCodec) -> None:
    codes = random_codes(15)
    audio = streamed(codec.stream_decoder(n_q=3), codes[:3], [4])
    assert_same(audio, whole(tiny_model, codes[:3]))
    audio = streamed(codec.stream_decoder(first_level=5), codes[5:], [4])
    assert_same(audio, whole(tiny_model, codes[5:], 5))


def test_repr_is_one_line_that_says_what_matters(codec: Codec) -> None:
    stream = codec.stream_decoder()
    stream.push(random_codes(12))
    assert repr(stream) == "StreamDecoder(levels 0 to 7, 12 frames in, 8 out, look-ahead 4 frames)"
    state = repr(stream.state)
    assert state.startswith("DecoderState(12 frames in, 8 out, 9 through the LSTM, batch of 1, ")
    assert state.endswith(" KiB)")
    stream.finish()
    assert repr(stream) == "StreamDecoder(levels 0 to 7, 12 frames in, 12 out, finished, look-ahead 4 frames)"
    batch = codec.stream_decoder(n_q=2, first_level=3, batch_size=3)
    assert repr(batch) == "StreamDecoder(levels 3 to 4, batch of 3, 0 frames in, 0 out, look-ahead 4 frames)"
    assert "batch of 3" in repr(batch.state)


@pytest.mark.parametrize(
    "codes",
    [
        random_codes(5, n_q=7),
        random_codes(0),
        random_codes(5)[None],
        random_codes(5)[0],
        random_codes(5).astype(float),
        np.full((8, 3), -1),
        np.full((8, 3), 64),
        "text",
        [[1, 2], [3]] * 4,
    ],
)
def test_wrong_pushes_are_refused_and_change_nothing(codec: Codec, tiny_model: DMCodec, codes: Any) -> None:
    good = random_codes(12)
    stream = codec.stream_decoder()
    start = stream.push(good[:, :6])
    with pytest.raises(TokensError):
        stream.push(codes)
    audio = np.concatenate([start, stream.push(good[:, 6:]), stream.finish()])
    assert_same(audio, whole(tiny_model, good))


def test_streams_used_out_of_turn(codec: Codec) -> None:
    stream = codec.stream_decoder()
    assert stream.finish().shape == (0,)
    with pytest.raises(StreamError, match="push after finish"):
        stream.push(random_codes(1))
    with pytest.raises(StreamError, match="finished already"):
        stream.finish()
    ended, other = stream.state, codec.stream_decoder()
    other.state = ended  # the end is a part of the state
    with pytest.raises(StreamError, match="push after finish"):
        other.push(random_codes(1))
    with pytest.raises(StreamError, match=r"left open.*last 2 frames"), codec.stream_decoder() as left:
        left.push(random_codes(2))
    with pytest.raises(KeyError), codec.stream_decoder() as broken:  # noqa: PT012 - the error itself comes through
        broken.push(random_codes(2))
        raise KeyError
    with codec.stream_decoder() as unused:
        assert unused.look_ahead_frames == 4


@pytest.mark.parametrize(
    "arguments", [{"n_q": 9}, {"n_q": 0}, {"first_level": 8}, {"first_level": -1}, {"batch_size": 0}]
)
def test_wrong_arguments(codec: Codec, arguments: dict[str, int]) -> None:
    with pytest.raises(ArgumentError):
        codec.stream_decoder(**arguments)
