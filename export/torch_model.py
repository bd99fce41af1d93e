"""The reverse of `dmcodec.export.graphs`: a torch model with the weights of a bundle's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError

from .weights import TAPS, from_two_taps, read_codebooks, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dmcodec.nn import DMCodec


def torch_model(config: CodecConfig, graphs: Mapping[str, Path]) -> DMCodec:
    """Build a torch model in float32 with the weights of a bundle.

    Training-only weights are left uninitialised. Weights that the bundle stores in half precision keep their rounding.

    Args:
        config: the bundle's configuration.
        graphs: paths of the bundle's graphs by their names.

    Raises:
        ExportError: the graphs were not written by `dmcodec export`.
    """
    import torch

    from dmcodec.nn import DMCodec

    model = DMCodec(config)
    with torch.no_grad():
        for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
            path = graphs[name]
            stored = read_weights(path)
            if any(value.dtype == np.int8 for value in stored.values()):
                raise ExportError(
                    f"{path}: its weights are rounded to int8, and can't be taken from there; "
                    "name the checkpoint that the bundle was exported from"
                )
            weights = {key: value.astype(np.float32) for key, value in stored.items()}
            try:
                _fill(part.model, weights, name)
            except (KeyError, ValueError, RuntimeError) as error:
                raise ExportError(f"{path}: not a graph as `dmcodec export` writes it ({error})") from None
        codebooks = torch.from_numpy(read_codebooks(graphs["quantizer"], config))
        for codebook, entries in zip(model.quantizer.levels, codebooks, strict=True):
            codebook.embed.copy_(entries)
    return model.eval()


def _fill(layers: nn.Module, stored: Mapping[str, NDArray[np.float32]], prefix: str) -> None:
    """Fill modules with the weights that `dmcodec.export.layers.add_layers` named after them."""
    import torch

    from dmcodec.nn.layers import Conv1d, ConvTranspose1d, SkipLSTM

    weights = {key: torch.from_numpy(value) for key, value in stored.items()}
    for name, module in layers.named_modules(prefix=prefix):
        if isinstance(module, ConvTranspose1d) and f"{name}.{TAPS}" in stored:
            weight = torch.from_numpy(from_two_taps(stored[f"{name}.{TAPS}"], module.stride))
            _fill_convolution(module, weight, weights[f"{name}.bias"][:: module.stride])
        elif isinstance(module, Conv1d | ConvTranspose1d):
            _fill_convolution(module, weights[f"{name}.weight"], weights[f"{name}.bias"])
        elif isinstance(module, SkipLSTM):
            for index in range(module.lstm.num_layers):
                parts = [weights[f"{name}.{part}_{index}"] for part in ("weight_ih", "weight_hh", "bias")]
                _fill_lstm(module.lstm, index, *parts)


def _fill_convolution(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Split a folded weight into v (itself) and g (its norm). For a channel of zeros, v may be anything but zero."""
    import torch

    target = layer.weights
    norm = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
    target.weight_v.copy_(torch.where(norm == 0, 1.0, weight))
    target.weight_g.copy_(norm)
    target.bias.copy_(bias)


def _fill_lstm(lstm: nn.LSTM, index: int, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
    """Fill one layer of an LSTM from the ONNX LSTM's inputs.

    Args:
        lstm: the module.
        index: of the layer.
        weight_ih: W [directions, 4H, I].
        weight_hh: R [directions, 4H, H].
        bias: B [directions, 8H].
    """
    bias_ih, bias_hh = bias.chunk(2, dim=1)
    parts = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    for direction, suffix in enumerate(["", "_reverse"][: len(weight_ih)]):
        for part, values in parts.items():
            getattr(lstm, f"{part}_l{index}{suffix}").copy_(_gates(values[direction]))


def _gates(values: Tensor) -> Tensor:
    """Reorder the gates: ONNX stacks input, output, forget, cell; torch input, forget, cell, output."""
    import torch

    i, o, f, c = values.chunk(4)
    return torch.cat([i, f, c, o])
