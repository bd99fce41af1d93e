"""Runs the engines of a graph on device memory: directly, or from a captured CUDA graph where the shape is fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.errors import BackendError, GpuError

from .engine import Context, Engine
from .profiles import Shape
from .resources import Block, DeviceResources, PooledStream
from .shapes import ProfileChoice, shape_of, size_bytes

MAX_CAPTURED_GRAPHS = 16  # of a stream; each keeps its buffers
Blocks = Mapping[str, Block[int]]
# The memory of each output, and the shape of what is in it.
Outputs = dict[str, tuple[Block[int], Shape]]


@dataclasses.dataclass(frozen=True)
class CapturedGraph:
    """A CUDA graph with the buffers whose addresses it holds.

    Attributes:
        graph: handle of the executable graph.
        context: the execution context of the capture; no other run may use it.
        inputs, scratch, outputs: its buffers.
    """

    graph: Any
    context: Context
    inputs: Blocks
    scratch: Block[int]
    outputs: Outputs

    def blocks(self) -> list[Block[int]]:
        """Return all its buffers."""
        return [*self.inputs.values(), self.scratch, *(block for block, _ in self.outputs.values())]


class Executor:
    """Runs the engines of one graph.

    Args:
        name: of the graph.
        spec: of the graph.
        engines: of the graph.
        resources: streams and memory.
        capture: run fixed shapes from captured CUDA graphs.
    """

    def __init__(
        self, name: str, spec: GraphSpec, engines: Sequence[Engine], resources: DeviceResources, capture: bool
    ) -> None:
        self._name, self._spec, self._engines, self._capture = name, spec, engines, capture
        self._device, self._memory = resources.device, resources.memory

    def run(self, stream: PooledStream, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        """Enqueue a run on `stream`. The outputs belong to the caller, and are ready when the stream's work is done.

        A fixed shape runs directly the first time, is captured the second time, and is replayed from then on.
        """
        if not (choice.fixed and self._capture):
            return self._run_directly(stream, choice, inputs)
        key = (self._name, choice.engine, choice.profile, tuple(sorted(choice.sizes.items())))
        if key not in stream.graphs:  # the first run of a shape also compiles and allocates, which can't be captured
            stream.graphs[key] = None
            return self._run_directly(stream, choice, inputs)
        stream.graphs.move_to_end(key)
        captured = stream.graphs[key]
        if captured is None:
            captured = stream.graphs[key] = self._capture_run(stream, choice, inputs)
            self._evict_oldest(stream)
        if not isinstance(captured, CapturedGraph):
            return self._run_directly(stream, choice, inputs)
        return self._replay(stream, captured, choice, inputs)

    def _run_directly(self, stream: PooledStream, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        context = stream.context(self._engines[choice.engine])
        scratch, scratch_bytes, outputs = self._prepare(stream, context, choice)
        try:
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, stream.handle)
        except Exception:
            self._release(stream, (block for block, _ in outputs.values()))
            raise
        finally:
            self._release(stream, [scratch])
        for block, _ in outputs.values():
            block.record_use(stream.handle)
        return outputs

    def _prepare(
        self, stream: PooledStream, context: Context, choice: ProfileChoice
    ) -> tuple[Block[int], int, Outputs]:
        """Set profile and shapes, and acquire memory.

        Returns:
            The scratch memory, the bytes of it that a run needs, and the memory of the outputs.
        """
        shapes = {tensor.name: shape_of(tensor, choice.sizes) for tensor in self._spec.inputs}
        scratch_bytes = context.prepare(choice.profile, shapes, stream.handle)
        scratch = self._memory.acquire(scratch_bytes, stream.handle)
        outputs: Outputs = {}
        try:
            for tensor in self._spec.outputs:
                shape = context.shape(tensor.name)
                outputs[tensor.name] = (self._memory.acquire(_bytes(tensor, shape), stream.handle), shape)
        except GpuError:
            self._release(stream, [scratch, *(block for block, _ in outputs.values())])
            raise
        return scratch, scratch_bytes, outputs

    def _capture_run(self, stream: PooledStream, choice: ProfileChoice, values: Blocks) -> CapturedGraph | bool:
        """Capture a run with buffers of its own; return False where it can't be captured."""
        held: list[Block[int]] = []
        capturing = False
        try:
            context = self._engines[choice.engine].context()
            inputs = {}
            for tensor in self._spec.inputs:
                count = _bytes(tensor, shape_of(tensor, choice.sizes))
                inputs[tensor.name] = self._memory.acquire(count, stream.handle)
                held.append(inputs[tensor.name])
                self._device.copy(inputs[tensor.name].memory, values[tensor.name].memory, count, stream.handle)
            scratch, scratch_bytes, outputs = self._prepare(stream, context, choice)
            held += [scratch, *(block for block, _ in outputs.values())]
            # A context's first run after its shapes were set may allocate and compile, which can't be captured.
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, stream.handle)
            self._device.synchronize(stream.handle)  # a capture can't wait for work outside of it
            if not context.can_capture(stream.handle):
                self._release(stream, held)
                return False
            self._device.begin_capture(stream.handle)
            capturing = True
            context.run(_addresses(inputs, outputs), scratch.memory, scratch_bytes, stream.handle)
            capturing = False
            graph = self._device.end_capture(stream.handle)
        except (BackendError, GpuError):
            if capturing:
                self._end_failed_capture(stream)
            self._release(stream, held)
            return False
        return CapturedGraph(graph, context, inputs, scratch, outputs)

    def _end_failed_capture(self, stream: PooledStream) -> None:
        """End a capture in which a call failed; the stream can't be used before."""
        try:
            self._device.destroy_graph(self._device.end_capture(stream.handle))
        except GpuError:  # there is no graph to destroy
            return

    def _replay(self, stream: PooledStream, captured: CapturedGraph, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        for tensor in self._spec.inputs:
            count = _bytes(tensor, shape_of(tensor, choice.sizes))
            self._device.copy(captured.inputs[tensor.name].memory, inputs[tensor.name].memory, count, stream.handle)
        self._device.launch(captured.graph, stream.handle)
        outputs: Outputs = {}
        for tensor in self._spec.outputs:
            source, shape = captured.outputs[tensor.name]
            count = _bytes(tensor, shape)
            block = self._memory.acquire(count, stream.handle)
            self._device.copy(block.memory, source.memory, count, stream.handle)
            block.record_use(stream.handle)
            outputs[tensor.name] = (block, shape)
        return outputs

    def _evict_oldest(self, stream: PooledStream) -> None:
        keys = [key for key, value in stream.graphs.items() if isinstance(value, CapturedGraph)]
        for key in keys[:-MAX_CAPTURED_GRAPHS]:
            captured = stream.graphs.pop(key)
            if isinstance(captured, CapturedGraph):
                self._device.synchronize(stream.handle)
                self._device.destroy_graph(captured.graph)
                self._release(stream, captured.blocks())

    def _release(self, stream: PooledStream, blocks: Iterable[Block[int]]) -> None:
        for block in blocks:
            block.record_use(stream.handle)
            self._memory.release(block)


def _addresses(inputs: Blocks, outputs: Outputs) -> dict[str, int]:
    addresses = {name: block.memory for name, block in inputs.items()}
    return {**addresses, **{name: block.memory for name, (block, _) in outputs.items()}}


def _bytes(tensor: TensorSpec, shape: Shape) -> int:
    return size_bytes(shape, np.dtype(tensor.dtype))
