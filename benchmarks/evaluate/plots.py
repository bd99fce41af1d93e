"""Quality against bitrate, where a codec was run with several numbers of levels: a small plot for each metric."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dmcodec.benchmarks.plots import colour_of, panel, svg

from .metrics import METRICS
from .result import ColumnResult, EvaluationResult
from .result_tables import shown_interval

# Markers tell codecs apart without colours.
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"))
_SIZE_IN, _FONT_SIZE = (3.9, 2.9), 10


def plots_html(result: EvaluationResult) -> str:
    """Return the section with the plots; empty where no codec has a metric at several bitrates."""
    codecs = swept_codecs(result)
    keys = [key for key in result.metrics if _has_values(codecs, key)]
    if not keys:
        return ""
    unknown = [column.column.name for column in result.columns if column.column.bitrate_bps is None]
    left_out = f" Without a known bitrate, and so not here: {', '.join(unknown)}." if unknown else ""
    estimates = [estimate for each in codecs.values() for column in each for estimate in column.summary.values()]
    intervals = any(map(shown_interval, estimates))
    bars = " Bars: 95 % confidence intervals." if intervals else ""
    text = f"Means over the files. Each point is a number of levels; ↑ higher is better, ↓ lower is better.{bars}"
    figures = "\n".join(f"<figure>{_plot(codecs, key)}</figure>" for key in keys)
    return (
        f'<section id="bitrate"><h2>Quality against bitrate</h2>\n<p class="soft">{escape(text + left_out)}</p>\n'
        f'{_legend(list(codecs))}\n<div class="plots">\n{figures}\n</div></section>'
    )


def swept_codecs(result: EvaluationResult) -> dict[str, list[ColumnResult]]:
    """Return the columns of each codec whose bitrate is known, by the codec's name, lowest bitrate first."""
    codecs: dict[str, list[ColumnResult]] = {}
    for found in result.columns:
        if found.column.bitrate_bps is not None:
            name = found.column.name.removesuffix(f", n_q {found.column.n_q}")
            codecs.setdefault(name, []).append(found)
    return {name: sorted(each, key=lambda column: column.column.bitrate_bps or 0) for name, each in codecs.items()}


def _has_values(codecs: dict[str, list[ColumnResult]], key: str) -> bool:
    return any(
        sum(key in column.summary and column.summary[key].value is not None for column in columns) > 1
        for columns in codecs.values()
    )


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><span style="color: {colour_of(index)}" aria-hidden="true">'
        f"{_MARKERS[index % len(_MARKERS)][1]}</span> {escape(name)}</li>"
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _plot(codecs: dict[str, list[ColumnResult]], key: str) -> str:
    metric = METRICS[key]
    with panel(f"bitrate-{key}", _SIZE_IN, _FONT_SIZE) as (figure, axes):
        for index, columns in enumerate(codecs.values()):
            measured = [column for column in columns if key in column.summary]
            points = [((column.column.bitrate_bps or 0) / 1000, column.summary[key]) for column in measured]
            rates: list[float] = []
            values: list[float] = []
            for rate, estimate in points:
                if estimate.value is not None:
                    rates.append(rate)
                    values.append(estimate.value)
            colour, marker = colour_of(index), _MARKERS[index % len(_MARKERS)][0]
            axes.plot(rates, values, marker=marker, markersize=5, color=colour)
            for rate, estimate in points:
                if interval := shown_interval(estimate):
                    axes.plot([rate, rate], interval, color=colour, linewidth=1)
        axes.grid(visible=True)
        axes.set(xlabel="kbit/s", title=f"{metric.heading.replace(chr(10), ' ')}", xlim=(0, None))
        drawn = svg(figure)
    label = escape(f"{metric.label} against bitrate")
    return drawn.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
