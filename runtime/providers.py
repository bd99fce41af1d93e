"""The execution providers of ONNX Runtime: their names, the options that sessions get, and their preparation.

Values of options are strings that ONNX Runtime's parsers accept: those of CUDA take "0" and "1" for a switch, the
Python binding of TensorRT takes "True" and "False" only. Written against the documentation; not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmcodec.errors import ProviderError
from dmcodec.precision import FP16
from dmcodec.runtime.tensorrt.profiles import Profile

CPU, CUDA, TENSORRT, RTX_PLUGIN = "cpu", "cuda", "tensorrt", "nv-tensorrt-rtx"
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    CUDA: "CUDAExecutionProvider",
    TENSORRT: "TensorrtExecutionProvider",
    RTX_PLUGIN: "NvTensorRTRTXExecutionProvider",
}
# These take the graphs that `dmcodec export --format trt --flavour onnxruntime` wrote.
BUILD_ENGINES = (TENSORRT, RTX_PLUGIN)
# TensorRT computes float32 in TF32, whose 10-bit mantissa changes codes, and the providers can't disable it.
RVQ_GRAPHS = ("quantizer", "dequantizer")
_RVQ_PROVIDER = {TENSORRT: CUDA, RTX_PLUGIN: CPU}
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_REASON_CHARACTERS = 400
_HEARD_LINES = 2  # the others say the same of other libraries
_PREFIX = re.compile(r"^.*?\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LINKED = re.compile(rb"libnvinfer\.so\.(\d+)|nvinfer_(\d+)\.dll")

Options = dict[str, str]


def provider_of(provider: str, graph: str) -> str:
    """Return the provider that runs a graph where `provider` was chosen."""
    return _RVQ_PROVIDER.get(provider, provider) if graph in RVQ_GRAPHS else provider


def cuda_options(precision: str, device_id: int, stream: int | None = None) -> Options:
    """Return the options of the CUDA provider for a graph.

    Args:
        precision: of the graph's arithmetic.
        device_id: index of the GPU.
        stream: handle of the CUDA stream that the session uses; its own by default.
    """
    options = {
        "device_id": str(device_id),
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE, the default, searches again for each new shape
        "cudnn_conv1d_pad_to_nc1d": "1",  # a convolution over [1, T]; over [T, 1] cuDNN has slower kernels
        # A 10-bit mantissa changes codes. In half precision the switch would take the tensor cores away, too.
        "use_tf32": "1" if precision == FP16.name else "0",
    }
    if stream is not None:
        options |= {"has_user_compute_stream": "1", "user_compute_stream": str(stream)}
    return options


def tensorrt_options(precision: str, device_id: int, profile: Profile, caches: Path) -> Options:
    """Return the options of the TensorRT provider for a graph.

    Args:
        precision: of the graph's arithmetic.
        device_id: index of the GPU.
        profile: the shapes that the engine is built for; others would build another one, which takes minutes.
        caches: folder of the engines and of what their builds timed.
    """
    return {
        "device_id": str(device_id),
        "trt_fp16_enable": str(precision == FP16.name),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(caches),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(caches),
        **profile_options("trt_profile", profile),
    }


def rtx_options(profile: Profile, caches: Path) -> Options:
    """Return the options of the plugin provider for TensorRT-RTX; arguments as for `tensorrt_options`.

    The GPU is not among them: the session is given the device itself.
    """
    return {
        "nv_runtime_cache_path": str(caches),
        **profile_options("nv_profile", profile),
    }


def profile_options(prefix: str, profile: Profile) -> Options:
    """Return the options of a profile: `waveform:1x1x1600,lengths:1` as smallest, usual and largest shapes."""
    return {
        f"{prefix}_{bound}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(shapes, bound)))}" for name, shapes in profile.inputs.items()
        )
        for bound in ("min", "opt", "max")
    }


def prepare(ort: Any, provider: str) -> str:
    """Load the libraries that a GPU provider needs; return what could not be loaded, in words.

    onnxruntime prints that to stdout, into the output of the command line.

    Raises:
        ProviderError: this onnxruntime does not have the provider, or has it for another TensorRT.
    """
    with _heard() as lines:
        if hasattr(ort, "preload_dlls"):  # before the providers are asked for: with a plugin, this registers CUDA
            ort.preload_dlls()
    available = ort.get_available_providers()
    if PROVIDERS[provider] not in available:
        lacks = "is built for the CPU only" if PROVIDERS[CUDA] not in available else "has no TensorRT provider"
        raise ProviderError(
            f"provider {provider}: the installed onnxruntime {ort.__version__} {lacks}; "
            'run `pip uninstall onnxruntime`, then `pip install "dmcodec[gpu]"`, or use provider cpu'
        )
    if provider == TENSORRT:
        if problem := tensorrt_conflict(ort):
            raise ProviderError(f"provider tensorrt: {problem[0]}; {problem[1]}")
        with contextlib.suppress(Exception):  # its libraries lie where the loader does not look
            importlib.import_module("tensorrt")
    return "; ".join(lines[:_HEARD_LINES])


def tensorrt_conflict(ort: Any) -> tuple[str, str] | None:
    """Return why onnxruntime's TensorRT provider can't use the installed TensorRT, and the way out; None if it can."""
    needed, installed = linked_tensorrt(Path(ort.__file__).parent), installed_tensorrt()
    if needed is None or installed is None or installed.partition(".")[0] == str(needed):
        return None
    return (
        f"onnxruntime {ort.__version__} is built for TensorRT {needed}, and TensorRT {installed} is installed",
        f"run `pip install {_tensorrt_package(ort, needed)}`, which backend tensorrt takes, too, or use backend "
        "tensorrt or provider cuda",
    )


def linked_tensorrt(package: Path) -> int | None:
    """Return the major version of TensorRT that onnxruntime's TensorRT provider links; None where it has none."""
    for library in (package / "capi").glob("*onnxruntime_providers_tensorrt.*"):
        if found := _LINKED.search(library.read_bytes()):
            return int(found[1] or found[2])
    return None


