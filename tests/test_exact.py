"""Exact encoding: tiles, sweeps and spools of any size give the codes of the clip in one piece."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, DOWNSAMPLER_STEPS, OUTPUT, Bundle, default_bundle_path
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, OutputError
from dmcodec.export import export_bundle
from dmcodec.export.agreement import compare_codes
from dmcodec.export.reference import Expected, GraphReference, run_reference
from dmcodec.nn import DMCodec
from dmcodec.plain_form import plain_name
from dmcodec.runtime import Codec
from dmcodec.runtime.batching import TILED_S
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.spool import Spool
from dmcodec.runtime.sweeps import MIN_FRAMES, ExactEncoder, Sizes, spool_bytes
from dmcodec.runtime.workers import Workers
from dmcodec.sample import speech

Waveform = NDArray[np.float32]
CONFIGS: dict[str, dict[str, Any]] = {
    "as released": {},
    "one direction": {"bidirectional": False},
    "one layer": {"lstm_layers": 1},
    "three layers": {"lstm_layers": 3},
}


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


@pytest.fixture(scope="module", params=CONFIGS)
def any_codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, codec: Codec) -> Codec:
    if not CONFIGS[request.param]:
        return codec
    config = CodecConfig.from_dict({**codec.config.to_dict(), **CONFIGS[request.param]})
    path = tmp_path_factory.mktemp("layers") / "bundle"
    export_bundle(DMCodec.seeded(config), path)
    return Codec.load(path, threads=1)


def clip(num_samples: int) -> Waveform:
    return np.tile(speech(160000, 16000), -(-num_samples // 160000))[:num_samples]


_WHOLE: dict[tuple[str, int], tuple[GraphReference, Expected]] = {}


def frame_agreement(codec: Codec, waveform: Waveform, codes: NDArray[Any]) -> float:
    """Share of frames with the codes of the graphs in one piece, ties aside."""
    key = codec.bundle.manifest.model_id, len(waveform)
    if key not in _WHOLE:
        reference = GraphReference("one piece", codec.config, codec.graphs.arrays)
        _WHOLE[key] = reference, run_reference(reference, waveform)
    reference, expected = _WHOLE[key]
    assert codes.shape == expected.codes.shape
    return compare_codes(reference, [expected], [codes]).frame_agreement


def swept(
    codec: Codec, waveform: Waveform, sizes: Sizes, threads: int, spool: Spool, cuts: Sequence[int] = ()
) -> NDArray[Any]:
    """Tiles of odd sizes run as windows, the others in steps."""
    run, columns = codec.graphs.arrays, codec.graphs.state_size(DOWNSAMPLER_STEPS) * (1 - sizes.tile % 2)
    with Workers.start(threads) as workers, spool:
        encoder = ExactEncoder(run, codec.config, workers, spool, sizes, columns, run if threads == 1 else None)
        return np.concatenate(list(encoder.encode(np.split(waveform, cuts))), axis=1)


@settings(max_examples=25)
@given(
    num_samples=st.sampled_from([MIN_FRAMES * 320, 8000, 48000 - 1, 48000, 48000 + 1]),
    tile=st.integers(1, 70),
    block=st.integers(1, 200),
    threads=st.sampled_from([1, 3]),
    place=st.sampled_from(["memory", "files", "kept"]),
    cuts=st.lists(st.integers(0, 48000), max_size=3).map(sorted),
)
def test_any_sizes_threads_and_spools_give_the_codes_of_one_piece(
    any_codec: Codec,
    tmp_path_factory: pytest.TempPathFactory,
    num_samples: int,
    tile: int,
    block: int,
    threads: int,
    place: str,
    cuts: list[int],
) -> None:
    waveform = clip(num_samples)
    spool = Spool("memory") if place == "memory" else Spool(tmp_path_factory.mktemp("spool"), kept=place == "kept")
    codes = swept(any_codec, waveform, Sizes(tile, block), threads, spool, cuts)
    assert frame_agreement(any_codec, waveform, codes) == 1


def test_the_trained_codec_gives_the_codes_of_one_piece() -> None:
    codec = Codec.load(default_bundle_path(), threads=2)
    assert codec.encodes_exactly
    waveform = clip(35 * 16000 - 77)
    assert frame_agreement(codec, waveform, codec.encode(waveform, 16000).codes) == 1
    for tile, block in ((9, 100), (120, 1000)):
        codes = swept(codec, waveform, Sizes(tile, block), 2, Spool("memory"))
        assert frame_agreement(codec, waveform, codes) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_all_calls_give_the_codes_of_one_piece(tiny_bundle: Path, tmp_path: Path, threads: int) -> None:
    codec = Codec.load(tiny_bundle, threads=threads)
    long, short, shortest = clip(33 * 16000 + 5), clip(round(TILED_S * 16000)), clip(round(TILED_S * 16000) - 1)
    tokens = codec.encode(long, 16000)
    assert frame_agreement(codec, long, tokens.codes) == 1
    soundfile.write(tmp_path / "long.wav", long, 16000, subtype="FLOAT")
    assert codec.encode_file(tmp_path / "long.wav", tmp_path / "long.dmc") == tokens
    for waveforms in ([short], [shortest], [shortest, short, long, short]):
        for waveform, result in zip(waveforms, codec.encode_batch(waveforms, 16000), strict=True):
            assert frame_agreement(codec, waveform, result.codes) == 1


class Counted:
    """Counts the graphs that are loaded."""

    def __init__(self, threads: int = 1) -> None:
        self._backend, self.loaded = OnnxRuntimeBackend("cpu", threads), set[str]()
        self.name, self.provider, self.version, self.threads = "onnxruntime", "cpu", "1", threads
        self.to_array = self._backend.to_array
        self.single_threaded_streams = False

    def single_threaded(self) -> None:
        return None

    def load(self, path: Path, spec: Any) -> Any:
        self.loaded.add(path.stem)
        return self._backend.load(path, spec)


def without_parts(bundle: Path) -> Bundle:
    opened = Bundle.open(bundle)
    graphs = {name: spec for name, spec in opened.manifest.graphs.items() if not name.startswith("encoder_")}
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, graphs=graphs))


def test_windows_run_where_context_or_the_bundle_asks_for_them(tiny_bundle: Path) -> None:
    waveform = clip(31 * 16000)
    for bundle, context_s, parts in (
        (Bundle.open(tiny_bundle), None, True),
        (Bundle.open(tiny_bundle), 1.0, False),
        (without_parts(tiny_bundle), None, False),
    ):
        backend = Counted()
        codec = Codec(bundle, backend)
        codec.encode(waveform, 16000, context_s=context_s)
        assert (plain_name(DOWNSAMPLER) in backend.loaded) == parts
        assert bool({"encoder", plain_name("encoder")} & backend.loaded) != parts
        assert codec.encodes_exactly == bundle.manifest.has_encoder_parts


def test_progress_goes_up_through_all_stages(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", clip(60 * 16000), 16000)
    seen: list[tuple[float, float]] = []
    codec.encode_file(tmp_path / "long.wav", progress=lambda done, total: seen.append((done, total)))
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert len(set(done)) > 60
    assert max(np.diff(done)) < 5
    assert seen[-1] == (60, 60)


def test_room_is_what_the_spool_takes(any_codec: Codec, tmp_path: Path) -> None:
    class Watched(Spool):
        most = 0

        def _write(self, array: Any, first: int, values: Any) -> None:
            super()._write(array, first, values)
            used = sum(path.stat().st_blocks * 512 for path in tmp_path.glob("*.f32"))
            self.most = max(self.most, used, self._memory())

    waveform, frames = clip(160000), 500
    width = any_codec.config.n_filters * 16
    for kept in (False, True):
        spool = Watched(tmp_path if kept else "memory", kept=kept)
        swept(any_codec, waveform, Sizes(), 1, spool)
        expected = spool_bytes(any_codec.config, frames, kept)
        chunk = 1024 * width * 4  # memory is taken in chunks of 1024 frames, files in blocks
        assert spool.most == (
            expected // (frames * width * 4) * chunk if not kept else pytest.approx(expected, rel=0.2)
        )


def test_a_spool_that_outgrows_the_memory_goes_to_a_file(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = clip(20 * 16000)
    expected = codec.encode(waveform, 16000, spool="memory")
    monkeypatch.setattr("dmcodec.runtime.spool.MEMORY_BYTES", 600_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spools: list[Spool] = []
    first = Spool._move_to_files

    def moved(self: Spool) -> None:
        spools.append(self)
        first(self)

    monkeypatch.setattr(Spool, "_move_to_files", moved)
    codes = swept(codec, waveform, Sizes(), 1, Spool())  # the length is not known to it
    np.testing.assert_array_equal(codes, expected.codes)
    assert len(spools) == 1
    assert codec.encode(waveform, 16000) == expected  # the length is known
    assert len(spools) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing", 7, "file"])
def test_a_spool_that_is_no_folder_is_refused(codec: Codec, tmp_path: Path, place: Any) -> None:
    (tmp_path / "file").touch()
    path = place if place == 7 else tmp_path / place
    with pytest.raises(ArgumentError, match="spool"):
        codec.encode(clip(100), 16000, spool=path)


def test_the_command_names_the_folder_of_the_spool(tiny_bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", clip(48000), 16000)
    command = [sys.executable, "-m", "dmcodec", "encode", str(tmp_path / "a.wav"), "--bundle", str(tiny_bundle)]
    wrong = [*command, "-o", str(tmp_path / "a.dmc"), "--spool", str(tmp_path / "none")]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert f"spool {tmp_path / 'none'}: no such folder" in done.stderr
    right = [*command, "-o", str(tmp_path / "a.dmc"), "--spool", str(tmp_path)]
    subprocess.run(right, capture_output=True, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dmc", "a.wav"]


def test_arguments_that_exclude_each_other(codec: Codec, tiny_bundle: Path, tmp_path: Path) -> None:
    old = Codec(without_parts(tiny_bundle), OnnxRuntimeBackend("cpu", 1))
    wave, out = tmp_path / "a.wav", tmp_path / "a.dmc"
    soundfile.write(wave, clip(16000), 16000)
    for wrong, match in (
        (dict[str, Any](context_s=1.0, spool="memory"), "context_s chooses windows"),
        (dict[str, Any](context_s=1.0, resume=True), "context_s chooses windows"),
        (dict[str, Any](spool="memory", resume=True), "exclude each other"),
    ):
        with pytest.raises(ArgumentError, match=match):
            codec.encode_file(wave, out, **wrong)
    for wrong in (dict[str, Any](spool="memory"), dict[str, Any](resume=True)):
        with pytest.raises(ArgumentError, match="earlier dmcodec"):
            old.encode_file(wave, out, **wrong)
    assert old.encode_file(wave, out).num_frames == 50


def test_no_room_names_folder_bytes_and_argument(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform, usage = clip(15 * 16000), type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: usage)
    needed = spool_bytes(codec.config, 750)
    with pytest.raises(OutputError, match=rf"1000 bytes are free.*needs {needed} bytes.*spool=") as caught:
        codec.encode(waveform, 16000, spool=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert codec.encode(waveform, 16000, spool="memory").num_frames == 750


def test_a_system_without_a_folder_for_temporary_files(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", missing)
    waveform = clip(15 * 16000)
    expected = codec.encode(waveform, 16000)  # in memory it needs none
    assert codec.encode(waveform, 16000, spool=tmp_path) == expected
    monkeypatch.setattr("dmcodec.runtime.spool.MEMORY_BYTES", 0)
    with pytest.raises(OutputError, match=r"No usable temporary directory.*spool="):
        codec.encode(waveform, 16000)


@pytest.mark.parametrize("kept", [False, True])
def test_a_disk_that_fills_up(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmcodec.runtime.spool._FileStore.write", full)
    soundfile.write(tmp_path / "a.wav", clip(15 * 16000), 16000)
    (tmp_path / "spool").mkdir()
    with pytest.raises(OutputError, match=r"spool.*bytes a second of audio.*No space left"):
        codec.encode_file(
            tmp_path / "a.wav", tmp_path / "a.dmc", **({"resume": True} if kept else {"spool": tmp_path / "spool"})
        )
    assert list((tmp_path / "spool").iterdir()) == []
    assert not (tmp_path / "a.dmc").exists()


def test_nothing_is_left_of_a_clip_that_ends_early(codec: Codec, tmp_path: Path) -> None:
    samples = clip(20 * 16000)
    samples[-100] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    spool = tmp_path / "spool"
    spool.mkdir()
    for how in (dict[str, Any](spool=spool), dict[str, Any](resume=True)):
        with pytest.raises(AudioError, match="NaN"):
            codec.encode_file(tmp_path / "a.wav", tmp_path / "a.dmc", **how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "spool"]
    assert list(spool.iterdir()) == []


def test_an_error_in_one_thread_ends_the_encode(codec: Codec) -> None:
    def run(name: str, **inputs: Any) -> list[NDArray[Any]]:
        if name == OUTPUT:
            raise RuntimeError("broken")
        return codec.graphs.arrays(name, **inputs)

    with Workers.start(3) as workers, Spool("memory") as spool, pytest.raises(RuntimeError, match="broken"):
        list(ExactEncoder(run, codec.config, workers, spool).encode([clip(160000)]))


def test_memory_does_not_grow_with_the_clip(tiny_config: CodecConfig, tmp_path: Path) -> None:
    """Only codes grow; the stand-ins for the graphs return zeros, so that minutes take a moment."""
    config, width = tiny_config, tiny_config.n_filters * 16

    def run(name: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        first = next(iter(inputs.values()))
        if name == DOWNSAMPLER:
            return [np.zeros((config.num_frames(first.shape[2]), 1, width), np.float32)]
        if name == OUTPUT:
            return [np.zeros((1, config.dimension, len(first) - 6), np.float32)]
        if name == "quantizer":
            return [np.zeros((config.n_q, 1, first.shape[2]), np.int64)]
        return [np.zeros((len(first), 1, width), np.float32), inputs["hidden"], inputs["cell"]]

    def peak(minutes: int) -> int:
        tracemalloc.start()
        with Workers.start(1) as workers, Spool(tmp_path) as spool:
            blocks = (np.zeros(160000, np.float32) for _ in range(6 * minutes))
            for _ in ExactEncoder(run, config, workers, spool).encode(blocks):
                pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    short, long = peak(2), peak(20)
    assert long < short * 1.2


def test_in_half_precision_a_clip_alone_has_the_codes_that_it_has_in_a_batch(tmp_path: Path) -> None:
    config = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=64)
    codec = Codec(export_bundle(DMCodec.seeded(config), tmp_path / "bundle", "fp16"), OnnxRuntimeBackend("cpu", 1))
    for seconds in (2.5, 6.25, 11):
        waveform = clip(round(seconds * 16000))
        together = codec.encode_batch([waveform, waveform], 16000)
        np.testing.assert_array_equal(codec.encode(waveform, 16000).codes, together[0].codes)
