"""The page on which a codec is tried in a browser, served on this machine; its files are in `runtime/web/`."""

from .onnxruntime_web import find_onnxruntime_web, installed_onnxruntime_web
from .server import DemoServer
from .site import Site

__all__ = ["DemoServer", "Site", "find_onnxruntime_web", "installed_onnxruntime_web"]
