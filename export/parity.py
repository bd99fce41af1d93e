"""The proof that graphs say what a reference says (torch, or a trusted backend): each alone, and the whole chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ParityError
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.batching import stack
from dmcodec.runtime.stream_decoder import Run, StreamDecoder
from dmcodec.sample import speech

from .agreement import max_abs_error, snr_db, tied_frames
from .reference import Reference

SEED = 20241015


# -120 dBFS: errors of audio up to here pass at any SNR. In near silence a float32 decoder's own rounding is less than
# 90 dB below the signal: a trained model's output for one sample was 2e-7, 88 dB, off torch's own in float64.
INAUDIBLE_ERROR = 1e-6
_AUDIO = ("decoder", "stream", "chain")


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """Graphs against the reference on one batch. Errors are absolute, SNRs in dB, agreements shares of 0 to 1.

    `num_samples` is the length of the batch's longest item; the others are shorter, and the reference runs each alone.
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


def check_parity(reference: Reference, run: Run) -> Iterator[ParityCase]:
    """Compares graphs with a reference on speech and noise, at lengths from 1 sample up and batches of 1 and 3.

    Yields:
        One case for each signal, length and batch: `num_cases(config)` in all.

    Raises:
        ParityError: a graph gives a result of another shape.
    """
    rng = np.random.default_rng(SEED)
    config = reference.config
    for signal in ("speech", "noise"):
        for num_samples in _lengths(config):
            for batch in (1, 3):
                waveforms = [_waveform(config, signal, length, rng) for length in _batch(config, num_samples, batch)]
                yield _check(reference, run, signal, waveforms)


def num_cases(config: CodecConfig) -> int:
    """How many cases `check_parity` yields."""
    return 2 * len(_lengths(config)) * 2


def require_parity(cases: list[ParityCase], precision: str) -> None:
    """Raises ParityError, naming the first case and figure below its threshold."""
    for case in cases:
        if problem := shortfall(case, precision):
            raise ParityError(f"parity: {problem}")


def shortfall(case: ParityCase, precision: str) -> str | None:
    """The first figure of a case that is below its threshold, in words; None where there is none."""
    thresholds = PRECISIONS[precision].thresholds
    bounds: list[tuple[str, float | None]] = [
        # Each graph alone first: what is wrong there shows in the rest, too.
        ("latents_snr_db", thresholds.latents_snr_db),
        ("quantizer_agreement", thresholds.quantizer_agreement),
        ("dequantizer_snr_db", thresholds.dequantizer_snr_db),
        ("decoder_snr_db", thresholds.decoder_snr_db),
        ("stream_snr_db", thresholds.decoder_snr_db),
        ("level0_agreement", thresholds.level0_agreement),
        ("frame_agreement", thresholds.frame_agreement),
        ("chain_snr_db", None if case.ties else thresholds.chain_snr_db),  # a tie decodes to other audio
    ]
    for name, bound in bounds:
        value = getattr(case, name)
        if bound is not None and not value >= bound and not _inaudible(case, name):
            return (
                f"{name} is {value:.6g} on {case.signal} of {case.num_samples} samples, batch {case.batch}; "
                f"{precision} needs at least {bound:.6g}"
            )
    return None


def _inaudible(case: ParityCase, name: str) -> bool:
    kind = name.removesuffix("_snr_db")
    return kind in _AUDIO and bool(getattr(case, f"{kind}_max_abs_error") <= INAUDIBLE_ERROR)


def summary(cases: list[ParityCase], precision: str) -> dict[str, Any]:
    """The manifest's parity record: the worst figures, the thresholds, and every case."""
    lowest = {name: min(getattr(case, name) for case in cases) for name in _LOWEST}
    highest = {name: max(getattr(case, name) for case in cases) for name in _HIGHEST}
    return {
        **lowest,
        **highest,
        "ties": sum(case.ties for case in cases),
        "thresholds": dataclasses.asdict(PRECISIONS[precision].thresholds),
        "cases": [dataclasses.asdict(case) for case in cases],
    }


_NAMES = [field.name for field in dataclasses.fields(ParityCase)]
_LOWEST = [name for name in _NAMES if name.endswith(("_snr_db", "_agreement"))]
_HIGHEST = [name for name in _NAMES if name.endswith("_max_abs_error")]


