"""Name the Python files, of those given, that have over 400 lines; exit with 1 where there is one."""

from __future__ import annotations

import sys
from pathlib import Path

MOST_LINES = 400


def main(paths: list[str]) -> int:
    """Print a line for each file that is too long."""
    lengths = {path: len(Path(path).read_text(encoding="utf-8").splitlines()) for path in paths}
    too_long = {path: length for path, length in lengths.items() if length > MOST_LINES}
    for path, length in too_long.items():
        print(f"{path}: {length} lines; split it by subject (at most {MOST_LINES})")
    return 1 if too_long else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
