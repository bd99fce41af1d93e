"""Options of a Triton model repository, and the models' configurations (config.pbtxt).

Configurations are messages of the server's schema, so that a wrong field can't be written. The fields and their meaning
are those of Triton's model_config.proto, which the package tritonclient contains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError
from dmcodec.extras import missing_package
from dmcodec.precision import FP16
from dmcodec.receptive_field import decoder_reach
from dmcodec.runtime.provider_graphs import joined
from dmcodec.runtime.providers import cuda_options, profile_options
from dmcodec.runtime.tensorrt.profiles import Profile, ShapeRange, ShapeRequest

from .client import BUCKET_S
from .effective import set_cuda_options

PLATFORMS = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt")
KINDS = ("gpu", "cpu")
MAX_BATCH_SIZE = 256
MAX_INSTANCES = 64
MAX_QUEUE_DELAY_MS = 10_000.0
# Durations of the warm-up at batch 1, in steps of the client's padding; the largest batch has LARGEST_BATCH_S.
WARM_UP_S: Mapping[str, tuple[float, ...]] = {"gpu": (0.5, 1.0, 5.0, 10.0), "cpu": (1.0,)}
LARGEST_BATCH_S = 1.0
PUSH_S = 0.1  # of a live stream
STREAM_MODELS = ("decoder_recurrent", "decoder_upsampler")
SERVER_CACHE = "/tmp/dmcodec-engines"
LENGTHS = "lengths-"  # the files of the warm-up, followed by the length in them
_SERVER_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
_CODEC_PARAMETERS = ("sample_rate", "hop_length", "n_q", "codebook_size")


@dataclasses.dataclass(frozen=True)
class TritonOptions:
    """Options of the server for the models.

    Attributes:
        platform: the runtime of encoder and decoder: "onnxruntime", "onnxruntime-tensorrt" (ONNX Runtime with its
            TensorRT accelerator, which builds engines when the server starts) or "tensorrt" (engines of
            `dmcodec export --format trt`). The RVQ always runs on ONNX Runtime.
        kind: "gpu" or "cpu".
        instances: number of instances of each model, on each GPU.
        max_batch_size: largest number of items in a batch.
        max_queue_delay_ms: longest time that a request waits for others to form a batch.
        server_cache: folder on the server where the TensorRT accelerator keeps its engines; an absolute path.

    Raises:
        ArgumentError: a value is not known or out of range.
    """

    platform: str = "onnxruntime"
    kind: str = "gpu"
    instances: int = 1
    max_batch_size: int = 16
    max_queue_delay_ms: float = 5.0
    server_cache: str = SERVER_CACHE

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise ArgumentError(f"platform {self.platform!r} is not known; use one of {', '.join(PLATFORMS)}")
        if self.kind not in KINDS:
            raise ArgumentError(f"kind {self.kind!r} is not known; use one of {', '.join(KINDS)}")
        if self.kind == "cpu" and self.platform != "onnxruntime":
            raise ArgumentError(f"platform {self.platform} needs kind gpu; use platform onnxruntime on a CPU")
        if not 1 <= self.instances <= MAX_INSTANCES:
            raise ArgumentError(f"instances must be 1 to {MAX_INSTANCES}, not {self.instances}")
        if not 1 <= self.max_batch_size <= MAX_BATCH_SIZE:
            raise ArgumentError(f"max_batch_size must be 1 to {MAX_BATCH_SIZE}, not {self.max_batch_size}")
        if not 0 <= self.max_queue_delay_ms <= MAX_QUEUE_DELAY_MS:
            raise ArgumentError(
                f"max_queue_delay_ms must be 0 to {MAX_QUEUE_DELAY_MS:g}, not {self.max_queue_delay_ms}"
            )
        if not PurePosixPath(self.server_cache).is_absolute():
            raise ArgumentError(f"server_cache must be an absolute path on the server, not {self.server_cache!r}")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        name: of the tensor.
        dtype: the server's name of its type.
        dims: its shape without the batch axis; -1 for a dynamic axis.
        scalar: one number for each item.
    """

    name: str
    dtype: str
    dims: tuple[int, ...] = (1,)
    scalar: bool = False


@dataclasses.dataclass(frozen=True)
class Engine:
    """A TensorRT engine that runs in place of a graph.

    Attributes:
        plan: the serialised engine.
        profile: index of the optimization profile for all batch sizes.
        file: name of its file.
        version: of the TensorRT that built it; the server needs the same version.
        shapes: that profile.
    """

    plan: bytes
    profile: int
    file: str
    version: str
    shapes: Profile


