"""Arrays of other libraries, by DLPack and by the CUDA array interface: taken and given without a copy.

Nothing of torch, CuPy or JAX is imported: both protocols are methods of the arrays.
https://dmlc.github.io/dlpack/latest/python_spec.html,
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import weakref
from typing import Any

import numpy as np

from dmcodec.errors import ArgumentError

CPU, CUDA, CUDA_MANAGED = 1, 2, 13  # device types of DLPack
DEFAULT_STREAM = 1  # the handle of CUDA's legacy default stream
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLPack's type codes, and numpy's
_FRESH, _USED = b"dltensor", b"used_dltensor"
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayView:
    """Memory of an array.

    Attributes:
        address: of the first value.
        dtype: type of the values.
        shape: sizes of the axes.
        strides: from one value of each axis to the next, in values.
        device: device type and index, as in DLPack.
        owner: keeps the memory.
        streams: CUDA streams whose work makes the values.
    """

    address: int
    dtype: np.dtype[Any]
    shape: Shape
    strides: Shape
    device: tuple[int, int]
    owner: object
    streams: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes from the first value to the end of the last."""
        if not math.prod(self.shape):
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize


def contiguous_strides(shape: Shape) -> Shape:
    """Return the strides, in values, of an array in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def stream_handle(stream: Any) -> int | None:
    """Return the handle of a CUDA stream: an integer, or a stream object of torch, CuPy or another library.

    Raises:
        ArgumentError: it is none.
    """
    if stream is None:
        return None
    if hasattr(stream, "__cuda_stream__"):
        stream = stream.__cuda_stream__()[1]
    handle = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))
    if not isinstance(handle, (int, np.integer)) or isinstance(handle, bool) or handle < 0:
        raise ArgumentError(f"stream must be a CUDA stream or its handle, not {stream!r}")
    return int(handle) or DEFAULT_STREAM  # 0 is the default stream by another name


def gpu_view(value: Any, stream: int | None = None) -> ArrayView | None:
    """Return the memory of an array on a GPU; None for anything else.

    Args:
        value: any object.
        stream: handle of the stream that will read it; by default the legacy default stream.

    Raises:
        ArgumentError: a type that has no name in numpy.
    """
    stream = DEFAULT_STREAM if stream is None else stream
    device = getattr(value, "__dlpack_device__", None)
    if device is not None:
        if int(device()[0]) not in (CUDA, CUDA_MANAGED):
            return None
        value = value.detach() if hasattr(value, "detach") else value
        return _of_capsule(value.__dlpack__(stream=stream), stream)
    interface = getattr(value, "__cuda_array_interface__", None)
    return None if interface is None else _of_interface(interface, value, stream)


def capsule_of(view: ArrayView) -> Any:
    """Return a DLPack capsule of an array. Its consumer keeps `view.owner` until it is done."""
    return _new_capsule(ctypes.addressof(_Exported(view).managed), _FRESH, _END_CAPSULE)


def interface_of(view: ArrayView) -> dict[str, Any]:
    """Return the CUDA array interface of an array."""
    return {
        "shape": view.shape,
        "typestr": view.dtype.str,
        "data": (view.address, False),
        "strides": tuple(stride * view.dtype.itemsize for stride in view.strides),
        "stream": view.streams[0] if view.streams else None,
        "version": 3,
    }


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Exported:
    """An array that another library holds: the structure that DLPack defines, kept by a reference to itself."""

    def __init__(self, view: ArrayView) -> None:
        count = len(view.shape)
        self._owner = view.owner
        self._shape = (ctypes.c_int64 * count)(*view.shape)
        self._strides = (ctypes.c_int64 * count)(*view.strides)
        code = next(code for code, kind in _KINDS.items() if kind == view.dtype.kind)
        tensor = _Tensor(
            view.address, _Device(*view.device), count, _Type(code, 8 * view.dtype.itemsize, 1), self._shape,
            self._strides, 0,
        )  # fmt: skip
        self.managed = _Managed(tensor, id(self), _DELETE)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))


def _delete(pointer: int) -> None:
    exported = ctypes.cast(_Managed.from_address(pointer).context, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(exported))


def _end_capsule(capsule: int) -> None:
    """Free the array of a capsule that nobody consumed. The capsule is given by its address: it has no references."""
    if _is_valid(capsule, _FRESH):
        _delete(_pointer_of(capsule, _FRESH))


_DELETE = _Deleter(_delete)
_END_CAPSULE = _Deleter(_end_capsule)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_capsule = _function("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Deleter)
_pointer_of = _function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_is_valid = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_set_name = _function("PyCapsule_SetName", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)


class _Consumed:
    """An array of another library, which is given back when nothing refers to this object."""

    def __init__(self, pointer: int) -> None:
        deleter = _Managed.from_address(pointer).deleter
        if deleter:
            weakref.finalize(self, deleter, pointer).atexit = False


def _of_capsule(capsule: Any, stream: int) -> ArrayView:
    pointer = _pointer_of(id(capsule), _FRESH)
    tensor = _Managed.from_address(pointer).tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    kind, bits, lanes = _KINDS.get(tensor.dtype.code), tensor.dtype.bits, tensor.dtype.lanes
    if kind is None or lanes != 1 or bits not in (8, 16, 32, 64):
        raise ArgumentError("an array of this type can't be taken; convert it to float32, or codes to int64")
    view = ArrayView(
        address=(tensor.data or 0) + tensor.byte_offset,
        dtype=np.dtype(f"{kind}{bits // 8}"),
        shape=shape,
        strides=contiguous_strides(shape) if strides is None else strides,
        device=(int(tensor.device.kind), int(tensor.device.index)),
        owner=_Consumed(pointer),
        streams=(stream,),
    )
    _set_name(id(capsule), _USED)
    return view


def _of_interface(interface: dict[str, Any], value: Any, stream: int) -> ArrayView:
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    strides = interface.get("strides")
    places = None if strides is None else tuple(stride // dtype.itemsize for stride in strides)
    index = int(getattr(getattr(value, "device", 0), "id", 0))  # CuPy's name for it; the interface itself has none
    made_on = interface.get("stream")
    return ArrayView(
        address=int(interface["data"][0]),
        dtype=dtype,
        shape=shape,
        strides=contiguous_strides(shape) if places is None else places,
        device=(CUDA, index),
        owner=value,
        streams=(stream,) if made_on in (None, stream) else (stream, int(made_on)),
    )
