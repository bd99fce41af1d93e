"""The memory of a call: a bound on what runs at once for any number of threads, and memory that is given back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from platforms import linux

from dmcodec.bundle import Bundle, GraphSpec
from dmcodec.errors import ArgumentError, BackendError
from dmcodec.runtime import Codec, Tokens
from dmcodec.runtime.batching import DECODE_TOTAL_S, ENCODE_TOTAL_S, run_within
from dmcodec.sample import speech

HOP, RATE = 320, 16000


class Meter:
    """Counts the frames of audio that run at the same time."""

    def __init__(self) -> None:
        self.now, self.peak, self.most_calls, self.calls = 0, 0, 0, 0
        self._lock = threading.Lock()

    def add(self, frames: int, calls: int) -> None:
        with self._lock:
            self.now += frames
            self.calls += calls
            self.peak, self.most_calls = max(self.peak, self.now), max(self.most_calls, self.calls)


class MeteredGraph:
    """Returns zeros of the right shapes; encoder and decoder count their audio."""

    def __init__(self, name: str, meter: Meter) -> None:
        self._name, self._meter = name, meter

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if self._name == "quantizer":
            return [np.zeros((8, inputs["latents"].shape[0], inputs["latents"].shape[2]), np.int64)]
        if self._name == "dequantizer":
            return [np.zeros((inputs["codes"].shape[1], 1, inputs["codes"].shape[2]), np.float32)]
        batch, _, length = inputs["waveform" if self._name == "encoder" else "latents"].shape
        frames = -(-length // HOP) if self._name == "encoder" else length
        self._meter.add(batch * frames, 1)
        time.sleep(0.0005)
        self._meter.add(-batch * frames, -1)
        return [np.zeros((batch, 1, frames if self._name == "encoder" else frames * HOP), np.float32)]


class MeteredBackend:
    """A backend of `MeteredGraph`s with any number of threads."""

    name, provider, version, single_threaded_streams = "metered", "cpu", "1", True

    def __init__(self, threads: int, meter: Meter) -> None:
        self.threads, self._meter = threads, meter

    def load(self, path: Path, spec: GraphSpec) -> MeteredGraph:
        return MeteredGraph(path.stem, self._meter)

    def single_threaded(self) -> MeteredBackend | None:
        return MeteredBackend(1, self._meter) if self.threads > 1 else None

    def to_array(self, value: NDArray[Any]) -> NDArray[Any]:
        return value


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    threads=st.sampled_from([1, 2, 3, 7, 16, 64]),
    frames=st.lists(st.one_of(st.integers(1, 1500), st.sampled_from([1450, 1500, 50])), min_size=1, max_size=30),
)
def test_the_bound_holds_for_any_number_of_threads(threads: int, frames: list[int], tiny_bundle: Path) -> None:
    encoding, decoding = Meter(), Meter()
    bundle = Bundle.open(tiny_bundle)
    waveforms = [np.zeros(count * HOP, np.float32) for count in frames]
    tokens = Codec(bundle, MeteredBackend(threads, encoding)).encode_batch(waveforms, RATE)
    assert [item.num_frames for item in tokens] == frames
    audio = Codec(bundle, MeteredBackend(threads, decoding)).decode_batch(tokens)
    assert [len(item) for item in audio] == [count * HOP for count in frames]
    assert encoding.peak * HOP <= ENCODE_TOTAL_S * RATE
    assert decoding.peak * HOP <= DECODE_TOTAL_S * RATE
    assert encoding.now == decoding.now == 0


@pytest.mark.parametrize(("duration_s", "most"), [(29, 1), (5, 12), (1, 16)])
def test_as_many_run_as_the_bound_allows(duration_s: int, most: int, tiny_bundle: Path) -> None:
    """Clips of which fewer than four fit run one by one, on all threads."""
    meter = Meter()
    codec = Codec(Bundle.open(tiny_bundle), MeteredBackend(16, meter))
    codec.encode_batch([np.zeros(duration_s * RATE, np.float32)] * 48, RATE)
    assert meter.most_calls <= most
    assert (meter.most_calls > 1) == (most > 1)


def test_an_error_ends_the_calls_that_wait() -> None:
    begun: list[int] = []

    def run(index: int) -> int:
        begun.append(index)
        if index == 1:
            raise BackendError("broken")
        return index

    with pytest.raises(BackendError, match="broken"):
        run_within(run, [10] * 50, 10, 4)
    assert begun == [0, 1]
    assert run_within(lambda index: index, [3, 100, 1, 1, 1], 4, 3) == [0, 1, 2, 3, 4]


def test_concurrent_batches_have_the_codes_of_each_clip_alone(tiny_bundle: Path) -> None:
    clips = [speech(samples, RATE) for samples in (9000, 16000, 40000, 3000)]
    one, many = Codec.load(tiny_bundle, threads=1), Codec.load(tiny_bundle, threads=3)
    tokens = many.encode_batch(clips, RATE)
    for clip, item, audio in zip(clips, tokens, many.decode_batch(tokens), strict=True):
        np.testing.assert_array_equal(item.codes, one.encode(clip, RATE).codes)
        np.testing.assert_allclose(audio, one.decode(item), atol=1e-5)


RESIDENT = """
import sys, numpy as np
from dmcodec.runtime import Codec
def mb(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def run(seconds): codec.encode_batch([np.zeros(round(16000 * seconds), np.float32)] * 2, 16000)  # in one piece
codec = Codec.load(threads=1, shrink_memory=sys.argv[1] == "True")
run(3)
start = mb()
run(20)
print(mb() - start)
"""


@linux
def test_the_memory_of_a_long_clip_is_given_back() -> None:
    grown = {}
    for shrink in (True, False):
        command = [sys.executable, "-c", RESIDENT, str(shrink)]
        grown[shrink] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown[False] > 100  # MB, or there is nothing to give back
    assert grown[True] < 0.4 * grown[False]


def test_memory_is_given_back_on_the_cpu_only(tiny_bundle: Path) -> None:
    for arguments in ({"provider": "cuda"}, {"backend": "tensorrt"}):
        with pytest.raises(ArgumentError, match="shrink_memory is for"):
            Codec.load(tiny_bundle, shrink_memory=True, **arguments)  # type: ignore[arg-type]
    audio = speech(16000, RATE)
    found = [Codec.load(tiny_bundle, threads=2, shrink_memory=shrink).encode(audio, RATE) for shrink in (False, True)]
    assert isinstance(found[0], Tokens)
    np.testing.assert_array_equal(found[0].codes, found[1].codes)
