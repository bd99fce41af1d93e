"""The configuration checks itself and survives JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointNotFoundError, ConfigError


def test_the_defaults_are_the_released_models() -> None:
    config = CodecConfig()
    assert (config.hop_length, config.frame_rate, config.bits_per_code) == (320, 50.0, 10)
    assert config.bitrate_bps() == 4000
    assert config.bitrate_bps(1) == 500


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(0, 0), (1, 1), (319, 1), (320, 1), (321, 2), (640, 2), (160000, 500)]
)
def test_frames_are_rounded_up(num_samples: int, frames: int) -> None:
    assert CodecConfig().num_frames(num_samples) == frames


@pytest.mark.parametrize(("size", "bits"), [(2, 1), (3, 2), (4, 2), (1000, 10), (1024, 10), (1025, 11), (65536, 16)])
def test_bits_per_code(size: int, bits: int) -> None:
    assert CodecConfig(codebook_size=size).bits_per_code == bits


@given(
    n_filters=st.integers(1, 64).map(lambda n: 2 * n),
    strides=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    dimension=st.integers(1, 2000),
    bidirectional=st.booleans(),
    codebook_size=st.integers(2, 65536),
    n_q=st.integers(1, 255),
    sample_rate=st.integers(1, 192000),
)
def test_json_round_trip(**fields: Any) -> None:
    config = CodecConfig(**fields)
    assert CodecConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(CodecConfig(**fields))


BAD: list[tuple[str, Any]] = [
    *(
        (name, bad)
        for name in ("n_filters", "dimension", "n_q", "sample_rate")
        for bad in (0, -2, 2.0, "8", None, True)
    ),
    ("n_filters", 7),
    *(("codebook_size", bad) for bad in (0, 1, 65537, 10.0)),
    ("n_q", 256),
    *(("strides", bad) for bad in ([], [0], [2, -1], "2", 4, [2.0], [True], None, [[2]])),
    *(("bidirectional", bad) for bad in (1, "yes", None)),
    *(("activation", bad) for bad in ("ReLU", "", None)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_values_out_of_range_are_named_with_the_file(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"configuration: .*{name}"):
        CodecConfig(**{name: value})
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**CodecConfig().to_dict(), name: value}))
    with pytest.raises(ConfigError, match=rf"broken\.json: .*{name}"):
        CodecConfig.from_json(path)


@pytest.mark.parametrize("name", CodecConfig().to_dict())
def test_a_missing_field_is_named(name: str) -> None:
    values = CodecConfig().to_dict()
    del values[name]
    with pytest.raises(ConfigError, match=f"a: missing {name}"):
        CodecConfig.from_dict(values, source="a")


def test_keys_of_training_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CodecConfig().to_dict(), "lr": 1e-4, "batch_size": 6}))
    assert CodecConfig.from_json(path) == CodecConfig()


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b'"text"', b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_a_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        CodecConfig.from_json(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"none\.json"):
        CodecConfig.from_json(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=tmp_path.name):
        CodecConfig.from_json(tmp_path)
