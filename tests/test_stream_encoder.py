"""Encoding while speech comes in: the same codes however the samples are cut, and the whole clip's in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_streams import Codes, LatentsOf, Samples, assert_whole, cut, runner, streamed
from numpy.typing import NDArray

from dmcodec.audio import prepare_waveform
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec, StreamEncoder
from dmcodec.sample import speech

LOOK_AHEAD_S = 0.2


@pytest.fixture(scope="module")
def codec(tiny_codec: Codec) -> Codec:
    return tiny_codec


@settings(max_examples=40)
@given(
    num_samples=st.integers(1, 16000),
    sizes=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 5000)), min_size=1, max_size=5),
    look_ahead_s=st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.33]),
    step_s=st.sampled_from([None, 0.02, 0.2]),
)
def test_any_cutting_gives_the_same_codes(
    codec: Codec, num_samples: int, sizes: list[int], look_ahead_s: float, step_s: float | None
) -> None:
    waveform = speech(40000, 16000)[-num_samples:]
    if num_samples / min(sizes) > 3000:
        sizes = [max(sizes) + 50]
    at_once = streamed(codec.stream_encoder(look_ahead_s, step_s=step_s), [waveform])
    assert at_once.dtype == np.uint16
    assert at_once.shape == (8, codec.config.num_frames(num_samples))
    got = streamed(codec.stream_encoder(look_ahead_s, step_s=step_s), cut(waveform, sizes))
    np.testing.assert_array_equal(got, at_once)


def test_single_samples_give_the_same_codes(codec: Codec) -> None:
    waveform = speech(9000, 16000)
    expected = streamed(codec.stream_encoder(0.1), [waveform])
    np.testing.assert_array_equal(streamed(codec.stream_encoder(0.1), cut(waveform, [1])), expected)


@settings(max_examples=40)
@given(num_samples=st.integers(1, 12000), sizes=st.lists(st.integers(50, 3000), min_size=1, max_size=5))
def test_a_look_ahead_as_long_as_the_clip_gives_its_codes(
    codec: Codec, tiny_model: DMCodec, num_samples: int, sizes: list[int]
) -> None:
    waveform = speech(50000, 16000)[-num_samples:]
    run = LatentsOf(codec.graphs.arrays)
    got = streamed(StreamEncoder(run, codec.config, num_samples / 16000), cut(waveform, sizes))
    assert_whole(codec.graphs.arrays, tiny_model, waveform, run.take(), got)


FAMILY: dict[str, dict[str, Any]] = {
    "forward only": {"bidirectional": False},
    "forward only, three layers": {"bidirectional": False, "lstm_layers": 3},
    "one LSTM layer": {"lstm_layers": 1},
    "three LSTM layers": {"lstm_layers": 3},
    "two residual layers": {"n_residual_layers": 2, "strides": (8, 5, 4)},
    "long frames": {"strides": (8, 8, 8, 5)},
    "odd strides, 24 kHz": {"sample_rate": 24000, "strides": (7, 9, 5)},
    "causal, short frames": {"bidirectional": False, "causal": True, "strides": (2, 3), "n_residual_layers": 2},
    "causal convolutions, both directions": {"causal": True},
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_configuration_of_the_family(name: str) -> None:
    small: dict[str, Any] = {"n_filters": 2, "dimension": 8, "semantic_dimension": 8, "codebook_size": 16, "n_q": 2}
    config = CodecConfig(**{**small, **FAMILY[name]})
    model, hop = DMCodec.seeded(config, seed=4), config.hop_length
    run = LatentsOf(runner(model))
    for num_samples in (1, hop, 3 * hop + 1, 17 * hop - 1, 43 * hop + 5):
        waveform = speech(num_samples, config.sample_rate)
        long_enough = num_samples / config.sample_rate if config.bidirectional else None
        got = streamed(StreamEncoder(run, config, long_enough), cut(waveform, [hop - 1, 5 * hop]))
        assert_whole(run, model, waveform, run.take(), got)
        look_ahead_s = 0.3 if config.bidirectional else None
        at_once = streamed(StreamEncoder(run, config, look_ahead_s), [waveform])
        np.testing.assert_array_equal(streamed(StreamEncoder(run, config, look_ahead_s), cut(waveform, [99])), at_once)
        run.take()


@pytest.mark.parametrize(("look_ahead_s", "step_s"), [(0.0, 0.1), (0.1, 0.1), (0.25, 0.1), (0.1, 0.02), (0.1, 0.26)])
def test_the_delay_is_what_is_stated_and_no_less(codec: Codec, look_ahead_s: float, step_s: float) -> None:
    waveform, hop = speech(32000, 16000), codec.hop_length
    stream = codec.stream_encoder(look_ahead_s, step_s=step_s)
    assert stream.step_frames == round(50 * step_s)
    assert stream.delay_s == stream.delay_samples / 16000
    arrived: list[int] = []  # samples that had been pushed when each frame came
    for pushed in range(1, len(waveform) + 1):
        arrived += [pushed] * stream.push(waveform[pushed - 1 : pushed]).shape[1]
    waited = np.array(arrived) - hop * np.arange(len(arrived))
    assert waited.max() == stream.delay_samples
    assert waited.min() == stream.delay_samples - (stream.step_frames - 1) * hop


@pytest.mark.parametrize("look_ahead_s", [0.0, 0.1, 0.25])
def test_codes_depend_on_all_samples_that_are_waited_for_and_on_no_later_one(
    tiny_model: DMCodec, codec: Codec, look_ahead_s: float
) -> None:
    """The latents of the frame that waits longest change with the last sample, and the codes with none after it."""
    waveform, hop = speech(16000, 16000), codec.hop_length
    run = LatentsOf(codec.graphs.arrays)

    def latents_of(samples: Samples) -> NDArray[np.float32]:
        streamed(StreamEncoder(run, codec.config, look_ahead_s), [samples])
        return run.take()

    stream = codec.stream_encoder(look_ahead_s)
    frame = 4 * stream.step_frames - 3  # the next one's convolution reads a step later
    end = frame * hop + stream.delay_samples
    later, last = waveform.copy(), waveform.copy()
    later[end:] += 0.5
    last[end - 1] += 0.5
    expected = latents_of(waveform)
    np.testing.assert_array_equal(latents_of(later)[:, :, : frame + 1], expected[:, :, : frame + 1])
    assert np.abs(latents_of(last) - expected)[:, :, frame].max() > 0


def test_steps_grow_with_the_look_ahead(codec: Codec) -> None:
    for look_ahead_s, step_s, frames in (
        (0, None, 5),
        (0.25, None, 5),
        (0.5, None, 10),
        (4, None, 80),
        (4, 0.1, 5),
        (0.1, 0.001, 1),
        (0.1, 1, 50),
    ):
        assert codec.stream_encoder(look_ahead_s, step_s=step_s).step_frames == frames


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_are_resampled_as_the_whole_clip_is(codec: Codec, rate: int) -> None:
    waveform = (speech(2 * rate, rate) * 32767).astype(np.int16)
    expected = streamed(codec.stream_encoder(0.1), [prepare_waveform(waveform, rate, 16000)])
    stream = codec.stream_encoder(0.1, sample_rate=rate)
    ready, codes = [], []
    pieces = cut(waveform, [1, 700, 3, rate // 20])
    for pushed, piece in zip(np.cumsum([len(piece) for piece in pieces]), pieces, strict=True):
        codes.append(stream.push(piece))
        ready += [pushed - len(piece)] * codes[-1].shape[1]
        frames_due = (pushed - stream.delay_samples) * 16000 / rate / codec.hop_length
        assert len(ready) >= min(0, frames_due)
        assert len(ready) > frames_due  # no code comes later than stated
    codes.append(stream.finish())
    np.testing.assert_array_equal(np.concatenate(codes, axis=1), expected)
    waited = np.array(ready) - np.arange(len(ready)) * codec.hop_length * rate / 16000
    assert waited.max() > stream.delay_samples - 0.06 * rate  # and one needed as long, as far as these pushes show


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_the_lag_of_the_resampling_is_a_bound_and_a_tight_one(rate: int) -> None:
    import soxr

    from dmcodec.runtime.stream_input import resampler_lag

    stream, lag, returned = soxr.ResampleStream(rate, 16000, 1, dtype="float32", quality="HQ"), 0.0, 0
    for pushed in range(1, 3 * rate // 2, 7):
        returned += len(stream.resample_chunk(np.zeros(1 if pushed == 1 else 7, np.float32)))
        lag = max(lag, pushed - returned * rate / 16000)
    assert lag <= resampler_lag(rate, 16000) <= lag + 7 + rate / 1000 + 8


def test_int16_and_float_are_the_same(codec: Codec) -> None:
    samples = (speech(9000, 16000) * 32767).astype(np.int16)
    expected = streamed(codec.stream_encoder(0.1), [samples])
    for same in (samples / 32768, (samples / 32768).astype(np.float32), samples[::-1].copy()[::-1]):
        np.testing.assert_array_equal(streamed(codec.stream_encoder(0.1), cut(same, [777])), expected)


@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_batch_of_streams_in_step(codec: Codec, rate: int) -> None:
    clips = np.stack([speech(12000 + start, 16000)[start:] for start in (0, 5000, 11000)])
    got = streamed(codec.stream_encoder(0.1, rate, batch_size=3), cut(clips, [999, 1]))
    for row, clip in enumerate(clips):
        np.testing.assert_array_equal(got[:, row], streamed(codec.stream_encoder(0.1, rate), [clip]))
    assert codec.stream_encoder(0.1, batch_size=1).push(clips[:1]).shape[:2] == (8, 1)


def test_fewer_levels_are_the_first_ones(codec: Codec) -> None:
    waveform = speech(9000, 16000)
    expected = streamed(codec.stream_encoder(0.1), [waveform])
    np.testing.assert_array_equal(streamed(codec.stream_encoder(0.1, n_q=3), [waveform]), expected[:3])


def test_memory_is_constant_in_time(codec: Codec) -> None:
    stream = codec.stream_encoder(LOOK_AHEAD_S)
    sizes = set()
    for index in range(40):
        stream.push(speech(1600, 16000))
        state = stream.state
        if index > 5:
            arrays = (state.samples, state.features, state.ahead, *state.outputs.values())
            sizes.add(tuple(array.shape for array in arrays))
    assert len(sizes) == 1


def test_pushed_samples_may_be_overwritten(codec: Codec) -> None:
    waveform = speech(9000, 16000)
    expected = streamed(codec.stream_encoder(0.1), [waveform])
    stream, buffer, codes = codec.stream_encoder(0.1), np.zeros(100, np.float32), []
    for piece in cut(waveform, [100]):
        buffer[:] = piece
        codes.append(stream.push(buffer))
    np.testing.assert_array_equal(np.concatenate([*codes, stream.finish()], axis=1), expected)


def test_streams_do_not_disturb_each_other(codec: Codec) -> None:
    clips = [speech(9000 + start, 16000)[start:] for start in (0, 3000, 7000)]
    streams = [codec.stream_encoder(0.1) for _ in clips]
    parts: list[list[Codes]] = [[] for _ in clips]
    for start in range(0, 9000, 500):
        for stream, clip, part in zip(streams, clips, parts, strict=True):
            part.append(stream.push(clip[start : start + 500]))
        with pytest.raises(AudioError):  # nor does one that fails
            streams[0].push(np.full(500, np.nan, np.float32))
    for stream, clip, part in zip(streams, clips, parts, strict=True):
        part.append(stream.finish())
        np.testing.assert_array_equal(np.concatenate(part, axis=1), streamed(codec.stream_encoder(0.1), [clip]))


def test_true_is_no_number_and_none_is_no_state(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    for arguments in ({"n_q": True}, {"batch_size": True}):
        with pytest.raises(ArgumentError):
            codec.stream_encoder(**arguments)
    for stream in (codec.stream_encoder(), codec.stream_decoder()):
        with pytest.raises(ArgumentError, match="state: expected"):
            stream.state = None  # type: ignore[assignment]
