"""ONNX Runtime Web: where its files are, or fetched once with npm and checked against the lock file."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.files import output_folder
from dmcodec.user_cache import user_cache_folder

from .site import ORT_FILES, web_folder

PACKAGE = "onnxruntime-web"
_TIMEOUT_S = 600


def find_onnxruntime_web(folder: Path | None = None) -> Path:
    """Return the folder with the files of ONNX Runtime Web.

    Args:
        folder: where they are; by default `node_modules` of a clone, else the user's cache, which npm fills once.

    Raises:
        ArgumentError: `folder` lacks one of the files.
        MissingDependencyError: they are nowhere, and npm is missing or can't fetch them.
    """
    if folder is not None:
        if missing := [name for name in ORT_FILES if not (folder / name).is_file()]:
            raise ArgumentError(f"--ort-web {folder}: has no {missing[0]}; name the folder dist of {PACKAGE}")
        return folder
    if (installed := installed_onnxruntime_web()) is not None:
        return installed
    version, integrity = _locked()
    cached = _cache_folder() / f"{PACKAGE}-{version}"
    if not _complete(cached):
        _fetch(version, integrity, cached)
    return cached


def installed_onnxruntime_web() -> Path | None:
    """Return the folder of the files in `node_modules` of a clone; None where they are not, or of another version."""
    package = web_folder() / "node_modules" / PACKAGE
    found = _version(package) == _locked()[0] and _complete(package / "dist")
    return package / "dist" if found else None


def _locked() -> tuple[str, str]:
    """Return the version and the integrity of the package in the lock file."""
    entry = json.loads((web_folder() / "package-lock.json").read_text())["packages"][f"node_modules/{PACKAGE}"]
    return entry["version"], entry["integrity"]


def _version(package: Path) -> str | None:
    try:
        version: str = json.loads((package / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return None
    return version


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ORT_FILES)


def _cache_folder() -> Path:
    try:
        return user_cache_folder()
    except ImportError:
        raise MissingDependencyError(
            "the demo keeps ONNX Runtime Web in the user's cache and needs platformdirs; "
            'run `pip install "dmcodec[demo]"`'
        ) from None


def _fetch(version: str, integrity: str, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"{PACKAGE} {version} isn't here yet, and npm, which fetches it, is not installed; install Node.js, "
            "or name the folder of its files with --ort-web"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"{PACKAGE}@{version}", "--pack-destination", temporary]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise MissingDependencyError(_problem(version, "npm didn't end within 10 minutes")) from None
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise MissingDependencyError(_problem(version, "npm failed; is the network there?"))
        _check(archives[0], version, integrity)
        with output_folder(target, force=True) as folder, tarfile.open(archives[0]) as archive:
            for name in ORT_FILES:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise MissingDependencyError(_problem(version, f"the package has no {name}"))
                (folder / name).write_bytes(member.read())


def _check(archive: Path, version: str, integrity: str) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != integrity:
        raise MissingDependencyError(_problem(version, "what npm fetched is not the package of the lock file"))


def _problem(version: str, reason: str) -> str:
    return f"{PACKAGE} {version} can't be fetched ({reason}); try again, or name the folder of its files with --ort-web"
