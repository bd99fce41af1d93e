"""The interface of everything that is measured as a codec."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import bits_per_code


class MeasuredCodec(Protocol):
    """A codec: batches of waveforms to codes and back. All arrays are in host memory."""

    @property
    def name(self) -> str:
        """Name in results, for example `onnxruntime-cpu`."""

    @property
    def description(self) -> str:
        """Kind, model, precision and library, in one line."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms."""

    @property
    def hop_length(self) -> int:
        """Samples per frame."""

    @property
    def frame_rate(self) -> float:
        """Frames per second."""

    @property
    def n_q(self) -> int:
        """Number of quantizer levels."""

    @property
    def codebook_size(self) -> int:
        """Entries per codebook."""

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode a batch of equally long waveforms.

        Args:
            waveforms: [B, 1, samples] at `sample_rate`.
            n_q: number of quantizer levels; all by default.

        Returns:
            Codes [n_q, B, frames], where frames = ceil(samples / hop_length).

        Raises:
            AudioError: the codec can't encode these waveforms.
        """

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode codes [n_q, B, frames] of the first n_q levels to waveforms [B, 1, frames * hop_length].

        Raises:
            TokensError: the codec can't decode these codes.
        """


def bitrate_bps(codec: MeasuredCodec, n_q: int) -> float:
    """Return the bits per second of the codes of `n_q` levels, each code packed in ceil(log2(codebook_size)) bits."""
    return codec.frame_rate * n_q * bits_per_code(codec.codebook_size)
