"""How a pool shares its pushes among the batches that run at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pools import TIMEOUT_S, Gate, alone, assert_same, cut, held, random_codes, wait_until

from dmcodec.bundle import Bundle
from dmcodec.errors import StreamError
from dmcodec.runtime import Codec
from dmcodec.sample import speech


def test_no_batch_takes_more_than_its_share(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a push that runs and three that wait, the second of two batches takes two; the third starts with the next."""
    codec = Codec.load(tiny_bundle, threads=2)
    gate = Gate(codec._pipeline.concurrent[0], monkeypatch)
    clips = [random_codes(8, seed) for seed in range(3)]
    with codec.stream_pool(max_wait_ms=500) as pool, ThreadPoolExecutor(1) as threads:
        first, *others = [pool.decoder() for _ in range(4)]
        running = held(gate, first.push, threads)
        try:
            jobs = [one._submit_push(clip) for one, clip in zip(others, clips, strict=True)]  # without waiting
            wait_until(lambda: len(gate.runs) > 1, lambda: f"{len(gate.runs)} runs")
        finally:
            gate.open()
        assert gate.runs[1][1]["codes"].shape == (8, 2, 8)
        for job, clip in zip(jobs, clips, strict=True):
            assert_same(job.result.result(TIMEOUT_S), codec.stream_decoder().push(clip))
        running.result()


def test_encoders_with_a_large_lstm_run_on_all_threads_beside_decoders(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmcodec.runtime.pipeline.SHARED_CACHE_BYTES", 0)
    codec = Codec.load(tiny_bundle, threads=2)
    samples, tokens = cut(speech(9000, 16000), [1600]), cut(random_codes(20), [5])
    codes, audio = alone(codec.stream_encoder(), samples), alone(codec.stream_decoder(), tokens)
    on_all, on_one = Gate(codec.graphs, monkeypatch), Gate(codec._pipeline.concurrent[0], monkeypatch)
    with ThreadPoolExecutor(1) as other, codec.stream_pool(max_streams=2) as pool:
        encoder, decoder = pool.encoder(), pool.decoder()
        for refused in (pool.encoder, pool.decoder):
            with pytest.raises(StreamError, match="all 2 streams are open"):
                refused()
        encoded = other.submit(alone, encoder, samples)
        assert_same(alone(decoder, tokens), audio)
        assert_same(encoded.result(), codes)
        assert {"encoder_lstm_0_backward", "quantizer"} <= {name for name, _ in on_all.runs}
        assert {"dequantizer", "decoder_recurrent"} <= {name for name, _ in on_one.runs}
        assert not {name for name, _ in on_all.runs} & {name for name, _ in on_one.runs}
        encoder.close()
        assert pool.num_streams == 1
        pool.decoder()
    assert pool.closed
    assert not any(thread.is_alive() for scheduler in pool._schedulers.values() for thread in scheduler._threads)
    with pytest.raises(StreamError, match="stream pool: closed"):
        pool.encoder()


def test_two_directions_of_a_narrow_lstm_stay_in_a_smaller_cache(
    int8_bundle: Bundle, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = int8_bundle.manifest.config.lstm_channels
    monkeypatch.setattr("dmcodec.runtime.pipeline.SHARED_CACHE_BYTES", 2 * 4 * channels**2 * 2)
    eight, float32 = (Codec.load(path, threads=2)._pipeline for path in (int8_bundle.path, tiny_bundle))
    assert eight.pooled_encoding == eight.concurrent
    assert float32.pooled_encoding == (float32.graphs, 1)
