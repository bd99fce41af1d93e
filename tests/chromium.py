"""Chromium over its debugging pipe, for tests of pages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe "
    "--autoplay-policy=no-user-gesture-required --mute-audio"
)


class Browser:
    """A browser with one page. Errors of the page's scripts, and what its policy refuses, are in `errors`."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._number = send, 0
        self._receive = os.fdopen(receive, "rb")
        self._session: str | None = None
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = bytearray()
            while not answer.endswith(b"\0"):
                byte = self._receive.read(1)
                assert byte, "the browser is gone"
                answer += byte
            found = json.loads(answer[:-1])
            if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(found["params"]))
            if found.get("id") == self._number:
                assert "result" in found, found
                return found["result"]

    def open(self, page: Path) -> None:
        """Open a page in a new tab and wait until it is there."""
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=page.as_uri())
        self.wait("file:complete")

    def reload(self) -> None:
        """Load the page again, as a user does."""
        self.run("window.stale = true")
        self.call("Page.reload")
        while self.run("return window.stale === true"):
            time.sleep(0.02)
        self.wait("file:complete")

    def wait(self, state: str) -> None:
        """Wait until protocol and state of the document are these."""
        while self.run("return location.protocol + document.readyState") != state:
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """Run the body of an async function in the page; return what it returns."""
        found = self.call(
            "Runtime.evaluate", expression=f"(async () => {{{script}}})()", awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def resize(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Show the page in a window of this size, light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def overflows(self) -> bool:
        """Return whether the page is wider than the window."""
        return bool(self.run("return document.documentElement.scrollWidth > window.innerWidth"))

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._send)
        self._receive.close()


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    # Chromium speaks on descriptors 3 and 4.
    command = f'exec "{CHROMIUM}" {_FLAGS} --user-data-dir="{profile}" about:blank 3<&{to_read} 4>&{to_write}'
    process = subprocess.Popen(["bash", "-c", command], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(to_write)
    with contextlib.closing(Browser(send, receive)) as found:
        try:
            yield found
        finally:
            process.kill()
            process.wait()
