"""What encode, decode and reconstruct do with each file: the codec is loaded once in each process."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.audio import Waveform, read_blocks, write_audio
from dmcodec.cpus import default_threads, usable_cpus
from dmcodec.errors import ArgumentError
from dmcodec.files import is_stdout, output_file
from dmcodec.runtime import Codec, Tokens
from dmcodec.runtime.batching import DECODE_TOTAL_S, ENCODE_TOTAL_S
from dmcodec.runtime.encode_options import encode_options
from dmcodec.runtime.file_batches import clip_codec

from .common import describe_tokens, load_codec, speed
from .files import Pair
from .pipes import from_pipe, stream_of

Facts = dict[str, Any]
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class WorkFactory(ABC):
    """Loads the codec and makes the work, in this process or in another.

    Attributes:
        bundle, backend, provider, threads, engine_cache, device_id: as the options of the same names.
        n_q: levels to use.
        context_s: of windows.
        spool, resume: of exact encoding, as the options of the same names.
    """

    bundle: Path | None
    backend: str
    provider: str | None
    threads: int | None
    engine_cache: Path | None
    n_q: int | None
    context_s: float | None = None
    spool: str | None = None
    resume: bool = False
    device_id: int | None = None

    @abstractmethod
    def __call__(self) -> FileWork:
        """Load the codec and return the work."""

    def codec(self) -> Codec:
        """Return the codec."""
        return load_codec(self.bundle, self.backend, self.provider, self.threads, self.engine_cache, self.device_id)

    def one_of(self, jobs: int) -> WorkFactory:
        """Return the factory for each of several processes, which share the CPUs."""
        on_cpu = self.backend == "onnxruntime" and self.provider in (None, "cpu")
        if self.threads is not None or not on_cpu:
            return self
        threads = min(default_threads(), max(1, usable_cpus() // jobs))
        return dataclasses.replace(self, threads=threads)


class FileWork(ABC):
    """The work of a verb on a `Pair`.

    Attributes:
        graphs: that it needs.
        workers: batches that run at the same time.
        total_s: most seconds of audio in all of them together.
        in_sets: whether the codec makes the batches: on a GPU, by its memory.
    """

    graphs: tuple[str, ...] = ()
    total_s = DECODE_TOTAL_S

    def __init__(self, factory: WorkFactory) -> None:
        self.codec = factory.codec()
        self.n_q, self.context_s = factory.n_q, factory.context_s
        self.clips, self.workers = clip_codec(self.codec)
        self.in_sets = self.codec.backend.provider != "cpu"
        self.clips.load_graphs(*self.graphs)

    @abstractmethod
    def read(self, pair: Pair) -> tuple[Any, float] | None:
        """See `dmcodec.runtime.file_batches.Work`."""

    @abstractmethod
    def compute(self, clips: Sequence[Any], alone: bool) -> list[Any]:
        """See `dmcodec.runtime.file_batches.Work`."""

    @abstractmethod
    def write(self, pair: Pair, result: Any, compute_s: float) -> Facts:
        """See `dmcodec.runtime.file_batches.Work`."""

    @abstractmethod
    def whole(self, pair: Pair, progress: Progress) -> Facts:
        """See `dmcodec.runtime.file_batches.Work`."""

    def codec_for(self, alone: bool) -> Codec:
        """Return the codec for a batch that runs alone, on all threads, or beside others."""
        return self.codec if alone else self.clips

    def read_audio(self, pair: Pair) -> tuple[Waveform, float] | None:
        """Return mono audio at the codec's rate and its seconds; None for a long clip, or one from a pipe."""
        if from_pipe(pair.source):
            return None
        blocks: list[Waveform] = []
        num_samples = 0
        for block in read_blocks(pair.source, self.codec.sample_rate, channel=pair.channel):
            blocks.append(block)
            num_samples += len(block)
            if not self.codec.runs_whole(num_samples):
                return None
        return np.concatenate(blocks), num_samples / self.codec.sample_rate


class Encode(WorkFactory):
    """Audio files to token files."""

    def __call__(self) -> FileWork:
        return _EncodeWork(self)


class _EncodeWork(FileWork):
    graphs = ("encoder", "quantizer")
    total_s = ENCODE_TOTAL_S

    def __init__(self, factory: WorkFactory) -> None:
        super().__init__(factory)
        self.options: dict[str, Any] = {"n_q": factory.n_q, "context_s": factory.context_s, "spool": factory.spool}
        self.resume = factory.resume
        self.codec.encode_batch([], self.codec.sample_rate, **self.options)  # refuses wrong values
        encode_options(self.codec.bundle.manifest, self.codec.backend, factory.context_s, factory.spool, self.resume)

    def read(self, pair: Pair) -> tuple[Waveform, float] | None:
        return self.read_audio(pair)

    def compute(self, clips: Sequence[Waveform], alone: bool) -> list[Tokens]:
        return self.codec_for(alone).encode_prepared(clips, **self.options)

    def write(self, pair: Pair, tokens: Tokens, compute_s: float) -> Facts:
        with _output(pair, ".dmc") as temporary:
            tokens.save(temporary)
        return _encoded(tokens, compute_s)

    def whole(self, pair: Pair, progress: Progress) -> Facts:
        start = time.perf_counter()
        source, options = stream_of(pair.source), {**self.options, "progress": progress, "channel": pair.channel}
        if self.resume:  # the folder that keeps the progress is called after the output
            if is_stdout(pair.target):
                raise ArgumentError("--resume keeps the progress beside the output; name a file, not - (stdout)")
            tokens = self.codec.encode_file(source, pair.target, **options, resume=True)
            return _encoded(tokens, time.perf_counter() - start)
        with _output(pair, ".dmc") as temporary:
            tokens = self.codec.encode_file(source, temporary, **options)
        return _encoded(tokens, time.perf_counter() - start)


