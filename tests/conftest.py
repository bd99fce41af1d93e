"""Fixtures that several test files use. torch is imported only where a fixture needs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from hypothesis import settings

from dmcodec.config import CodecConfig
from dmcodec.sample import speech

if TYPE_CHECKING:
    from pools import Gate

    from dmcodec.bundle import Bundle
    from dmcodec.nn import DMCodec
    from dmcodec.runtime import Codec
    from dmcodec.training.config import TrainingConfig
    from dmcodec.training.data import PreparedData

# torch's threads wait for each other at every layer; on busy cores these small models take minutes that way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests write nothing into the cache of who runs them.
os.environ["DMCODEC_REMEMBER_CHECKS"] = "0"

settings.register_profile("dmcodec", deadline=None, derandomize=True, database=None)
settings.load_profile("dmcodec")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of the full-size network are asked for."""
    parser.addoption("--full-size", action="store_true", help="build full-size TensorRT engines, too")


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A codec on the simulated GPU that a test loads is freed with the test."""
    yield
    if "fakes.codec" in sys.modules and "test_trt" in request.node.nodeid:
        sys.modules["fakes.codec"].assert_nothing_leaks()


@pytest.fixture(scope="session")
def tiny_config() -> CodecConfig:
    """The real model's layout and hop length, with few channels."""
    return CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=64)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: CodecConfig) -> DMCodec:
    """Untrained; don't alter it."""
    from dmcodec.nn import DMCodec

    return DMCodec.seeded(tiny_config)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported bundle of `tiny_model`; don't alter it."""
    from dmcodec.export import Source, export_bundle

    path = tmp_path_factory.mktemp("tiny") / "bundle"
    export_bundle(tiny_model, path, source=Source(seed=0))
    return path


@pytest.fixture(scope="session")
def encodec_model() -> Any:
    """A small EncodecModel of transformers; don't alter it."""
    pytest.importorskip("transformers")
    from encodec_models import SMALL, random_model

    return random_model(**SMALL)


