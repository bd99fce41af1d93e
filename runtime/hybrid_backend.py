"""The hybrid backend: convolutions in TensorRT engines, LSTMs in cuDNN through ONNX Runtime, on one CUDA stream.

TensorRT runs an LSTM as a loop of one step a frame, cuDNN as a few kernels for all. In place of the encoder and the
decoder, this backend runs the graphs that the bundle has cut at the LSTM: a yardstick, and a way out where the loop is
the slower of the two. Written against the documented API and tested on a simulated GPU; not yet run on a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, OUTPUT, Bundle, GraphSpec, directions, lstm_name
from dmcodec.config import CodecConfig
from dmcodec.errors import BundleError, EngineError
from dmcodec.receptive_field import decoder_reach, encoder_reach
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.resources import DeviceResources

from .backend import Captures, DeviceTensor, Runner
from .dlpack import ArrayView
from .frames import reflected
from .onnxruntime_import import import_onnxruntime
from .providers import CUDA, PROVIDERS, cuda_options, load_error, prepare
from .shared_stream import SharedStreamSession, reflected_steps

# The graphs with engines; the others run in ONNX Runtime.
ENGINE_GRAPHS = ("quantizer", "dequantizer", DOWNSAMPLER, OUTPUT, "decoder_upsampler")

Load = Callable[[str], Runner]
Inputs = Mapping[str, DeviceTensor]


class HybridBackend:
    """Runs a bundle's engines, and its LSTMs in ONNX Runtime's CUDA provider; see `Backend`.

    Items of one batch whose lengths in frames differ run one after the other: the cut graphs take no lengths.

    Args:
        bundle: the bundle.
        engine_cache: folder of the engines; by default `engines` in the bundle.
        engines: what runs the engines; by default on that GPU.
        ort: onnxruntime; by default the installed one.
        device_id: number of the GPU.

    Raises:
        BundleError: an earlier dmcodec exported the bundle, which lacks the encoder in parts.
        ProviderError: onnxruntime has no CUDA provider.
        GpuError, EngineError, MissingDependencyError: as `TensorrtBackend`; or onnxruntime is not installed.
    """

    name = "tensorrt-hybrid"
    provider = "cuda"
    threads = 1
    single_threaded_streams = False

    def __init__(
        self,
        bundle: Bundle,
        engine_cache: str | Path | None = None,
        engines: TensorrtBackend | None = None,
        ort: Any = None,
        device_id: int = 0,
    ) -> None:
        if not bundle.manifest.has_encoder_parts:
            raise BundleError(
                f"{bundle.path}: lacks the graphs that are cut at the LSTM, an earlier dmcodec exported it; "
                "run `dmcodec export --bundle OLD --out NEW`"
            )
        self._bundle, self._engine_cache, self._device_id = bundle, engine_cache, device_id
        self._ort = ort or import_onnxruntime()
        self._heard = prepare(self._ort, CUDA)
        self._engines = engines or TensorrtBackend(bundle, engine_cache, device_id=device_id)
        # One stream for both libraries: each sees the other's results in order, without events.
        before, device = self._engines.resources.before_close, self._engines.resources.device
        self._engines.resources = DeviceResources(device, max_streams=1)
        self._engines.resources.before_close += before

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: the process that unpickles finds its own GPU and libraries."""
        folder = None if self._engine_cache is None else Path(self._engine_cache).absolute()
        return type(self), (self._bundle, folder, None, None, self._device_id)

    @property
    def version(self) -> str:
        """Versions of both libraries."""
        return f"{self._engines.version} with onnxruntime {self._ort.__version__}"

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Load a graph; see `dmcodec.runtime.backend.Backend`."""
        name = path.stem
        if name == "encoder":
            return _Encoder(self._load, self._config, self._engines.resources)
        if name == "decoder":
            return _Decoder(self._load, self._config, self.to_array)
        if name in ENGINE_GRAPHS:
            return self._engine(path, spec)
        return self._session(path, spec)

    def single_threaded(self) -> None:
        """Return None: concurrent batches gain nothing on a GPU that one batch fills."""
        return

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """Return a result as an array in host memory."""
        return self._engines.to_array(value)

    @property
    def device_side(self) -> HybridBackend:
        """Itself: see `dmcodec.runtime.backend.DeviceSide`."""
        return self

    @property
    def device_id(self) -> int:
        """Number of the GPU."""
        return self._engines.device_id

    def free_bytes(self) -> int:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return self._engines.free_bytes()

    def max_batch(self, graph: str, length: int) -> int:
        """See `dmcodec.runtime.backend.DeviceSide`: of the part that has engines."""
        if graph == "decoder":
            return self._engines.max_batch("decoder_upsampler", length + decoder_reach(self._config).front)
        return self._engines.max_batch(DOWNSAMPLER if graph == "encoder" else graph, length)

    def captures(self) -> Captures:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return self._engines.captures()

    def each_stream(self, count: int) -> Iterator[None]:
        """See `dmcodec.runtime.backend.DeviceSide`; there is one stream."""
        return self._engines.each_stream(count)

    def adopt(self, view: ArrayView) -> DeviceTensor:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return self._engines.adopt(view)

    def upload(self, array: NDArray[Any]) -> DeviceTensor:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return self._engines.upload(array)

    def close(self) -> None:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        self._engines.close()

    @property
    def _config(self) -> CodecConfig:
        return self._bundle.manifest.config

    def _load(self, name: str) -> Runner:
        return self.load(self._bundle.graph_path(name), self._bundle.manifest.graphs[name])

    def _engine(self, path: Path, spec: GraphSpec) -> Runner:
        try:
            return self._engines.load(path, spec)
        except EngineError as error:
            raise EngineError(f"{error} --graphs {','.join(ENGINE_GRAPHS)}") from error

    def _session(self, path: Path, spec: GraphSpec) -> Runner:
        resources, ort = self._engines.resources, self._ort
        with resources.lease_stream() as stream:
            handle = stream.handle
        options = cuda_options(spec.precision, self._device_id, handle)
        settings = ort.SessionOptions()
        settings.enable_mem_pattern = False  # lengths differ between calls
        try:
            session = ort.InferenceSession(
                str(path), settings, providers=[(PROVIDERS[CUDA], options)], enable_fallback=0
            )
        except Exception as error:
            raise load_error(path, ort, CUDA, error, self._heard) from error
        if session.get_providers()[0] != PROVIDERS[CUDA]:
            problem = RuntimeError(f"it chose {session.get_providers()[0]}")
            raise load_error(path, ort, CUDA, problem, self._heard)
        return SharedStreamSession(ort, session, path.stem, spec, self._config, resources)


class _Encoder:
    """The encoder as its parts: waveform and lengths to latents."""

    def __init__(self, load: Load, config: CodecConfig, resources: DeviceResources) -> None:
        self._config, self._resources, self._ways = config, resources, directions(config)
        self._downsampler, self._output = load(DOWNSAMPLER), load(OUTPUT)
        self._lstms = [{way: load(lstm_name(layer, way)) for way in self._ways} for layer in range(config.lstm_layers)]
        self._reach = encoder_reach(config)

    def run(self, inputs: Inputs) -> list[DeviceTensor]:
        """Run on arrays; items of different lengths in groups of equal ones."""
        waveform, lengths = np.asarray(inputs["waveform"]), np.asarray(inputs["lengths"])
        frames = np.array([self._config.num_frames(int(length)) for length in lengths])
        total = self._config.num_frames(waveform.shape[2])
        if (frames == total).all():
            return [self._run(waveform, lengths)]
        latents = np.zeros((len(lengths), self._config.dimension, total), np.float32)
        for count in np.unique(frames):
            rows = np.flatnonzero(frames == count)
            part = np.ascontiguousarray(waveform[rows, :, : int(lengths[rows].max())])
            latents[rows, :, :count] = np.asarray(self._run(part, lengths[rows]))
        return [latents]

    def _run(self, waveform: NDArray[Any], lengths: NDArray[Any]) -> DeviceTensor:
        [features] = self._downsampler.run({"waveform": waveform, "lengths": lengths})
        zeros = np.zeros((1, features.shape[1], features.shape[2]), np.float32)
        states = {"hidden": zeros, "cell": zeros}
        steps: dict[str, DeviceTensor] = {"features": features}
        for layer in self._lstms:
            steps = {way: lstm.run({**steps, **states})[0] for way, lstm in layer.items()}
        values = {"features": features, **steps}
        context = self._reach.output_frames, self._reach.output_future
        padded = {name: reflected_steps(self._resources, value, *context) for name, value in values.items()}
        return self._output.run(padded)[0]


class _Decoder:
    """The decoder as its parts: latents and lengths in frames to a waveform."""

    def __init__(self, load: Load, config: CodecConfig, to_array: Callable[[DeviceTensor], NDArray[Any]]) -> None:
        self._config, self._to_array = config, to_array
        self._recurrent, self._upsampler = load("decoder_recurrent"), load("decoder_upsampler")

    def run(self, inputs: Inputs) -> list[DeviceTensor]:
        """Run on arrays or results of other graphs; items of different lengths in groups of equal ones."""
        latents, lengths = self._to_array(inputs["latents"]), np.asarray(inputs["lengths"])
        if (lengths == latents.shape[2]).all():
            return [self._run(latents)]
        samples = latents.shape[2] * self._config.hop_length
        waveform = np.zeros((len(lengths), 1, samples), np.float32)
        for count in np.unique(lengths):
            rows = np.flatnonzero(lengths == count)
            part = self._to_array(self._run(latents[rows, :, :count]))
            waveform[rows, :, : part.shape[2]] = part
        return [waveform]

    def _run(self, latents: NDArray[Any]) -> DeviceTensor:
        config, reach = self._config, decoder_reach(self._config)
        state = np.zeros((config.lstm_layers, len(latents), config.lstm_channels), np.float32)
        window = np.ascontiguousarray(reflected(latents, reach.front, reach.front_future, axis=2))
        features = self._recurrent.run({"latents": window, "hidden": state, "cell": state})[0]
        return self._upsampler.run({"features": features})[0]
