"""Exact encoding of a clip of any length in bounded memory.

The encoder is cut at its LSTM (`dmcodec.bundle.encoder_part_names`). The convolutions before it run in tiles with the
context that they can see. Each LSTM layer is swept in blocks from the clip's start and, for the other direction, from
its end; its state goes from block to block. The last convolution and the quantizer follow in blocks. So each frame is
computed as in one piece. What lies between the stages is in the spool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.bundle import OUTPUT, directions, lstm_name
from dmcodec.codes import Codes, checked_codes
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import encoder_reach

from .batching import BLOCK_FRAMES, TILE_FRAMES
from .calls import RunGraph, run_alone
from .downsampling import Downsampling, Stretch
from .long_clips import Window, WindowPlan, Windows
from .spool import Array, MemoryStore, Spool, SpoolArray
from .workers import Workers

MIN_FRAMES = 8  # the reflection at the clip's ends needs more frames than the last convolution's context
_BACKWARD = "backward"
# Shares of the time, for progress: measured with the built-in codec and at full size.
_FEATURES_SHARE, _LSTM_SHARE = 0.5, 0.4

_Result = TypeVar("_Result")

# The state of an LSTM: hidden and cell, each [1, 1, channels].
LstmState = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Frames that one call of a graph computes. Codes do not depend on them, ties aside.

    Attributes:
        tile: of the convolutions before the LSTM.
        block: of the LSTM, and of what follows it.
    """

    tile: int = TILE_FRAMES
    block: int = BLOCK_FRAMES


@dataclasses.dataclass(frozen=True)
class Position:
    """How far the encode of a clip has come.

    Attributes:
        stage: 0 are the features, 1 to `lstm_layers` the layers of the LSTM, after them codes are made.
        done: frames of the features, or blocks of the layer, that are in the spool.
        states: of the layer's directions, after these blocks.
    """

    stage: int = 0
    done: int = 0
    states: Mapping[str, LstmState] = dataclasses.field(default_factory=dict)


# Called with each position that is reached, and the share of the whole work that is done then.
Reached = Callable[[Position, float], None]


class Frames(Protocol):
    """Frames [frames, channels] that are read and written by position."""

    def read(self, first: int, stop: int) -> Array:
        """Return frames `first` to `stop`."""

    def write(self, first: int, values: Array) -> None:
        """Write values at frame `first`."""


@dataclasses.dataclass(frozen=True)
class _Halves:
    """Frames before `middle` in one array, the others in another."""

    low: Frames
    high: Frames
    middle: int

    def read(self, first: int, stop: int) -> Array:
        parts = []
        if first < self.middle:
            parts.append(self.low.read(first, min(stop, self.middle)))
        if stop > self.middle:
            parts.append(self.high.read(max(first, self.middle), stop))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def write(self, first: int, values: Array) -> None:
        """Write values, none of which cross the middle."""
        (self.low if first < self.middle else self.high).write(first, values)


def spool_bytes(config: CodecConfig, num_frames: int, kept: bool = False) -> int:
    """Return the most room that the spool of a clip takes.

    In channels of float32 for each frame: the features, the output of both directions of a layer, and of the next layer
    one half; that layer's other half replaces what it has read. A spool that an interrupted encode can go on from keeps
    its inputs, so it also holds the second half.
    """
    ways, layers = len(directions(config)), config.lstm_layers
    if ways == 1 and not kept:
        return 0
    copies = 1 + ways if layers == 1 else 1 + 2 * ways if kept or ways == 1 or layers > 2 else 2 + ways
    return num_frames * copies * config.lstm_channels * np.dtype(np.float32).itemsize


