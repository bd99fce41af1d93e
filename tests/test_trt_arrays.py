"""Arrays of other libraries at the codec's edge: on the simulated GPU without a copy to the host, and on the CPU."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.codec import RATE, clips, load
from fakes.device import DEFAULT_STREAM, FakeDevice

from dmcodec.errors import ArgumentError, AudioError, TokensError
from dmcodec.runtime import Codec
from dmcodec.runtime.dlpack import CPU, CUDA, ArrayView, capsule_of, contiguous_strides, gpu_view, stream_handle


class GpuArray:
    """An array of an application on the simulated GPU, with DLPack; it is not ready before its stream ran."""

    def __init__(self, device: FakeDevice, values: np.ndarray[Any, Any], offset: int = 0, gpu: int = 0) -> None:
        self.values, self._device, self._gpu = np.ascontiguousarray(values), device, gpu
        self.address = device.application_memory(bytes(self.values.nbytes), offset)
        self.stream = device.application_stream()
        self.consumers: list[int] = []
        self.freed = False
        content = self.values.reshape(-1).view(np.uint8)
        with device.current():
            device.enqueue(self.stream, lambda: np.copyto(device.view(self.address, content.size), content))

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._gpu

    def __dlpack__(self, *, stream: int) -> Any:
        self.consumers.append(stream)
        with self._device.current():
            event = self._device.create_event()
            self._device.record(event, self.stream)
            self._device.wait(stream, event)
            self._device.destroy_event(event)
        return capsule_of(self.view(self))

    def view(self, owner: object) -> ArrayView:
        shape = self.values.shape
        return ArrayView(self.address, self.values.dtype, shape, contiguous_strides(shape), (CUDA, self._gpu), owner)


class InterfaceArray(GpuArray):
    """The same with the CUDA array interface alone."""

    __dlpack_device__ = None  # type: ignore[assignment]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.values.shape, "typestr": self.values.dtype.str, "data": (self.address, False),
            "strides": None, "stream": self.stream, "version": 3,
        }  # fmt: skip


class OnHost:
    """An array with DLPack and nothing else."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._values.__dlpack__(**arguments)


