"""The wheel in a new environment, and a plain clone beside it: what can be imported where."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKS = {"runtime": "../runtime", "export": "../export", "benchmarks": "../benchmarks"}
TORCH_SIDE = ("dmcodec.nn", "dmcodec.training", "dmcodec.export", "dmcodec.benchmarks")

IMPORT_ALL = """
import importlib, sys, dmcodec
sys.modules["torch"] = None
failed = []
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except ImportError as error:
        if error.name != "torch" and "torch" not in str(error):
            raise
        failed.append(name)
print(dmcodec.__file__)
print(*failed)
"""


def call(*command: object, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without what this environment adds to Python's path."""
    words = [str(word) for word in command]
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(words, cwd=cwd, env=plain, input=text, capture_output=True, text=True, check=False)


def run(*command: object, cwd: Path, text: str | None = None) -> str:
    done = call(*command, cwd=cwd, text=text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked_files() -> Iterator[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a clone: git names no files here")
    return (name for name in done.stdout.split("\0") if name and os.path.lexists(ROOT / name))


def copy_clone(target: Path) -> Path:
    """Copy what git knows: what a new clone holds."""
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name, follow_symlinks=False)
    return target


def build_wheel(source: Path, target: Path) -> Path:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *options, target, source, cwd=source)
    [wheel] = target.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of every file."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = copy_clone(tmp_path_factory.mktemp("plain") / "clone")
    if not all((clone / "dmcodec" / name).is_symlink() for name in LINKS):
        pytest.skip("this checkout holds no symbolic links")
    return clone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a checkout without links; where git makes none, they are text files that hold the target."""
    source = copy_clone(tmp_path_factory.mktemp("text") / "clone")
    for name, target in LINKS.items():
        (source / "dmcodec" / name).unlink()
        (source / "dmcodec" / name).write_text(target)
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that holds the wheel; its dependencies are this environment's."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    options = ("--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=environment)
    # Not --system-site-packages, which is the base Python's. Folders that a .pth names bring no editable installs.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=environment).strip())
    others = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(others)))
    return python


def test_the_wheel_holds_each_file_once_and_nothing_but_dmcodec(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dmcodec"}
    assert max(Counter(names).values()) == 1
    folders = ("dmcodec", *LINKS)
    expected = [name for name in tracked_files() if name.endswith(".py") and name.split("/")[0] in folders]
    assert len([name for name in names if name.endswith(".py")]) == len(expected)


def test_a_checkout_without_links_builds_the_same_wheel(clone: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build_wheel(clone, tmp_path)) == contents(wheel)


@pytest.mark.parametrize("place", ["the clone's root", "another folder"])
def test_all_that_needs_no_torch_imports(place: str, clone: Path, wheel: Path, python: Path, tmp_path: Path) -> None:
    cwd = clone if place == "the clone's root" else tmp_path
    names = [name.removesuffix(".py").removesuffix("/__init__") for name in contents(wheel) if name.endswith(".py")]
    modules = sorted(name.replace("/", ".") for name in names if not name.endswith("__main__"))
    file, failed = run(python, "-c", IMPORT_ALL, cwd=cwd, text="\n".join(modules)).splitlines()
    assert Path(file).is_relative_to(cwd if cwd == clone else python.parents[1])
    assert len(modules) > 100
    assert len(failed.split()) < len(modules) / 4
    assert all(name.startswith(TORCH_SIDE) for name in failed.split()), failed
    run(python, "-c", "from dmcodec.runtime import Codec; assert Codec.load().sample_rate == 16000", cwd=cwd)


IMPORTS = "import dmcodec.runtime\nimport dmcodec.export\nimport dmcodec.benchmarks\nimport dmcodec.no_such_folder\n"


def test_mypy_finds_the_folders_in_a_plain_clone(clone: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    options = ("--follow-imports=skip", "--cache-dir", tmp_path)
    done = call(sys.executable, "-m", "mypy", *options, "-c", IMPORTS, cwd=clone)
    assert "no_such_folder" in done.stdout
    assert "Found 1 error" in done.stdout, done.stdout


def test_pyright_finds_the_folders_in_a_plain_clone(clone: Path) -> None:
    pyright = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if pyright is None:
        pytest.skip("pyright is not installed")
    (clone / "probe.py").write_text(IMPORTS)
    done = call(pyright, "probe.py", cwd=clone)
    if "probe.py" not in done.stdout:
        pytest.skip("pyright cannot run here")
    assert "no_such_folder" in done.stdout
    assert "1 error" in done.stdout, done.stdout
