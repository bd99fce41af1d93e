"""Each graph of the bundle alone: load, first run, steady state."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dmcodec.benchmarks.options import BenchOptions
from dmcodec.benchmarks.results import GraphResult
from dmcodec.benchmarks.sides import DECODE_GRAPHS, ENCODE_GRAPHS, FIRST_LEVEL, BundleSide, full_lengths, sample_batch
from dmcodec.benchmarks.statistics import Speed, Timing
from dmcodec.benchmarks.timing import Progress, timed

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
