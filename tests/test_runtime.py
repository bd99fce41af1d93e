"""The runtime: what apps embed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, BackendError, MissingDependencyError, ProviderError, TokensError
from dmcodec.export.agreement import snr_db
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec, onnxruntime_import
from dmcodec.runtime.onnxruntime_backend import BoundRunner, OnnxRuntimeBackend
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.sample import speech
from dmcodec.tokens import Tokens


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle)


def test_properties_are_the_configurations(codec: Codec, tiny_config: CodecConfig) -> None:
    assert codec.sample_rate == 16000
    assert codec.hop_length == 320
    assert codec.frame_rate == 50
    assert codec.n_q == tiny_config.n_q
    assert codec.codebook_size == tiny_config.codebook_size


def test_repr_is_one_line_that_says_what_matters(codec: Codec, copy_of_tiny_bundle: Path) -> None:
    model_id = codec.bundle.manifest.model_id
    described = f"{model_id}, fp32, onnxruntime cpu, 16000 Hz, 50 frames/s, 8 x 64 codes)"
    assert repr(codec) == f"Codec(bundle {described}"
    renamed = copy_of_tiny_bundle.rename(copy_of_tiny_bundle.with_name("my-codec.bundle"))
    assert repr(Codec.load(renamed, threads=1)) == f"Codec(my-codec {described}"


@pytest.mark.parametrize("num_samples", [1, 2, 5, 319, 320, 321, 959, 961, 16001])
def test_any_length_gives_the_codes_and_audio_of_torch(codec: Codec, tiny_model: DMCodec, num_samples: int) -> None:
    waveform = speech(num_samples + 4000, 16000)[4000:]
    tokens = codec.encode(waveform, 16000)
    expected = tiny_model.encode(torch.from_numpy(waveform)[None, None])
    assert tokens.num_samples == num_samples
    assert tokens.num_frames == -(-num_samples // 320)
    np.testing.assert_array_equal(tokens.codes, expected[:, 0].numpy())
    decoded = codec.decode(tokens)
    assert decoded.dtype == np.float32
    assert decoded.shape == (num_samples,)
    assert snr_db(tiny_model.decode(expected)[0, 0, :num_samples].numpy(), decoded) >= 90


def test_fewer_levels_are_the_first_rows_and_decode_like_torch(codec: Codec, tiny_model: DMCodec) -> None:
    waveform = speech(8000, 16000)
    whole, three = codec.encode(waveform, 16000), codec.encode(waveform, 16000, n_q=3)
    np.testing.assert_array_equal(three.codes, whole.codes[:3])
    np.testing.assert_array_equal(codec.decode(whole, n_q=3), codec.decode(three))
    expected = tiny_model.decode(torch.from_numpy(three.codes.astype(np.int64))[:, None])[0, 0].numpy()
    assert snr_db(expected, codec.decode(three)) >= 90


def test_latents_are_torchs(codec: Codec, tiny_model: DMCodec) -> None:
    waveform = speech(5000, 16000)
    with torch.inference_mode():
        expected = tiny_model.encoder(torch.from_numpy(waveform)[None, None])[0].numpy()
    np.testing.assert_allclose(codec.latents(waveform, 16000), expected, atol=1e-5)


def test_input_types_and_channels_mean_the_same(codec: Codec) -> None:
    samples = (speech(6000, 16000) * 20000).astype(np.int16)
    as_float = samples / np.float32(32768)
    expected = codec.encode(as_float, 16000)
    assert codec.encode(samples, 16000) == expected
    assert codec.encode(as_float.astype(np.float64), 16000) == expected
    assert codec.encode(np.stack([as_float, as_float]), 16000) == expected
    assert codec.encode(as_float.tolist(), 16000) == expected


def test_other_sample_rates_are_resampled(codec: Codec) -> None:
    tokens = codec.encode(np.zeros(44100, np.float32), 44100)
    assert tokens.num_samples == pytest.approx(16000, abs=1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.sampled_from([1, 320, 777, 3200, 5000]), min_size=1, max_size=6))
def test_a_batch_changes_nobodys_tokens(codec: Codec, lengths: list[int]) -> None:
    waveforms = [speech(length + 100 * i, 16000)[100 * i :] for i, length in enumerate(lengths)]
    batch = codec.encode_batch(waveforms, 16000)
    assert batch == [codec.encode(waveform, 16000) for waveform in waveforms]


def test_an_empty_batch_gives_nothing(codec: Codec) -> None:
    assert codec.encode_batch([], 16000) == []


def test_threads_get_the_same_results(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)  # not loaded yet: the threads race for that, too
    waveforms = [speech(3000 + 500 * i, 16000) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda waveform: codec.decode(codec.encode(waveform, 16000)), waveforms * 2))
    alone = [codec.decode(codec.encode(waveform, 16000)) for waveform in waveforms]
    for got, expected in zip(together, alone * 2, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_files_round_trip(codec: Codec, speech_wav: Path, tmp_path: Path) -> None:
    tokens = codec.encode_file(speech_wav)
    tokens.save(tmp_path / "a.dmc")
    codec.decode_file(tmp_path / "a.dmc", tmp_path / "a.wav")
    codec.decode_file(tokens, tmp_path / "b.wav", n_q=tokens.n_q)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_warm_up_loads_every_graph(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    codec.warm_up(0.1)
    assert codec.run_graph("encoder", waveform=np.zeros((1, 1, 10), np.float32), lengths=np.array([10])).shape[2] == 1


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.zeros((2, 3, 4), np.float32), "shape"),
        (np.zeros(10, np.int32), "int32"),
        (np.array("text"), "shape"),
    ],
)
def test_wrong_waveforms_are_refused(codec: Codec, waveform: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        codec.encode(waveform, 16000)


@pytest.mark.parametrize("sample_rate", [0, -1, 16000.5, "16000", None, True])
def test_wrong_sample_rates_are_refused(codec: Codec, sample_rate: Any) -> None:
    with pytest.raises(AudioError, match="sample_rate"):
        codec.encode(np.zeros(10, np.float32), sample_rate)


@pytest.mark.parametrize("n_q", [0, -1, 9])
def test_wrong_n_q_is_refused(codec: Codec, n_q: int) -> None:
    with pytest.raises(ArgumentError, match="n_q must be 1 to 8"):
        codec.encode(np.zeros(10, np.float32), 16000, n_q=n_q)
    with pytest.raises(ArgumentError, match="n_q must be 1 to 2"):
        codec.decode(codec.encode(np.zeros(10, np.float32), 16000, n_q=2), n_q=9 if n_q == 9 else n_q)


def test_tokens_of_another_model_are_refused(codec: Codec) -> None:
    mine = codec.encode(speech(1000, 16000), 16000)
    anonymous = Tokens.from_codes(mine.codes, codec.config, mine.num_samples)
    np.testing.assert_array_equal(codec.decode(anonymous), codec.decode(mine))
    for change in ({"model_id": "0123456789abcdef"}, {"sample_rate": 24000}, {"codebook_size": 1000}):
        other = Tokens(**{**vars(mine), **change})
        with pytest.raises(TokensError, match="the model that made them"):
            codec.decode(other)
    with pytest.raises(TokensError, match="no frames"):
        codec.decode(Tokens.from_codes(np.zeros((8, 0), int), codec.config))
    with pytest.raises(TokensError, match="this codec has 8 levels"):
        codec.decode(Tokens.from_codes(np.zeros((9, 2), int), codec.config))


@pytest.mark.parametrize("arguments", [{"backend": "magic"}, {"provider": "magic"}, {"threads": 0}])
def test_wrong_load_arguments_are_refused(tiny_bundle: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        Codec.load(tiny_bundle, **arguments)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_without_a_gpu_build_is_an_error(tiny_bundle: Path, provider: str) -> None:
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(ProviderError, match=r"dmcodec\[gpu\]"):
        Codec.load(tiny_bundle, provider=provider)


def test_both_onnxruntimes_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_import, "_is_installed", lambda name, folder: True)
    with pytest.raises(MissingDependencyError, match="overwrite each other"):
        OnnxRuntimeBackend()


def test_io_binding_gives_the_same_results(tiny_bundle: Path, codec: Codec) -> None:
    """The runner of the CUDA provider, on the CPU device."""
    onnxruntime = import_onnxruntime()

    paths = {name: tiny_bundle / f"{name}.onnx" for name in ("encoder", "quantizer")}
    sessions = {name: onnxruntime.InferenceSession(path) for name, path in paths.items()}
    bound = {name: BoundRunner(onnxruntime, sessions[name], paths[name], "cpu") for name in paths}
    waveform = speech(5000, 16000)
    latents = bound["encoder"].run({"waveform": waveform[None, None], "lengths": np.array([5000])})[0]
    codes = codec.backend.to_array(bound["quantizer"].run({"latents": latents})[0])
    np.testing.assert_array_equal(codes[:, 0], codec.encode(waveform, 16000).codes)
    with pytest.raises(BackendError, match="failed to run"):
        bound["quantizer"].run({"latents": waveform})


def test_a_graph_that_cannot_be_loaded_is_named(copy_of_tiny_bundle: Path) -> None:
    bundle = Bundle.open(copy_of_tiny_bundle)
    bundle.graph_path("encoder").write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"encoder\.onnx"):
        Codec(bundle, OnnxRuntimeBackend()).encode(np.zeros(10, np.float32), 16000)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_runtime_works_without_torch_and_loads_none_where_it_is(tiny_bundle: Path) -> None:
    run = f"""
import sys, numpy as np
from dmcodec.runtime import Codec
codec = Codec.load({str(tiny_bundle)!r})
assert len(codec.decode(codec.encode(np.zeros(1000, np.float32), 16000))) == 1000
print(sorted(name for name in sys.modules if name.split(".")[0] in {{"torch", "onnx", "typer", "rich"}}))
"""
    assert _python(run).strip() == "[]"
    blocked = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"  # their import now fails
    assert _python(blocked + run.replace("print(", "str(")).strip() == ""
