"""Fixtures that several test files use. torch is imported only where a fixture needs it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
from hypothesis import settings

from dmcodec.config import CodecConfig
from dmcodec.sample import speech

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec

# torch's threads wait for each other at every layer; on busy cores these small models take minutes that way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dmcodec", deadline=None, derandomize=True, database=None)
settings.load_profile("dmcodec")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of the full-size network are asked for."""
    parser.addoption("--full-size", action="store_true", help="build full-size TensorRT engines, too")


@pytest.fixture(scope="session")
def tiny_config() -> CodecConfig:
    """The real model's layout and hop length, with few channels."""
    return CodecConfig(n_filters=8, dimension=32, semantic_dimension=24, codebook_size=64)


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
def tiny_model_files(tiny_model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and configuration files of `tiny_model`."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoint")
    torch.save(tiny_model.state_dict(), folder / "tiny.pt")
    (folder / "config.json").write_text(json.dumps(tiny_model.config.to_dict()))
    return folder / "tiny.pt", folder / "config.json"


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
