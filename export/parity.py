"""The proof that exported graphs say what the torch model says: each graph alone, and the whole chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmcodec.errors import ParityError
from dmcodec.export.fidelity import code_agreement, max_abs_error, snr_db
from dmcodec.export.ties import differs_by_tie
from dmcodec.nn import DMCodec
from dmcodec.sample import speech

# Runs a graph by name on arrays: graph(name, **inputs) -> output.
RunGraph = Callable[..., NDArray[Any]]

SEED = 20241015


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What an export has to reach at least. Codes: share of frames whose codes all agree (or differ by a tie)."""

    latents_snr_db: float
    decoder_snr_db: float
    frame_agreement: float
    level0_agreement: float
    dequantizer_snr_db: float
    chain_snr_db: float | None  # None: not bounded, since one flipped code decodes to other audio


THRESHOLDS: Mapping[str, Thresholds] = {
    "fp32": Thresholds(90.0, 90.0, 1.0, 1.0, 90.0, 90.0),
    "fp16": Thresholds(40.0, 40.0, 0.0, 0.9, 90.0, None),
}


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """Graph against torch on one input. Errors are absolute, SNRs in dB, agreements shares of 0 to 1."""

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
    chain_snr_db: float


def check_parity(codec: DMCodec, run_graph: RunGraph) -> Iterator[ParityCase]:
    """Compares graphs with torch on speech and noise, at lengths from 1 sample up and batches of 1 and 3.

    Yields:
        One case for each signal, length and batch: `num_cases(codec)` in all.
    """
    rng = np.random.default_rng(SEED)
    for signal in ("speech", "noise"):
        for num_samples in _lengths(codec):
            for batch in (1, 3):
                yield _check(codec, run_graph, signal, _waveforms(codec, signal, batch, num_samples, rng))


def num_cases(codec: DMCodec) -> int:
    """How many cases `check_parity` yields."""
    return 2 * len(_lengths(codec)) * 2


def require_parity(cases: list[ParityCase], precision: str) -> None:
    """Raises ParityError, naming the first case and figure below its threshold."""
    thresholds = THRESHOLDS[precision]
    for case in cases:
        bounds: list[tuple[str, float | None]] = [
            ("latents_snr_db", thresholds.latents_snr_db),
            ("decoder_snr_db", thresholds.decoder_snr_db),
            ("frame_agreement", thresholds.frame_agreement),
            ("level0_agreement", thresholds.level0_agreement),
            ("quantizer_agreement", 1.0),
            ("dequantizer_snr_db", thresholds.dequantizer_snr_db),
            ("chain_snr_db", None if case.ties else thresholds.chain_snr_db),  # a tie decodes to other audio
        ]
        for name, bound in bounds:
            value = getattr(case, name)
            if bound is not None and not value >= bound:
                raise ParityError(
                    f"parity: {name} is {value:.6g} on {case.signal} of {case.num_samples} samples, "
                    f"batch {case.batch}; {precision} needs at least {bound:.6g}. The bundle was not written"
                )


def summary(cases: list[ParityCase], precision: str) -> dict[str, Any]:
    """The manifest's parity record: the worst figures, the thresholds, and every case."""
    lowest = {name: min(getattr(case, name) for case in cases) for name in _LOWEST}
    highest = {name: max(getattr(case, name) for case in cases) for name in _HIGHEST}
    return {
        **lowest,
        **highest,
        "ties": sum(case.ties for case in cases),
        "thresholds": dataclasses.asdict(THRESHOLDS[precision]),
        "cases": [dataclasses.asdict(case) for case in cases],
    }


_NAMES = [field.name for field in dataclasses.fields(ParityCase)]
_LOWEST = [name for name in _NAMES if name.endswith(("_snr_db", "_agreement"))]
_HIGHEST = [name for name in _NAMES if name.endswith("_max_abs_error")]


