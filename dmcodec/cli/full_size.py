"""The full-size network with untrained, seeded weights, to measure its speed; exported once into the user's cache."""

from __future__ import annotations

from pathlib import Path

from dmcodec import __version__
from dmcodec.bundle import FORMAT_VERSION, Bundle
from dmcodec.cli.common import note
from dmcodec.errors import BundleError, MissingDependencyError, OutputExistsError

SEED = 0


def full_size_bundle(precision: str = "fp32") -> Path:
    """The full-size bundle's folder in the user's cache; it is exported there on first use, which needs torch."""
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "the full-size bundle can't be made without torch; name a bundle, or run `pip install dmcodec[cpu,export]`"
        ) from None
    kind = "" if precision == "fp32" else f"-{precision}"
    path = user_cache_path("dmcodec", appauthor=False) / f"full-seed{SEED}{kind}-v{FORMAT_VERSION}-{__version__}"
    note(
        f"the full-size network has UNTRAINED weights here ({path}). "
        "Speed is that of the real model; the audio is not speech"
    )
    if not _usable(path):
        from dmcodec.cli.export import write_bundle

        note(f"exporting it once, about {445 if precision == 'fp32' else 240} MB and a minute or two")
        try:
            write_bundle(path, checkpoint=None, config=None, seed=SEED, precision=precision, force=path.exists())
        except OutputExistsError:
            note("another process exported it meanwhile")
    return path


def _usable(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        Bundle.open(path)
    except BundleError as error:
        note(f"exporting the full-size bundle again: {error}")
        return False
    return True
