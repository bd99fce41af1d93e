"""The structure of the repository: who imports whom, how long files are, and what pyproject.toml lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structure import (
    MAX_LINES,
    RULES,
    circles,
    directions,
    docstrings,
    imports,
    listed_packages,
    long_files,
    modules,
    onnxruntime_imports,
    relative_imports,
    torch_at_import,
)

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]

# A small tree that keeps all rules.
PYPROJECT = """
[tool.setuptools]
packages = ["dmcodec", "dmcodec.cli", "dmcodec.export", "dmcodec.export.tensorrt", "dmcodec.nn", "dmcodec.runtime"]
[tool.setuptools.package-dir]
"dmcodec" = "dmcodec"
"dmcodec.export" = "export"
"dmcodec.runtime" = "runtime"
"""
ORT = "onnxruntime"
DOC = '"""What it is."""\n'
TREE = {
    "pyproject.toml": PYPROJECT,
    "dmcodec/__init__.py": DOC,
    "dmcodec/__main__.py": DOC + "from dmcodec.cli import main\n",
    "dmcodec/a.py": DOC + "from .b import x\n",
    "dmcodec/b.py": DOC + "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import y\n",
    "dmcodec/pull.py": DOC + "def pull():\n    from dmcodec.nn import model\n",
    "dmcodec/cli/__init__.py": DOC + "from dmcodec.runtime.codec import Codec\n",
    "dmcodec/nn/__init__.py": DOC,
    "dmcodec/nn/model.py": DOC + "import torch\n",
    "export/__init__.py": DOC,
    "export/graphs.py": DOC + "import torch\nfrom dmcodec.nn.model import x\nfrom dmcodec.runtime import codec\n",
    "export/parity.py": DOC + "def f():\n    import torch\n",
    "export/tensorrt/__init__.py": DOC,
    "export/tensorrt/build.py": DOC + "from dmcodec.export.graphs import x\n",
    "runtime/__init__.py": DOC + "from .codec import Codec\n",
    "runtime/codec.py": DOC + "from dmcodec.a import x\nfrom . import batching\n",
    "runtime/batching.py": DOC,
    "runtime/onnxruntime_import.py": DOC + "def f():\n    import onnxruntime\n",
    "tests/test_a.py": "from dmcodec.runtime import codec\nimport torch\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes TREE, with files added or replaced; the files of the sister folders are linked in dmcodec/."""

    def write(**changes: str) -> Path:
        for name, text in {**TREE, **changes}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "dmcodec" / "runtime").symlink_to(tmp_path / "runtime")
        return tmp_path

    return write


@pytest.mark.parametrize("rule", RULES)
def test_the_repository_keeps_its_rules(rule: Rule) -> None:
    assert (violations := rule(ROOT)) == [], "\n".join(["", *violations])


def test_the_whole_package_is_read() -> None:
    found = modules(ROOT)
    assert {"dmcodec", "dmcodec.cli.encode", "dmcodec.runtime.tensorrt.engine", "dmcodec.export.graphs"} <= set(found)
    assert {module.folder for module in found.values()} == {
        "core", "nn", "pretrained", "training", "runtime", "export", "benchmarks", "demo", "cli",
    }  # fmt: skip
    assert {str(each.importer.path) for each in imports(ROOT)} >= {"runtime/codec.py", "benchmarks/machine.py"}


@pytest.mark.parametrize("rule", RULES)
def test_the_small_tree_keeps_all_rules(tree: Callable[..., Path], rule: Rule) -> None:
    assert rule(tree()) == []


