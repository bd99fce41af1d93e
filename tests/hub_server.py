"""A stand-in of the Hugging Face hub on this machine: the endpoints that downloads and commits use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<verb>preupload|commit|branch)/(?P<revision>.+)")


@dataclass
class Hub:
    """Repositories, what is wrong with them, and what was asked for.

    Attributes:
        branches: repository -> branch -> commit.
        commits: commit -> its files.
        errors: repository -> status and error code of the hub's answers.
        cut_bytes: path -> what is sent of it before the connection ends, as often as `cuts` says.
        lying: path -> what is sent in place of a file, under the etag of the file itself.
        requests: method, path, and the Range header.
    """

    url: str
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut_bytes: dict[str, int] = field(default_factory=dict)
    cuts: int = 0
    lying: Files = field(default_factory=dict)
    token: str | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    def commit(self, repo: str, files: Files, branch: str = "main") -> str:
        """Add files to a branch, and return the commit."""
        branches = self.branches.setdefault(repo, {})
        before = self.commits.get(branches.get(branch, ""), {})
        commit = hashlib.sha1(f"{repo}{len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = {**before, **files}
        branches[branch] = commit
        return commit

    def commit_folder(self, repo: str, folder: Path, branch: str = "main") -> str:
        """Add the files of a folder."""
        return self.commit(repo, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}, branch)

    def asked(self, method: str = "GET") -> list[str]:
        """Return the paths of the files that were asked for, without repository and revision."""
        found = (_RESOLVE.fullmatch(path) for each, path, _ in self.requests if each == method)
        return [match["path"] for match in found if match]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run the stand-in until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are joined at the end

    hub: Hub

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # else header and body are two packets, and the second waits
    disable_nagle_algorithm = True

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        if match := re.match(
            r"/api/models/([^/]+/[^/]+)/revision/", self.path
        ):  # of a snapshot, and of clients before 1.0
            self._revision(match[1], unquote(self._record().rpartition("/")[2]))
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)", self.path):
            self._record()
            files = self.hub.commits.get(self.hub.branches[match[1]].get(match[2], match[2]), {})
            sizes = [{"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40} for path in files]
            self._json(sizes)
        else:
            self._resolve()

    def _revision(self, repo: str, revision: str) -> None:
        branches = self.hub.branches.get(repo)
        if repo in self.hub.errors or branches is None:
            status, code = self.hub.errors.get(repo, (401, "RepoNotFound"))
            self._answer(status, b"", {"X-Error-Code": code} if code else {})
        elif branches and revision not in branches:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:  # a repository without a commit has some sha, too
            self._json({"id": repo, "sha": branches.get(revision, "0" * 40), "xetEnabled": False})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._record()
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/repos/create":
            values = json.loads(body)
            repo = f"{values['organization']}/{values['name']}"
            self.hub.branches.setdefault(repo, {})
            self._json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := _API.fullmatch(path):
            self._change(match["verb"], match["repo"], unquote(match["revision"]), body)
        else:
            self._answer(404, b"{}")

    def _change(self, verb: str, repo: str, revision: str, body: bytes) -> None:
        if verb == "preupload":
            files = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif verb == "branch":
            self.hub.commit(repo, {}, revision)
            self._json({})
        else:
            rows = [json.loads(line) for line in body.splitlines()]
            files = {
                row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows if row["key"] == "file"
            }
            commit = self.hub.commit(repo, files, revision)
            self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

    def _resolve(self) -> None:
        path = self._record()
        match = _RESOLVE.fullmatch(path)
        if not match:
            self._answer(404, b"")
            return
        repo, revision, name = match["repo"], unquote(match["revision"]), match["path"]
        if repo in self.hub.errors:
            status, code = self.hub.errors[repo]
            self._answer(status, b"", {"X-Error-Code": code} if code else {})
            return
        if repo not in self.hub.branches:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})  # as the hub answers those who are not logged in
            return
        commit = self.hub.branches[repo].get(revision, revision)
        if commit not in self.hub.commits:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif name not in self.hub.commits[commit]:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            self._file(commit, name, self.hub.commits[commit][name])

    def _file(self, commit: str, name: str, content: bytes) -> None:
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        status = 200
        if self.command == "GET":
            content = self.hub.lying.get(name, content)
        if self.command == "GET" and (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            headers["Content-Range"] = f"bytes {match[1]}-{len(content) - 1}/{len(content)}"
            content, status = content[int(match[1]) :], 206
        cut = self.hub.cut_bytes.get(name) if self.command == "GET" and self.hub.cuts > 0 else None
        if cut is None:
            self._answer(status, content, headers)
            return
        self.hub.cuts -= 1
        self._answer(status, content[:cut], headers, len(content))
        self.close_connection = True

    def _record(self) -> str:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, unquote(path), self.headers.get("Range")))
        self.hub.agents.add(self.headers.get("User-Agent") or "")
        return path

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...
