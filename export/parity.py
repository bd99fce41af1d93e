"""Parity: graphs are compared with a reference (torch, or a trusted backend), each graph alone and the whole chain.

Needs no torch, except where the reference is the torch model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ParityError
from dmcodec.precision import PRECISIONS, Thresholds
from dmcodec.runtime.batching import stack
from dmcodec.runtime.stream_decoder import Run, StreamDecoder
from dmcodec.sample import speech

from .agreement import AudioComparison, compare_audio, compare_codes, max_abs_error, snr_db
from .reference import Expected, Reference, run_reference

SEED = 20241015
_AUDIO = ("decoder", "stream", "chain")


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """Figures of the graphs against the reference on one batch. The reference runs each item alone.

    Attributes:
        signal: "speech" or "noise".
        num_samples: length of the longest item; the others are shorter.
        batch: number of items.
        latents_max_abs_error, latents_snr_db: of the encoder's latents; SNRs are in dB.
        code_agreement, level0_agreement, frame_agreement, ties: of the codes of encoder and quantizer in a chain; see
            `dmcodec.export.agreement.CodeComparison`.
        quantizer_agreement: share of frames in which the quantizer alone gives the reference's codes or a tie, both
            on the reference's latents in float32.
        dequantizer_max_abs_error, dequantizer_snr_db: of the dequantizer alone, the worst of several ranges of levels.
        decoder_max_abs_error, decoder_snr_db: of the decoder alone.
        stream_max_abs_error, stream_snr_db: of the first item decoded as a stream, the worse of windows and steps.
        chain_max_abs_error, chain_snr_db: of the audio of all four graphs in a chain.
    """

    signal: str
    num_samples: int
    batch: int
    latents_max_abs_error: float
    latents_snr_db: float
    code_agreement: float
    level0_agreement: float
    frame_agreement: float
    ties: int
    quantizer_agreement: float
    dequantizer_max_abs_error: float
    dequantizer_snr_db: float
    decoder_max_abs_error: float
    decoder_snr_db: float
    stream_max_abs_error: float
    stream_snr_db: float
    chain_max_abs_error: float
    chain_snr_db: float


_NAMES = [field.name for field in dataclasses.fields(ParityCase)]
_LOWEST = [name for name in _NAMES if name.endswith(("_snr_db", "_agreement"))]
_HIGHEST = [name for name in _NAMES if name.endswith("_max_abs_error")]


def check_parity(reference: Reference, run: Run, columns: int = 0) -> Iterator[ParityCase]:
    """Compare graphs with a reference on speech and noise, at lengths from 1 sample up and batches of 1 and 3.

    Args:
        reference: its results count as right.
        run: runs a graph by its name.
        columns: size of the state of the decoder in steps (`dmcodec.bundle.state_size`); 0 where streams run in windows
            only.

    Yields:
        One case for each signal, length and batch size: `num_cases(config)` in all.

    Raises:
        ParityError: a graph gives a result of a wrong shape.
    """
    rng = np.random.default_rng(SEED)
    config = reference.config
    for signal in ("speech", "noise"):
        for num_samples in _lengths(config):
            for batch in (1, 3):
                waveforms = [
                    _waveform(config, signal, length, rng) for length in _item_lengths(config, num_samples, batch)
                ]
                yield _check(reference, run, columns, signal, waveforms)


def num_cases(config: CodecConfig) -> int:
    """Return how many cases `check_parity` yields."""
    return 2 * len(_lengths(config)) * 2


def require_parity(cases: list[ParityCase], precision: str) -> None:
    """Raise ParityError where a figure is below its threshold; the message names the first case and figure."""
    for case in cases:
        if problem := shortfall(case, precision):
            raise ParityError(f"parity: {problem}")


def shortfall(case: ParityCase, precision: str) -> str | None:
    """Describe the first figure of a case that is below its threshold; return None where all reach theirs."""
    missed = _missed(case, PRECISIONS[precision].thresholds)
    if missed is None:
        return None
    name, bound = missed
    return (
        f"{name} is {getattr(case, name):.6g} on {case.signal} of {case.num_samples} samples, batch {case.batch}; "
        f"{precision} needs at least {bound:.6g}"
    )


def reaches_all(case: ParityCase, thresholds: Thresholds) -> bool:
    """Return whether every figure of a case reaches its threshold."""
    return _missed(case, thresholds) is None


def _missed(case: ParityCase, thresholds: Thresholds) -> tuple[str, float] | None:
    for name, bound in bounds(case, thresholds).items():
        if bound is not None and not reaches(case, name, bound):
            return name, bound
    return None


def bounds(case: ParityCase, thresholds: Thresholds) -> dict[str, float | None]:
    """Return the figures of a case that have a threshold, each with it; None where it does not apply.

    Each graph alone comes first: its errors appear in the chain, too.
    """
    return {
        "latents_snr_db": thresholds.latents_snr_db,
        "quantizer_agreement": thresholds.quantizer_agreement,
        "dequantizer_snr_db": thresholds.dequantizer_snr_db,
        "decoder_snr_db": thresholds.decoder_snr_db,
        "stream_snr_db": thresholds.decoder_snr_db,
        "level0_agreement": thresholds.level0_agreement,
        "frame_agreement": thresholds.frame_agreement,
        "chain_snr_db": None if case.ties else thresholds.chain_snr_db,  # after a tie the audio differs
    }


def reaches(case: ParityCase, name: str, bound: float) -> bool:
    """Return whether a figure reaches its threshold; an error of the audio that nobody hears does at any SNR."""
    value: float = getattr(case, name)
    kind = name.removesuffix("_snr_db")
    if kind in _AUDIO:
        return AudioComparison(value, getattr(case, f"{kind}_max_abs_error")).passes(bound)
    return value >= bound


def summary(cases: list[ParityCase], precision: str) -> dict[str, Any]:
    """Return the manifest's parity record: the worst figures, the thresholds, and every case."""
    lowest = {name: min(getattr(case, name) for case in cases) for name in _LOWEST}
    highest = {name: max(getattr(case, name) for case in cases) for name in _HIGHEST}
    return {
        **lowest,
        **highest,
        "ties": sum(case.ties for case in cases),
        "thresholds": dataclasses.asdict(PRECISIONS[precision].thresholds),
        "cases": [dataclasses.asdict(case) for case in cases],
    }


