"""The TensorRT backend on a simulated GPU, in which the real graphs are computed by ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes.codec import RATE, build, clips, load, same
from fakes.device import FakeDevice

from dmcodec.errors import BackendError, GpuError, ProviderError
from dmcodec.runtime import Codec
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.memory import DevicePool, size_class
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.runtime.tensorrt.resources import DeviceResources
from dmcodec.sample import speech


@pytest.mark.parametrize("eager", [False, True])
def test_results_equal_those_of_onnx_runtime(
    eager: bool, tiny_bundle: Path, ranged_engines: Path, fixed_shape_engines: Path, tiny_codec: Codec
) -> None:
    # Lengths below the smallest profile, no multiples of the hop, and batches of different lengths among them.
    for folder in (ranged_engines, fixed_shape_engines):
        codec, _ = load(tiny_bundle, folder, FakeDevice(eager=eager))
        for waveforms in (clips(1), clips(319), clips(8000), clips(16000, 15999, 14500), clips(30001)):
            same(codec, tiny_codec, waveforms)


def test_fixed_shapes_alone_run_what_fits_below_the_largest(
    tiny_bundle: Path, tmp_path: Path, tiny_codec: Codec
) -> None:
    build(tiny_bundle, ShapeRequest.parse(None, None, "0.5s,1sx4"), tmp_path)
    codec, device = load(tiny_bundle, tmp_path)
    for _ in range(3):
        same(codec, tiny_codec, clips(7000, 6500, 15999))  # the two shorter ones in one batch of four
    assert device.launches > 0
    with pytest.raises(BackendError, match="no profile covers"):
        codec.encode(clips(16001)[0], RATE)


def test_results_are_waited_for_on_other_streams(tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, ranged_engines)
    backend = codec.backend
    assert isinstance(backend, TensorrtBackend)
    [waveform] = clips(8000)
    inputs = {"waveform": waveform[None, None], "lengths": np.array([8000])}
    latents = codec.graphs.run("encoder", **inputs)[0]
    # No memory may be reused: streams would wait for it, too.
    with backend.resources.device.current():
        backend.resources.memory.trim()
    with backend.resources.lease_stream():  # the encoder's stream, so that the others need another one
        codes = codec.graphs.run("quantizer", latents=latents)[0]
        with backend.resources.lease_stream():
            got = backend.to_array(codes)
    np.testing.assert_array_equal(got[:, 0], tiny_codec.encode(waveform, RATE).codes)


def test_padding_is_taken_off_again(tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, fixed_shape_engines)
    [waveform] = clips(7000)
    latents = codec.latents(waveform, RATE)
    assert latents.shape == (32, 22)
    np.testing.assert_allclose(latents, tiny_codec.latents(waveform, RATE), atol=1e-5)


def test_fewer_levels_and_streams_run_too(tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, fixed_shape_engines)
    [waveform] = clips(20000)
    tokens = tiny_codec.encode(waveform, RATE)
    np.testing.assert_allclose(codec.decode(tokens, 3), tiny_codec.decode(tokens, 3), atol=2e-5)
    with codec.stream_decoder() as stream:
        audio = [stream.push(tokens.codes[:, first : first + 7]) for first in range(0, tokens.num_frames, 7)]
        audio.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(audio)[:20000], tiny_codec.decode(tokens), atol=2e-5)


def test_fixed_shapes_are_launched_from_captured_graphs(
    tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec
) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    for round_ in range(4):
        same(codec, tiny_codec, clips(8000 - round_))
    # Encoder, quantizer, dequantizer and decoder: captured in the first round, launched in that and the three after.
    assert (device.graphs, device.launches) == (4, 16)
    same(codec, tiny_codec, clips(40000))  # larger than the fixed shapes: run directly
    assert (device.graphs, device.launches) == (4, 16)


def test_captures_can_be_disabled_and_may_fail(tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines, capture=False)
    broken, broken_device = load(tiny_bundle, fixed_shape_engines)
    broken_device.fail_capture = True
    for _ in range(3):
        same(codec, tiny_codec, clips(8000))
        same(broken, tiny_codec, clips(8000))
    assert device.launches == broken_device.launches == 0


def test_nothing_is_allocated_once_shapes_are_known(tiny_bundle: Path, fixed_shape_engines: Path) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    for _ in range(3):
        codec.decode(codec.encode(clips(8000)[0], RATE))
        codec.decode(codec.encode(clips(30000)[0], RATE))
    before = device.allocations
    for _ in range(5):
        codec.decode(codec.encode(clips(8000)[0], RATE))
        codec.decode(codec.encode(clips(30000)[0], RATE))
    assert device.allocations == before


def test_latents_stay_on_the_device(tiny_bundle: Path, ranged_engines: Path) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    tokens = codec.encode(clips(8000)[0], RATE)
    assert device.downloaded == [tokens.codes.size * 8]


@pytest.mark.parametrize("eager", [False, True])
def test_threads_do_not_disturb_each_other(
    eager: bool, tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec
) -> None:
    codec, _ = load(tiny_bundle, fixed_shape_engines, FakeDevice(eager=eager))
    waveforms = [clips(8000 - 100 * index)[0] for index in range(8)] * 2
    expected = [tiny_codec.encode(waveform, RATE).codes for waveform in waveforms]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda waveform: codec.encode(waveform, RATE).codes, waveforms))
    for codes, want in zip(got, expected, strict=True):
        np.testing.assert_array_equal(codes, want)


def test_a_shape_outside_all_profiles_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(BackendError, match=r"encoder: no profile covers waveform \(1, 1, 40000\).*--profile"):
        codec.encode(clips(40000)[0], RATE)
    with pytest.raises(BackendError, match=r"encoder: input lengths has shape \(2,\), expected \(batch 1\)"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9), np.float32), lengths=np.ones(2, np.int64))
    with pytest.raises(BackendError, match="waveform is float64, expected float32"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9)), lengths=np.ones(1, np.int64))
    with pytest.raises(BackendError, match="lengths is missing"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9), np.float32))


def test_no_device_memory_left_is_one_error_and_later_runs_work(
    tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec
) -> None:
    codec, _ = load(tiny_bundle, ranged_engines, FakeDevice(memory_bytes=90_000_000))
    with pytest.raises(GpuError, match="Fake GPU: no memory left for"):
        codec.encode(speech(30 * RATE, RATE), RATE)
    same(codec, tiny_codec, clips(8000))


def test_onnx_runtimes_tensorrt_provider_runs_or_is_an_error(tiny_bundle: Path) -> None:
    if "TensorrtExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime has the TensorRT provider")
    with pytest.raises(ProviderError, match="provider tensorrt: the installed onnxruntime"):
        Codec.load(tiny_bundle, provider="tensorrt")


def test_pools_reuse_memory(tiny_bundle: Path) -> None:
    device = FakeDevice()
    with device.current():
        pool, stream = DevicePool(device), device.create_stream()
        first = pool.acquire(1000, stream)
        pool.release(first)
        assert pool.acquire(900, stream) is first
        assert pool.acquire(900, stream) is not first
        assert (pool.allocated_bytes, pool.idle_bytes) == (2 * 1024, 0)
        pool.release(first)
        assert pool.idle_bytes == 1024
        pool.trim()
        assert pool.allocated_bytes == 1024
    for size in (1, 256, 257, 1000, 12345, 10**6 + 1, 10**9 + 7):
        assert size <= size_class(size) <= max(256, size * 1.25 + 256)


def test_streams_are_lent_to_one_thread_each(tiny_bundle: Path) -> None:
    resources = DeviceResources(FakeDevice(), max_streams=2)
    with resources.lease_stream() as first, resources.lease_stream() as second:
        assert first is not second
    with resources.lease_stream() as again:
        assert again in (first, second)
