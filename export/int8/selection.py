"""Chooses the layers that compute in int8: each is tried on speech, and the best are taken up to a budget.

LSTMs come first, since int8 gains most there: their weights are read anew for every frame. Then come convolutions, by
the noise that they add for what they gain. Noise powers of layers add up, nearly; so layers are taken until their sum
reaches the budget, and left out again, the last one first, until the whole is measured to be within it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .plan import LSTM, Int8Plan, Layer

# Convolutions with a smaller share of what all layers gain are not tried.
_SMALLEST_SHARE = 0.02

# SNR in dB, and shares of equal codes of all levels and of level 0 (1 for a decoder).
Measured = tuple[float, float, float]
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A layer alone in int8, and whether it is in int8 in the bundle.

    Attributes:
        layer: its name.
        op_type: "Conv" or "LSTM".
        gain: see `dmcodec.export.int8.plan.Layer`.
        snr_db: of the latents, or of the audio, with this layer in int8 and all else as it was.
        taken: the layer is in int8.
    """

    layer: str
    op_type: str
    gain: float
    snr_db: float
    taken: bool


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a network in int8 must reach, in the order of `Measured`.

    Attributes:
        snr_db: SNR of the latents, or of the audio.
        code_agreement, level0_agreement: shares of equal codes of all levels, and of level 0; 0 for a decoder.
    """

    snr_db: float
    code_agreement: float = 0.0
    level0_agreement: float = 0.0


class Network:
    """An encoder or a decoder whose layers are chosen.

    Args:
        model: in float32, in its plain form.
        layers: that can compute in int8.
        measure: compares a model in this form with float32.
        budget: of the whole network.
        means: as in `dmcodec.export.int8.plan.Int8Plan`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[Layer],
        measure: Callable[[onnx.ModelProto], Measured],
        budget: Budget,
        means: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.means = means
        self._model, self._measure, self._budget = model, measure, budget
        total = sum(max(layer.gain, 0.0) for layer in layers)
        self.layers = [layer for layer in layers if layer.op_type == LSTM or layer.gain > _SMALLEST_SHARE * total]

    def choose(self, progress: Progress) -> tuple[list[Layer], list[Trial]]:
        """Return the layers to take, and the trials of all that were tried."""
        stored = _noise(self._measure(self._with([]))[0])  # of weights that are stored narrower
        noises: dict[str, float] = {}
        for done, layer in enumerate(self.layers):
            progress(done, len(self.layers))
            noises[layer.weight] = _noise(self._measure(self._with([layer], stores_narrow=False))[0])
        ranked = sorted(self.layers, key=lambda layer: self._rank(layer, noises[layer.weight]))
        taken, total = [], stored
        for layer in ranked:
            if total + noises[layer.weight] <= _noise(self._budget.snr_db):
                taken.append(layer)
                total += noises[layer.weight]
        while taken and not _is_within(self._measure(self._with(taken)), self._budget):
            taken.pop()
        progress(len(self.layers), len(self.layers))
        trials = [
            Trial(layer.name, layer.op_type, layer.gain, _snr_db(noises[layer.weight]), layer in taken)
            for layer in ranked
        ]
        return taken, trials

    def _rank(self, layer: Layer, noise: float) -> tuple[bool, float]:
        return layer.op_type != LSTM, noise / layer.gain

    def _with(self, layers: Sequence[Layer], stores_narrow: bool = True) -> onnx.ModelProto:
        return Int8Plan({layer.weight: layer for layer in layers}, stores_narrow, False, self.means).apply(self._model)


def _is_within(measured: Measured, budget: Budget) -> bool:
    return all(value >= least for value, least in zip(measured, dataclasses.astuple(budget), strict=True))


def _noise(snr_db: float) -> float:
    """Return the power of noise, relative to the signal."""
    return float(10 ** (-snr_db / 10))


def _snr_db(noise: float) -> float:
    return -10 * math.log10(noise)


def to_dicts(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return JSON values for the manifest."""
    return [dataclasses.asdict(trial) for trial in trials]
