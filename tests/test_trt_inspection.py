"""What is found in a built engine: the types of its layers, and warnings where they are not as expected."""

from __future__ import annotations

import warnings

import pytest
from test_trt_build import library

from dmcodec.cli.warnings import warnings_as_lines
from dmcodec.errors import EngineWarning
from dmcodec.export.tensorrt.inspection import Inspection, inspect_engine, precision_problem
from dmcodec.runtime.tensorrt.library import LogLine


def test_the_command_line_shows_the_warning_as_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_as_lines():
        warnings.warn("encoder.engine: asked for fp32", EngineWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: encoder.engine: asked for fp32\n"


def test_precisions_that_are_not_as_expected_are_named() -> None:
    for wanted, tensors in (("fp16", {"fp16": 2, "fp32": 1}), ("fp16", {"fp32": 9, "fp16": 1}), ("fp32", {"fp32": 3})):
        assert precision_problem(wanted, Inspection("log", 3, tensors)) is None
    for wanted, tensors in (("fp16", {"fp32": 2}), ("fp32", {"fp32": 9, "bf16": 1})):
        assert f"asked for {wanted}" in str(precision_problem(wanted, Inspection("log", 3, tensors)))
    assert "not known" in str(precision_problem("fp32", Inspection("log", 3, {})))


def test_the_log_lists_layers_without_a_gpu() -> None:
    text = (
        "Layers:\nName: a, LayerType: gemm, Inputs: [ { Name: x, Datatype: Float}], Constants: [], "
        "Outputs: [ { Name: y, Dimensions: [1], Datatype: Half, Format: (Linear) }], TacticName: t\n"
        "Name: b, LayerType: copy, Inputs: [], Outputs: [ { Name: z, Datatype: Int64 }], TacticName: t\n"
    )
    found = inspect_engine(library(), "g", b"", [LogLine("VERBOSE", text)], None)
    assert (found.layers, found.tensors, found.source) == (2, {"fp16": 1}, "builder's log")
    nothing = inspect_engine(library(), "g", b"", [LogLine("VERBOSE", "nothing")], None)
    assert (nothing.layers, nothing.precision, nothing.source) == (0, "unknown", "nothing")
