"""Streaming decode: audio while tokens arrive, equal to the whole-clip decode, with bounded look-ahead and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import checked_codes, codes_array, is_whole
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, StreamError, TokensError
from dmcodec.receptive_field import decoder_reach

from .calls import Call, Step, run_alone
from .frames import joined, part, reflected
from .upsampling import Upsampling

WARM_UP_FRAMES = 5  # the usual push of 100 ms
Array = NDArray[np.float32]
# Runs a graph of the bundle: run(name, **inputs) -> outputs, arrays or values on the backend's device.
Run = Callable[..., list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class DecoderState:
    """The whole state of a stream. Its arrays are never changed, so a state can be kept without a copy.

    Attributes:
        frames_in: latent frames received.
        frames_ready: LSTM frames computed.
        frames_out: frames whose audio was returned.
        finished: the clip has ended.
        latents: [B, dimension, n] the last latents received, from the first that later LSTM frames depend on.
        features: [B, channels, n] the last LSTM frames, from the first that later audio depends on.
        hidden: [layers, B, channels] hidden state of the LSTM.
        cell: [layers, B, channels] cell state of the LSTM.
        columns: [B, n] what the upsampling's layers keep of the frames up to `frames_ready`; None where it runs on
            windows, as at the beginning of a clip.
    """

    frames_in: int
    frames_ready: int
    frames_out: int
    finished: bool
    latents: Array
    features: Array
    hidden: Array
    cell: Array
    columns: Array | None = None

    def __repr__(self) -> str:
        arrays = (self.latents, self.features, self.hidden, self.cell, self.columns)
        size = sum(array.nbytes for array in arrays if array is not None)
        return (
            f"DecoderState({_progress(self)}, {self.frames_ready} through the LSTM, "
            f"batch of {self.hidden.shape[1]}, {size / 1024:.1f} KiB)"
        )


class StreamDecoder:
    """Decodes one clip, or a batch of clips in parallel, chunk by chunk; made by `Codec.stream_decoder`.

    The joined results of all pushes and of `finish` are the waveform that decoding all codes at once returns. Use one
    stream from one thread only; any number of streams can be open on one Codec.

    Args:
        run: runs a graph of the bundle.
        config: of the codec.
        n_q: levels of the codes of each push; all from `first_level` on by default.
        first_level: quantizer level of their first row.
        batch_size: clips that are decoded in parallel; None for one clip without a batch axis.
        columns: size of the state of the graph UPSAMPLER_STEPS, which then runs between the ends of the clip; 0 runs
            windows only.

    Raises:
        ArgumentError: levels that the codec doesn't have, or a batch size below 1.
    """

    def __init__(
        self,
        run: Run,
        config: CodecConfig,
        n_q: int | None = None,
        first_level: int = 0,
        batch_size: int | None = None,
        columns: int = 0,
    ) -> None:
        n_q = config.n_q - (first_level if is_whole(first_level) else 0) if n_q is None else n_q
        if (
            not is_whole(n_q)
            or not is_whole(first_level)
            or first_level < 0
            or n_q < 1
            or first_level + n_q > config.n_q
        ):
            raise ArgumentError(
                f"n_q {n_q} from first_level {first_level} on: the codec has levels 0 to {config.n_q - 1}"
            )
        if batch_size is not None and (not is_whole(batch_size) or batch_size < 1):
            raise ArgumentError(f"batch_size must be a whole number from 1 on, not {batch_size!r}")
        self.n_q, self.first_level = int(n_q), int(first_level)
        self.batch_size = None if batch_size is None else int(batch_size)
        self._run, self._config, self._reach = run, config, decoder_reach(config)
        self._upsampling = Upsampling(config, columns)
        self._state = initial_state(config, batch_size or 1)

    def __repr__(self) -> str:
        batch = f"batch of {self.batch_size}, " if self.batch_size else ""
        return (
            f"StreamDecoder(levels {self.first_level} to {self.first_level + self.n_q - 1}, {batch}"
            f"{_progress(self._state)}, look-ahead {self.look_ahead_frames} frames)"
        )

    @property
    def look_ahead_frames(self) -> int:
        """Frames that must follow a frame before its audio is returned; fewer at the end of the clip.

        The first audio comes with frame `first_frames` of the clip, since padding at its start reflects what follows.
        """
        return self._reach.look_ahead_frames

    @property
    def first_frames(self) -> int:
        """Frames of a clip after which the audio of its first frame is returned."""
        return self._reach.first_frames

    @property
    def context_frames(self) -> int:
        """Frames before a push that its audio depends on, besides the state of the LSTM."""
        return self._reach.past

    @property
    def state(self) -> DecoderState:
        """The state. Set it to return to this point, in this stream or in another of the same shape."""
        now = self._state
        latents, features, hidden, cell = map(np.asarray, (now.latents, now.features, now.hidden, now.cell))
        columns = None if now.columns is None else np.asarray(now.columns)
        return dataclasses.replace(now, latents=latents, features=features, hidden=hidden, cell=cell, columns=columns)

    @state.setter
    def state(self, state: DecoderState) -> None:
        shape = (self._config.lstm_layers, self.batch_size or 1, self._state.features.shape[1])
        if not isinstance(state, DecoderState):
            raise ArgumentError(f"state: expected a DecoderState, got {type(state).__name__}")
        if state.hidden.shape != shape:
            raise ArgumentError(f"state: made for hidden state {state.hidden.shape}, this stream's is {shape}")
        if state.columns is not None and state.columns.shape[1] != self._upsampling.columns:
            state = dataclasses.replace(state, columns=None)  # the features suffice to go on
        self._state = state

    def reset(self) -> None:
        """Start a new clip."""
        self._state = initial_state(self._config, self.batch_size or 1)

    def push(self, codes: Any) -> Array:
        """Add frames; return the audio that is final now.

        Args:
            codes: (n_q, frames) integers, or (n_q, batch_size, frames) for a batch.

        Returns:
            (samples,) float32, or (batch_size, samples): whole frames. Empty until the look-ahead has arrived.

        Raises:
            TokensError: another shape or number of levels, codes out of range, or no frames. The stream is unchanged.
            StreamError: the clip has ended (`finish`).
        """
        if self._state.finished:
            raise StreamError("stream: push after finish; call reset() to start a new clip")
        return run_alone(self.push_step(self.checked(codes)), self._run)

    def finish(self) -> Array:
        """End the clip; return the rest of its audio, in the shape of `push`.

        Raises:
            StreamError: the clip has ended already.
        """
        if self._state.finished:
            raise StreamError("stream: finished already; call reset() to start a new clip")
        return run_alone(self.finish_step(), self._run)

    def __enter__(self) -> StreamDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending = self._state.frames_in - self._state.frames_out
        if kind is None and not self._state.finished and pending:
            raise StreamError(f"stream: left open; call finish() for the audio of the last {pending} frames")

    def checked(self, codes: Any) -> NDArray[np.int64]:
        """Return the codes of a push as [n_q, B, frames], without a change of the stream; TokensError as `push`."""
        array = codes_array(codes)
        leading = (self.n_q,) if self.batch_size is None else (self.n_q, self.batch_size)
        if array.ndim != len(leading) + 1 or array.shape[:-1] != leading or array.shape[-1] == 0:
            shape = "(n_q, frames)" if self.batch_size is None else "(n_q, batch_size, frames)"
            sizes = f"n_q {self.n_q}" + (f" and batch_size {self.batch_size}" if self.batch_size else "")
            raise TokensError(f"stream: expected codes {shape} with {sizes} and at least one frame, got {array.shape}")
        flat = checked_codes(array.reshape(self.n_q, -1), self._config.codebook_size)
        return flat.reshape(self.n_q, self.batch_size or 1, -1).astype(np.int64)

    def push_step(self, checked: NDArray[np.int64]) -> Step[Array]:
        """Work of a push of `checked` codes, as calls of graphs. The LSTM's states in them are opaque values."""
        inputs = {"codes": checked, "first_level": np.array(self.first_level, np.int64)}
        [latents] = yield Call("dequantizer", inputs)
        state = dataclasses.replace(
            self._state,
            frames_in=self._state.frames_in + latents.shape[2],
            latents=joined(self._state.latents, latents),
        )
        return (yield from self._advance(state))

    def finish_step(self) -> Step[Array]:
        """Work of `finish`, as calls of graphs."""
        return (yield from self._advance(dataclasses.replace(self._state, finished=True)))

    def _advance(self, state: DecoderState) -> Step[Array]:
        state = yield from self._recur(state)
        state, audio = yield from self._upsample(state)
        self._state = state  # only now: a push that failed leaves the stream as it was
        return audio if self.batch_size else audio[0]

    def _recur(self, state: DecoderState) -> Step[DecoderState]:
        """Run the first convolution and the LSTM on the frames whose context has arrived."""
        reach, front = self._reach, self._reach.front
        ready = state.frames_in - (0 if state.finished else reach.front_future)
        if ready <= state.frames_ready or not (state.finished or state.frames_in >= reach.front_head):
            return state
        right = reach.front_future if state.finished else 0
        window = reflected(state.latents, max(0, front - state.frames_ready), right, axis=2)
        inputs = {"latents": window, "hidden": state.hidden, "cell": state.cell}
        features, hidden, cell = yield Call("decoder_recurrent", inputs)
        first_kept = max(0, ready - front) - max(0, state.frames_ready - front)
        return dataclasses.replace(
            state,
            frames_ready=ready,
            latents=part(state.latents, first_kept),
            features=joined(state.features, features),
            hidden=hidden,
            cell=cell,
        )

    def _upsample(self, state: DecoderState) -> Step[tuple[DecoderState, Array]]:
        """Run the upsampling on the frames whose context has arrived; discard samples that depend on its padding."""
        reach, hop = self._reach, self._config.hop_length
        out = state.frames_ready - (0 if state.finished else reach.future)
        if out <= state.frames_out or not (state.finished or state.frames_ready >= reach.head):
            return state, np.zeros((state.features.shape[0], 0), np.float32)
        window_start = max(0, state.frames_out - reach.past)
        # The first frames of a clip and its last depend on the padding at its ends.
        inner = state.frames_out >= reach.past and not state.finished
        if inner and self._upsampling.columns:
            state, audio = yield from self._step(state)
        else:
            [waveform] = yield Call("decoder_upsampler", {"features": state.features}, inner)
            new = part(waveform, (state.frames_out - window_start) * hop, (out - window_start) * hop)
            audio = np.asarray(new)[:, 0]
        kept = part(state.features, max(0, out - reach.past) - window_start)
        return dataclasses.replace(state, frames_out=out, features=kept), audio

    def _step(self, state: DecoderState) -> Step[tuple[DecoderState, Array]]:
        """Run the upsampling with its state; the first time from zeros, on the context of a window before the rest."""
        first, late = state.frames_out - self._reach.past, self._reach.future
        begin = first if state.columns is None else state.frames_out + late
        features = part(state.features, begin - first)
        audio, columns = yield from self._upsampling.steps(features, state.columns)
        skipped = (state.frames_out + late - begin) * self._config.hop_length
        return dataclasses.replace(state, columns=columns), audio[:, skipped:]


def warm_up_stream(stream: StreamDecoder) -> None:
    """Decode silence until pushes of a frame, and of 100 ms, run as they will later; end with a new clip."""
    frame = np.zeros((stream.n_q, 1), np.int64)
    enough = stream.first_frames + stream.look_ahead_frames + stream.context_frames
    for _ in range(enough):
        stream.push(frame)
    for _ in range(2):
        stream.push(np.repeat(frame, WARM_UP_FRAMES, axis=1))
    stream.reset()


def initial_state(config: CodecConfig, batch_size: int) -> DecoderState:
    """Return the state before the first frame."""
    channels = config.lstm_channels
    state = np.zeros((config.lstm_layers, batch_size, channels), np.float32)
    latents = np.zeros((batch_size, config.dimension, 0), np.float32)
    features = np.zeros((batch_size, channels, 0), np.float32)
    return DecoderState(0, 0, 0, False, latents, features, state, state)


def _progress(state: DecoderState) -> str:
    finished = ", finished" if state.finished else ""
    return f"{state.frames_in} frames in, {state.frames_out} out{finished}"
