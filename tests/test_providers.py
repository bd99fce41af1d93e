"""ONNX Runtime's GPU providers, as far as they go without a GPU: options, preparation, errors, buckets and graphs."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.codec import RATE, clips, same
from fakes.onnxruntime import CUDA, RTX, TENSORRT, FakeRuntime, FakeSession, refused

from dmcodec.bundle import GRAPH_NAMES, Bundle, encoder_part_names
from dmcodec.errors import ArgumentError, BackendError, EngineError, ProviderError
from dmcodec.export.tensorrt import BuildOptions
from dmcodec.export.tensorrt.builder import build_plan
from dmcodec.export.tensorrt.provider_graphs import write_provider_graphs
from dmcodec.runtime import Codec, onnxruntime_backend, providers
from dmcodec.runtime.bucket_shapes import PaddedValue, bucket_frames
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.provider_graphs import ProviderGraphs, joined
from dmcodec.runtime.providers import (
    PROVIDERS,
    cuda_options,
    provider_of,
    reason_of,
    rtx_options,
    tensorrt_options,
)
from dmcodec.runtime.tensorrt.library import TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.sample import speech


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with memory, for what asks the driver how large batches may be."""
    monkeypatch.setattr("dmcodec.runtime.pipeline.free_bytes", lambda index: 1 << 33, raising=False)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    return use(monkeypatch, FakeRuntime())


def use(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime) -> FakeRuntime:
    monkeypatch.setattr(onnxruntime_backend, "import_onnxruntime", lambda: runtime)
    return runtime


def open_on(bundle: Path, provider: str, **options: Any) -> Codec:
    return Codec(Bundle.open(bundle), OnnxRuntimeBackend(provider, **options))


# Options


def test_every_option_has_a_value_that_its_provider_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    """A lint over providers, graphs and precisions, against the values of onnxruntime's parsers."""
    manifest = Bundle.open(tiny_bundle).manifest
    names = (*GRAPH_NAMES, *encoder_part_names(manifest.config))
    for name, precision in itertools.product(names, ("fp32", "fp16")):
        spec = manifest.graphs[name]
        assert refused(CUDA, cuda_options(precision, 1, 1 << 40)) == []
        profile = joined(ShapeRequest().profiles(name, spec, manifest.config))
        if provider_of("tensorrt", name) == "tensorrt":
            assert refused(RTX, rtx_options(profile, tmp_path)) == []
            assert refused(TENSORRT, tensorrt_options(precision, 0, profile, tmp_path)) == []


def test_the_values_that_were_refused() -> None:
    """What an earlier version gave: the binding's own words for it."""
    assert refused(TENSORRT, {"trt_fp16_enable": "1"}) == ["The value for the key 'trt_fp16_enable' should not be '1'"]
    assert refused(CUDA, {"use_tf32": "off", "tf32": "0"}) != []


def test_tf32_is_off_for_float32_only() -> None:
    """In half precision the switch takes the tensor cores from convolutions."""
    assert cuda_options("fp32", 0)["use_tf32"] == "0"
    assert cuda_options("fp16", 0)["use_tf32"] == "1"
    assert cuda_options("fp32", 0)["cudnn_conv_algo_search"] == "HEURISTIC"
    assert cuda_options("fp32", 3)["device_id"] == "3"


# Preparation and errors


def test_results_on_cuda_are_those_of_the_cpu(
    runtime: FakeRuntime, tiny_bundle: Path, tiny_codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = open_on(tiny_bundle, "cuda")
    for waveforms in (clips(1), clips(8000), clips(16000, 15000, 14500), clips(40000)):
        same(codec, tiny_codec, waveforms)
    assert {session.asked[0][0] for session in runtime.sessions} == {CUDA}
    assert capsys.readouterr().out == ""
    tokens = tiny_codec.encode(clips(9000)[0], RATE)
    with codec.stream_decoder() as stream:
        audio = [stream.push(tokens.codes[:, start : start + 5]) for start in range(0, tokens.num_frames, 5)]
        audio.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(audio)[:9000], tiny_codec.decode(tokens), atol=2e-5)


