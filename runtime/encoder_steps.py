"""The steps of a streaming encode, as calls of graphs on a state that is a value.

Samples become features in tiles of one step's frames, each with the samples around it that the convolutions reach.
When the features of a step and of its look-ahead are there, the LSTM runs on them: the forward directions from the
state that the step before left, the backward directions from zero at the look-ahead's end. The last convolution and the
quantizer follow. All tiles and steps of a clip begin and end at the same frames however its samples come in, so that
the codes don't depend on that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import OUTPUT, directions, lstm_name
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import encoder_reach

from .calls import Call, Step
from .downsampling import Downsampling, Stretch
from .frames import reflected

Array = NDArray[np.float32]
Codes = NDArray[np.uint16]
# Hidden and cell state of a forward LSTM: only later calls read them, so that a pool may keep them on a device.
Recurrent = tuple[Any, Any]

STEP_S, STEP_SHARE = 0.1, 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderState:
    """The whole state of a stream. Its arrays are never changed, so a state can be kept without a copy.

    Attributes:
        look_ahead_frames, step_frames: of the stream.
        samples_in: samples received, at the codec's rate.
        frames_in: frames whose features were computed.
        frames_ready: frames through the LSTM.
        frames_out: frames whose codes were returned.
        finished: the clip has ended.
        samples: [B, n] the last samples, from the first that later features depend on.
        features: [n, B, channels] features, from the first frame that later codes depend on.
        ahead: [n, B, channels] forward outputs of the LSTM's first layer, from frame `frames_ready` on.
        outputs: by direction, [n, B, channels] outputs of the LSTM's last layer, from the first frame of `features` on.
        recurrent: hidden and cell state [1, B, channels] of each forward layer.
        columns: [B, n] what the layers before the LSTM keep; None where they run on windows, as at the clip's ends.
    """

    look_ahead_frames: int
    step_frames: int
    samples_in: int
    frames_in: int
    frames_ready: int
    frames_out: int
    finished: bool
    samples: Array
    features: Array
    ahead: Array
    outputs: Mapping[str, Array]
    recurrent: tuple[Recurrent, ...]
    columns: Any = None

    def __repr__(self) -> str:
        arrays = [self.samples, self.features, self.ahead, *self.outputs.values(), *sum(self.recurrent, ())]
        arrays += [] if self.columns is None else [self.columns]
        size = sum(array.nbytes for array in arrays)
        return (
            f"EncoderState({self.progress}, {self.frames_ready} through the LSTM, batch of {len(self.samples)}, "
            f"{size / 1024:.1f} KiB)"
        )

    @property
    def progress(self) -> str:
        """Samples and frames in words."""
        return f"{self.samples_in} samples in, {self.frames_out} frames out{', finished' if self.finished else ''}"


def step_frames(config: CodecConfig, look_ahead_frames: int, step_s: float | None = None) -> int:
    """Return the frames of a step of `step_s` seconds, at least one.

    The default is STEP_S, but at least STEP_SHARE of the look-ahead: each step runs over all of its look-ahead, so this
    bounds the work, for a look-ahead of any length, to a few times that of the whole clip.
    """
    if step_s is not None:
        return max(1, round(step_s * config.frame_rate))
    return max(1, round(STEP_S * config.frame_rate), round(STEP_SHARE * look_ahead_frames))


class EncoderSteps:
    """Encodes streams of one configuration, look-ahead and length of a step, which differ in their states only.

    `columns` is the size of the state of DOWNSAMPLER_STEPS, or 0 for windows only.
    """

    def __init__(
        self, config: CodecConfig, look_ahead_frames: int, step_s: float | None = None, columns: int = 0
    ) -> None:
        self.step_frames = step_frames(config, look_ahead_frames, step_s)
        self.look_ahead_frames = look_ahead_frames
        self._config, self._reach, self._directions = config, encoder_reach(config), directions(config)
        self._channels = config.lstm_channels
        self.columns, self._downsampling = columns, Downsampling(config, columns)

    @property
    def delay_samples(self) -> int:
        """Samples from the first of a frame to the last on which its codes depend, of the frame that waits longest.

        That is the frame whose last convolution reads the first frame of the next step, or the first frame of the clip,
        where all padding reflects what follows.
        """
        reach, hop, step = self._reach, self._config.hop_length, self.step_frames
        later = (self.look_ahead_frames + step + reach.output_future) * hop + reach.future_samples
        first_steps = -(-reach.output_head // step) * step
        return max(later, reach.samples_of(first_steps + self.look_ahead_frames, hop))

    def initial_state(self, batch_size: int) -> EncoderState:
        """Return the state before the first sample."""
        none = np.zeros((0, batch_size, self._channels), np.float32)
        zeros = self._zeros(batch_size)
        return EncoderState(
            self.look_ahead_frames,
            self.step_frames,
            samples_in=0,
            frames_in=0,
            frames_ready=0,
            frames_out=0,
            finished=False,
            samples=np.zeros((batch_size, 0), np.float32),
            features=none,
            ahead=none,
            outputs=dict.fromkeys(self._directions, none),
            recurrent=((zeros, zeros),) * self._config.lstm_layers,
        )

    def receive(self, state: EncoderState, samples: Array, last: bool) -> Step[tuple[EncoderState, Codes]]:
        """Add samples [B, n], the last ones of the clip or not; return the new state and codes [n_q, B, frames]."""
        state = dataclasses.replace(
            state,
            samples_in=state.samples_in + samples.shape[1],
            samples=np.concatenate([state.samples, samples], axis=1),
            finished=last,
        )
        codes = [np.zeros((self._config.n_q, len(samples), 0), np.uint16)]
        while (end := self._end_of_next_tile(state)) > state.frames_in:
            state = yield from self._add_features(state, end)
            whole = state.finished and end == self._config.num_frames(state.samples_in)
            if whole or end == state.frames_ready + self.step_frames + self.look_ahead_frames:
                size = end - state.frames_ready if whole else self.step_frames
                state = yield from self._recur(state, size)
                state, new = yield from self._quantize(state, whole)
                codes.append(new)
        return state, np.concatenate(codes, axis=2)

    def _end_of_next_tile(self, state: EncoderState) -> int:
        """Return the end of the next tile, `state.frames_in` if its samples are not there yet.

        The first tile is as long as it must be for later ones to end where the look-ahead of a step ends.
        """
        size = self.step_frames if state.frames_in else self.look_ahead_frames % self.step_frames or self.step_frames
        end = state.frames_in + size
        if self._reach.samples_of(end, self._config.hop_length) <= state.samples_in:
            return end
        return self._config.num_frames(state.samples_in) if state.finished else state.frames_in

    def _add_features(self, state: EncoderState, end: int) -> Step[EncoderState]:
        """Run the layers before the LSTM, and the first LSTM layer forward, on frames `state.frames_in` to `end`."""
        hop, start = self._config.hop_length, self._first_frame_of_samples(state.frames_in)
        is_last = state.finished and end == self._config.num_frames(state.samples_in)
        stop = state.samples_in if is_last else self._reach.samples_of(end, hop)
        samples = state.samples[:, : stop - start * hop]
        stretch = Stretch(samples, state.frames_in - start, end - start, start == 0)
        new, columns = yield from self._downsampling.features(stretch, state.columns)
        inputs = {"features": new, **_state_inputs(state.recurrent[0])}
        output, *recurrent = yield Call(lstm_name(0, "forward"), inputs)
        return dataclasses.replace(
            state,
            frames_in=end,
            samples=state.samples[:, (self._first_frame_of_samples(end) - start) * hop :],
            features=np.concatenate([state.features, new]),
            ahead=np.concatenate([state.ahead, output]),
            recurrent=(tuple(recurrent), *state.recurrent[1:]),
            columns=columns,
        )

    def _first_frame_of_samples(self, frame: int) -> int:
        """Return the frame at whose first sample the samples of a tile from `frame` on begin."""
        return max(0, frame - self._downsampling.past_frames)

    def _recur(self, state: EncoderState, size: int) -> Step[EncoderState]:
        """Run the LSTM on the next `size` frames; all frames with features are their look-ahead."""
        kept = self._first_frame_of_outputs(state)
        inputs = {"features": state.features[state.frames_ready - kept :]}
        zeros = _state_inputs((self._zeros(len(state.samples)),) * 2)
        recurrent = list(state.recurrent)
        outputs: dict[str, Array] = {"forward": state.ahead}
        for layer in range(self._config.lstm_layers):
            if layer:
                is_last = layer == self._config.lstm_layers - 1
                forward, recurrent[layer] = yield from self._forward(layer, inputs, size, is_last, recurrent[layer])
                outputs = {"forward": forward}
            if "backward" in self._directions:
                outputs["backward"], *_ = yield Call(lstm_name(layer, "backward"), {**inputs, **zeros})
            inputs = outputs
        return dataclasses.replace(
            state,
            frames_ready=state.frames_ready + size,
            ahead=state.ahead[size:],
            outputs={way: np.concatenate([state.outputs[way], steps[:size]]) for way, steps in outputs.items()},
            recurrent=tuple(recurrent),
        )

    def _forward(
        self, layer: int, inputs: Mapping[str, Array], size: int, is_last: bool, recurrent: Recurrent
    ) -> Step[tuple[Array, Recurrent]]:
        """Run a layer forward on a step of `size` frames; return its outputs and the state after the step.

        Layers above need outputs of the look-ahead, too. Its state is not kept: its inputs are not final.
        """
        name = lstm_name(layer, "forward")
        step = {way: steps[:size] for way, steps in inputs.items()}
        output, hidden, cell = yield Call(name, {**step, **_state_inputs(recurrent)})
        rest = {way: steps[size:] for way, steps in inputs.items()}
        if not is_last and len(rest["forward"]):
            more, *_ = yield Call(name, {**rest, **_state_inputs((hidden, cell))})
            output = np.concatenate([output, more])
        return output, (hidden, cell)

    def _quantize(self, state: EncoderState, is_last: bool) -> Step[tuple[EncoderState, Codes]]:
        """Run the last convolution and the quantizer on the frames whose context is there."""
        reach, kept = self._reach, self._first_frame_of_outputs(state)
        out = state.frames_ready - (0 if is_last else reach.output_future)
        if out <= state.frames_out or not (is_last or state.frames_ready >= reach.output_head):
            return state, np.zeros((self._config.n_q, len(state.samples), 0), np.uint16)
        left, right = max(0, reach.output_frames - state.frames_out), reach.output_future if is_last else 0
        steps = {"features": state.features[: state.frames_ready - kept], **state.outputs}
        [latents] = yield Call(OUTPUT, {name: reflected(value, left, right) for name, value in steps.items()})
        [codes] = yield Call("quantizer", {"latents": latents})
        state = dataclasses.replace(state, frames_out=out)
        trimmed = self._first_frame_of_outputs(state) - kept
        outputs = {way: steps[trimmed:] for way, steps in state.outputs.items()}
        return dataclasses.replace(state, features=state.features[trimmed:], outputs=outputs), codes.astype(np.uint16)

    def _first_frame_of_outputs(self, state: EncoderState) -> int:
        return max(0, state.frames_out - self._reach.output_frames)

    def _zeros(self, batch_size: int) -> Array:
        return np.zeros((1, batch_size, self._channels), np.float32)


def _state_inputs(recurrent: Recurrent) -> dict[str, Any]:
    return dict(zip(("hidden", "cell"), recurrent, strict=True))
