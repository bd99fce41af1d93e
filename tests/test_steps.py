"""Convolutions in steps with a state: every frame is computed once, and what comes out is that of windows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pools import Gate, alone, assert_same, cut, random_codes

from dmcodec.bundle import DOWNSAMPLER, DOWNSAMPLER_STEPS, STEPS, UPSAMPLER_STEPS, state_size
from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError, ParityError
from dmcodec.export.graph_builder import GraphBuilder
from dmcodec.export.graphs import build_graphs
from dmcodec.export.int8.sessions import Session
from dmcodec.export.parity import check_parity, shortfall
from dmcodec.export.parts_parity import check_parts
from dmcodec.export.reference import TorchReference
from dmcodec.export.stepped import SteppedLayers, SteppedSignal
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import Graphs
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.spool import MEMORY, Spool
from dmcodec.runtime.stream_decoder import StreamDecoder
from dmcodec.runtime.stream_encoder import StreamEncoder
from dmcodec.runtime.sweeps import ExactEncoder, Sizes
from dmcodec.runtime.whole_decoder import MIN_STEPPED_FRAMES, WholeDecoder
from dmcodec.runtime.workers import Workers
from dmcodec.sample import speech


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As with a bundle of an earlier version, which has no graphs in steps."""
    with monkeypatch.context() as context:
        context.setattr(Graphs, "state_size", lambda _self, _steps: 0)
        yield context


def frames_of(gate: Gate, graph: str, name: str) -> int:
    return sum(inputs[name].shape[-1] for run, inputs in gate.runs if run == graph)


def test_each_frame_of_a_stream_is_upsampled_once(codec: Codec, gate: Gate) -> None:
    stream = codec.stream_decoder()
    for chunk in cut(random_codes(40), [5]):
        stream.push(chunk)
    # The first step begins with the context of the first frame after the clip's beginning, which ran in a window.
    ready, out = stream.state.frames_ready, stream.state.frames_out
    assert (
        frames_of(gate, UPSAMPLER_STEPS, "features") == ready - (5 - stream.look_ahead_frames) + stream.context_frames
    )
    assert out == 40 - stream.look_ahead_frames
    assert frames_of(gate, "decoder_upsampler", "features") == 2  # of the first push


def test_each_sample_of_a_stream_is_encoded_once(codec: Codec, gate: Gate) -> None:
    stream = codec.stream_encoder(0.1)
    samples = speech(32000, 16000)
    for chunk in cut(samples, [1600]):
        stream.push(chunk)
    windows = [inputs["waveform"].shape[-1] for name, inputs in gate.runs if name == DOWNSAMPLER]
    stepped = frames_of(gate, DOWNSAMPLER_STEPS, "waveform")
    assert len(windows) == 1
    assert stream.state.frames_in * 320 - 5 * 320 <= stepped <= stream.state.frames_in * 320