def test_a_provider_that_cannot_load_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime would go on on the CPU, and print to stdout."""
    use(monkeypatch, FakeRuntime(broken="libcudnn.so.9: cannot open shared object file"))
    with pytest.raises(ProviderError) as found:
        open_on(tiny_bundle, "cuda").encode(clips(1000)[0], RATE)
    text = str(found.value)
    assert "libcudnn.so.9: cannot open shared object file" in text
    assert 'pip install "dmcodec[gpu]"' in text
    assert "onnxruntime_src" not in text
    assert "\n" not in text
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_silent_fallback_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    """With a provider that is not there, onnxruntime logs a line and runs on the CPU."""
    runtime = use(monkeypatch, FakeRuntime())
    monkeypatch.setattr(FakeSession, "get_providers", lambda session: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider \(it chose CPUExecutionProvider"):
        open_on(tiny_bundle, "cuda").encode(clips(1000)[0], RATE)
    assert len(runtime.sessions) == 1


def test_what_other_threads_print_goes_where_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(FakeRuntime):
        def preload_dlls(self) -> None:
            thread = threading.Thread(target=lambda: print("of another thread"))  # noqa: T201
            thread.start()
            thread.join()
            super().preload_dlls()

    runtime = Slow(broken="no such file")
    assert providers.prepare(runtime, "cuda") == "Failed to load libcublasLt.so.13: no such file"
    assert capsys.readouterr().out == "of another thread\n"


def test_an_onnxruntime_without_a_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeRuntime(tensorrt=False))
    with pytest.raises(ProviderError, match="has no TensorRT provider"):
        OnnxRuntimeBackend("tensorrt")


def test_another_tensorrt_than_the_one_that_onnxruntime_links_is_refused(
    monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime, tmp_path: Path
) -> None:
    library = tmp_path / "capi" / "libonnxruntime_providers_tensorrt.so"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF...libnvinfer.so.10\0libcudart.so.13\0")
    runtime.__file__ = str(tmp_path / "__init__.py")
    for version, works in (("11.4.0.106", False), ("10.16.1.11", True), (None, True)):
        monkeypatch.setattr(providers, "installed_tensorrt", lambda version=version: version)
        if works:
            OnnxRuntimeBackend("tensorrt")
            continue
        with pytest.raises(ProviderError, match=r'TensorRT 11.*`pip install "tensorrt-cu13>=10,<11"`'):
            OnnxRuntimeBackend("tensorrt")
    assert providers.linked_tensorrt(tmp_path / "elsewhere") is None


def test_reasons_are_one_line() -> None:
    text = "/src/provider.cc:12 Get()\n[ONNXRuntimeError] : 1 : FAIL : Failed to load library:\n  no such file"
    assert reason_of(RuntimeError(text)) == "Failed to load library: no such file"
    assert reason_of(RuntimeError("")) == "RuntimeError"
    assert len(reason_of(RuntimeError("x" * 10000))) < 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"engine_cache": "x"}, "providers tensorrt and nv-tensorrt-rtx"),
        ({"provider": "cuda", "engine_cache": "x"}, "leave it out"),
        ({"provider": "cuda", "shrink_memory": True}, "shrink_memory is for provider cpu"),
        ({"recurrent": "onnxruntime-cuda"}, "recurrent must be 'onnxruntime-cuda', with backend tensorrt"),
        ({"backend": "tensorrt", "recurrent": "cudnn"}, "recurrent must be"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tiny_bundle: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Codec.load(tiny_bundle, **arguments)


def test_a_backend_on_a_gpu_is_pickled_by_its_arguments(runtime: FakeRuntime) -> None:
    backend = pickle.loads(pickle.dumps(OnnxRuntimeBackend("cuda", device_id=1)))
    assert (backend.provider, backend.device_id) == ("cuda", 1)


# Buckets


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_runs_in_buckets_are_exact(
    provider: str, tiny_bundle: Path, tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    if provider == "cuda":
        use(monkeypatch, FakeRuntime())
    codec = open_on(tiny_bundle, provider, buckets=True)
    for waveforms in (clips(1), clips(319), clips(3841), clips(16000, 15999, 14500), clips(90001, 85000)):
        same(codec, tiny_codec, waveforms)
    tokens = tiny_codec.encode(clips(7000)[0], RATE)
    np.testing.assert_allclose(codec.decode(tokens, 3), tiny_codec.decode(tokens, 3), atol=2e-5)
    np.testing.assert_allclose(codec.decode(tokens.levels(skip=2)), tiny_codec.decode(tokens.levels(skip=2)), atol=2e-5)
    latents = codec.latents(clips(7000)[0], RATE)
    np.testing.assert_allclose(latents, tiny_codec.latents(clips(7000)[0], RATE), atol=1e-5)


def test_convolutions_see_few_shapes(runtime: FakeRuntime, tiny_bundle: Path) -> None:
    codec = open_on(tiny_bundle, "cuda")
    for length in range(8000, 12000, 400):
        codec.decode_batch(codec.encode_batch(clips(length, length - 100, length - 50), RATE))
    for session in runtime.sessions:
        shapes = {tuple(sorted(run.items())) for run in session.shapes}
        assert len(shapes) <= 2, (session.path, shapes)  # 24 and 36 frames, in batches of four


def test_results_stay_padded_on_the_device(runtime: FakeRuntime, tiny_bundle: Path) -> None:
    codec = open_on(tiny_bundle, "cuda")
    [latents] = codec.graphs.run("encoder", waveform=speech(5000, RATE)[None, None], lengths=np.array([5000]))
    assert isinstance(latents, PaddedValue)
    assert (latents.shape, latents.padded_shape) == ((1, 32, 16), (1, 32, 24))
    assert codec.backend.to_array(latents).shape == (1, 32, 16)
    with pytest.raises(BackendError, match="lengths is missing"):
        codec.graphs.run("encoder", waveform=speech(5000, RATE)[None, None])


def test_clips_that_fill_a_bucket_run_in_the_plain_form(
    runtime: FakeRuntime, tiny_bundle: Path, tiny_codec: Codec
) -> None:
    codec, expected = open_on(tiny_bundle, "cuda"), {"encoder_plain", "decoder_plain", "quantizer", "dequantizer"}
    same(codec, tiny_codec, clips(12 * 320, 12 * 320))
    assert {session.path.stem for session in runtime.sessions} == expected
    for shapes in (clips(12 * 320 - 1), clips(12 * 320, 12 * 320, 12 * 320), clips(12 * 320, 11 * 320)):
        same(codec, tiny_codec, shapes)
    assert {session.path.stem for session in runtime.sessions} == expected | {"encoder", "decoder"}


def test_buckets_are_a_quarter_of_a_second_and_later_half() -> None:
    assert [bucket_frames(frames, 50) for frames in (1, 12, 13, 250, 251, 1499)] == [12, 12, 24, 252, 275, 1500]
    assert bucket_frames(7, 1.0) == 7


def test_clips_of_up_to_30_s_run_whole_on_a_gpu(runtime: FakeRuntime, tiny_bundle: Path, tiny_codec: Codec) -> None:
    """On the CPU a single clip runs in tiles; there each tile would go through the host."""
    codec = open_on(tiny_bundle, "cuda")
    [clip] = clips(100000)
    np.testing.assert_array_equal(codec.encode(clip, RATE).codes, tiny_codec.encode(clip, RATE).codes)
    assert not {session.path.stem for session in runtime.sessions} & set(encoder_part_names(codec.config))


# Graphs of the TensorRT providers


def test_the_tensorrt_provider_gets_rewritten_graphs_profiles_and_caches(
    runtime: FakeRuntime, copy_of_tiny_bundle: Path, tiny_codec: Codec
) -> None:
    opened = Bundle.open(copy_of_tiny_bundle)
    codec = open_on(copy_of_tiny_bundle, "tensorrt")
    with pytest.raises(EngineError, match="--format trt --flavour onnxruntime --bundle"):
        codec.encode(clips(8000)[0], RATE)
    written = write_provider_graphs(opened, ShapeRequest.parse("0.1s:1s:2s", "1:1:4", None))
    graphs = {*GRAPH_NAMES, *encoder_part_names(opened.manifest.config)}
    assert {item.graph for item in written} == graphs - {"quantizer", "dequantizer"}
    for waveforms in (clips(1), clips(8000), clips(16000, 15999, 14500)):
        same(codec, tiny_codec, waveforms)
    sessions = {session.path.name.partition("-")[0].removesuffix(".onnx"): session for session in runtime.sessions}
    for name in ("encoder", "decoder"):
        session = sessions[name]
        assert [provider for provider, _ in session.asked] == [TENSORRT, CUDA]
        assert session.path.parent == copy_of_tiny_bundle / "engines" / "onnxruntime"
        assert Path(session.options["trt_engine_cache_path"]).is_dir()
        assert session.options["trt_fp16_enable"] == "False"
    assert sessions["encoder"].options["trt_profile_max_shapes"] == "waveform:4x1x32000,lengths:4"
    assert [provider for provider, _ in sessions["quantizer"].asked] == [CUDA]
    same(codec, tiny_codec, clips(*(8000 - index for index in range(7))))  # in parts of four
    with pytest.raises(BackendError, match="samples 48000 is outside of the shapes"):
        codec.encode(clips(48000)[0], RATE)


def test_graphs_of_another_export_or_altered_ones_are_refused(copy_of_tiny_bundle: Path) -> None:
    opened = Bundle.open(copy_of_tiny_bundle)
    spec = opened.manifest.graphs["decoder"]
    store = ProviderGraphs(copy_of_tiny_bundle)
    write_provider_graphs(opened, ShapeRequest(), ("decoder",))
    write_provider_graphs(opened, ShapeRequest.parse("1s", "1", None), ("encoder",))  # the other one stays
    path, profile = store.find("decoder", spec)
    assert profile.inputs["lengths"].max == (16,)
    with pytest.raises(EngineError, match="was exported again"):
        store.find("decoder", opened.manifest.graphs["encoder"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match="altered or cut"):
        store.find("decoder", spec)
    index = store.folder / "graphs.json"
    index.write_text(index.read_text().replace("decoder-", "../decoder-"))
    with pytest.raises(EngineError, match=r"graphs\.json: can't be read \(altered"):
        store.find("decoder", spec)
    write_provider_graphs(opened, ShapeRequest(), ("decoder",))
    assert store.find("decoder", spec)[0].is_file()
    assert len(list(store.folder.glob("*.onnx"))) == 1  # those that the index does not know are gone
    with pytest.raises(ArgumentError, match="no graph quantizer for ONNX Runtime's TensorRT"):
        write_provider_graphs(opened, ShapeRequest(), ("quantizer",))


def test_rtx_builds_them_for_their_shapes(tiny_bundle: Path, tmp_path: Path) -> None:
    """The smallest of them: the others are the graphs that other tests build."""
    pytest.importorskip("tensorrt_rtx")
    rtx = Library.load(TENSORRT_RTX)
    names = ("encoder_lstm_1_backward", "encoder_output", "decoder_recurrent")
    for item in write_provider_graphs(Bundle.open(tiny_bundle), ShapeRequest(), names, tmp_path):
        built = build_plan(rtx, item.graph, item.path.read_bytes(), (item.profile,), BuildOptions(), None, None)
        assert built.plan


def test_the_command_writes_them(copy_of_tiny_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from dmcodec.cli import main; main()", "export", "--format", "trt"]
    command += ["--bundle", str(copy_of_tiny_bundle), "--flavour", "onnxruntime"]
    cache = ["--engine-cache", str(tmp_path / "cache"), "--graphs", "encoder,decoder", "--json"]
    done = subprocess.run([*command, *cache], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["graphs"]
    assert [row["graph"] for row in rows] == ["encoder", "decoder"]
    assert all(Path(row["path"]).stat().st_size == row["size_bytes"] for row in rows)
    refused = subprocess.run([*command, "--tf32"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "builds nothing" in refused.stderr


def test_the_names_of_providers_are_those_of_onnxruntime() -> None:
    assert list(PROVIDERS.values()) == ["CPUExecutionProvider", CUDA, TENSORRT, RTX]
