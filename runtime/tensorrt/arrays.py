"""Values in device memory: results of graphs, parts of them, and arrays of the application."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import GpuError
from dmcodec.runtime.dlpack import (
    CUDA,
    DEFAULT_STREAM,
    ArrayView,
    capsule_of,
    contiguous_strides,
    interface_of,
    stream_handle,
)

from .device import Device, Rows
from .memory import Block, DevicePool
from .profiles import Shape
from .resources import DeviceResources
from .shapes import size_bytes


class Holder:
    """Keeps a block for all arrays that lie in it. It returns to its pool with the last of them."""

    def __init__(self, block: Block[int], pool: DevicePool | None, owner: object = None) -> None:
        self.block, self.owner = block, owner
        if pool is not None:
            weakref.finalize(self, pool.release, block).atexit = False
        else:  # memory of the application
            weakref.finalize(self, block.destroy_events).atexit = False


class _Lent:
    """Keeps memory that another library reads on a stream; who uses the memory next waits for that stream."""

    def __init__(self, holder: Holder, stream: int, device: Device) -> None:
        self._holder = holder
        weakref.finalize(self, _record_use, holder.block, stream, device).atexit = False


def _record_use(block: Block[int], stream: int, device: Device) -> None:
    with contextlib.suppress(GpuError), device.current():  # the stream may be gone, and its work with it
        block.record_use(stream)


class DeviceArray:
    """A value in device memory. Never changed.

    Attributes:
        dtype: type of the values.
        shape: sizes of the axes.
        strides: from one value of each axis to the next, in values.
        whole_shape: shape of all that is in memory, in C order, if this is the beginning of each of its axes: a result
            with its padding. Else None.
    """

    def __init__(
        self,
        resources: DeviceResources,
        holder: Holder,
        dtype: np.dtype[Any],
        shape: Shape,
        strides: Shape,
        offset: int = 0,
        whole_shape: Shape | None = None,
    ) -> None:
        self.dtype, self.shape, self.strides, self.whole_shape = dtype, shape, strides, whole_shape
        self._resources, self._holder, self._offset = resources, holder, offset

    @classmethod
    def padded(
        cls, resources: DeviceResources, block: Block[int], dtype: np.dtype[Any], shape: Shape, whole_shape: Shape
    ) -> DeviceArray:
        """Return the beginning of each axis of what is in a block of the pool, which belongs to the array."""
        holder = Holder(block, resources.memory)
        return cls(resources, holder, dtype, shape, contiguous_strides(whole_shape), 0, whole_shape)

    @classmethod
    def adopted(cls, resources: DeviceResources, view: ArrayView) -> DeviceArray:
        """Return an array of the application as it is; work on it waits for the streams that make it."""
        block = Block(resources.device, view.address, view.size_bytes)
        with resources.device.current():
            for stream in view.streams:
                block.record_use(stream)
        whole = view.shape if view.strides == contiguous_strides(view.shape) else None
        holder = Holder(block, None, view.owner)
        return cls(resources, holder, view.dtype, view.shape, view.strides, 0, whole)

    @classmethod
    def uploaded(cls, resources: DeviceResources, array: NDArray[Any]) -> DeviceArray:
        """Copy an array to the device."""
        array = np.ascontiguousarray(array)
        with resources.lease_stream() as stream:
            block = resources.memory.acquire(array.nbytes, stream.handle)
            upload(resources, array, array.shape, 0, block, stream.handle)
            block.record_use(stream.handle)
        return cls.padded(resources, block, array.dtype, array.shape, array.shape)

    @property
    def block(self) -> Block[int]:
        """The memory that it lies in."""
        return self._holder.block

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return size_bytes(self.shape, self.dtype)

    def part(self, axis: int, start: int, stop: int | None = None) -> DeviceArray:
        """Return a part of an axis, in the same memory."""
        axis %= self.ndim
        start, stop, _ = slice(start, stop).indices(self.shape[axis])
        shape = (*self.shape[:axis], max(0, stop - start), *self.shape[axis + 1 :])
        if shape == self.shape:
            return self
        return self._view(shape, self.strides, start * self.strides[axis])

    def take(self, axis: int, index: int) -> DeviceArray:
        """Return one place of an axis, without that axis, in the same memory."""
        shape, strides = (values[:axis] + values[axis + 1 :] for values in (self.shape, self.strides))
        return self._view(shape, strides, index * self.strides[axis])

    def with_axis(self, axis: int) -> DeviceArray:
        """Return it with a further axis of size 1, in the same memory."""
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        step = self.shape[axis] * self.strides[axis] if axis < self.ndim else 1
        return self._view(shape, (*self.strides[:axis], step, *self.strides[axis:]), 0)

    def dense(self) -> DeviceArray:
        """Return it in C order: as it lies there, or else copied on the device."""
        strides, resources = contiguous_strides(self.shape), self._resources
        if self.strides == strides:
            return self
        with resources.lease_stream() as stream:
            block = resources.memory.acquire(self.nbytes, stream.handle)
            self.copy_to(block.memory, strides, stream.handle)
            block.record_use(stream.handle)
        return DeviceArray.padded(resources, block, self.dtype, self.shape, self.shape)

    def joined(self, other: DeviceArray) -> DeviceArray:
        """Return it and another one along the last axis, in new memory. The other axes are equal."""
        shape = (*self.shape[:-1], self.shape[-1] + other.shape[-1])
        resources, strides = self._resources, contiguous_strides(shape)
        with resources.lease_stream() as stream:
            block = resources.memory.acquire(size_bytes(shape, self.dtype), stream.handle)
            self.copy_to(block.memory, strides, stream.handle)
            place = self.shape[-1] * self.dtype.itemsize
            other.copy_to(block.memory + place, strides, stream.handle)
            block.record_use(stream.handle)
        return DeviceArray.padded(resources, block, self.dtype, shape, shape)

    def beside(self, array: NDArray[Any]) -> DeviceArray:
        """Copy an array to the device that this one lies on."""
        return DeviceArray.uploaded(self._resources, array)

    def copy_to(self, target: int, strides: Shape, stream: int) -> None:
        """Enqueue a copy of the values to an address, with these strides in values."""
        self.block.make_wait(stream)
        item, lead = self.dtype.itemsize, 3 - self.ndim
        first, rows, row = (*(1,) * lead, *self.shape)
        source, to = ((*(0,) * lead, *values) for values in (self.strides, strides))
        device, address = self._resources.device, self.block.memory + self._offset * item
        if not first * rows * row:
            return
        together = first == 1 or (source[0] == rows * source[1] and to[0] == rows * to[1])
        for index in range(1 if together else first):
            device.copy_rows(
                Rows(target + index * to[0] * item, max(to[1], row) * item),
                Rows(address + index * source[0] * item, max(source[1], row) * item),
                row * item,
                first * rows if together else rows,
                stream,
            )
        self.block.record_use(stream)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return to_array(self._resources, self).astype(dtype or self.dtype, copy=False)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._resources.device.index

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """Return a DLPack capsule; the stream (None: the default one, -1: none) waits for the values."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("dmcodec: gives this array where it lies, without a copy; copy it after the import")
        handle = DEFAULT_STREAM if stream in (None, -1) else stream_handle(stream) or DEFAULT_STREAM
        if stream != -1:
            self.make_wait(handle)
        return capsule_of(self._memory(handle))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.make_wait(DEFAULT_STREAM)
        return interface_of(self._memory(DEFAULT_STREAM))

    def make_wait(self, stream: int) -> None:
        """Make a stream of the application wait for the values."""
        with self._resources.device.current():
            self.block.make_wait(stream)

    def synchronize(self) -> None:
        """Wait on the host for the values."""
        with self._resources.device.current():
            self.block.synchronize()

    def _memory(self, stream: int) -> ArrayView:
        address = self.block.memory + self._offset * self.dtype.itemsize
        owner = _Lent(self._holder, stream, self._resources.device)
        return ArrayView(address, self.dtype, self.shape, self.strides, self.__dlpack_device__(), owner, (stream,))

    def _view(self, shape: Shape, strides: Shape, offset: int) -> DeviceArray:
        whole = shape if self._offset + offset == 0 and strides == contiguous_strides(shape) else None
        return DeviceArray(self._resources, self._holder, self.dtype, shape, strides, self._offset + offset, whole)


