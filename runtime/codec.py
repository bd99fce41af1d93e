"""The codec that applications embed: waveforms to tokens, and tokens to waveforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, audio_writer, prepare_waveform, read_blocks
from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.codes import Codes, is_whole
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, TokensError
from dmcodec.receptive_field import DecoderReach, decoder_reach
from dmcodec.streams import AudioSource, AudioTarget
from dmcodec.token_file import Header, token_file_writer
from dmcodec.tokens import Tokens

from .backend import Backend, Graphs
from .batching import stack
from .long_clips import WindowPlan, window_plan
from .onnxruntime_backend import OnnxRuntimeBackend
from .pipeline import Pipeline
from .stream_decoder import StreamDecoder

BACKENDS = ("onnxruntime", "tensorrt")
MAX_LATENTS_S = 120.0

# Called with the seconds of audio that are done, and the seconds in total.
Progress = Callable[[float, float], None]


class Codec:
    """Encodes waveforms to tokens and decodes tokens to waveforms. Safe to use from several threads.

    Graphs are loaded when they are first needed (`load_graphs` and `warm_up` load them earlier). On the CPU, several
    batches run concurrently with one thread each, on a second copy of the graphs that is loaded then.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._pipeline = Pipeline(bundle, backend)

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        backend: str = "onnxruntime",
        provider: str | None = None,
        threads: int | None = None,
        engine_cache: str | Path | None = None,
        shrink_memory: bool = False,
    ) -> Codec:
        """Open a bundle, check that it is complete and unaltered, and prepare a backend.

        Args:
            bundle: folder that `dmcodec export` wrote; by default `default_bundle_path()`, the trained codec that
                comes with dmcodec.
            backend: "onnxruntime", or "tensorrt" for the engines that `dmcodec export --format trt` built.
            provider: of onnxruntime: "cpu" (the default), "cuda" or "tensorrt". There is no fallback: a provider that
                can't run is an error.
            threads: CPU threads of onnxruntime for one run; by default one for each CPU that this process may use, by
                affinity, quota and OMP_NUM_THREADS, and one for streams.
            engine_cache: of tensorrt: folder of the engines; by default a folder in the bundle.
            shrink_memory: of onnxruntime on the CPU: give the memory of each run back to the system, so that one long
                clip does not raise the memory of the process for good. Runs take longer.

        Raises:
            BundleError: missing, incomplete, altered, or from a newer dmcodec.
            ProviderError: the provider is not available.
            GpuError: no GPU, or a driver that is too old.
            EngineError: no engine for this bundle, GPU and version of TensorRT.
            MissingDependencyError: the backend isn't installed.
        """
        if backend not in BACKENDS:
            raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
        bundle = default_bundle_path() if bundle is None else bundle
        if backend == "tensorrt":
            if shrink_memory:
                raise ArgumentError("shrink_memory is for backend onnxruntime; leave it out")
            return cls._load_tensorrt(bundle, provider, threads, engine_cache)
        if engine_cache is not None:
            raise ArgumentError("engine_cache is for backend tensorrt; onnxruntime has no engines")
        onnxruntime = OnnxRuntimeBackend(provider or "cpu", threads, shrink_memory)
        return cls(Bundle.open(bundle), onnxruntime)

    @classmethod
    def _load_tensorrt(
        cls, bundle: str | Path, provider: str | None, threads: int | None, engine_cache: str | Path | None
    ) -> Codec:
        from dmcodec.runtime.tensorrt.backend import TensorrtBackend

        if provider not in (None, "cuda") or threads is not None:
            raise ArgumentError("backend tensorrt runs on the GPU: it takes no provider but cuda, and no threads")
        opened = Bundle.open(bundle)
        return cls(opened, TensorrtBackend(opened, engine_cache))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle bundle and backend by what opens them; the process that unpickles loads its own graphs."""
        return type(self), (self.bundle, self.backend)

    def __repr__(self) -> str:
        manifest, config = self.bundle.manifest, self.config
        name = self.bundle.path.absolute().name.removesuffix(".bundle")
        return (
            f"Codec({name} {manifest.model_id}, {manifest.precision}, {self.backend.name} {self.backend.provider}, "
            f"{config.sample_rate} Hz, {config.frame_rate:g} frames/s, {config.n_q} x {config.codebook_size} codes)"
        )

    @property
    def config(self) -> CodecConfig:
        """Configuration of the codec."""
        return self.bundle.manifest.config

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms, in Hz."""
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
        """Number of quantizer levels."""
        return self.config.n_q

    @property
    def codebook_size(self) -> int:
        """Entries per codebook."""
        return self.config.codebook_size

    @property
    def decoder_reach(self) -> DecoderReach:
        """Frames before and after a frame that its audio depends on."""
        return decoder_reach(self.config)

    @property
    def context_s(self) -> float:
        """Default context of the windows of long clips, in seconds; measured at export."""
        return float(self.bundle.manifest.encoder_context["default_context_s"])

    @property
    def graphs(self) -> Graphs:
        """The loaded graphs."""
        return self._pipeline.graphs

    def encode(
        self,
        waveform: Any,
        sample_rate: int,
        n_q: int | None = None,
        context_s: float | None = None,
        channel: int | None = None,
    ) -> Tokens:
        """Encode a waveform.

        Args:
            waveform: (samples,) or (channels, samples), float32, float64 in [-1, 1] or int16; an array, a list or a
                torch tensor.
            sample_rate: of `waveform` in Hz; resampled to the codec's if it differs.
            n_q: quantizer levels to keep, 1 to `self.n_q`; all by default.
            context_s: seconds of context around each window of a clip longer than 30 s; `self.context_s` by default.
            channel: the channel to encode, from 0 on; None averages them.

        Returns:
            Tokens with codes (n_q, ceil(samples / hop_length)) and the true number of samples at the codec's rate.

        Raises:
            AudioError: another shape or dtype, empty, NaN, or no such channel.
            ArgumentError: n_q, context_s or channel out of range.

        Warns:
            AudioWarning: channels that cancel where they are averaged, or values far beyond 1.
        """
        return self.encode_batch([waveform], sample_rate, n_q, context_s, channel)[0]

    def encode_batch(
        self,
        waveforms: Sequence[Any],
        sample_rate: int,
        n_q: int | None = None,
        context_s: float | None = None,
        channel: int | None = None,
    ) -> list[Tokens]:
        """Encode waveforms of any lengths; return one Tokens each, in order, as `encode` returns for each alone.

        Clips of similar length run as one batch. The graph receives the length of each clip, so that neither the
        padding after it nor the other clips change its codes. Arguments and errors are those of `encode`.
        """
        self._checked_n_q(n_q)
        prepared = [
            prepare_waveform(waveform, sample_rate, self.sample_rate, f"waveform {index}", channel)
            for index, waveform in enumerate(_listed(waveforms, "waveforms"))
        ]
        return self.encode_prepared(prepared, n_q, context_s)

    def encode_prepared(
        self, prepared: Sequence[Waveform], n_q: int | None = None, context_s: float | None = None
    ) -> list[Tokens]:
        """Encode what `prepare_waveform` or `read_blocks` made, as `encode_batch` does; nothing is checked again."""
        n_q, plan = self._checked_n_q(n_q), self._window_plan(context_s)
        all_codes = self._pipeline.encode(prepared, plan)
        return [self._tokens(codes[:n_q], len(item)) for codes, item in zip(all_codes, prepared, strict=True)]

    def decode(self, tokens: Tokens, n_q: int | None = None) -> Waveform:
        """Decode tokens to a waveform (tokens.num_samples,) float32 at the codec's sample rate.

        Args:
            tokens: made by this codec's model, or without a model id. They may start at a higher level
                (`first_level`).
            n_q: use only the first levels of the tokens; all by default.

        Raises:
            TokensError: another model or configuration, levels that the codec doesn't have, or no frames.
            ArgumentError: n_q is more than the tokens have.
        """
        return self.decode_batch([tokens], n_q)[0]

    def decode_batch(self, batch: Sequence[Tokens], n_q: int | None = None) -> list[Waveform]:
        """Decode tokens of any lengths; return one waveform each, in order, as `decode` returns for each alone."""
        return self._pipeline.decode([self._checked_tokens(tokens, n_q) for tokens in _listed(batch, "Tokens")])

    def encode_file(
        self,
        path: AudioSource,
        out: AudioTarget | None = None,
        n_q: int | None = None,
        context_s: float | None = None,
        progress: Progress | None = None,
        channel: int | None = None,
    ) -> Tokens:
        """Encode an audio file of any length, sample rate and number of channels, without holding all its samples.

        Args:
            path: the audio file: its path (also that of a pipe), or a binary file object, which is read from its
                position on.
            out: token file to write during encoding; it appears when it is complete, and after an error nothing is
                left. A binary file object gets all bytes at the end.
            n_q: as for `encode`.
            context_s: as for `encode`.
            progress: called with the seconds that are done, and the seconds in total.
            channel: as for `encode`.

        Raises:
            AudioFileNotFoundError: no such file.
            AudioError: not audio, empty, cut short, NaN, no such channel, or changed while it was read.
            AudioDependencyError: a format that needs the extra `media`.
            OutputError: `out` can't be written.
        """
        n_q, plan, config = self._checked_n_q(n_q), self._window_plan(context_s), self.config
        model_id = self.bundle.manifest.model_id
        header = Header(n_q, 0, config.codebook_size, config.hop_length, config.sample_rate, 0, model_id)
        num_samples, parts = 0, []

        def blocks() -> Iterator[Waveform]:
            nonlocal num_samples
            for block in read_blocks(path, self.sample_rate, progress, channel):
                num_samples += len(block)
                yield block

        with token_file_writer(out, header) if out is not None else nullcontext() as writer:
            for codes in self._pipeline.encode_blocks(blocks(), plan):
                parts.append(codes[:n_q])
                if writer is not None:
                    writer.write(parts[-1])
            if writer is not None:
                writer.finish(num_samples)
        return self._tokens(np.concatenate(parts, axis=1), num_samples)

    def decode_file(
        self,
        tokens: Tokens | AudioSource,
        path: AudioTarget,
        n_q: int | None = None,
        progress: Progress | None = None,
        format: str | None = None,
    ) -> None:
        """Decode tokens, or a token file, of any length to an audio file (16-bit WAV or FLAC, or Ogg).

        Args:
            tokens: as for `decode`, or the path of a token file, or a binary file object with one.
            path: the audio file; it appears when it is complete. Or a binary file object: one that can't seek (a pipe)
                gets WAV while it is decoded, all else is written at the end.
            n_q: as for `decode`.
            progress: called with the seconds that are done, and the seconds in total.
            format: "wav", "flac" or "ogg"; by default the suffix says it, and for a file object without one "wav".

        Raises:
            TokenFileError: no token file.
            TokensError, ArgumentError: as for `decode`.
            OutputError: the file can't be written, or has a suffix that isn't known.
        """
        if not isinstance(tokens, Tokens):
            tokens = Tokens.load(tokens)
        selected = self._checked_tokens(tokens, n_q)
        done = 0
        with audio_writer(path, self.sample_rate, format, selected.num_samples) as write:
            for block in self._pipeline.decode_blocks(selected):
                write(block)
                done += len(block)
                if progress:
                    progress(done / self.sample_rate, selected.duration_s)

    def stream_decoder(
        self, n_q: int | None = None, first_level: int = 0, batch_size: int | None = None
    ) -> StreamDecoder:
        """Return a stream that decodes codes while they arrive; see `dmcodec.runtime.StreamDecoder`.

        Args:
            n_q: levels of the codes of each push; all from `first_level` on by default.
            first_level: quantizer level of their first row.
            batch_size: clips that are decoded in parallel; None for one clip without a batch axis.

        Raises:
            ArgumentError: levels that the codec doesn't have, or a batch size below 1.
        """
        return self._pipeline.stream_decoder(n_q, first_level, batch_size)

    def latents(self, waveform: Any, sample_rate: int) -> NDArray[np.float32]:
        """Return the latents of a waveform before quantization, (dimension, frames) float32. They run in one piece.

        Raises:
            AudioError: as for `encode`, or longer than MAX_LATENTS_S.
        """
        prepared = prepare_waveform(waveform, sample_rate, self.sample_rate)
        if len(prepared) > self._pipeline.num_samples(MAX_LATENTS_S):
            raise AudioError(f"waveform: longer than {MAX_LATENTS_S:g} s, the limit for latents; cut it into parts")
        batch, lengths = stack([prepared[None]])
        return self.run_graph("encoder", waveform=batch, lengths=lengths)[0]

    def load_graphs(self, *names: str) -> None:
        """Load the named graphs (all by default) now, and not when they are first needed."""
        self._pipeline.load(*names)

    def warm_up(self, duration_s: float = 1.0) -> None:
        """Load the graphs of `encode` and `decode` and run each once, so that the first real call is fast."""
        silence = np.zeros(max(1, round(duration_s * self.sample_rate)), np.float32)
        self.decode(self.encode(silence, self.sample_rate))

    def run_graph(self, name: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Run one graph of the bundle on arrays; return its first output. The manifest has the names and shapes."""
        return self.graphs.arrays(name, **inputs)[0]

    def runs_whole(self, num_samples: int) -> bool:
        """Return whether a clip of `num_samples` runs in one piece, and not in windows or as a stream."""
        return self._pipeline.runs_whole(num_samples)

    def check_origin(self, tokens: Tokens | Header) -> None:
        """Raise TokensError if `tokens` are of another model or configuration than this codec's."""
        for name in ("sample_rate", "hop_length", "codebook_size"):
            if getattr(tokens, name) != getattr(self.config, name):
                raise TokensError(
                    f"tokens: {name} is {getattr(tokens, name)}, this codec's is {getattr(self.config, name)}; "
                    "decode them with the model that made them"
                )
        model_id = self.bundle.manifest.model_id
        if tokens.model_id not in ("", model_id):
            raise TokensError(
                f"tokens: made by model {tokens.model_id}, this bundle holds model {model_id}; "
                "decode them with the model that made them"
            )
        if tokens.first_level + tokens.n_q > self.n_q:
            last = tokens.first_level + tokens.n_q - 1
            raise TokensError(f"tokens: levels {tokens.first_level} to {last}, this codec has {self.n_q} levels")

    def _tokens(self, codes: Codes, num_samples: int) -> Tokens:
        return Tokens.from_codes(codes, self.config, num_samples, self.bundle.manifest.model_id)

    def _window_plan(self, context_s: float | None) -> WindowPlan:
        return window_plan(self.config, self.context_s if context_s is None else context_s)

    def _checked_n_q(self, n_q: int | None) -> int:
        if n_q is None:
            return self.n_q
        if not is_whole(n_q) or not 1 <= n_q <= self.n_q:
            raise ArgumentError(f"n_q must be 1 to {self.n_q}, not {n_q!r}")
        return int(n_q)

    def _checked_tokens(self, tokens: Tokens, n_q: int | None) -> Tokens:
        """Return the levels of `tokens` to decode; raise an error if this codec can't decode them."""
        if not isinstance(tokens, Tokens):
            raise TokensError(
                f"expected Tokens, got {type(tokens).__name__}; make them of codes with "
                "Tokens.from_codes(codes, codec.config), of a file with Tokens.load(path)"
            )
        self.check_origin(tokens)
        if n_q is not None and (not is_whole(n_q) or not 1 <= n_q <= tokens.n_q):
            raise ArgumentError(f"n_q must be 1 to {tokens.n_q} (the levels of these tokens), not {n_q!r}")
        if tokens.num_frames == 0:
            raise TokensError("tokens: no frames to decode")
        return tokens.levels(n_q)


def _listed(items: Any, what: str) -> list[Any]:
    """Return the items of a batch; raise an error for what is one item."""
    one = isinstance(items, (Tokens, str, bytes, dict)) or getattr(items, "ndim", 1) == 0
    try:
        if not one:
            return list(items)
    except TypeError:
        pass
    raise ArgumentError(f"expected a list of {what}, got {type(items).__name__}")
