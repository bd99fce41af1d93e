"""A codec in other processes: pickled, copied, and used or dropped after a fork."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from platforms import posix

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.errors import BackendError, BundleError, BundleNotFoundError
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import Graphs
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.sample import speech

CLIP = speech(8000, 16000)


def codes_of(codec: Codec) -> list[list[int]]:
    return codec.encode(CLIP, 16000).codes.tolist()


def test_a_codec_is_pickled_by_what_opens_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.load(tiny_bundle, threads=3, shrink_memory=True)
    expected = codes_of(codec)
    data = pickle.dumps(codec)
    assert len(data) < 2000  # no weights
    for other in (pickle.loads(data), copy.deepcopy(codec), copy.copy(codec)):
        assert (repr(other), other.bundle) == (repr(codec), codec.bundle)
        assert isinstance(other.backend, OnnxRuntimeBackend)
        assert (other.backend.threads, other.backend.shrink_memory) == (3, True)
        assert codes_of(other) == expected


def test_the_number_of_threads_is_that_of_the_other_machine(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = pickle.dumps(Codec.load(tiny_bundle))
    monkeypatch.setattr("dmcodec.cpus.usable_cpus", lambda root: 5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    backend = pickle.loads(data).backend
    assert (backend.threads, backend.single_threaded_streams) == (5, True)


def test_relative_paths_and_the_default_bundle(
    copy_of_tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_tiny_bundle.parent)
    data = pickle.dumps(Codec.load(copy_of_tiny_bundle.name))
    monkeypatch.chdir("/")
    assert pickle.loads(data).bundle.path == copy_of_tiny_bundle
    assert str(default_bundle_path()).encode() not in pickle.dumps(Codec.load())  # it lies elsewhere on a worker
    assert pickle.loads(pickle.dumps(Codec.load())).bundle.path == default_bundle_path()


def test_a_bundle_that_is_gone_or_another(copy_of_tiny_bundle: Path) -> None:
    data = pickle.dumps(Codec.load(copy_of_tiny_bundle))
    shutil.rmtree(copy_of_tiny_bundle)
    with pytest.raises(BundleNotFoundError, match="bundle_copy: no such folder; a pickled codec opens its bundle at"):
        pickle.loads(data)
    shutil.copytree(default_bundle_path(), copy_of_tiny_bundle)
    with pytest.raises(BundleError, match="the pickled codec was of model"):
        pickle.loads(data)


def test_a_tensorrt_backend_is_pickled_by_its_arguments(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorrtBackend, "__init__", lambda self, *arguments: setattr(self, "arguments", arguments))
    backend = TensorrtBackend(Bundle.open(tiny_bundle))
    backend._bundle, backend._engine_cache, backend._capture = Bundle.open(tiny_bundle), "engines", False
    backend._device_id = 2
    bundle, folder, capture, device, library, device_id = pickle.loads(pickle.dumps(backend)).arguments
    assert (bundle.path, folder, capture) == (tiny_bundle, Path("engines").absolute(), False)
    assert (device, library, device_id) == (None, None, 2)


def test_spawned_workers_take_a_codec(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # A function of the package: `pytest`, unlike `python -m pytest`, lets no other process import this file.
        # A worker that ends before it answers is replaced without a word, so the wait has an end.
        tokens = pool.apply_async(Codec.encode, (codec, CLIP, 16000)).get(timeout=120)
    assert tokens.codes.tolist() == codes_of(codec)


FORK = """
import os, signal, sys, numpy as np
from dmcodec.runtime import Codec
codec = Codec.load(sys.argv[1], threads=3)
clips = [np.linspace(-1, 1, n, dtype=np.float32) for n in (3000, 9000)]
expected = codec.encode_batch(clips, 16000)  # both copies of the graphs, and their threads
stream = codec.stream_decoder()
child = os.fork()
if child == 0:
    signal.alarm(60)
    if sys.argv[2] == "use":
        stream.push(expected[0].codes)
        assert all((a.codes == b.codes).all() for a, b in zip(codec.encode_batch(clips, 16000), expected))
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (codec.encode(clips[1], 16000).codes == expected[1].codes).all()
"""


@posix
@pytest.mark.parametrize("what", ["use", "leave"])
def test_a_fork_after_loading(what: str, tiny_bundle: Path) -> None:
    """The child ends, and can use the codec: it loads its own graphs."""
    done = subprocess.run([sys.executable, "-c", FORK, str(tiny_bundle), what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@posix
def test_a_lock_that_another_thread_holds_does_not_stop_the_child(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    with codec.graphs._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if len(codes_of(codec)) == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_gpu_does_not_survive_a_fork(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OnnxRuntimeBackend(threads=1)
    graphs = Graphs(Bundle.open(tiny_bundle), backend)
    graphs.load("quantizer")
    monkeypatch.setattr(backend, "provider", "cuda")
    graphs._forget()
    with pytest.raises(BackendError, match=r'was loaded before a fork.*get_context\("spawn"\)'):
        graphs.load("quantizer")


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), (3, 3)])
def test_streams_run_on_one_thread_unless_the_number_was_chosen(
    threads: int | None, expected: int, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr("dmcodec.cpus.usable_cpus", lambda root: 4)
    codec = Codec.load(tiny_bundle, threads=threads)
    loaded: list[tuple[int, str]] = []
    load = OnnxRuntimeBackend.load

    def record(backend: OnnxRuntimeBackend, path: Path, spec: object) -> object:
        loaded.append((backend.threads, path.stem))
        return load(backend, path, spec)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRuntimeBackend, "load", record)
    codec.load_graphs("decoder_recurrent", "encoder")
    with codec.stream_decoder() as stream:
        audio = [stream.push(np.zeros((8, 10), np.int64)), stream.finish()]
    assert sum(map(len, audio)) == 3200
    names = ("decoder_recurrent", "dequantizer", "decoder_upsampler")
    assert sorted(loaded) == sorted([(threads or 2, "encoder_plain"), *((expected, name) for name in names)])
