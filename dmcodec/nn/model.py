"""The whole DM-Codec network in torch: the reference that exported graphs are held against."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dmcodec.config import CodecConfig

from .layers import WeightNormConv
from .rvq import ResidualVectorQuantizer
from .seanet import Decoder, Encoder


class DMCodec(nn.Module):
    """DM-Codec (arXiv 2410.15017). SpeechTokenizer (arXiv 2308.16692) has the same layers and names."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualVectorQuantizer(config)
        same = config.dimension == config.semantic_dimension
        self.transform = nn.Identity() if same else nn.Linear(config.dimension, config.semantic_dimension)
        self.decoder = Decoder(config)

    @classmethod
    def from_checkpoint(cls, config: CodecConfig | str | Path, path: str | Path) -> DMCodec:
        """Loads a state dict (`torch.save` or safetensors), strictly.

        Args:
            config: the configuration, or the path of its JSON file.
            path: the checkpoint.

        Raises:
            CheckpointError: a tensor is missing, unexpected, of another shape, or not finite; it is named.
        """
        from .checkpoint import load_state_dict, read_checkpoint

        if not isinstance(config, CodecConfig):
            config = CodecConfig.from_json(config)
        with torch.device("meta"):  # no memory or time for weights that are replaced at once
            model = cls(config)
        load_state_dict(model, read_checkpoint(path), source=str(path))
        return model.eval()

    @classmethod
    def seeded(cls, config: CodecConfig, seed: int = 0) -> DMCodec:
        """Untrained weights, the same for the same seed: for tests and for measuring speed.

        Scaled up from torch's defaults, with which next to nothing of the waveform would reach the latents, and every
        clip would get the same codes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            codec = cls(config)
            codec.scale_weights()
            for codebook in codec.quantizer.levels:
                codebook.embed.normal_(std=0.4)
            return codec.eval()

    @torch.no_grad()
    def scale_weights(self) -> None:
        """Scales torch's default weights up, so that what varies in the waveform varies in the latents."""
        for module in self.modules():
            if isinstance(module, WeightNormConv):
                module.weight_g.mul_(2)
                module.bias.mul_(0.1)
            elif isinstance(module, nn.LSTM):
                for parameter in module.parameters():
                    parameter.mul_(2)

    @torch.inference_mode()
    def encode(self, waveform: Tensor, n_q: int | None = None) -> Tensor:
        """Waveform [B, 1, samples] -> codes [n_q, B, ceil(samples / hop_length)] (int64)."""
        return self.quantizer.encode(self.encoder(waveform), n_q)

    @torch.inference_mode()
    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Codes [n, B, frames] of levels `first_level`... -> waveform [B, 1, frames * hop_length]."""
        return self.decoder(self.quantizer.decode(codes, first_level))

    @torch.inference_mode()
    def semantic_features(self, waveform: Tensor) -> Tensor:
        """Level-0 output through `transform`: [B, 1, samples] -> [B, frames, semantic_dimension]."""
        codes = self.encode(waveform, n_q=1)
        return self.transform(self.quantizer.decode(codes).transpose(1, 2))
