"""Speech out of tokens while they still come in: exact, with bounded look-ahead and constant memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import as_array, checked_codes
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, StreamError, TokensError
from dmcodec.receptive_field import decoder_reach

Array = NDArray[np.float32]
# Runs a graph of the bundle by name on arrays: run(name, **inputs) -> outputs.
Run = Callable[..., list[NDArray[Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class DecoderState:
    """All that a stream knows; a value: its arrays are never written to, so keeping it is copying it.

    Attributes:
        frames_in: latent frames received.
        frames_ready: LSTM frames computed.
        frames_out: frames whose audio was handed out.
        finished: the clip has ended.
        latents: [B, dimension, n] the last latents received, from LSTM frame `frames_ready` - 3 on.
        features: [B, channels, n] the last LSTM frames, from those that the next audio still sees.
        hidden, cell: [layers, B, channels] the LSTM's state.
    """

    frames_in: int
    frames_ready: int
    frames_out: int
    finished: bool
    latents: Array
    features: Array
    hidden: Array
    cell: Array


class StreamDecoder:
    """Decodes one clip, or a batch of clips in step, chunk by chunk; made by `Codec.stream_decoder`.

    What all pushes and `finish` return, joined, is the waveform that decoding all codes at once gives. One stream is
    for one thread; any number of streams can be open on one Codec.
    """

    def __init__(
        self,
        run: Run,
        config: CodecConfig,
        n_q: int | None = None,
        first_level: int = 0,
        batch_size: int | None = None,
    ) -> None:
        n_q = config.n_q - first_level if n_q is None else n_q
        if (
            not isinstance(n_q, int)
            or not isinstance(first_level, int)
            or first_level < 0
            or n_q < 1
            or first_level + n_q > config.n_q
        ):
            raise ArgumentError(
                f"n_q {n_q} from first_level {first_level} on: the codec has levels 0 to {config.n_q - 1}"
            )
        if batch_size is not None and batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, not {batch_size}")
        self.n_q, self.first_level, self.batch_size = n_q, first_level, batch_size
        self._run, self._config, self._reach = run, config, decoder_reach(config)
        self._state = initial_state(config, batch_size or 1)

    @property
    def look_ahead_frames(self) -> int:
        """Frames that must follow a frame before its audio comes out (fewer at the clip's end)."""
        return self._reach.look_ahead_frames

    @property
    def state(self) -> DecoderState:
        """The state, a value: keep it to come back to this point, here or in another stream like this one."""
        return self._state

    @state.setter
    def state(self, state: DecoderState) -> None:
        if state.hidden.shape != self._state.hidden.shape:
            raise ArgumentError(
                f"state: made for hidden state {state.hidden.shape}, this stream's is {self._state.hidden.shape}"
            )
        self._state = state

    def reset(self) -> None:
        """Starts a new clip."""
        self._state = initial_state(self._config, self.batch_size or 1)

    def push(self, codes: Any) -> Array:
        """Takes the next frames and returns the audio that is final now.

        Args:
            codes: (n_q, frames) integers, or (n_q, batch_size, frames) for a batch.

        Returns:
            (samples,) float32, or (batch_size, samples); whole frames, none until the look-ahead is filled.

        Raises:
            TokensError: another shape or number of levels, codes out of range, no frames. The stream is unchanged.
            StreamError: pushed after `finish`.
        """
        if self._state.finished:
            raise StreamError("stream: push after finish; call reset() to start a new clip")
        first_level = np.array(self.first_level, np.int64)
        latents = self._run("dequantizer", codes=self._checked(codes), first_level=first_level)[0]
        state = dataclasses.replace(
            self._state,
            frames_in=self._state.frames_in + latents.shape[2],
            latents=np.concatenate([self._state.latents, latents], axis=2),
        )
        return self._advance(state)

    def finish(self) -> Array:
        """Ends the clip and returns the rest of its audio, in the shape of `push`."""
        if self._state.finished:
            raise StreamError("stream: finished already; call reset() to start a new clip")
        return self._advance(dataclasses.replace(self._state, finished=True))

    def __enter__(self) -> StreamDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending = self._state.frames_in - self._state.frames_out
        if kind is None and not self._state.finished and pending:
            raise StreamError(f"stream: left open; call finish() for the audio of the last {pending} frames")

    def _checked(self, codes: Any) -> NDArray[np.int64]:
        array = as_array(codes)
        leading = (self.n_q,) if self.batch_size is None else (self.n_q, self.batch_size)
        if array.ndim != len(leading) + 1 or array.shape[:-1] != leading or array.shape[-1] == 0:
            shape = "(n_q, frames)" if self.batch_size is None else "(n_q, batch_size, frames)"
            sizes = f"n_q {self.n_q}" + (f" and batch_size {self.batch_size}" if self.batch_size else "")
            raise TokensError(
                f"stream: expected codes {shape} with {sizes} and at least one frame, got {np.shape(codes)}"
            )
        flat = checked_codes(array.reshape(self.n_q, -1), self._config.codebook_size)
        return flat.reshape(self.n_q, self.batch_size or 1, -1).astype(np.int64)

    def _advance(self, state: DecoderState) -> Array:
        state = self._recur(state)
        state, audio = self._upsample(state)
        self._state = state  # only now: a push that failed leaves the stream as it was
        return audio if self.batch_size else audio[0]

    def _recur(self, state: DecoderState) -> DecoderState:
        """Runs the first convolution and the LSTM over the frames whose context is there."""
        front = self._reach.front
        ready = state.frames_in - (0 if state.finished else front)
        if ready <= state.frames_ready:
            return state
        window = _reflected(state.latents, max(0, front - state.frames_ready), front if state.finished else 0)
        features, hidden, cell = self._run("decoder_recurrent", latents=window, hidden=state.hidden, cell=state.cell)
        first_kept = max(0, ready - front) - max(0, state.frames_ready - front)
        return dataclasses.replace(
            state,
            frames_ready=ready,
            latents=state.latents[:, :, first_kept:],
            features=np.concatenate([state.features, features], axis=2),
            hidden=hidden,
            cell=cell,
        )

    def _upsample(self, state: DecoderState) -> tuple[DecoderState, Array]:
        """Runs the upsampling over the frames whose context is there; what its window's edges spoil is left out."""
        reach, hop = self._reach, self._config.hop_length
        out = state.frames_ready - (0 if state.finished else reach.future)
        if out <= state.frames_out:
            return state, np.zeros((len(state.features), 0), np.float32)
        window_start = max(0, state.frames_out - reach.past)
        waveform = self._run("decoder_upsampler", features=state.features)[0]
        audio = waveform[:, 0, (state.frames_out - window_start) * hop : (out - window_start) * hop]
        kept = state.features[:, :, max(0, out - reach.past) - window_start :]
        return dataclasses.replace(state, frames_out=out, features=kept), audio


def initial_state(config: CodecConfig, batch_size: int) -> DecoderState:
    """The state before the first frame."""
    channels = config.n_filters * 2 ** len(config.strides)
    state = np.zeros((config.lstm_layers, batch_size, channels), np.float32)
    latents = np.zeros((batch_size, config.dimension, 0), np.float32)
    features = np.zeros((batch_size, channels, 0), np.float32)
    return DecoderState(0, 0, 0, False, latents, features, state, state)


def _reflected(latents: Array, left: int, right: int) -> Array:
    """Reflect padding at the clip's ends, as `dmcodec.nn.layers.reflect_pad` does it: [B, D, T]."""
    extension = max(0, max(left, right) - latents.shape[2] + 1)
    extended = np.pad(latents, ((0, 0), (0, 0), (0, extension)))
    padded = np.pad(extended, ((0, 0), (0, 0), (left, right)), mode="reflect")
    return padded[:, :, : padded.shape[2] - extension]
