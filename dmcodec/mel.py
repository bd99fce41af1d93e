"""Mel filters."""

from __future__ import annotations

import torch
from torch import Tensor


def mel_filters(n_fft: int, n_mels: int, sample_rate: int) -> Tensor:
    """Triangles [n_mels, n_fft // 2 + 1] evenly spaced in mel = 2595 log10(1 + f / 700), each of area 1 in Hz."""
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, 1, n_mels + 2, dtype=torch.float64) * top / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)).float()
