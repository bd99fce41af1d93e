"""Plot the losses and the codebook use of training runs into one figure, for light and dark pages.

python recipes/plot_runs.py curves.svg runs/lm runs/sm runs/lm+sm
"""

from __future__ import annotations

import argparse
import json
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
    """Read a metrics log of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def smooth(values: list[float]) -> list[float]:
    """Return the exponential moving average, corrected for its start."""
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average, weight = SMOOTH * average + (1 - SMOOTH) * value, SMOOTH * weight + 1 - SMOOTH
        found.append(average / weight)
    return found


def plot(out: Path, runs: list[Path]) -> None:
    """Plot one panel per loss, and two for validation."""
    pyplot.rcParams.update(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    )
    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5), layout="constrained")
    panels = list(axes.flat)
    for index, run in enumerate(runs):
        colour = f"C{index}"
        log = lines(run / "train.jsonl")
        for panel, name in zip(panels, TRAIN, strict=False):
            points = [(line["step"], line[name]) for line in log if name in line]
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
    if out.suffix == ".svg":
        out.write_text(for_dark_pages(out.read_text(encoding="utf-8")), encoding="utf-8")


def for_dark_pages(svg: str) -> str:
    """Add the rules for dark pages to a figure, beside its definitions."""
    return svg.replace(" <defs>", f"{DARK}\n <defs>", 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="figure: .svg, .png or .pdf")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of `dmcodec train fit`")
    arguments = parser.parse_args()
    plot(arguments.out, arguments.runs)
