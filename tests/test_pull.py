"""`dmcodec pull`, against local files in place of the real host."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.drive import Fetch
from dmcodec.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    DownloadError,
    ExportError,
    OutputError,
    OutputExistsError,
)
from dmcodec.models.pulling import PullOptions, pull_bundle
from dmcodec.models.store import Store
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.pull import RELEASES, pull


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

    with pytest.raises(DownloadError, match=r"broke off; .*same command again.*--from-file"):
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


class FileURLRetrievalError(Exception):
    """As gdown calls it."""


# As gdown and Google Drive word them.
QUOTA = (
    "Failed to retrieve file url:\n\n\tCannot retrieve the public link of the file. You may need to change\n\tthe "
    "permission to 'Anyone with the link', or have had many accesses."
)
QUOTA_PAGE = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title><p>Too many users have viewed it</html>"
VIRUS_PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
NO_NAME = "HTTPSConnectionPool: Max retries exceeded (Caused by NameResolutionError: Failed to resolve 'host')"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError(QUOTA), "too many people fetched it .*tomorrow"),
        (FileURLRetrievalError("anything"), "too many people"),
        (QUOTA_PAGE, "too many people"),
        (VIRUS_PAGE, r"virus scans.*pip install --upgrade"),
        (b"\n<html><title>Hotel WiFi</title></html>", "web page came instead.*proxy"),
        (b"<html>Sign in - Google Accounts</html>", "asks for an account"),
        (ConnectionError(NO_NAME), "can't be reached: there is no network"),
        (OSError("[Errno 101] Network is unreachable"), "there is no network"),
        (ConnectionError("Connection aborted."), "broke off; run the same command again"),
        (TimeoutError("timed out"), "broke off"),
        (SystemExit(1), "broke off"),
        (None, "wrote no file"),
    ],
)
def test_each_failure_has_its_sentence_and_a_way_out(
    tmp_path: Path, failure: BaseException | bytes | None, reason: str
) -> None:
    def fetch(file_id: str, target: Path) -> None:
        if isinstance(failure, BaseException):
            raise failure
        if failure is not None:
            target.write_bytes(failure)

    with pytest.raises(DownloadError, match=reason) as caught:
        pull("lm", tmp_path, fetch=fetch)
    text = str(caught.value)
    assert "--from-file" in text
    assert RELEASES["lm"] in text
    assert "\n" not in text
    assert not any(words in text for words in ("public link", "Caused by", "Errno", "aborted"))
    assert not (tmp_path / "source.json").exists()
    assert not (tmp_path / "lm.download.pt").exists()  # the same command must not stumble over it


def test_a_cut_file_is_continued(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    """gdown takes a file with the right name for complete; it continues one that begins like it and ends in .part."""

    def fetch(file_id: str, target: Path) -> None:
        parts = list(tmp_path.glob(f"{target.name}????????.part"))
        assert not target.exists()
        target.write_bytes(release if parts else release[:-5000])
        for part in parts:
            assert part.read_bytes() == release[:-5000]
            part.unlink()

    with pytest.raises(DownloadError, match="ended before the file did; run the same command again"):
        pull("lm", tmp_path, fetch=fetch, config=tiny_config)
    assert pull("lm", tmp_path, fetch=fetch, config=tiny_config).size_bytes == len(release)


def test_of_several_parts_the_largest_is_continued(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    """gdown refuses to choose."""
    for name, size in (("aaaaaaaa", 10), ("bbbbbbbb", 3_000_000), ("cccccccc", 20)):
        (tmp_path / f"lm.download.pt{name}.part").write_bytes(bytes(size))

    def fetch(file_id: str, target: Path) -> None:
        assert [path.name for path in tmp_path.glob("*.part")] == ["lm.download.ptbbbbbbbb.part"]
        raise ConnectionError("Connection aborted.")

    with pytest.raises(DownloadError, match=r"3\.0 MB are kept"):
        pull("lm", tmp_path, fetch=fetch, config=tiny_config)


def test_a_file_that_is_here_and_is_a_page_or_cut(release: bytes, tmp_path: Path, tiny_config: CodecConfig) -> None:
    for content, reason in ((QUOTA_PAGE, "is a web page"), (release[:-5000], "cut short"), (b"x", "no checkpoint")):
        (tmp_path / "mine.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"mine\.pt: .*{reason}.*not the released lm checkpoint"):
            pull("lm", tmp_path / "out", from_file=tmp_path / "mine.pt", config=tiny_config)
        assert (tmp_path / "mine.pt").exists()


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


CAUSAL = json.dumps(CodecConfig(sample_rate=24000, causal=True).to_dict()).encode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_what_an_unfinished_pull_left_does_not_bind_the_next_one(
    store: Store, release: bytes, tiny_bundle: Path, tiny_config: CodecConfig, tmp_path: Path
) -> None:
    def stops(checkpoint: Path, out: Path) -> Bundle:
        raise ExportError("stopped")

    def exports(checkpoint: Path, out: Path) -> Bundle:
        return Bundle.open(shutil.copytree(tiny_bundle, out))

    one, other = (PullOptions(tmp_path / name, config=tiny_config) for name in ("one.pt", "other.pt"))
    (tmp_path / "one.pt").write_bytes(release)
    (tmp_path / "other.pt").write_bytes(release + b" ")
    for wanted in (other, PullOptions(fetch=brings(release + b"  "), config=tiny_config, force=True)):
        with pytest.raises(ExportError):
            pull_bundle("lm", stops, store, one)
        assert pull_bundle("lm", exports, store, wanted).fetched
        store.remove_pulled("lm")


def test_another_codec_under_the_name_is_refused_and_not_kept(
    store: Store, tiny_model_files: tuple[Path, Path], tmp_path: Path
) -> None:
    def refuses(checkpoint: Path, out: Path) -> Bundle:
        raise CheckpointError(f"{checkpoint}: no weights of EnCodec")

    (tmp_path / "config.json").write_bytes(CAUSAL)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"for 24000 Hz, causal, not for 16000 Hz, not causal.*not the released"):
        pull_bundle("speechtokenizer", refuses, store, PullOptions(tmp_path))
    with pytest.raises(CheckpointError, match=r"for 16000 Hz, not causal, not for 24000 Hz, causal.*not the released"):
        pull_bundle("encodec-24khz", refuses, store, PullOptions(tiny_model_files[0].parent))
    for _ in range(2):  # the second finds nothing of the first
        with pytest.raises(CheckpointError, match="no weights of EnCodec"):
            pull_bundle("encodec-24khz", refuses, store, PullOptions(weights))
        assert not (store.work("encodec-24khz") / "checkpoint").exists()


def test_a_lock_that_can_not_be_written_is_nobody_at_work(store: Store) -> None:
    with store.lock("lm"):
        pass
    lock = store.folder / "locks" / "lm.lock"
    lock.chmod(0o444)
    if os.access(lock, os.W_OK):
        pytest.skip("this user can write to any file")
    refused = pytest.raises(OutputError, match="can't be written, and bundles are kept there; set DMCODEC_CACHE")
    with refused, store.lock("lm", lambda: pytest.fail("waits")):
        pass
