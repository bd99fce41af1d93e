"""Streaming encode: codes while speech comes in, with bounded look-ahead and memory.

The encoder's LSTM runs both ways, so it reads the future of a clip to its end. A stream reads as far as its look-ahead:
frames are encoded in steps of a fixed number, and in each step the backward directions start from zero at the end of
the look-ahead. The forward directions carry their state from step to step. Convolutions see all samples that they
reach.
"""

from __future__ import annotations

import dataclasses
import math
from types import TracebackType
from typing import Any

import numpy as np

from dmcodec.bundle import MAX_LOOK_AHEAD_S, Bundle
from dmcodec.codes import is_whole
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, BundleError, StreamError

from .calls import RunGraph, Step, run_alone
from .encoder_steps import Codes, EncoderState, EncoderSteps
from .stream_input import Array, StreamInput, resampler_lag

MAX_STEP_S = 10.0


class StreamEncoder:
    """Encodes one clip, or a batch of clips in parallel, chunk by chunk; made by `Codec.stream_encoder`.

    The codes do not depend on how the samples are cut into pushes. With a look-ahead as long as the clip they are those
    of the whole clip. Use one stream from one thread only; any number of streams can be open on one Codec.

    Args:
        run: runs a graph of the bundle.
        config: of the codec.
        look_ahead_s: seconds of future that the backward LSTM reads, 0 to MAX_LOOK_AHEAD_S; rounded up to frames. Must
            be 0 or None where there is no backward LSTM.
        sample_rate: of the samples, in Hz; the codec's by default.
        n_q: quantizer levels to return, from level 0 on; all by default.
        batch_size: clips that are encoded in parallel; None for one clip without a batch axis.
        step_s: seconds that are encoded at a time, above 0 to MAX_STEP_S, rounded to frames. Longer steps cost less
            and delay more; their codes are other ones. By default 0.1, but at least 0.4 of the look-ahead.
        columns: size of the state of the graph DOWNSAMPLER_STEPS, which then runs between the ends of the clip; 0 runs
            windows only.

    Raises:
        ArgumentError: an argument out of range.
    """

    def __init__(
        self,
        run: RunGraph,
        config: CodecConfig,
        look_ahead_s: float | None,
        sample_rate: int | None = None,
        n_q: int | None = None,
        batch_size: int | None = None,
        step_s: float | None = None,
        columns: int = 0,
    ) -> None:
        n_q = config.n_q if n_q is None else n_q
        if not is_whole(n_q) or not 1 <= n_q <= config.n_q:
            raise ArgumentError(f"n_q must be 1 to {config.n_q}, not {n_q}")
        if batch_size is not None and (not is_whole(batch_size) or batch_size < 1):
            raise ArgumentError(f"batch_size must be a whole number from 1 on, not {batch_size}")
        self.n_q, self.batch_size = int(n_q), batch_size
        self._run, self._config = run, config
        if step_s is not None and not (_is_number(step_s) and 0 < step_s <= MAX_STEP_S):
            raise ArgumentError(f"step_s must be above 0 to {MAX_STEP_S:g} seconds, not {step_s!r}")
        self._steps = EncoderSteps(config, look_ahead_frames(config, look_ahead_s), step_s, columns)
        rate = config.sample_rate if sample_rate is None else sample_rate
        self._input = StreamInput(rate, config.sample_rate, batch_size)
        self._state = self._steps.initial_state(batch_size or 1)
        self._is_broken = False

    def __repr__(self) -> str:
        batch = f"batch of {self.batch_size}, " if self.batch_size else ""
        return (
            f"StreamEncoder({self.n_q} levels from {self.sample_rate} Hz, {batch}{self._state.progress}, "
            f"look-ahead {self.look_ahead_frames} frames, delay {self.delay_s:.3f} s)"
        )

    @property
    def sample_rate(self) -> int:
        """Sample rate of the pushed samples, in Hz."""
        return self._input.sample_rate

    @property
    def look_ahead_frames(self) -> int:
        """Frames of the future that the backward LSTM reads."""
        return self._steps.look_ahead_frames

    @property
    def step_frames(self) -> int:
        """Frames of a step: codes come in groups of so many."""
        return self._steps.step_frames

    @property
    def delay_samples(self) -> int:
        """Samples to push, at `sample_rate`, from the first sample of a frame until its codes are returned.

        It is that of the frames that wait longest: the look-ahead, one step, and what the convolutions reach. At
        another rate than the codec's, what soxr holds back at most comes on top.
        """
        samples, rate = self._steps.delay_samples, self._config.sample_rate
        if not self._input.resamples:
            return samples
        return math.ceil(samples * self.sample_rate / rate) + resampler_lag(self.sample_rate, rate)

    @property
    def delay_s(self) -> float:
        """`delay_samples` in seconds. An application adds the length of its pushes and the time that one takes."""
        return self.delay_samples / self.sample_rate

    @property
    def state(self) -> EncoderState:
        """The state. Set it to return to this point, in this stream or in another of the same shape.

        Raises:
            StreamError: the samples are resampled, whose state can't be copied.
        """
        self._refuse_resampling()
        recurrent = tuple((np.asarray(hidden), np.asarray(cell)) for hidden, cell in self._state.recurrent)
        columns = None if self._state.columns is None else np.asarray(self._state.columns)
        return dataclasses.replace(self._state, recurrent=recurrent, columns=columns)

    @state.setter
    def state(self, state: EncoderState) -> None:
        self._refuse_resampling()
        if not isinstance(state, EncoderState):
            raise ArgumentError(f"state: expected an EncoderState, got {type(state).__name__}")
        own = self._state
        for name, theirs, ours in (
            ("look-ahead in frames", state.look_ahead_frames, own.look_ahead_frames),
            ("step in frames", state.step_frames, own.step_frames),
            ("batch size", len(state.samples), len(own.samples)),
            ("number of channels", state.features.shape[2], own.features.shape[2]),
            ("LSTM", (len(state.recurrent), *state.outputs), (len(own.recurrent), *own.outputs)),
        ):
            if theirs != ours:
                raise ArgumentError(f"state: made for the {name} {theirs}, this stream's is {ours}")
        if state.columns is not None and state.columns.shape[1] != self._steps.columns:
            state = dataclasses.replace(state, columns=None)  # the samples suffice to go on
        self._state = state

    def reset(self) -> None:
        """Start a new clip."""
        self._state = self._steps.initial_state(self.batch_size or 1)
        self._input.reset()
        self._is_broken = False

    def push(self, samples: Any) -> Codes:
        """Add samples; return the codes that are final now.

        Args:
            samples: (samples,) float32, float64 in [-1, 1] or int16, at `sample_rate`; (batch_size, samples) for a
                batch. Any number of them; none change nothing.

        Returns:
            (n_q, frames) uint16, or (n_q, batch_size, frames); often no frames, since they come in steps.

        Raises:
            AudioError: another shape or dtype, NaN or infinite values. The stream is unchanged.
            StreamError: the clip has ended (`finish`).
            BackendError: a graph failed. The stream is unchanged, but where it resamples only `reset` is left.
        """
        self._check_open("push after finish")
        return run_alone(self.push_step(self.checked(samples)), self._run)

    def finish(self) -> Codes:
        """End the clip; return the rest of its codes, in the shape of `push`.

        Raises:
            StreamError: the clip has ended already.
            BackendError: as for `push`.
        """
        return run_alone(self.finish_step(), self._run)

    def __enter__(self) -> StreamEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending = self._config.num_frames(self._state.samples_in) - self._state.frames_out
        if kind is None and not self._state.finished and (pending or self._input.holds_back):
            raise StreamError(f"stream: left open; call finish() for the codes of the last {max(1, pending)} frames")

    def checked(self, samples: Any) -> Array:
        """Return the samples of a push as [B, n], without a change of the stream; AudioError as for `push`."""
        return self._input.checked(samples)

    def push_step(self, checked: Array) -> Step[Codes]:
        """Work of a push of `checked` samples, as calls of graphs. The LSTM's states in them are opaque values.

        StreamError as for `push`.
        """
        self._check_open("push after finish")
        return self._receive(checked, last=False)

    def finish_step(self) -> Step[Codes]:
        """Work of `finish`, as calls of graphs; StreamError as there."""
        self._check_open("finished already")
        return self._receive(np.zeros((self.batch_size or 1, 0), np.float32), last=True)

    def _receive(self, checked: Array, last: bool) -> Step[Codes]:
        self._is_broken = self._input.resamples  # until the samples that soxr gave away are in the state
        new = self._input.convert(checked, last)
        state, codes = yield from self._steps.receive(self._state, new, last)
        self._state, self._is_broken = state, False  # only now: a push that failed leaves the stream as it was
        codes = codes[: self.n_q]
        return codes if self.batch_size else codes[:, 0]

    def _check_open(self, problem: str) -> None:
        if self._state.finished:
            raise StreamError(f"stream: {problem}; call reset() to start a new clip")
        if self._is_broken:
            raise StreamError("stream: an earlier push failed after its samples were resampled; call reset()")

    def _refuse_resampling(self) -> None:
        if self._input.resamples:
            raise StreamError(
                f"stream: no state while {self.sample_rate} Hz are resampled, soxr's can't be copied; "
                f"push samples at {self._config.sample_rate} Hz"
            )


