"""The plots of a benchmark's report: one SVG for each panel, so that panels stack on a narrow screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from dmcodec.benchmarks.plots import INK, colour_of, panel, svg
from dmcodec.benchmarks.tables import milliseconds

from .options import Shape
from .result import OPERATIONS, BenchResult, LiveResult, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = """
figure { margin: 1rem 0; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, sans-serif !important; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; }
.legend i { flex: none; width: .8rem; height: .8rem; border-radius: 2px; }
.bar { display: flex; height: 2.2rem; border-radius: 3px; overflow: hidden; }
"""
# From this ratio of the largest to the smallest value on, an axis is logarithmic.
LOGARITHMIC = 10.0
_SIZE_IN, _FONT_SIZE = (4.5, 3.0), 11
# A value of a measurement, from the time of a run.
Value = Callable[[Measurement, float], float]


def rtf_by_duration(result: BenchResult) -> str:
    """Plot the RTF of each codec over clip lengths, at batch 1; return HTML."""
    measurements = [entry for entry in result.measurements if entry.batch == 1]
    durations = sorted({entry.duration_s for entry in measurements})
    labels = [f"{duration_s:g} s" for duration_s in durations]

    def place(entry: Measurement) -> int:
        return durations.index(entry.duration_s)

    return _by_codec(measurements, place, labels, "clip length", "RTF", lambda entry, run_s: run_s / _s(entry))


def throughput_by_batch(result: BenchResult) -> str:
    """Plot the xRT of each codec over batch sizes, at the reference duration; return HTML."""
    measurements = [entry for entry in result.measurements if entry.duration_s == result.reference_s]
    batches = sorted({entry.batch for entry in measurements})
    labels = [str(Shape(result.reference_s, batch)) for batch in batches]

    def place(entry: Measurement) -> int:
        return batches.index(entry.batch)

    return _by_codec(measurements, place, labels, "batch", "xRT", lambda entry, run_s: _s(entry) / run_s)


def _s(entry: Measurement) -> float:
    """Return the seconds of audio of one run."""
    return entry.duration_s * entry.batch


def _by_codec(
    measurements: Sequence[Measurement],
    place: Callable[[Measurement], int],
    labels: Sequence[str],
    across: str,
    up: str,
    value: Value,
) -> str:
    """Plot a value of each codec: median, and quartiles as bars; both operations on one scale. Return HTML."""
    codecs = list(dict.fromkeys(entry.side for entry in measurements))
    every = [value(entry, run_s) for entry in measurements for run_s in _quartiles(entry)]
    svgs = []
    for operation in OPERATIONS:
        with _panel(f"{up}-{operation}", operation, across, up) as (figure, axes):
            for index, (colour, codec) in enumerate(zip(_colours(codecs), codecs, strict=True)):
                points = [entry for entry in measurements if (entry.side, entry.operation) == (codec, operation)]
                shift = (index - (len(codecs) - 1) / 2) * 0.06  # bars of quartiles side by side
                low, middle, high = zip(
                    *(sorted(value(entry, run_s) for run_s in _quartiles(entry)) for entry in points), strict=True
                )
                spread = [
                    [mid - least for mid, least in zip(middle, low, strict=True)],
                    [most - mid for most, mid in zip(high, middle, strict=True)],
                ]
                places = [place(entry) + shift for entry in points]
                axes.errorbar(places, middle, yerr=spread, fmt="o-", color=colour, markersize=4, capsize=3)
            axes.set_xticks(range(len(labels)), labels)
            axes.set_xlim(-0.5, len(labels) - 0.5)
            _scale(axes, every)
            svgs.append(svg(figure))
    return _panels(svgs, _legend(zip(_colours(codecs), codecs, strict=True)))


def _quartiles(entry: Measurement) -> tuple[float, float, float]:
    return entry.timing.p25_s, entry.timing.p50_s, entry.timing.p75_s


def latency_by_streams(live: LiveResult) -> str:
    """Plot the p99 of the pushes of live streams over their number, pooled and separate; return HTML."""
    sides = list(dict.fromkeys(level.side for level in live.levels))
    counts = sorted({level.streams for level in live.levels})
    svgs = []
    for operation in OPERATIONS:
        with _panel(f"live-{operation}", operation, "streams", "p99, ms") as (figure, axes):
            for colour, side in zip(_colours(sides), sides, strict=True):
                points = [level for level in live.levels if (level.operation, level.side) == (operation, side)]
                axes.plot(
                    [point.streams for point in points], [point.p99_s * 1000 for point in points], "o-", color=colour
                )
            axes.axhline(live.limit_s * 1000, color=INK, linestyle=":")
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.minorticks_off()
            svgs.append(svg(figure))
    return _panels(svgs, _legend(zip(_colours(sides), sides, strict=True)))


def graph_shares(result: BenchResult) -> str:
    """Draw the share of each graph in one encode and decode of the reference clip; return HTML."""
    total_s = sum(graph.timing.p50_s for graph in result.graphs)
    bar, names = "", []
    for colour, graph in zip(_colours(result.graphs), result.graphs, strict=True):
        share = graph.timing.p50_s / total_s * 100
        names.append((colour, f"{graph.graph}: {milliseconds(graph.timing.p50_s)} ms, {share:.1f} %"))
        bar += f'<div style="width: {share:.2f}%; background: {colour}"></div>'
    return f'<figure><div class="bar">{bar}</div>{_legend(names)}</figure>'


def _colours(items: Sequence[object]) -> list[str]:
    return [colour_of(index) for index in range(len(items))]


def _legend(names: Iterable[tuple[str, str]]) -> str:
    entries = "".join(f'<span><i style="background: {colour}"></i>{escape(name)}</span>' for colour, name in names)
    return f'<p class="legend soft">{entries}</p>'


def _panels(svgs: Sequence[str], legend: str) -> str:
    return f'<figure>{legend}<div class="panels">{"".join(f"<div>{svg}</div>" for svg in svgs)}</div></figure>'


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Make the axis of the values logarithmic where they differ by tens; else let it begin at 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    least, most = min(values), max(values)
    if most / least < LOGARITHMIC:
        axes.set_ylim(0, most * 1.1)
        return
    axes.set_yscale("log")
    axes.set_ylim(least / 1.3, most * 1.3)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


@contextlib.contextmanager
def _panel(name: str, title: str, across: str, up: str) -> Iterator[tuple[Figure, Axes]]:
    with panel(name, _SIZE_IN, _FONT_SIZE) as (figure, axes):
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.set(title=title, xlabel=across, ylabel=up)
        yield figure, axes
