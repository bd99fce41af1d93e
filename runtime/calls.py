"""Work on graphs as a generator of calls, so that one piece of logic runs alone or in a batch with others.

A step yields each `Call` that it needs and is sent the outputs of the graph. `run_alone` runs a step by itself. A pool
of streams runs many steps together and joins their calls of one graph and shape along the batch axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# Runs a graph of the bundle: run(name, **inputs) -> outputs.
RunGraph = Callable[..., list[Any]]


@dataclasses.dataclass(frozen=True)
class Call:
    """A graph to run.

    Attributes:
        graph: its name in the bundle.
        inputs: by name: arrays, or values that an earlier call returned and that only a later call reads (the state of
            an LSTM), which may be kept elsewhere than in an array.
        inner: whether the outputs that are used don't depend on what lies before and after the inputs, zeros, a
            reflection or the inputs of another call, so that calls may be laid end to end in time.
    """

    graph: str
    inputs: Mapping[str, Any]
    inner: bool = False


# A step is sent the outputs of each call in the order of the graph's outputs.
Step = Generator[Call, list[Any], _Result]


def run_alone(step: Step[_Result], run: RunGraph) -> _Result:
    """Run a step to its end; return its result."""
    try:
        call = next(step)
        while True:
            call = step.send(run(call.graph, **call.inputs))
    except StopIteration as end:
        result: _Result = end.value
        return result
