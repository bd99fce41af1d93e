"""Released checkpoints: downloaded from Google Drive or the Hugging Face hub, checked, and converted to safetensors."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from dmcodec.models import hub
from dmcodec.models.names import KNOWN, DriveSource, HubName, HubSource, Known, known

from .checkpoint_files import find_checkpoint
from .config import CodecConfig
from .drive import Fetch, download, gdown_fetch
from .errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigError,
    DownloadError,
    MissingDependencyError,
    OutputExistsError,
)
from .files import file_sha256, make_folder, write_bytes

# Google Drive files of the release of the reference implementation (arXiv 2410.15017).
RELEASES = {name: row.source.file_id for name, row in KNOWN.items() if isinstance(row.source, DriveSource)}
WEIGHTS, CONFIG, RECORD = "checkpoint.safetensors", "config.json", "source.json"
_PLAIN_WEIGHTS = "model.safetensors"  # of a checkpoint that is not converted


@dataclasses.dataclass(frozen=True)
class Pulled:
    """A released model on disk. `sha256` and `size_bytes` are those of the downloaded file."""

    checkpoint: Path
    config: Path
    sha256: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class _Raw:
    """What was downloaded, or given: weights, their configuration, and where they come from, for the record."""

    weights: Path
    config: Path | None
    origin: dict[str, Any]


def pull(
    name: str, folder: str | Path, from_file: str | Path | None = None, sha256: str | None = None,
    fetch: Fetch | None = None, config: CodecConfig | None = None, progress: hub.Progress | None = None,
) -> Pulled:  # fmt: skip
    """Download a released checkpoint into `folder` as safetensors, with its configuration and a record of its source.

    Args:
        name: a name of `dmcodec.models.names.KNOWN`.
        folder: made if it is missing.
        from_file: a file that was downloaded by other means, or a folder with it and its config.json.
        sha256: expected of the file; by default that of an earlier pull into `folder`, if there was one.
        fetch: downloads a file id of Google Drive to a path; gdown by default.
        config: by default the released configuration: that of the hub, or of the folder of `from_file`, or DM-Codec's.
        progress: called with the megabytes of a file of the hub that are done and in total.

    Raises:
        DownloadError: the download was interrupted (the next call continues it), or refused, or the file has another
            sha256.
        CheckpointNotFoundError: `from_file` does not exist.
        CheckpointError: the file does not hold the released network.
        OutputExistsError: `folder` holds another released model.
        MissingDependencyError: gdown, huggingface_hub or torch is not installed.
    """
    row, folder = known(name), Path(folder)
    expected = sha256 or _recorded(folder, name)
    raw = _given(row, Path(from_file)) if from_file else _downloaded(name, row, folder, fetch, progress)
    actual = file_sha256(raw.weights)
    if expected and actual != expected.lower():
        raise DownloadError(
            f"{raw.weights}: its sha256 is {actual}, expected {expected}; delete it and pull again, or check --sha256"
        )
    try:
        config = config or (CodecConfig.from_json(raw.config) if raw.config else CodecConfig())
        _check_kind(row, config, raw.config or raw.weights)
        weights = (_convert if row.converts else _copy)(raw, folder, config)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(
            f"{error}. The file is not the released {name} checkpoint; delete it and pull again"
        ) from error
    size_bytes = raw.weights.stat().st_size
    record = {"name": name, **raw.origin, "sha256": actual, "size_bytes": size_bytes}
    write_bytes(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    if not from_file:
        for file in filter(None, (raw.weights, raw.config)):
            file.unlink()
    return Pulled(weights, folder / CONFIG, actual, size_bytes)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a pull recorded in a folder: name, origin, sha256 and size of the file; None where it did not."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {**record, "sha256": str(record["sha256"]), "name": str(record["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _recorded(folder: Path, name: str) -> str | None:
    """Return the sha256 that an earlier pull into `folder` recorded; OutputExistsError if it was another model."""
    record = read_record(folder)
    if record and record["name"] != name:
        raise OutputExistsError(f"{folder}: holds the released model {record['name']} already; give another folder")
    return record["sha256"] if record else None


def _given(row: Known, path: Path) -> _Raw:
    """Return the weights that a user has, and the configuration that lies beside them."""
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        raise CheckpointNotFoundError(f"{path}: no such checkpoint file")
    weights = find_checkpoint(path).weights
    config = weights.parent / CONFIG
    is_drive = isinstance(row.source, DriveSource)
    found = config if config.is_file() and not (is_drive and path.is_file()) else None
    if found is None and not row.converts:
        raise CheckpointNotFoundError(
            f"{config}: is missing; put the {CONFIG} of {row.source.shown} beside {weights.name}"
        )
    origin = (
        {"google_drive_id": row.source.file_id}
        if isinstance(row.source, DriveSource)
        else {"repository": row.source.repo}
    )
    return _Raw(weights, found, origin)


def _downloaded(name: str, row: Known, folder: Path, fetch: Fetch | None, progress: hub.Progress | None) -> _Raw:
    make_folder(folder)
    weights = folder / f"{name}.download.pt"
    if isinstance(row.source, DriveSource):
        download(row.source.file_id, weights, fetch or gdown_fetch)
        return _Raw(weights, None, {"google_drive_id": row.source.file_id})
    config = folder / f"{name}.download.json"
    commit = _from_hub(row.source, weights, config, progress)
    return _Raw(weights, config, {"repository": row.source.repo, "commit": commit, "file": row.source.weights})


def _from_hub(source: HubSource, weights: Path, config: Path, progress: hub.Progress | None) -> str:
    """Download weights and configuration of one commit, and return it."""
    remote = hub.remote_file(HubName(source.repo), source.config)
    at_commit = HubName(source.repo, remote.commit)
    hub.download(at_commit, source.config, config, remote)
    hub.download(at_commit, source.weights, weights, hub.remote_file(at_commit, source.weights), progress)
    return remote.commit


def _check_kind(row: Known, config: CodecConfig, source: Path) -> None:
    """Raise CheckpointError for the configuration of another codec of the family."""
    if (config.sample_rate, config.causal) != (row.sample_rate, row.causal):
        kinds = {False: "not causal", True: "causal"}
        raise CheckpointError(
            f"{source}: is of a codec for {config.sample_rate} Hz, {kinds[config.causal]}, not for {row.sample_rate} "
            f"Hz, {kinds[row.causal]}"
        )


def _convert(raw: _Raw, folder: Path, config: CodecConfig) -> Path:
    try:
        import safetensors.torch

        from dmcodec.nn import DMCodec
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f'pull needs {error.name}; run `pip install "dmcodec[pull]"`') from None
    state = DMCodec.from_checkpoint(config, raw.weights).state_dict()
    write_bytes(folder / WEIGHTS, safetensors.torch.save(state))
    write_bytes(folder / CONFIG, (json.dumps(config.to_dict(), indent=1) + "\n").encode())
    return folder / WEIGHTS


def _copy(raw: _Raw, folder: Path, _config: CodecConfig) -> Path:
    assert raw.config is not None
    write_bytes(folder / _PLAIN_WEIGHTS, raw.weights.read_bytes())
    write_bytes(folder / CONFIG, raw.config.read_bytes())
    return folder / _PLAIN_WEIGHTS