def installed_tensorrt() -> str | None:
    """Return the version of the installed TensorRT package; None where there is none."""
    import importlib.metadata

    for name in TENSORRT_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _tensorrt_package(ort: Any, major: int) -> str:
    """Return the requirement of TensorRT for the CUDA of this onnxruntime."""
    cuda = str(getattr(ort, "cuda_version", "") or "13").partition(".")[0]
    return f'"tensorrt-cu{cuda}>={major},<{major + 1}"'


def load_error(path: Path, ort: Any, provider: str, error: Exception, heard: str) -> ProviderError:
    """Return the error for a session that a GPU provider can't open, with onnxruntime's reason."""
    reason = reason_of(error)
    if heard:
        reason = f"{reason}; {heard}"
    return ProviderError(
        f"{path}: onnxruntime {ort.__version__} can't run it on {PROVIDERS[provider]} ({reason}); check the NVIDIA "
        f"driver and {_install(ort, provider)} (`dmcodec doctor` compares their versions), or use provider cpu"
    )


def _install(ort: Any, provider: str) -> str:
    """Return the commands that install what a provider needs."""
    if provider == RTX_PLUGIN:
        return '`pip install "dmcodec[rtx-plugin]"`'
    command = '`pip install "dmcodec[gpu]"`'
    needed = linked_tensorrt(Path(ort.__file__).parent) if provider == TENSORRT else None
    return f"{command} and `pip install {_tensorrt_package(ort, needed)}`" if needed else command


def reason_of(error: Exception) -> str:
    """Return an error of onnxruntime in one line, without the place in its source code."""
    text = _PREFIX.sub("", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]}..."


class _OneThread(io.TextIOBase):
    """Keeps what one thread prints, and passes on what others print."""

    def __init__(self, usual: Any) -> None:
        self._usual, self._thread = usual, threading.get_ident()
        self.kept = io.StringIO()

    def write(self, text: str) -> int:
        target = self.kept if threading.get_ident() == self._thread else self._usual
        return int(target.write(text) or 0)

    def flush(self) -> None:
        self._usual.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the lines that this thread prints to stdout, or warns of, in the block."""
    lines: list[str] = []
    stream = _OneThread(sys.stdout)
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(stream):
        warnings.simplefilter("always")
        yield lines
    printed = re.sub(r"\x1b\[\d*m", "", stream.kept.getvalue()).splitlines()
    lines += [line.strip() for line in printed if line.startswith(("Failed", "WARNING"))]
    lines += [" ".join(str(each.message).split()) for each in warned]
