"""Install the lowest version of every direct dependency into a new environment, and run the tests there.

    python scripts/lowest_versions.py /tmp/lowest                   # everything, then the whole suite
    python scripts/lowest_versions.py /tmp/lowest -- -q tests/test_cli.py
    python scripts/lowest_versions.py /tmp/lowest --keep --pin typer==0.15.4 -- -q tests/test_cli.py
    python scripts/lowest_versions.py --print                       # the constraints, and nothing else

A lower bound in pyproject.toml is a version with which the whole suite passed in such an environment, on Linux with
Python 3.11. Indirect dependencies are the newest that fit. What no test here can run (`gpu` and `trt` need an NVIDIA
GPU) is not in `dev` and is not tried.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]


def direct_requirements(extras: list[str]) -> Iterator[Requirement]:
    """Yield the requirements of the package and of these extras; extras of its own name are followed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pending, seen = list(extras), set(extras)
    lines = list(project["dependencies"])
    while pending:
        lines += project["optional-dependencies"][pending.pop()]
    while lines:
        requirement = Requirement(lines.pop())
        if requirement.name != project["name"]:
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement
            continue
        for extra in requirement.extras - seen:
            seen.add(extra)
            lines += project["optional-dependencies"][extra]


def constraints(extras: list[str], pins: list[str]) -> list[str]:
    """Return `name==version` for each direct requirement: the pin where there is one, else the highest lower bound."""
    from packaging.version import Version

    lowest: dict[str, Version] = {}
    for requirement in direct_requirements(extras):
        bounds = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==", "~=")]
        if not bounds:
            raise SystemExit(f"error: {requirement} has no lower bound")
        lowest[requirement.name] = max(*bounds, lowest.get(requirement.name, Version("0")))
    lines = {name: f"{name}=={version}" for name, version in sorted(lowest.items())}
    lines |= {Requirement(pin).name: pin for pin in pins}
    return list(lines.values())


def install(environment: Path, extras: list[str], lines: list[str], keep: bool) -> Path:
    """Make the environment, install the package with the constraints, and return its Python."""
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (keep and python.exists()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    file = environment / "lowest.txt"
    file.write_text("\n".join(lines) + "\n")
    package = f"{REPOSITORY}[{','.join(extras)}]"
    subprocess.run([python, "-m", "pip", "install", "--constraint", file, "--editable", package], check=True)
    return python


def main() -> int:
    """Make the environment and run pytest in it; return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environment", nargs="?", type=Path, help="folder of the new environment")
    parser.add_argument("--extras", default="dev", help="extras to install, separated by commas (default: dev)")
    parser.add_argument("--pin", action="append", default=[], metavar="NAME==VERSION", help="instead of its bound")
    parser.add_argument("--keep", action="store_true", help="change the environment that is there")
    parser.add_argument("--print", action="store_true", help="print the constraints only")
    parser.epilog = "What follows -- goes to pytest."
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    options, tests = parser.parse_args(given[:end]), given[end + 1 :]
    extras = options.extras.split(",")
    lines = constraints(extras, options.pin)
    print("\n".join(lines), flush=True)
    if options.print:
        return 0
    if options.environment is None:
        parser.error("name a folder for the environment")
    python = install(options.environment.resolve(), extras, lines, options.keep)
    return subprocess.run([python, "-m", "pytest", *tests], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
