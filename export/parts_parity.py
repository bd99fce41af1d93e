"""Parity of the encoder in parts: tiles, sweeps in blocks and the rest, as the runtime runs long clips."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER
from dmcodec.config import CodecConfig
from dmcodec.errors import ParityError
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.batching import stack
from dmcodec.runtime.spool import MEMORY, Spool
from dmcodec.runtime.stream_decoder import Run
from dmcodec.runtime.sweeps import ExactEncoder, Sizes
from dmcodec.runtime.workers import Workers
from dmcodec.sample import speech

from .agreement import compare_codes, max_abs_error, snr_db
from .reference import Expected, Reference, run_reference

_FRAMES = 200
_SIZES = Sizes(tile=40, block=48)  # several of each, and a part of one at the end; a tile runs in two steps


@dataclasses.dataclass(frozen=True)
class PartsCase:
    """Figures of the encoder in parts against the reference in one piece, on speech.

    Attributes:
        sweep_latents_max_abs_error, sweep_latents_snr_db: of the latents; the SNR is in dB.
        sweep_code_agreement, sweep_level0_agreement, sweep_frame_agreement, sweep_ties: of the codes; see
            `dmcodec.export.agreement.CodeComparison`.
    """

    sweep_latents_max_abs_error: float
    sweep_latents_snr_db: float
    sweep_code_agreement: float
    sweep_level0_agreement: float
    sweep_frame_agreement: float
    sweep_ties: int


def check_parts(reference: Reference, run: Run, precision: str, columns: int = 0) -> PartsCase:
    """Compare the encoder in parts with a reference, its convolutions in windows and, with a state, in steps.

    Args:
        reference: its results count as right.
        run: runs a graph by its name.
        precision: whose thresholds hold; a name of `dmcodec.precision.PRECISIONS`.
        columns: size of the state of the encoder in steps (`dmcodec.bundle.state_size`); 0 compares windows only.

    Returns:
        The figures of the one that is further from the reference.

    Raises:
        ParityError: a figure is below its threshold.
    """
    config = reference.config
    waveform = speech(_FRAMES * config.hop_length - config.hop_length // 3, config.sample_rate)
    expected = run_reference(reference, waveform)
    _require_equal_forms(run, config, waveform, precision)
    cases = [_case(reference, run, expected, waveform, size) for size in sorted({0, columns})]
    thresholds = PRECISIONS[precision].thresholds
    for case, name in product(cases, ("latents_snr_db", "level0_agreement", "frame_agreement")):
        value, bound = getattr(case, f"sweep_{name}"), getattr(thresholds, name)
        if not value >= bound:
            raise ParityError(
                f"parity: sweep_{name} is {value:.6g}; {precision} needs at least {bound:.6g}. "
                "The bundle was not written"
            )
    return min(cases, key=lambda case: case.sweep_latents_snr_db)


def _case(reference: Reference, run: Run, expected: Expected, waveform: NDArray[np.float32], columns: int) -> PartsCase:
    with Workers.start(1) as workers, Spool(MEMORY) as spool:
        encoder = ExactEncoder(run, reference.config, workers, spool, _SIZES, columns)
        latents = np.concatenate(list(encoder.latents([waveform])), axis=2)[0]
    codes = run("quantizer", latents=latents[None])[0][:, 0]
    agreement = compare_codes(reference, [expected], [codes])
    return PartsCase(
        max_abs_error(expected.latents, latents),
        snr_db(expected.latents, latents),
        agreement.code_agreement,
        agreement.level0_agreement,
        agreement.frame_agreement,
        agreement.ties,
    )


def _require_equal_forms(run: Run, config: CodecConfig, waveform: NDArray[np.float32], precision: str) -> None:
    """Compare the forms of the layers before the LSTM: items of a batch with lengths, and each item alone.

    Tiles take the second only, which the comparison of the whole covers.
    """
    clips = [waveform, waveform[: len(waveform) // 2]]
    batch, lengths = stack([clip[None] for clip in clips])
    together = run(DOWNSAMPLER, waveform=batch, lengths=lengths)[0]
    bound = PRECISIONS[precision].thresholds.latents_snr_db
    for row, clip in enumerate(clips):
        alone = run(DOWNSAMPLER, waveform=clip[None, None], lengths=np.array([len(clip)]))[0][:, 0]
        snr = snr_db(alone, together[: config.num_frames(len(clip)), row])
        if not snr >= bound:
            raise ParityError(
                f"parity: the features of clips in a batch are {snr:.6g} dB those of clips alone; {precision} needs "
                f"at least {bound:.6g}. The bundle was not written"
            )
