"""What names a bundle: a path, the name of a codec, or a repository of the hub.

The rule: `hf://...` is always the hub. Else a path that exists wins. Else a text without a slash is a name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from dmcodec.bundle import MANIFEST, default_bundle_path
from dmcodec.errors import BundleNotFoundError, MissingDependencyError, NameWarning

from .hub import Progress
from .hub_bundles import hub_bundle
from .names import KNOWN, SMALL, did_you_mean, hub_name, is_hub_name
from .store import BUNDLE_SUFFIX, user_store


def bundle_path(
    bundle: str | Path | None, progress: Progress | None = None, waiting: Callable[[], None] | None = None
) -> Path:
    """Return the folder of a bundle that is named by its path, by its name, or as hf://ORG/REPO[@REVISION].

    None is the bundle that comes with dmcodec. A path that does not exist is returned as it is, unless it can only be
    meant as a name: one word without a slash and without the suffix `.bundle`.

    Args:
        bundle: path or name.
        progress: called while a bundle of the hub is downloaded.
        waiting: called where another process downloads it.

    Raises:
        BundleNotFoundError: a codec that is not pulled yet, or no such name.
        NameWarning: as a warning, where a folder is taken whose name a codec has, too.
        ArgumentError: not a name of the hub, though it begins with hf://.
        BundleError, DownloadError, OutputError, MissingDependencyError: as `dmcodec.models.hub_bundles.hub_bundle`.
    """
    if bundle is None:
        return default_bundle_path()
    text = str(bundle)
    if is_hub_name(text):
        return hub_bundle(hub_name(text), user_store(), progress=progress, waiting=waiting)
    path = Path(bundle)
    if os.path.lexists(path):
        if is_name(text):
            _compare(path, text)
        return path
    if text == SMALL:
        return default_bundle_path()
    if text in KNOWN:
        found = user_store().pulled(text)
        if not (found / MANIFEST).is_file():
            raise BundleNotFoundError(f"{text}: is not pulled yet; run `dmcodec pull {text}`")
        return found
    if _is_word(text):
        raise BundleNotFoundError(
            f"{text}: no such folder, and no codec has this name; {did_you_mean(text)}"
            "`dmcodec models` lists the names, `dmcodec export` writes a bundle"
        )
    return path


def is_name(text: str) -> bool:
    """Return whether a text is the name of a codec, or of the hub's."""
    return text == SMALL or text in KNOWN or is_hub_name(text)


def _is_word(text: str) -> bool:
    return not any(mark in text for mark in "/\\") and not text.startswith(".") and not text.endswith(BUNDLE_SUFFIX)


def _compare(path: Path, name: str) -> None:
    """Say that a path was taken for what is a name, too; raise BundleNotFoundError where it is no bundle."""
    remedy = f"rename it, or run in another folder, to load the codec {name}"
    if not (path / MANIFEST).is_file():
        raise BundleNotFoundError(
            f"{name}: a file or folder of this name is here and wins over the codec's name, but is no bundle; {remedy}"
        )
    if name == SMALL or _is_pulled(name):
        warnings.warn(
            f"{name}: takes the folder {path.absolute()}, since a path wins over a name; {remedy}",
            NameWarning,
            stacklevel=3,
        )


def _is_pulled(name: str) -> bool:
    try:
        return (user_store().pulled(name) / MANIFEST).is_file()
    except MissingDependencyError:
        return False
