"""Bundles on the hub: only the manifest's files are fetched, each is checked, and the revision is pinned.

A revision is looked up once. From then on the same commit is loaded, without any request, until `refresh` looks again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dmcodec.bundle import MANIFEST, Bundle, Manifest, read_manifest
from dmcodec.errors import BundleError, BundleVersionError, HubFileNotFoundError, HubUnreachableError, OutputError
from dmcodec.files import make_folder

from .hub import Progress, RemoteFile, download, remote_file
from .names import HubName
from .store import Store

_MAX_MANIFEST_BYTES = 16 << 20
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def hub_bundle(
    name: HubName,
    store: Store,
    refresh: bool = False,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
) -> Path:
    """Return the folder of a hub's bundle in the cache; fetch it first where it is missing.

    Args:
        name: the repository and the revision.
        store: the cache.
        refresh: look the revision up again, though it is pinned.
        progress: called with the megabytes that are done and in total.
        waiting: called where another process fetches from the same repository.

    Raises:
        BundleError: the repository holds no bundle, or one of its files is not what the manifest says.
        HubUnreachableError: it is not in the cache, and the hub can't be reached.
        DownloadError: no such repository or revision, access is refused, or the download broke off.
        MissingDependencyError: huggingface_hub is not installed.
        OutputError: the cache can't be written.
    """
    if not refresh and (found := _cached(name, store)):
        return found
    with store.lock(name.repo, waiting):
        if not refresh and (found := _cached(name, store)):  # another process fetched it meanwhile
            return found
        try:
            return _fetched(name, store, progress)
        except HubUnreachableError as error:
            pinned = store.pinned(name)
            here = _cached(name, store) is not None and pinned is not None
            rest = (
                f"; commit {pinned} is in the cache, and loads without the hub" if here else "; it is not in the cache"
            )
            raise HubUnreachableError(f"{error}{rest}") from error


def _cached(name: HubName, store: Store) -> Path | None:
    commit = store.pinned(name)
    path = store.hub_bundle(name.repo, commit) if commit else None
    return path if path is not None and (path / MANIFEST).is_file() else None


def _fetched(name: HubName, store: Store, progress: Progress | None) -> Path:
    try:
        remote = remote_file(name, MANIFEST)
    except HubFileNotFoundError:
        raise BundleError(
            f"{name}: holds no bundle, it has no {MANIFEST}; name a repository that `dmcodec push` wrote"
        ) from None
    path, part = store.hub_bundle(name.repo, remote.commit), store.hub_part(name.repo, remote.commit)
    if not _is_whole(path):
        shutil.rmtree(path, ignore_errors=True)
        _fetch_into(part, name, remote, progress)
        make_folder(path.parent)
        try:
            part.rename(path)
        except OSError as error:
            raise OutputError(
                f"{path}: can't be written ({error.strerror or error}); check the disk and the rights"
            ) from error
    store.pin(name, remote.commit)
    return path


def _is_whole(path: Path) -> bool:
    try:
        Bundle.open(path)
    except BundleError:
        return False
    return True


def _fetch_into(folder: Path, name: HubName, remote: RemoteFile, progress: Progress | None) -> None:
    """Fetch the manifest and its files, check all, and leave nothing in the folder that failed the check."""
    if remote.size_bytes is not None and remote.size_bytes > _MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{name}: {MANIFEST} has {remote.size_bytes} bytes, too many for a manifest; name another repository"
        )
    download(name, MANIFEST, folder / MANIFEST, remote)
    try:
        manifest = read_manifest(folder)
        _fetch_files(folder, name, manifest, remote.commit, progress)
        Bundle.open(folder)
    except BundleError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, BundleVersionError):
            raise BundleVersionError(str(error).replace(str(folder), str(name))) from error
        problem = str(error).replace(f"{folder}/", "").replace(str(folder), "it").removesuffix("; export again")
        raise BundleError(
            f"{name}: is not as it was pushed: {problem.removeprefix(f'{name}: ')}; tell its owner, or name another "
            "commit with @REVISION"
        ) from error


def _fetch_files(folder: Path, name: HubName, manifest: Manifest, commit: str, progress: Progress | None) -> None:
    done_bytes = 0

    def report(_stage: str, done_mb: float, _total_mb: float) -> None:
        if progress:
            progress(f"download {name}, MB", done_bytes / 1e6 + done_mb, manifest.size_bytes / 1e6)

    for spec in manifest.files:
        target = folder / spec.file
        if not _FILE.fullmatch(spec.file) or spec.file == MANIFEST:
            raise BundleError(f"the manifest names {spec.file!r}, which is no file of a bundle")
        if not target.is_file():
            try:
                remote = remote_file(HubName(name.repo, commit), spec.file)
            except HubFileNotFoundError:
                raise BundleError(f"{spec.file} is missing") from None
            if remote.size_bytes not in (None, spec.size_bytes):
                raise BundleError(f"{spec.file} has {remote.size_bytes} bytes, the manifest says {spec.size_bytes}")
            download(name, spec.file, target, remote, report)
        done_bytes += spec.size_bytes