VIOLATIONS: list[tuple[Rule, dict[str, str], str]] = [
    (
        circles,
        {"dmcodec/b.py": DOC + "def f():\n    from .c import z\n", "dmcodec/c.py": DOC + "from . import a\n"},
        "circle of 3 modules:\n  dmcodec/a.py:2: from .b import x\n"
        "  dmcodec/b.py:3: from .c import z (in a function)\n  dmcodec/c.py:2: from . import a",
    ),
    (
        circles,
        {"runtime/batching.py": DOC + "import dmcodec.runtime.codec\n"},
        "circle of 2 modules:\n  runtime/batching.py:2: import dmcodec.runtime.codec\n"
        "  runtime/codec.py:3: from . import batching",
    ),
    (
        circles,
        {"runtime/batching.py": DOC + "class A:\n    from dmcodec.runtime import Codec\n"},
        "circle of 3 modules:\n  runtime/__init__.py:2: from .codec import Codec\n"
        "  runtime/codec.py:3: from . import batching\n  runtime/batching.py:3: from dmcodec.runtime import Codec",
    ),
    (
        directions,
        {"runtime/batching.py": DOC + "def f():\n    from dmcodec.export import graphs\n"},
        "runtime/batching.py:3: from dmcodec.export import graphs (in a function): runtime must not import export",
    ),
    (
        directions,
        {
            "runtime/batching.py": DOC
            + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dmcodec.nn.model\n"
        },
        "runtime/batching.py:4: import dmcodec.nn.model (for type checkers): runtime must not import nn",
    ),
    (
        directions,
        {"export/parity.py": DOC + "from dmcodec.cli import main\n"},
        "export/parity.py:2: from dmcodec.cli import main: export must not import cli",
    ),
    (
        directions,
        {"dmcodec/b.py": DOC + "from dmcodec.runtime import Codec\n"},
        "dmcodec/b.py:2: from dmcodec.runtime import Codec: core must not import runtime",
    ),
    (
        directions,
        {"dmcodec/b.py": DOC + "from dmcodec.nn import model\n"},
        "dmcodec/b.py:2: from dmcodec.nn import model: core must not import nn",
    ),
    (
        torch_at_import,
        {"runtime/batching.py": DOC + "try:\n    from torch import nn, Tensor\nexcept ImportError:\n    pass\n"},
        "runtime/batching.py:3: from torch import nn, Tensor: here torch is imported in functions only",
    ),
    (
        torch_at_import,
        {"export/parity.py": DOC + "import torch.nn\n"},
        "export/parity.py:2: import torch.nn: here torch is imported in functions only",
    ),
    (
        torch_at_import,
        {"export/tensorrt/build.py": DOC + "import torch\n"},
        "export/tensorrt/build.py:2: import torch: here torch is imported in functions only",
    ),
    (
        onnxruntime_imports,
        {"runtime/batching.py": DOC + "def f():\n    import onnxruntime as ort\n"},
        "runtime/batching.py: imports onnxruntime; take it from runtime/onnxruntime_import.py",
    ),
    (
        onnxruntime_imports,
        {"tests/test_a.py": f'ort = pytest.importorskip("{ORT}.capi")\n'},
        "tests/test_a.py: imports onnxruntime; take it from runtime/onnxruntime_import.py",
    ),
    (
        relative_imports,
        {"dmcodec/a.py": DOC + "from dmcodec.b import x, y\n"},
        "dmcodec/a.py:2: from dmcodec.b import x, y: within a folder imports are relative",
    ),
    (
        relative_imports,
        {"dmcodec/__main__.py": DOC + "from .cli import main\n"},
        "dmcodec/__main__.py:2: from .cli import main: between folders imports are absolute",
    ),
    (
        relative_imports,
        {"export/tensorrt/build.py": DOC + "from ..graphs import x\n"},
        "export/tensorrt/build.py:2: from ..graphs import x: `..` is not used; write the absolute name",
    ),
    (
        long_files,
        {"tests/test_a.py": "x = 1\n" * (MAX_LINES + 1)},
        "tests/test_a.py: 401 lines, more than 400; split it",
    ),
    (
        listed_packages,
        {"runtime/new/__init__.py": DOC},
        "pyproject.toml: packages lacks dmcodec.runtime.new, a folder with Python files",
    ),
    (
        listed_packages,
        {"pyproject.toml": PYPROJECT.replace('"dmcodec.nn"', '"dmcodec.nn", "dmcodec.old"')},
        "pyproject.toml: packages names dmcodec.old, which is no folder",
    ),
    (docstrings, {"dmcodec/a.py": "# A comment.\nfrom .b import x\n"}, "dmcodec/a.py: has no docstring"),
]


@pytest.mark.parametrize(("rule", "changes", "violation"), VIOLATIONS)
def test_a_violation_is_found_and_named(
    tree: Callable[..., Path], rule: Rule, changes: dict[str, str], violation: str
) -> None:
    assert rule(tree(**changes)) == [violation]


def test_a_folder_without_init_is_found(tree: Callable[..., Path]) -> None:
    assert listed_packages(tree(**{"runtime/new/x.py": DOC})) == [
        "pyproject.toml: packages lacks dmcodec.runtime.new, a folder with Python files",
        "dmcodec/runtime/new: has no __init__.py",
    ]
