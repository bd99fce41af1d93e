"""Kernels of a loop's step, from the list of layers in the log of TensorRT for RTX.

A layer of type `cjmp` ends a loop's body and jumps back to its start. What counts steps and computes shapes runs on the
host; all other layers are counted as kernels. The library unrolls loops: a body of n steps adds to its counters 2 n + 1
times.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from dmcodec.runtime.tensorrt.library import LogLine

_LAYER = re.compile(r"^Name: .*?, LayerType: (.*?), Inputs:", re.MULTILINE)
_JUMP, _COUNT, _START = "cjmp", "add", "memset"
_ON_HOST = {
    _JUMP, _COUNT, _START, "cast", "reshape", "mul", "div", "shape_call", "ShapeHostToDevice", "signal", "wait",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoopBody:
    """The body of a loop: steps that it was unrolled to, and kernels of all of them."""

    steps: int
    kernels: int

    @property
    def kernels_per_step(self) -> float:
        """Kernels of one step, which is one frame of one LSTM layer."""
        return self.kernels / self.steps


def loop_bodies(lines: Sequence[LogLine]) -> list[LoopBody]:
    """Return the bodies of all loops in the order of the log."""
    bodies, since = [], list[str]()
    for layer in (match for line in lines for match in _LAYER.findall(line.text)):
        if layer == _JUMP and _COUNT in since:  # a jump that follows no count is a test before the loop
            steps = max(1, (since.count(_COUNT) - 1) // 2)
            bodies.append(LoopBody(steps, sum(item not in _ON_HOST for item in _after_last(_START, since))))
        since = [] if layer == _JUMP else [*since, layer]
    return bodies


def _after_last(wanted: str, layers: list[str]) -> list[str]:
    """Return what follows the last layer of a type: where a loop always runs, no jump stands before its body."""
    places = [index for index, layer in enumerate(layers) if layer == wanted]
    return layers[places[-1] + 1 :] if places else layers
