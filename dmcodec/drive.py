"""Files of Google Drive: downloads with gdown, and what came instead of the file, in sentences of our own."""

from __future__ import annotations

import errno
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from .errors import DownloadError, MissingDependencyError, OutputError

# Downloads a Google Drive file id to a path, and continues a download that was interrupted.
Fetch = Callable[[str, Path], None]

_PAGE_BYTES = 1 << 20
_NO_NETWORK = re.compile(
    r"name resolution|getaddrinfo|name or service not known|nodename nor servname|network is unreachable|no route to|"
    r"failed to resolve|max retries|connection refused|proxy|NewConnectionError",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"public link|many accesses|quota|too many users|have viewed or downloaded|FAQ", re.IGNORECASE)
_VIRUS_SCAN = re.compile(r"virus scan|can't scan this file|download-form|download anyway", re.IGNORECASE)
_SIGN_IN = re.compile(r"sign in|accounts\.google|ServiceLogin", re.IGNORECASE)


def gdown_fetch(file_id: str, target: Path) -> None:
    """Download a file with gdown, and continue where an earlier download stopped."""
    try:
        import gdown
    except ModuleNotFoundError:
        raise MissingDependencyError('pull needs gdown; run `pip install "dmcodec[pull]"`') from None
    gdown.download(id=file_id, output=str(target), resume=True)


def download(file_id: str, target: Path, fetch: Fetch) -> None:
    """Download a file, or what is missing of it.

    Raises:
        DownloadError: what stands in the way, and the way out.
        OutputError: the disk is full.
    """
    by_hand = f"or fetch Google Drive file {file_id} with a browser, and give it with --from-file"
    _keep_one_part(target)
    try:
        fetch(file_id, target)
    except (MissingDependencyError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            free_mb = shutil.disk_usage(target.parent).free / 1e6
            raise OutputError(
                f"{target}: can't be written, with {free_mb:.0f} MB free on the disk; make room, and run it again"
            ) from error
        raise DownloadError(f"{target.name}: {_reason(error, target)}, {by_hand}") from error
    if not target.is_file() or target.stat().st_size == 0:
        raise DownloadError(f"{target.name}: the download wrote no file; run the same command again later, {by_hand}")
    problem = page_problem(target)
    if problem:
        target.unlink()
        raise DownloadError(f"{target.name}: {problem}, {by_hand}")
    if is_cut(target):
        target.rename(_parts_name(target))  # where gdown looks for what it has to continue
        raise DownloadError(
            f"{target.name}: the download ended before the file did; run the same command again to fetch the rest, "
            f"{by_hand}"
        )


def page_problem(path: Path) -> str | None:
    """Return what is wrong where a file is a web page instead of a checkpoint, and what to do; else None."""
    with path.open("rb") as file:
        head = file.read(_PAGE_BYTES)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return None
    page = head.decode("utf-8", "replace")
    if _VIRUS_SCAN.search(page):
        return (
            "Google Drive sent its page about virus scans instead of the file, which gdown did not pass; run "
            '`pip install --upgrade "dmcodec[pull]" gdown` and the same command again'
        )
    if _QUOTA.search(page):
        return _quota()
    if _SIGN_IN.search(page):
        return "Google Drive asks for an account; run the same command again later"
    return "a web page came instead of the file, from Google Drive or from a proxy; check the network's sign-in page"


def is_cut(path: Path) -> bool:
    """Return whether a file begins as one of torch.save, and ends too early."""
    with path.open("rb") as file:
        return file.read(2) == b"PK" and not zipfile.is_zipfile(path)


def _quota() -> str:
    return (
        "Google Drive refuses the file for now: too many people fetched it (its quota), which ends within a day; run "
        "the same command again tomorrow"
    )


def _reason(error: BaseException, target: Path) -> str:
    text = f"{type(error).__name__} {error}"
    if _QUOTA.search(text) or "FileURLRetrieval" in text:
        return _quota()
    if _NO_NETWORK.search(text):
        return (
            "Google Drive can't be reached: there is no network, or a proxy is in the way; connect (HTTPS_PROXY names "
            "a proxy) and run the same command again"
        )
    kept_mb = sum(part.stat().st_size for part in _parts(target)) / 1e6
    kept = f"{kept_mb:.1f} MB are kept; " if kept_mb else ""
    return f"the download broke off; {kept}run the same command again to continue it"


def _parts(target: Path) -> list[Path]:
    """Return what gdown has of an unfinished download: files that begin with the name of the target."""
    if not target.parent.is_dir():
        return []
    names = (path for path in target.parent.iterdir() if path.name.startswith(target.name))
    return [path for path in names if path.suffix == ".part"]


def _keep_one_part(target: Path) -> None:
    """Leave the largest part only: of several, gdown continues none."""
    for part in sorted(_parts(target), key=lambda path: path.stat().st_size)[:-1]:
        part.unlink(missing_ok=True)


def _parts_name(target: Path) -> Path:
    return target.with_name(f"{target.name}cut-file.part")  # gdown's own names have eight characters there, too