def _lengths(config: CodecConfig) -> tuple[int, ...]:
    """Return the lengths in samples of the longest items, from 1 sample to about 100 frames."""
    hop = config.hop_length
    return (1, hop - 1 or 2, 3 * hop + 1, 10 * hop, 50 * hop + 1, 100 * hop - hop // 3)


def _item_lengths(config: CodecConfig, num_samples: int, batch: int) -> list[int]:
    """Return the lengths of the items of a batch: the longest, two thirds of it, and a little less than it."""
    return [num_samples, max(1, 2 * num_samples // 3), max(1, num_samples - config.hop_length // 3)][:batch]


def _waveform(config: CodecConfig, signal: str, num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if signal == "noise":
        return rng.normal(0, 0.1, num_samples).astype(np.float32)
    start = int(rng.integers(16000, 32000))
    return speech(start + num_samples, config.sample_rate)[start:]


def _check(
    reference: Reference, run: Run, columns: int, signal: str, waveforms: list[NDArray[np.float32]]
) -> ParityCase:
    expected = [run_reference(reference, waveform) for waveform in waveforms]
    graphs = _Graphs(reference, run, [item.codes.shape[1] for item in expected])
    latents = graphs.encode(waveforms)
    codes = graphs.quantize(latents)
    audio = graphs.decode(graphs.dequantize(codes))
    # Each graph alone, on the reference's input to it, which a graph takes in float32.
    same = [_on_float32_latents(reference, item) for item in expected]
    quantizer_codes = graphs.quantize([item.latents for item in same])
    decoder_output = graphs.decode([item.quantized for item in expected])
    first = expected[0]
    streamed = [_stream(reference.config, run, first.codes, size) for size in {0, columns}]
    dequantizer = _dequantizer_errors(reference, run, first.codes)

    expected_latents = _joined([item.latents for item in expected])
    expected_audio = _joined([item.audio for item in expected])
    decoder_audio = compare_audio(expected_audio, _joined(decoder_output)[0])
    stream_audio = min((compare_audio(first.audio, audio) for audio in streamed), key=_quality)
    chain_audio = compare_audio(expected_audio, _joined(audio)[0])
    agreement = compare_codes(reference, expected, codes)
    return ParityCase(
        signal=signal,
        num_samples=len(waveforms[0]),
        batch=len(waveforms),
        latents_max_abs_error=max_abs_error(expected_latents, _joined(latents)),
        latents_snr_db=snr_db(expected_latents, _joined(latents)),
        code_agreement=agreement.code_agreement,
        level0_agreement=agreement.level0_agreement,
        frame_agreement=agreement.frame_agreement,
        ties=agreement.ties,
        quantizer_agreement=compare_codes(reference, same, quantizer_codes).frame_agreement,
        dequantizer_max_abs_error=max(error for error, _ in dequantizer),
        dequantizer_snr_db=min(snr for _, snr in dequantizer),
        decoder_max_abs_error=decoder_audio.max_abs_error,
        decoder_snr_db=decoder_audio.snr_db,
        stream_max_abs_error=stream_audio.max_abs_error,
        stream_snr_db=stream_audio.snr_db,
        chain_max_abs_error=chain_audio.max_abs_error,
        chain_snr_db=chain_audio.snr_db,
    )


def _on_float32_latents(reference: Reference, item: Expected) -> Expected:
    """Return the result with its latents rounded to float32, and the codes that the reference gives for them."""
    latents = item.latents.astype(np.float32)
    return dataclasses.replace(item, latents=latents, codes=reference.quantize(latents))


class _Graphs:
    """The graphs on a batch of items [C, T] with the given numbers of frames."""

    def __init__(self, reference: Reference, run: Run, frames: list[int]) -> None:
        self._name, self._config, self._run, self._frames = reference.name, reference.config, run, frames

    def encode(self, waveforms: list[NDArray[np.float32]]) -> list[NDArray[Any]]:
        batch, lengths = stack([waveform[None] for waveform in waveforms])
        return self._items("encoder", 1, self._config.dimension, waveform=batch, lengths=lengths)

    def quantize(self, latents: list[NDArray[Any]]) -> list[NDArray[Any]]:
        codes = self._outputs(
            "quantizer", (self._config.n_q, len(latents), max(self._frames)), latents=stack(latents)[0]
        )
        return [codes[:, row, :frames] for row, frames in enumerate(self._frames)]

    def dequantize(self, codes: list[NDArray[Any]]) -> list[NDArray[Any]]:
        batch = stack(codes)[0].transpose(1, 0, 2)
        return self._items("dequantizer", 1, self._config.dimension, codes=batch, first_level=np.array(0, np.int64))

    def decode(self, latents: list[NDArray[Any]]) -> list[NDArray[Any]]:
        batch, lengths = stack([item.astype(np.float32) for item in latents])
        return self._items("decoder", self._config.hop_length, 1, latents=batch, lengths=lengths)

    def _items(self, name: str, samples: int, channels: int, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        output = self._outputs(name, (len(self._frames), channels, max(self._frames) * samples), **inputs)
        return [output[row, :, : frames * samples] for row, frames in enumerate(self._frames)]

    def _outputs(self, name: str, expected: tuple[int, ...], **inputs: NDArray[Any]) -> NDArray[Any]:
        output = self._run(name, **inputs)[0]
        if output.shape != expected:  # the graph holds a fixed length
            shapes = {key: value.shape for key, value in inputs.items()}
            raise ParityError(f"parity: {name} gives shape {output.shape} for {shapes}, {self._name} gives {expected}")
        return output


def _quality(audio: AudioComparison) -> float:
    return -np.inf if np.isnan(audio.snr_db) else audio.snr_db


def _joined(items: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate items along time."""
    return np.concatenate(items, axis=-1)


def _stream(config: CodecConfig, run: Run, codes: NDArray[np.int64], columns: int) -> NDArray[np.float32]:
    """Decode codes [n_q, T] as a stream, in pushes of 1, 2, 3, ... frames."""
    stream = StreamDecoder(run, config, columns=columns)
    audio, start, size = [], 0, 1
    while start < codes.shape[1]:
        audio.append(stream.push(codes[:, start : start + size]))
        start, size = start + size, size + 1
    return np.concatenate([*audio, stream.finish()])


def _dequantizer_errors(reference: Reference, run: Run, codes: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Return absolute error and SNR for all levels, for level 0 alone, and for the second half of the levels."""
    pairs = []
    for first, last in {(0, len(codes)), (0, 1), (len(codes) // 2, len(codes))}:
        part = codes[first:last]
        got = run("dequantizer", codes=part[:, None], first_level=np.array(first, np.int64))[0][0]
        pairs.append((reference.dequantize(part, first), got))
    return [(max_abs_error(*pair), snr_db(*pair)) for pair in pairs]
