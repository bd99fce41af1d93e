"""A codec by its name: fetched, checked, exported and proven in one go, and kept in the user's cache."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dmcodec.bundle import Bundle
from dmcodec.checkpoint_files import find_checkpoint
from dmcodec.config import CodecConfig
from dmcodec.drive import Fetch
from dmcodec.errors import BundleError, CheckpointError, ConfigError, OutputError, OutputExistsError
from dmcodec.extras import require
from dmcodec.files import file_sha256, make_folder, write_bytes
from dmcodec.pull import RECORD, pull, read_record
from dmcodec.temporary import replace_folder

from .hub import Progress
from .names import DriveSource, known
from .store import BUNDLE_SUFFIX, Store

# Exports the checkpoint in a folder to a bundle, and proves it; as `dmcodec export --checkpoint FOLDER --out BUNDLE`.
Export = Callable[[Path, Path], Bundle]


@dataclasses.dataclass(frozen=True)
class PulledBundle:
    """A bundle in the cache. `sha256` is that of the downloaded checkpoint; `fetched` is false if it was here."""

    name: str
    bundle: Bundle
    sha256: str | None
    fetched: bool


@dataclasses.dataclass(frozen=True)
class PullOptions:
    """How to pull.

    Attributes:
        from_file: the checkpoint, or its folder, that is here already; nothing is downloaded.
        sha256: that the checkpoint must have.
        force: fetch and export again what is in the cache.
        fetch: downloads a file of Google Drive; gdown by default.
        config: of the checkpoint; the released one by default.
    """

    from_file: Path | None = None
    sha256: str | None = None
    force: bool = False
    fetch: Fetch | None = None
    config: CodecConfig | None = None


def pull_bundle(
    name: str,
    export: Export,
    store: Store,
    options: PullOptions | None = None,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
) -> PulledBundle:
    """Return the bundle of a released model in the cache; fetch and export it first where it is missing or damaged.

    An interrupted pull goes on where it was: with the download, or with the export.

    Args:
        name: a name of `dmcodec.models.names.KNOWN`.
        export: called with the folder of the checkpoint and the bundle to write.
        store: the cache.
        options: how to pull.
        progress: called with what is downloaded from the hub.
        waiting: called where another process pulls the same name.

    Raises:
        ArgumentError: no such name.
        OutputExistsError: another checkpoint is kept under this name, and `options.force` is false.
        DownloadError, CheckpointError, ExportError, MissingDependencyError, OutputError: as `dmcodec.pull.pull` and the
            export.
    """
    known(name)
    options = options or PullOptions()
    with store.lock(name, waiting):
        path = store.pulled(name)
        if not options.force and (found := _kept(name, path, options)):
            return found
        _check_packages(name, options)
        work = store.work(name)
        checkpoint = work / "checkpoint"
        if not _is_complete(checkpoint, options):
            (checkpoint / RECORD).unlink(missing_ok=True)  # else the sha256 of an earlier file is demanded of this one
            pull(name, checkpoint, options.from_file, options.sha256, options.fetch, options.config, progress)
        made = work / f"{name}{BUNDLE_SUFFIX}"
        shutil.rmtree(made, ignore_errors=True)
        try:
            export(checkpoint, made)
        except (CheckpointError, ConfigError):  # else the next pull goes on with it, and fails again
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        write_bytes(made / RECORD, (checkpoint / RECORD).read_bytes())
        _move(made, path)
        shutil.rmtree(work, ignore_errors=True)
        return PulledBundle(name, Bundle.open(path), _sha256(path), fetched=True)


def _kept(name: str, path: Path, options: PullOptions) -> PulledBundle | None:
    """Return the bundle that is in the cache, or None where it is missing or damaged."""
    if not path.is_dir():
        return None
    try:
        bundle = Bundle.open(path)
    except BundleError:
        return None
    sha256 = _sha256(path)
    wanted = options.sha256
    if options.from_file is not None:
        wanted = file_sha256(find_checkpoint(options.from_file).weights)
    if wanted is not None and wanted.lower() != sha256:
        raise OutputExistsError(
            f"{name}: is in the cache, from a checkpoint with sha256 {sha256}, not {wanted}; --force (force=True) "
            "replaces it"
        )
    return PulledBundle(name, bundle, sha256, fetched=False)


def _check_packages(name: str, options: PullOptions) -> None:
    """Find out before a long download that a package is missing."""
    modules = ["torch", "onnx", "safetensors"]
    if options.from_file is None and options.fetch is None:
        modules.append("gdown" if isinstance(known(name).source, DriveSource) else "huggingface_hub")
    require(f"dmcodec pull {name}", "pull", *modules)
    require(f"dmcodec pull {name}", "cpu", "onnxruntime")


def _is_complete(checkpoint: Path, options: PullOptions) -> bool:
    """Return whether an interrupted pull has all of the checkpoint that is wanted now."""
    record = read_record(checkpoint)
    if record is None or options.from_file is not None or options.force:
        return False
    return options.sha256 is None or options.sha256.lower() == record["sha256"]


def _sha256(path: Path) -> str | None:
    record = read_record(path)
    return record["sha256"] if record else None


def _move(made: Path, path: Path) -> None:
    make_folder(path.parent)
    try:
        if path.is_dir():
            replace_folder(made, path)
        else:
            os.replace(made, path)
    except OSError as error:
        raise OutputError(
            f"{path}: can't be written ({error.strerror or error}); check the disk and the rights"
        ) from error
