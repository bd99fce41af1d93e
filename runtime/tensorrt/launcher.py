"""Puts a run on a lane's stream: plainly, or from a captured CUDA graph where the shape is fixed and was met before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.errors import BackendError, GpuError

from .engine import Context, Engine
from .memory import Block, Lane, Lanes
from .profiles import Shape
from .shapes import Choice, shape_of, size_bytes

MAX_CAPTURES = 16  # captured shapes of a lane; each keeps its buffers
Blocks = Mapping[str, Block[int]]
# Each output's memory, and the shape that lies there.
Outputs = dict[str, tuple[Block[int], Shape]]


@dataclasses.dataclass(frozen=True)
class Capture:
    """A captured graph, the buffers whose addresses it holds, and its own context, which nothing else may alter."""

    graph: Any
    context: Context
    inputs: Blocks
    scratch: Block[int]
    outputs: Outputs

    def blocks(self) -> list[Block[int]]:
        """All its memory."""
        return [*self.inputs.values(), self.scratch, *(block for block, _ in self.outputs.values())]


class Launcher:
    """Runs the engines of one graph on device memory."""

    def __init__(self, name: str, spec: GraphSpec, engines: Sequence[Engine], lanes: Lanes, capture: bool) -> None:
        self._name, self._spec, self._engines, self._capture = name, spec, engines, capture
        self._lanes, self._device, self._memory = lanes, lanes.device, lanes.memory

    def launch(self, lane: Lane, choice: Choice, inputs: Blocks) -> Outputs:
        """Puts a run on the lane's stream; what it gives is the caller's, and done when the stream is."""
        if not (choice.fixed and self._capture):
            return self._plain(lane, choice, inputs)
        key = (self._name, choice.engine, choice.profile, tuple(sorted(choice.sizes.items())))
        if key not in lane.captures:  # the first run of a shape also compiles and allocates, which can't be captured
            lane.captures[key] = None
            return self._plain(lane, choice, inputs)
        lane.captures.move_to_end(key)
        capture = lane.captures[key]
        if capture is None:
            capture = lane.captures[key] = self._captured(lane, choice, inputs)
            self._drop_oldest(lane)
        if not isinstance(capture, Capture):
            return self._plain(lane, choice, inputs)
        return self._replay(lane, capture, choice, inputs)

    def _plain(self, lane: Lane, choice: Choice, inputs: Blocks) -> Outputs:
        context = lane.context(self._engines[choice.engine])
        scratch, scratch_bytes, outputs = self._prepare(lane, context, choice)
        try:
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, lane.stream)
        except Exception:
            self._give(lane, (block for block, _ in outputs.values()))
            raise
        finally:
            self._give(lane, [scratch])
        for block, _ in outputs.values():
            block.used_on(lane.stream)
        return outputs

    def _prepare(self, lane: Lane, context: Context, choice: Choice) -> tuple[Block[int], int, Outputs]:
        """Sets the shapes; takes memory for scratch, with the bytes that are needed of it, and for the outputs."""
        shapes = {tensor.name: shape_of(tensor, choice.sizes) for tensor in self._spec.inputs}
        scratch_bytes = context.prepare(choice.profile, shapes, lane.stream)
        scratch = self._memory.take(scratch_bytes, lane.stream)
        outputs: Outputs = {}
        try:
            for tensor in self._spec.outputs:
                shape = context.shape(tensor.name)
                outputs[tensor.name] = (self._memory.take(_bytes(tensor, shape), lane.stream), shape)
        except GpuError:
            self._give(lane, [scratch, *(block for block, _ in outputs.values())])
            raise
        return scratch, scratch_bytes, outputs

    def _captured(self, lane: Lane, choice: Choice, values: Blocks) -> Capture | bool:
        """Captures a run into buffers that it keeps; False where that can't be done, so that it is run plainly."""
        held: list[Block[int]] = []
        started = False
        try:
            context = self._engines[choice.engine].context()
            inputs = {}
            for tensor in self._spec.inputs:
                count = _bytes(tensor, shape_of(tensor, choice.sizes))
                inputs[tensor.name] = self._memory.take(count, lane.stream)
                held.append(inputs[tensor.name])
                self._device.copy(inputs[tensor.name].memory, values[tensor.name].memory, count, lane.stream)
            scratch, scratch_bytes, outputs = self._prepare(lane, context, choice)
            held += [scratch, *(block for block, _ in outputs.values())]
            # A context's first run after its shapes were set may allocate and compile, which can't be captured.
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, lane.stream)
            self._device.synchronize(lane.stream)  # a captured run can't wait for work outside of it
            if not context.can_capture(lane.stream):
                self._give(lane, held)
                return False
            self._device.begin_capture(lane.stream)
            started = True
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, lane.stream)
            started = False
            graph = self._device.end_capture(lane.stream)
        except (BackendError, GpuError):
            if started:
                self._abandon(lane)
            self._give(lane, held)
            return False
        return Capture(graph, context, inputs, scratch, outputs)

    def _abandon(self, lane: Lane) -> None:
        """Ends a capture in which something failed: the stream is of no use before."""
        try:
            self._device.destroy_graph(self._device.end_capture(lane.stream))
        except GpuError:  # there is no graph to destroy
            return

    def _replay(self, lane: Lane, capture: Capture, choice: Choice, inputs: Blocks) -> Outputs:
        for tensor in self._spec.inputs:
            count = _bytes(tensor, shape_of(tensor, choice.sizes))
            self._device.copy(capture.inputs[tensor.name].memory, inputs[tensor.name].memory, count, lane.stream)
        self._device.launch(capture.graph, lane.stream)
        outputs: Outputs = {}
        for tensor in self._spec.outputs:
            source, shape = capture.outputs[tensor.name]
            count = _bytes(tensor, shape)
            block = self._memory.take(count, lane.stream)
            self._device.copy(block.memory, source.memory, count, lane.stream)
            block.used_on(lane.stream)
            outputs[tensor.name] = (block, shape)
        return outputs

    def _drop_oldest(self, lane: Lane) -> None:
        kept = [key for key, value in lane.captures.items() if isinstance(value, Capture)]
        for key in kept[:-MAX_CAPTURES]:
            capture = lane.captures.pop(key)
            if isinstance(capture, Capture):
                self._device.synchronize(lane.stream)
                self._device.destroy_graph(capture.graph)
                self._give(lane, capture.blocks())

    def _give(self, lane: Lane, blocks: Iterable[Block[int]]) -> None:
        for block in blocks:
            block.used_on(lane.stream)
            self._memory.give(block)


def _addresses(inputs: Blocks, outputs: Outputs) -> dict[str, int]:
    found = {name: block.memory for name, block in inputs.items()}
    return {**found, **{name: block.memory for name, (block, _) in outputs.items()}}


def _bytes(tensor: TensorSpec, shape: Shape) -> int:
    return size_bytes(shape, np.dtype(tensor.dtype))
