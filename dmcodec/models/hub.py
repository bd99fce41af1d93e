"""Files of the Hugging Face hub: downloads that resume, and what went wrong in sentences of our own.

The hub's own client sends the requests: its endpoint (HF_ENDPOINT), token, proxies and offline mode hold here, too. The
files are written here, since the client throws away what an interrupted process has of a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dmcodec.errors import (
    DmcodecError,
    DownloadError,
    HubFileNotFoundError,
    HubNotFoundError,
    HubUnreachableError,
    OutputError,
    first_line,
)
from dmcodec.extras import missing_package
from dmcodec.files import file_sha256, make_folder

from .names import COMMIT, HubName

if TYPE_CHECKING:
    from types import ModuleType

# Called with a stage, and the megabytes that are done and in total.
Progress = Callable[[str, float, float], None]

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
_OFFLINE = f"{OFFLINE_VARIABLE} is set, so that the hub is not asked; unset it and run it again"
_YES = ("1", "ON", "YES", "TRUE")
_BLOCK_BYTES = 1 << 16
_TRIES, _PAUSE_S = 3, 1.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Modules of the HTTP clients that versions of huggingface_hub use.
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: the commit it belongs to, its size if the hub says it, and its sha256 likewise."""

    commit: str
    size_bytes: int | None
    sha256: str | None
    etag: str


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE switches all requests off."""
    return os.environ.get(OFFLINE_VARIABLE, "").upper() in _YES


def remote_file(name: HubName, path: str) -> RemoteFile:
    """Ask the hub for a file of a revision.

    Raises:
        HubFileNotFoundError: the repository has no such file.
        HubUnreachableError: there is no network, or offline mode is on.
        HubNotFoundError: no such repository or revision.
        DownloadError: access is refused, or another answer came.
        MissingDependencyError: huggingface_hub is not installed.
    """
    hub = hub_client(str(name))
    with explained(name, path):
        found = hub.get_hf_file_metadata(_url(hub, name, path), token=None)
    if not found.commit_hash or not COMMIT.fullmatch(found.commit_hash) or not found.etag:
        raise DownloadError(
            f"{name}: what answered is not the Hugging Face hub; check HF_ENDPOINT, and the network's proxy or sign-in "
            "page"
        )
    sha256 = found.etag if _SHA256.fullmatch(found.etag) else None
    return RemoteFile(found.commit_hash, found.size, sha256, found.etag)


def download(name: HubName, path: str, target: Path, remote: RemoteFile, progress: Progress | None = None) -> None:
    """Download a file to `target`, or what is missing of it: what came before is in `target`.part.

    Raises:
        DownloadError: as `remote_file`, the connection broke off, or another file came than the hub announced.
        OutputError: it can't be written.
    """
    hub = hub_client(str(name))
    digest = hashlib.sha256(remote.etag.encode()).hexdigest()[:12]  # of another version, nothing is continued
    part = target.with_name(f"{target.name}.{digest}.part")
    make_folder(target.parent)
    if remote.sha256 and target.is_file() and file_sha256(target) == remote.sha256:
        return
    at_commit = HubName(name.repo, remote.commit)
    with explained(name, path, part):
        for attempt in range(_TRIES):
            try:
                _continue(hub, at_commit, path, part, remote, progress)
                break
            except Exception as error:
                if attempt == _TRIES - 1 or not _is_of_network(error):
                    raise
                time.sleep(_PAUSE_S * attempt)
    if remote.sha256 and file_sha256(part) != remote.sha256:
        part.unlink()
        raise DownloadError(
            f"{name}: {path} came with another sha256 than the hub announced; run the same command again"
        )
    part.replace(target)


def _continue(
    hub: ModuleType, name: HubName, path: str, part: Path, remote: RemoteFile, progress: Progress | None
) -> None:
    done = part.stat().st_size if part.is_file() else 0
    if done == remote.size_bytes:
        return
    if remote.size_bytes is not None and done > remote.size_bytes:
        done = 0
    headers = hub.utils.build_hf_headers(token=None)
    headers["Accept-Encoding"] = "identity"  # else a compressed answer: its ranges are others
    if done:
        headers["Range"] = f"bytes={done}-"
    with _stream(hub, _url(hub, name, path), headers) as (response, blocks):
        hub.utils.hf_raise_for_status(response)
        if done and response.status_code != 206:  # the whole file comes
            done = 0
        with part.open("ab" if done else "wb") as file:
            for block in blocks:
                file.write(block)
                done += len(block)
                if remote.size_bytes is not None and done > remote.size_bytes:
                    raise _CutError(f"{done} bytes came, more than announced")
                if progress:
                    progress(f"download {path}, MB", done / 1e6, (remote.size_bytes or done) / 1e6)
    if remote.size_bytes is not None and done != remote.size_bytes:
        raise _CutError(f"{done} of {remote.size_bytes} bytes came")


class _CutError(Exception):
    """A connection that ended too early."""


@contextmanager
def _stream(hub: ModuleType, url: str, headers: Mapping[str, str]) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """Yield a response and its blocks; the session is one of requests before huggingface_hub 1.0, else one of httpx."""
    session = hub.utils.get_session()
    timeout_s = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=timeout_s, follow_redirects=True) as response:
            # Without a size of blocks: else what came of the last one is lost with the connection.
            yield response, response.iter_bytes() if response.status_code < 400 else iter(())
    else:
        with session.get(url, headers=headers, timeout=timeout_s, stream=True) as response:
            yield response, response.iter_content(_BLOCK_BYTES)


def hub_client(what: str) -> ModuleType:
    """Import huggingface_hub, whose telemetry `import dmcodec` switches off.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise missing_package(error, what, "hub") from None
    return huggingface_hub


