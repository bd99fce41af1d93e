"""The codec that apps embed: waveforms to tokens and back, through the graphs of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, audio_writer, prepare_waveform, read_blocks
from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, TokensError
from dmcodec.receptive_field import DecoderReach, decoder_reach
from dmcodec.token_file import Header, token_file_writer
from dmcodec.tokens import Tokens

from .backend import Backend, Graphs
from .batching import DECODE_TOTAL_S, ENCODE_TOTAL_S, WHOLE_S, WINDOW_S, WINDOWS_AT_ONCE, batches, stack
from .long_clips import Window, WindowPlan, Windows, window_plan
from .onnxruntime_backend import OnnxRuntimeBackend
from .stream_decoder import StreamDecoder

BACKENDS = ("onnxruntime", "tensorrt")
MAX_LATENTS_S = 120.0
Result = TypeVar("Result")

# Called with the seconds of audio done, and the seconds there are.
Progress = Callable[[float, float], None]


class Codec:
    """Encodes waveforms to tokens and decodes tokens to waveforms. Safe to use from several threads.

    Graphs are loaded when they are first needed (`load_graphs` and `warm_up` do it ahead). Several batches at once run
    side by side on the CPU, one thread each, from a second copy of the graphs that is loaded then.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self.graphs = Graphs(bundle, backend)
        single = backend.single_threaded()
        self._side_graphs = Graphs(bundle, single) if single else None
        self._workers = backend.threads if single else 1

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        backend: str = "onnxruntime",
        provider: str | None = None,
        threads: int | None = None,
        engine_cache: str | Path | None = None,
    ) -> Codec:
        """Opens a bundle, checks that it is complete and unaltered, and prepares a backend.

        Args:
            bundle: the folder that `dmcodec export` wrote; by default `default_bundle_path()`, the trained codec that
                comes with dmcodec.
            backend: "onnxruntime", or "tensorrt" for the engines that `dmcodec export --format trt` built.
            provider: of onnxruntime: "cpu" (the default), "cuda" or "tensorrt". What is asked for is what runs, or
                an error.
            threads: CPU threads of onnxruntime; by default one for each CPU that this process may use.
            engine_cache: of tensorrt: the folder of its engines; by default within the bundle.

        Raises:
            BundleError: missing, incomplete, altered, or from a newer dmcodec.
            ProviderError: the provider can't be had here.
            GpuError: no GPU, or a driver that can't run this.
            EngineError: no engine for this bundle, GPU and version of TensorRT.
            MissingDependencyError: the backend isn't installed.
        """
        if backend not in BACKENDS:
            raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
        bundle = default_bundle_path() if bundle is None else bundle
        if backend == "tensorrt":
            return cls._load_tensorrt(bundle, provider, threads, engine_cache)
        if engine_cache is not None:
            raise ArgumentError("engine_cache is for backend tensorrt; onnxruntime has no engines")
        engine = OnnxRuntimeBackend(provider or "cpu", threads)
        return cls(Bundle.open(bundle), engine)

    @classmethod
    def _load_tensorrt(
        cls, bundle: str | Path, provider: str | None, threads: int | None, engine_cache: str | Path | None
    ) -> Codec:
        from dmcodec.runtime.tensorrt.backend import TensorrtBackend

        if provider not in (None, "cuda") or threads is not None:
            raise ArgumentError("backend tensorrt runs on the GPU: it takes no provider but cuda, and no threads")
        opened = Bundle.open(bundle)
        return cls(opened, TensorrtBackend(opened, engine_cache))

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

    @property
    def decoder_reach(self) -> DecoderReach:
        """How far the decoder looks around a frame."""
        return decoder_reach(self.config)

    @property
    def context_s(self) -> float:
        """Context that windows of long clips are run with by default: what the export measured to be enough."""
        return float(self.bundle.manifest.encoder_context["default_context_s"])

    def encode(self, waveform: Any, sample_rate: int, n_q: int | None = None, context_s: float | None = None) -> Tokens:
        """Waveform -> tokens.

        Args:
            waveform: (samples,) or (channels, samples), float32, float64 in [-1, 1] or int16; channels are averaged.
            sample_rate: of `waveform` in Hz; resampled to the codec's where it differs.
            n_q: quantizer levels to keep (all by default): 1 to `self.n_q`.
            context_s: seconds of context around each window of a clip longer than 30 s; `self.context_s` by default.

        Returns:
            Tokens with codes (n_q, ceil(samples / hop_length)) and the true number of samples at the codec's rate.

        Raises:
            AudioError: another shape or type, empty, or NaN.
            ArgumentError: n_q or context_s out of range.
        """
        return self.encode_batch([waveform], sample_rate, n_q, context_s)[0]

    def encode_batch(
        self, waveforms: Sequence[Any], sample_rate: int, n_q: int | None = None, context_s: float | None = None
    ) -> list[Tokens]:
        """Waveforms of any lengths -> one Tokens each, in order; the same as `encode` gives for each alone.

        Clips of similar length run as one batch. The graph knows where each of them ends, so that neither the padding
        behind it nor its neighbours change its codes.
        """
        n_q, plan = self._checked_n_q(n_q), self._window_plan(context_s)
        prepared = [
            prepare_waveform(waveform, sample_rate, self.sample_rate, f"waveform {index}")
            for index, waveform in enumerate(waveforms)
        ]
        results: dict[int, Tokens] = {}
        short = [index for index, waveform in enumerate(prepared) if self.runs_whole(len(waveform))]
        for index, codes in zip(short, self._codes([prepared[index] for index in short]), strict=True):
            results[index] = self._tokens(codes[:n_q], len(prepared[index]))
        step = self._samples(WINDOW_S)
        for index in set(range(len(prepared))) - set(short):
            blocks = (prepared[index][start : start + step] for start in range(0, len(prepared[index]), step))
            parts = [codes[:n_q] for codes in self._windowed_codes(blocks, plan)]
            results[index] = self._tokens(np.concatenate(parts, axis=1), len(prepared[index]))
        return [results[index] for index in range(len(prepared))]

    def decode(self, tokens: Tokens, n_q: int | None = None) -> Waveform:
        """Tokens -> waveform (tokens.num_samples,) float32 at the codec's sample rate.

        Args:
            tokens: of this codec's model; tokens without a model id are taken as such. Their `first_level` is obeyed.
            n_q: use only the first levels of the tokens (all that they have by default).

        Raises:
            TokensError: of another model or configuration, levels that the codec doesn't have, or no frames.
            ArgumentError: n_q is more than the tokens have.
        """
        return self.decode_batch([tokens], n_q)[0]

    def decode_batch(self, batch: Sequence[Tokens], n_q: int | None = None) -> list[Waveform]:
        """Tokens of any lengths -> one waveform each, in order; the same as `decode` gives for each alone."""
        chosen = [self._checked_tokens(tokens, n_q) for tokens in batch]
        results: dict[int, Waveform] = {}
        short = [index for index, tokens in enumerate(chosen) if self.runs_whole(tokens.num_samples)]
        for kind in {(chosen[index].n_q, chosen[index].first_level) for index in short}:
            alike = [index for index in short if (chosen[index].n_q, chosen[index].first_level) == kind]
            waveforms = self._waveforms([chosen[index] for index in alike])
            results.update(zip(alike, waveforms, strict=True))
        for index in set(range(len(chosen))) - set(short):
            results[index] = np.concatenate(list(self._streamed(chosen[index])))
        return [results[index] for index in range(len(chosen))]

    def encode_file(
        self,
        path: str | Path,
        out: str | Path | None = None,
        n_q: int | None = None,
        context_s: float | None = None,
        progress: Progress | None = None,
    ) -> Tokens:
        """Encodes an audio file of any length, sample rate and number of channels; never holds it whole.

        Args:
            path: the audio file.
            out: a token file to write as the codes come; it appears when it is complete, else nothing is left.
            n_q, context_s: as for `encode`.
            progress: called with the seconds done and the seconds there are.
        """
        n_q, plan = self._checked_n_q(n_q), self._window_plan(context_s)
        config = self.config
        header = Header(
            n_q, 0, config.codebook_size, config.hop_length, config.sample_rate, 0, self.bundle.manifest.model_id
        )
        blocks = _Counted(read_blocks(path, self.sample_rate, progress))
        parts = []
        with token_file_writer(out, header) if out is not None else nullcontext() as writer:
            for codes in self._file_codes(blocks, plan):
                parts.append(codes[:n_q].astype(np.uint16))
                if writer is not None:
                    writer.write(parts[-1])
            if writer is not None:
                writer.finish(blocks.num_samples)
        return self._tokens(np.concatenate(parts, axis=1), blocks.num_samples)

    def decode_file(
        self,
        tokens: Tokens | str | Path,
        path: str | Path,
        n_q: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Decodes tokens, or a token file, of any length to an audio file (16-bit WAV or FLAC, or Ogg)."""
        if not isinstance(tokens, Tokens):
            tokens = Tokens.load(tokens)
        chosen = self._checked_tokens(tokens, n_q)
        whole = self.runs_whole(chosen.num_samples)
        pieces = iter(self._waveforms([chosen])) if whole else self._streamed(chosen)
        done = 0
        with audio_writer(path, self.sample_rate) as write:
            for piece in pieces:
                write(piece)
                done += len(piece)
                if progress:
                    progress(done / self.sample_rate, chosen.duration_s)

    def stream_decoder(
        self, n_q: int | None = None, first_level: int = 0, batch_size: int | None = None
    ) -> StreamDecoder:
        """A stream that turns codes into audio while they come in; see `dmcodec.runtime.StreamDecoder`.

        Args:
            n_q: levels that each push brings (all from `first_level` on by default).
            first_level: level of their first row.
            batch_size: clips decoded in step; None for one clip without a batch axis.
        """
        return StreamDecoder(self.graphs.arrays, self.config, n_q, first_level, batch_size)

    def latents(self, waveform: Any, sample_rate: int) -> NDArray[np.float32]:
        """Waveform -> continuous latents before quantization: (dimension, frames) float32. Run in one piece.

        Raises:
            AudioError: longer than MAX_LATENTS_S; cut it into parts.
        """
        prepared = prepare_waveform(waveform, sample_rate, self.sample_rate)
        if len(prepared) > self._samples(MAX_LATENTS_S):
            raise AudioError(f"waveform: longer than the {MAX_LATENTS_S:g} s that latents are computed of; cut it")
        batch, lengths = stack([prepared[None]])
        return self.run_graph("encoder", waveform=batch, lengths=lengths)[0]

    def load_graphs(self, *names: str) -> None:
        """Loads the named graphs (all by default), which would else be loaded when first needed."""
        self.graphs.load(*names)

    def warm_up(self, duration_s: float = 1.0) -> None:
        """Loads the graphs of `encode` and `decode` and runs each once, so that the first real call is fast."""
        silence = np.zeros(max(1, round(duration_s * self.sample_rate)), np.float32)
        self.decode(self.encode(silence, self.sample_rate))

    def run_graph(self, name: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Runs one graph of the bundle on arrays and returns its first output; names and shapes are the manifest's."""
        return self.graphs.arrays(name, **inputs)[0]

    def runs_whole(self, num_samples: int) -> bool:
        """Whether a clip of `num_samples` runs in one piece; a longer one in windows, or as a stream."""
        return num_samples <= self._samples(WHOLE_S)

    def _codes(self, waveforms: Sequence[Waveform]) -> list[NDArray[np.int64]]:
        """Codes (n_q, frames) of each waveform; what can run together does."""

        def run(graphs: Graphs, group: list[int]) -> list[NDArray[np.int64]]:
            batch, lengths = stack([waveforms[index][None] for index in group])
            latents = graphs.run("encoder", waveform=batch, lengths=lengths)[0]
            codes = graphs.arrays("quantizer", latents=latents)[0]
            frames = [self.config.num_frames(len(waveforms[index])) for index in group]
            return [codes[:, row, :count] for row, count in enumerate(frames)]

        return self._side_by_side(run, [len(waveform) for waveform in waveforms], ENCODE_TOTAL_S)

    def _waveforms(self, batch: Sequence[Tokens]) -> list[Waveform]:
        """Waveforms of tokens of the same levels; what can run together does."""

        def run(graphs: Graphs, group: list[int]) -> list[Waveform]:
            codes, lengths = stack([batch[index].codes.astype(np.int64) for index in group])
            first_level = np.array(batch[0].first_level, np.int64)
            latents = graphs.run("dequantizer", codes=codes.transpose(1, 0, 2), first_level=first_level)[0]
            waveform = graphs.arrays("decoder", latents=latents, lengths=lengths)[0]
            return [waveform[row, 0, : batch[index].num_samples].copy() for row, index in enumerate(group)]

        return self._side_by_side(run, [tokens.num_samples for tokens in batch], DECODE_TOTAL_S)

    def _side_by_side(
        self, run: Callable[[Graphs, list[int]], list[Result]], lengths: Sequence[int], total_s: float
    ) -> list[Result]:
        """Calls run(graphs, indices) for batches of clips of these lengths; results in the clips' order."""
        groups = list(batches(lengths, self._samples(total_s), self._workers))
        graphs = self._side_graphs
        if graphs is None or len(groups) == 1:
            done = [run(self.graphs, group) for group in groups]
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                done = list(pool.map(partial(run, graphs), groups))
        results = {
            index: item
            for group, items in zip(groups, done, strict=True)
            for index, item in zip(group, items, strict=True)
        }
        return [results[index] for index in range(len(lengths))]

    def _file_codes(self, blocks: Iterable[Waveform], plan: WindowPlan) -> Iterator[NDArray[np.int64]]:
        """Codes of a clip that comes in blocks: in one piece where it is short, like `encode`, else in windows."""
        iterator, head = iter(blocks), []
        for block in iterator:
            head.append(block)
            if not self.runs_whole(sum(map(len, head))):
                yield from self._windowed_codes(chain(head, iterator), plan)
                return
        yield from self._codes([np.concatenate(head)])

    def _windowed_codes(self, blocks: Iterable[Waveform], plan: WindowPlan) -> Iterator[NDArray[np.int64]]:
        windows, pending = Windows(plan), []
        at_once = max(1, min(WINDOWS_AT_ONCE, self._samples(ENCODE_TOTAL_S) // plan.num_samples))
        for block in blocks:
            for window in windows.push(block):
                pending.append(window)
                if len(pending) == at_once:
                    yield self._window_codes(pending)
                    pending = []
        pending += windows.finish()
        for start in range(0, len(pending), at_once):
            yield self._window_codes(pending[start : start + at_once])

    def _window_codes(self, windows: Sequence[Window]) -> NDArray[np.int64]:
        codes = self._codes([window.samples for window in windows])
        cores = [
            item[:, window.first_frame : window.first_frame + window.num_frames]
            for item, window in zip(codes, windows, strict=True)
        ]
        return np.concatenate(cores, axis=1)

    def _streamed(self, tokens: Tokens) -> Iterator[Waveform]:
        stream = self.stream_decoder(tokens.n_q, tokens.first_level)
        step, left = round(WINDOW_S * self.frame_rate), tokens.num_samples
        for start in range(0, tokens.num_frames, step):
            audio = stream.push(tokens.codes[:, start : start + step])[:left]
            left -= len(audio)
            yield audio
        yield stream.finish()[:left]

    def _tokens(self, codes: NDArray[Any], num_samples: int) -> Tokens:
        return Tokens.from_codes(codes, self.config, num_samples, self.bundle.manifest.model_id)

    def _samples(self, duration_s: float) -> int:
        return round(duration_s * self.sample_rate)

    def _window_plan(self, context_s: float | None) -> WindowPlan:
        context_s = self.context_s if context_s is None else context_s
        if not 0 <= context_s <= 60:
            raise ArgumentError(f"context_s must be 0 to 60 seconds, not {context_s}")
        return window_plan(self.config, context_s)

    def _checked_n_q(self, n_q: int | None) -> int:
        if n_q is None:
            return self.n_q
        if not isinstance(n_q, (int, np.integer)) or not 1 <= n_q <= self.n_q:
            raise ArgumentError(f"n_q must be 1 to {self.n_q}, not {n_q}")
        return n_q

    def _checked_tokens(self, tokens: Tokens, n_q: int | None) -> Tokens:
        """The levels of `tokens` to decode, checked to be of this codec."""
        self.check_origin(tokens)
        if n_q is not None and (not isinstance(n_q, (int, np.integer)) or not 1 <= n_q <= tokens.n_q):
            raise ArgumentError(f"n_q must be 1 to {tokens.n_q} (the levels of these tokens), not {n_q}")
        if tokens.num_frames == 0:
            raise TokensError("tokens: no frames to decode")
        return tokens.levels(n_q)

    def check_origin(self, tokens: Tokens | Header) -> None:
        """Raises TokensError where `tokens` are of another model or configuration than this codec's."""
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
        if tokens.first_level + tokens.n_q > self.n_q:
            raise TokensError(
                f"tokens: levels {tokens.first_level} to {tokens.first_level + tokens.n_q - 1}, "
                f"this codec has {self.n_q} levels"
            )


class _Counted:
    """Blocks of samples, counted as they pass."""

    def __init__(self, blocks: Iterable[Waveform]) -> None:
        self._blocks, self.num_samples = blocks, 0

    def __iter__(self) -> Iterator[Waveform]:
        for block in self._blocks:
            self.num_samples += len(block)
            yield block
