"""Warnings of dmcodec as lines on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from dmcodec.errors import DmcodecWarning
from dmcodec.text import one_line


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning of dmcodec once, as one line on stderr; other packages' warnings stay as they are."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, DmcodecWarning):
                original(message, category, *place, **more)
            elif str(message) not in shown:
                shown.add(str(message))
                typer.echo(f"warning: {one_line(str(message))}", err=True)

        warnings.showwarning = show
        warnings.simplefilter("always", DmcodecWarning)
        yield