def look_ahead_frames(config: CodecConfig, look_ahead_s: float | None) -> int:
    """Return a look-ahead in whole frames, rounded up; ArgumentError if it is out of range for this encoder."""
    if not config.bidirectional:
        if look_ahead_s:
            raise ArgumentError(
                "look_ahead_s: this codec's encoder runs forward only and looks 0 s ahead; leave it out"
            )
        return 0
    if look_ahead_s is None or not _is_number(look_ahead_s) or not 0 <= look_ahead_s <= MAX_LOOK_AHEAD_S:
        raise ArgumentError(f"look_ahead_s must be 0 to {MAX_LOOK_AHEAD_S:g} seconds, not {look_ahead_s!r}")
    return math.ceil(round(float(look_ahead_s) * config.frame_rate, 6))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_live_encoding(bundle: Bundle, backend: str) -> None:
    """Check that a bundle's graphs on a backend can encode live.

    Raises:
        BundleError: the bundle lacks the encoder in parts.
        ArgumentError: the backend does not run the parts.
    """
    if backend != "onnxruntime":
        raise ArgumentError(f"backend {backend} has no engines for live encoding; use backend onnxruntime")
    if not bundle.manifest.has_encoder_parts:
        raise BundleError(
            f"{bundle.path}: lacks the graphs of live encoding, an earlier dmcodec exported it; "
            "run `dmcodec export --bundle OLD --out NEW`"
        )
