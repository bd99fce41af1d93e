"""TensorRT engines from the graphs of a bundle."""

from dmcodec.export.tensorrt.build import BuildReport, PlannedEngine, build_engines, plan_engines
from dmcodec.export.tensorrt.options import BuildOptions

__all__ = ["BuildOptions", "BuildReport", "PlannedEngine", "build_engines", "plan_engines"]
