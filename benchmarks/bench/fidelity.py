"""How close each codec is to float32: what a faster one paid for its speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.interface import MeasuredCodec
from dmcodec.export.agreement import code_agreement, snr_db

from .result import Fidelity


@runtime_checkable
class HasLatents(Protocol):
    """A codec that also gives the output of its encoder."""

    def latents(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode [B, 1, samples] to latents [B, dimension, frames]."""


def measure_fidelity(
    reference: MeasuredCodec, codecs: Sequence[MeasuredCodec], waveforms: NDArray[np.float32], n_q: int | None = None
) -> tuple[Fidelity, ...]:
    """Compare codecs of one network with the reference, which computes in float32; the reference itself is left out.

    Args:
        reference: its codes are what all decode.
        codecs: to compare.
        waveforms: [B, 1, samples] at their sample rate.
        n_q: levels; by default all.
    """
    codes = reference.encode(waveforms, n_q)
    audio = reference.decode(codes)
    latents = _latents(reference, waveforms)
    found = []
    for codec in codecs:
        if codec.name == reference.name:
            continue
        own_codes, own_latents = codec.encode(waveforms, n_q), _latents(codec, waveforms)
        found.append(
            Fidelity(
                side=codec.name,
                reference=reference.name,
                duration_s=waveforms.shape[-1] / codec.sample_rate,
                latents_snr_db=None if latents is None or own_latents is None else snr_db(latents, own_latents),
                code_agreement=code_agreement(codes, own_codes),
                level0_agreement=code_agreement(codes[:1], own_codes[:1]),
                waveform_snr_db=snr_db(audio, codec.decode(codes)),
            )
        )
    return tuple(found)


def _latents(codec: MeasuredCodec, waveforms: NDArray[np.float32]) -> NDArray[Any] | None:
    return codec.latents(waveforms) if isinstance(codec, HasLatents) else None
