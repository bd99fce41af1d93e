"""Builds TensorRT engines from the graphs of a bundle: `plan_engines`, then `build_engines`. Needs no torch."""

from .build import BuildReport, PlannedEngine, build_engines, plan_engines
from .options import BuildOptions

__all__ = ["BuildOptions", "BuildReport", "PlannedEngine", "build_engines", "plan_engines"]
