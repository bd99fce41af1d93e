"""The pipeline: runs the graphs of a bundle on clips of any number and length."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.bundle import (
    DOWNSAMPLER_STEPS,
    GRAPH_NAMES,
    UPSAMPLER_STEPS,
    Bundle,
    directions,
    encoder_part_names,
    lstm_name,
)
from dmcodec.codes import Codes, checked_codes
from dmcodec.precision import FP16, INT8
from dmcodec.runtime.tensorrt.driver import free_bytes
from dmcodec.tokens import Tokens

from .backend import Backend, Graphs, device_side
from .batching import (
    DECODE_TOTAL_S,
    ENCODE_TOTAL_S,
    GPU_CONCURRENT,
    GPU_MAX_BATCH,
    SHARED_CACHE_BYTES,
    TILE_FRAMES,
    TILED_S,
    WHOLE_S,
    WINDOW_S,
    WINDOWS_PER_BATCH,
    Limits,
    batches,
    gpu_limits,
    run_within,
    runs_alone,
    stack,
    tile_frames,
)
from .calls import RunGraph
from .encode_options import EncodeOptions, Meter
from .long_clips import Window, WindowPlan, Windows
from .spool import Spool
from .stream_decoder import StreamDecoder
from .sweeps import MIN_FRAMES, ExactEncoder, Position, Sizes, spool_bytes
from .whole_decoder import MIN_STEPPED_FRAMES, WholeDecoder
from .workers import Workers

_Result = TypeVar("_Result")
# The graphs of a stream, but for the dequantizer.
STREAM_GRAPHS = ("decoder_recurrent", "decoder_upsampler")


class Pipeline:
    """Runs graphs: waveforms to codes, and tokens to waveforms. Safe to use from several threads.

    On the CPU, several batches run concurrently with one thread each. They run on a second copy of the graphs, which is
    loaded when it is first needed. Streams run on that copy as well, unless the number of threads was chosen. On a GPU,
    two batches run concurrently, each on its own CUDA stream.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.graphs = Graphs(bundle, backend)
        self._config, self._side = bundle.manifest.config, device_side(backend)
        self._is_half = bundle.manifest.arithmetic == FP16.name
        single = backend.single_threaded()
        self._concurrent_graphs = Graphs(bundle, single) if single else None
        self._workers = backend.threads if single else 1

    def close(self) -> None:
        """Give up all graphs, and what the backend holds on its device."""
        for graphs in (self.graphs, self._concurrent_graphs):
            if graphs is not None:
                graphs.close()
        if self._side is not None:
            self._side.close()

    def each_stream(self) -> Iterator[None]:
        """Yield once for each CUDA stream that batches run on, which then runs the next call; once on the CPU."""
        yield from (None,) if self._side is None else self._side.each_stream(GPU_CONCURRENT)

    @property
    def concurrent(self) -> tuple[Graphs, int]:
        """The graphs that concurrent batches run on, and how many do."""
        return self._concurrent_graphs or self.graphs, self._workers

    @property
    def pooled_encoding(self) -> tuple[Graphs, int]:
        """The graphs that encoders of a pool of streams run on, and how many batches of theirs run at the same time.

        One on all threads, where the weights of two would not stay in the cache that the cores share: each step runs
        the LSTM over its look-ahead as well, so that most of its time goes into reading them. Decoders run on
        `concurrent`: a slow moment of one core, or another thread of the application, then holds up half of them.
        """
        return (self.graphs, 1) if self._recurs_on_all_threads else self.concurrent

    def load(self, *names: str) -> None:
        """Load the named graphs, all by default, where they will run."""
        names = names or GRAPH_NAMES
        for graphs, streams in ((self.graphs, False), (self.stream_graphs, True)):
            if chosen := [name for name in names if (name in STREAM_GRAPHS) == streams]:
                graphs.load(*chosen)  # without a name it would load all

    @property
    def stream_graphs(self) -> Graphs:
        """The graphs that streams run on: on the CPU, unless the number of threads was chosen, with one thread."""
        single = self._concurrent_graphs
        return single if single and self.graphs.backend.single_threaded_streams else self.graphs

    def runs_whole(self, num_samples: int) -> bool:
        """Return whether a clip of `num_samples` runs in one piece, and not in windows or as a stream."""
        return num_samples <= self.num_samples(WHOLE_S)

    def num_samples(self, duration_s: float) -> int:
        """Return the number of samples of a duration."""
        return round(duration_s * self._config.sample_rate)

    def load_encoder(self, options: EncodeOptions) -> None:
        """Load the graphs that encode clips of more than a few seconds."""
        if options.plan is None:
            parts = encoder_part_names(self._config)
            lstms = [name for name in parts if "lstm" in name] if self._recurs_on_all_threads else []
            if lstms:
                self.graphs.load(*lstms)
            self.concurrent[0].load(*(name for name in parts if name not in lstms), "quantizer")
        else:
            self.graphs.load("encoder", "quantizer")

    def load_decoder(self) -> None:
        """Load the graphs that decode clips of any length: those of short ones, and those of steps."""
        self.graphs.load("dequantizer", "decoder")
        if self._steps_pay(MIN_STEPPED_FRAMES):
            self.graphs.load("decoder_recurrent")
            self.concurrent[0].load("decoder_upsampler")

    def encode(self, waveforms: Sequence[Waveform], options: EncodeOptions) -> list[Codes]:
        """Encode clips (samples,). Returns codes (n_q, frames).

        Short ones run in batches, unless there is only one. That one, and each long one, is encoded exactly in tiles
        and sweeps, or in windows.
        """
        results: dict[int, Codes] = {}
        short = [index for index, waveform in enumerate(waveforms) if self.runs_whole(len(waveform))]
        if (
            len(short) > 1
            or not options.tiles
            or not self._is_tiled(sum(len(waveforms[index]) for index in short), options)
        ):
            results.update(zip(short, self._encode_batches([waveforms[index] for index in short]), strict=True))
        block = self.num_samples(WINDOW_S)
        for index, waveform in enumerate(waveforms):
            if index not in results:
                blocks = (waveform[start : start + block] for start in range(0, len(waveform), block))
                meter = Meter(total_s=len(waveform) / self._config.sample_rate)
                alone = dataclasses.replace(options, meter=meter)
                results[index] = np.concatenate(list(self.encode_blocks(blocks, alone)), axis=1)
        return [results[index] for index in range(len(waveforms))]

    def encode_blocks(self, blocks: Iterable[Waveform], options: EncodeOptions) -> Iterator[Codes]:
        """Encode a clip that arrives in blocks (samples,); yield its codes (n_q, n) in order.

        A short clip runs in one piece, as in `encode`. A long one is encoded exactly in tiles and sweeps, or in
        windows, so that it is never held whole.
        """
        remaining, head = iter(blocks), []
        for block in remaining:
            head.append(block)
            num_samples = sum(map(len, head))
            if self._is_tiled(num_samples, options):
                head.extend(islice(remaining, 1))  # by the second block, the length of the whole is known
                yield from self._encode_exactly(chain(head, remaining), options)
                return
            if options.plan is not None and not self.runs_whole(num_samples):
                yield from self._encode_windows(chain(head, remaining), options.plan)
                return
        yield from self._encode_batches([np.concatenate(head)])

    def decode(self, clips: Sequence[Tokens]) -> list[Waveform]:
        """Decode clips: short ones of the same levels in batches, each long one as a stream. Returns waveforms."""
        results: dict[int, Waveform] = {}
        short = [index for index, tokens in enumerate(clips) if self.runs_whole(tokens.num_samples)]
        for levels in {_levels(clips[index]) for index in short}:
            alike = [index for index in short if _levels(clips[index]) == levels]
            results.update(zip(alike, self._decode_batches([clips[index] for index in alike]), strict=True))
        for index, tokens in enumerate(clips):
            if index not in results:
                results[index] = np.concatenate(list(self._decode_stream(tokens)))
        return [results[index] for index in range(len(clips))]

    def decode_blocks(self, tokens: Tokens) -> Iterator[Waveform]:
        """Decode one clip; yield its waveform in blocks (samples,). A short clip is one block, as in `decode`."""
        return iter(self.decode([tokens])) if self.runs_whole(tokens.num_samples) else self._decode_stream(tokens)

    def stream_decoder(self, n_q: int | None, first_level: int, batch_size: int | None) -> StreamDecoder:
        """Return a new stream; see `dmcodec.runtime.StreamDecoder`."""
        graphs = self.stream_graphs
        columns = graphs.state_size(UPSAMPLER_STEPS)
        return StreamDecoder(self._stream_run(graphs), self._config, n_q, first_level, batch_size, columns)

    def _stream_run(self, graphs: Graphs) -> RunGraph:
        """Return what runs the graphs of a stream: its state stays on the device where the backend keeps it there."""
        return graphs.arrays if self._side is None else graphs.run

    def _is_tiled(self, num_samples: int, options: EncodeOptions) -> bool:
        """Return whether a single clip of this length runs in tiles and sweeps.

        In half precision these round between the parts, so that clips that can run in one piece do: their codes are
        then those that they have in a batch. So they do on a GPU, where tiles would go through the host.
        """
        enough = max(self.num_samples(TILED_S), MIN_FRAMES * self._config.hop_length)
        if self._is_half or self.graphs.backend.provider != "cpu":
            enough = max(enough, self.num_samples(WHOLE_S) + 1)
        return options.plan is None and num_samples >= enough

    def _encode_exactly(self, blocks: Iterable[Waveform], options: EncodeOptions) -> Iterator[Codes]:
        graphs, meter, record = self._concurrent_graphs or self.graphs, options.meter, options.record
        config = self._config

        def expected_frames() -> int:
            return math.ceil(meter.total_s * config.frame_rate)

        def reached(position: Position, share: float) -> None:
            if record is not None:
                record.reach(position)
            meter.stage(share)

        room = spool_bytes(config, expected_frames(), record is not None)
        rate = spool_bytes(config, round(config.frame_rate), record is not None)
        with (
            Spool(options.spool, room, rate) if record is None else record.spool(room, rate) as spool,
            Workers.start(self._workers) as workers,
        ):
            columns = graphs.state_size(DOWNSAMPLER_STEPS)
            recur = self.graphs.arrays if self._recurs_on_all_threads else None
            # An encode that can go on keeps to one size of tiles, since its length may first be an estimate.
            sizes = Sizes(tile_frames(expected_frames()) if record is None else TILE_FRAMES)
            encoder = ExactEncoder(graphs.arrays, config, workers, spool, sizes, columns, recur)
            start = None if record is None else record.position
            yield from encoder.encode(blocks, expected_frames, reached, start)

    def _encode_batches(self, waveforms: Sequence[Waveform]) -> list[Codes]:
        """Encode clips, each in one piece."""

        def run(graphs: Graphs, batch: list[int]) -> list[Codes]:
            samples, lengths = stack([waveforms[index][None] for index in batch])
            latents = graphs.run("encoder", waveform=samples, lengths=lengths)[0]
            codes = graphs.arrays("quantizer", latents=latents)[0]  # (n_q, batch, frames) int64
            frames = [self._config.num_frames(len(waveforms[index])) for index in batch]
            size = self._config.codebook_size
            return [checked_codes(codes[:, row, :count], size) for row, count in enumerate(frames)]

        return self._run_batches(run, [len(waveform) for waveform in waveforms], self._limits("encoder"))

    def _decode_batches(self, clips: Sequence[Tokens]) -> list[Waveform]:
        """Decode clips of the same levels, each in one piece."""

        def run(graphs: Graphs, batch: list[int]) -> list[Waveform]:
            codes, lengths = stack([clips[index].codes.astype(np.int64) for index in batch])
            first_level = np.array(clips[0].first_level, np.int64)
            inputs = {"codes": codes.transpose(1, 0, 2), "first_level": first_level}
            if self._steps_pay(int(lengths.max())):
                whole = WholeDecoder(self._config, graphs, *self.concurrent)
                audio = whole.decode(graphs.arrays("dequantizer", **inputs)[0], lengths)
                return [waveform[: clips[index].num_samples] for waveform, index in zip(audio, batch, strict=True)]
            latents = graphs.run("dequantizer", **inputs)[0]
            waveform = graphs.arrays("decoder", latents=latents, lengths=lengths)[0]
            return [waveform[row, 0, : clips[index].num_samples].copy() for row, index in enumerate(batch)]

        return self._run_batches(run, [tokens.num_samples for tokens in clips], self._limits("decoder"))

    @property
    def _recurs_on_all_threads(self) -> bool:
        """Whether the directions of an LSTM run one after the other on all threads; see SHARED_CACHE_BYTES."""
        channels, lstm = self._config.lstm_channels, self.graphs.bundle.manifest.graphs.get(lstm_name(0, "forward"))
        gates, ways = 4, len(directions(self._config))
        item_bytes = 1 if lstm is not None and lstm.precision == INT8.name else 4
        return ways * gates * channels**2 * item_bytes > SHARED_CACHE_BYTES

    def _steps_pay(self, num_frames: int) -> bool:
        """Return whether clips of this length are decoded by an LSTM over the whole and convolutions in steps.

        In half precision these round in between, and a short clip is mostly ends, which steps don't compute.
        """
        enough = num_frames >= MIN_STEPPED_FRAMES and not self._is_half
        return enough and bool(self.graphs.state_size(UPSAMPLER_STEPS))

    def _limits(self, graph: str) -> Limits:
        if self._side is not None:
            return gpu_limits(self._config, graph, self._side.free_bytes(), self._side.max_batch)
        if self.graphs.backend.provider != "cpu":
            return gpu_limits(self._config, graph, self._gpu_bytes, lambda _graph, _length: GPU_MAX_BATCH, 1)
        return Limits(self.num_samples(ENCODE_TOTAL_S if graph == "encoder" else DECODE_TOTAL_S), self._workers)

    @cached_property
    def _gpu_bytes(self) -> int:
        """Memory of the GPU that ONNX Runtime may take: what was free first, since it keeps what it has taken."""
        return free_bytes(getattr(self.graphs.backend, "device_id", 0))

    def _run_batches(
        self, run: Callable[[Graphs, list[int]], list[_Result]], lengths: Sequence[int], limits: Limits
    ) -> list[_Result]:
        """Call run(graphs, indices) for batches of clips of these lengths; return the results in the clips' order."""
        total, workers = limits.total, limits.concurrent
        single = self._concurrent_graphs if self._side is None else self.graphs
        groups = list(batches(lengths, limits))
        sizes = [len(group) * max(lengths[index] for index in group) for group in groups]
        small = [index for index, size in enumerate(sizes) if not runs_alone(size, total, workers)]
        done: dict[int, list[_Result]] = {}
        if single is not None and len(small) > 1:

            def run_small(place: int) -> list[_Result]:
                return run(single, groups[small[place]])

            found = run_within(run_small, [sizes[index] for index in small], total, workers)
            done = dict(zip(small, found, strict=True))
        results: dict[int, _Result] = {}
        for index, group in enumerate(groups):
            results.update(zip(group, done[index] if index in done else run(self.graphs, group), strict=True))
        return [results[index] for index in range(len(lengths))]

    def _encode_windows(self, blocks: Iterable[Waveform], plan: WindowPlan) -> Iterator[Codes]:
        windows = Windows(plan)
        pending: list[Window] = []
        batch_size = max(1, min(WINDOWS_PER_BATCH, self.num_samples(ENCODE_TOTAL_S) // plan.num_samples))
        for block in blocks:
            for window in windows.push(block):
                pending.append(window)
                if len(pending) == batch_size:
                    yield self._encode_cores(pending)
                    pending = []
        pending += windows.finish()
        for start in range(0, len(pending), batch_size):
            yield self._encode_cores(pending[start : start + batch_size])

    def _encode_cores(self, windows: Sequence[Window]) -> Codes:
        """Encode consecutive windows; return their codes (n_q, frames) without those of the context."""
        codes = self._encode_batches([window.samples for window in windows])
        cores = [
            item[:, window.first_frame : window.first_frame + window.num_frames]
            for item, window in zip(codes, windows, strict=True)
        ]
        return np.concatenate(cores, axis=1)

    def _decode_stream(self, tokens: Tokens) -> Iterator[Waveform]:
        run, columns = self._stream_run(self.graphs), self.graphs.state_size(UPSAMPLER_STEPS)
        stream = StreamDecoder(run, self._config, tokens.n_q, tokens.first_level, columns=columns)
        step, left = round(WINDOW_S * self._config.frame_rate), tokens.num_samples
        for start in range(0, tokens.num_frames, step):
            audio = stream.push(tokens.codes[:, start : start + step])[:left]
            left -= len(audio)
            yield audio
        yield stream.finish()[:left]


def _levels(tokens: Tokens) -> tuple[int, int]:
    return tokens.n_q, tokens.first_level
