"""Released models of the family, told apart by the shapes of their tensors, for checkpoints without a configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError

from .checkpoint_reader import FoundTensor
from .dialects import plain_name

# EnCodec 24 kHz, arXiv 2210.13438: `encodec_24khz-*.th`, and facebook/encodec_24khz of the Hugging Face hub.
ENCODEC_24KHZ = CodecConfig(
    n_filters=32,
    dimension=128,
    semantic_dimension=128,
    bidirectional=False,
    n_q=32,
    sample_rate=24000,
    causal=True,
    bandwidths_kbps=(1.5, 3.0, 6.0, 12.0, 24.0),
)
_FIRST = ("encoder.model.0.conv.conv", "encoder.layers.0.conv")
_WEIGHTS = (".weight_v", ".weight")
_NORM = re.compile(r"\b(encoder|decoder)\.(model|layers)\.\d+\.(.+\.)?norm\.(weight|bias)$")


def released_config(found: Sequence[FoundTensor]) -> CodecConfig:
    """Return the configuration of the released model that tensors are of: EnCodec 24 kHz, or DM-Codec.

    What is of neither gets that of DM-Codec; loading then says what differs.
    """
    filters, dimensions = _channels(found)[0], {each.tensor.shape[-1] for each in found if _is_codebook(each)}
    is_encodec = filters == ENCODEC_24KHZ.n_filters and dimensions == {ENCODEC_24KHZ.dimension}
    return ENCODEC_24KHZ if is_encodec else CodecConfig()


def refuse_unsupported(found: Sequence[FoundTensor], source: str) -> None:
    """Refuse the checkpoint of a model that this family does not hold, with the reason.

    Raises:
        CheckpointError: of a stereo codec, or of one that normalizes activations over time, as EnCodec 48 kHz does.
    """
    hint = "EnCodec 24 kHz is supported, 48 kHz stereo is not"
    inputs = _channels(found)[1]
    if inputs > 1:
        raise CheckpointError(f"{source}: is of a codec with {inputs} audio channels, this family is mono; {hint}")
    if normalized := next((each.path for each in found if _NORM.search(plain_name(each.path))), None):
        raise CheckpointError(
            f"{source}: is of a codec that normalizes activations over the whole of a clip ({normalized}), which "
            f"neither streams nor runs in parts; {hint}"
        )


def _channels(found: Sequence[FoundTensor]) -> tuple[int, int]:
    """Return the channels that the encoder's first convolution gives and takes; 0 where there is none."""
    ends = tuple(f"{name}{weight}" for name in _FIRST for weight in _WEIGHTS)
    for each in found:
        if plain_name(each.path).endswith(ends) and each.tensor.ndim == 3:
            return each.tensor.shape[0], each.tensor.shape[1]
    return 0, 0


def _is_codebook(each: FoundTensor) -> bool:
    return each.path.endswith("codebook.embed") and each.tensor.ndim == 2
