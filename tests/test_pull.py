"""`dmcodec pull`, against local files in place of the real host."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dmcodec.config import CodecConfig
from dmcodec.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    DownloadError,
    OutputError,
    OutputExistsError,
)
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.pull import RELEASES, Fetch, pull


@pytest.fixture
def release(tiny_model_files: tuple[Path, Path]) -> bytes:
    return tiny_model_files[0].read_bytes()


def brings(content: bytes) -> Fetch:
    def fetch(file_id: str, target: Path) -> None:
        target.write_bytes(content)

    return fetch


def test_pull_checks_records_and_converts(
    release: bytes, tmp_path: Path, tiny_config: CodecConfig, tiny_model: DMCodec
) -> None:
    asked = []

    def fetch(file_id: str, target: Path) -> None:
        asked.append(file_id)
        target.write_bytes(release)

    folder = tmp_path / "new" / "folder"
    pulled = pull("lm-sm", folder, fetch=fetch, config=tiny_config)
    assert asked == [RELEASES["lm-sm"]]
    assert pulled.sha256 == hashlib.sha256(release).hexdigest()
    assert json.loads((folder / "source.json").read_text())["sha256"] == pulled.sha256
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.safetensors", "config.json", "source.json"]
    assert model_id(DMCodec.from_checkpoint(pulled.config, pulled.checkpoint)) == model_id(tiny_model)


def test_a_broken_download_is_kept_and_resumed(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    def fetch(file_id: str, target: Path) -> None:
        part = target.with_suffix(".part")
        done = part.read_bytes() if part.exists() else b""
        part.write_bytes(release[: len(done) + len(release) // 2 + 1])
        if len(part.read_bytes()) < len(release):
            raise ConnectionError("connection reset")
        part.rename(target)

    with pytest.raises(DownloadError, match=r"connection reset.*same command again.*--from-file"):
        pull("lm", tmp_path, fetch=fetch, config=tiny_config)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert pull("lm", tmp_path, fetch=fetch, config=tiny_config).size_bytes == len(release)


def test_another_sha256_is_refused(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    file = tmp_path / "fetched.pt"
    file.write_bytes(release)
    with pytest.raises(DownloadError, match="sha256"):
        pull("lm", tmp_path / "out", from_file=file, sha256="00" * 32, config=tiny_config)
    pull("lm", tmp_path / "out", from_file=file, config=tiny_config)
    other = tmp_path / "other.pt"
    other.write_bytes(release + b" ")
    with pytest.raises(DownloadError, match=str(other)):  # not what the first pull recorded
        pull("lm", tmp_path / "out", from_file=other, config=tiny_config)
    assert file.exists()


def test_a_web_page_instead_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not the released lm checkpoint"):
        pull("lm", tmp_path, fetch=brings(b"<html>quota exceeded</html>"))
    assert not (tmp_path / "source.json").exists()


def test_the_released_configuration_is_required(release: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="shape"):
        pull("lm", tmp_path, fetch=brings(release))


def test_a_folder_of_another_release_is_left_alone(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    pull("lm", tmp_path, fetch=brings(release), config=tiny_config)
    with pytest.raises(OutputExistsError, match="lm already"):
        pull("lm-sm", tmp_path, fetch=brings(release), config=tiny_config)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        pull("lm", tmp_path / "file", fetch=brings(release), config=tiny_config)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="lm-sm, lm"):
        pull("xl", tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"none\.pt"):
        pull("lm", tmp_path, from_file=tmp_path / "none.pt")
    with pytest.raises(DownloadError, match="wrote no file"):
        pull("lm", tmp_path, fetch=lambda _id, _target: None)
