"""The figure of token stability: a row for each change, two dots for each codec. SVG in the page's own colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from dmcodec.benchmarks.plots import colour_of

from .result import Agreement, Stability
from .result_tables import percent

LEFT, WIDTH, ROW, TOP, BOTTOM = 190, 520, 22, 14, 30
_LINE = 'stroke="currentColor" stroke-opacity=".25"'


def stability_figure(codecs: Mapping[str, Stability]) -> str:
    """Return an SVG element: filled dots for level 0, rings for all levels; "" where nothing was measured."""
    measured = {name: each for name, each in codecs.items() if each.files}
    labels = _labels(measured)
    if not labels:
        return ""
    legend_rows = len(measured) + 1
    bottom = TOP + ROW * len(labels)
    height = bottom + BOTTOM + ROW * legend_rows
    parts = [*_axis(bottom), *_rows(labels), *_marks(measured, labels), *_legend(measured, bottom + BOTTOM)]
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {LEFT + WIDTH + 30} {height}" role="img" font-size="12" fill="currentColor" '
        f'aria-label="share of codes that stay under each change, in percent">\n{body}\n</svg>'
    )


def _labels(codecs: Mapping[str, Stability]) -> list[str]:
    return list(dict.fromkeys(each.label for stability in codecs.values() for each in _agreements(stability)))


def _agreements(stability: Stability) -> Iterator[Agreement]:
    """Yield what has a row: all but round 0, whose codes are the first ones."""
    yield from stability.changes
    yield from (each.agreement for each in stability.rounds if each.rounds)


def _text(label: str) -> str:
    return f"re-encoded, {label}" if label.endswith(("round", "rounds")) else label


def _x(share: float) -> float:
    return LEFT + WIDTH * share


def _axis(bottom: float) -> Iterator[str]:
    for tick in (0, 25, 50, 75, 100):
        x = _x(tick / 100)
        yield f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" {_LINE}/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick} %</text>'


def _rows(labels: list[str]) -> Iterator[str]:
    for row, label in enumerate(labels):
        y = TOP + ROW * (row + 0.5)
        yield f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(_text(label))}</text>'


def _marks(codecs: Mapping[str, Stability], labels: list[str]) -> Iterator[str]:
    apart = min(6.0, (ROW - 8) / max(1, len(codecs)))
    for index, (name, stability) in enumerate(codecs.items()):
        colour = colour_of(index)
        for each in _agreements(stability):
            y = TOP + ROW * (labels.index(each.label) + 0.5) + (index - (len(codecs) - 1) / 2) * apart
            if each.all_levels is None:
                continue
            for share, what in ((each.all_levels, "all levels"), (each.levels[0], "level 0")):
                title = escape(f"{name}, {_text(each.label)}, {what}: {percent(share)} %")
                yield _dot(_x(share), y, colour, filled=what == "level 0", title=title)


def _dot(x: float, y: float, colour: str, filled: bool, title: str = "") -> str:
    inside = f"<title>{title}</title>" if title else ""
    fill = colour if filled else "none"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="1.6">{inside}</circle>'
    )


def _legend(codecs: Mapping[str, Stability], top: float) -> Iterator[str]:
    for index, name in enumerate(codecs):
        y = top + ROW * (index + 0.5)
        yield _dot(LEFT, y, colour_of(index), filled=True)
        yield f'<text x="{LEFT + 12}" y="{y + 4}">{escape(name)}</text>'
    y = top + ROW * (len(codecs) + 0.5)
    yield _dot(LEFT, y, "currentColor", filled=True)
    yield f'<text x="{LEFT + 12}" y="{y + 4}">level 0</text>'
    yield _dot(LEFT + 90, y, "currentColor", filled=False)
    yield f'<text x="{LEFT + 102}" y="{y + 4}">all levels</text>'
