"""Work in a process of its own: whatever happens to it, a crash included, becomes a value."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

DMCODEC = (sys.executable, "-c", "from dmcodec.cli import main; main()")
_LAST_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        ok: it ended with exit status 0.
        value: the JSON document that it printed; a process that failed may have printed one, too.
        reason: why it failed, in one line.
        took_s: wall clock time.
    """

    ok: bool
    value: Any = None
    reason: str | None = None
    took_s: float = 0.0


def run_json(command: Sequence[str], timeout_s: float) -> Outcome:
    """Runs a command that prints one JSON document."""
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Outcome(False, None, f"took longer than {timeout_s:g} s and was ended", time.perf_counter() - start)
    except OSError as error:
        return Outcome(False, None, f"could not be started: {error}")
    took_s = time.perf_counter() - start
    value = _parsed(done.stdout)
    if done.returncode:
        return Outcome(False, value, _reason(done), took_s)
    if value is None:
        return Outcome(False, None, f"printed no JSON: {done.stdout[:_LAST_CHARACTERS]!r}", took_s)
    return Outcome(True, value, None, took_s)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    # Wrong calls come in a frame.
    lines = [text for line in done.stderr.splitlines() if any(map(str.isalpha, text := line.strip("│╭╰─╮╯ ")))]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = errors[-1] if errors else (lines[-1].strip()[-_LAST_CHARACTERS:] if lines else "")
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"crashed with {name}" + (f" ({said})" if said else "")
    return said or f"exit status {done.returncode}"
