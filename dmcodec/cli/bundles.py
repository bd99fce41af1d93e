"""Bundles that options name: folders, names of codecs, and repositories of the hub, which are fetched."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import note
from .progress import Report, show_progress

if TYPE_CHECKING:
    from dmcodec.benchmarks.codecs.named import Named

OPTION = "--bundle"
# Verbs that do it themselves, after they have checked which options belong together.
_LATER = ("export",)


def resolve_options(verb: str | None, parameters: list[Any], values: dict[str, Any]) -> None:
    """Replace what every `--bundle` of a call names by the folder of the bundle, before the verb runs."""
    if verb in _LATER:
        return
    for parameter in parameters:
        value = values.get(parameter.name)
        if OPTION not in parameter.opts or not value:
            continue
        many = isinstance(value, (list, tuple))
        values[parameter.name] = [named_bundle(each) for each in value] if many else named_bundle(value)


def named_bundle(bundle: str | Path) -> str:
    """Return the folder of a bundle by its path or its name, with progress on stderr where it is fetched."""
    from dmcodec.models.resolve import bundle_path

    with download_progress() as report:
        return str(bundle_path(bundle, report, lambda: say_waiting(str(bundle))))


def named_codec(codec: Named) -> Named:
    """Replace the name of a codec by the folder of its bundle. A path that exists wins over a name.

    A folder that is no bundle may be one of a checkpoint, as `dmcodec pull NAME --out NAME` makes it.
    """
    from dmcodec.checkpoint_files import is_bundle
    from dmcodec.models.names import hub_name, is_hub_name
    from dmcodec.models.resolve import is_name

    text = str(codec.path)
    is_here = os.path.lexists(codec.path)
    if not is_name(text) or (is_here and not is_bundle(codec.path)):
        return codec
    path = Path(named_bundle(text))  # a warning, where a bundle here has the name of a codec
    if is_here:
        return codec
    title = codec.name or (str(hub_name(text)) if is_hub_name(text) else text)
    return dataclasses.replace(codec, path=path, name=title)


def say_waiting(name: str) -> None:
    """Say that another process has the lock of a name."""
    note(f"{name}: another process is at work on it; waits until that ends")


class DownloadProgress:
    """Shows progress from the first call until `close`; others may write to the terminal before and after."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._report: Report | None = None

    def __call__(self, stage: str, done: float, total: float) -> None:
        if self._report is None:
            self._report = self._stack.enter_context(show_progress())
        self._report(stage, done, total)

    def close(self) -> None:
        """Erase the bar."""
        self._stack.close()
        self._report = None


@contextmanager
def download_progress() -> Iterator[DownloadProgress]:
    """Yield what shows the progress of a download on stderr."""
    progress = DownloadProgress()
    try:
        yield progress
    finally:
        progress.close()
