"""The JavaScript examples of the documentation run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
WEB = REPOSITORY / "runtime/web"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no Node.js on this machine")
@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="run `npm ci` in runtime/web")
def test_the_examples_run(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/how-to/embed-in-a-web-page.md").read_text()
    [example] = re.findall(r"^```js\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "/tmp/speech.dmc" in example
    script = example.replace("/tmp/speech.dmc", str(tmp_path / "speech.dmc")).replace('"./src', f'"{WEB}/src')
    (tmp_path / "example.mjs").write_text(script)
    done = subprocess.run(
        [str(NODE), str(tmp_path / "example.mjs")], cwd=WEB, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["8 101 4000", "32160 32320"]
