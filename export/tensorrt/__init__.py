"""TensorRT engines from the graphs of a bundle."""

from .build import BuildReport, PlannedEngine, build_engines, plan_engines
from .options import BuildOptions

__all__ = ["BuildOptions", "BuildReport", "PlannedEngine", "build_engines", "plan_engines"]
