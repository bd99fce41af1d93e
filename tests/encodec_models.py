"""EnCodec models of transformers with random weights, as files in both published layouts, and what they compute."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 8 codebooks of 64 entries, 75 frames a second: 450 bit/s a level.
SMALL: dict[str, Any] = {
    "num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [0.9, 3.6],
}  # fmt: skip


def random_model(seed: int = 0, **fields: Any) -> Any:
    """An EncodecModel whose latents depend on the waveform, and whose codebooks are used."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(seed)
    made: Any = EncodecModel(EncodecConfig(**fields))
    model = made.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0") or ".lstm." in name:
                parameter.mul_(2)
            elif name.endswith("bias"):
                parameter.mul_(0.1)
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_(std=0.4)
    return model


def save(model: Any, folder: Path) -> Path:
    """The folder as transformers writes it: config.json and model.safetensors."""
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    return folder


def config_values(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


def in_metas_layout(model: Any) -> dict[str, Tensor]:
    """The model's tensors under the names of Meta's own files, `encodec_24khz-*.th`."""
    state = {}
    for name, tensor in model.state_dict().items():
        part, _, rest = name.partition(".layers.")
        name = f"quantizer.vq.layers.{rest}" if part == "quantizer" else f"{part}.model.{rest}"
        name = name.replace(".codebook.", "._codebook.")
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        name = name.replace(".parametrizations.weight.original1", ".weight_v")
        index = rest.split(".")[0]
        transposed = part == "decoder" and _is_transposed(model, int(index))
        kind = "convtr" if transposed else "conv"
        state[name.replace(".conv.", f".{kind}.{kind}.")] = tensor.clone()
    return state


def _is_transposed(model: Any, index: int) -> bool:
    return type(model.decoder.layers[index]).__name__ == "EncodecConvTranspose1d"


@torch.inference_mode()
def encoded(model: Any, waveform: NDArray[np.float32], bandwidth: float | None = None) -> NDArray[np.int64]:
    """Codes (n_q, frames) of a clip alone."""
    kbps = bandwidth or model.config.target_bandwidths[-1]
    codes: NDArray[np.int64] = (
        model.encode(torch.from_numpy(waveform)[None, None], bandwidth=kbps).audio_codes[0, 0].numpy()
    )
    return codes


@torch.inference_mode()
def latents_of(model: Any, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents (dimension, frames) of a clip alone."""
    latents: NDArray[np.float32] = model.encoder(torch.from_numpy(waveform)[None, None])[0].numpy()
    return latents


@torch.inference_mode()
def decoded(model: Any, codes: NDArray[Any]) -> NDArray[np.float32]:
    """Waveform (frames x hop,) of codes (n_q, frames)."""
    audio: NDArray[np.float32] = model.decode(torch.from_numpy(codes.astype(np.int64))[None, None], [None])[0][
        0, 0
    ].numpy()
    return audio


def codebooks_of(model: Any) -> NDArray[np.float32]:
    return np.stack([layer.codebook.embed.numpy() for layer in model.quantizer.layers])


def lengths(hop: int, most: int) -> Sequence[int]:
    """Lengths in samples around the borders of layers and frames."""
    return [
        n for n in (1, 2, 6, 7, hop - 1, hop, hop + 1, 6 * hop, 7 * hop - 1, 8 * hop + 5, 12345, 48123) if n <= most
    ]
