"""A simulated Triton server: answers requests to a model repository with ONNX Runtime on the CPU.

It reads the written config.pbtxt files with the server's schema and follows them: it checks shapes and types, batches
requests of equal shape on their first axis up to `max_batch_size`, applies `reshape`, and runs the steps of ensembles
in order. It leaves out queues, instances and time. `require_agreement` compares its answers with `Codec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ExportError, ParityError
from dmcodec.export.agreement import compare_audio, compare_codes
from dmcodec.export.reference import Expected, GraphReference, Reference, run_reference
from dmcodec.precision import PRECISIONS, Thresholds
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

from .client import SpeechStream
from .configs import schema

Arrays = Mapping[str, NDArray[Any]]
# True lengths in frames, of which some are no whole number. All clips are padded to the longest, to run as one batch.
_LENGTHS_FRAMES = (40.3, 40.0, 17.7, 3.1)
_PUSH_FRAMES = 5  # of the stream that is compared: the usual 100 ms
_DTYPES: dict[str, np.dtype[Any]] = {"TYPE_FP32": np.dtype(np.float32), "TYPE_INT64": np.dtype(np.int64)}


class Simulation:
    """A simulated server of one model repository.

    Args:
        folder: the repository.
        graphs: ONNX files that run in place of models that can't run here (TensorRT plans), by the models' names.
    """

    def __init__(self, folder: Path, graphs: Mapping[str, Path] | None = None) -> None:
        self._folder, self._graphs = folder, dict(graphs or {})
        self.configs = {path.parent.name: read_config(path) for path in sorted(folder.glob("*/config.pbtxt"))}
        self._sessions: dict[str, Any] = {}

    def infer(self, model: str, requests: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
        """Answer requests that arrive at the same time; return the answers in their order.

        Raises:
            ExportError: a request or a result contradicts the configuration.
        """
        config = self.configs[model]
        waiting = list(range(len(requests)))
        answers: dict[int, dict[str, NDArray[Any]]] = {}
        for request in requests:
            _check(config, "input", config.input, request, config.max_batch_size)
        while waiting:
            group = _batch(requests, waiting, config.max_batch_size)
            waiting = [index for index in waiting if index not in group]
            joined = {name: np.concatenate([requests[i][name] for i in group]) for name in requests[group[0]]}
            results = self._run(config, joined)
            start = 0
            for index in group:
                size = len(next(iter(requests[index].values())))
                answers[index] = {name: value[start : start + size] for name, value in results.items()}
                start += size
        return [answers[index] for index in range(len(requests))]

    def warm_up(self) -> None:
        """Run every model's warm-up samples, as the server does at its start."""
        for name, config in self.configs.items():
            for sample in config.model_warmup:
                request = {tensor: self._warm_up_input(name, entry) for tensor, entry in sample.inputs.items()}
                self.infer(name, [request] * sample.batch_size)

    def _warm_up_input(self, model: str, entry: Any) -> NDArray[Any]:
        dtype, shape = _dtype(entry.data_type), (1, *entry.dims)
        if entry.WhichOneof("input_data_type") == "zero_data":
            return np.zeros(shape, dtype)
        data = (self._folder / model / "warmup" / entry.input_data_file).read_bytes()
        return np.frombuffer(data, dtype, count=int(np.prod(shape))).reshape(shape)

    def _run(self, config: Any, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self._ensemble(config, inputs) if config.platform == "ensemble" else self._model(config, inputs)
        _check(config, "output", config.output, outputs, config.max_batch_size)
        return outputs

    def _ensemble(self, config: Any, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = dict(inputs)
        for step in config.ensemble_scheduling.step:
            request = {name: tensors[tensor] for name, tensor in step.input_map.items()}
            [results] = self.infer(step.model_name, [request])
            tensors.update({tensor: results[name] for name, tensor in step.output_map.items()})
        return {entry.name: tensors[entry.name] for entry in config.output}

    def _model(self, config: Any, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        reshaped = {entry.name: _reshaped(entry, inputs[entry.name], batch, True) for entry in config.input}
        names = [entry.name for entry in config.output]
        results = self._session(config).run(names, reshaped)
        return {
            entry.name: _reshaped(entry, result, batch, False)
            for entry, result in zip(config.output, results, strict=True)
        }

    def _session(self, config: Any) -> Any:
        name = config.name
        if name not in self._sessions:
            path = self._graphs.get(name, self._folder / name / "1" / config.default_model_filename)
            self._sessions[name] = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return self._sessions[name]


def read_config(path: Path) -> Any:
    """Read a config.pbtxt as a ModelConfig.

    Raises:
        ExportError: the file does not follow the server's schema.
    """
    message = schema().ModelConfig()
    from google.protobuf import text_format

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except text_format.ParseError as error:
        raise ExportError(f"{path}: not a configuration of the server's schema ({error})") from None


def _batch(requests: Sequence[Arrays], waiting: Sequence[int], max_batch_size: int) -> list[int]:
    """Return the indices of the next batch: the first waiting request, and later ones of its shapes that fit."""
    shapes = _shapes(requests[waiting[0]])
    group, size = [], 0
    for index in waiting:
        items = len(next(iter(requests[index].values())))
        if _shapes(requests[index]) == shapes and size + items <= max_batch_size:
            group.append(index)
            size += items
    return group


def _shapes(request: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in request.items()}


def _check(config: Any, role: str, entries: Any, arrays: Arrays, max_batch_size: int) -> None:
    """Check names, types, dims and batch size as the server does."""
    if set(arrays) != {entry.name for entry in entries}:
        raise ExportError(f"{config.name}: {role}s {sorted(arrays)}, expected {[entry.name for entry in entries]}")
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) > 1 or not 1 <= max(sizes) <= max_batch_size:
        raise ExportError(f"{config.name}: batch sizes {sorted(sizes)}, at most {max_batch_size} and all equal")
    for entry in entries:
        array = arrays[entry.name]
        dims = tuple(entry.dims)
        fits = len(dims) == array.ndim - 1 and all(want in (-1, has) for want, has in zip(dims, array.shape[1:]))  # noqa: B905 - the lengths were compared
        if not fits or array.dtype != _dtype(entry.data_type):
            raise ExportError(
                f"{config.name}: {role} {entry.name} is {array.dtype} {list(array.shape)}, expected "
                f"{_dtype(entry.data_type)} [batch, {', '.join(map(str, dims))}]"
            )


def _reshaped(entry: Any, array: NDArray[Any], batch: int, to_graph: bool) -> NDArray[Any]:
    """Apply the `reshape` of an input (`to_graph`) or of an output."""
    if not entry.HasField("reshape"):
        return array
    return array.reshape(batch, *(entry.reshape.shape if to_graph else entry.dims))


def _dtype(data_type: int) -> np.dtype[Any]:
    return _DTYPES[schema().DataType.Name(data_type)]


def require_agreement(simulation: Simulation, codec: Codec) -> None:
    """Compare the simulated server with `Codec`, to the thresholds of the bundle's arithmetic, as at export.

    Raises:
        ParityError: the codes or the audio of a request don't agree with those of `Codec` for its clip alone.
    """
    thresholds = PRECISIONS[codec.bundle.manifest.arithmetic].thresholds
    hop = codec.hop_length
    lengths = [1, *(max(1, round(frames * hop)) for frames in _LENGTHS_FRAMES)]
    clips = [speech(9000 * index + length, codec.sample_rate)[-length:] for index, length in enumerate(lengths)]
    longest = codec.config.num_frames(max(lengths)) * hop
    simulation.warm_up()
    reference = GraphReference("Codec", codec.config, codec.graphs.arrays)
    answers = simulation.infer("tokenize", [tokenize_request(clip, longest) for clip in clips])
    for answer, clip in zip(answers, clips, strict=True):
        codes = answer["codes"][0, :, : int(answer["frames"][0, 0])]
        _require_codes(reference, run_reference(reference, clip), codes, thresholds, len(clip))
    tokens = [codec.encode(clip, codec.sample_rate) for clip in clips]
    parts = [*tokens, tokens[1].levels(1), tokens[2].levels(skip=codec.n_q - 1)]
    _require_stream(simulation, codec, tokens[1], thresholds)
    longest = max(part.num_frames for part in parts)
    answers = simulation.infer("synthesize", [synthesize_request(part, longest) for part in parts])
    for answer, part in zip(answers, parts, strict=True):
        compared = compare_audio(codec.decode(part), answer["waveform"][0, 0, : part.num_samples])
        if not compared.passes(thresholds.decoder_snr_db):
            raise ParityError(
                f"synthesize: {compared.snr_db:.1f} dB from Codec's audio of {part.num_frames} frames, {part.n_q} "
                f"levels from {part.first_level}. Nothing was written"
            )


def speech_stream(simulation: Simulation, first_level: int = 0) -> SpeechStream:
    """Return the shipped client's stream over the simulated server."""

    def infer(model: str, request: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        [answer] = simulation.infer(model, [request])
        return {name: answer[name] for name in names}

    parameters = {name: value.string_value for name, value in simulation.configs["synthesize"].parameters.items()}
    return SpeechStream(infer, parameters, first_level)


def _require_stream(simulation: Simulation, codec: Codec, tokens: Tokens, thresholds: Thresholds) -> None:
    stream, codes = speech_stream(simulation), tokens.codes.astype(np.int64)
    audio = [stream.push(codes[:, at : at + _PUSH_FRAMES]) for at in range(0, tokens.num_frames, _PUSH_FRAMES)]
    samples = np.concatenate([*audio, stream.finish()])[: tokens.num_samples]
    compared = compare_audio(codec.decode(tokens), samples)
    if not compared.passes(thresholds.decoder_snr_db):
        raise ParityError(
            f"decoder_recurrent, decoder_upsampler: {compared.snr_db:.1f} dB from Codec's audio. Nothing was written"
        )


def _require_codes(
    reference: Reference, expected: Expected, codes: NDArray[np.int64], thresholds: Thresholds, num_samples: int
) -> None:
    problem = f"{codes.shape} codes where {expected.codes.shape} are due"
    if codes.shape == expected.codes.shape:
        compared = compare_codes(reference, [expected], [codes])
        if (
            compared.frame_agreement >= thresholds.frame_agreement
            and compared.level0_agreement >= thresholds.level0_agreement
        ):
            return
        problem = f"{compared.frame_agreement:.2%} of the frames agree"
    raise ParityError(f"tokenize: {problem}, for a clip of {num_samples} samples. Nothing was written")


def tokenize_request(clip: NDArray[np.float32], padded: int) -> Arrays:
    """Return a request for one clip, padded to `padded` samples."""
    waveform = np.zeros((1, 1, padded), np.float32)
    waveform[0, 0, : len(clip)] = clip
    return {"waveform": waveform, "lengths": np.array([[len(clip)]], np.int64)}


def synthesize_request(tokens: Tokens, padded: int) -> Arrays:
    """Return a request for one clip's tokens, padded to `padded` frames."""
    codes = np.zeros((1, tokens.n_q, padded), np.int64)
    codes[0, :, : tokens.num_frames] = tokens.codes
    first_level, frames = (np.array([[value]], np.int64) for value in (tokens.first_level, tokens.num_frames))
    return {"codes": codes, "first_level": first_level, "frames": frames}
