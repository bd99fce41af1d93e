"""The codec that apps embed: waveforms to tokens and back, through the graphs of a bundle."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, prepare_waveform, read_audio, write_audio
from dmcodec.bundle import GRAPH_NAMES, Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, TokensError
from dmcodec.runtime.backend import Backend, DeviceTensor, Runner
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.tokens import Tokens

BACKENDS = ("onnxruntime",)
MAX_DURATION_S = 300.0
MAX_BATCH_SIZE = 16


class Codec:
    """Encodes waveforms to tokens and decodes tokens to waveforms. Safe to use from several threads.

    Graphs are loaded when they are first needed (`warm_up` does it ahead); a clip is run in one piece.
    """

    def __init__(self, bundle: Bundle, backend: Backend, max_duration_s: float = MAX_DURATION_S) -> None:
        self.bundle = bundle
        self.backend = backend
        self.max_duration_s = max_duration_s
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        backend: str = "onnxruntime",
        provider: str = "cpu",
        threads: int | None = None,
        max_duration_s: float = MAX_DURATION_S,
    ) -> Codec:
        """Opens a bundle, checks that it is complete and unaltered, and prepares a backend.

        Args:
            bundle: the folder that `dmcodec export` wrote.
            backend: "onnxruntime".
            provider: "cpu" or "cuda" (onnxruntime-gpu). What is asked for is what runs, or an error.
            threads: CPU threads; by default one for each CPU that this process may use.
            max_duration_s: longer clips are refused: a clip is run in one piece, whose memory grows with its length.

        Raises:
            BundleError: missing, incomplete, altered, or from a newer dmcodec.
            ProviderError: the provider can't be had here.
            MissingDependencyError: the backend isn't installed.
        """
        if backend not in BACKENDS:
            raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
        engine = OnnxRuntimeBackend(provider, threads)
        return cls(Bundle.open(bundle), engine, max_duration_s)

    @property
    def config(self) -> CodecConfig:
        """The codec's configuration."""
        return self.bundle.manifest.config

    @property
    def sample_rate(self) -> int:
        """Samples per second of waveforms that go in and come out."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.config.frame_rate

    @property
    def n_q(self) -> int:
        """Quantizer levels."""
        return self.config.n_q

    @property
    def codebook_size(self) -> int:
        """Entries per codebook."""
        return self.config.codebook_size

    def encode(self, waveform: Any, sample_rate: int, n_q: int | None = None) -> Tokens:
        """Waveform -> tokens.

        Args:
            waveform: (samples,) or (channels, samples), float32, float64 in [-1, 1] or int16; channels are averaged.
            sample_rate: of `waveform` in Hz; resampled to the codec's where it differs.
            n_q: quantizer levels to keep (all by default): 1 to `self.n_q`.

        Returns:
            Tokens with codes (n_q, ceil(samples / hop_length)) and the true number of samples at the codec's rate.

        Raises:
            AudioError: another shape or type, empty, NaN, or longer than `max_duration_s`.
            ArgumentError: n_q out of range.
        """
        return self.encode_batch([waveform], sample_rate, n_q)[0]

    def encode_batch(self, waveforms: Sequence[Any], sample_rate: int, n_q: int | None = None) -> list[Tokens]:
        """Waveforms of any lengths -> one Tokens each, in order; the same codes as `encode` gives.

        Clips of equal length run as one batch. Clips of different lengths are never padded to a common one: the
        network would see the padding and change their codes.
        """
        n_q = self._checked_n_q(n_q)
        prepared = [self._prepared(waveform, sample_rate, f"waveform {i}") for i, waveform in enumerate(waveforms)]
        results: list[Tokens | None] = [None] * len(prepared)
        for indices in self._batches(prepared):
            batch = np.stack([prepared[i] for i in indices])[:, None]
            codes = self._codes(batch)
            for row, i in enumerate(indices):
                results[i] = self._tokens(codes[:n_q, row], len(prepared[i]))
        return [tokens for tokens in results if tokens is not None]

    def decode(self, tokens: Tokens, n_q: int | None = None) -> Waveform:
        """Tokens -> waveform (tokens.num_samples,) float32 at the codec's sample rate.

        Args:
            tokens: of this codec's model; tokens without a model id are taken as such.
            n_q: use only the first levels (all that the tokens have by default).

        Raises:
            TokensError: of another model or configuration, more levels than the codec has, or no frames.
            ArgumentError: n_q is more than the tokens have.
        """
        self._check_tokens(tokens)
        if n_q is not None and not 1 <= n_q <= tokens.n_q:
            raise ArgumentError(f"n_q must be 1 to {tokens.n_q} (the levels of these tokens), not {n_q}")
        codes = tokens.codes[:n_q, None].astype(np.int64)
        latents = self._run("dequantizer", codes=codes, first_level=np.array(0, np.int64))
        waveform: Waveform = self._array(self._run("decoder", latents=latents))
        return waveform[0, 0, : tokens.num_samples].copy()

    def encode_file(self, path: str | Path, n_q: int | None = None) -> Tokens:
        """Encodes an audio file of any sample rate and number of channels; see `encode`."""
        waveform, sample_rate = read_audio(path, self.max_duration_s)
        prepared = prepare_waveform(waveform, sample_rate, self.sample_rate, source=str(path))
        return self.encode(prepared, self.sample_rate, n_q)

    def decode_file(self, tokens: Tokens | str | Path, path: str | Path, n_q: int | None = None) -> None:
        """Decodes tokens, or a token file, to an audio file (16-bit WAV or FLAC, or Ogg)."""
        if not isinstance(tokens, Tokens):
            tokens = Tokens.load(tokens)
        write_audio(path, self.decode(tokens, n_q), self.sample_rate)

    def latents(self, waveform: Any, sample_rate: int) -> NDArray[np.float32]:
        """Waveform -> continuous latents before quantization: (dimension, frames) float32."""
        batch = self._prepared(waveform, sample_rate, "waveform")[None, None]
        latents: NDArray[np.float32] = self._array(self._run("encoder", waveform=batch))
        return latents[0]

    def load_graphs(self, *names: str) -> None:
        """Loads the named graphs (all by default), which would else be loaded when first needed."""
        for name in names or GRAPH_NAMES:
            self._runner(name)

    def warm_up(self, duration_s: float = 1.0) -> None:
        """Loads all graphs and runs each once, so that the first real call is as fast as the next."""
        silence = np.zeros(max(1, round(duration_s * self.sample_rate)), np.float32)
        self.decode(self.encode(silence, self.sample_rate))

    def run_graph(self, name: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Runs one graph of the bundle on arrays; names and shapes are the manifest's."""
        return self._array(self._run(name, **inputs))

    def _run(self, name: str, **inputs: DeviceTensor) -> DeviceTensor:
        return self._runner(name).run(inputs)

    def _runner(self, name: str) -> Runner:
        with self._lock:
            if name not in self._runners:
                spec = self.bundle.manifest.graphs[name]
                self._runners[name] = self.backend.load(self.bundle.graph_path(name), spec)
            return self._runners[name]

    def _array(self, value: DeviceTensor) -> NDArray[Any]:
        return self.backend.to_array(value)

    def _codes(self, batch: NDArray[np.float32]) -> NDArray[np.int64]:
        latents = self._run("encoder", waveform=batch)
        codes: NDArray[np.int64] = self._array(self._run("quantizer", latents=latents))
        return codes

    def _batches(self, waveforms: Sequence[Waveform]) -> Iterator[list[int]]:
        """Indices of equally long waveforms, in batches that together stay within `max_duration_s`."""
        groups: dict[int, list[int]] = {}
        for index, waveform in enumerate(waveforms):
            groups.setdefault(len(waveform), []).append(index)
        for length, indices in groups.items():
            size = max(1, min(MAX_BATCH_SIZE, int(self.max_duration_s * self.sample_rate) // length))
            for start in range(0, len(indices), size):
                yield indices[start : start + size]

    def _tokens(self, codes: NDArray[np.int64], num_samples: int) -> Tokens:
        return Tokens.from_codes(codes, self.config, num_samples, self.bundle.manifest.model_id)

    def _prepared(self, waveform: Any, sample_rate: int, source: str) -> Waveform:
        prepared = prepare_waveform(waveform, sample_rate, self.sample_rate, source)
        if len(prepared) > self.max_duration_s * self.sample_rate:
            raise AudioError(
                f"{source}: {len(prepared) / self.sample_rate:.0f} s long, more than the {self.max_duration_s:.0f} s "
                "that are run in one piece (max_duration_s); cut it into parts"
            )
        return prepared

    def _checked_n_q(self, n_q: int | None) -> int:
        if n_q is None:
            return self.n_q
        if not 1 <= n_q <= self.n_q:
            raise ArgumentError(f"n_q must be 1 to {self.n_q}, not {n_q}")
        return n_q

    def _check_tokens(self, tokens: Tokens) -> None:
        for name in ("sample_rate", "hop_length", "codebook_size"):
            if getattr(tokens, name) != getattr(self.config, name):
                raise TokensError(
                    f"tokens: {name} is {getattr(tokens, name)}, this codec's is {getattr(self.config, name)}; "
                    "decode them with the model that made them"
                )
        if tokens.model_id not in ("", self.bundle.manifest.model_id):
            raise TokensError(
                f"tokens: made by model {tokens.model_id}, this bundle holds model {self.bundle.manifest.model_id}; "
                "decode them with the model that made them"
            )
        if tokens.n_q > self.n_q:
            raise TokensError(f"tokens: {tokens.n_q} levels, this codec has {self.n_q}")
        if tokens.num_frames == 0:
            raise TokensError("tokens: no frames to decode")
