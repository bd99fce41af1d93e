"""Files of a bundle that were checked are not read again, unless anything about them changed or can't be trusted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dmcodec import checked_bundles
from dmcodec.bundle import Bundle
from dmcodec.errors import BundleError, BundleNotFoundError
from dmcodec.files import file_sha256

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="checks are not remembered on Windows")


def mount(point: str, kind: str) -> str:
    return f"30 27 0:26 / {point} rw,relatime shared:1 - {kind} source rw\n"


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the records, which is not there yet; files are taken as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(checked_bundles.SWITCH, "1")
    monkeypatch.delenv("DMCODEC_CACHE", raising=False)
    monkeypatch.setattr(checked_bundles, "_SETTLED_NS", -1)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(mount("/", "ext4"))
    monkeypatch.setattr(checked_bundles, "_MOUNTS", mounts)
    return tmp_path / "cache" / "dmcodec" / "checked"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed."""
    found: list[Path] = []

    def noted(path: Path) -> str:
        found.append(path)
        return file_sha256(path)

    monkeypatch.setattr("dmcodec.bundle.file_sha256", noted)
    return found


def opened(path: Path, reads: list[Path]) -> bool:
    """Open a bundle; return whether its files were read."""
    reads.clear()
    Bundle.open(path)
    return bool(reads)


def test_a_bundle_is_checked_once(tiny_bundle: Path, records: Path, reads: list[Path]) -> None:
    assert opened(tiny_bundle, reads)
    assert (records.stat().st_mode & 0o777, records.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    [record] = records.iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    assert not opened(tiny_bundle, reads)
    assert not opened(Path(os.path.relpath(tiny_bundle)), reads)
    Bundle.open(tiny_bundle, again=True)
    assert len(reads) == len(list(tiny_bundle.iterdir())) - 1  # all but the manifest, which is read each time


def test_a_change_of_the_same_size_and_time_is_found(
    copy_of_tiny_bundle: Path, records: Path, reads: list[Path]
) -> None:
    weights = copy_of_tiny_bundle / "weights.bin"
    before = weights.stat()
    opened(copy_of_tiny_bundle, reads)
    with weights.open("r+b") as file:
        file.write(b"\xff")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError, match=r"weights\.bin: was altered"):
        Bundle.open(copy_of_tiny_bundle)
    weights.unlink()
    with pytest.raises(BundleNotFoundError, match="incomplete"):
        Bundle.open(copy_of_tiny_bundle)


@pytest.mark.skipif(sys.platform == "darwin", reason="mounts are listed on Linux only")
@pytest.mark.parametrize("kind", ["vfat", "nfs4", "fuse.sshfs", "9p", "squashfs"])
def test_file_systems_that_hide_changes_are_not_relied_on(
    copy_of_tiny_bundle: Path, tmp_path: Path, records: Path, reads: list[Path], kind: str
) -> None:
    root = mount("/", "ext4")
    folder = (tmp_path / "some disk").resolve()
    bundle = copy_of_tiny_bundle.rename(folder)
    escaped = str(folder).replace(" ", "\\040")
    for mounts, reread in (
        (root + mount(escaped, kind), True),
        (root + mount(escaped, "xfs") + mount(escaped, kind), True),
        ("", True),
        (root + mount(f"{escaped}2", kind), False),
    ):
        (tmp_path / "mountinfo").write_text(mounts)
        opened(bundle, reads)
        assert opened(bundle, reads) == reread
    weights = bundle / "weights.bin"  # as in a cache of the hub: a link to another disk
    (tmp_path / "blobs").mkdir()
    weights.rename(tmp_path / "blobs" / "weights.bin")
    weights.symlink_to(tmp_path / "blobs" / "weights.bin")
    (tmp_path / "mountinfo").write_text(root + mount(str((tmp_path / "blobs").resolve()), kind))
    assert [opened(bundle, reads) for _ in range(2)] == [True, True]