def host_values(device: FakeDevice, result: Any, stream: int) -> np.ndarray[Any, Any]:
    """Read a result by DLPack on a stream, as a consumer does."""
    view = gpu_view(result, stream)
    assert view is not None
    with device.current():
        device.synchronize(stream)
    memory = device.view(view.address, view.size_bytes).view(view.dtype)
    strides = [stride * view.dtype.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(memory, view.shape, strides).copy()


@pytest.mark.parametrize("kind", [GpuArray, InterfaceArray])
@pytest.mark.parametrize("offset", [0, 4])  # memory that is not aligned as TensorRT wants it is copied on the device
def test_arrays_on_the_gpu_are_read_and_given_there(
    kind: type[GpuArray], offset: int, tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    codec, device = load(tiny_bundle, fixed_shape_engines)
    [waveform] = clips(7000)  # shorter than the fixed shape that it runs at
    expected = tiny_codec.encode(waveform, RATE)
    stream = device.application_stream()
    for shape in ((-1,), (1, -1)):
        array = kind(device, waveform.reshape(shape), offset)
        codes = codec.device.encode(array, RATE, stream=stream)
        latents = codec.device.latents(array, RATE, stream=stream)
        audio = codec.device.decode(codes, stream=stream)
        assert (codes.shape, audio.shape, latents.shape) == ((8, 22), (7040,), (32, 22))
        assert set(array.consumers) <= {stream}
        for result in (codes, latents, audio):
            assert result.strides == contiguous_strides(result.shape)  # type: ignore[attr-defined]
        assert sorted(set(device.uploaded)) == [8]  # lengths, and the number of the first level
        assert device.downloaded == []
        np.testing.assert_array_equal(host_values(device, codes, stream), expected.codes)
        np.testing.assert_allclose(host_values(device, latents, stream), tiny_codec.latents(waveform, RATE), atol=1e-5)
        np.testing.assert_allclose(host_values(device, audio, stream)[:7000], tiny_codec.decode(expected), atol=2e-5)
        few = codec.device.encode(array, RATE, 3, stream=stream)
        np.testing.assert_array_equal(host_values(device, few, stream), expected.codes[:3])
        tokens = codec.encode(array, RATE, stream=stream)
        assert device.downloaded.pop() == expected.codes.size * 8
        np.testing.assert_array_equal(tokens.codes, expected.codes)
        [again, other] = codec.encode_batch([array, waveform], RATE, stream=stream)
        assert (again, other) == (expected, expected)
        device.uploaded.clear()
        device.downloaded.clear()


def test_without_a_stream_the_default_one_is_waited_for_and_the_result_is_done(
    tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec
) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    [waveform] = clips(8000)
    array = GpuArray(device, waveform)
    codes = codec.device.encode(array, RATE)
    assert array.consumers == [DEFAULT_STREAM]
    interface = codes.__cuda_array_interface__  # type: ignore[attr-defined]
    assert (interface["shape"], interface["typestr"], interface["version"]) == ((8, 25), "<i8", 3)
    memory = device.view(interface["data"][0], 8 * 25 * 8).view(np.int64)  # without any further wait
    np.testing.assert_array_equal(memory.reshape(8, 25), tiny_codec.encode(waveform, RATE).codes)
    assert codes.__dlpack_device__() == (CUDA, 0)
    np.testing.assert_array_equal(np.asarray(codes), tiny_codec.encode(waveform, RATE).codes)
    with pytest.raises(BufferError, match="copy it after the import"):
        codes.__dlpack__(copy=True)  # type: ignore[call-arg]


def test_memory_that_was_given_is_used_again_after_its_consumers_stream(
    tiny_bundle: Path, ranged_engines: Path
) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    stream = device.application_stream()
    codes = codec.device.encode(clips(8000)[0], RATE)
    capsule = codes.__dlpack__(stream=stream)  # type: ignore[call-arg]
    read: list[Any] = []
    view = gpu_view(codes, stream)
    assert view is not None
    address, size = view.address, view.size_bytes
    before = device.view(address, size).copy()
    with device.current():
        device.enqueue(stream, lambda: read.append(device.view(address, size).copy()))
    del codes, capsule, view
    gc.collect()
    for _ in range(3):
        codec.encode(clips(9000)[0], RATE)  # takes the memory again
    with device.current():
        device.synchronize(stream)
    np.testing.assert_array_equal(read[0], before)


def test_what_the_graphs_do_not_take_goes_over_the_host(
    tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec
) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    [waveform] = clips(8000)
    pcm = (waveform * 32767).astype(np.int16)
    for values, rate, channel in (
        (pcm, RATE, None),
        (waveform.astype(np.float64), RATE, None),
        (waveform, 8000, None),
        (np.stack([waveform, waveform[::-1]]), RATE, None),
        (np.stack([waveform, waveform[::-1]]), RATE, 1),
        (np.resize(waveform, 31 * RATE), RATE, None),
    ):
        want = tiny_codec.encode(values, rate, channel=channel, context_s=2.0)
        found = codec.encode(GpuArray(device, values), rate, channel=channel, context_s=2.0)
        np.testing.assert_array_equal(found.codes, want.codes)
    codes = tiny_codec.encode(waveform, RATE).codes
    want_audio = tiny_codec.decode(tiny_codec.encode(waveform, RATE))
    for given in (codes, GpuArray(device, codes), GpuArray(device, codes.astype(np.int32)), codes.tolist()):
        audio = np.asarray(codec.device.decode(given))
        np.testing.assert_allclose(audio[:8000], want_audio, atol=2e-5)
    long = codec.device.encode(np.resize(waveform, 31 * RATE), RATE)
    np.testing.assert_array_equal(np.asarray(long), codec.encode(np.resize(waveform, 31 * RATE), RATE).codes)


def test_wrong_arrays_are_one_clear_error(tiny_bundle: Path, ranged_engines: Path) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    [waveform] = clips(8000)
    with pytest.raises(AudioError, match=r"waveform 0: lies on GPU 1, this codec runs on GPU 0; .*device_id=1"):
        codec.encode(GpuArray(device, waveform, gpu=1), RATE)
    with pytest.raises(AudioError, match=r"waveform: has shape \(2, 1, 4000\); take one clip"):
        codec.device.encode(GpuArray(device, waveform.reshape(2, 1, -1)), RATE)
    with pytest.raises(AudioError, match="sample_rate must be an integer"):
        codec.device.encode(GpuArray(device, waveform), 0)
    with pytest.raises(TokensError, match="levels 0 to 8 of 5 frames"):
        codec.device.decode(GpuArray(device, np.zeros((9, 5), np.int64)))
    with pytest.raises(TokensError, match="outside 0 to 63"):
        codec.device.decode(np.full((8, 5), 64))
    with pytest.raises(ArgumentError, match="stream must be a CUDA stream or its handle"):
        codec.encode(waveform, RATE, stream="main")
    broken = GpuArray(device, waveform)
    broken.address += 1 << 40  # whatever a foreign object raises
    broken._device = None  # type: ignore[assignment]
    with pytest.raises(AudioError, match="waveform 0: can't be taken from its GPU"):
        codec.encode(broken, RATE)


def test_streams_have_handles() -> None:
    class Of:
        def __init__(self, **values: Any) -> None:
            vars(self).update(values)

    assert stream_handle(None) is None
    assert [stream_handle(stream) for stream in (0, 7, np.int64(9))] == [1, 7, 9]
    assert stream_handle(Of(cuda_stream=5)) == 5  # torch
    assert stream_handle(Of(ptr=6)) == 6  # CuPy
    assert stream_handle(Of(__cuda_stream__=lambda: (0, 8))) == 8
    for wrong in (-1, 1.5, True, object()):
        with pytest.raises(ArgumentError):
            stream_handle(wrong)


def test_capsules_are_dlpack_and_are_given_back() -> None:
    """What numpy and torch read from our capsules, which also hold for a GPU."""
    torch = pytest.importorskip("torch")

    class Shown:
        def __init__(self, values: np.ndarray[Any, Any], strides: tuple[int, ...]) -> None:
            self.values, self.strides = values, strides
            self.owners: list[Any] = []

        def __dlpack_device__(self) -> tuple[int, int]:
            return CPU, 0

        def __dlpack__(self, **_arguments: Any) -> Any:
            shape = (3, 4)
            owner = type("Owner", (), {})()
            self.owners.append(owner)
            view = ArrayView(self.values.ctypes.data, self.values.dtype, shape, self.strides, (CPU, 0), owner)
            del owner
            return capsule_of(view)

    import weakref

    for dtype in (np.float32, np.int64, np.uint8, np.float64, np.float16):
        values = np.arange(30).astype(dtype)
        want = values.reshape(5, 6)[:3, :4]
        for read in (np.from_dlpack, torch.from_dlpack):
            shown = Shown(values, (6, 1))
            result = read(shown)
            [owner] = shown.owners
            alive = weakref.ref(owner)
            del owner
            shown.owners.clear()
            np.testing.assert_array_equal(np.asarray(result), want)
            assert alive() is not None
            del result
            assert alive() is None
    shown = Shown(np.arange(30.0), (6, 1))
    capsule = shown.__dlpack__()
    alive = weakref.ref(shown.owners.pop())
    assert alive() is not None
    del capsule  # nobody consumed it
    assert alive() is None


def test_capsules_of_other_libraries_are_read_and_given_back() -> None:
    torch = pytest.importorskip("torch")

    class OnGpu:
        """A torch tensor that says that it lies on a GPU."""

        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __dlpack_device__(self) -> tuple[int, int]:
            return CUDA, 3

        def __dlpack__(self, *, stream: int) -> Any:
            assert stream == 5
            return self.tensor.__dlpack__()

    tensor = torch.arange(24, dtype=torch.float32).reshape(4, 6)[1:, 2:]
    view = gpu_view(OnGpu(tensor), 5)
    assert view is not None
    assert (view.shape, view.strides, view.streams) == ((3, 4), (6, 1), (5,))
    assert view.dtype == np.float32
    assert view.address == tensor.data_ptr()
    assert view.size_bytes == 16 * 4
    assert gpu_view(tensor) is None
    assert gpu_view(np.zeros(3)) is None
    assert gpu_view([1.0]) is None
    with pytest.raises(ArgumentError, match="convert it to float32"):
        gpu_view(OnGpu(torch.zeros(3, dtype=torch.bfloat16)), 5)


def test_on_the_cpu_the_same_calls_take_and_give_arrays(tiny_codec: Codec) -> None:
    torch = pytest.importorskip("torch")
    [waveform] = clips(8000)
    tokens = tiny_codec.encode(waveform, RATE)
    for given in (waveform, torch.from_numpy(waveform), OnHost(waveform), waveform.tolist()):
        codes = tiny_codec.device.encode(given, RATE)
        assert codes.__dlpack_device__() == (CPU, 0)
        np.testing.assert_array_equal(torch.from_dlpack(codes).numpy(), tokens.codes)
        assert tiny_codec.encode(given, RATE) == tokens
        latents = tiny_codec.device.latents(given, RATE)
        np.testing.assert_array_equal(latents, tiny_codec.latents(waveform, RATE))
    for codes_given in (tokens.codes, torch.from_dlpack(codes), OnHost(tokens.codes)):
        audio = tiny_codec.device.decode(codes_given)
        np.testing.assert_allclose(np.asarray(audio)[:8000], tiny_codec.decode(tokens), atol=1e-6)
    part = tiny_codec.device.decode(tokens.levels(skip=2).codes, 2)
    np.testing.assert_allclose(np.asarray(part)[:8000], tiny_codec.decode(tokens.levels(skip=2)), atol=1e-6)
    with pytest.raises(ArgumentError, match="stream is for backend tensorrt"):
        tiny_codec.encode(waveform, RATE, stream=7)
    with pytest.raises(TokensError, match="outside"):
        tiny_codec.device.decode(np.full((8, 5), 64))


def test_a_gpu_is_chosen_by_its_number(tiny_bundle: Path) -> None:
    with pytest.raises(ArgumentError, match="device_id is for a GPU; provider cpu has none"):
        Codec.load(tiny_bundle, device_id=0)
    for wrong in (-1, 1.0, True):
        with pytest.raises(ArgumentError, match="device_id must be the number of a GPU"):
            Codec.load(tiny_bundle, provider="cuda", device_id=wrong)  # type: ignore[arg-type]