def _lengths(config: CodecConfig) -> tuple[int, ...]:
    hop = config.hop_length
    return (1, hop - 1 or 2, 3 * hop + 1, 10 * hop, 50 * hop + 1, 100 * hop - hop // 3)


def _batch(config: CodecConfig, num_samples: int, batch: int) -> list[int]:
    """Lengths of the items of a batch: of the longest, of two thirds of it, and of a little less."""
    return [num_samples, max(1, 2 * num_samples // 3), max(1, num_samples - config.hop_length // 3)][:batch]


def _waveform(config: CodecConfig, signal: str, num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if signal == "noise":
        return rng.normal(0, 0.1, num_samples).astype(np.float32)
    start = int(rng.integers(16000, 32000))
    return speech(start + num_samples, config.sample_rate)[start:]


@dataclasses.dataclass(frozen=True)
class _Expected:
    """What the reference says of one waveform: latents [D, T], codes [n_q, T], latents [D, T], audio [samples]."""

    latents: NDArray[np.float32]
    codes: NDArray[np.int64]
    quantized: NDArray[np.float32]
    audio: NDArray[np.float32]


def _expected(reference: Reference, waveform: NDArray[np.float32]) -> _Expected:
    latents = reference.encode(waveform)
    codes = reference.quantize(latents)
    quantized = reference.dequantize(codes)
    return _Expected(latents, codes, quantized, reference.decode(quantized))


def _check(reference: Reference, run: Run, signal: str, waveforms: list[NDArray[np.float32]]) -> ParityCase:
    expected = [_expected(reference, waveform) for waveform in waveforms]
    graphs = _Graphs(reference, run, [item.codes.shape[1] for item in expected])
    latents = graphs.encode(waveforms)
    codes = graphs.quantize(latents)
    audio = graphs.decode(graphs.dequantize(codes))
    # Each graph alone, on the reference's own input to it.
    own_codes = graphs.quantize([item.latents for item in expected])
    own_audio = graphs.decode([item.quantized for item in expected])
    first = expected[0]
    streamed = _stream(reference.config, run, first.codes)
    dequantizer = _dequantizer_errors(reference, run, first.codes)

    right_latents, right_codes, right_audio = (
        _joined([getattr(item, name) for item in expected]) for name in ("latents", "codes", "audio")
    )
    ties = _ties(reference, expected, codes)
    equal = right_codes == _joined(codes)
    own_equal = right_codes == _joined(own_codes)
    return ParityCase(
        signal=signal,
        num_samples=len(waveforms[0]),
        batch=len(waveforms),
        latents_max_abs_error=max_abs_error(right_latents, _joined(latents)),
        latents_snr_db=snr_db(right_latents, _joined(latents)),
        code_agreement=float(equal.mean()),
        level0_agreement=float((equal[0] | ties).mean()),
        frame_agreement=float((equal.all(axis=0) | ties).mean()),
        ties=int(ties.sum()),
        quantizer_agreement=float((own_equal.all(axis=0) | _ties(reference, expected, own_codes)).mean()),
        dequantizer_max_abs_error=max(error for error, _ in dequantizer),
        dequantizer_snr_db=min(snr for _, snr in dequantizer),
        decoder_max_abs_error=max_abs_error(right_audio, _joined(own_audio)[0]),
        decoder_snr_db=snr_db(right_audio, _joined(own_audio)[0]),
        stream_max_abs_error=max_abs_error(first.audio, streamed),
        stream_snr_db=snr_db(first.audio, streamed),
        chain_max_abs_error=max_abs_error(right_audio, _joined(audio)[0]),
        chain_snr_db=snr_db(right_audio, _joined(audio)[0]),
    )


class _Graphs:
    """The graphs on a batch of items of these numbers of frames: arrays [C, T] in, arrays [C, T] out."""

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
        batch, lengths = stack(latents)
        return self._items("decoder", self._config.hop_length, 1, latents=batch, lengths=lengths)

    def _items(self, name: str, samples: int, channels: int, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        output = self._outputs(name, (len(self._frames), channels, max(self._frames) * samples), **inputs)
        return [output[row, :, : frames * samples] for row, frames in enumerate(self._frames)]

    def _outputs(self, name: str, expected: tuple[int, ...], **inputs: NDArray[Any]) -> NDArray[Any]:
        output = self._run(name, **inputs)[0]
        if output.shape != expected:  # a graph that baked in a length
            given = {key: value.shape for key, value in inputs.items()}
            raise ParityError(f"parity: {name} gives shape {output.shape} for {given}, {self._name} gives {expected}")
        return output


def _ties(reference: Reference, expected: list[_Expected], codes: list[NDArray[Any]]) -> NDArray[np.bool_]:
    found = [
        tied_frames(reference.codebooks, item.latents[None], item.codes[:, None], test[:, None])[0]
        for item, test in zip(expected, codes, strict=True)
    ]
    return np.concatenate(found)


def _joined(items: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(items, axis=-1)


def _stream(config: CodecConfig, run: Run, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Decodes codes [n_q, T] as a stream, in pushes of 1, 2, 3, ... frames."""
    stream = StreamDecoder(run, config)
    audio, start, size = [], 0, 1
    while start < codes.shape[1]:
        audio.append(stream.push(codes[:, start : start + size]))
        start, size = start + size, size + 1
    return np.concatenate([*audio, stream.finish()])


def _dequantizer_errors(reference: Reference, run: Run, codes: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Absolute error and SNR of all levels, one level alone, and the levels from the second half on."""
    pairs = []
    for first, last in {(0, len(codes)), (0, 1), (len(codes) // 2, len(codes))}:
        part = codes[first:last]
        got = run("dequantizer", codes=part[:, None], first_level=np.array(first, np.int64))[0][0]
        pairs.append((reference.dequantize(part, first), got))
    return [(max_abs_error(*pair), snr_db(*pair)) for pair in pairs]
