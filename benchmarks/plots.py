"""What the plots of all pages share: colours, style, and the SVG that takes the colour of the page's text."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Mid-tones with enough contrast to a white and to a near-black page.
COLOURS = ("#2f7ebc", "#dd7f33", "#3f9e74", "#9a6bbf", "#c2574f", "#8a8f3c", "#4fa3b8", "#b0708f", "#7d7d7d")
# Placeholder for the colour of the page's text; `svg` replaces it.
INK = "#010203"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
}


def colour_of(index: int) -> str:
    """Return the colour of the item with this index."""
    return COLOURS[index % len(COLOURS)]


@contextlib.contextmanager
def panel(name: str, size_in: tuple[float, float], font_size: int) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure and its axes in the style of the pages, which holds until the end of the block.

    Args:
        name: differs from those of the other figures of the page: element ids must be unique there.
        size_in: width and height in inches.
        font_size: in points.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "font.size": font_size, "svg.hashsalt": name}):
        figure = Figure(figsize=size_in, layout="constrained")
        yield figure, figure.subplots()


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element without what changes from run to run; call it within `panel`."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
