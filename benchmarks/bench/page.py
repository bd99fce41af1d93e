"""The report of `dmcodec bench`: one HTML page with plots (SVG) and tables, which loads nothing from elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dmcodec.benchmarks.pages import html_page, html_table
from dmcodec.benchmarks.tables import milliseconds, significant
from dmcodec.errors import MissingDependencyError

from .options import Shape
from .record_tables import record_tables
from .result import OPERATIONS, BenchResult, Measurement
from .result_tables import result_tables, summary_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE_STYLE = """
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
"""
# Mid-tones with enough contrast to a white and to a near-black page.
COLOURS = ("#2f7ebc", "#dd7f33", "#3f9e74", "#9a6bbf", "#c2574f", "#8a8f3c", "#4fa3b8", "#b0708f", "#7d7d7d")
# Placeholder for the page's text colour; `_svg` replaces it.
_INK = "#010203"
_PLOT_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def render_report(result: BenchResult) -> str:
    """Return the whole page as HTML.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
    """
    require_matplotlib()
    reference = Shape(result.reference_s, 1)
    plots = [
        ("RTF by clip length", "Compute time / audio time, p50, batch 1; smaller is faster.", rtf_by_duration),
        (
            "Throughput by batch",
            f"xRT = seconds of audio per second, p50, clips of {reference}; larger is faster.",
            throughput_by_batch,
        ),
        ("Share of each graph", f"Graphs of {result.side}, p50, one clip of {reference}.", graph_shares),
    ]
    if result.live:
        caption = "Latency of a push, p99, by number of live streams; dotted: the limit; both axes logarithmic."
        plots.append(("Live streams", caption, latency_by_streams))
    parts = [_figure(title, caption, draw(result)) for title, caption, draw in plots]
    parts += [html_table(table) for table in (*result_tables(result), *record_tables(result)) if table.rows]
    head = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(result))
    body = f'<h1>dmcodec bench</h1>\n{head}\n<p class="soft">{escape(result.date)}</p>\n' + "\n".join(parts)
    return html_page(f"dmcodec bench: {result.bundle.model_id}", body, _PAGE_STYLE)


def _figure(title: str, caption: str, svg: str) -> str:
    return f'<h2>{escape(title)}</h2>\n<p class="soft">{escape(caption)}</p>\n<figure>{svg}</figure>'


def require_matplotlib() -> None:
    """Raise MissingDependencyError where matplotlib isn't installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError('the report needs matplotlib; run `pip install "dmcodec[bench]"`')


def rtf_by_duration(result: BenchResult) -> str:
    """Plot the RTF of each codec over clip lengths, at batch 1; return SVG."""
    measurements = [measurement for measurement in result.measurements if measurement.batch == 1]
    durations = sorted({measurement.duration_s for measurement in measurements})
    with _new_figure("rtf") as figure:
        for axes, operation in zip(_panels(figure), OPERATIONS, strict=True):
            for colour, codec in _codecs(result):
                points = _select(measurements, codec, operation)
                places = [durations.index(point.duration_s) for point in points]
                axes.plot(places, [point.speed.rtf for point in points], "o-", color=colour, label=_label(codec))
            axes.set_xticks(range(len(durations)), [f"{duration_s:g} s" for duration_s in durations])
            axes.set(title=operation, xlabel="clip length", ylabel="RTF", ylim=(0, None))
            axes.margins(x=0.1)
        return _svg(figure)


def throughput_by_batch(result: BenchResult) -> str:
    """Plot the xRT of each codec over batch sizes, at the reference duration; return SVG."""
    measurements = [entry for entry in result.measurements if entry.duration_s == result.reference_s]
    batches = sorted({measurement.batch for measurement in measurements})
    codecs = _codecs(result)
    width = 0.8 / len(codecs)
    with _new_figure("xrt") as figure:
        for axes, operation in zip(_panels(figure), OPERATIONS, strict=True):
            for index, (colour, codec) in enumerate(codecs):
                points = _select(measurements, codec, operation)
                shift = (index - (len(codecs) - 1) / 2) * width
                places = [batches.index(point.batch) + shift for point in points]
                bars = axes.bar(
                    places, [point.speed.xrt for point in points], width * 0.92, color=colour, label=_label(codec)
                )
                axes.bar_label(bars, [significant(point.speed.xrt) for point in points], padding=2, fontsize=8)
            axes.set_xticks(range(len(batches)), [str(Shape(result.reference_s, batch)) for batch in batches])
            axes.set(title=operation, ylabel="xRT")
            axes.margins(y=0.12)
        return _svg(figure)


def latency_by_streams(result: BenchResult) -> str:
    """Plot the p99 of the pushes of live streams over their number, pooled and separate; return SVG."""
    assert result.live is not None
    levels, limit_ms = result.live.levels, result.live.limit_s * 1000
    counts = sorted({level.streams for level in levels})
    with _new_figure("live") as figure:
        for axes, operation in zip(_panels(figure), OPERATIONS, strict=True):
            for colour, side in zip(COLOURS, dict.fromkeys(level.side for level in levels), strict=False):
                points = [level for level in levels if (level.operation, level.side) == (operation, side)]
                latencies_ms = [point.p99_s * 1000 for point in points]
                axes.plot([point.streams for point in points], latencies_ms, "o-", color=colour, label=side)
            axes.axhline(limit_ms, color=_INK, linestyle=":")
            axes.set(title=operation, xlabel="streams", ylabel="p99, ms", xscale="log", yscale="log")
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.minorticks_off()
        return _svg(figure)


def graph_shares(result: BenchResult) -> str:
    """Plot the share of each graph in one encode and decode of the reference clip; return SVG."""
    total_s = sum(graph.timing.p50_s for graph in result.graphs)
    with _new_figure("shares", height=1.9) as figure:
        axes = figure.subplots()
        left = 0.0
        for colour, graph in zip(COLOURS, result.graphs, strict=False):
            share = graph.timing.p50_s / total_s * 100
            label = f"{graph.graph}: {milliseconds(graph.timing.p50_s)} ms, {share:.1f} %"
            axes.barh([0], [share], left=left, height=0.6, color=colour, label=label)
            left += share
        axes.set(xlim=(0, 100), ylim=(-0.5, 0.5), xlabel="share of encode + decode, %")
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper center", ncols=4, fontsize=9)
        return _svg(figure, legend=False)


def _codecs(result: BenchResult) -> list[tuple[str, str]]:
    """Return colour and name of each codec."""
    names = dict.fromkeys(measurement.side for measurement in result.measurements)
    return list(zip(COLOURS, names, strict=False))


def _label(codec: str) -> str:
    """Return the name of a codec as matplotlib shows it: no mathematics in dollars, no underscore that hides it."""
    return ("\u200b" if codec.startswith("_") else "") + codec.replace("$", r"\$")


def _select(measurements: Sequence[Measurement], codec: str, operation: str) -> list[Measurement]:
    return [entry for entry in measurements if entry.side == codec and entry.operation == operation]


@contextlib.contextmanager
def _new_figure(name: str, height: float = 3.4) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure

    # A salt for each figure: element ids must be unique on the page.
    with matplotlib.rc_context({**_PLOT_STYLE, "svg.hashsalt": name}):
        yield Figure(figsize=(9, height), layout="constrained")


def _panels(figure: Figure) -> Sequence[Axes]:
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
    return (left, right)


def _svg(figure: Figure, legend: bool = True) -> str:
    if legend:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