@pytest.mark.parametrize("sizes", [[1], [5], [3, 7, 1], [40]])
def test_windows_and_steps_return_the_same_after_each_push(
    codec: Codec, windows: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    old = codec.stream_decoder()
    windows.undo()
    new = codec.stream_decoder()
    chunks = cut(random_codes(60), sizes)
    got, expected = ([*map(stream.push, chunks), stream.finish()] for stream in (new, old))
    assert [len(audio) for audio in got] == [len(audio) for audio in expected]
    assert_same(np.concatenate(got), np.concatenate(expected))
    assert new.state.columns is not None or sizes == [40]
    assert old.state.columns is None


def test_states_go_from_windows_to_steps_and_back(codec: Codec, windows: pytest.MonkeyPatch) -> None:
    old, old_encoder = codec.stream_decoder(), codec.stream_encoder(0.1)
    windows.undo()
    new, new_encoder = codec.stream_decoder(), codec.stream_encoder(0.1)
    for streams, chunks in (
        ((old, new), cut(random_codes(80), [5])),
        ((old_encoder, new_encoder), cut(speech(32000, 16000), [1600])),
    ):
        expected = alone(streams[1], chunks)
        streams[1].reset()
        got: list[NDArray[Any]] = []
        for number, chunk in enumerate(chunks):
            stream = streams[number // 3 % 2]
            if number:
                stream.state = streams[(number - 1) // 3 % 2].state
            got.append(stream.push(chunk))
        assert_same(np.concatenate([*got, stream.finish()], axis=-1), expected)


def test_live_codes_are_those_of_windows(codec: Codec, windows: pytest.MonkeyPatch) -> None:
    chunks = cut(speech(32000 + 77, 16000), [1600, 333])
    expected = alone(codec.stream_encoder(0.3), chunks)
    windows.undo()
    assert_same(alone(codec.stream_encoder(0.3), chunks), expected)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("frames", [1, 4, MIN_STEPPED_FRAMES, 131])
def test_whole_clips_of_a_batch_decode_in_stretches(
    codec: Codec, tiny_model: DMCodec, workers: int, frames: int
) -> None:
    """Each at its own length, and cut anywhere."""
    reference = TorchReference(tiny_model)
    clips = [reference.dequantize(random_codes(length, seed)) for seed, length in enumerate((frames, 1, 60))]
    latents = np.zeros((3, 32, max(frames, 60)), np.float32)
    for row, clip in zip(latents, clips, strict=True):
        row[:, : clip.shape[1]] = clip
    lengths = np.array([clip.shape[1] for clip in clips])
    other = Graphs(codec.bundle, codec.graphs.backend)
    for got, clip in zip(
        WholeDecoder(codec.config, codec.graphs, other, workers).decode(latents, lengths), clips, strict=True
    ):
        assert_same(got, reference.decode(clip).astype(np.float32))


def test_pushes_of_a_pool_run_as_one_batch_of_steps(codec: Codec, gate: Gate) -> None:
    clips = [random_codes(30, seed) for seed in range(4)]

    async def everyone(pool: Any) -> list[NDArray[Any]]:
        streams = [pool.decoder() for _ in clips]
        begun = [await stream.push_async(clip[:, :20]) for stream, clip in zip(streams, clips, strict=True)]
        gate.runs.clear()
        gate.shut()
        tasks = [asyncio.create_task(streams[0].push_async(clips[0][:, 20:25]))]
        await asyncio.to_thread(gate.held.wait)
        for stream, clip in zip(streams[1:], clips[1:], strict=True):
            tasks.append(asyncio.create_task(stream.push_async(clip[:, 20:25])))
        await asyncio.sleep(0)
        gate.open()
        return [np.concatenate(parts) for parts in zip(begun, await asyncio.gather(*tasks), strict=True)]

    with codec.stream_pool(max_wait_ms=0) as pool:
        got = asyncio.run(everyone(pool))
    assert [len(inputs["features"]) for name, inputs in gate.runs if name == UPSAMPLER_STEPS] == [1, 3]
    for audio, clip in zip(got, clips, strict=True):
        single = codec.stream_decoder()
        assert_same(audio, np.concatenate([single.push(clip[:, :20]), single.push(clip[:, 20:25])]))


def test_after_warm_up_no_single_clip_loads_a_graph(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips on both sides of the lengths from which on tiles and steps run."""
    codec = Codec.load(tiny_bundle, threads=2)
    codec.warm_up()
    monkeypatch.setattr(OnnxRuntimeBackend, "load", lambda _self, path, _spec: pytest.fail(f"loads {path.name}"))
    for seconds in (0.3, 1, 2.5, 4):
        codec.decode(codec.encode(speech(round(16000 * seconds), 16000), 16000))


@pytest.mark.parametrize("graph", [UPSAMPLER_STEPS, DOWNSAMPLER_STEPS])
def test_a_fault_of_a_graph_in_steps_is_refused(codec: Codec, tiny_model: DMCodec, graph: str) -> None:
    """A state that is not handed on right, which windows can't show."""

    def run(name: str, **inputs: Any) -> list[Any]:
        output, *states = codec.graphs.arrays(name, **inputs)
        return [output, *(state * 0.5 if name == graph else state for state in states)]

    reference, size = TorchReference(tiny_model), state_size(codec.bundle.manifest.graphs, graph)
    if graph == DOWNSAMPLER_STEPS:
        check_parts(reference, run, "fp32")
        with pytest.raises(ParityError, match="sweep_latents_snr_db"):
            check_parts(reference, run, "fp32", size)
    else:
        cases = list(check_parity(reference, run, size))
        assert "stream_snr_db" in str(next(filter(None, (shortfall(case, "fp32") for case in cases))))


def test_a_delay_beyond_that_of_windows_is_refused() -> None:
    builder = GraphBuilder("late")
    with pytest.raises(ExportError, match="late: its output is 2 columns later"):
        SteppedLayers(builder, "state").delayed(SteppedSignal("tensor", 4, lag=5), 3)


# Fields of other members of the family than the released one.
MEMBERS: dict[str, dict[str, Any]] = {
    "causal, trimmed on both sides": {"causal": True, "trim_right_ratio": 0.5, "strides": (5, 2)},
    "causal, trimmed on the left": {"causal": True, "trim_right_ratio": 0.0, "residual_kernel_size": 4},
    "a reach of many frames": {"strides": (1, 4), "residual_kernel_size": 5, "n_residual_layers": 3},
    "causal, a reach of many frames": {"causal": True, "n_residual_layers": 3, "residual_kernel_size": 4},
    "no convolution in the shortcut": {"conv_shortcut": False, "compress": 1, "strides": (2, 5, 3)},
}


@pytest.mark.parametrize("least_inputs", [1, 64])
@pytest.mark.parametrize("fields", MEMBERS.values(), ids=MEMBERS.keys())
def test_members_of_the_family_run_in_steps(
    fields: dict[str, Any], least_inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams and tiles give what the torch model gives, whatever its convolutions reach; in pairs of columns, too."""
    monkeypatch.setattr("dmcodec.export.stepped.LEAST_INPUTS", least_inputs)
    sizes = {"n_filters": 4, "dimension": 8, "semantic_dimension": 8, "codebook_size": 16, "n_q": 2, "strides": (3, 2)}
    config = CodecConfig(**{**sizes, "bidirectional": False, **fields})
    model = DMCodec.seeded(config).eval()
    reference, graphs = TorchReference(model), build_graphs(model)
    columns = {name: int(graphs[name].inputs[1].axes[1]) for name in STEPS.values()}
    sessions = {name: Session(graph.model) for name, graph in graphs.items()}
    used: set[str] = set()

    def run(name: str, **inputs: Any) -> list[NDArray[Any]]:
        used.add(name)
        return list(sessions[name].all_outputs(**inputs).values())

    waveform = speech(61 * config.hop_length - 1, config.sample_rate)
    expected = reference.quantize(reference.encode(waveform))
    for tile in (7, 100):
        with Workers.start(1) as workers, Spool(MEMORY) as spool:
            encoder = ExactEncoder(run, config, workers, spool, Sizes(tile, 11), columns[DOWNSAMPLER_STEPS])
            np.testing.assert_array_equal(np.concatenate(list(encoder.encode([waveform])), axis=1), expected)
    live = StreamEncoder(run, config, 0.0, columns=columns[DOWNSAMPLER_STEPS])
    np.testing.assert_array_equal(alone(live, cut(waveform, [5, 77])), expected)
    codes = random_codes(61)[:2] % 16
    audio = reference.decode(reference.dequantize(codes)).astype(np.float32)
    for chunk in (1, 4, 60):
        stream = StreamDecoder(run, config, columns=columns[UPSAMPLER_STEPS])
        assert_same(alone(stream, cut(codes, [chunk])), audio)
    assert set(STEPS.values()) <= used
