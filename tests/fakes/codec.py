"""Codecs on the simulated TensorRT, and comparisons of their results."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.bundle import Bundle
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.runtime import Codec
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest
from dmcodec.sample import speech
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt

RATE = 16000
_devices: list[FakeDevice] = []  # of the codecs that a test loads


def build(bundle: Path, request: ShapeRequest, folder: Path, options: BuildOptions | None = None, **fake: Any) -> None:
    """Build engines with the simulated TensorRT."""
    library = Library(fake_tensorrt(FakeDevice(), **fake), TENSORRT_RTX if fake.get("rtx") else TENSORRT)
    library.module.half = None
    opened, options = Bundle.open(bundle), options or BuildOptions()
    planned = plan_engines(opened, library, GPU, request, options, engine_cache=folder)
    build_engines(opened, library, GPU, planned, options, engine_cache=folder)


def load(
    bundle: Path, folder: Path, device: FakeDevice | None = None, capture: bool = True, **fake: Any
) -> tuple[Codec, FakeDevice]:
    device = device or FakeDevice()
    _devices.append(device)
    library = Library(fake_tensorrt(device, **fake), TENSORRT_RTX if fake.get("rtx") else TENSORRT)
    opened = Bundle.open(bundle)
    return Codec(opened, TensorrtBackend(opened, folder, capture, device, library)), device


def assert_nothing_leaks() -> None:
    """Check that all codecs that were loaded gave back all that they took from their devices."""
    if any(device.leaks() for device in _devices):
        gc.collect()
    leaks = [found for device in _devices if (found := device.leaks())]
    _devices.clear()
    assert not leaks


def clips(*lengths: int) -> list[np.ndarray[Any, Any]]:
    return [speech(1000 * index + length, RATE)[1000 * index :] for index, length in enumerate(lengths)]


def same(codec: Codec, reference: Codec, waveforms: list[Any]) -> None:
    """Codes equal; audio equal but for rounding, which depends on the batch."""
    tokens, expected = codec.encode_batch(waveforms, RATE), reference.encode_batch(waveforms, RATE)
    for got, want in zip(tokens, expected, strict=True):
        np.testing.assert_array_equal(got.codes, want.codes)
    for audio, right in zip(codec.decode_batch(tokens), reference.decode_batch(expected), strict=True):
        np.testing.assert_allclose(audio, right, atol=2e-5)
