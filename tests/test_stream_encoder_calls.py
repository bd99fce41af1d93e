"""Calls of a live encoder: its state, wrong pushes and arguments, failures, and bundles that can't encode live."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_streams import streamed

from dmcodec.bundle import Bundle, encoder_part_names, lstm_name, write_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, BackendError, BundleError, DmcodecError, StreamError
from dmcodec.runtime import Codec, StreamEncoder
from dmcodec.runtime.stream_encoder import check_live_encoding
from dmcodec.sample import speech

LOOK_AHEAD_S = 0.2


@pytest.fixture(scope="module")
def codec(tiny_codec: Codec) -> Codec:
    return tiny_codec


def test_the_state_is_a_value(codec: Codec) -> None:
    waveform, other = speech(16000, 16000), speech(30000, 16000)[14000:]
    stream = codec.stream_encoder(LOOK_AHEAD_S)
    start = stream.push(waveform[:9000])
    kept = stream.state
    stream.push(other[9000:])
    stream.finish()
    again = codec.stream_encoder(LOOK_AHEAD_S)
    again.state = kept
    codes = np.concatenate([start, again.push(waveform[9000:]), again.finish()], axis=1)
    np.testing.assert_array_equal(codes, streamed(codec.stream_encoder(LOOK_AHEAD_S), [waveform]))
    again.reset()
    np.testing.assert_array_equal(streamed(again, [other]), streamed(codec.stream_encoder(LOOK_AHEAD_S), [other]))
    with pytest.raises(ArgumentError, match="state: made for the look-ahead"):
        codec.stream_encoder(0.5).state = kept
    with pytest.raises(ArgumentError, match="state: made for the step"):
        codec.stream_encoder(LOOK_AHEAD_S, step_s=0.2).state = kept
    with pytest.raises(ArgumentError, match="state: made for the batch size"):
        codec.stream_encoder(LOOK_AHEAD_S, batch_size=2).state = kept
    resampling = codec.stream_encoder(LOOK_AHEAD_S, sample_rate=48000)
    with pytest.raises(StreamError, match="push samples at 16000 Hz"):
        resampling.state = kept
    with pytest.raises(StreamError, match="push samples at 16000 Hz"):
        _ = resampling.state


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((1, 100), np.float32),
        np.float32(1),
        np.zeros(100, np.int32),
        np.zeros(100, np.float16),
        np.zeros(100, bool),
        np.full(100, np.inf),
        np.array([0.1, np.nan]),
        np.array([1e300]),
        "text",
        [[0.1, 0.2], [0.3]],
        None,
    ],
)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_wrong_pushes_are_refused_and_change_nothing(codec: Codec, samples: Any, rate: int) -> None:
    waveform = speech(12000, 16000)
    expected = streamed(codec.stream_encoder(0.1, rate), [waveform])
    stream = codec.stream_encoder(0.1, rate)
    start = stream.push(waveform[:6000])
    with pytest.raises(AudioError, match="stream: "):
        stream.push(samples)
    codes = np.concatenate([start, stream.push(waveform[6000:]), stream.finish()], axis=1)
    np.testing.assert_array_equal(codes, expected)


def test_no_samples_change_nothing(codec: Codec) -> None:
    stream = codec.stream_encoder(0.1)
    assert stream.push(np.zeros(0, np.float32)).shape == (8, 0)
    assert stream.push([]).shape == (8, 0)
    assert stream.finish().shape == (8, 0)
    batch = codec.stream_encoder(0.1, n_q=2, batch_size=3)
    assert batch.push(np.zeros((3, 0), np.int16)).shape == (2, 3, 0)
    with pytest.raises(AudioError, match=r"expected samples \(3, samples\), got \(2, 5\)"):
        batch.push(np.zeros((2, 5), np.int16))


def test_a_graph_that_fails_leaves_the_stream_as_it_was(codec: Codec) -> None:
    waveform, is_failing = speech(12000, 16000), False

    def run(name: str, **inputs: Any) -> Any:
        if is_failing and name == lstm_name(1, "backward"):
            raise BackendError("out of memory")
        return codec.graphs.arrays(name, **inputs)

    stream = StreamEncoder(run, codec.config, 0.1)
    start = stream.push(waveform[:6000])
    is_failing = True
    with pytest.raises(BackendError):
        stream.push(waveform[6000:])
    is_failing = False
    codes = np.concatenate([start, stream.push(waveform[6000:]), stream.finish()], axis=1)
    np.testing.assert_array_equal(codes, streamed(codec.stream_encoder(0.1), [waveform]))
    resampling = StreamEncoder(run, codec.config, 0.1, sample_rate=8000)
    is_failing = True
    with pytest.raises(BackendError):
        resampling.push(waveform)
    is_failing = False
    with pytest.raises(StreamError, match="call reset"):
        resampling.push(waveform)
    resampling.reset()
    expected = streamed(codec.stream_encoder(0.1, 8000), [waveform])
    np.testing.assert_array_equal(streamed(resampling, [waveform]), expected)


def test_streams_used_out_of_turn(codec: Codec) -> None:
    stream = codec.stream_encoder(0.1)
    stream.finish()
    with pytest.raises(StreamError, match="push after finish"):
        stream.push(np.zeros(1, np.float32))
    with pytest.raises(StreamError, match="finished already"):
        stream.finish()
    other = codec.stream_encoder(0.1)
    other.state = stream.state  # the end is a part of the state
    with pytest.raises(StreamError, match="push after finish"):
        other.push(np.zeros(1, np.float32))
    for rate in (16000, 48000):  # of the latter, soxr still has all
        with pytest.raises(StreamError, match="left open"), codec.stream_encoder(0.1, rate) as left:
            left.push(np.zeros(321, np.float32))
    with pytest.raises(KeyError), codec.stream_encoder(0.1) as broken:  # noqa: PT012 - the error itself comes through
        broken.push(np.zeros(700, np.float32))
        raise KeyError
    with codec.stream_encoder(0.1) as unused:
        assert unused.look_ahead_frames == 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_q": 9},
        {"n_q": 0},
        {"n_q": 2.5},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"look_ahead_s": -0.1},
        {"look_ahead_s": float("nan")},
        {"look_ahead_s": 61},
        {"look_ahead_s": "0.5"},
        {"look_ahead_s": True},
        {"step_s": 0},
        {"step_s": 11},
        {"step_s": "0.1"},
        {"sample_rate": 0},
        {"sample_rate": 999},
        {"sample_rate": 44100.0},
        {"sample_rate": "16000"},
    ],
)
def test_wrong_arguments(codec: Codec, arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        codec.stream_encoder(**arguments)


def test_look_aheads_are_rounded_up_to_frames(codec: Codec) -> None:
    for look_ahead_s, frames in ((0, 0), (0.001, 1), (0.02, 1), (0.021, 2), (0.1, 5), (0.25, 13), (4, 200)):
        assert codec.stream_encoder(look_ahead_s).look_ahead_frames == frames


def test_an_encoder_without_a_backward_direction_has_no_look_ahead(tiny_config: CodecConfig, codec: Codec) -> None:
    config = CodecConfig.from_dict({**tiny_config.to_dict(), "bidirectional": False})
    assert dataclasses.replace(codec.bundle.manifest, config=config).default_look_ahead_s == 0
    for look_ahead_s in (None, 0):
        stream = StreamEncoder(codec.graphs.arrays, config, look_ahead_s)
        assert stream.delay_samples == (5 + 3) * 320 + 235
    with pytest.raises(ArgumentError, match="forward only"):
        StreamEncoder(codec.graphs.arrays, config, 0.1)


def test_the_default_is_the_bundles(copy_of_tiny_bundle: Path) -> None:
    manifest = Bundle.open(copy_of_tiny_bundle).manifest
    assert Codec.load(copy_of_tiny_bundle).look_ahead_s == manifest.look_ahead["default_look_ahead_s"]
    for look_ahead, expected in (({"default_look_ahead_s": 1.0, "cases": []}, 50), ({}, 25)):
        write_manifest(copy_of_tiny_bundle, dataclasses.replace(manifest, look_ahead=look_ahead))
        assert Codec.load(copy_of_tiny_bundle).stream_encoder().look_ahead_frames == expected


def test_a_bundle_without_the_parts_says_to_export_again(copy_of_tiny_bundle: Path) -> None:
    manifest = Bundle.open(copy_of_tiny_bundle).manifest
    parts = encoder_part_names(manifest.config)
    graphs = {name: spec for name, spec in manifest.graphs.items() if name not in parts}
    write_manifest(copy_of_tiny_bundle, dataclasses.replace(manifest, graphs=graphs))
    with pytest.raises(BundleError, match=r"dmcodec export --bundle OLD --out NEW"):
        Codec.load(copy_of_tiny_bundle).stream_encoder()


def test_tensorrt_says_to_use_onnxruntime(tiny_bundle: Path) -> None:
    with pytest.raises(ArgumentError, match="use backend onnxruntime") as caught:
        check_live_encoding(Bundle.open(tiny_bundle), "tensorrt")
    assert isinstance(caught.value, DmcodecError)


def test_repr_is_one_line_that_says_what_matters(codec: Codec) -> None:
    stream = codec.stream_encoder(0.1)
    stream.push(speech(8000, 16000))
    assert repr(stream) == (
        "StreamEncoder(8 levels from 16000 Hz, 8000 samples in, 12 frames out, look-ahead 5 frames, delay 0.275 s)"
    )
    state = repr(stream.state)
    assert state.startswith("EncoderState(8000 samples in, 12 frames out, 15 through the LSTM, batch of 1, ")
    assert state.endswith(" KiB)")
    batch = codec.stream_encoder(0, n_q=2, batch_size=3)
    batch.finish()
    assert repr(batch) == (
        "StreamEncoder(2 levels from 16000 Hz, batch of 3, 0 samples in, 0 frames out, finished, "
        "look-ahead 0 frames, delay 0.175 s)"
    )
