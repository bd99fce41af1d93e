"""Speech to tokens and back, whole or while the codes arrive, through a Triton server with this model repository.

    pip install "tritonclient[grpc]" numpy
    python client.py speech.wav out.wav --url localhost:8001 --tokens codes.npy

Reads and writes 16-bit mono WAV at the model's sample rate, clips of at most 30 s. It does not need dmcodec.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The server batches requests of equal shape only, so clips are padded to multiples of this. Their true length is sent
# too, so that the padding does not change results.
BUCKET_S = 0.5
MAX_S = 30.0
TIMEOUT_S = 60.0
MAX_CONCURRENT_REQUESTS = 32


# Asks a model: infer(model, arrays by name, names of the outputs) -> arrays by name.
Infer = Callable[[str, dict[str, NDArray[Any]], Sequence[str]], dict[str, NDArray[Any]]]


class SpeechStream:
    """Speech while codes arrive, equal to `Client.synthesize` of all of them; made by `Client.stream`.

    The state of the stream is here and goes with each request, so that the server batches the pushes of all streams,
    and any server answers any push.

    Args:
        infer: asks a model of the server.
        parameters: of the ensembles.
        first_level: level of the first row of the codes.
    """

    def __init__(self, infer: Infer, parameters: Mapping[str, str], first_level: int = 0) -> None:
        self._infer, self._first_level = infer, first_level
        self._hop, self._front = int(parameters["hop_length"]), int(parameters["stream_front"])
        self._past, self._future = int(parameters["stream_past"]), int(parameters["stream_future"])
        # Repositories of an earlier version lack these: their context is the same on both sides.
        self._front_future = int(parameters.get("stream_front_future", self._front))
        self._head = int(parameters.get("stream_head", self._future + 1))
        channels = int(parameters["stream_channels"])
        self._state = [np.zeros((1, int(parameters["stream_layers"]), channels), np.float32)] * 2
        self._latents = np.zeros((1, int(parameters["dimension"]), 0), np.float32)
        self._features = np.zeros((1, channels, 0), np.float32)
        self._frames_in = self._frames_ready = self._frames_out = 0

    def push(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Add codes [n, frames]; return the samples that are final now, often those of earlier frames."""
        request = {"codes": codes[None].astype(np.int64), "first_level": _scalar(self._first_level)}
        latents = self._infer("dequantizer", request, ("latents",))["latents"]
        self._latents = np.concatenate([self._latents, latents], axis=2)
        self._frames_in += codes.shape[1]
        return self._advance(is_end=False)

    def finish(self) -> NDArray[np.float32]:
        """End the stream; return the samples of its last frames."""
        return self._advance(is_end=True)

    def _advance(self, is_end: bool) -> NDArray[np.float32]:
        front, right = self._front, self._front_future if is_end else 0
        ready = self._frames_in - (0 if is_end else self._front_future)
        if ready > self._frames_ready and (is_end or self._frames_in > front):
            window = _reflected(self._latents, max(0, front - self._frames_ready), right)
            request = {"latents": window, "hidden": self._state[0], "cell": self._state[1]}
            answer = self._infer("decoder_recurrent", request, ("features", "new_hidden", "new_cell"))
            self._state = [answer["new_hidden"], answer["new_cell"]]
            self._features = np.concatenate([self._features, answer["features"]], axis=2)
            self._latents = self._latents[:, :, max(0, ready - front) - max(0, self._frames_ready - front) :]
            self._frames_ready = ready
        out = self._frames_ready - (0 if is_end else self._future)
        if out <= self._frames_out or not (is_end or self._frames_ready >= self._head):
            return np.zeros(0, np.float32)
        start = max(0, self._frames_out - self._past)
        waveform = self._infer("decoder_upsampler", {"features": self._features}, ("waveform",))["waveform"]
        first, stop = (self._frames_out - start) * self._hop, (out - start) * self._hop
        samples: NDArray[np.float32] = waveform[0, 0, first:stop]
        self._features = self._features[:, :, max(0, out - self._past) - start :]
        self._frames_out = out
        return samples


