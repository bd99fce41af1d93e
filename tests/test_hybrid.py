"""The hybrid backend on a simulated GPU: engines and ONNX Runtime on one stream, with the results of the CPU."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from fakes.codec import RATE, clips, same
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt
from fakes.onnxruntime import CUDA, FakeRuntime, refused

from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, BundleError, EngineError, GpuError, ProviderError
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.runtime import Codec
from dmcodec.runtime.hybrid_backend import ENGINE_GRAPHS, HybridBackend
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.driver import gpu_or_none
from dmcodec.runtime.tensorrt.library import TENSORRT, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.sample import speech


@pytest.fixture(scope="module")
def engines(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of the graphs that have no LSTM, for a range and for a fixed shape."""
    folder = tmp_path_factory.mktemp("hybrid")
    library, opened = Library(fake_tensorrt(FakeDevice()), TENSORRT), Bundle.open(tiny_bundle)
    request = ShapeRequest.parse("0.1s:1s:3s", "1:1:4", "1s")
    planned = plan_engines(opened, library, GPU, request, BuildOptions(), ENGINE_GRAPHS, folder)
    build_engines(opened, library, GPU, planned, BuildOptions(), folder)
    return folder


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with memory, for what asks the driver how large batches may be."""
    monkeypatch.setattr("dmcodec.runtime.pipeline.free_bytes", lambda index: 1 << 33, raising=False)


def load(bundle: Path, folder: Path, device: FakeDevice | None = None) -> tuple[Codec, FakeRuntime]:
    device = device or FakeDevice()
    opened, runtime = Bundle.open(bundle), FakeRuntime(device=device)
    backend = TensorrtBackend(opened, folder, True, device, Library(fake_tensorrt(device), TENSORRT))
    return Codec(opened, HybridBackend(opened, folder, backend, runtime)), runtime


@pytest.mark.parametrize("eager", [False, True])
def test_results_equal_those_of_onnx_runtime(eager: bool, tiny_bundle: Path, engines: Path, tiny_codec: Codec) -> None:
    """Single clips, batches of one length, of different ones, and clips shorter than the padding of a convolution."""
    codec, runtime = load(tiny_bundle, engines, FakeDevice(eager=eager))
    for waveforms in (clips(1), clips(700), clips(8000), clips(16000, 16000, 16000), clips(16000, 15999, 14500)):
        same(codec, tiny_codec, waveforms)
    assert {session.path.stem for session in runtime.sessions} == {
        "encoder_lstm_0_forward", "encoder_lstm_0_backward", "encoder_lstm_1_forward", "encoder_lstm_1_backward",
        "decoder_recurrent",
    }  # fmt: skip


def test_both_libraries_share_one_stream(tiny_bundle: Path, engines: Path) -> None:
    codec, runtime = load(tiny_bundle, engines)
    backend = codec.backend
    assert isinstance(backend, HybridBackend)
    codec.decode(codec.encode(clips(8000)[0], RATE))
    with backend._engines.resources.lease_stream() as stream:
        handle = str(stream.handle)
    for session in runtime.sessions:
        [(provider, options)] = session.asked
        assert provider == CUDA
        assert refused(CUDA, options) == []
        assert (options["has_user_compute_stream"], options["user_compute_stream"]) == ("1", handle)


def test_features_stay_on_the_device(tiny_bundle: Path, engines: Path) -> None:
    device = FakeDevice()
    codec, _ = load(tiny_bundle, engines, device)
    tokens = codec.encode(clips(8000)[0], RATE)
    assert device.downloaded == [tokens.codes.size * 8]


def test_fixed_shapes_are_captured(tiny_bundle: Path, engines: Path, tiny_codec: Codec) -> None:
    device = FakeDevice()
    codec, _ = load(tiny_bundle, engines, device)
    for _ in range(4):
        same(codec, tiny_codec, clips(16000))
    assert device.launches > 0


def test_streams_and_long_clips_run(tiny_bundle: Path, engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, engines)
    tokens = tiny_codec.encode(clips(9000)[0], RATE)
    with codec.stream_decoder() as stream:
        audio = [stream.push(tokens.codes[:, start : start + 5]) for start in range(0, tokens.num_frames, 5)]
        audio.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(audio)[:9000], tiny_codec.decode(tokens), atol=2e-5)
    with pytest.raises(ArgumentError, match="no engines for live encoding"):
        codec.stream_encoder()


def test_what_is_missing_is_named(
    tiny_bundle: Path, copy_of_tiny_bundle: Path, tmp_path: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, device = Bundle.open(tiny_bundle), FakeDevice()
    library = Library(fake_tensorrt(device), TENSORRT)
    backend = TensorrtBackend(opened, engines, True, device, library)
    for path in engines.glob(f"{ENGINE_GRAPHS[3]}-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    few = TensorrtBackend(opened, tmp_path, True, device, library)
    codec = Codec(opened, HybridBackend(opened, None, few, FakeRuntime(device=device)))
    with pytest.raises(EngineError, match=f"encoder_downsampler: no engine.*--graphs {','.join(ENGINE_GRAPHS)}"):
        codec.encode(clips(8000)[0], RATE)
    broken = Codec(opened, HybridBackend(opened, None, backend, FakeRuntime("no such library", device)))
    with pytest.raises(ProviderError, match="no such library"):
        broken.encode(speech(8000, RATE), RATE)
    monkeypatch.setattr("dmcodec.bundle.Manifest.has_encoder_parts", False)
    with pytest.raises(BundleError, match="cut at the LSTM"):
        HybridBackend(opened, None, backend, FakeRuntime(device=device))


@pytest.mark.skipif(gpu_or_none() is not None, reason="this machine has a GPU")
def test_both_spellings_load_it(copy_of_tiny_bundle: Path, engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.runtime.hybrid_backend.import_onnxruntime", FakeRuntime)
    for arguments in ({"backend": "tensorrt", "recurrent": "onnxruntime-cuda"}, {"backend": "tensorrt-hybrid"}):
        with pytest.raises(GpuError, match="no NVIDIA driver"):
            Codec.load(copy_of_tiny_bundle, engine_cache=engines, **arguments)  # type: ignore[arg-type]


def test_it_is_pickled_by_its_arguments(tiny_bundle: Path, engines: Path) -> None:
    codec, _ = load(tiny_bundle, engines)
    assert isinstance(codec.backend, HybridBackend)
    make, arguments = codec.backend.__reduce__()
    assert make is HybridBackend
    bundle, folder, *rest = pickle.loads(pickle.dumps(arguments))
    assert (bundle.path, folder, rest) == (tiny_bundle, engines, [None, None, 0])


def test_closing_frees_everything(tiny_bundle: Path, engines: Path) -> None:
    device = FakeDevice()
    codec, _ = load(tiny_bundle, engines, device)
    with codec:
        codec.warm_up(0.5)
        codec.decode(codec.encode(clips(8000)[0], RATE))
        assert device.leaks()
    assert device.leaks() == {}
