"""The TensorRT backend on a simulated GPU, in which the real graphs are computed by ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt

from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, BackendError, EngineError, GpuError, ProviderError
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.runtime import Codec
from dmcodec.runtime.tensorrt.backend import TensorrtBackend, runs_on
from dmcodec.runtime.tensorrt.device import CudaDevice, _unsigned_64
from dmcodec.runtime.tensorrt.driver import Gpu, gpu_or_none
from dmcodec.runtime.tensorrt.engine_store import record_path
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.memory import DevicePool, Lanes, size_class
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.sample import speech

RATE = 16000


def build(bundle: Path, request: ShapeRequest, folder: Path, options: BuildOptions | None = None, **fake: Any) -> None:
    """Engines of the simulated TensorRT."""
    library = Library(fake_tensorrt(FakeDevice(), **fake), TENSORRT_RTX if fake.get("rtx") else TENSORRT)
    library.module.half = None
    opened, options = Bundle.open(bundle), options or BuildOptions()
    planned = plan_engines(opened, library, GPU, request, options, engine_cache=folder)
    build_engines(opened, library, GPU, planned, options, engine_cache=folder)


@pytest.fixture(scope="module")
def ranged(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranged")
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:30s", "1:1:16", None), folder)
    return folder


@pytest.fixture(scope="module")
def laddered(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laddered")
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:30s", "1:1:16", "0.5s,1s,1sx4"), folder)
    return folder


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


def load(
    bundle: Path, folder: Path, device: FakeDevice | None = None, capture: bool = True, **fake: Any
) -> tuple[Codec, FakeDevice]:
    device = device or FakeDevice()
    library = Library(fake_tensorrt(device, **fake), TENSORRT_RTX if fake.get("rtx") else TENSORRT)
    opened = Bundle.open(bundle)
    return Codec(opened, TensorrtBackend(opened, folder, capture, device, library)), device


def clips(*lengths: int) -> list[np.ndarray[Any, Any]]:
    return [speech(1000 * index + length, RATE)[1000 * index :] for index, length in enumerate(lengths)]


def same(codec: Codec, reference: Codec, waveforms: list[Any]) -> None:
    """Codes equal; audio equal but for rounding, which depends on the batch."""
    tokens, expected = codec.encode_batch(waveforms, RATE), reference.encode_batch(waveforms, RATE)
    for got, want in zip(tokens, expected, strict=True):
        np.testing.assert_array_equal(got.codes, want.codes)
    for audio, right in zip(codec.decode_batch(tokens), reference.decode_batch(expected), strict=True):
        np.testing.assert_allclose(audio, right, atol=2e-5)


@pytest.mark.parametrize("hurry", [False, True])
def test_results_equal_those_of_onnx_runtime(
    hurry: bool, tiny_bundle: Path, ranged: Path, laddered: Path, reference: Codec
) -> None:
    # Lengths below the smallest profile, no multiples of the hop, and batches of different lengths among them.
    for folder in (ranged, laddered):
        codec, _ = load(tiny_bundle, folder, FakeDevice(hurry=hurry))
        for waveforms in (clips(1), clips(319), clips(8000), clips(16000, 15999, 14500), clips(30001)):
            same(codec, reference, waveforms)


def test_a_ladder_alone_runs_what_fits_below_its_top(tiny_bundle: Path, tmp_path: Path, reference: Codec) -> None:
    build(tiny_bundle, ShapeRequest.parse(None, None, "0.5s,1sx4"), tmp_path)
    codec, device = load(tiny_bundle, tmp_path)
    for _ in range(3):
        same(codec, reference, clips(7000, 6500, 15999))  # the two shorter ones in one batch of four
    assert device.launches > 0
    with pytest.raises(BackendError, match="no profile holds"):
        codec.encode(clips(16001)[0], RATE)


def test_results_are_waited_for_on_other_streams(tiny_bundle: Path, ranged: Path, reference: Codec) -> None:
    codec, _ = load(tiny_bundle, ranged)
    backend = codec.backend
    assert isinstance(backend, TensorrtBackend)
    [waveform] = clips(8000)
    inputs = {"waveform": waveform[None, None], "lengths": np.array([8000])}
    latents = codec.graphs.run("encoder", **inputs)[0]
    # No memory is used again, for which streams would wait, too.
    backend.lanes.memory._free.clear()
    backend.lanes.memory._returned.clear()
    with backend.lanes.lease():  # the stream that the encoder is still on, so that the others need another one
        codes = codec.graphs.run("quantizer", latents=latents)[0]
        with backend.lanes.lease():
            got = backend.to_array(codes)
    np.testing.assert_array_equal(got[:, 0], reference.encode(waveform, RATE).codes)


def test_padding_is_taken_off_again(tiny_bundle: Path, laddered: Path, reference: Codec) -> None:
    codec, _ = load(tiny_bundle, laddered)
    [waveform] = clips(7000)
    latents = codec.latents(waveform, RATE)
    assert latents.shape == (32, 22)
    np.testing.assert_allclose(latents, reference.latents(waveform, RATE), atol=1e-5)


def test_fewer_levels_and_streams_run_too(tiny_bundle: Path, laddered: Path, reference: Codec) -> None:
    codec, _ = load(tiny_bundle, laddered)
    [waveform] = clips(20000)
    tokens = reference.encode(waveform, RATE)
    np.testing.assert_allclose(codec.decode(tokens, 3), reference.decode(tokens, 3), atol=2e-5)
    with codec.stream_decoder() as stream:
        audio = [stream.push(tokens.codes[:, first : first + 7]) for first in range(0, tokens.num_frames, 7)]
        audio.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(audio)[:20000], reference.decode(tokens), atol=2e-5)


def test_fixed_shapes_are_launched_from_captured_graphs(tiny_bundle: Path, laddered: Path, reference: Codec) -> None:
    codec, device = load(tiny_bundle, laddered)
    for round_ in range(5):  # each shape: once plainly, then captured, then only launched
        same(codec, reference, clips(8000 - round_))
    # Encoder, quantizer, dequantizer and decoder: captured in the second round, launched in that and the three after.
    assert (device.graphs, device.launches) == (4, 16)
    same(codec, reference, clips(40000))  # outside the ladder: the plain path
    assert (device.graphs, device.launches) == (4, 16)


def test_captures_can_be_switched_off_and_may_fail(tiny_bundle: Path, laddered: Path, reference: Codec) -> None:
    codec, device = load(tiny_bundle, laddered, capture=False)
    broken, broken_device = load(tiny_bundle, laddered)
    broken_device.fail_capture = True
    for _ in range(3):
        same(codec, reference, clips(8000))
        same(broken, reference, clips(8000))
    assert device.launches == broken_device.launches == 0


def test_nothing_is_allocated_once_shapes_are_known(tiny_bundle: Path, laddered: Path) -> None:
    codec, device = load(tiny_bundle, laddered)
    for _ in range(3):
        codec.decode(codec.encode(clips(8000)[0], RATE))
        codec.decode(codec.encode(clips(30000)[0], RATE))
    before = device.allocations
    for _ in range(5):
        codec.decode(codec.encode(clips(8000)[0], RATE))
        codec.decode(codec.encode(clips(30000)[0], RATE))
    assert device.allocations == before


def test_latents_stay_on_the_device(tiny_bundle: Path, ranged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, device = load(tiny_bundle, ranged)
    downloads: list[int] = []
    original = device.download

    def download(memory: Any, *rest: Any) -> None:
        downloads.append(memory.nbytes)
        original(memory, *rest)

    monkeypatch.setattr(device, "download", download)
    tokens = codec.encode(clips(8000)[0], RATE)
    assert downloads == [tokens.codes.size * 8]


@pytest.mark.parametrize("hurry", [False, True])
def test_threads_do_not_disturb_each_other(hurry: bool, tiny_bundle: Path, laddered: Path, reference: Codec) -> None:
    codec, _ = load(tiny_bundle, laddered, FakeDevice(hurry=hurry))
    waveforms = [clips(8000 - 100 * index)[0] for index in range(8)] * 2
    expected = [reference.encode(waveform, RATE).codes for waveform in waveforms]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda waveform: codec.encode(waveform, RATE).codes, waveforms))
    for codes, want in zip(got, expected, strict=True):
        np.testing.assert_array_equal(codes, want)


def test_a_shape_outside_all_profiles_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(BackendError, match=r"encoder: no profile holds waveform \(1, 1, 40000\).*--profile"):
        codec.encode(clips(40000)[0], RATE)
    with pytest.raises(BackendError, match=r"encoder: input lengths has shape \(2,\), expected \(batch 1\)"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9), np.float32), lengths=np.ones(2, np.int64))
    with pytest.raises(BackendError, match="waveform is float64, expected float32"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9)), lengths=np.ones(1, np.int64))
    with pytest.raises(BackendError, match="lengths is missing"):
        codec.run_graph("encoder", waveform=np.zeros((1, 1, 9), np.float32))


def test_no_device_memory_left_is_one_error_and_passes(tiny_bundle: Path, ranged: Path, reference: Codec) -> None:
    codec, _ = load(tiny_bundle, ranged, FakeDevice(memory_bytes=90_000_000))
    with pytest.raises(GpuError, match="Fake GPU: no memory left for"):
        codec.encode(speech(30 * RATE, RATE), RATE)
    same(codec, reference, clips(8000))


def alter(folder: Path, change: Callable[[Path], None]) -> None:
    for path in folder.glob("encoder-*.engine"):
        change(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut or altered after the build"),
        (lambda path: record_path(path).unlink(), "a build of it was cut short"),
        (lambda path: record_path(path).write_text("{"), "not a valid record"),
        (lambda path: record_path(path).write_text("[]"), "not a valid record"),
        (
            lambda path: record_path(path).write_text(record_path(path).read_text().replace("sm_86", "sm_90")),
            "altered after the build",
        ),
    ],
)
def test_damaged_engines_are_refused(
    change: Callable[[Path], None], said: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)
    alter(tmp_path, change)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match=f"(?s)encoder: no engine in .* can run here .*{said}.*dmcodec export"):
        codec.load_graphs("encoder")
    codec.load_graphs("decoder")


def test_a_plan_of_other_bytes_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    alter(tmp_path, flip)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match=r"encoder-\w+.engine: was altered or cut"):
        codec.load_graphs("encoder")


def test_engines_of_another_gpu_version_or_flavour_are_refused(tiny_bundle: Path, ranged: Path) -> None:
    other = FakeDevice(dataclasses.replace(GPU, name="Other GPU", compute_capability="9.0"))
    codec, _ = load(tiny_bundle, ranged, other)
    with pytest.raises(EngineError, match=r"is for sm_86, this GPU is Other GPU \(sm_90\)"):
        codec.load_graphs("encoder")
    codec, _ = load(tiny_bundle, ranged, version="11.4.0.106")
    with pytest.raises(EngineError, match=r"is of version 10\.16\.1\.11, installed is 11\.4\.0\.106"):
        codec.load_graphs("encoder")
    codec, _ = load(tiny_bundle, ranged, version="1.7.1.116", rtx=True)
    with pytest.raises(EngineError, match=r"is for tensorrt, in use is tensorrt-rtx"):
        codec.load_graphs("encoder")


def test_compatible_engines_run_on_later_versions_and_other_gpus(
    tiny_bundle: Path, tmp_path: Path, reference: Codec
) -> None:
    assert runs_on(("sm_80",), "ampere-plus", Gpu("", "9.0", (13, 0)))
    assert not runs_on(("sm_80",), "ampere-plus", Gpu("", "7.5", (13, 0)))
    assert runs_on(("generic",), "none", Gpu("", "7.5", (13, 0)))
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, BuildOptions(version_compatible=True))
    codec, _ = load(tiny_bundle, tmp_path, version="10.13.0.1")
    with pytest.raises(EngineError, match="is of version"):
        codec.load_graphs("encoder")


def test_an_engine_that_the_library_refuses_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, rtx=True, version="1.7.1.116")
    device = FakeDevice()
    library = Library(fake_tensorrt(device, "1.7.1.116", rtx=True), TENSORRT_RTX)
    library.module.unsupported_gpu = True
    opened = Bundle.open(tiny_bundle)
    codec = Codec(opened, TensorrtBackend(opened, tmp_path, device=device, library=library))
    with pytest.raises(EngineError, match="can't run this engine here: this GPU's compute capability isn't supported"):
        codec.load_graphs("encoder")


def test_a_bundle_altered_after_the_build_is_refused(copy_of_tiny_bundle: Path) -> None:
    library = Library(fake_tensorrt(FakeDevice()), TENSORRT)
    opened, options = Bundle.open(copy_of_tiny_bundle), BuildOptions()
    planned = plan_engines(opened, library, GPU, ShapeRequest.parse("1s", "1", None), options)
    build_engines(opened, library, GPU, planned, options)
    engines = Bundle.open(copy_of_tiny_bundle).manifest.engines
    assert {facts["graph"] for facts in engines.values()} == set(opened.manifest.graphs)
    # Another engine and record of the same key, both whole: only the manifest knows.
    [file] = [file for file, facts in engines.items() if facts["graph"] == "encoder"]
    path = copy_of_tiny_bundle / "engines" / file
    from dmcodec.runtime.tensorrt.engine_store import EngineStore

    store = EngineStore(path.parent)
    [record] = [record for record in store.records()[0] if record.key.file == file]
    store.store(record.key, b"another plan", record.facts)
    codec, _ = load(copy_of_tiny_bundle, path.parent)
    with pytest.raises(EngineError, match="is not the one that the bundle's manifest lists"):
        codec.load_graphs("encoder")
    # A graph that was exchanged: another hash in the manifest.
    spec = dataclasses.replace(opened.manifest.graphs["decoder"], sha256="0" * 64)
    with pytest.raises(EngineError, match="was built from another graph"):
        codec.backend.load(copy_of_tiny_bundle / "decoder.onnx", spec)


def test_engines_without_weights_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, BuildOptions(refit=True, strip_plan=True))
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match="was built without its weights"):
        codec.load_graphs("encoder")


def test_onnx_runtimes_tensorrt_provider_is_what_runs_or_an_error(tiny_bundle: Path) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the TensorRT provider")
    with pytest.raises(ProviderError, match="provider tensorrt: the installed onnxruntime"):
        Codec.load(tiny_bundle, provider="tensorrt")


def test_no_engines_or_no_gpu_is_one_error(tiny_bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(tiny_bundle)
    with pytest.raises(EngineError, match=r"no engines in .*run `dmcodec export --format trt"):
        TensorrtBackend(opened, tmp_path, device=FakeDevice())
    with pytest.raises(ArgumentError, match="no threads"):
        Codec.load(tiny_bundle, backend="tensorrt", threads=2)
    with pytest.raises(ArgumentError, match="engine_cache is for backend tensorrt"):
        Codec.load(tiny_bundle, engine_cache=tmp_path)


def test_pools_hand_memory_out_again(tiny_bundle: Path) -> None:
    device = FakeDevice()
    device.use()
    pool, stream = DevicePool(device), device.create_stream()
    first = pool.take(1000, stream)
    pool.give(first)
    assert pool.take(900, stream) is first
    assert pool.take(900, stream) is not first
    assert pool.allocated_bytes == 2 * 1024
    pool.give(first)
    pool.trim()
    assert pool.allocated_bytes == 1024
    for size in (1, 256, 257, 1000, 12345, 10**6 + 1, 10**9 + 7):
        assert size <= size_class(size) <= max(256, size * 1.25 + 256)


def test_lanes_are_lent_to_one_thread_each(tiny_bundle: Path) -> None:
    lanes = Lanes(FakeDevice(), limit=2)
    with lanes.lease() as first, lanes.lease() as second:
        assert first is not second
    with lanes.lease() as again:
        assert again in (first, second)


def test_records_round_trip(ranged: Path) -> None:
    for path in ranged.glob("*.engine"):
        record = json.loads(record_path(path).read_text())
        assert record["size_bytes"] == path.stat().st_size
        assert record["key"]["flavour"] == "tensorrt"


@pytest.mark.skipif(gpu_or_none() is not None, reason="a machine without a driver answers every call with a code")
def test_cuda_bindings_take_what_the_device_gives_them() -> None:
    """A wrong name or type raises something else than the GpuError of a missing driver."""
    from cuda.bindings import runtime

    device = CudaDevice.__new__(CudaDevice)
    device._cuda, device._gpu, device._index = runtime, GPU, 0
    device._setup = 0
    pool, threshold = runtime.cudaMemPool_t(), runtime.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
    host = np.zeros(8, np.uint8)
    calls: list[Callable[[], Any]] = [
        device.use,
        device.create_stream,
        lambda: device.allocate(8),
        lambda: device.allocate_pinned(8),
        lambda: device.upload(0, host, 0),
        lambda: device.download(host, 0, 0),
        lambda: device.copy(0, 0, 8, 0),
        lambda: device.synchronize(0),
        lambda: device.begin_capture(0),
        lambda: device.end_capture(0),
        lambda: device._call("cudaDeviceGetDefaultMemPool", 0),
        lambda: device._call("cudaMemPoolSetAttribute", pool, threshold, _unsigned_64(1 << 63)),
    ]
    for call in calls:
        with pytest.raises(GpuError):
            call()
