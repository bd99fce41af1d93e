"""Runs the engines of a graph on device memory: directly, or from a captured CUDA graph where the shape is fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.errors import BackendError, GpuError, first_line

from .engine import Context, Engine
from .memory import Block
from .profiles import Shape
from .resources import Blocks, DeviceResources, FixedRun, Outputs, PooledStream
from .shapes import ProfileChoice, shape_of, size_bytes

MAX_FIXED_RUNS = 32  # of a stream; each keeps its buffers


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
        self._device, self._memory, self._captures = resources.device, resources.memory, resources.captures

    def run(self, stream: PooledStream, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        """Enqueue a run on `stream`. The outputs belong to the caller, and are ready when the stream's work is done.

        A fixed shape is captured when it first runs, and launched from then on.
        """
        if not (choice.fixed and self._capture):
            return self._run_directly(stream, choice, inputs)
        key = (self._name, choice.engine, choice.profile, tuple(sorted(choice.sizes.items())))
        if key not in stream.fixed:
            stream.fixed[key] = self._prepare_fixed(stream, choice, inputs)
            self._drop_oldest(stream)
        stream.fixed.move_to_end(key)
        fixed = stream.fixed[key]
        if fixed is None:
            return self._run_directly(stream, choice, inputs)
        return self._launch(stream, fixed, choice, inputs)

    def _run_directly(self, stream: PooledStream, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        context = stream.context(self._engines[choice.engine])
        scratch_bytes = self._set_shapes(stream, context, choice)
        scratch = self._memory.acquire(scratch_bytes, stream.handle)
        outputs: Outputs = {}
        try:
            outputs = self._acquire_outputs(stream, context)
            context.bind(_addresses(inputs, outputs), scratch.memory, scratch_bytes)
            context.run(stream.handle)
        except Exception:
            stream.release(block for block, _ in outputs.values())
            raise
        finally:
            stream.release([scratch])
        for block, _ in outputs.values():
            block.record_use(stream.handle)
        return outputs

    def _set_shapes(self, stream: PooledStream, context: Context, choice: ProfileChoice) -> int:
        """Set profile and shapes; return the bytes of scratch memory that a run needs."""
        shapes = {tensor.name: shape_of(tensor, choice.sizes) for tensor in self._spec.inputs}
        return context.prepare(choice.profile, shapes, stream.handle)

    def _acquire_outputs(self, stream: PooledStream, context: Context) -> Outputs:
        outputs: Outputs = {}
        try:
            for tensor in self._spec.outputs:
                shape = context.shape(tensor.name)
                outputs[tensor.name] = (self._memory.acquire(_bytes(tensor, shape), stream.handle), shape)
        except GpuError:
            stream.release(block for block, _ in outputs.values())
            raise
        return outputs

    def _prepare_fixed(self, stream: PooledStream, choice: ProfileChoice, values: Blocks) -> FixedRun | None:
        """Give a shape a context and buffers of its own, and capture its run; None where it can't be captured."""
        held: list[Block[int]] = []
        engine = self._engines[choice.engine]
        try:
            context = engine.context(fixed=True)
            inputs = {}
            for tensor in self._spec.inputs:
                count = _bytes(tensor, shape_of(tensor, choice.sizes))
                inputs[tensor.name] = self._memory.acquire(count, stream.handle)
                held.append(inputs[tensor.name])
                self._device.copy(inputs[tensor.name].memory, values[tensor.name].memory, count, stream.handle)
            scratch_bytes = self._set_shapes(stream, context, choice)
            scratch = stream.scratch(scratch_bytes)
            outputs = self._acquire_outputs(stream, context)
            held += [block for block, _ in outputs.values()]
            context.bind(_addresses(inputs, outputs), scratch.memory, scratch_bytes)
            # A context's first run after its shapes were set may allocate and compile, which can't be captured.
            context.run(stream.handle)
            graph = None if engine.captures_itself else self._captured(stream, context)
        except (BackendError, GpuError) as error:
            self._captures.add_failure(f"{self._name}: {first_line(error)}")
            stream.release(held)
            return None
        self._captures.add_capture(engine.captures_itself)
        return FixedRun(graph, context, inputs, scratch, outputs)

    def _captured(self, stream: PooledStream, context: Context) -> object:
        """Capture the run that a context is prepared for.

        Raises:
            BackendError, GpuError: it can't be captured.
        """
        self._device.synchronize(stream.handle)  # a capture can't wait for work outside of it
        if not context.can_capture(stream.handle):
            raise BackendError("the library says that its run can't be captured")
        self._device.begin_capture(stream.handle)
        try:
            context.run(stream.handle)
        except (BackendError, GpuError):
            self._end_failed_capture(stream)
            raise
        graph: object = self._device.end_capture(stream.handle)
        return graph

    def _end_failed_capture(self, stream: PooledStream) -> None:
        """End a capture in which a call failed; the stream can't be used before."""
        try:
            self._device.destroy_graph(self._device.end_capture(stream.handle))
        except GpuError:  # there is no graph to destroy
            return

    def _launch(self, stream: PooledStream, fixed: FixedRun, choice: ProfileChoice, inputs: Blocks) -> Outputs:
        for tensor in self._spec.inputs:
            count = _bytes(tensor, shape_of(tensor, choice.sizes))
            self._device.copy(fixed.inputs[tensor.name].memory, inputs[tensor.name].memory, count, stream.handle)
        if fixed.graph is None:
            fixed.context.run(stream.handle)
        else:
            self._device.launch(fixed.graph, stream.handle)
        self._captures.add_launch()
        outputs: Outputs = {}
        for tensor in self._spec.outputs:
            source, shape = fixed.outputs[tensor.name]
            count = _bytes(tensor, shape)
            block = self._memory.acquire(count, stream.handle)
            self._device.copy(block.memory, source.memory, count, stream.handle)
            block.record_use(stream.handle)
            outputs[tensor.name] = (block, shape)
        return outputs

    def _drop_oldest(self, stream: PooledStream) -> None:
        keys: list[object] = [key for key, run in stream.fixed.items() if run is not None]
        for key in keys[:-MAX_FIXED_RUNS]:
            stream.drop(key)


def _addresses(inputs: Blocks, outputs: Outputs) -> dict[str, int]:
    addresses = {name: block.memory for name, block in inputs.items()}
    return {**addresses, **{name: block.memory for name, (block, _) in outputs.items()}}


def _bytes(tensor: TensorSpec, shape: Shape) -> int:
    return size_bytes(shape, np.dtype(tensor.dtype))