def test_records_are_in_the_cache_of_dmcodec(
    tiny_bundle: Path, tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMCODEC_CACHE", str(tmp_path / "all"))
    Bundle.open(tiny_bundle)
    assert len(list((tmp_path / "all" / "checked").iterdir())) == 1
    assert not records.exists()


def test_a_graph_that_was_replaced_is_found(copy_of_tiny_bundle: Path, records: Path, reads: list[Path]) -> None:
    opened(copy_of_tiny_bundle, reads)
    other = (copy_of_tiny_bundle / "decoder.onnx").read_bytes()
    (copy_of_tiny_bundle / "new").write_bytes(other[:-1] + bytes([other[-1] ^ 1]))
    (copy_of_tiny_bundle / "new").replace(copy_of_tiny_bundle / "decoder.onnx")
    with pytest.raises(BundleError, match=r"decoder\.onnx: was altered"):
        Bundle.open(copy_of_tiny_bundle)


def test_files_that_just_changed_are_not_remembered(
    copy_of_tiny_bundle: Path, records: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within one step of the file system's clock leaves the times as they were."""
    monkeypatch.setattr(checked_bundles, "_SETTLED_NS", 10**12)
    assert [opened(copy_of_tiny_bundle, reads) for _ in range(2)] == [True, True]
    assert not records.exists()


def test_a_file_that_changes_during_the_check_is_not_remembered(
    copy_of_tiny_bundle: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touching(path: Path) -> str:
        os.utime(copy_of_tiny_bundle / "weights.bin")
        return file_sha256(path)

    monkeypatch.setattr("dmcodec.bundle.file_sha256", touching)
    Bundle.open(copy_of_tiny_bundle)
    assert not records.exists()


def test_it_can_be_switched_off(
    tiny_bundle: Path, records: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tiny_bundle, reads)
    assert not opened(tiny_bundle, reads)
    for value in ("0", "off", "False"):
        monkeypatch.setenv(checked_bundles.SWITCH, value)
        assert opened(tiny_bundle, reads)


def test_records_of_another_version_or_a_broken_one_are_passed_over(
    tiny_bundle: Path, records: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tiny_bundle, reads)
    with monkeypatch.context() as patch:
        patch.setattr(checked_bundles, "__version__", "0.0.0")
        assert opened(tiny_bundle, reads)
    assert opened(tiny_bundle, reads)
    [record] = records.iterdir()
    for content in (b"", b"{", b"[" * 100000, b"\xff"):
        record.write_bytes(content)
        assert opened(tiny_bundle, reads)
        assert not opened(tiny_bundle, reads)


@pytest.mark.parametrize("part", ["record", "folder", "parent"])
def test_what_others_can_write_to_is_not_trusted(
    tiny_bundle: Path, records: Path, reads: list[Path], part: str
) -> None:
    opened(tiny_bundle, reads)
    [record] = records.iterdir()
    path = {"record": record, "folder": records, "parent": records.parents[1]}[part]
    for mode in (0o020, 0o002):
        path.chmod(path.stat().st_mode & ~0o022 | mode)
        assert opened(tiny_bundle, reads)


def test_the_folders_of_others_are_not_trusted(
    tiny_bundle: Path, records: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tiny_bundle, reads)
    monkeypatch.setattr(os, "geteuid", lambda: records.stat().st_uid + 1)
    assert opened(tiny_bundle, reads)


def test_a_link_in_the_place_of_a_record_is_not_followed(
    tiny_bundle: Path, records: Path, reads: list[Path], tmp_path: Path
) -> None:
    opened(tiny_bundle, reads)
    [record] = records.iterdir()
    record.rename(tmp_path / "elsewhere")
    record.symlink_to(tmp_path / "elsewhere")
    assert opened(tiny_bundle, reads)
    assert not record.is_symlink()  # written again, as a file


def test_the_records_are_bounded(
    copy_of_tiny_bundle: Path, records: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checked_bundles, "MAX_RECORDS", 2)
    paths = [copy_of_tiny_bundle]
    for number in range(3):
        opened(paths[-1], reads)
        paths.append(paths[-1].rename(tmp_path / f"bundle{number}"))
    assert len(list(records.iterdir())) == 2


def test_no_room_for_records_is_no_error(
    tiny_bundle: Path, records: Path, reads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert [opened(tiny_bundle, reads) for _ in range(2)] == [True, True]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert [opened(tiny_bundle, reads) for _ in range(2)] == [True, False]
    assert len(list((tmp_path / "home").rglob("dmcodec/checked/*.json"))) == 1
