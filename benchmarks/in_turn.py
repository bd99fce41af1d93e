"""Sides measured in turn, A B A B: what else the machine does in the meantime weighs on all of them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dmcodec.benchmarks.options import Shape
from dmcodec.benchmarks.results import Comparison, Measurement
from dmcodec.benchmarks.sides import BundleSide, Side, sample_batch
from dmcodec.benchmarks.statistics import Speed, Timing, paired_speedup
from dmcodec.benchmarks.timing import Progress, timed
from dmcodec.export.fidelity import code_agreement, snr_db


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
