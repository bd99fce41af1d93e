"""Write the API names of an installed TensorRT into tensorrt_names.json beside this file.

    python tensorrt_names.py tensorrt_rtx        # or tensorrt, tensorrt_bindings, ...

Bindings whose libraries are not available (they come from NVIDIA's own index) can be imported with stubs: a library of
each linked name with the few functions that `nm -D --undefined-only` lists, each returning 0.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

CLASSES = (
    "Builder", "INetworkDefinition", "IBuilderConfig", "IOptimizationProfile", "OnnxParser", "ParserError",
    "IProgressMonitor", "ILogger", "ITimingCache", "IHostMemory", "ITensor", "Runtime", "ICudaEngine",
    "IExecutionContext", "EngineInspector", "BuilderFlag", "NetworkDefinitionCreationFlag",
    "HardwareCompatibilityLevel", "MemoryPoolType", "ProfilingVerbosity", "TensorIOMode", "DataType",
    "LayerInformationFormat", "ExecutionContextAllocationStrategy", "ComputeCapability", "EngineValidity",
    "EngineInvalidityDiagnostics", "PreviewFeature", "IRuntimeConfig", "IRuntimeCache", "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
)  # fmt: skip


def main() -> None:
    """Add the names of the module that the command line names."""
    module = importlib.import_module(sys.argv[1])
    path = Path(__file__).with_suffix(".json")
    known = json.loads(path.read_text()) if path.exists() else {}
    found = {name: public(getattr(module, name)) for name in CLASSES if hasattr(module, name)}
    known[f"{'tensorrt-rtx' if 'rtx' in sys.argv[1] else 'tensorrt'} {module.__version__}"] = {
        "": sorted(name for name in dir(module) if name in {*CLASSES, "nptype"}),
        **found,
    }
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def public(cls: type) -> list[str]:
    """Return the names that don't begin with an underscore."""
    return [name for name in dir(cls) if not name.startswith("_")]


if __name__ == "__main__":
    main()
