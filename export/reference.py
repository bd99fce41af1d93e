"""The references that graphs are compared with: the torch model, or the bundle's graphs on a trusted backend.

torch computes in float64, so that a comparison measures the graphs' rounding and not torch's own.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.runtime.stream_decoder import Run

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec


Floats: TypeAlias = NDArray[np.floating[Any]]


class Reference(Protocol):
    """A codec whose results count as right. It runs one clip at a time, so that batching can't hide a mistake."""

    @property
    def name(self) -> str:
        """Name for tables and errors."""

    @property
    def config(self) -> CodecConfig:
        """The codec's configuration."""

    @property
    def codebooks(self) -> NDArray[np.float32]:
        """All codebook entries: [n_q, codebook_size, D]."""

    def encode(self, waveform: NDArray[np.float32]) -> Floats:
        """Waveform [samples] -> latents [D, T]."""

    def quantize(self, latents: Floats) -> NDArray[np.int64]:
        """Latents [D, T] -> codes [n_q, T]."""

    def dequantize(self, codes: NDArray[np.int64], first_level: int = 0) -> Floats:
        """Codes [n, T] of the levels from `first_level` on -> latents [D, T]."""

    def decode(self, latents: Floats) -> Floats:
        """Latents [D, T] -> waveform [T * hop_length]."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """A reference's results for one clip, float32 or float64 as the reference computes.

    Attributes:
        latents: [D, T], the encoder's.
        codes: [n_q, T], from `latents`.
        quantized: latents [D, T], from all levels of `codes`.
        audio: waveform [T * hop_length], from `quantized`.
    """

    latents: Floats
    codes: NDArray[np.int64]
    quantized: Floats
    audio: Floats


def run_reference(reference: Reference, waveform: NDArray[np.float32]) -> Expected:
    """Run one clip, a waveform [samples], through all parts of a reference."""
    latents = reference.encode(waveform)
    codes = reference.quantize(latents)
    quantized = reference.dequantize(codes)
    return Expected(latents, codes, quantized, reference.decode(quantized))


class TorchReference:
    """A copy of the torch model in float64; see `Reference`. Takes latents of any floating type."""

    name = "torch"

    def __init__(self, codec: DMCodec) -> None:
        self._codec = copy.deepcopy(codec).cpu().double()
        self.config = codec.config
        self.codebooks: NDArray[np.float32] = codec.quantizer.codebooks().detach().cpu().numpy()

    def encode(self, waveform: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Reference`."""
        return self._run(self._codec.encoder, waveform.astype(np.float64)[None, None])[0]

    def quantize(self, latents: Floats) -> NDArray[np.int64]:
        """See `Reference`."""
        return self._run(self._codec.quantizer.encode, latents.astype(np.float64)[None])[:, 0]

    def dequantize(self, codes: NDArray[np.int64], first_level: int = 0) -> NDArray[np.float64]:
        """See `Reference`."""
        return self._run(self._codec.quantizer.decode, codes[:, None], first_level)[0]

    def decode(self, latents: Floats) -> NDArray[np.float64]:
        """See `Reference`."""
        return self._run(self._codec.decoder, latents.astype(np.float64)[None])[0, 0]

    def _run(self, module: Any, array: NDArray[Any], *arguments: Any) -> NDArray[Any]:
        import torch

        with torch.inference_mode():
            output: NDArray[Any] = module(torch.from_numpy(np.ascontiguousarray(array)), *arguments).numpy()
        return output


class GraphReference:
    """A bundle's graphs on a trusted backend; see `Reference`.

    Args:
        name: for tables and errors.
        config: the bundle's configuration.
        run: `dmcodec.runtime.backend.Graphs.arrays` of the bundle.
    """

    def __init__(self, name: str, config: CodecConfig, run: Run) -> None:
        self.name, self.config, self._run = name, config, run
        entries = np.arange(config.codebook_size)[None]
        self.codebooks: NDArray[np.float32] = np.stack(
            [self.dequantize(entries, level).T for level in range(config.n_q)]
        )

    def encode(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Reference`."""
        return self._run("encoder", waveform=waveform[None, None], lengths=_length(waveform))[0][0]

    def quantize(self, latents: Floats) -> NDArray[np.int64]:
        """See `Reference`."""
        return self._run("quantizer", latents=latents.astype(np.float32)[None])[0][:, 0]

    def dequantize(self, codes: NDArray[np.int64], first_level: int = 0) -> NDArray[np.float32]:
        """See `Reference`."""
        return self._run("dequantizer", codes=codes[:, None], first_level=np.array(first_level, np.int64))[0][0]

    def decode(self, latents: Floats) -> NDArray[np.float32]:
        """See `Reference`."""
        return self._run("decoder", latents=latents.astype(np.float32)[None], lengths=_length(latents))[0][0, 0]


def _length(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return the `lengths` input [1] of a batch of one item, whose last axis is time."""
    return np.array([array.shape[-1]], np.int64)
