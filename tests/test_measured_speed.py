"""The speed that the README and the pages state is that of the committed results."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_speed", ROOT / "scripts" / "measure_speed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(script: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / script.RESULTS).read_text())
    return found


def test_the_pages_are_those_of_the_results(script: ModuleType, results: dict[str, Any]) -> None:
    for page in script.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert script.rendered(text, results) == text, f"{page}: run python scripts/measure_speed.py --render"
    regions = [name for page in script.PAGES for _, name, _ in script._REGION.findall((ROOT / page).read_text())]
    assert regions == ["readme", *("full", script.INT8, "small", "batches", "start-small", "start-full")]


def test_the_ratios_of_the_readme_are_those_of_the_results(script: ModuleType, results: dict[str, Any]) -> None:
    """Read here from the JSON alone, and from the README as a reader would."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    quoted = [float(number) for number in re.findall(r"(\d+\.\d\d) and (\d+\.\d\d) times", readme)[0]]
    eager = next(
        entry
        for entry in results["full"]["comparisons"]
        if (entry["peer"], entry["duration_s"], entry["batch"]) == ("torch-eager", 10.0, 1)
    )
    assert quoted == [round(eager["encode_speedup"], 2), round(eager["decode_speedup"], 2)]
    assert f"{results['start-small']['first_call_cpu_s']:.2f} s of CPU time" in readme
    busy = results["full"]["load"]["problems"] or results["start-small"]["load"]["problems"]
    assert ("not a measurement" in readme) == bool(busy)


def test_a_result_that_changes_is_noticed(script: ModuleType, results: dict[str, Any]) -> None:
    other = copy.deepcopy(results)
    for entry in other["full"]["comparisons"]:
        entry["encode_speedup"] += 0.5
    changed = [page for page in script.PAGES if script.rendered(text := (ROOT / page).read_text(), other) != text]
    assert changed == list(script.PAGES)
    busy = copy.deepcopy(results)
    busy["full"]["load"]["problems"] = ["it was busy"]
    assert "**Not a measurement**: it was busy." in script.content("full", busy)
    assert "not a measurement" in script.readme(busy)
    assert script.content("small", {}) == "Not measured yet."


def test_results_are_kept_without_single_runs(script: ModuleType) -> None:
    values = {"timing": {"p50_s": 0.123456789, "runs_s": [1.0]}, "rows": [{"n": 3}], "parity": {}}
    found = script.compact({**values, "bundle": str(ROOT / "x.bundle")})
    assert found == {"timing": {"p50_s": 0.12346}, "rows": [{"n": 3}]}
