"""Released checkpoints: downloaded from Google Drive, checked, and converted to safetensors."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from .config import CodecConfig
from .drive import Fetch, download, gdown_fetch
from .errors import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    DownloadError,
    MissingDependencyError,
    OutputExistsError,
)
from .files import file_sha256, make_folder, write_bytes

# Google Drive files of the release of the reference implementation (arXiv 2410.15017).
RELEASES = {
    "lm-sm": "1pvrPcbUTUAlo2_iGLIIf7IFNJPfzmHbh",
    "lm": "14DMrDzIssP-8qzXBG8v65ctF4WPA_Uyv",
}
WEIGHTS, CONFIG, RECORD = "checkpoint.safetensors", "config.json", "source.json"


@dataclasses.dataclass(frozen=True)
class Pulled:
    """A released model on disk. `sha256` and `size_bytes` are those of the downloaded file."""

    checkpoint: Path
    config: Path
    sha256: str
    size_bytes: int


def pull(
    name: str, folder: str | Path, from_file: str | Path | None = None, sha256: str | None = None,
    fetch: Fetch | None = None, config: CodecConfig | None = None,
) -> Pulled:  # fmt: skip
    """Download a released checkpoint into `folder` as safetensors, with its configuration and a record of its source.

    Args:
        name: "lm-sm" or "lm".
        folder: made if it is missing.
        from_file: a file that was downloaded by other means.
        sha256: expected of the file; by default that of an earlier pull into `folder`, if there was one.
        fetch: downloads a file id to a path; gdown by default.
        config: the released configuration by default.

    Raises:
        DownloadError: the download was interrupted (the next call continues it), or refused, or the file has another
            sha256.
        CheckpointNotFoundError: `from_file` does not exist.
        CheckpointError: the file does not hold the released network.
        OutputExistsError: `folder` holds another released model.
        MissingDependencyError: gdown or torch is not installed.
    """
    if name not in RELEASES:
        raise ArgumentError(f"{name!r} is not a released model; use one of {', '.join(RELEASES)}")
    folder, config = Path(folder), config or CodecConfig()
    expected = sha256 or _recorded(folder, name)
    raw = Path(from_file) if from_file else folder / f"{name}.download.pt"
    if from_file and not os.path.isfile(raw):  # noqa: PTH113 - Path.is_file raises where the name is too long
        raise CheckpointNotFoundError(f"{raw}: no such checkpoint file")
    if not from_file:
        make_folder(folder)
        download(RELEASES[name], raw, fetch or gdown_fetch)
    actual = file_sha256(raw)
    if expected and actual != expected.lower():
        raise DownloadError(
            f"{raw}: its sha256 is {actual}, expected {expected}; delete it and pull again, or check --sha256"
        )
    try:
        _convert(raw, folder, config)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. The file is not the released {name} checkpoint; delete it and pull again"
        ) from error
    size_bytes = raw.stat().st_size
    record = {"name": name, "google_drive_id": RELEASES[name], "sha256": actual, "size_bytes": size_bytes}
    write_bytes(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    if not from_file:
        raw.unlink()
    return Pulled(folder / WEIGHTS, folder / CONFIG, actual, size_bytes)


def _recorded(folder: Path, name: str) -> str | None:
    """Return the sha256 that an earlier pull into `folder` recorded; OutputExistsError if it was another model."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        sha256, other = str(record["sha256"]), str(record["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if other != name:
        raise OutputExistsError(f"{folder}: holds the released model {other} already; give another folder")
    return sha256


def _convert(raw: Path, folder: Path, config: CodecConfig) -> None:
    try:
        import safetensors.torch

        from dmcodec.nn import DMCodec
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f'pull needs {error.name}; run `pip install "dmcodec[pull]"`') from None
    state = DMCodec.from_checkpoint(config, raw).state_dict()
    write_bytes(folder / WEIGHTS, safetensors.torch.save(state))
    write_bytes(folder / CONFIG, (json.dumps(config.to_dict(), indent=1) + "\n").encode())
