"""Draw the losses and the codebook use of training runs into one picture, for light and dark pages.

python recipes/plot_runs.py curves.svg runs/lm runs/sm runs/lm+sm
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

# matplotlib writes colours into each element; on a dark page these rules replace them.
DARK = """<style>
@media (prefers-color-scheme: dark) {
 [style*="fill: #ffffff"] { fill: #1e2129 !important; }
 [style*="stroke: #000000"] { stroke: #a3abb8 !important; }
 text { fill: #e3e6eb; }
}
</style>"""
TRAIN = ("mel", "waveform", "distillation_lm", "distillation_sm", "adversarial", "discriminators")
SMOOTH = 0.9


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a record."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def smooth(values: list[float]) -> list[float]:
    """Moving average, without a bias in the beginning."""
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average, weight = SMOOTH * average + (1 - SMOOTH) * value, SMOOTH * weight + 1 - SMOOTH
        found.append(average / weight)
    return found


def draw(out: Path, runs: list[Path]) -> None:
    """One panel a loss, and two for validation."""
    pyplot.rcParams.update(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    )
    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5), layout="constrained")
    panels = list(axes.flat)
    for index, run in enumerate(runs):
        colour = f"C{index}"
        record = lines(run / "train.jsonl")
        for panel, name in zip(panels, TRAIN, strict=False):
            points = [(line["step"], line[name]) for line in record if name in line]
            if points:
                steps, values = zip(*points, strict=True)
                panel.plot(steps, smooth(list(values)), colour, label=run.name, linewidth=1.2)
            panel.set_title(f"training: {name.replace('_', ' ')}")
        validation = lines(run / "validation.jsonl")
        steps = [line["step"] for line in validation]
        panels[6].plot(steps, [line["mel"] for line in validation], f"{colour}-o", markersize=3, label=run.name)
        levels = sorted(name for name in validation[-1] if name.startswith("perplexity_"))
        lowest = [min(line[name] for name in levels) for line in validation]
        highest = [max(line[name] for name in levels) for line in validation]
        panels[7].fill_between(steps, lowest, highest, color=colour, alpha=0.2)
        panels[7].plot(steps, lowest, colour, linewidth=1.2, label=run.name)
    panels[6].set_title("validation: mel distance")
    panels[7].set_title("validation: perplexity, range of levels")
    for panel in panels:
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.savefig(out)
    out.write_text(for_dark_pages(out.read_text(encoding="utf-8")), encoding="utf-8")


def for_dark_pages(svg: str) -> str:
    """The figure with the rules for dark pages, beside its definitions."""
    return svg.replace(" <defs>", f"{DARK}\n <defs>", 1)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