def _url(hub: ModuleType, name: HubName, path: str) -> str:
    # The client reads HF_ENDPOINT at its import, and its own hf_hub_url mixes that with the one of now.
    endpoint = (os.environ.get("HF_ENDPOINT") or hub.constants.ENDPOINT).rstrip("/")
    return f"{endpoint}/{name.repo}/resolve/{quote(name.revision, safe='')}/{quote(path)}"


@contextmanager
def explained(name: HubName, path: str | None = None, part: Path | None = None) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into errors of our own that name the repository."""
    if is_offline():
        raise HubUnreachableError(f"{name}: {_OFFLINE}")
    try:
        yield
    except (DmcodecError, KeyboardInterrupt):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM) and part is not None:
            free_mb = shutil.disk_usage(part.parent).free / 1e6
            raise OutputError(
                f"{part.parent}: can't be written ({error.strerror}), with {free_mb:.0f} MB free; make room, or name "
                "another folder"
            ) from error
        raise _problem(error, name, path, part) from error
    except Exception as error:
        raise _problem(error, name, path, part) from error


def _problem(error: Exception, name: HubName, path: str | None, part: Path | None) -> DownloadError:
    kind, text = explanation(error, name.revision, path, part)
    return kind(f"{name}: {text}")


def explanation(
    error: Exception, revision: str, path: str | None = None, part: Path | None = None
) -> tuple[type[DownloadError], str]:
    """Return the class of our own for what huggingface_hub or its HTTP client raised, and a sentence with the way out.

    Args:
        error: what was raised.
        revision: that was asked for.
        path: of the file that was asked for, if any.
        part: what came of it so far.
    """
    if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the client then looked into its own cache, too
    kind, status = type(error).__name__, _status(error)
    if kind == "OfflineModeIsEnabled":
        return HubUnreachableError, _OFFLINE
    if kind == "GatedRepoError":
        return DownloadError, (
            "is gated; accept its terms on the repository's page, and log in with `hf auth login` or HF_TOKEN"
        )
    if kind == "RevisionNotFoundError":
        return HubNotFoundError, (
            f"the repository has no revision {revision!r}; name a branch, a tag or a whole commit"
        )
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
        return HubFileNotFoundError, f"the repository has no file {path}"
    if kind == "DisabledRepoError":
        return DownloadError, "the hub has disabled this repository; name another one"
    if kind == "LocalTokenNotFoundError":
        return DownloadError, "the hub must know who you are; log in with `hf auth login`, or set HF_TOKEN"
    if status == 401 or kind == "RepositoryNotFoundError":
        return HubNotFoundError, (
            "the hub has no such repository, or it is private; check the name, or log in with `hf auth login` or "
            "HF_TOKEN"
        )
    if status == 403:
        return DownloadError, (
            "the hub refuses access; log in with `hf auth login` or HF_TOKEN, with a token that may do it"
        )
    if status == 404:
        return HubNotFoundError, "the hub has no such repository, revision or file; check the name"
    if status == 429:
        return DownloadError, "the hub refuses for now, too many requests came; run it again later, logged in"
    if status is not None:
        return DownloadError, f"the hub answered with status {status}; run the same command again later"
    if isinstance(error, UnicodeEncodeError):  # of a header
        return DownloadError, (
            "the token of HF_TOKEN or `hf auth login` holds a character that no token has; copy it again"
        )
    kept = part.stat().st_size / 1e6 if part is not None and part.is_file() else 0.0
    if kept or isinstance(error, _CutError):
        return DownloadError, (
            f"the download of {path} broke off; {kept:.1f} MB are kept, run the same command again to continue it"
        )
    if not _is_of_network(error) and kind != "LocalEntryNotFoundError":
        return DownloadError, (
            f"what the Hugging Face hub answered can't be used ({first_line(error)}); check HF_ENDPOINT, or "
            'run `pip install --upgrade "dmcodec[hub]"`'
        )
    return HubUnreachableError, (
        "the Hugging Face hub can't be reached; connect (HTTPS_PROXY names a proxy) and run it again"
    )


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_of_network(error: Exception) -> bool:
    if isinstance(error, (_CutError, ConnectionError, TimeoutError)):
        return True
    return _status(error) is None and type(error).__module__.split(".")[0] in _CLIENTS
