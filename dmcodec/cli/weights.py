"""Weights to a bundle: those that options name, or the untrained ones of the full-size network for measurements."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from dmcodec import __version__
from dmcodec.bundle import FORMAT_VERSION, Bundle
from dmcodec.checkpoint_files import find_checkpoint, local_checkpoint
from dmcodec.errors import ArgumentError, BundleError, MissingDependencyError, OutputExistsError
from dmcodec.precision import PRECISIONS
from dmcodec.user_cache import user_cache_folder

from .common import missing_dependency, note
from .progress import show_progress

FULL_SIZE_SEED = 0


@dataclasses.dataclass(frozen=True)
class Weights:
    """Which weights to export, and how.

    Attributes:
        checkpoint: file, folder with one, or name of a model of the Hugging Face hub; exactly one of checkpoint and
            seed must be given to export.
        config: configuration file; None: that of the checkpoint's folder, else that of the released models.
        seed: of untrained weights.
        precision: name of a precision; None: fp32.
        calibration: folder of speech on which int8 tries layers; None: the sample speech of the package.
    """

    checkpoint: Path | None = None
    config: Path | None = None
    seed: int | None = None
    precision: str | None = None
    calibration: Path | None = None

    @property
    def named(self) -> bool:
        """Whether any weights, or their configuration, are named."""
        return (self.checkpoint, self.config, self.seed) != (None, None, None)

    def check(self) -> None:
        """Check that there is exactly one source of weights.

        Raises:
            ArgumentError: there is none, or there are two.
        """
        if (self.checkpoint is None) == (self.seed is None):
            raise ArgumentError("name the weights with either --checkpoint FILE or --seed N")


def write_bundle(weights: Weights, out: Path, force: bool) -> Bundle:
    """Load the weights and export them to the bundle `out`, with progress on stderr.

    Raises:
        MissingDependencyError: torch or onnx is not installed.
        OutputExistsError: `out` exists, and `force` is false.
    """
    try:
        from dmcodec.config import CodecConfig
        from dmcodec.export import Source, export_bundle
        from dmcodec.files import refuse_existing, refuse_inputs
        from dmcodec.nn import DMCodec
    except ModuleNotFoundError as error:
        raise missing_dependency("export", error, "cpu,export") from None
    refuse_existing(out, force)
    refuse_inputs(out, weights.checkpoint, weights.config)
    if weights.checkpoint is not None:
        path = local_checkpoint(weights.checkpoint)  # a model of the hub is fetched once
        file = named_checkpoint(path)
        model = DMCodec.from_checkpoint(weights.config, path)
        source = Source(file)
    else:
        config = CodecConfig.from_json(weights.config) if weights.config else CodecConfig()
        model = DMCodec.seeded(config, weights.seed or 0)
        source = Source(seed=weights.seed)
    with show_progress() as report:
        return export_bundle(
            model, out, weights.precision or "fp32", source, force, report, calibration=weights.calibration
        )


def write_bundle_again(
    path: Path, out: Path, precision: str | None, force: bool, calibration: Path | None = None
) -> Bundle:
    """Write the bundle `path` to the bundle `out`, with the graphs of today and progress on stderr.

    Raises:
        ArgumentError: the bundle has another precision that can't become `precision`.
        BundleError: it is no bundle, or was altered.
        MissingDependencyError: torch or onnx is not installed.
        OutputExistsError: `out` exists, and `force` is false.
    """
    try:
        from dmcodec.export import export_again
        from dmcodec.files import refuse_existing
    except ModuleNotFoundError as error:
        raise missing_dependency("export", error, "cpu,export") from None
    refuse_existing(out, force)
    bundle = Bundle.open(path)
    with show_progress() as report:
        return export_again(bundle, out, force, report, precision, calibration)


def named_checkpoint(path: Path) -> Path:
    """Return the file with the weights that a path names; say which one where it was chosen among several.

    Raises:
        CheckpointError: there is none, or several of equal right.
    """
    files = find_checkpoint(path)
    if files.chosen:
        note(f"{path}: takes {files.weights}")
    return files.weights


def full_size_bundle(precision: str = "fp32") -> Path:
    """Return the full-size bundle in the user's cache; export it there first where it is missing (needs torch)."""
    try:
        cache = user_cache_folder()
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "the full-size bundle is exported with torch; "
            'name a bundle with --bundle, or run `pip install "dmcodec[cpu,export]"`'
        ) from None
    suffix = "" if precision == "fp32" else f"-{precision}"
    name = f"full-seed{FULL_SIZE_SEED}{suffix}-v{FORMAT_VERSION}-{__version__}-{_exporter_digest()}"
    path = cache / name
    note(
        f"the full-size network has UNTRAINED weights here ({path}). "
        "Its speed is that of the trained network; its audio is not speech"
    )
    if not _usable(path):
        note(f"exporting it once, about {PRECISIONS[precision].full_size_mb} MB and a minute or two")
        try:
            write_bundle(Weights(seed=FULL_SIZE_SEED, precision=precision), path, force=path.exists())
        except OutputExistsError:
            note("another process exported it meanwhile")
    return path


def _exporter_digest() -> str:
    """Return what identifies the code that makes graphs: those of an earlier clone are not those of today."""
    digest = hashlib.sha256()
    for folder in ("export", "nn"):
        for file in sorted((Path(__file__).parents[1] / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _usable(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        Bundle.open(path)
    except BundleError as error:
        note(f"exporting the full-size bundle again: {error}")
        return False
    return True