class Client:
    """The ensembles `tokenize` and `synthesize` of a server, and its streams."""

    def __init__(self, url: str = "localhost:8001", timeout_s: float = TIMEOUT_S) -> None:
        import tritonclient.grpc as triton

        self._triton, self._timeout_s = triton, timeout_s
        self._server = triton.InferenceServerClient(url)
        parameters = self._server.get_model_config("tokenize").config.parameters
        self._parameters = codec = {name: value.string_value for name, value in parameters.items()}
        self.model_id, self.precision = codec["model_id"], codec["precision"]
        self.sample_rate, self.hop_length = int(codec["sample_rate"]), int(codec["hop_length"])
        self.n_q, self.codebook_size = int(codec["n_q"]), int(codec["codebook_size"])

    def tokenize(self, waveforms: Sequence[NDArray[np.float32]], n_q: int | None = None) -> list[NDArray[np.int64]]:
        """Encode waveforms [samples] at `sample_rate` to codes [n_q, frames] of each. All requests are sent at once."""
        if not all(0 < len(waveform) <= MAX_S * self.sample_rate for waveform in waveforms):
            raise ValueError(f"each waveform must have 1 sample to {MAX_S:g} s; cut longer ones into pieces")
        requests: list[dict[str, NDArray[Any]]] = []
        for waveform in waveforms:
            padded = np.zeros((1, 1, self._padded(len(waveform), round(BUCKET_S * self.sample_rate))), np.float32)
            padded[0, 0, : len(waveform)] = waveform
            requests.append({"waveform": padded, "lengths": _scalar(len(waveform))})
        answers = self._infer("tokenize", requests, ("codes", "frames"))
        return [answer["codes"][0, :n_q, : int(answer["frames"][0, 0])] for answer in answers]

    def synthesize(self, codes: Sequence[NDArray[np.int64]], first_level: int = 0) -> list[NDArray[np.float32]]:
        """Decode codes [n, frames] of the levels from `first_level` on to waveforms [frames * hop_length]."""
        bucket = round(BUCKET_S * self.sample_rate / self.hop_length)
        requests: list[dict[str, NDArray[Any]]] = []
        for item in codes:
            n, frames = item.shape
            if not frames or item.min() < 0 or item.max() >= self.codebook_size or n + first_level > self.n_q:
                raise ValueError(
                    f"codes must be below {self.codebook_size}, of {self.n_q} levels at most, and not empty"
                )
            padded = np.zeros((1, n, self._padded(frames, bucket)), np.int64)
            padded[0, :, :frames] = item
            requests.append({"codes": padded, "first_level": _scalar(first_level), "frames": _scalar(frames)})
        answers = self._infer("synthesize", requests, ("waveform",))
        return [
            answer["waveform"][0, 0, : item.shape[1] * self.hop_length]
            for answer, item in zip(answers, codes, strict=True)
        ]

    def stream(self, first_level: int = 0) -> SpeechStream:
        """Return a stream that makes speech of codes, of the levels from `first_level` on, while they arrive."""

        def infer(model: str, request: dict[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
            result = self._send(model, request)
            return {name: result.as_numpy(name) for name in names}

        return SpeechStream(infer, self._parameters, first_level)

    def _infer(
        self, model: str, requests: Sequence[dict[str, NDArray[Any]]], names: Sequence[str]
    ) -> list[dict[str, NDArray[Any]]]:
        # Concurrent requests, so that the server can batch them.
        with ThreadPoolExecutor(max(1, min(MAX_CONCURRENT_REQUESTS, len(requests)))) as pool:
            results = list(pool.map(lambda request: self._send(model, request), requests))
        return [{name: result.as_numpy(name) for name in names} for result in results]

    def _send(self, model: str, request: dict[str, NDArray[Any]]) -> Any:
        inputs = [self._input(name, array) for name, array in request.items()]
        return self._server.infer(model, inputs, client_timeout=self._timeout_s)

    def _padded(self, size: int, multiple: int) -> int:
        return -(-size // multiple) * multiple

    def _input(self, name: str, array: NDArray[Any]) -> Any:
        kind = "FP32" if array.dtype == np.float32 else "INT64"
        tensor = self._triton.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        return tensor


def _reflected(latents: NDArray[np.float32], left: int, right: int) -> NDArray[np.float32]:
    """Pad latents [B, D, T] by reflection at the ends of the speech; too short ones are first extended with zeros."""
    extension = max(0, max(left, right) - latents.shape[2] + 1)
    extended = np.pad(latents, ((0, 0), (0, 0), (0, extension)))
    padded = np.pad(extended, ((0, 0), (0, 0), (left, right)), mode="reflect")
    return padded[:, :, : padded.shape[2] - extension]


def _scalar(value: int) -> NDArray[np.int64]:
    return np.array([[value]], np.int64)


def read_wav(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Read the samples of a 16-bit mono WAV file, -1 to 1."""
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, sample_rate):
            raise ValueError(f"{path}: must be 16-bit mono WAV at {sample_rate} Hz")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return samples.astype(np.float32) / np.float32(32768)


def write_wav(path: Path, samples: NDArray[np.float32], sample_rate: int) -> None:
    """Write samples as 16-bit mono WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Speech to tokens and back through a Triton server.")
    parser.add_argument("speech", type=Path, help="16-bit mono WAV at the model's sample rate, at most 30 s")
    parser.add_argument("out", type=Path, help="WAV file to write")
    parser.add_argument("--url", default="localhost:8001", help="gRPC address of the server")
    parser.add_argument("--tokens", type=Path, help="also write the codes here, as .npy")
    arguments = parser.parse_args()
    try:
        client = Client(arguments.url)
        waveform = read_wav(arguments.speech, client.sample_rate)
        [codes] = client.tokenize([waveform])
        if arguments.tokens:
            np.save(arguments.tokens, codes)
        [audio] = client.synthesize([codes])
        write_wav(arguments.out, audio[: len(waveform)], client.sample_rate)
    except Exception as error:  # noqa: BLE001 - any error of the server or a file
        sys.exit(f"error: {error}")
    sys.stdout.write(f"model {client.model_id}: {codes.shape[0]} x {codes.shape[1]} codes\n")


if __name__ == "__main__":
    main()
