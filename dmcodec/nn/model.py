"""The network of the family in torch, the reference for exported graphs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dmcodec.checkpoint_files import find_checkpoint
from dmcodec.config import CodecConfig

from .layers import WeightNormConv
from .rvq import ResidualVectorQuantizer
from .seanet import Decoder, Encoder


class DMCodec(nn.Module):
    """A codec of the family, first of all DM-Codec (arXiv 2410.15017).

    SpeechTokenizer (arXiv 2308.16692) and EnCodec (arXiv 2210.13438) have the same layers and names.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualVectorQuantizer(config)
        same = config.dimension == config.semantic_dimension
        self.transform = nn.Identity() if same else nn.Linear(config.dimension, config.semantic_dimension)
        self.decoder = Decoder(config)

    @classmethod
    def from_checkpoint(cls, config: CodecConfig | str | Path | None, path: str | Path) -> DMCodec:
        """Load a codec from a checkpoint (`torch.save` or safetensors, dialects as in `nn.dialects`), strictly.

        Args:
            config: the configuration, or the path of its JSON file; None takes config.json of the folder `path`, and
                else that of the released model whose shapes the checkpoint has (`dmcodec.nn.released`).
            path: the checkpoint, or a folder with one.

        Raises:
            CheckpointError: a tensor is missing, unexpected, of another shape, or not finite; the error names it.
        """
        from .checkpoint import load_tensors
        from .checkpoint_reader import read_tensors
        from .released import refuse_unsupported, released_config

        files = find_checkpoint(path)
        config = files.config if config is None else config
        if config is not None and not isinstance(config, CodecConfig):
            config = CodecConfig.from_json(config)
        found = read_tensors(files.weights)
        refuse_unsupported(found, str(path))
        config = config or released_config(found)
        with torch.device("meta"):  # no memory and time for weights that are replaced
            model = cls(config)
        load_tensors(model, found, files.weights)
        return model.eval()

    @classmethod
    def seeded(cls, config: CodecConfig, seed: int = 0) -> DMCodec:
        """Make a codec with untrained weights, the same for the same seed, for tests and measurements of speed.

        The weights are larger than torch's defaults, with which the latents hardly depend on the waveform, so that all
        clips get the same codes.
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
        """Scale torch's default weights up, so that the latents depend on the waveform."""
        for module in self.modules():
            if isinstance(module, WeightNormConv):
                module.weight_g.mul_(2)
                module.bias.mul_(0.1)
            elif isinstance(module, nn.LSTM):
                for parameter in module.parameters():
                    parameter.mul_(2)

    @torch.inference_mode()
    def encode(self, waveform: Tensor, n_q: int | None = None) -> Tensor:
        """Encode a waveform [B, 1, samples] to codes [n_q, B, ceil(samples / hop_length)] (int64)."""
        return self.quantizer.encode(self.encoder(waveform), n_q)

    @torch.inference_mode()
    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Decode codes [n, B, frames] of the levels from `first_level` on to a waveform [B, 1, frames * hop_length]."""
        return self.decoder(self.quantizer.decode(codes, first_level))

    @torch.inference_mode()
    def semantic_features(self, waveform: Tensor) -> Tensor:
        """Return the output of level 0 after `transform`: [B, 1, samples] -> [B, frames, semantic_dimension]."""
        codes = self.encode(waveform, n_q=1)
        return self.transform(self.quantizer.decode(codes).transpose(1, 2))
