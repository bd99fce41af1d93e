"""Interleaved timing (A B A B), so that background load affects all codecs equally; timing of graphs and streams."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.bundle import DECODE_GRAPHS, ENCODE_GRAPHS, BundleCodec
from dmcodec.benchmarks.codecs.interface import MeasuredCodec
from dmcodec.benchmarks.timing import Progress, Speed, Timing, paired_quartiles, timed
from dmcodec.export.agreement import code_agreement, snr_db
from dmcodec.sample import speech

from .budget import MIN_ROUNDS, Budget
from .options import BenchOptions, Shape
from .other_codecs import OtherCodec
from .result import Comparison, GraphResult, Measurement, StreamResult

_INPUTS = {"encoder": "waveform", "quantizer": "latents", "dequantizer": "codes", "decoder": "latents"}
GRAPH_SHARE = 0.03  # of the time that is left, for each graph
_FIRST_LEVEL = np.array(0, np.int64)


def speech_batch(shape: Shape, sample_rate: int) -> NDArray[np.float32]:
    """Return real speech of a shape, another part of it in each row: [batch, 1, samples]."""
    num_samples = max(1, round(shape.duration_s * sample_rate))
    return speech(shape.batch * num_samples, sample_rate).reshape(shape.batch, 1, num_samples)


def measure_shape(
    bundle: BundleCodec,
    peers: tuple[MeasuredCodec, ...],
    shape: Shape,
    budget: Budget,
    progress: Progress,
    n_q: int | None = None,
    share: float = 1.0,
) -> tuple[list[Measurement], list[Comparison]]:
    """Encode and decode one shape with the bundle and its peers.

    All encode the same speech, each at its own sample rate, and decode the bundle's codes; other networks decode their
    own.

    Args:
        n_q: levels; by default all of the bundle.
        share: of the time that the budget has left, for both operations.

    Returns:
        The measurements of encode and decode of each codec, and the comparison of the bundle with each peer.
    """
    codecs: tuple[MeasuredCodec, ...] = (bundle, *peers)
    others = {peer.name for peer in peers if isinstance(peer, OtherCodec) and not peer.same_network}
    by_rate = {rate: speech_batch(shape, rate) for rate in {codec.sample_rate for codec in codecs}}
    audio_s = by_rate[bundle.sample_rate].size / bundle.sample_rate
    encodes = {codec.name: functools.partial(codec.encode, by_rate[codec.sample_rate], n_q) for codec in codecs}
    encoded, codes = _interleaved(encodes, "encode", shape, audio_s, budget, share / 2, progress)
    decodes = {
        codec.name: functools.partial(codec.decode, codes[codec.name if codec.name in others else bundle.name])
        for codec in codecs
    }
    decoded, audio = _interleaved(decodes, "decode", shape, audio_s, budget, share / (2 - share), progress)
    comparisons = [
        _compare(bundle.name, peer.name, shape, encoded, decoded, codes, audio, peer.name not in others)
        for peer in peers
    ]
    return [*encoded.values(), *decoded.values()], comparisons


def _interleaved(
    runs: Mapping[str, Callable[[], NDArray[Any]]],
    operation: str,
    shape: Shape,
    audio_s: float,
    budget: Budget,
    share: float,
    progress: Progress,
) -> tuple[dict[str, Measurement], dict[str, NDArray[Any]]]:
    """Run one operation of all codecs, one after the other in each round; return measurements and outputs by name."""
    first_runs_s: dict[str, float] = {}
    outputs: dict[str, NDArray[Any]] = {}
    for name, run in runs.items():
        first_runs_s[name], outputs[name] = timed(run)
    runs_s: dict[str, list[float]] = {name: [] for name in runs}
    rounds, done = MIN_ROUNDS, 0
    while done < rounds:
        progress(f"{operation} {shape}", done, rounds)
        for name, run in runs.items():
            runs_s[name].append(timed(run)[0])
        done += 1
        if done == 1:  # first runs take longer
            rounds = budget.rounds(sum(times[0] for times in runs_s.values()), share)
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
    bundle: str,
    peer: str,
    shape: Shape,
    encoded: dict[str, Measurement],
    decoded: dict[str, Measurement],
    codes: dict[str, NDArray[Any]],
    audio: dict[str, NDArray[Any]],
    same_network: bool,
) -> Comparison:
    encode, decode = (
        paired_quartiles(side[bundle].timing.runs_s, side[peer].timing.runs_s) for side in (encoded, decoded)
    )
    return Comparison(
        peer=peer,
        duration_s=shape.duration_s,
        batch=shape.batch,
        encode_speedup=encode[1],
        decode_speedup=decode[1],
        code_agreement=code_agreement(codes[peer], codes[bundle]) if same_network else None,
        waveform_snr_db=snr_db(audio[peer], audio[bundle]) if same_network else None,
        encode_quartiles=(encode[0], encode[2]),
        decode_quartiles=(decode[0], decode[2]),
    )


def measure_graphs(
    bundle: BundleCodec, options: BenchOptions, budget: Budget, progress: Progress
) -> tuple[GraphResult, ...]:
    """Load the four graphs and measure each alone, on the output of the previous graph for the reference clip."""
    tensor: NDArray[Any] = speech_batch(options.reference, bundle.sample_rate)
    audio_s = tensor.shape[2] / bundle.sample_rate
    graphs = ENCODE_GRAPHS + DECODE_GRAPHS
    results = []
    for done, graph in enumerate(graphs):
        progress("graphs", done, len(graphs))
        result, tensor = _measure_graph(bundle, graph, tensor, audio_s, budget)
        results.append(result)
    progress("graphs", len(graphs), len(graphs))
    return tuple(results)


def _measure_graph(
    bundle: BundleCodec, graph: str, tensor: NDArray[Any], audio_s: float, budget: Budget
) -> tuple[GraphResult, NDArray[Any]]:
    inputs = {_INPUTS[graph]: tensor}
    if graph == "dequantizer":
        inputs["first_level"] = _FIRST_LEVEL
    if graph in ("encoder", "decoder"):
        inputs["lengths"] = np.full(tensor.shape[0], tensor.shape[-1], np.int64)
    load_s = bundle.load(graph)
    first_run_s, output = timed(bundle.codec.run_graph, graph, **inputs)
    rounds = budget.rounds(first_run_s, GRAPH_SHARE)
    timing = Timing.of([timed(bundle.codec.run_graph, graph, **inputs)[0] for _ in range(rounds)])
    operation = "encode" if graph in ENCODE_GRAPHS else "decode"
    speed = Speed.of(timing.p50_s, audio_s)
    return GraphResult(graph, operation, load_s, first_run_s, timing, speed), output


def measure_stream(bundle: BundleCodec, options: BenchOptions, rounds: int, progress: Progress) -> StreamResult:
    """Decode random codes as a stream, as long as the reference clip: one stream to warm up, then `rounds` of them.

    The pushes follow each other without waiting for tokens; `tokens_needed_s` of the result is the time of that wait.
    """
    codec, chunk_frames = bundle.codec, options.chunk_frames
    frames = max(chunk_frames, round(options.reference_s * bundle.frame_rate))
    codes = np.random.default_rng(0).integers(bundle.codebook_size, size=(bundle.n_q, frames))
    pushes_s: list[float] = []
    first_audio_s: list[float] = []
    total_s: list[float] = []
    for done in range(rounds + 1):
        progress("stream", done, rounds + 1)
        start, first_s = time.perf_counter(), None
        with codec.stream_decoder() as stream:
            for place in range(0, frames, chunk_frames):
                push_s, audio = timed(stream.push, codes[:, place : place + chunk_frames])
                if first_s is None and audio.size:
                    first_s = time.perf_counter() - start
                if done:
                    pushes_s.append(push_s)
            stream.finish()
        if done:
            total_s.append(time.perf_counter() - start)
            first_audio_s.append(time.perf_counter() - start if first_s is None else first_s)
    progress("stream", rounds + 1, rounds + 1)
    reach = codec.decoder_reach
    chunks_needed = -(-reach.first_frames // chunk_frames)
    return StreamResult(
        chunk_s=chunk_frames / bundle.frame_rate,
        look_ahead_s=reach.look_ahead_frames / bundle.frame_rate,
        tokens_needed_s=chunks_needed * chunk_frames / bundle.frame_rate,
        first_audio_compute_s=float(np.median(first_audio_s)),
        push=Timing.of(pushes_s),
        speed=Speed.of(float(np.median(total_s)), frames / bundle.frame_rate),
    )
