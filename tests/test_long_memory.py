"""Memory of a long clip: only its codes grow with its length.

The graphs are stand-ins that return zeros of the right shapes, so that an hour takes seconds and the peak of traced
allocations is the same in every run.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dmcodec.bundle import Bundle, GraphSpec
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import decoder_reach
from dmcodec.runtime import Codec
from dmcodec.sample import speech

Arrays = Mapping[str, NDArray[Any]]
Way = Callable[..., float]
MINUTES = (2, 20)
LIMIT = 4.2  # in sizes of the codes; encoding takes 2.6, decoding 3.6, keeping codes of 64 bits 4.7


class ZeroGraph:
    """Returns zeros in the shapes of the named graph, and keeps a reference to its inputs where `held` is given."""

    def __init__(self, config: CodecConfig, name: str, held: list[Arrays] | None) -> None:
        self._config, self._name, self._held = config, name, held

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        if self._held is not None:
            self._held.append(dict(inputs))
        config, (first, *_) = self._config, inputs.values()
        match self._name:
            case "encoder":
                return [zeros(first.shape[0], config.dimension, config.num_frames(first.shape[2]))]
            case "quantizer":
                return [np.zeros((config.n_q, first.shape[0], first.shape[2]), np.int64)]
            case "dequantizer":
                return [zeros(first.shape[1], config.dimension, first.shape[2])]
            case "decoder_recurrent":
                frames = first.shape[2] - 2 * decoder_reach(config).front
                channels = config.n_filters * 2 ** len(config.strides)
                return [zeros(first.shape[0], channels, frames), inputs["hidden"], inputs["cell"]]
            case "decoder_upsampler":
                return [zeros(first.shape[0], 1, first.shape[2] * config.hop_length)]
        raise AssertionError(self._name)


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


class ZeroBackend:
    """A backend of `ZeroGraph`s."""

    name, provider, version, threads = "zeros", "cpu", "1", 1

    def __init__(self, config: CodecConfig, held: list[Arrays] | None = None) -> None:
        self._config, self._held = config, held

    def load(self, path: Path, spec: GraphSpec) -> ZeroGraph:
        return ZeroGraph(self._config, path.stem, self._held)

    single_threaded_streams = False

    def single_threaded(self) -> None:
        return None

    def to_array(self, value: NDArray[Any]) -> NDArray[Any]:
        return value


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same speech, 2 and 20 minutes of it."""
    ten_seconds = (speech(160000, 16000) * 32767).astype(np.int16)
    paths = [tmp_path_factory.mktemp("long") / f"{minutes}.wav" for minutes in MINUTES]
    for minutes, path in zip(MINUTES, paths, strict=True):
        with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as file:
            for _ in range(6 * minutes):
                file.write(ten_seconds)
    return paths


def growth(action: Callable[[Path], object], clips: list[Path]) -> float:
    """Return the growth of the peak from the short clip to the long one, in sizes of the codes that came in between."""
    peaks = []
    for clip in clips:
        tracemalloc.start()
        action(clip)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    code_bytes = (MINUTES[1] - MINUTES[0]) * 60 * 50 * 8 * np.dtype(np.uint16).itemsize
    return (peaks[1] - peaks[0]) / code_bytes


def encoded(bundle: Path, clips: list[Path], out: Path, held: list[Arrays] | None = None) -> float:
    opened = Bundle.open(bundle)
    codec = Codec(opened, ZeroBackend(opened.manifest.config, held))
    return growth(lambda clip: codec.encode_file(clip, out / "out.dmc"), clips)


def decoded(bundle: Path, clips: list[Path], out: Path, held: list[Arrays] | None = None) -> float:
    opened = Bundle.open(bundle)
    codec = Codec(opened, ZeroBackend(opened.manifest.config, held))
    for clip in clips:
        codec.encode_file(clip, clip.with_suffix(".dmc"))
    return growth(lambda clip: codec.decode_file(clip.with_suffix(".dmc"), out / "out.wav"), clips)


WAYS = pytest.mark.parametrize("way", [encoded, decoded])


@WAYS
def test_only_the_codes_grow_with_a_clip(way: Way, tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    """Samples are 80 times as large as their codes, latents 8 times."""
    assert way(tiny_bundle, clips, tmp_path) < LIMIT


@WAYS
def test_the_measure_sees_what_is_kept(way: Way, tiny_bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    assert way(tiny_bundle, clips, tmp_path, []) > 5 * LIMIT
