"""What a codec on the simulated GPU takes, and gives back: memory, streams, graphs, contexts, the caller's device."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.codec import RATE, build, clips, load, same
from fakes.device import FakeDevice

from dmcodec.errors import BackendError
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import device_side
from dmcodec.runtime.tensorrt import executor
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.profiles import ShapeRequest


def module_of(codec: Codec) -> Any:
    assert isinstance(codec.backend, TensorrtBackend)
    return codec.backend._library.module


def test_a_codec_that_is_dropped_frees_all_it_took(tiny_bundle: Path, fixed_shape_engines: Path) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    for _ in range(3):
        codec.decode(codec.encode(clips(8000)[0], RATE))
        codec.decode(codec.encode(clips(30000)[0], RATE))
    assert set(device.leaks()) == {"memory", "pinned", "streams", "events", "graphs"}
    del codec
    gc.collect()
    assert device.leaks() == {}


def test_close_frees_and_later_calls_say_so(tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    with codec as opened:
        same(opened, tiny_codec, clips(8000))
        kept = opened.device.encode(clips(8000)[0], RATE)
    assert set(device.leaks()) <= {"memory", "events"}  # of the result that is kept
    assert device.leaks()["memory"] == 1
    for call in (lambda: codec.encode(clips(8000)[0], RATE), lambda: codec.warm_up(), lambda: codec.load_graphs()):
        with pytest.raises(BackendError, match=r"this codec was closed; load another one with Codec\.load"):
            call()
    codec.close()
    del kept
    gc.collect()
    assert device.leaks() == {}


def test_close_waits_for_the_calls_that_run(tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    waveforms = [clips(9000 + 100 * index)[0] for index in range(6)]
    expected = [tiny_codec.encode(waveform, RATE).codes for waveform in waveforms]
    started = threading.Barrier(4)

    def encode(index: int) -> Any:
        if index < 3:
            started.wait()
        try:
            return codec.encode(waveforms[index], RATE).codes
        except BackendError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(encode, index) for index in range(6)]
        started.wait()
        codec.close()
        found = [future.result() for future in futures]
    for codes, want in zip(found, expected, strict=True):
        if isinstance(codes, BackendError):
            assert "was closed" in str(codes)
        else:
            np.testing.assert_array_equal(codes, want)
    gc.collect()
    assert device.leaks() == {}


def test_a_codec_on_the_cpu_closes_too(tiny_bundle: Path) -> None:
    with Codec.load(tiny_bundle, threads=1) as codec:
        tokens = codec.encode(clips(8000)[0], RATE)
    with pytest.raises(BackendError, match="was closed"):
        codec.decode(tokens)
    with pytest.raises(BackendError, match="was closed"):
        codec.stream_decoder().push(tokens.codes)


def test_after_warm_up_nothing_is_made_any_more(tiny_bundle: Path, fixed_shape_engines: Path) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    codec.warm_up(1.0, streams=True)
    module = module_of(codec)
    before = (module.contexts, device.graphs, len(device._streams))
    allocations = device.allocations
    for _ in range(3):
        tokens = codec.encode(clips(16000)[0], RATE)
        codec.decode(tokens)
    assert device.allocations == allocations
    stream = codec.stream_decoder()
    for frame in range(40):
        stream.push(tokens.codes[:, frame : frame + 1])
    with ThreadPoolExecutor(2) as pool:  # two at once need more memory, but no more contexts and graphs
        list(pool.map(codec.decode, [tokens] * 6))
    assert (module.contexts, device.graphs, len(device._streams)) == before


def test_pushes_run_from_captured_graphs_and_keep_their_state_on_the_device(
    tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec
) -> None:
    codec, device = load(tiny_bundle, ranged_engines)
    [waveform] = clips(32000)
    tokens = tiny_codec.encode(waveform, RATE)
    for step in (1, 5):
        stream, audio = codec.stream_decoder(), []
        for first in range(0, 40, step):
            audio.append(stream.push(tokens.codes[:, first : first + step]))
        launches = device.launches
        device.uploaded.clear()
        device.downloaded.clear()
        for first in range(40, 60, step):
            audio.append(stream.push(tokens.codes[:, first : first + step]))
        pushes = 20 // step
        assert device.launches - launches == 3 * pushes  # dequantizer, LSTM and upsampler
        # A push sends codes and their level, and fetches its samples.
        assert device.uploaded == [tokens.codes[:, :step].size * 8, 8] * pushes
        assert device.downloaded == [step * 320 * 4] * pushes
        audio += [stream.push(tokens.codes[:, 60:]), stream.finish()]
        np.testing.assert_allclose(np.concatenate(audio), tiny_codec.decode(tokens), atol=2e-5)
    assert device_side(codec.backend) is not None


def test_a_batch_of_streams_runs_on_the_device(tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, ranged_engines)
    codes = np.stack([tiny_codec.encode(clip, RATE).codes for clip in clips(16000, 16000)], axis=1)
    found = []
    for each in (codec, tiny_codec):
        stream = each.stream_decoder(batch_size=2)
        parts = [stream.push(codes[:, :, first : first + 3]) for first in range(0, 50, 3)]
        found.append(np.concatenate([*parts, stream.finish()], axis=1))
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_the_state_of_a_stream_can_be_kept_and_set(tiny_bundle: Path, ranged_engines: Path, tiny_codec: Codec) -> None:
    codec, _ = load(tiny_bundle, ranged_engines)
    tokens = tiny_codec.encode(clips(16000)[0], RATE)
    stream = codec.stream_decoder()
    stream.push(tokens.codes[:, :20])
    kept = stream.state
    assert all(isinstance(value, np.ndarray) for value in (kept.latents, kept.features, kept.hidden, kept.cell))
    rest = [np.concatenate([stream.push(tokens.codes[:, 20:]), stream.finish()])]
    other = codec.stream_decoder()
    other.state = kept
    rest.append(np.concatenate([other.push(tokens.codes[:, 20:]), other.finish()]))
    np.testing.assert_array_equal(rest[0], rest[1])
    whole = tiny_codec.decode(tokens)
    np.testing.assert_allclose(rest[0], whole[len(whole) - len(rest[0]) :], atol=2e-5)


def test_captures_of_a_stream_share_one_scratch_memory(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse(None, None, "1s"), tmp_path)
    codec, _ = load(tiny_bundle, tmp_path)
    codec.warm_up(1.0)
    assert isinstance(codec.backend, TensorrtBackend)
    [stream, *_] = codec.backend.resources._free_streams
    held = {id(run.scratch) for run in stream.fixed.values() if run is not None}
    assert len(stream.fixed) == 4
    assert len(held) <= 2  # the first was too small for the others


def test_the_oldest_captures_make_room(
    tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "MAX_FIXED_RUNS", 3)
    codec, device = load(tiny_bundle, fixed_shape_engines)
    for _ in range(2):
        same(codec, tiny_codec, clips(8000))
        same(codec, tiny_codec, clips(16000))
        assert device.graphs == 3


def test_captures_are_counted_with_the_reasons_of_those_that_fail(tiny_bundle: Path, fixed_shape_engines: Path) -> None:
    codec, device = load(tiny_bundle, fixed_shape_engines)
    for _ in range(2):
        codec.encode(clips(8000)[0], RATE)
    side = device_side(codec.backend)
    assert side is not None
    found = side.captures()
    assert (found.captured, found.by_library, found.launches, found.failed, found.reasons) == (2, 0, 4, 0, ())
    broken, device = load(tiny_bundle, fixed_shape_engines)
    device.fail_capture = True
    broken.encode(clips(8000)[0], RATE)
    side = device_side(broken.backend)
    assert side is not None
    found = side.captures()
    assert (found.captured, found.launches, found.failed) == (0, 0, 2)
    assert found.reasons == ("encoder: the capture was invalidated", "quantizer: the capture was invalidated")


def test_the_callers_device_comes_back(tiny_bundle: Path, ranged_engines: Path) -> None:
    device = FakeDevice(index=3)
    codec, _ = load(tiny_bundle, ranged_engines, device)
    device._current.index = 1  # what the application chose in this thread
    codec.decode(codec.encode(clips(8000)[0], RATE))
    codec.close()
    assert device.current_index == 1


def test_scratch_memory_of_unknown_size_is_an_error(tiny_bundle: Path, ranged_engines: Path) -> None:
    codec, _ = load(tiny_bundle, ranged_engines)
    codec.load_graphs("encoder")
    module_of(codec).scratch_fails = True
    with pytest.raises(BackendError, match=r"scratch memory is not known .*the shapes are not known"):
        codec.encode(clips(8000)[0], RATE)


def test_rtx_captures_itself_and_keeps_what_it_compiled(tiny_bundle: Path, tmp_path: Path, tiny_codec: Codec) -> None:
    rtx: dict[str, Any] = {"rtx": True, "version": "1.7.1.116"}
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:3s", "1:1:4", "0.5s"), tmp_path, **rtx)
    codec, device = load(tiny_bundle, tmp_path, **rtx)
    for _ in range(4):
        same(codec, tiny_codec, clips(8000))
        same(codec, tiny_codec, clips(30000))
    module, side = module_of(codec), device_side(codec.backend)
    assert side is not None
    assert (side.captures().captured, side.captures().by_library, side.captures().launches) == (0, 4, 16)
    assert device.launches == 0
    # The first run in a context isn't captured; then all are, since neither shapes nor addresses change.
    assert module.graph_launches == 4 * 4
    assert module.compilations == 8
    codec.close()
    [cache] = tmp_path.glob("runtime-1.7.1.116-sm_86-*.cache")
    again, _ = load(tiny_bundle, tmp_path, **rtx)
    same(again, tiny_codec, clips(8000))
    assert module_of(again).compilations == 0
    again.close()
    cache.write_bytes(b"of another version")
    other, _ = load(tiny_bundle, tmp_path, **rtx)
    same(other, tiny_codec, clips(8000))
    assert module_of(other).compilations == 4
    other.warm_up(0.5)
    assert cache.read_bytes().startswith(b"1.7.1.116\n")


def test_large_batches_fill_the_gpu_by_its_memory_and_engines(
    tiny_bundle: Path, tmp_path: Path, tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:8:32", None), tmp_path)
    codec, _ = load(tiny_bundle, tmp_path, FakeDevice(memory_bytes=1 << 33))
    sizes: list[int] = []
    run = codec.graphs.run

    def counted(name: str, **inputs: Any) -> Any:
        if name == "encoder":
            sizes.append(len(inputs["waveform"]))
        return run(name, **inputs)

    monkeypatch.setattr(codec.graphs, "run", counted)
    waveforms = [clips(8000 + 60 * index)[0] for index in range(48)]  # by 35 % of each other's length
    tokens = codec.encode_batch(waveforms, RATE)
    assert sorted(sizes) == [24, 24]  # two at a time, so that the copies of one overlap the work of the other
    for found, waveform in zip(tokens[::16], waveforms[::16], strict=True):
        np.testing.assert_array_equal(found.codes, tiny_codec.encode(waveform, RATE).codes)
    sizes.clear()
    side = device_side(codec.backend)
    assert side is not None
    monkeypatch.setattr(type(codec.backend), "free_bytes", lambda _self: 20_000_000)
    codec.encode_batch(waveforms, RATE)
    assert max(sizes) < 16
    assert side.max_batch("encoder", 32000) == 32
    assert side.max_batch("encoder", 32001) == 0


def test_a_batch_is_no_larger_than_the_engines(tiny_bundle: Path, tmp_path: Path, tiny_codec: Codec) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)
    codec, _ = load(tiny_bundle, tmp_path)
    same(codec, tiny_codec, clips(*[8000] * 5))
