"""CPUs that count: affinity, quotas of containers (cgroup version 1 and 2) and OMP_NUM_THREADS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from platforms import linux

from dmcodec import cpus
from dmcodec.cpus import cpu_quota, default_threads, usable_cpus
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend

V2 = "30 23 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:26 {mounted} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:27 {mounted} /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_available_cpus", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def machine(root: Path, group: str, mounts: str, mounted: str = "/", **files: str) -> Path:
    """A file system with these files below /sys/fs/cgroup; `__` in a name stands for `/`."""
    for name, text in {
        "proc/self/cgroup": group,
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n" + mounts.format(mounted=mounted),
        **{f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in files.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(quota: object, period: object = 100000, folder: str = "cpu,cpuacct") -> dict[str, str]:
    return {f"{folder}__cpu.cfs_quota_us": f"{quota}\n", f"{folder}__cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("limit", "quota", "usable"),
    [
        ("200000 100000", 2, 2),
        ("150000 100000", 1.5, 1),
        ("50000 100000", 0.5, 1),
        ("50000 50000", 1, 1),
        ("3200000 100000", 32, 16),
        ("max 100000", None, 16),
        ("max", None, 16),
        ("", None, 16),
        ("0 0", None, 16),
        ("nonsense", None, 16),
    ],
)
def test_a_quota_of_version_2(limit: str, quota: float | None, usable: int, tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", V2, **{"cpu.max": limit})
    assert (cpu_quota(root), usable_cpus(root)) == (quota, usable)


@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota"), [(200000, 100000, 2), (25000, 50000, 0.5), (-1, 100000, None), ("", "", None)]
)
def test_a_quota_of_version_1(quota_us: object, period_us: object, quota: float | None, tmp_path: Path) -> None:
    group = "12:cpuset:/\n4:cpu,cpuacct:/\n1:name=systemd:/\n"
    assert cpu_quota(machine(tmp_path, group, V1, **v1(quota_us, period_us))) == quota


def test_the_smallest_quota_above_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "0::/kubepods/pod1/c:1\n",
        V2,
        **{"kubepods__cpu.max": "800000 100000", "kubepods__pod1__cpu.max": "300000 100000"},
        **{"kubepods__pod1__c:1__cpu.max": "max 100000", "other__cpu.max": "100000 100000"},
    )
    assert cpu_quota(root) == 3


def test_a_container_that_sees_the_path_on_its_host(tmp_path: Path) -> None:
    """The mount point is the container's own cgroup, or, where nothing fits, the best that there is."""
    assert cpu_quota(machine(tmp_path / "a", "0::/docker/ab\n", V2, "/docker/ab", **{"cpu.max": "200000 100000"})) == 2
    nested = {"x__cpu.max": "100000 100000", "cpu.max": "200000 100000"}
    assert cpu_quota(machine(tmp_path / "b", "0::/docker/ab/x\n", V2, "/docker/ab", **nested)) == 1
    assert cpu_quota(machine(tmp_path / "c", "0::/docker/abc/x\n", V2, "/docker/ab", **nested)) == 2
    assert cpu_quota(machine(tmp_path / "d", "0::/../../x\n", V2, **nested)) == 1
    folder = "cpu,cpuacct__job"
    root = machine(tmp_path / "e", "4:cpuacct,cpu:/slurm/job\n", V1, "/slurm", **v1(400000, folder=folder))
    assert cpu_quota(root) == 4


def test_both_versions_at_once(tmp_path: Path) -> None:
    hybrid = V1 + "33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = {**v1(600000), "unified__cpu.max": "700000 100000"}
    assert cpu_quota(machine(tmp_path, "4:cpu,cpuacct:/\n0::/\n", hybrid, **files)) == 6


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    mounts = r"30 23 0:26 / /sys/fs/cgroup/a\040b rw - cgroup2 cgroup2 rw" + "\n"
    assert cpu_quota(machine(tmp_path, "0::/\n", mounts, **{"a b__cpu.max": "200000 100000"})) == 2


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None  # no /proc, as on macOS and Windows
    root = machine(tmp_path, "0::/\n", V2)
    assert cpu_quota(root) is None
    (root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # a folder can't be read as a file, whoever asks
    (root / "proc/self/cgroup").write_bytes(b"0::/gr\xfc\xdfe\n\xff\n")
    assert (cpu_quota(root), usable_cpus(root)) == (None, 16)


@pytest.mark.parametrize(
    ("value", "threads"),
    [("2", 2), (" 3 ", 3), ("4,2", 4), ("64", 8), ("0", 8), ("-1", 8), ("", 8), ("many", 8), ("2.5", 8)],
)
def test_openmp_threads_are_a_limit(value: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, "0::/\n", V2, **{"cpu.max": "800000 100000"})
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert (default_threads(root), usable_cpus(root)) == (threads, 8)


def test_the_backend_takes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(cpus, "cpu_quota", lambda root: 7.9)
    assert OnnxRuntimeBackend().threads == 3
    assert OnnxRuntimeBackend(threads=5).threads == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert OnnxRuntimeBackend().threads == 7


@linux
def test_the_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def test_torch_takes_no_more_threads_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "cpu_quota", lambda root: 3.0)
    before = torch.get_num_threads()
    try:
        found = []
        for own, asked in ((8, None), (2, None), (2, 5)):
            torch.set_num_threads(own)
            cpus.set_torch_threads(asked)
            found.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert found == [3, 2, 5]
