"""Layers of the codec: convolutions with SEANet padding, LSTM with skip connection, residual block.

The names of layers and parameters are those of the released checkpoints. Shapes: B batch, C channels, T time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.config import CodecConfig
from dmcodec.convolutions import ConvPadding, trim


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """Pad `x` [B, C, T] by reflection at both ends. An input that is too short is first extended with zeros."""
    if left == right == 0:
        return x
    extension = max(0, max(left, right) - x.shape[-1] + 1)
    if extension:
        x = F.pad(x, (0, extension))
    with torch.autocast(x.device.type, enabled=False):  # reflection under autocast converts to float32 and back
        padded = F.pad(x, (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - extension] if extension else padded


class WeightNormConv(nn.Module):
    """Weights of a convolution with weight normalisation: g * v / |v|, the norm over all dimensions but the first."""

    def __init__(self, weight_shape: tuple[int, int, int], bias_size: int, fan_in: int) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.bias = nn.Parameter(torch.empty(bias_size).uniform_(-bound, bound))
        self.weight_v = nn.Parameter(torch.empty(weight_shape).uniform_(-bound, bound))
        self.weight_g = nn.Parameter(self._norm().detach().clone())

    def _norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)

    def weight(self) -> Tensor:
        """Return the folded weight, in the shape of `weight_v`."""
        return self.weight_v * (self.weight_g / self._norm())


class Conv1d(nn.Module):
    """Convolution with reflection padding: [B, in_channels, T] -> [B, out_channels, ceil(T / stride)]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.padding = ConvPadding(kernel_size, stride, dilation, causal)
        weights = WeightNormConv((out_channels, in_channels, kernel_size), out_channels, in_channels * kernel_size)
        self.conv = nn.ModuleDict({"conv": weights})  # "conv.conv": the checkpoints' names

    @property
    def weights(self) -> WeightNormConv:
        module = self.conv["conv"]
        assert isinstance(module, WeightNormConv)
        return module

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        x = reflect_pad(x, padding.left, padding.right + padding.extra(x.shape[-1]))
        weights = self.weights
        return F.conv1d(x, weights.weight(), weights.bias, stride=padding.stride, dilation=padding.dilation)


class ConvTranspose1d(nn.Module):
    """Transposed convolution, trimmed: [B, in_channels, T] -> [B, out_channels, T * stride]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        causal: bool = False,
        trim_right_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        self.stride, self.trim = stride, trim(kernel_size, stride, causal, trim_right_ratio)
        weights = WeightNormConv((in_channels, out_channels, kernel_size), out_channels, in_channels * kernel_size)
        self.convtr = nn.ModuleDict({"convtr": weights})  # "convtr.convtr": the checkpoints' names

    @property
    def weights(self) -> WeightNormConv:
        module = self.convtr["convtr"]
        assert isinstance(module, WeightNormConv)
        return module

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights
        y = F.conv_transpose1d(x, weights.weight(), weights.bias, stride=self.stride)
        return y[..., self.trim.left : y.shape[-1] - self.trim.right]


class SkipLSTM(nn.Module):
    """LSTM over time with a skip connection: [B, C, T] -> [B, C, T], or [B, 2C, T] if bidirectional (input twice)."""

    def __init__(self, channels: int, num_layers: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1)
        y, _ = self.lstm(steps)
        skip = torch.cat([steps, steps], dim=-1) if self.lstm.bidirectional else steps
        return (y + skip).permute(1, 2, 0)


class ResidualBlock(nn.Module):
    """ELU, conv C -> C/compress, ELU, conv k=1 to C, plus the shortcut: [B, C, T] -> [B, C, T].

    The shortcut is a k=1 convolution, or the input itself.
    """

    def __init__(self, config: CodecConfig, channels: int, dilation: int) -> None:
        super().__init__()
        hidden, causal = channels // config.compress, config.causal
        dilated = Conv1d(channels, hidden, config.residual_kernel_size, dilation=dilation, causal=causal)
        self.block = nn.Sequential(nn.ELU(), dilated, nn.ELU(), Conv1d(hidden, channels, 1))
        self.shortcut = Conv1d(channels, channels, 1) if config.conv_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)
