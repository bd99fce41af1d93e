"""Sides measured in turn, A B A B: what else the machine does in the meantime weighs on all of them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.bundle import (
    DECODE_GRAPHS,
    ENCODE_GRAPHS,
    FIRST_LEVEL,
    BundleSide,
    full_lengths,
    sample_batch,
)
from dmcodec.benchmarks.codecs.interface import Side
from dmcodec.benchmarks.timing import Progress, Speed, Timing, paired_speedup, timed
from dmcodec.export.agreement import code_agreement, snr_db

from .options import BenchOptions, Shape
from .result import Comparison, GraphResult, Measurement, StreamResult

# FOLDED: Each graph of the bundle alone: load, first run, steady state.
# FOLDED: Streaming decode: how long a push takes, and when the first audio is there.


def measure_shape(
    bundle: BundleSide, peers: tuple[Side, ...], shape: Shape, rounds: int, progress: Progress
) -> tuple[list[Measurement], list[Comparison]]:
    """Encodes and decodes one shape on the bundle and its peers; all decode the bundle's codes.

    Returns:
        For each side its encode and its decode, and for each peer how the bundle compares with it.
    """
    waveforms = sample_batch(bundle.codec.config, shape.duration_s, shape.batch)
    audio_s = waveforms.size / bundle.codec.sample_rate
    sides: tuple[Side, ...] = (bundle, *peers)
    encoded, codes = _run(sides, "encode", waveforms, shape, audio_s, rounds, progress)
    decoded, audio = _run(sides, "decode", codes[bundle.name], shape, audio_s, rounds, progress)
    comparisons = [_compare(bundle, peer, shape, encoded, decoded, codes, audio) for peer in peers]
    return [*encoded.values(), *decoded.values()], comparisons


def _run(
    sides: tuple[Side, ...],
    operation: str,
    batch: NDArray[Any],
    shape: Shape,
    audio_s: float,
    rounds: int,
    progress: Progress,
) -> tuple[dict[str, Measurement], dict[str, NDArray[Any]]]:
    first_runs_s: dict[str, float] = {}
    outputs: dict[str, NDArray[Any]] = {}
    for side in sides:
        first_runs_s[side.name], outputs[side.name] = timed(getattr(side, operation), batch)
    runs_s: dict[str, list[float]] = {side.name: [] for side in sides}
    for done in range(rounds):
        progress(f"{operation} {shape}", done, rounds)
        for side in sides:
            runs_s[side.name].append(timed(getattr(side, operation), batch)[0])
    progress(f"{operation} {shape}", rounds, rounds)
    measurements = {}
    for name, times in runs_s.items():
        timing = Timing.of(times)
        speed = Speed.of(timing.p50_s, audio_s)
        measurements[name] = Measurement(
            name, operation, shape.duration_s, shape.batch, first_runs_s[name], timing, speed
        )
    return measurements, outputs


def _compare(
    bundle: BundleSide,
    peer: Side,
    shape: Shape,
    encoded: dict[str, Measurement],
    decoded: dict[str, Measurement],
    codes: dict[str, NDArray[Any]],
    audio: dict[str, NDArray[Any]],
) -> Comparison:
    own, other = bundle.name, peer.name
    return Comparison(
        peer=other,
        duration_s=shape.duration_s,
        batch=shape.batch,
        encode_speedup=paired_speedup(encoded[own].timing.runs_s, encoded[other].timing.runs_s),
        decode_speedup=paired_speedup(decoded[own].timing.runs_s, decoded[other].timing.runs_s),
        code_agreement=code_agreement(codes[other], codes[own]),
        waveform_snr_db=snr_db(audio[other], audio[own]),
    )


_INPUTS = {"encoder": "waveform", "quantizer": "latents", "dequantizer": "codes", "decoder": "latents"}


def measure_graphs(side: BundleSide, options: BenchOptions, progress: Progress) -> tuple[GraphResult, ...]:
    """Loads all graphs of `side` and measures each on what the one before it gave for the reference clip."""
    tensor: NDArray[Any] = sample_batch(side.codec.config, options.reference_s, 1)
    audio_s = tensor.shape[2] / side.codec.sample_rate
    graphs = ENCODE_GRAPHS + DECODE_GRAPHS
    results = []
    for done, graph in enumerate(graphs):
        progress("graphs", done, len(graphs))
        result, tensor = _measure(side, graph, tensor, audio_s, options.rounds)
        results.append(result)
    progress("graphs", len(graphs), len(graphs))
    return tuple(results)


def _measure(
    side: BundleSide, graph: str, tensor: NDArray[Any], audio_s: float, rounds: int
) -> tuple[GraphResult, NDArray[Any]]:
    inputs = {_INPUTS[graph]: tensor}
    if graph == "dequantizer":
        inputs["first_level"] = FIRST_LEVEL
    if graph in ("encoder", "decoder"):
        inputs["lengths"] = full_lengths(tensor)
    load_s = side.load(graph)
    first_run_s, output = timed(side.codec.run_graph, graph, **inputs)
    timing = Timing.of([timed(side.codec.run_graph, graph, **inputs)[0] for _ in range(rounds)])
    operation = "encode" if graph in ENCODE_GRAPHS else "decode"
    speed = Speed.of(timing.p50_s, audio_s)
    return GraphResult(graph, operation, load_s, first_run_s, timing, speed), output


def measure_stream(side: BundleSide, options: BenchOptions, progress: Progress) -> StreamResult:
    """Decodes the reference clip's length of random codes as a stream, `rounds` times after one to warm up.

    Pushes follow each other at once; what waiting for tokens adds is told apart as `tokens_needed_s`.
    """
    codec, config = side.codec, side.codec.config
    frames = max(options.chunk_frames, round(options.reference_s * config.frame_rate))
    codes = np.random.default_rng(0).integers(config.codebook_size, size=(config.n_q, frames))
    pushes_s: list[float] = []
    first_audio_s: list[float] = []
    total_s: list[float] = []
    for done in range(options.rounds + 1):
        progress("stream", done, options.rounds + 1)
        start, first_s = time.perf_counter(), None
        with codec.stream_decoder() as stream:
            for place in range(0, frames, options.chunk_frames):
                push_s, audio = timed(stream.push, codes[:, place : place + options.chunk_frames])
                if first_s is None and audio.size:
                    first_s = time.perf_counter() - start
                if done:
                    pushes_s.append(push_s)
            stream.finish()
        if done:
            total_s.append(time.perf_counter() - start)
            first_audio_s.append(time.perf_counter() - start if first_s is None else first_s)
    progress("stream", options.rounds + 1, options.rounds + 1)
    look_ahead = codec.decoder_reach.look_ahead_frames
    chunks_needed = -(-(look_ahead + 1) // options.chunk_frames)
    return StreamResult(
        chunk_s=options.chunk_frames / config.frame_rate,
        look_ahead_s=look_ahead / config.frame_rate,
        tokens_needed_s=chunks_needed * options.chunk_frames / config.frame_rate,
        first_audio_compute_s=float(np.median(first_audio_s)),
        push=Timing.of(pushes_s),
        speed=Speed.of(float(np.median(total_s)), frames / config.frame_rate),
    )
