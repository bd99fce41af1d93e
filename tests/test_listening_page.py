"""The listening page in a real browser: it opens, shows its pictures, and plays, one player at a time."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run_evaluation
from dmcodec.benchmarks.evaluate.page import HEIGHT_PX, WIDTH_PX, levels_db, render_page
from dmcodec.sample import speech

RATE = 16000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '<b>it\'s & "so"<script>alert(1)<'


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    root = tmp_path_factory.mktemp("page")
    talk = speech(6 * RATE, RATE)
    for folder in ("original", "good", "short"):
        (root / folder).mkdir()
    for index, name in enumerate((NASTY.replace("/", ""), "zwei")):
        wave = talk[index * 2 * RATE :][: 2 * RATE]
        soundfile.write(root / "original" / f"{name}.wav", wave, RATE)
        soundfile.write(root / "good" / f"{name}.wav", wave + 0.003 * np.sin(np.arange(len(wave))), RATE)
    soundfile.write(root / "short/zwei.wav", talk[2 * RATE : 3 * RATE], RATE)
    options = EvaluateOptions(
        root / "original",
        against=(Named(root / "good", NASTY), Named(root / "short")),
        metrics=("si-sdr", "mel"),
        allow_missing=True,
        report_clips=8,
        command="dmcodec evaluate <x>",
    )
    return run_evaluation(options)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("html") / "page.html"
    path.write_text(render_page(evaluation), encoding="utf-8")
    return path


def test_the_page_needs_nothing_from_outside_and_escapes_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    assert text.count("<script>") == 1
    assert "<b>it" not in text
    assert "&lt;b&gt;it&#x27;s &amp; &quot;so&quot;&lt;script&gt;" in text
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]*)"', text)
    assert len(sounds) == 5  # two originals, two good, one short
    assert [base64.b64decode(sound)[:4] for sound in sounds] == [b"fLaC"] * 5
    assert "no file of this name" in text


def test_spectrograms_show_where_the_energy_is() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    levels = levels_db(tone, 2 * RATE)
    assert levels.shape == (257, WIDTH_PX)
    assert levels[:, WIDTH_PX // 4].argmax() == 64  # 2 kHz of 8
    assert levels[:, -10:].max() < -100  # the second half of the axis has no sound
    assert HEIGHT_PX < WIDTH_PX


class Browser:
    """Chromium over its debugging pipe."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._number = send, 0
        self._receive = os.fdopen(receive, "rb")
        self.session: str | None = None

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = b""
            while not answer.endswith(b"\0"):
                byte = self._receive.read(1)
                assert byte, "the browser is gone"
                answer += byte
            found = json.loads(answer[:-1])
            if found.get("id") == self._number:
                assert "result" in found, found
                return found["result"]

    def close(self) -> None:
        os.close(self._send)
        self._receive.close()

    def run(self, script: str) -> Any:
        """Runs the body of an async function in the page; what it returns."""
        found = self.call(
            "Runtime.evaluate", expression=f"(async () => {{{script}}})()", awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    # Chromium speaks on descriptors 3 and 4.
    command = (
        f'exec "{CHROMIUM}" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe '
        f'--autoplay-policy=no-user-gesture-required --mute-audio --user-data-dir="{profile}" about:blank '
        f"3<&{to_read} 4>&{to_write}"
    )
    process = subprocess.Popen(["bash", "-c", command], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(to_write)
    with contextlib.closing(Browser(send, receive)) as found:
        try:
            yield found
        finally:
            process.kill()
            process.wait()


SETUP = """
const players = [...document.querySelectorAll('audio')];
const sleep = ms => new Promise(done => setTimeout(done, ms));
const until = async (test, what) => {
  for (let i = 0; i < 400; i++) { if (test()) return; await sleep(25); }
  throw new Error('never: ' + what);
};
"""


def test_the_page_plays_in_a_browser(page: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        target = chromium.call("Target.createTarget", url=page.as_uri())["targetId"]
        chromium.session = chromium.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        while chromium.run("return location.protocol + document.readyState") != "file:complete":  # not about:blank
            time.sleep(0.02)
        images = chromium.run("return [...document.images].map(image => [image.complete, image.naturalWidth])")
        assert images == [[True, WIDTH_PX]] * 5

        found = chromium.run(
            SETUP
            + """
            const [first, second] = players;
            await first.play();
            await until(() => first.currentTime > 0.3, 'the first plays on');
            await second.play();
            await until(() => first.paused, 'the first stops');
            await until(() => second.currentTime > 0.4, 'the second goes on from there');
            const cards = document.querySelectorAll('.card.playing').length;
            const bar = second.closest('.card').querySelector('i');
            await until(() => parseFloat(bar.style.left.slice(5)) > 10, 'the bar');
            second.pause();
            return {durations: players.map(p => p.duration), cards, error: players.map(p => p.error)};
            """
        )
        assert found["durations"] == pytest.approx([2, 2, 2, 2, 1], abs=0.01)
        assert found["cards"] == 1
        assert found["error"] == [None] * 5

        clicked = chromium.run(
            SETUP
            + """
            const view = players[3].closest('.card').querySelector('.view');
            const box = view.getBoundingClientRect();
            view.dispatchEvent(new MouseEvent('click', {clientX: box.left + 0.5 * box.width, bubbles: true}));
            await until(() => !players[3].paused && players[3].currentTime > 1, 'plays from the middle');
            return players.filter(player => !player.paused).length;
            """
        )
        assert clicked == 1
        wide = chromium.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert wide
