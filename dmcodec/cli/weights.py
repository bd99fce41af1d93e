"""The full-size network with untrained, seeded weights, to measure its speed; exported once into the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dmcodec import __version__
from dmcodec.bundle import FORMAT_VERSION, Bundle
from dmcodec.errors import ArgumentError, BundleError, MissingDependencyError, OutputExistsError
from dmcodec.precision import PRECISIONS

from .common import note, stage_bars

SEED = 0


def full_size_bundle(precision: str = "fp32") -> Path:
    """The full-size bundle's folder in the user's cache; it is exported there on first use, which needs torch."""
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise MissingDependencyError(
            'the full-size bundle is exported with torch; name a bundle, or run `pip install "dmcodec[cpu,export]"`'
        ) from None
    kind = "" if precision == "fp32" else f"-{precision}"
    path = user_cache_path("dmcodec", appauthor=False) / f"full-seed{SEED}{kind}-v{FORMAT_VERSION}-{__version__}"
    note(
        f"the full-size network has UNTRAINED weights here ({path}). "
        "Speed is that of the real model; the audio is not speech"
    )
    if not _usable(path):
        note(f"exporting it once, about {PRECISIONS[precision].full_size_mb} MB and a minute or two")
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


def _check_source(out: Path | None, checkpoint: Path | None, seed: int | None) -> None:
    if out is None:
        raise ArgumentError("name the bundle to write with --out BUNDLE")
    if (checkpoint is None) == (seed is None):
        raise ArgumentError("name the weights with either --checkpoint FILE or --seed N")


def write_bundle(
    out: Path, checkpoint: Path | None, config: Path | None, seed: int | None, precision: str, force: bool
) -> Bundle:
    """Loads the weights and exports them, with a progress bar."""
    try:
        from dmcodec.config import CodecConfig
        from dmcodec.export import Source, export_bundle
        from dmcodec.files import refuse_existing
        from dmcodec.nn import DMCodec
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'export needs {error.name}, which is not installed; run `pip install "dmcodec[cpu,export]"`'
        ) from None
    refuse_existing(out, force)
    codec_config = CodecConfig.from_json(config) if config else CodecConfig()
    if checkpoint is not None:
        model = DMCodec.from_checkpoint(codec_config, checkpoint)
    else:
        model = DMCodec.seeded(codec_config, seed or 0)
    with stage_bars() as report:
        return export_bundle(model, out, precision, Source(checkpoint, seed), force, report)


class Weights(NamedTuple):
    """Which weights to export, and how."""

    checkpoint: Path | None
    config: Path | None
    seed: int | None
    precision: str | None
