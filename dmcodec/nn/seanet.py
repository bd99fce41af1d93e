"""SEANet encoder and decoder of DM-Codec (arXiv 2410.15017, section 3) and EnCodec (arXiv 2210.13438)."""

from __future__ import annotations

from torch import Tensor, nn

from dmcodec.config import KERNEL_SIZE, CodecConfig

from .layers import Conv1d, ConvTranspose1d, ResidualBlock, SkipLSTM


def _residual_blocks(config: CodecConfig, channels: int) -> list[nn.Module]:
    return [ResidualBlock(config, channels, config.dilation_base**layer) for layer in range(config.n_residual_layers)]


class Encoder(nn.Module):
    """Waveform [B, 1, samples] -> latents [B, dimension, ceil(samples / hop_length)]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        channels, causal = config.n_filters, config.causal
        layers: list[nn.Module] = [Conv1d(1, channels, KERNEL_SIZE, causal=causal)]
        for stride in reversed(config.strides):
            layers += _residual_blocks(config, channels)
            layers += [nn.ELU(), Conv1d(channels, 2 * channels, 2 * stride, stride, causal=causal)]
            channels *= 2
        layers += [SkipLSTM(channels, config.lstm_layers, config.bidirectional), nn.ELU()]
        width = 2 * channels if config.bidirectional else channels
        layers += [Conv1d(width, config.dimension, KERNEL_SIZE, causal=causal)]
        self.model = nn.Sequential(*layers)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.model(waveform)


class Decoder(nn.Module):
    """Latents [B, dimension, frames] -> waveform [B, 1, frames * hop_length]. Its LSTM is unidirectional."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        channels, causal = config.lstm_channels, config.causal
        layers: list[nn.Module] = [
            Conv1d(config.dimension, channels, KERNEL_SIZE, causal=causal),
            SkipLSTM(channels, config.lstm_layers),
        ]
        for stride in config.strides:
            ratio = config.trim_right_ratio
            layers += [nn.ELU(), ConvTranspose1d(channels, channels // 2, 2 * stride, stride, causal, ratio)]
            channels //= 2
            layers += _residual_blocks(config, channels)
        layers += [nn.ELU(), Conv1d(channels, 1, KERNEL_SIZE, causal=causal)]
        self.model = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.model(latents)
