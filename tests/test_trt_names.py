"""Every name of TensorRT's API that the code uses exists in each supported version, and in the installed one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import library as fakes
from fakes import runtime as fake_runtime
from fakes.library import fake_tensorrt

from dmcodec.errors import MissingDependencyError
from dmcodec.export.tensorrt import builder, options
from dmcodec.runtime.tensorrt import engine, library, runtime_cache
from dmcodec.runtime.tensorrt.library import FLAVOURS, Library

NAMES: dict[str, dict[str, list[str]]] = json.loads((Path(__file__).parent / "data/tensorrt_names.json").read_text())
CLASSES = (
    fakes.Builder, fakes.INetworkDefinition, fakes.IBuilderConfig, fakes.IOptimizationProfile, fakes.OnnxParser,
    fakes.ParserError, fakes.ITimingCache, fake_runtime.Runtime, fake_runtime.ICudaEngine,
    fake_runtime.IExecutionContext, fake_runtime.EngineInspector,
)  # fmt: skip
# Attributes of the simulation itself, not names of TensorRT.
OWN = {
    "last_config", "last_built", "model", "fill", "shapes", "content", "set_flags", "profiles", "workspace", "cache",
    "module", "device", "logger", "header", "session", "inputs", "outputs", "contexts", "preview",
}  # fmt: skip


def used_names(source: str) -> set[str]:
    """Collect the attributes and strings of a module that calls TensorRT."""
    tree = ast.parse(source)
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return found | {value for value in constants if isinstance(value, str)}


@pytest.mark.parametrize("version", [name for name in NAMES if not name.startswith("tensorrt-rtx")])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_the_simulation_offers_exists(version: str, cls: type) -> None:
    """Tests run the code on the simulation, so the simulation has every name that the code uses."""
    offered = {name for name in dir(cls) if not name.startswith("_")} - OWN
    assert offered
    assert offered <= set(NAMES[version][cls.__name__])


@pytest.mark.parametrize("cls", [fake_runtime.IRuntimeConfig, fake_runtime.IRuntimeCache, fake_runtime.RtxEngine,
                                 fake_runtime.RtxExecutionContext, fake_runtime.RtxRuntime])  # fmt: skip
def test_what_the_simulation_of_rtx_offers_exists(cls: type) -> None:
    name = {"RtxEngine": "ICudaEngine", "RtxExecutionContext": "IExecutionContext", "RtxRuntime": "Runtime"}
    [recorded] = [names for version, names in NAMES.items() if version.startswith("tensorrt-rtx")]
    offered = {member for member in dir(cls) if not member.startswith("_")} - OWN - {"compile", "kernels", "strategy"}
    assert offered
    assert offered <= set(recorded[name.get(cls.__name__, cls.__name__)])


@pytest.mark.parametrize("version", list(NAMES))
def test_enumerations_of_the_simulation_exist(version: str) -> None:
    rtx = version.startswith("tensorrt-rtx")
    module = fake_tensorrt(rtx=rtx)
    for name, members in NAMES[version].items():
        enumeration: Any = getattr(module, name, None)
        if hasattr(enumeration, "__members__"):
            assert set(enumeration.__members__) <= set(members), name


@pytest.mark.parametrize("version", list(NAMES))
def test_the_names_that_the_code_uses_exist(version: str) -> None:
    """The reverse: API names in the source exist in every version.

    The code looks up names that only RTX has before it uses them.
    """
    used = set().union(
        *(
            used_names(Path(str(module.__file__)).read_text())
            for module in (library, builder, options, engine, runtime_cache)
        )
    )
    optional = {
        "set_compute_capability", "num_compute_capabilities", "get_engine_validity", "is_stream_capturable",
        "INVALID", "VERSION_MISMATCH", "UNSUPPORTED_CC", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "MALFORMED_ENGINE",
        "INSUFFICIENT_GPU_MEMORY", "CUDA_ERROR", "ComputeCapability", "EngineValidity", "EngineInvalidityDiagnostics",
        "REQUIRE_USER_ALLOCATION", "WHOLE_GRAPH_CAPTURE", "EAGER", "CudaGraphStrategy", "cuda_graph_strategy",
        "DynamicShapesKernelSpecializationStrategy", "dynamic_shapes_kernel_specialization_strategy",
        "create_runtime_cache", "set_runtime_cache", "deserialize", "serialize",
    }  # fmt: skip
    everywhere = {name for names in NAMES.values() for members in names.values() for name in members}
    here = {name for members in NAMES[version].values() for name in members}
    missing = (used & everywhere) - here
    assert missing <= (set() if version.startswith("tensorrt-rtx") else optional)


def test_tensorrt_11_has_no_precision_flags() -> None:
    """Precision flags are gone, so networks are strongly typed and precision is that of the graph."""
    assert {"FP16", "INT8"} <= set(NAMES["tensorrt 10.16.1.11"]["BuilderFlag"])
    assert not {"FP16", "INT8", "BF16"} & set(NAMES["tensorrt 11.4.0.106"]["BuilderFlag"])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_installed_library_is_the_recorded_one(flavour: str) -> None:
    try:
        library = Library.load(flavour)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    recorded = NAMES.get(f"{flavour} {library.version}")
    if recorded is None:
        pytest.skip(f"no names of {flavour} {library.version} are recorded")
    for name, members in recorded.items():
        found: Any = getattr(library.module, name) if name else library.module
        assert set(members) <= set(dir(found)), name
