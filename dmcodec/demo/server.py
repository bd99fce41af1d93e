"""A web server for the page, on the loopback address: only this machine can reach it."""

from __future__ import annotations

import shutil
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dmcodec.errors import ArgumentError

from .site import Site

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".flac": "audio/flac",
}


class DemoServer(ThreadingHTTPServer):
    """Serves a site on 127.0.0.1 until `shutdown`.

    Args:
        site: the files.
        port: 0 takes a free one.

    Raises:
        ArgumentError: the port is taken, or needs rights that this process lacks.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        if not 0 <= port <= 65535:
            raise ArgumentError(f"--port must be 0 to 65535, not {port}")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ArgumentError(
                f"--port {port}: can't be used ({error.strerror or error}); name another, or 0 for a free one"
            ) from None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing: each visit asks for some thirty files."""

    def _answer(self, body: bool) -> None:
        path = self._file()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            file = path.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(path.stat().st_size))
            self.send_header("Cache-Control", "no-cache")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                try:
                    shutil.copyfileobj(file, self.wfile)
                except ConnectionError:  # the browser left
                    self.close_connection = True

    def _file(self) -> Path | None:
        """Return the file that was asked for; None where there is none, or another site's page asks."""
        names = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in names:  # a name of elsewhere that leads to this address
            return None
        address = unquote(urlsplit(self.path).path).removeprefix("/")
        return self.server.site.files.get(address or "index.html")