def schema() -> Any:
    """Return the module with the messages of the server's schema.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except ModuleNotFoundError as error:
        raise missing_package(error, "the server's schema", "triton") from error
    except RuntimeError as error:  # tritonclient without its extra grpc
        raise missing_package(ModuleNotFoundError(name="grpc"), "the server's schema", "triton") from error
    return model_config_pb2


class Configs:
    """Builds the configurations of a bundle's models."""

    def __init__(self, bundle: Bundle, options: TritonOptions) -> None:
        self._pb, self._bundle, self._options = schema(), bundle, options
        config = bundle.manifest.config
        self._waveform = Tensor("waveform", "FP32", (1, -1))
        self._latents = Tensor("latents", "FP32", (config.dimension, -1))
        self._codes = Tensor("codes", "INT64", (config.n_q, -1))
        self._some_codes = Tensor("codes", "INT64", (-1, -1))
        layers, channels = config.lstm_layers, config.lstm_channels
        self._features = Tensor("features", "FP32", (channels, -1))
        self._states = [Tensor(name, "FP32", (layers, channels)) for name in ("hidden", "cell")]
        self._scalars = {name: Tensor(name, "INT64", scalar=True) for name in ("lengths", "frames", "first_level")}

    def all(self, engines: dict[str, Engine]) -> dict[str, Any]:
        """Return a ModelConfig for each model. Models of `engines` run as TensorRT plans."""
        lengths, frames, first_level = (self._scalars[name] for name in ("lengths", "frames", "first_level"))
        tensors: dict[str, tuple[list[Tensor], list[Tensor]]] = {
            "encoder": ([self._waveform, lengths], [self._latents]),
            "quantizer": ([self._latents, lengths], [self._codes, frames]),
            "dequantizer": ([self._some_codes, first_level], [self._latents]),
            "decoder": ([self._latents, lengths], [self._waveform]),
            "decoder_recurrent": (
                [self._latents, *self._states],
                [self._features, *(dataclasses.replace(state, name=f"new_{state.name}") for state in self._states)],
            ),
            "decoder_upsampler": ([self._features], [self._waveform]),
        }
        models = {name: self._model(name, *ends, engines.get(name)) for name, ends in tensors.items()}
        tokenize = self._ensemble("tokenize", [self._waveform, lengths], [self._codes, frames])
        self._step(tokenize, "encoder", {"waveform": "waveform", "lengths": "lengths"}, {"latents": "latents"})
        self._step(
            tokenize, "quantizer", {"latents": "latents", "lengths": "lengths"}, {"codes": "codes", "frames": "frames"}
        )
        synthesize = self._ensemble("synthesize", [self._some_codes, first_level, frames], [self._waveform])
        self._step(synthesize, "dequantizer", {"codes": "codes", "first_level": "first_level"}, {"latents": "latents"})
        self._step(synthesize, "decoder", {"latents": "latents", "lengths": "frames"}, {"waveform": "waveform"})
        return {**models, "tokenize": tokenize, "synthesize": synthesize}

    def _model(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], engine: Engine | None) -> Any:
        backend = "tensorrt" if engine else "onnxruntime"
        config = self._config(name, inputs, outputs)
        config.backend, config.platform = backend, _SERVER_PLATFORMS[backend]
        config.default_model_filename = "model.plan" if engine else "model.onnx"
        group = config.instance_group.add(count=self._options.instances)
        group.kind = getattr(group, f"KIND_{self._options.kind.upper()}")
        if engine:
            group.profile.append(str(engine.profile))
        elif self._options.kind == "gpu":
            self._accelerate(config, name)
        config.dynamic_batching.max_queue_delay_microseconds = round(1000 * self._options.max_queue_delay_ms)
        for duration_s, batch in self._stream_warm_ups() if name in STREAM_MODELS else self._warm_ups():
            self._warm_up(config, inputs, duration_s, batch, engine)
        return config

    def _accelerate(self, config: Any, name: str) -> None:
        """Set ONNX Runtime's options for a GPU, as `dmcodec.runtime.providers` does."""
        spec = self._bundle.manifest.graphs[name]
        if uses_tensorrt_accelerator(self._options, name):
            shapes = ShapeRequest(ShapeRange(batches=(1, 1, self._options.max_batch_size)))
            profile = joined(shapes.profiles(name, spec, self._bundle.manifest.config))
            parameters = {
                "precision_mode": "FP16" if spec.precision == FP16.name else "FP32",
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": self._options.server_cache,
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": self._options.server_cache,
                **profile_options("trt_profile", profile),
            }
            accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
            accelerators.add(name="tensorrt", parameters=parameters)
        options = cuda_options(spec.precision, 0)
        del options["device_id"]  # the server sets that of the instance
        set_cuda_options(config, options)

    def _warm_ups(self) -> Iterator[tuple[float, int]]:
        """Yield duration and batch size of each warm-up: shapes that the client's requests have."""
        yield from ((duration_s, 1) for duration_s in WARM_UP_S[self._options.kind])
        if self._options.max_batch_size > 1:
            yield LARGEST_BATCH_S, self._options.max_batch_size

    def _stream_warm_ups(self) -> Iterator[tuple[float, int]]:
        """Yield duration and batch size of pushes of live streams."""
        yield from ((PUSH_S, batch) for batch in sorted({1, self._options.max_batch_size}))

    def _warm_up(
        self, config: Any, inputs: Sequence[Tensor], duration_s: float, batch: int, engine: Engine | None
    ) -> None:
        codec, buckets = self._bundle.manifest.config, round(duration_s / BUCKET_S)
        samples = buckets * round(BUCKET_S * codec.sample_rate)
        frames = codec.num_frames(samples)
        if config.name in ("dequantizer", "decoder"):  # the client pads codes to whole frames
            frames = buckets * round(BUCKET_S * codec.sample_rate / codec.hop_length)
        sizes = {"waveform": samples, "latents": frames, "codes": frames}
        if config.name in STREAM_MODELS:
            reach, push = decoder_reach(codec), max(1, round(duration_s * codec.frame_rate))
            sizes = {"latents": push + reach.front_frames, "features": push + reach.past + reach.future}
        if engine is not None and not holds_request(engine.shapes, sizes, batch):
            return  # the server would not start
        sample = config.model_warmup.add(name=f"{duration_s:g} s, batch {batch}", batch_size=batch)
        for tensor in inputs:
            entry = sample.inputs[tensor.name]
            entry.data_type = getattr(self._pb, f"TYPE_{tensor.dtype}")
            dims = [codec.n_q if size < 0 else size for size in tensor.dims[:-1]]
            if tensor.scalar:
                dims = [1]
            else:
                dims.append(sizes[tensor.name] if tensor.dims[-1] < 0 else tensor.dims[-1])
            entry.dims.extend(dims)
            if tensor.name == "lengths":  # zero_data would give an empty clip
                entry.input_data_file = f"{LENGTHS}{frames if config.name == 'decoder' else samples}"
            else:
                entry.zero_data = True

    def _ensemble(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Any:
        config = self._config(name, inputs, outputs, reshape=False)
        config.platform = "ensemble"
        manifest = self._bundle.manifest
        reach, (layers, channels) = decoder_reach(manifest.config), self._states[0].dims
        parameters = {
            "model_id": manifest.model_id,
            "precision": manifest.precision,
            **{field: getattr(manifest.config, field) for field in _CODEC_PARAMETERS},
            **{"stream_front": reach.front, "stream_front_future": reach.front_future},
            **{"stream_past": reach.past, "stream_future": reach.future, "stream_head": reach.head},
            **{"dimension": manifest.config.dimension, "stream_layers": layers, "stream_channels": channels},
        }
        for key, value in parameters.items():
            config.parameters[key].string_value = str(value)
        return config

    def _step(self, ensemble: Any, model: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        step = ensemble.ensemble_scheduling.step.add(model_name=model, model_version=-1)
        step.input_map.update(inputs)
        step.output_map.update(outputs)

    def _config(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], reshape: bool = True) -> Any:
        config = self._pb.ModelConfig(name=name, max_batch_size=self._options.max_batch_size)
        for tensors, added in ((inputs, config.input), (outputs, config.output)):
            for tensor in tensors:
                entry = added.add(name=tensor.name, data_type=getattr(self._pb, f"TYPE_{tensor.dtype}"))
                entry.dims.extend(tensor.dims)
                if tensor.scalar and reshape:  # [B, 1] for clients, since no shape may be empty; [B] in the graph
                    entry.reshape.SetInParent()
        return config


def uses_tensorrt_accelerator(options: TritonOptions, model: str) -> bool:
    """Return whether ONNX Runtime's TensorRT runs a model."""
    return options.platform == "onnxruntime-tensorrt" and model in ("encoder", "decoder")


def holds_request(profile: Profile, sizes: Mapping[str, int], batch: int) -> bool:
    """Return whether an engine's profile holds a request."""
    wanted = {name: (batch, size) for name, size in sizes.items()}
    return all(
        low <= size <= high
        for name, shapes in profile.inputs.items()
        if name in wanted
        for low, size, high in zip(
            (shapes.min[0], shapes.min[-1]), wanted[name], (shapes.max[0], shapes.max[-1]), strict=True
        )
    )
