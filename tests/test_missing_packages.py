"""A package that is missing gives one sentence with the extra that installs it, wherever it is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from structure import FOR_TYPES, imports

from dmcodec.config import CodecConfig
from dmcodec.errors import MissingDependencyError
from dmcodec.extras import EXTRAS, is_installed, missing_package, require
from dmcodec.sample import SPEECH_FILE

ROOT = Path(__file__).resolve().parents[1]
CORE = {"numpy", "soundfile", "soxr", "typer", "rich"}
# Module -> its distribution, where that has another name. grpc and google come with tritonclient[grpc].
DISTRIBUTIONS = {
    "PIL": "pillow", "ai_edge_litert": "visqol-python", "cuda": "cuda-bindings", "google": "tritonclient",
    "grpc": "tritonclient", "onnxruntime_ep_nv_tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx",
    "pynvml": "nvidia-ml-py", "tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx",
    "visqol": "visqol-python",
}  # fmt: skip
RESEMBLYZER = "resemblyzer"  # of no extra: its own requirements conflict; its error names the commands


def extras() -> dict[str, set[str]]:
    """Return the distributions of each extra, with those of the extras that it includes."""
    lines: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    def names(extra: str) -> set[str]:
        found = set()
        for line in lines[extra]:
            if match := re.match(r"dmcodec\[(.*)\]", line):
                found |= set().union(*map(names, match[1].split(",")))
            else:
                found.add(re.split(r"[\[<>=; ]", line)[0])
        return found

    return {extra: names(extra) for extra in lines}


def test_every_package_that_is_imported_has_its_extra() -> None:
    imported = {each.target.split(".")[0] for each in imports(ROOT) if each.when != FOR_TYPES}
    third_party = imported - set(sys.stdlib_module_names) - CORE - {"dmcodec", RESEMBLYZER}
    assert len(third_party) > 15
    assert third_party <= set(EXTRAS), "add these to dmcodec/extras.py"


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extras_are_those_of_pyproject(module: str) -> None:
    distribution = DISTRIBUTIONS.get(module, module)
    having = {extra for extra, names in extras().items() if distribution in names} - {"dev", "docs"}
    if module == "onnxruntime":
        having.add("gpu")  # onnxruntime-gpu, which is another distribution of it
    if module == "tensorrt":
        having.add("trt-cu12")  # tensorrt-cu12, likewise
    assert set(EXTRAS[module]) == having


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert not is_installed(module)
    with pytest.raises(MissingDependencyError) as found:
        require("this work", EXTRAS[module][-1], module)
    pattern = rf'this work needs [\w-]+, which is not installed; run `pip install "dmcodec\[{EXTRAS[module][-1]}\]"`'
    assert re.fullmatch(pattern, str(found.value))
    submodule = missing_package(ModuleNotFoundError(name=f"{module}.part"), "this work", "docs")
    assert f'"dmcodec[{EXTRAS[module][0]}]"' in str(submodule)


def test_other_packages_that_are_missing() -> None:
    assert "run `pip check`" in str(missing_package(ModuleNotFoundError(name="flatbuffers"), "encode"))
    newer = missing_package(ModuleNotFoundError(name="onnx.new_part"), "export", "cpu,export")
    assert str(newer) == (
        "export needs onnx.new_part, which the installed onnx does not have; "
        'run `pip install --upgrade "dmcodec[cpu,export]"`'
    )
    require("this work", "export", "onnx")


# As in an environment without the packages, in worker processes too.
HIDE = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in os.environ["HIDDEN_MODULES"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
EXPORT = ("export", "--checkpoint", "x.safetensors", "--config", "c.json")
EVALUATE = ("evaluate", "--reference", "ref", "--against", "r=ref", "--metrics")


@pytest.mark.parametrize(
    ("hidden", "arguments", "message"),
    [
        ("torch", ("bench", "--against", "torch"), 'needs torch.*"dmcodec[export]"'),
        ("scipy", (*EVALUATE, "mel"), 'needs scipy.*"dmcodec[evaluate]"'),
        ("visqol", (*EVALUATE, "visqol"), 'needs visqol-python.*"dmcodec[evaluate]"'),
        ("PIL", (*EVALUATE, "mel", "--report", "r.html"), 'needs pillow.*"dmcodec[evaluate]"'),
        ("grpc", ("export", "--format", "triton", "--out", "o"), 'needs grpc.*"dmcodec[triton]"'),
        (
            "safetensors",
            (*EXPORT, "--out", "o"),
            'needs safetensors.*export]"',
        ),
        ("onnxruntime", ("encode", "ref/a.flac", "-o", "o.dmc"), 'onnxruntime is not installed.*"dmcodec[cpu]"'),
    ],
)
def test_the_command_says_which_extra_to_install(
    hidden: str, arguments: tuple[str, ...], message: str, tmp_path: Path, tiny_config: CodecConfig
) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "a.flac").write_bytes(SPEECH_FILE.read_bytes())
    (tmp_path / "x.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    (tmp_path / "c.json").write_text(json.dumps(tiny_config.to_dict()))
    path = os.pathsep.join([str(tmp_path / "hide"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "dmcodec", *arguments],
        env={**os.environ, "PYTHONPATH": path, "HIDDEN_MODULES": hidden},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    [*_, last] = done.stderr.strip().splitlines()
    before, _, after = message.partition(".*")
    assert re.search(f"^error: .*{re.escape(before)}.*{re.escape(after)}", last), done.stderr
    assert done.returncode == 1
