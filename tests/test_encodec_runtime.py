"""EnCodec, a causal codec, in all ways of running: batches, long clips, streams, pools, precisions, other backends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.codec import build as build_simulated
from fakes.codec import load as load_simulated
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt
from fakes.onnxruntime import FakeRuntime
from hypothesis import given, settings
from hypothesis import strategies as st
from live_streams import cut, streamed
from numpy.typing import NDArray

from dmcodec.benchmarks.verify import VerifyOptions, run_verify
from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError
from dmcodec.export import export_again, export_bundle
from dmcodec.export.agreement import snr_db
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.nn import DMCodec
from dmcodec.receptive_field import DecoderReach, EncoderReach, decoder_reach, encoder_reach
from dmcodec.runtime import Codec, Tokens
from dmcodec.runtime.hybrid_backend import ENGINE_GRAPHS, HybridBackend
from dmcodec.runtime.spool import Spool
from dmcodec.runtime.sweeps import ExactEncoder, Sizes
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.library import TENSORRT, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.runtime.workers import Workers
from dmcodec.sample import speech

RATE, HOP = 24000, 320
SMALL = CodecConfig(
    n_filters=2, dimension=8, semantic_dimension=8, strides=(5, 2), codebook_size=16, n_q=3, sample_rate=24000,
    bidirectional=False, causal=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def codec(encodec_bundle: Path) -> Codec:
    return Codec.load(encodec_bundle, threads=1)


def clip(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Speech with noise, so that codes change from frame to frame."""
    noise = np.random.default_rng(seed).normal(0, 0.1, num_samples)
    tiled = np.tile(speech(8 * RATE, RATE), -(-num_samples // (8 * RATE)))[:num_samples]
    return (tiled + noise).astype(np.float32)


def test_the_reach_is_that_of_the_javascript_runtime() -> None:
    """runtime/web/test/reach.test.js has the same numbers."""
    released, causal = CodecConfig(), CodecConfig(causal=True)
    assert encoder_reach(released) == EncoderReach(523, 235, 555, 3, 3)
    assert decoder_reach(released) == DecoderReach(3, 3, 1, 1, 2)
    assert encoder_reach(causal) == EncoderReach(478, 0, 360, 6, 0)
    assert decoder_reach(causal) == DecoderReach(6, 0, 2, 0, 1)
    assert decoder_reach(dataclasses.replace(causal, trim_right_ratio=0.5)).future == 1
    far = CodecConfig(strides=(1, 4), residual_kernel_size=5, n_residual_layers=3)  # over many of its short frames
    assert encoder_reach(far) == EncoderReach(79, 79, 83, 3, 3)


# Live encoding: the codes of the whole clip, with no look-ahead


@settings(max_examples=25)
@given(
    num_samples=st.integers(1, 12000),
    sizes=st.lists(st.one_of(st.integers(1, 400), st.integers(1, 5000)), min_size=1, max_size=4),
    step_s=st.sampled_from([None, 0.01, 0.05, 0.3]),
)
def test_live_codes_are_those_of_the_whole_clip(
    codec: Codec, num_samples: int, sizes: list[int], step_s: float | None
) -> None:
    waveform = clip(num_samples)
    if num_samples / min(sizes) > 1000:
        sizes = [max(sizes) + 50]
    got = streamed(codec.stream_encoder(step_s=step_s), cut(waveform, sizes))
    np.testing.assert_array_equal(got, codec.encode(waveform, RATE).codes)


@pytest.mark.parametrize(("step_s", "longest"), [(None, 8 * HOP), (0.01, 7 * HOP), (0.05, 8 * HOP)])
def test_the_delay_is_one_step_and_at_the_start_what_the_reflection_needs(
    codec: Codec, step_s: float | None, longest: int
) -> None:
    stream = codec.stream_encoder(step_s=step_s)
    assert (stream.look_ahead_frames, stream.delay_samples) == (0, longest)
    arrived: list[int] = []
    waveform = clip(16000)
    for pushed in range(1, len(waveform) + 1):
        arrived += [pushed] * stream.push(waveform[pushed - 1 : pushed]).shape[1]
    waited = np.array(arrived) - HOP * np.arange(len(arrived))
    assert waited.max() == longest
    assert waited[8:].max() == stream.step_frames * HOP  # nothing is waited for but the frames of the step


def test_a_look_ahead_is_refused(codec: Codec) -> None:
    assert codec.look_ahead_s == 0
    assert codec.stream_encoder(0.0).look_ahead_frames == 0
    with pytest.raises(ArgumentError, match="runs forward only and looks 0 s ahead; leave it out"):
        codec.stream_encoder(0.1)


def test_no_code_depends_on_a_later_sample(codec: Codec) -> None:
    waveform, frame = clip(20000), 30
    other = waveform.copy()
    other[(frame + 1) * HOP :] = 0.5
    codes, changed = (codec.encode(each, RATE).codes for each in (waveform, other))
    np.testing.assert_array_equal(changed[:, : frame + 1], codes[:, : frame + 1])
    assert (changed[:, frame + 1 :] != codes[:, frame + 1 :]).any()


# Live decoding


@pytest.mark.parametrize("sizes", [[1], [2, 1, 9], [5], [100]])
def test_live_audio_is_that_of_the_whole_clip(codec: Codec, sizes: list[int]) -> None:
    for frames in (1, 2, 6, 7, 8, 40):
        codes = np.random.default_rng(frames).integers(0, 64, (8, frames))
        whole = codec.decode(Tokens.from_codes(codes, codec.config, frames * HOP))
        stream = codec.stream_decoder()
        audio = np.concatenate([*(stream.push(piece) for piece in cut(codes, sizes)), stream.finish()])
        np.testing.assert_allclose(audio, whole, rtol=0, atol=1e-5)


def test_after_the_first_frames_audio_comes_with_its_frame(codec: Codec) -> None:
    stream, codes = codec.stream_decoder(), np.random.default_rng(0).integers(0, 64, (8, 20))
    assert (stream.look_ahead_frames, stream.first_frames) == (0, 7)
    got = [len(stream.push(codes[:, [index]])) // HOP for index in range(20)]
    assert got == [0] * 6 + [7] + [1] * 13
    assert len(stream.finish()) == 0


# Pools, long clips, files


def test_a_pool_gives_what_streams_give_alone(codec: Codec) -> None:
    clips = [clip(9000 - 777 * index, index) for index in range(3)]
    with codec.stream_pool(max_wait_ms=1) as pool:
        encoders, decoders = [pool.encoder() for _ in clips], [pool.decoder() for _ in clips]
        for encoder, decoder, waveform in zip(encoders, decoders, clips, strict=True):
            tokens = codec.encode(waveform, RATE)
            codes = np.concatenate([*(encoder.push(each) for each in cut(waveform, [700])), encoder.finish()], axis=1)
            np.testing.assert_array_equal(codes, tokens.codes)
            audio = np.concatenate([*(decoder.push(each) for each in cut(codes, [3])), decoder.finish()])
            np.testing.assert_allclose(audio[: len(waveform)], codec.decode(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tile", "block"), [(1, 1), (3, 5), (7, 100), (64, 250)])
@pytest.mark.parametrize("kept", [False, True])
def test_parts_of_any_size_are_one_piece(codec: Codec, tile: int, block: int, kept: bool, tmp_path: Path) -> None:
    """In a stream, and in stages, as an encode that can be resumed runs."""
    for num_samples in (8 * HOP, 8 * HOP + 1, 14999):
        waveform = clip(num_samples)
        folder = tmp_path / str(num_samples)
        folder.mkdir()
        with Workers.start(1) as workers, Spool(folder if kept else "memory", kept=kept) as spool:
            encoder = ExactEncoder(codec.graphs.arrays, codec.config, workers, spool, Sizes(tile, block))
            codes = np.concatenate(list(encoder.encode([waveform[:5000], waveform[5000:]])), axis=1)
        np.testing.assert_array_equal(codes, codec.encode(waveform, RATE).codes)


def test_a_long_clip_a_batch_and_a_token_file(codec: Codec, tmp_path: Path) -> None:
    waveform = clip(31 * RATE + 7)
    tokens = codec.encode(waveform, RATE)  # in tiles; it is too long for one piece
    whole = codec.run_graph("encoder", waveform=waveform[None, None], lengths=np.array([len(waveform)]))
    np.testing.assert_array_equal(tokens.codes, codec.run_graph("quantizer", latents=whole)[:, 0])
    tokens.save(tmp_path / "long.dmc")
    assert Tokens.load(tmp_path / "long.dmc") == tokens
    latents = codec.run_graph("dequantizer", codes=tokens.codes[:, None].astype(np.int64), first_level=np.array(0))
    audio = codec.run_graph("decoder", latents=latents, lengths=np.array([tokens.num_frames]))[0, 0]
    assert snr_db(audio[: len(waveform)], codec.decode(tokens)) >= 110  # as a stream
    together = codec.encode_batch([waveform, waveform[:5000], waveform[:1]], RATE)
    np.testing.assert_array_equal(together[1].codes, codec.encode(waveform[:5000], RATE).codes)


# Precisions, checks and other backends


@pytest.mark.parametrize("precision", ["fp16", "fp16-weights"])
def test_precisions_and_a_bundle_that_is_written_again(precision: str, tmp_path: Path) -> None:
    model, waveform = DMCodec.seeded(SMALL), clip(9000)
    codes = model.encode(torch.from_numpy(waveform)[None, None])[0, 0].numpy()
    bundle = export_bundle(model, tmp_path / "bundle", precision)
    tokens = Codec.load(bundle.path, threads=1).encode(waveform, RATE)
    assert (tokens.codes[0] == codes).mean() > 0.9
    if precision == "fp16":
        again = export_again(bundle, tmp_path / "again.bundle").manifest
        assert (again.config, again.precision, again.model_id) == (SMALL, precision, bundle.manifest.model_id)


def test_verify_passes(encodec_bundle: Path) -> None:
    result = run_verify(encodec_bundle, VerifyOptions(threads=1))
    assert result.passed, result.problems


def test_simulated_engines_give_the_same(encodec_bundle: Path, codec: Codec, tmp_path: Path) -> None:
    build_simulated(encodec_bundle, ShapeRequest.parse("0.1s:1s:3s", "1:1:4", "1s"), tmp_path)
    simulated, _ = load_simulated(encodec_bundle, tmp_path)
    with simulated:
        assert_same(simulated, codec)
        stream, whole = simulated.stream_decoder(), codec.encode(clip(9000), RATE)
        audio = np.concatenate([*(stream.push(each) for each in cut(whole.codes, [5])), stream.finish()])
        np.testing.assert_allclose(audio[:9000], codec.decode(whole), rtol=0, atol=2e-5)


def test_the_hybrid_backend_gives_the_same(encodec_bundle: Path, codec: Codec, tmp_path: Path) -> None:
    device = FakeDevice()
    library, opened = Library(fake_tensorrt(device), TENSORRT), Bundle.open(encodec_bundle)
    request = ShapeRequest.parse("0.1s:1s:3s", "1:1:4", None)
    planned = plan_engines(opened, library, GPU, request, BuildOptions(), ENGINE_GRAPHS, tmp_path)
    build_engines(opened, library, GPU, planned, BuildOptions(), tmp_path)
    engines = TensorrtBackend(opened, tmp_path, True, device, library)
    with Codec(opened, HybridBackend(opened, tmp_path, engines, FakeRuntime(device=device))) as hybrid:
        assert_same(hybrid, codec)


def assert_same(other: Codec, codec: Codec) -> None:
    clips = [clip(24000), clip(8000, 1), clip(7999, 2), clip(1)]
    tokens, expected = other.encode_batch(clips, RATE), codec.encode_batch(clips, RATE)
    for got, want, audio in zip(tokens, expected, other.decode_batch(tokens), strict=True):
        np.testing.assert_array_equal(got.codes, want.codes)
        np.testing.assert_allclose(audio, codec.decode(want), rtol=0, atol=2e-5)


def test_a_triton_repository_serves_it(encodec_bundle: Path, codec: Codec, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    from dmcodec.export.triton import TritonOptions, export_triton
    from dmcodec.export.triton.simulation import Simulation, speech_stream

    export_triton(encodec_bundle, tmp_path / "models", TritonOptions(max_batch_size=2))
    stream, tokens = speech_stream(Simulation(tmp_path / "models")), codec.encode(clip(9000), RATE)
    pieces = [stream.push(each.astype(np.int64)) for each in cut(tokens.codes, [1, 4])]
    audio = np.concatenate([*pieces, stream.finish()])
    np.testing.assert_allclose(audio[:9000], codec.decode(tokens), rtol=0, atol=1e-5)
    assert sum(map(len, pieces)) == len(audio)