class ExactEncoder:
    """Encodes one clip.

    Args:
        run: runs a graph of the bundle; called from several threads.
        config: of the codec.
        workers: run tiles, and the two directions of a layer without `recur`, at the same time.
        spool: keeps what lies between the stages. A kept one, from which an interrupted encode goes on, also makes a
            codec of one direction work in stages; else that streams, and needs no spool.
        sizes: of tiles and blocks.
        columns: size of the state of DOWNSAMPLER_STEPS; 0 runs tiles as windows.
        recur: runs an LSTM's graph on all threads, one direction after the other; None runs both at the same time.
    """

    def __init__(
        self,
        run: RunGraph,
        config: CodecConfig,
        workers: Workers,
        spool: Spool,
        sizes: Sizes | None = None,
        columns: int = 0,
        recur: RunGraph | None = None,
    ) -> None:
        self._recur, self._run_lstm = recur, recur or run
        self._run, self._config, self._workers, self._spool = run, config, workers, spool
        self._sizes = sizes or Sizes()
        self._ways = directions(config)
        self._reach = encoder_reach(config)
        self._downsampling = Downsampling(config, columns)
        self._width = config.lstm_channels

    def encode(
        self,
        blocks: Iterable[Waveform],
        expected_frames: Callable[[], int] = lambda: 0,
        reached: Reached = lambda _position, _share: None,
        start: Position | None = None,
    ) -> Iterator[Codes]:
        """Encode a clip that arrives in blocks (samples,); yield its codes (n_q, n) in order.

        Args:
            blocks: of at least `MIN_FRAMES` frames in all.
            expected_frames: returns the clip's length as far as it is known; only `reached` depends on it.
            reached: called as the work goes on.
            start: where an earlier encode of the same clip with the same kept spool was interrupted.
        """
        return self._finished(self._codes, blocks, expected_frames, reached, start)

    def latents(self, blocks: Iterable[Waveform]) -> Iterator[NDArray[np.float32]]:
        """Yield the latents of a clip [1, dimension, n] in order; `blocks` as for `encode`."""
        return self._finished(lambda latents: latents, blocks)

    def _codes(self, latents: NDArray[np.float32]) -> Codes:
        codes = self._run("quantizer", latents=latents)[0]
        return checked_codes(codes[:, 0], self._config.codebook_size)

    def _finished(
        self,
        finish: Callable[[NDArray[np.float32]], _Result],
        blocks: Iterable[Waveform],
        expected_frames: Callable[[], int] = lambda: 0,
        reached: Reached = lambda _position, _share: None,
        start: Position | None = None,
    ) -> Iterator[_Result]:
        """Yield finish(latents) of each block of a clip in order."""
        if len(self._ways) == 1 and not self._spool.kept:
            return self._stream(finish, blocks, expected_frames, reached)
        return self._staged(finish, blocks, expected_frames, reached, start or Position())

    def _staged(
        self,
        finish: Callable[[NDArray[np.float32]], _Result],
        blocks: Iterable[Waveform],
        expected_frames: Callable[[], int],
        reached: Reached,
        start: Position,
    ) -> Iterator[_Result]:
        features = self._spool.array("features", self._width)
        num_frames = self._write_features(blocks, features, start, expected_frames, reached)
        inputs: dict[str, Frames] = {"features": features}
        whole: list[SpoolArray] = []
        half: list[SpoolArray] = []
        for layer in range(self._config.lstm_layers):
            outputs, new = self._outputs(layer, inputs, num_frames)
            self._sweep(layer, inputs, outputs, num_frames, start, reached)
            if len(new) == len(self._ways):
                unused, whole, half = [*whole, *half], new, []
            else:
                unused, half = half, new
            for array in unused:
                array.free()
            inputs = outputs
        yield from self._output(finish, {"features": features, **inputs}, num_frames, reached)

    def _write_features(
        self,
        blocks: Iterable[Waveform],
        features: SpoolArray,
        start: Position,
        expected_frames: Callable[[], int],
        reached: Reached,
    ) -> int:
        """Run the convolutions in tiles; return the number of frames. Audio that is done already is only read."""
        skip = start.done if start.stage == 0 else None
        num_samples = 0

        def counted() -> Iterator[Waveform]:
            nonlocal num_samples
            for block in blocks:
                num_samples += len(block)
                yield block

        if skip is None:
            for _ in counted():
                pass
            return self._config.num_frames(num_samples)
        for first, values in self._features(counted(), skip):
            features.write(first, values)
            done = first + len(values)
            reached(Position(0, done), _FEATURES_SHARE * done / max(done, expected_frames()))
        return self._config.num_frames(num_samples)

    def _features(self, blocks: Iterable[Waveform], skip: int = 0) -> Iterator[tuple[int, Array]]:
        """Yield first frame and features [n, channels] of each tile from frame `skip` on, which is a tile's border."""
        hop, tile = self._config.hop_length, self._sizes.tile
        before, after = self._downsampling.past_frames, self._reach.tile_frames_after(tile, hop)
        windows = Windows(WindowPlan(tile, before, hop, after))

        def tiles() -> Iterator[tuple[int, Window]]:
            first = 0
            for block in blocks:
                for tile in windows.push(block):
                    yield first, tile
                    first += tile.num_frames
            for tile in windows.finish():
                yield first, tile
                first += tile.num_frames

        yield from self._workers.in_order(self._tile, (item for item in tiles() if item[0] >= skip))

    def _tile(self, item: tuple[int, Window]) -> tuple[int, Array]:
        first, tile = item
        stop = tile.first_frame + tile.num_frames
        stretch = Stretch(tile.samples[None], tile.first_frame, stop, first == tile.first_frame)
        features, _ = run_alone(self._downsampling.features(stretch), self._run)
        return first, features[:, 0]

    def _outputs(
        self, layer: int, inputs: Mapping[str, Frames], num_frames: int
    ) -> tuple[dict[str, Frames], list[SpoolArray]]:
        """Return where the outputs of a layer go, and the arrays that were made for them.

        Both directions take one block in each step, from both ends. Before they meet, each writes its half of one new
        array. From then on both have read what they pass, and each writes over its own direction's input.
        """
        if len(self._ways) == 1 or layer == 0 or self._spool.kept:
            made = {way: self._spool.array(f"layer_{layer}_{way}", self._width) for way in self._ways}
            return dict(made), list(made.values())
        new = self._spool.array(f"layer_{layer}", self._width)
        block = self._sizes.block
        middle = -(-num_frames // block) // 2 * block
        forward, backward = (inputs[way] for way in self._ways)
        return {self._ways[0]: _Halves(new, forward, middle), _BACKWARD: _Halves(backward, new, middle)}, [new]

    def _sweep(
        self,
        layer: int,
        inputs: Mapping[str, Frames],
        outputs: Mapping[str, Frames],
        num_frames: int,
        start: Position,
        reached: Reached,
    ) -> None:
        """Run one layer over all frames, a block of each direction at a time."""
        stage, block = layer + 1, self._sizes.block
        if start.stage > stage:
            return
        first_step = start.done if start.stage == stage else 0
        states = dict(start.states) if first_step else {way: self._zeros() for way in self._ways}
        starts = range(0, num_frames, block)
        for step in range(first_step, len(starts)):
            firsts = [starts[-1 - step if way == _BACKWARD else step] for way in self._ways]
            calls = [
                partial(self._block, layer, way, inputs, first, min(num_frames, first + block), states[way])
                for way, first in zip(self._ways, firsts, strict=True)
            ]
            results = self._workers.together(calls) if self._recur is None else [call() for call in calls]
            for way, first, (values, state) in zip(self._ways, firsts, results, strict=True):
                outputs[way].write(first, values)
                states[way] = state
            done = (layer + (step + 1) / len(starts)) / self._config.lstm_layers
            reached(Position(stage, step + 1, dict(states)), _FEATURES_SHARE + _LSTM_SHARE * done)
        reached(Position(stage + 1), _FEATURES_SHARE + _LSTM_SHARE * (layer + 1) / self._config.lstm_layers)

    def _block(
        self, layer: int, way: str, inputs: Mapping[str, Frames], first: int, stop: int, state: LstmState
    ) -> tuple[Array, LstmState]:
        steps = {name: frames.read(first, stop)[:, None] for name, frames in inputs.items()}
        return self._lstm(layer, way, steps, state)

    def _lstm(self, layer: int, way: str, steps: Mapping[str, Array], state: LstmState) -> tuple[Array, LstmState]:
        output, hidden, cell = self._run_lstm(lstm_name(layer, way), **steps, hidden=state[0], cell=state[1])
        return output[:, 0], (hidden, cell)

    def _zeros(self) -> LstmState:
        zeros = np.zeros((1, 1, self._width), np.float32)
        return zeros, zeros

    def _output(
        self,
        finish: Callable[[NDArray[np.float32]], _Result],
        inputs: Mapping[str, Frames],
        num_frames: int,
        reached: Reached,
    ) -> Iterator[_Result]:
        """Run what follows the LSTM in blocks."""
        starts = range(0, num_frames, self._sizes.block)
        spans = [(first, min(num_frames, first + self._sizes.block)) for first in starts]

        def result(span: tuple[int, int]) -> tuple[int, _Result]:
            return span[1], finish(self._latents(self._padded(inputs, num_frames, span), span[1] - span[0]))

        position, before = Position(self._config.lstm_layers + 1), _FEATURES_SHARE + _LSTM_SHARE
        for stop, done in self._workers.in_order(result, spans):
            reached(position, before + (1 - before) * stop / num_frames)
            yield done

    def _padded(self, inputs: Mapping[str, Frames], num_frames: int, span: tuple[int, int]) -> dict[str, Array]:
        """Return what the last convolution reads for a span; at the ends of the clip its padding is a reflection."""
        (first, stop), reach = span, self._reach
        before, after = first - reach.output_frames, stop + reach.output_future
        low, high = max(0, before), min(num_frames, max(after, reach.output_head))
        pad = ((low - before, max(0, after - high)), (0, 0))
        return {name: np.pad(frames.read(low, high), pad, "reflect")[:, None] for name, frames in inputs.items()}

    def _latents(self, padded: Mapping[str, Array], num_frames: int) -> NDArray[np.float32]:
        latents: NDArray[np.float32] = self._run(OUTPUT, **padded)[0]
        return latents[:, :, :num_frames]

    def _stream(
        self,
        finish: Callable[[NDArray[np.float32]], _Result],
        blocks: Iterable[Waveform],
        expected_frames: Callable[[], int],
        reached: Reached,
    ) -> Iterator[_Result]:
        """Run all layers on each tile as it comes: one direction needs nothing of the clip's end.

        The LSTM runs here, and the layers before and after it on the workers.
        """
        spans = self._recurred(blocks, expected_frames, reached)
        yield from self._workers.in_order(lambda span: finish(self._latents(*span)), spans)
        reached(Position(1), 1.0)

    def _recurred(
        self, blocks: Iterable[Waveform], expected_frames: Callable[[], int], reached: Reached
    ) -> Iterator[tuple[dict[str, Array], int]]:
        """Yield what the last convolution reads for the frames after each tile that are final, and their number."""
        [way], reach = self._ways, self._reach
        states = [self._zeros()] * self._config.lstm_layers
        held = {"features": MemoryStore(self._width), way: MemoryStore(self._width)}
        done = known = 0
        for first, features in self._features(blocks):
            held["features"].write(first, features)
            steps = {"features": features[:, None]}
            for layer, state in enumerate(states):
                values, states[layer] = self._lstm(layer, way, steps, state)
                steps = {way: values[:, None]}
            held[way].write(first, values)
            known = first + len(features)
            final = known - reach.output_future
            if final > done and known >= reach.output_head:
                yield self._padded(held, known, (done, final)), final - done
                done = final
                for store in held.values():
                    store.drop(done - reach.output_frames)
            reached(Position(0, known), min(1.0, known / max(known, expected_frames())))
        if done < known:
            yield self._padded(held, known, (done, known)), known - done
