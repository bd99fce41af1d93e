"""Calls of many streams joined into batches: gather the rows, run the graph, scatter the rows.

Calls whose ends don't matter (`Call.inner`) are laid end to end in time instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import TensorSpec
from dmcodec.runtime.backend import Graphs
from dmcodec.runtime.calls import Call, Step

from .arena import BATCH, StateArena

# Called with the index of a step that has ended, and its result or its error.
Ended = Callable[[int, Any, Exception | None], None]


class JoinedGraphs:
    """Runs calls of one graph, joined along the batch axis where their other axes are equal, or in time."""

    def __init__(self, graphs: Graphs, arena: StateArena) -> None:
        self._graphs, self._arena = graphs, arena
        self._specs = graphs.bundle.manifest.graphs
        self._places = {name: place for place, name in enumerate(self._specs)}

    def first(self, calls: Iterable[Call]) -> str:
        """Return the graph that comes first in the bundle, so that the streams behind catch up with the others."""
        return min((call.graph for call in calls), key=self._places.__getitem__)

    def run(self, calls: Sequence[Call]) -> list[list[Any] | Exception]:
        """Run calls of one graph; return the outputs of each, or its error.

        Where a batch fails, its calls run one by one, so that only those fail that fail alone.
        """
        groups: dict[Any, list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(self._key(call, index), []).append(index)
        results: dict[int, list[Any] | Exception] = {}
        for group in groups.values():
            results.update(zip(group, self._run_group([calls[index] for index in group]), strict=True))
        return [results[index] for index in range(len(calls))]

    def _run_group(self, calls: Sequence[Call]) -> Sequence[list[Any] | Exception]:
        try:
            return self._run_batch(calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the other streams
            if len(calls) == 1:
                return [error]
            return [self._run_group([call])[0] for call in calls]

    def _run_batch(self, calls: Sequence[Call]) -> list[list[Any]]:
        if calls[0].inner and len(calls) > 1:
            return self._run_end_to_end(calls)
        graph = calls[0].graph
        spec = self._specs[graph]
        inputs = {
            tensor.name: self._joined(graph, tensor, [call.inputs[tensor.name] for call in calls])
            for tensor in spec.inputs
        }
        outputs = self._graphs.arrays(graph, **inputs)
        columns = [
            self._separated(graph, tensor, output, len(calls))
            for tensor, output in zip(spec.outputs, outputs, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    def _run_end_to_end(self, calls: Sequence[Call]) -> list[list[Any]]:
        """Run calls laid end to end in time, their last axis: one long convolution takes less time than many short."""
        [name] = calls[0].inputs
        lengths = [call.inputs[name].shape[-1] for call in calls]
        joined = np.concatenate([call.inputs[name] for call in calls], axis=-1)
        [output] = self._graphs.arrays(calls[0].graph, **{name: joined})
        ends = np.cumsum(lengths) * (output.shape[-1] // sum(lengths))
        return [[part.copy()] for part in np.split(output, ends[:-1], axis=-1)]

    def _key(self, call: Call, index: int) -> Any:
        """Return what calls must have in common to be joined; of a call that can't be joined, its index."""
        if call.inner:
            [value] = call.inputs.values()
            return "inner" if len(value) == 1 else index
        spec = self._specs[call.graph]
        parts: list[Any] = []
        for tensor in spec.inputs:
            if self._arena.is_state(call.graph, tensor.name):
                continue
            value = np.asarray(call.inputs[tensor.name])
            if BATCH in tensor.axes:
                axis = tensor.axes.index(BATCH)
                if value.shape[axis] != 1:
                    return index
                parts.append((value.dtype, value.shape[:axis], value.shape[axis + 1 :]))
            else:
                parts.append((value.dtype, value.shape, value.tobytes()))
        return tuple(parts) if all(BATCH in tensor.axes for tensor in spec.outputs) else index

    def _joined(self, graph: str, tensor: TensorSpec, values: Sequence[Any]) -> NDArray[Any]:
        if self._arena.is_state(graph, tensor.name):
            return self._arena.gather(graph, tensor.name, values)
        if len(values) == 1 or BATCH not in tensor.axes:
            return np.asarray(values[0])
        return np.concatenate(values, axis=tensor.axes.index(BATCH))

    def _separated(self, graph: str, tensor: TensorSpec, output: NDArray[Any], count: int) -> list[Any]:
        """Return the part of each call: a state of the arena, or a copy that keeps no other stream's part alive."""
        if BATCH not in tensor.axes or output.shape[tensor.axes.index(BATCH)] != count:
            return [output]  # of one call that can't be joined
        if self._arena.is_state(graph, tensor.name):
            return list(self._arena.scatter(graph, tensor.name, output))
        axis = tensor.axes.index(BATCH)
        return [output] if count == 1 else [output.take([index], axis=axis) for index in range(count)]


def run_together(steps: Sequence[Step[Any]], graphs: JoinedGraphs, ended: Ended) -> None:
    """Run steps to their ends and join their calls; `ended` is called for each as soon as it has ended."""
    calls: dict[int, Call] = {}

    def advance(index: int, resume: Callable[[], Call]) -> None:
        try:
            calls[index] = resume()
        except StopIteration as end:
            ended(index, end.value, None)
        except Exception as error:  # noqa: BLE001 - of this stream only
            ended(index, None, error)

    for index, step in enumerate(steps):
        advance(index, partial(next, step))
    while calls:
        graph = graphs.first(calls.values())
        indices = [index for index, call in calls.items() if call.graph == graph]
        outcomes = graphs.run([calls.pop(index) for index in indices])
        for index, outcome in zip(indices, outcomes, strict=True):
            if isinstance(outcome, Exception):
                advance(index, partial(steps[index].throw, outcome))
            else:
                advance(index, partial(steps[index].send, outcome))
