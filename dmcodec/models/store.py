"""The user's cache of bundles: those that were pulled by name, and those of the hub, each at a commit.

models/NAME.bundle                  a bundle that was pulled, with source.json beside its manifest
pulls/NAME/                         what an unfinished pull has so far
hub/ORG--REPO/COMMIT/REPO.bundle    a bundle of the hub
hub/ORG--REPO/COMMIT.part/          what an unfinished download has so far
hub/ORG--REPO/refs/REVISION         the commit to which a branch or a tag is pinned
locks/                              one process at a time works on a name
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from dmcodec.errors import BundleNotFoundError, OutputError
from dmcodec.extras import missing_package
from dmcodec.files import locked, write_bytes
from dmcodec.user_cache import CACHE_VARIABLE, user_cache_folder

from .names import COMMIT, HubName

BUNDLE_SUFFIX = ".bundle"
PART_SUFFIX = ".part"


@dataclass(frozen=True)
class Store:
    """The cache below a folder, which need not exist."""

    folder: Path

    def pulled(self, name: str) -> Path:
        """Return the bundle that was pulled by a name."""
        return self.folder / "models" / f"{name}{BUNDLE_SUFFIX}"

    def work(self, name: str) -> Path:
        """Return the folder of an unfinished pull."""
        return self.folder / "pulls" / name

    def repo(self, repo: str) -> Path:
        """Return the folder of a repository of the hub."""
        return self.folder / "hub" / repo.replace("/", "--")

    def hub_bundle(self, repo: str, commit: str) -> Path:
        """Return the bundle of a repository at a commit."""
        return self.repo(repo) / commit / f"{repo.rpartition('/')[2]}{BUNDLE_SUFFIX}"

    def hub_part(self, repo: str, commit: str) -> Path:
        """Return the folder of an unfinished download."""
        return self.repo(repo) / f"{commit}{PART_SUFFIX}"

    def pinned(self, name: HubName) -> str | None:
        """Return the commit to which a revision is pinned, or None."""
        if name.is_commit:
            return name.revision
        try:
            commit = self._ref(name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def pin(self, name: HubName, commit: str) -> None:
        """Pin a revision to a commit."""
        if not name.is_commit:
            write_bytes(self._ref(name), f"{commit}\n".encode())

    def pulled_names(self) -> list[str]:
        """Return the names of the bundles that were pulled."""
        return [path.name.removesuffix(BUNDLE_SUFFIX) for path in _folders(self.folder / "models", BUNDLE_SUFFIX)]

    def hub_names(self) -> Iterator[tuple[HubName, Path]]:
        """Yield the names of the hub's bundles that are here, and their folders; a commit without a pin as itself."""
        for folder in _folders(self.folder / "hub"):
            repo = folder.name.replace("--", "/", 1)
            revisions: dict[str, list[str]] = {}
            for ref in sorted(folder.glob("refs/*")):
                name = HubName(repo, unquote(ref.name))
                revisions.setdefault(self.pinned(name) or "", []).append(name.revision)
            for commit in _folders(folder):
                path = self.hub_bundle(repo, commit.name)
                if COMMIT.fullmatch(commit.name) and path.is_dir():
                    yield from ((HubName(repo, each), path) for each in revisions.get(commit.name, [commit.name]))

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of a name; where another process holds it, call `waiting` and wait.

        Raises:
            OutputError: the cache can't be written.
        """
        file = self.folder / "locks" / f"{name.replace('/', '--')}.lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(file, wait=False))
            except OutputError as error:
                if not os.access(file, os.W_OK):  # else it is another process that holds the lock
                    raise OutputError(
                        f"{self.folder}: can't be written, and bundles are kept there; set {CACHE_VARIABLE} to "
                        "another folder"
                    ) from error
                if waiting:
                    waiting()
                stack.enter_context(locked(file))
            yield

    def remove_pulled(self, name: str) -> None:
        """Remove the bundle that was pulled by a name, and what an unfinished pull left.

        Raises:
            BundleNotFoundError: there is none.
            OutputError: it can't be removed.
        """
        folders = [path for path in (self.pulled(name), self.work(name)) if path.is_dir()]
        if not folders:
            raise BundleNotFoundError(
                f"{name}: is not pulled, so there is nothing to remove; `dmcodec models` lists what is"
            )
        with self.lock(name):
            for folder in folders:
                _remove(folder)

    def remove_hub(self, name: HubName) -> None:
        """Remove the bundle of a revision, its pins, and the repository's folder where nothing else is left.

        Raises:
            BundleNotFoundError: there is none.
            OutputError: it can't be removed.
        """
        commit = self.pinned(name)
        folder = self.repo(name.repo)
        paths = [folder / commit, self.hub_part(name.repo, commit)] if commit else []
        if not any(path.is_dir() for path in paths):
            raise BundleNotFoundError(
                f"{name}: is not in the cache, so there is nothing to remove; `dmcodec models` lists what is"
            )
        with self.lock(name.repo):
            for path in filter(Path.is_dir, paths):
                _remove(path)
            for ref in folder.glob("refs/*"):
                if self.pinned(HubName(name.repo, unquote(ref.name))) == commit:
                    ref.unlink(missing_ok=True)
            if not [path for path in _folders(folder) if path.name != "refs"]:
                _remove(folder)

    def _ref(self, name: HubName) -> Path:
        return self.repo(name.repo) / "refs" / quote(name.revision, safe="")


def user_store() -> Store:
    """Return the user's cache: the folder DMCODEC_CACHE, or the system's folder for caches.

    Raises:
        MissingDependencyError: DMCODEC_CACHE is not set, and platformdirs is not installed.
    """
    try:
        return Store(user_cache_folder())
    except ModuleNotFoundError as error:
        raise missing_package(error, f"a codec by name, without {CACHE_VARIABLE},", "hub") from None


def _folders(parent: Path, suffix: str = "") -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.name.endswith(suffix) and path.is_dir())
    except OSError:
        return []


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder}: can't be removed ({error.strerror or error}); check the rights") from error
