"""`dmcodec demo`: its server, its files, and where it takes ONNX Runtime Web from."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.demo import DemoServer, Site, find_onnxruntime_web, onnxruntime_web
from dmcodec.demo.site import ORT_FILES
from dmcodec.errors import ArgumentError, MissingDependencyError

posix = pytest.mark.skipif(os.name == "nt", reason="a shell script stands for npm")


@pytest.fixture
def ort_folder(tmp_path: Path) -> Path:
    """Files with the names of ONNX Runtime Web's."""
    folder = tmp_path / "ort"
    folder.mkdir()
    for name in ORT_FILES:
        (folder / name).write_text(f"// {name}")
    return folder


@pytest.fixture
def server(ort_folder: Path) -> Iterator[DemoServer]:
    with DemoServer(Site.of(Bundle.open(default_bundle_path()), ort_folder), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url) as response:
        return response.read(), response.headers["Content-Type"]


def test_the_page_its_modules_and_the_bundle_are_served(server: DemoServer) -> None:
    page, kind = get(server.url)
    assert b"Nothing leaves this machine" in page
    assert kind.startswith("text/html")
    for name, expected in {
        "page/app.js": "text/javascript; charset=utf-8",
        "src/worker.js": "text/javascript; charset=utf-8",
        "service_worker.js": "text/javascript; charset=utf-8",
        "ort/ort-wasm-simd-threaded.wasm": "application/wasm",
        "sample.flac": "audio/flac",
    }.items():
        assert get(server.url + name)[1] == expected
    assert get(server.url + "bundle/manifest.json")[0] == (default_bundle_path() / "manifest.json").read_bytes()
    assert get(server.url + "bundle/weights.bin")[0] == (default_bundle_path() / "weights.bin").read_bytes()


def test_the_page_loads_nothing_from_elsewhere(server: DemoServer) -> None:
    for name, path in server.site.files.items():
        if path.suffix in {".html", ".css", ".js"} and not name.startswith("ort/"):
            text = path.read_text()
            assert "http://" not in text, name
            assert "https://" not in text, name


@pytest.mark.parametrize(
    "path", ["nowhere", "../pyproject.toml", "page/../../pyproject.toml", "%2e%2e/x", "page", "page/"]
)
def test_other_files_are_not_served(server: DemoServer, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server.url + path)


def test_a_page_of_elsewhere_gets_nothing(server: DemoServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/bundle/weights.bin", headers={"Host": "elsewhere.example"})
    assert connection.getresponse().status == 404
    connection.close()


def test_it_listens_on_this_machine_only(server: DemoServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_named(server: DemoServer) -> None:
    with pytest.raises(ArgumentError, match=rf"--port {server.server_port}: can't be used"):
        DemoServer(server.site, server.server_port)


def test_a_folder_without_the_files_is_refused(ort_folder: Path) -> None:
    assert find_onnxruntime_web(ort_folder) == ort_folder
    (ort_folder / ORT_FILES[2]).unlink()
    with pytest.raises(ArgumentError, match=ORT_FILES[2]):
        find_onnxruntime_web(ort_folder)


@pytest.fixture
def no_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No `node_modules`, an empty cache, and a lock file of a package whose hash is known."""
    web = tmp_path / "web"
    web.mkdir()
    monkeypatch.setattr(onnxruntime_web, "web_folder", lambda: web)
    monkeypatch.setattr(onnxruntime_web, "_cache_folder", lambda: tmp_path / "cache")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ORT_FILES:
            content = f"// {name}".encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "package.tgz").write_bytes(archive.getvalue())
    digest = base64.b64encode(hashlib.sha512(archive.getvalue()).digest()).decode()
    entry = {"version": "1.2.3", "integrity": f"sha512-{digest}"}
    lock = {"packages": {"node_modules/onnxruntime-web": entry}}
    (web / "package-lock.json").write_text(json.dumps(lock))
    return tmp_path


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tools = folder / "tools"
    tools.mkdir()
    (tools / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")


@posix
def test_npm_fetches_the_locked_version_once(no_clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, package = no_clone / "log", no_clone / "package.tgz"
    fake_npm(no_clone, monkeypatch, f'echo "$@" >> {log}; cp {package} "$4/"')
    for _ in range(2):
        folder = find_onnxruntime_web()
        assert {path.name for path in folder.iterdir()} == set(ORT_FILES)
    calls = log.read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("pack onnxruntime-web@1.2.3 --pack-destination ")


@posix
@pytest.mark.parametrize(
    ("script", "problem"),
    [("exit 1", "is the network there"), ('echo other > "$4/x.tgz"', "not the package of the lock file")],
)
def test_a_failed_or_altered_fetch_leaves_nothing(
    no_clone: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    fake_npm(no_clone, monkeypatch, script)
    with pytest.raises(MissingDependencyError, match=problem):
        find_onnxruntime_web()
    assert not (no_clone / "cache/onnxruntime-web-1.2.3").exists()


def test_without_npm_the_way_out_is_named(no_clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"install Node\.js, or name the folder .* --ort-web"):
        find_onnxruntime_web()


@posix
def test_the_command_prints_the_address_and_ends_with_ctrl_c(ort_folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "dmcodec",
        "demo",
        "--no-open",
        "--port",
        "0",
        "--ort-web",
        str(ort_folder),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    restore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 - ignored under some parents
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=restore) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert b"<title>" in get(line.split()[0])[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
