"""The multi-scale STFT discriminator (EnCodec, arXiv 2210.13438, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.discriminators.layers import Judgements, normalised

SLOPE = 0.2


class STFTDiscriminator(nn.Module):
    """Convolutions over the complex spectrogram, its real and imaginary part as two channels [B, 2, frames, bins]."""

    window: Tensor

    def __init__(self, n_fft: int, filters: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.convolutions = nn.ModuleList([normalised(nn.Conv2d(2, filters, (3, 9), padding=(1, 4)))])
        for dilation in (1, 2, 4):
            conv = nn.Conv2d(filters, filters, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            self.convolutions.append(normalised(conv))
        self.convolutions.append(normalised(nn.Conv2d(filters, filters, (3, 3), padding=(1, 1))))
        self.last = normalised(nn.Conv2d(filters, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = torch.stft(
            waveform[:, 0].float(), self.n_fft, self.n_fft // 4, window=self.window, center=False, return_complex=True
        )
        # Divided by the window's energy, so that all scales see values of one size.
        spectrum = spectrum / self.window.square().sum().sqrt()
        x, maps = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3), []
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
            maps.append(x)
        return self.last(x), maps


class MultiScaleSTFTDiscriminator(nn.Module):
    """One discriminator per window length: waveforms [B, 1, samples] -> judgements."""

    def __init__(self, n_ffts: Sequence[int], filters: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(STFTDiscriminator(n_fft, filters) for n_fft in n_ffts)

    def forward(self, waveform: Tensor) -> Judgements:
        answers = [part(waveform) for part in self.parts]
        return Judgements([score for score, _ in answers], [maps for _, maps in answers])
