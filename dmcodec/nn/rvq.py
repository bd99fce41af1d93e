"""Residual vector quantizer (SoundStream, arXiv 2107.03312; Euclidean codebooks as in EnCodec).

Distances are those of centred vectors: the mean of a level's entries is taken off both the entries and what they
quantize. What latents and entries have in common would cancel in |e|^2 - 2 x.e, and with it the digits that decide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmcodec.config import CodecConfig


class Codebook(nn.Module):
    """The codebook of a level. Inference needs `embed` only; the other buffers are for training by moving averages."""

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        embed = torch.empty(size, dimension)
        nn.init.kaiming_uniform_(embed)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    def centre(self) -> Tensor:
        """Return the mean of the entries [D], computed in float64 and rounded to float32, as an export stores it."""
        wide = torch.float32 if self.embed.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        return self.embed.to(wide).mean(dim=0).float().to(self.embed.dtype)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the index [N] of the entry nearest to each row of `x` [N, D]."""
        return self.quantize(x)[0]

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index [N] of the entry nearest to each row of `x` [N, D], and what remains of the row [N, D].

        With m = `centre()` the index is argmin(|e - m|^2 - 2 (x - m).(e - m)), of equally near entries the lowest.
        What remains is (x - m) - (e - m).
        """
        centre = self.centre()
        vectors, entries = x - centre, self.embed - centre
        indices = torch.addmm(entries.square().sum(dim=1), vectors, entries.T, alpha=-2).argmin(dim=1)
        return indices, vectors - entries[indices]


class QuantizerLevel(nn.Module):
    """A level of the quantizer: its codebook under the name in checkpoints (`_codebook`)."""

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, dimension)

    @property
    def codebook(self) -> Codebook:
        return self._codebook


class Levels(nn.Module):
    """The levels under the name in checkpoints (`vq.layers`)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(QuantizerLevel(config.codebook_size, config.dimension) for _ in range(config.n_q))


class ResidualVectorQuantizer(nn.Module):
    """Residual vector quantizer: latents [B, D, T] to codes [n_q, B, T] (int64) and back."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.vq = Levels(config)

    @property
    def levels(self) -> list[Codebook]:
        """The codebooks, first level first."""
        return [level.codebook for level in self.vq.layers if isinstance(level, QuantizerLevel)]

    def codebooks(self) -> Tensor:
        """Return all entries: [n_q, codebook_size, D]."""
        return torch.stack([codebook.embed for codebook in self.levels])

    def encode(self, latents: Tensor, n_q: int | None = None) -> Tensor:
        """Return the codes of the first `n_q` levels (by default all), chosen level by level: [n_q, B, T]."""
        batch, dimension, frames = latents.shape
        residual = latents.transpose(1, 2).reshape(-1, dimension)
        codes = []
        for codebook in self.levels[:n_q]:
            indices, residual = codebook.quantize(residual)
            codes.append(indices.view(batch, frames))
        return torch.stack(codes)

    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Return the sum of the entries of codes [n, B, T] in the levels from `first_level` on: [B, D, T]."""
        levels = self.levels[first_level : first_level + len(codes)]
        entries = [codebook.embed[indices] for codebook, indices in zip(levels, codes, strict=True)]
        return torch.stack(entries).sum(dim=0).transpose(1, 2)
