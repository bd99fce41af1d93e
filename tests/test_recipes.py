"""Recipes that are small enough to try: the figure of training runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture(scope="module")
def plot_runs() -> Any:
    spec = importlib.util.spec_from_file_location("plot_runs", RECIPES / "plot_runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_runs_are_plotted_in_every_format(plot_runs: Any, tmp_path: Path, suffix: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    steps = [{"step": step, "mel": 3.0 / step, "waveform": 0.1} for step in (1, 2, 3)]
    (run / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    validation = {"step": 3, "mel": 1.0, "perplexity_0": 20.0, "perplexity_1": 30.0}
    (run / "validation.jsonl").write_text(json.dumps(validation) + "\n")
    plot_runs.plot(tmp_path / f"figure.{suffix}", [run])
    content = (tmp_path / f"figure.{suffix}").read_bytes()
    assert content.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix])
    assert (b"prefers-color-scheme: dark" in content) == (suffix == "svg")