def _lengths(codec: DMCodec) -> tuple[int, ...]:
    hop = codec.config.hop_length
    return (1, hop - 1 or 2, 3 * hop + 1, 10 * hop, 50 * hop + 1, 100 * hop - hop // 3)


def _waveforms(
    codec: DMCodec, signal: str, batch: int, num_samples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    if signal == "noise":
        return rng.normal(0, 0.1, (batch, 1, num_samples)).astype(np.float32)
    clip = speech(batch * num_samples + 16000, codec.config.sample_rate)[16000:]  # from the middle of a word
    return clip.reshape(batch, 1, num_samples)


def _check(codec: DMCodec, run_graph: RunGraph, signal: str, waveform: NDArray[np.float32]) -> ParityCase:
    with torch.inference_mode():
        torch_latents = codec.encoder(torch.from_numpy(waveform))
        torch_codes = codec.quantizer.encode(torch_latents)
        torch_quantized = codec.quantizer.decode(torch_codes)
        torch_audio = codec.decoder(torch_quantized).numpy()
    run_graph = _checking_shapes(
        run_graph,
        {"encoder": torch_latents, "quantizer": torch_codes, "dequantizer": torch_quantized, "decoder": torch_audio},
    )
    latents = run_graph("encoder", waveform=waveform)
    codes = run_graph("quantizer", latents=latents)
    first_level = np.array(0, np.int64)
    audio = run_graph("decoder", latents=run_graph("dequantizer", codes=codes, first_level=first_level))
    # Each graph alone, on torch's own input to it.
    own_codes = run_graph("quantizer", latents=torch_latents.numpy())
    own_quantized = run_graph("dequantizer", codes=torch_codes.numpy(), first_level=first_level)
    own_audio = run_graph("decoder", latents=torch_quantized.numpy())
    dequantizer = _dequantizer_errors(codec, run_graph, torch_codes, own_quantized)
    ties = differs_by_tie(codec, torch_latents, torch_codes.numpy(), codes)
    own_ties = differs_by_tie(codec, torch_latents, torch_codes.numpy(), own_codes)
    return ParityCase(
        signal=signal,
        num_samples=waveform.shape[2],
        batch=waveform.shape[0],
        latents_max_abs_error=max_abs_error(torch_latents.numpy(), latents),
        latents_snr_db=snr_db(torch_latents.numpy(), latents),
        code_agreement=code_agreement(torch_codes.numpy(), codes),
        level0_agreement=_share((torch_codes.numpy()[0] == codes[0]) | ties),
        frame_agreement=_share((torch_codes.numpy() == codes).all(axis=0) | ties),
        ties=int(ties.sum()),
        quantizer_agreement=_share((torch_codes.numpy() == own_codes).all(axis=0) | own_ties),
        dequantizer_max_abs_error=max(error for error, _ in dequantizer),
        dequantizer_snr_db=min(snr for _, snr in dequantizer),
        decoder_max_abs_error=max_abs_error(torch_audio, own_audio),
        decoder_snr_db=snr_db(torch_audio, own_audio),
        chain_snr_db=snr_db(torch_audio, audio),
    )


def _checking_shapes(run_graph: RunGraph, expected: Mapping[str, Any]) -> RunGraph:
    """A graph that baked in a length gives another shape at others."""

    def run(name: str, **inputs: Any) -> NDArray[Any]:
        output = run_graph(name, **inputs)
        if output.shape != tuple(expected[name].shape):
            given = {key: value.shape for key, value in inputs.items()}
            raise ParityError(
                f"parity: {name} gives shape {output.shape} for {given}, torch gives {tuple(expected[name].shape)}. "
                "The bundle was not written"
            )
        return output

    return run


def _dequantizer_errors(
    codec: DMCodec, run_graph: RunGraph, codes: torch.Tensor, all_levels: NDArray[np.float32]
) -> list[tuple[float, float]]:
    """Absolute error and SNR of all levels, one level alone, and the levels from the second half on."""
    pairs = [(codec.quantizer.decode(codes).numpy(), all_levels)]
    for first, last in {(0, 1), (len(codes) // 2, len(codes))}:
        got = run_graph("dequantizer", codes=codes[first:last].numpy(), first_level=np.array(first, np.int64))
        pairs.append((codec.quantizer.decode(codes[first:last], first).numpy(), got))
    return [(max_abs_error(*pair), snr_db(*pair)) for pair in pairs]


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean())
