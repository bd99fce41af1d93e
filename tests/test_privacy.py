"""Nothing that dmcodec runs reports home: no cache of an identifier, and no look-up of a host, in any process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import pytest
from platforms import linux

from dmcodec.privacy import ONNXRUNTIME, RAY, REPORTS, off_value, switch_off_reports, wanted
from dmcodec.runtime.onnxruntime_import import load_module

# onnxruntime sends nothing where one of these says that it runs in CI: there the test could not fail.
CI_VARIABLES = ("CI", "TF_BUILD", "BUILD", "JENKINS", "TEAMCITY", "TRAVIS", "APPVEYOR", "CIRCLECI", "GITLAB", "GITHUB")
CONNECTION = re.compile(r"sa_family=AF_INET")
ENCODE = "import numpy as np; from dmcodec.runtime import Codec; Codec.load().encode(np.ones(16000, 'f4'), 16000)"


def environment(home: Path) -> dict[str, str]:
    """A user's environment, with a home of its own and without the variables that dmcodec sets."""
    removed = ("XDG_", "ORT_", "HF_", "DISABLE_", "RAY_", "DO_NOT_TRACK", "PYTEST", *CI_VARIABLES)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "HF_HUB_OFFLINE": "1"}


def run(arguments: list[str], home: Path, trace: Path | None = None) -> None:
    """Run Python; with `trace`, write its connections and those of its children there."""
    home.mkdir()
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    command = [*(strace if trace else []), sys.executable, *arguments]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False, cwd=home)
    assert done.returncode == 0, done.stderr


def strace_works(folder: Path) -> bool:
    """strace is installed, may trace, and shows a connection (of a datagram socket, which sends nothing)."""
    if not shutil.which("strace"):
        return False
    trace = folder / "probe"
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 53))"
    try:
        run(["-c", code], folder / "probe-home", trace)
    except AssertionError:  # not permitted, as in many containers
        return False
    assert CONNECTION.search(trace.read_text())
    return True


@pytest.fixture(scope="module")
def commands(tiny_bundle: Path, speech_wav: Path, tiny_model_files: tuple[Path, Path]) -> Mapping[str, list[str]]:
    """Python's arguments, for each kind of process that imports onnxruntime."""
    checkpoint, config = map(str, tiny_model_files)
    verb, bundle = ["-m", "dmcodec"], ["--bundle", str(tiny_bundle)]
    return {
        "library": ["-c", ENCODE],
        "encode": [*verb, "encode", str(speech_wav), "-o", "out.dmc", *bundle],
        "export": [*verb, "export", "--checkpoint", checkpoint, "--config", config, "--out", "made.bundle"],
        "triton": [*verb, "export", "--format", "triton", *bundle, "--out", "repository"],
        "verify": [*verb, "verify", *bundle],
        "bench": [*verb, "bench", *bundle, "--duration", "1", "--batch", "1", "--rounds", "1"],
        "doctor": [*verb, "doctor"],
    }


KINDS = ("library", "encode", "export", "triton", "verify", "bench", "doctor")


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_reports_home(kind: str, commands: Mapping[str, list[str]], tmp_path: Path) -> None:
    trace = tmp_path / "trace" if strace_works(tmp_path) else None
    run(commands[kind], tmp_path / "home", trace)
    assert not (tmp_path / "home" / ".cache" / "Microsoft").exists()
    assert not [path for path in (tmp_path / "home").rglob("*") if "onnxruntime" in path.name]
    if trace is None:
        pytest.skip("strace is missing or may not trace: the caches were looked at, the network was not")
    assert not [line for line in trace.read_text().splitlines() if CONNECTION.search(line)]


@linux
def test_strace_would_show_a_connection(tmp_path: Path) -> None:
    if not strace_works(tmp_path):
        pytest.skip("strace is missing or may not trace")


DISABLING = {"": "1", "2": "1", "1": "1", "true": "1", "0": "0", "false": "false", " Off": " Off"}
ENABLING = {"": "0", "2": "0", "0": "0", "true": "0", "1": "1"}  # ray fails for other values


@pytest.mark.parametrize("variable", REPORTS)
def test_reports_are_off_unless_the_user_switched_them_on(variable: str) -> None:
    off = off_value(variable)
    assert (off == "0") == (variable == RAY)
    for value, set_to in (ENABLING if variable == RAY else DISABLING).items():
        environment = {variable: value}
        assert wanted(variable, environment) == (set_to == value != off)
        switch_off_reports(environment)
        assert environment == {**{name: off_value(name) for name in REPORTS}, variable: set_to}


def test_importing_dmcodec_sets_the_variables(tmp_path: Path) -> None:
    values = {name: off_value(name) for name in REPORTS}
    code = f"import os, dmcodec; assert {values} == {{name: os.environ[name] for name in {list(values)}}}"
    run(["-c", code], tmp_path / "home")


@pytest.mark.parametrize(("value", "calls"), [(None, 1), ("0", 0)])
def test_an_onnxruntime_that_was_imported_before_is_switched_off(
    value: str | None, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[None] = []
    module = types.ModuleType("onnxruntime")
    monkeypatch.setattr(module, "disable_telemetry_events", lambda: called.append(None), raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.delenv(ONNXRUNTIME) if value is None else monkeypatch.setenv(ONNXRUNTIME, value)
    assert load_module() is module
    assert len(called) == calls