def _encoded(tokens: Tokens, compute_s: float) -> Facts:
    return {**describe_tokens(tokens), "file_bytes": tokens.file_bytes, **speed(compute_s, tokens.duration_s)}


class Decode(WorkFactory):
    """Token files to audio files."""

    def __call__(self) -> FileWork:
        return _DecodeWork(self)


class _DecodeWork(FileWork):
    graphs = ("dequantizer", "decoder")

    def read(self, pair: Pair) -> tuple[Tokens, float] | None:
        if from_pipe(pair.source):
            return None
        tokens = Tokens.load(pair.source)
        return (tokens, tokens.duration_s) if self.codec.runs_whole(tokens.num_samples) else None

    def compute(self, clips: Sequence[Tokens], alone: bool) -> list[tuple[Tokens, Waveform]]:
        return list(zip(clips, self.codec_for(alone).decode_batch(clips, self.n_q), strict=True))

    def write(self, pair: Pair, result: tuple[Tokens, Waveform], compute_s: float) -> Facts:
        tokens, waveform = result
        with _output(pair, ".wav") as temporary:
            write_audio(temporary, waveform, self.codec.sample_rate)
        return self._decoded(tokens, compute_s)

    def whole(self, pair: Pair, progress: Progress) -> Facts:
        tokens = Tokens.load(stream_of(pair.source))
        if self.codec.runs_whole(tokens.num_samples):  # from a pipe
            start = time.perf_counter()
            result = self.compute([tokens], alone=True)[0]
            return self.write(pair, result, time.perf_counter() - start)
        start = time.perf_counter()
        with _output(pair, ".wav") as temporary:
            self.codec.decode_file(tokens, temporary, self.n_q, progress)
        return self._decoded(tokens, time.perf_counter() - start)

    def _decoded(self, tokens: Tokens, compute_s: float) -> Facts:
        return {**describe_tokens(tokens.levels(self.n_q)), **speed(compute_s, tokens.duration_s)}


class Reconstruct(WorkFactory):
    """Audio files to audio files."""

    def __call__(self) -> FileWork:
        return _ReconstructWork(self)


@dataclass(frozen=True)
class _Reconstructed:
    tokens: Tokens
    waveform: Waveform
    encode_share: float  # of the time of both


class _ReconstructWork(FileWork):
    graphs = ("encoder", "quantizer", "dequantizer", "decoder")

    def __init__(self, factory: WorkFactory) -> None:
        super().__init__(factory)
        self.codec.encode_batch([], self.codec.sample_rate, self.n_q)

    def read(self, pair: Pair) -> tuple[Waveform, float] | None:
        return self.read_audio(pair)

    def compute(self, clips: Sequence[Waveform], alone: bool) -> list[_Reconstructed]:
        codec = self.codec_for(alone)
        times = [time.perf_counter()]
        tokens = codec.encode_prepared(clips, self.n_q)
        times.append(time.perf_counter())
        waveforms = codec.decode_batch(tokens)
        times.append(time.perf_counter())
        share = (times[1] - times[0]) / (times[2] - times[0])
        return [_Reconstructed(each, waveform, share) for each, waveform in zip(tokens, waveforms, strict=True)]

    def write(self, pair: Pair, result: _Reconstructed, compute_s: float) -> Facts:
        with _output(pair, ".wav") as temporary:
            write_audio(temporary, result.waveform, self.codec.sample_rate)
        encode_s = compute_s * result.encode_share
        return _reconstructed(result.tokens, encode_s, compute_s - encode_s)

    def whole(self, pair: Pair, progress: Progress) -> Facts:
        times = [time.perf_counter()]
        source = stream_of(pair.source)
        tokens = self.codec.encode_file(source, n_q=self.n_q, progress=progress, channel=pair.channel)
        times.append(time.perf_counter())
        with _output(pair, ".wav") as temporary:
            self.codec.decode_file(tokens, temporary, progress=progress)
        times.append(time.perf_counter())
        return _reconstructed(tokens, times[1] - times[0], times[2] - times[1])


def _reconstructed(tokens: Tokens, encode_s: float, decode_s: float) -> Facts:
    audio_s = tokens.duration_s
    return {**describe_tokens(tokens), "encode": speed(encode_s, audio_s), "decode": speed(decode_s, audio_s)}


@contextlib.contextmanager
def _output(pair: Pair, suffix: str) -> Iterator[Path]:
    with output_file(pair.target, pair.replace, pair.target.suffix or suffix) as temporary:
        yield temporary
