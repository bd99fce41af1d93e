"""Everything that is measured as a codec has the properties and shapes of `MeasuredCodec`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmcodec.benchmarks.codecs import checkpoint
from dmcodec.benchmarks.codecs.interface import MeasuredCodec, bitrate_bps
from dmcodec.benchmarks.codecs.registry import levels_to_report, open_codec
from dmcodec.benchmarks.codecs.torch import EagerCodec
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, BundleNotFoundError
from dmcodec.nn import DMCodec
from dmcodec.sample import speech


@pytest.fixture(params=["bundle", "checkpoint", "torch"])
def codec(
    request: pytest.FixtureRequest, tiny_bundle: Path, tiny_model: DMCodec, tiny_model_files: tuple[Path, Path]
) -> MeasuredCodec:
    if request.param == "torch":
        return EagerCodec(tiny_model)
    path, config = (tiny_bundle, None) if request.param == "bundle" else tiny_model_files
    return open_codec(path, config, threads=1)


def test_properties_and_shapes(codec: MeasuredCodec, tiny_config: CodecConfig) -> None:
    assert codec.name
    assert codec.description
    for name in ("sample_rate", "hop_length", "frame_rate", "n_q", "codebook_size"):
        assert getattr(codec, name) == getattr(tiny_config, name)
    assert bitrate_bps(codec, 2) == tiny_config.bitrate_bps(2)
    waveforms = speech(2 * 1000, codec.sample_rate).reshape(2, 1, 1000)
    codes = codec.encode(waveforms)
    assert (codes.shape, codes.dtype.name) == ((codec.n_q, 2, 4), "int64")
    np.testing.assert_array_equal(codec.encode(waveforms, 2), codes[:2])
    for levels in (codec.n_q, 2):
        decoded = codec.decode(codes[:levels])
        assert (decoded.shape, decoded.dtype.name) == ((2, 1, 4 * codec.hop_length), "float32")


def test_levels_to_report(codec: MeasuredCodec) -> None:
    assert levels_to_report(codec, (), "tiny") == (8,)
    assert levels_to_report(codec, (2, 8), "tiny") == (2, 8)
    with pytest.raises(ArgumentError, match="--n-q 9: tiny has 8 levels"):
        levels_to_report(codec, (9,), "tiny")


def test_a_checkpoint_refuses_long_clips(
    tiny_model_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MAX_DURATION_S", 0.1)
    codec = open_codec(*tiny_model_files, threads=1)
    with pytest.raises(AudioError, match="longer than"):
        codec.encode(np.zeros((1, 1, 1601), np.float32))
    with pytest.raises(BundleNotFoundError, match="no such bundle or checkpoint"):
        open_codec(tmp_path / "nothing", None, None)
