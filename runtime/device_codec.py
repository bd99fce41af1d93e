"""A codec between arrays: of other libraries, in host memory or on the codec's GPU, without a copy there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, prepare_waveform
from dmcodec.errors import ArgumentError, AudioError, DmcodecError, TokensError, first_line
from dmcodec.tokens import Tokens
from dmcodec.waveforms import check_sample_rate

from .backend import DeviceSide, DeviceTensor, device_side
from .batching import listed
from .dlpack import ArrayView, gpu_view, stream_handle
from .token_checks import checked_n_q

if TYPE_CHECKING:
    from .codec import Codec

MAX_LATENTS_S = 120.0


class Array(Protocol):
    """A result: a numpy array where the codec runs on the CPU, else memory of the GPU."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


class DeviceCodec:
    """Encodes and decodes arrays where the codec runs; `Codec.device`. Safe to use from several threads.

    Arguments may be arrays of numpy, torch, CuPy, JAX or any library with DLPack or `__cuda_array_interface__`. Results
    are numpy arrays on the CPU and with ONNX Runtime. With backend tensorrt they lie in GPU memory, have both
    interfaces, and keep their memory until nothing refers to them: `torch.from_dlpack(result)` copies nothing.

    What lies on the codec's GPU already is read there, if it is what the graphs take: float32 waveforms (samples,) or
    (1, samples) at the codec's rate of up to 30 s, and int64 codes (n_q, frames). Their values are not checked: NaN
    gives codes without meaning. Anything else goes through host memory, where it is checked and converted.

    With `stream`, a CUDA stream or its handle, the work follows what the stream holds, and what is put on the stream
    afterwards follows the work; the host does not wait for it. Without, it follows the default stream, and is done when
    the call returns. It was not yet run on a GPU.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec, self._side = codec, device_side(codec.backend)

    def encode(self, waveform: Any, sample_rate: int, n_q: int | None = None, *, stream: Any = None) -> Array:
        """Encode a waveform to codes (n_q, frames) int64; arguments and errors are those of `Codec.encode`.

        Raises:
            ArgumentError: a stream where the codec does not run on TensorRT.
        """
        codec, handle = self._codec, self.stream(stream)
        n_q = checked_n_q(n_q, codec.config)
        item = self.prepared(waveform, sample_rate, "waveform", None, handle)
        if self._side is None or not codec.runs_whole(item.shape[-1]):
            tokens = codec.encode_prepared([_on_host(item)], n_q)[0]
            return self._result(tokens.codes.astype(np.int64), handle)
        return self._result(self.codes(item).part(0, 0, n_q), handle)

    def latents(self, waveform: Any, sample_rate: int, *, stream: Any = None) -> Array:
        """Return latents (dimension, frames) float32; arguments and errors are those of `Codec.latents`."""
        handle = self.stream(stream)
        latents = self.one_piece(self.prepared(waveform, sample_rate, "waveform", None, handle))
        return latents[0] if self._side is None else self._result(latents.take(0, 0), handle)

    def decode(self, codes: Any, first_level: int = 0, *, stream: Any = None) -> Array:
        """Decode codes (n_q, frames) of any integer type to a waveform (samples,) float32 of whole frames.

        Args:
            codes: row 0 is quantizer level `first_level`.
            first_level: level of the first row.
            stream: as for the class.

        Raises:
            TokensError: another shape or type, values outside the codebook, or levels that the codec doesn't have.
            ArgumentError: a stream where the codec does not run on TensorRT.
        """
        codec, handle = self._codec, self.stream(stream)
        value = self._adopted(codes, "codes", TokensError, handle)
        if value is None or value.dtype != np.int64 or value.ndim != 2:
            tokens = Tokens.from_codes(
                codes if value is None else np.asarray(value), codec.config, None, "", first_level
            )
            return self._result(codec.decode(tokens), handle)
        levels, frames = value.shape
        if not (first_level >= 0 and 1 <= levels <= codec.n_q - first_level and frames):
            raise TokensError(f"codes: levels {first_level} to {first_level + levels - 1} of {frames} frames can't be "
                              f"decoded; this codec has {codec.n_q} levels")  # fmt: skip
        if not codec.runs_whole(frames * codec.hop_length):
            tokens = Tokens.from_codes(np.asarray(value), codec.config, None, "", first_level)
            return self._result(codec.decode(tokens), handle)
        inputs = {"codes": value.with_axis(1), "first_level": np.array(first_level, np.int64)}
        latents = codec.graphs.run("dequantizer", **inputs)[0]
        waveform = codec.graphs.run("decoder", latents=latents, lengths=np.array([frames], np.int64))[0]
        return self._result(waveform.take(0, 0).take(0, 0), handle)

    def stream(self, stream: Any) -> int | None:
        """Return the handle of a stream; ArgumentError where the codec does not take one."""
        if stream is not None and self._side is None:
            raise ArgumentError("stream is for backend tensorrt; this codec takes and gives host memory: leave it out")
        return stream_handle(stream)

    def prepared(
        self, waveform: Any, sample_rate: int, source: str, channel: int | None, stream: int | None
    ) -> Waveform | DeviceTensor:
        """Return a waveform (samples,) at the codec's rate; on the codec's GPU, (1, 1, samples) as it lies there."""
        codec = self._codec
        value = self._adopted(waveform, source, AudioError, stream)
        if value is None:
            return prepare_waveform(waveform, sample_rate, codec.sample_rate, source, channel)
        check_sample_rate(sample_rate, source)
        one = value.ndim == 1 or (value.ndim == 2 and value.shape[0] == 1)
        plain = one and value.dtype == np.float32 and value.shape[-1] and sample_rate == codec.sample_rate
        if not plain or channel or not codec.runs_whole(value.shape[-1]):
            return prepare_waveform(np.asarray(value), sample_rate, codec.sample_rate, source, channel)
        return value.with_axis(0).with_axis(0) if value.ndim == 1 else value.with_axis(0)

    def one_piece(self, item: Waveform | DeviceTensor) -> Any:
        """Return the latents (1, dimension, frames) of a prepared waveform; AudioError if it is too long."""
        if item.shape[-1] > MAX_LATENTS_S * self._codec.sample_rate:
            raise AudioError(f"waveform: longer than {MAX_LATENTS_S:g} s, the limit for latents; cut it into parts")
        latents = self._latents(item)
        return latents if self._side is not None else self._codec.backend.to_array(latents)

    def codes(self, item: Waveform | DeviceTensor) -> DeviceTensor:
        """Return the codes of a prepared waveform on the device, (all levels, frames) int64."""
        return self._codec.graphs.run("quantizer", latents=self._latents(item))[0].take(1, 0)

    def host_codes(self, item: DeviceTensor) -> NDArray[np.uint16]:
        """Return the codes of a prepared waveform on the device, (all levels, frames), in host memory."""
        return np.asarray(self.codes(item)).astype(np.uint16)

    def _latents(self, item: Waveform | DeviceTensor) -> DeviceTensor:
        waveform = item[None, None] if isinstance(item, np.ndarray) else item
        lengths = np.array([waveform.shape[-1]], np.int64)
        return self._codec.graphs.run("encoder", waveform=waveform, lengths=lengths)[0]

    def _adopted(
        self, value: Any, what: str, kind: Callable[[str], DmcodecError], stream: int | None
    ) -> DeviceTensor | None:
        """Return an array on the codec's GPU as it lies there; None for anything in host memory."""
        if self._side is None:
            return None
        try:
            view = gpu_view(value, stream)
        except DmcodecError as error:
            raise kind(f"{what}: {error}") from None
        except Exception as error:  # noqa: BLE001 - methods of foreign objects raise what they like
            raise kind(f"{what}: can't be taken from its GPU ({first_line(error)})") from None
        return None if view is None else self._side.adopt(self._checked(view, self._side, what, kind))

    def _checked(self, view: ArrayView, side: DeviceSide, what: str, kind: Callable[[str], DmcodecError]) -> ArrayView:
        if view.device[1] != side.device_id:
            raise kind(
                f"{what}: lies on GPU {view.device[1]}, this codec runs on GPU {side.device_id}; "
                f"load the codec with device_id={view.device[1]}, or copy the array"
            )
        gaps = [stride < size for stride, size in zip(view.strides[:-1], view.shape[1:], strict=True)]
        if view.shape and ((view.shape[-1] > 1 and view.strides[-1] != 1) or (view.shape[0] > 1 and any(gaps))):
            raise kind(f"{what}: its values don't lie side by side; make it contiguous")
        if len(view.shape) > 2:
            raise kind(f"{what}: has shape {view.shape}; take one clip of a batch, for example with [0]")
        return view

    def _result(self, value: DeviceTensor, handle: int | None) -> Any:
        """Return a result on the codec's device, which the caller's stream, or else the host, waits for."""
        if self._side is None:
            return value
        # In C order, which not all libraries can do without.
        result = self._side.upload(value) if isinstance(value, np.ndarray) else value.dense()
        if handle is None:
            result.synchronize()
        else:
            result.make_wait(handle)
        return result


def _on_host(item: Waveform | DeviceTensor) -> Waveform:
    return item if isinstance(item, np.ndarray) else np.asarray(item).reshape(-1)


def prepared_clips(
    device: DeviceCodec, waveforms: Any, sample_rate: int, channel: int | None, stream: Any
) -> list[Waveform | DeviceTensor]:
    """Return the prepared waveforms of a batch; see `DeviceCodec.prepared`."""
    handle = device.stream(stream)
    return [
        device.prepared(waveform, sample_rate, f"waveform {index}", channel, handle)
        for index, waveform in enumerate(listed(waveforms, "waveforms"))
    ]