@pytest.fixture(scope="session")
def encodec_folder(encodec_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `encodec_model` as transformers writes it; don't alter it."""
    from encodec_models import save

    return save(encodec_model, tmp_path_factory.mktemp("encodec"))


@pytest.fixture(scope="session")
def encodec_bundle(encodec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported bundle of `encodec_folder`, causal, at 24 kHz; don't alter it."""
    from dmcodec.export import Source, export_bundle
    from dmcodec.nn import DMCodec

    path = tmp_path_factory.mktemp("encodec") / "encodec.bundle"
    export_bundle(
        DMCodec.from_checkpoint(None, encodec_folder), path, source=Source(encodec_folder / "model.safetensors")
    )
    return path


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The exported bundle of a small untrained model in int8; don't alter it."""
    from dmcodec.export import Source, export_bundle
    from dmcodec.nn import DMCodec

    config = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=16, n_q=2)
    path = tmp_path_factory.mktemp("int8") / "bundle"
    return export_bundle(DMCodec.seeded(config, 5), path, "int8", Source(seed=5))


@pytest.fixture(scope="session")
def tiny_model_files(tiny_model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and configuration files of `tiny_model`."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoint")
    torch.save(tiny_model.state_dict(), folder / "tiny.pt")
    (folder / "config.json").write_text(json.dumps(tiny_model.config.to_dict()))
    return folder / "tiny.pt", folder / "config.json"


@pytest.fixture
def codec(tiny_bundle: Path) -> Codec:
    """Of `tiny_bundle`, one for each test, which may put a gate before its graphs; some files have their own."""
    from dmcodec.runtime import Codec

    return Codec.load(tiny_bundle, threads=1)


@pytest.fixture
def gate(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before the graphs of `codec`."""
    from pools import Gate

    return Gate(codec.graphs, monkeypatch)


@pytest.fixture
def copy_of_tiny_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may alter."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle_copy"))


@pytest.fixture(scope="session")
def speech_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of real speech, 16 kHz mono 16-bit WAV."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, speech(32000, 16000), 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values made with the authors' own code; it lies beside the repository, not in it."""
    path = REPOSITORY.parent / "shared"
    if not (path / "golden").is_dir():
        pytest.skip(f"no {path}/golden: the authors' golden values are not on this machine")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of speech as prepared training data, with random features of two teachers; don't alter it.

    The language model's features are as wide as `tiny_config`'s semantic dimension, the speech model's aren't.
    """
    from dmcodec.audio import write_audio
    from dmcodec.audio_sources import DatasetOptions, find_sources
    from dmcodec.training.data.prepare import PrepareSettings, prepare

    folder = tmp_path_factory.mktemp("training")
    clip, start = speech(160000, 16000), 0
    for index, samples in enumerate([20000, 9000, 8000, 25000, 12345, 16000, 8000, 24000, 9999, 20000]):
        write_audio(folder / "audio" / f"{index}.wav", clip[start : start + samples], 16000)
        start += samples
    sources = find_sources([str(folder / "audio")], None, DatasetOptions())
    settings = PrepareSettings(segment_s=1.0, min_duration_s=0.5, validation=0.3)
    manifest = prepare(sources, folder / "data", settings)
    for kind, width in (("lm", 24), ("sm", 20)):
        add_teacher(folder / "data", kind, width, manifest.fingerprint)
    return folder / "data"


def add_teacher(data: Path, kind: str, width: int, fingerprint: str) -> None:
    """Random features, one frame fewer than the codec's."""
    import numpy as np

    from dmcodec.training.data.dataset import PreparedData
    from dmcodec.training.data.features import TeacherInfo
    from dmcodec.training.data.layout import OFFSETS, TEACHERS, shard_name

    folder = data / TEACHERS / kind
    folder.mkdir(parents=True)
    frames = np.maximum(PreparedData.open(data).num_samples // 320 - 1, 1)
    np.save(folder / OFFSETS, np.concatenate([[0], np.cumsum(frames)]).astype(np.int64))
    shard = folder / shard_name(0)
    np.save(shard, np.random.default_rng(0).standard_normal((frames.sum(), width)).astype(np.float16))
    TeacherInfo(kind, "random", width, 50.0, "avg", False, fingerprint, len(frames), (shard.stat().st_size,)).write(
        folder
    )


@pytest.fixture(scope="session")
def noise_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five recordings of noise, of ten segments of a second; don't alter it."""
    from recordings import recordings

    return recordings(tmp_path_factory.mktemp("noise"), [2.5, 1.0, 0.7, 3.0, 1.3])


@pytest.fixture(scope="session")
def teacher_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny untrained teachers, a folder each; don't alter it."""
    pytest.importorskip("transformers")
    from teachers import write_teacher_models

    return write_teacher_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def untaught_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data without teachers; don't alter it."""
    pytest.importorskip("transformers")
    from teachers import write_untaught

    return write_untaught(tmp_path_factory.mktemp("untaught"))


@pytest.fixture
def untaught(untaught_once: Path, tmp_path: Path) -> Path:
    """Prepared data without teachers, a copy that a test may alter."""
    return Path(shutil.copytree(untaught_once, tmp_path / "data"))


@pytest.fixture(scope="session")
def training_config(tiny_config: CodecConfig) -> TrainingConfig:
    """Six steps with every loss, in seconds."""
    from dmcodec.training.config import (
        DiscriminatorConfig,
        LossConfig,
        MelScaleConfig,
        OptimizerConfig,
        TrainingConfig,
    )

    return TrainingConfig(
        codec=tiny_config,
        losses=LossConfig(mel=(MelScaleConfig(512, 120, 45.0), MelScaleConfig(128, 30, 1.0))),
        discriminators=DiscriminatorConfig((2,), 1, 0.05, (128,), 2),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        batch_size=2,
        steps=6,
    )


@pytest.fixture(scope="session")
def training_data(tiny_data: Path) -> PreparedData:
    """`tiny_data`, opened."""
    from dmcodec.training.data import PreparedData

    return PreparedData.open(tiny_data)


@pytest.fixture(scope="session")
def unbroken_run(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of six steps; don't alter it."""
    from train_runs import write_unbroken_run

    return write_unbroken_run(training_data, training_config, tmp_path_factory.mktemp("unbroken") / "run")


@pytest.fixture(scope="session")
def tiny_codec(tiny_bundle: Path) -> Codec:
    """`tiny_bundle` on ONNX Runtime, one thread."""
    from dmcodec.runtime import Codec

    return Codec.load(tiny_bundle, threads=1)


@pytest.fixture(scope="session")
def ranged_engines(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated TensorRT engines for a range of shapes; don't alter it."""
    from fakes.codec import build

    from dmcodec.runtime.tensorrt.profiles import ShapeRequest

    folder = tmp_path_factory.mktemp("ranged")
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:30s", "1:1:16", None), folder)
    return folder


@pytest.fixture(scope="session")
def fixed_shape_engines(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated TensorRT engines for a range of shapes and for fixed ones; don't alter it."""
    from fakes.codec import build

    from dmcodec.runtime.tensorrt.profiles import ShapeRequest

    folder = tmp_path_factory.mktemp("fixed_shapes")
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:30s", "1:1:16", "0.5s,1s,1sx4"), folder)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs the command line in this process; it returns exit code, stdout and stderr."""
    from dmcodec.cli import main

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), done.out, done.err

    return run