def to_array(resources: DeviceResources, value: DeviceArray) -> NDArray[Any]:
    """Copy a value to host memory, without what lies around it."""
    shape, count = value.shape, size_bytes(value.shape, value.dtype)
    with resources.lease_stream() as stream:
        is_dense = value.whole_shape == shape
        block = value.block if is_dense else resources.memory.acquire(count, stream.handle)
        if not is_dense:
            value.copy_to(block.memory, contiguous_strides(shape), stream.handle)
        pinned = resources.pinned.acquire(count)
        try:
            memory = pinned.memory[:count]
            block.make_wait(stream.handle)
            resources.device.download(memory, block.memory, stream.handle)
            block.record_use(stream.handle)
            pinned.record_use(stream.handle)
            resources.device.synchronize(stream.handle)
            return memory.view(value.dtype).reshape(shape).copy()
        finally:
            resources.pinned.release(pinned)
            if not is_dense:
                resources.memory.release(block)


def upload(
    resources: DeviceResources, array: NDArray[Any], shape: Shape, fill: int, block: Block[int], stream: int
) -> None:
    """Enqueue a copy of an array to a block, padded with `fill` to `shape`."""
    count = size_bytes(shape, array.dtype)
    pinned = resources.pinned.acquire(count)
    try:
        padded = pinned.memory[:count].view(array.dtype).reshape(shape)
        if array.shape != shape:
            padded.fill(fill)
        padded[tuple(slice(size) for size in array.shape)] = array
        resources.device.upload(block.memory, pinned.memory[:count], stream)
        pinned.record_use(stream)
    finally:
        resources.pinned.release(pinned)
