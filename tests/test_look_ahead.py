"""What look-ahead costs is measured at export; STOI is that of pystoi."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmcodec.audio import prepare_waveform
from dmcodec.bundle import MANIFEST, Bundle, write_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import BundleError
from dmcodec.export.agreement import code_agreement
from dmcodec.export.look_ahead import LOOK_AHEADS_S, TOLERANCE, LookAheadCase, default_look_ahead, measure_look_ahead
from dmcodec.export.stoi import Stoi
from dmcodec.files import json_sha256
from dmcodec.runtime import Codec
from dmcodec.sample import speech


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.3])
def test_stoi_is_that_of_pystoi(noise: float) -> None:
    pystoi = pytest.importorskip("pystoi")
    reference = prepare_waveform(speech(80000, 16000), 16000, 10000)  # the rate of STOI, whose resamplers differ
    degraded = reference + noise * np.random.default_rng(0).standard_normal(len(reference)).astype(np.float32)
    assert Stoi(reference, 10000)(degraded) == pytest.approx(pystoi.stoi(reference, degraded, 10000), abs=1e-9)


def test_stoi_at_other_rates_and_at_its_ends() -> None:
    pystoi = pytest.importorskip("pystoi")
    reference = speech(80000, 16000)
    degraded = reference + 0.02 * np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    assert Stoi(reference, 16000)(degraded) == pytest.approx(pystoi.stoi(reference, degraded, 16000), abs=1e-4)
    assert Stoi(reference, 16000)(reference) == pytest.approx(1)
    assert np.isfinite(Stoi(reference, 16000)(np.zeros(80000, np.float32)))
    for short in (speech(1, 16000), speech(4000, 16000), np.zeros(80000, np.float32)):
        assert Stoi(short, 16000)(short) == 0


def test_the_measured_codes_are_those_of_streams(tiny_codec: Codec) -> None:
    record = Bundle.open(tiny_codec.bundle.path).manifest.look_ahead
    cases = [LookAheadCase(**case) for case in record["cases"]]
    assert [case.look_ahead_s for case in cases] == list(LOOK_AHEADS_S)
    waveform = speech(560 * 320 + 200 * 320 + 320, 16000)  # the last look-ahead: 7 steps of 80 frames, and 200
    whole = tiny_codec.encode(waveform, 16000).codes
    for case in cases[:3]:
        stream = tiny_codec.stream_encoder(case.look_ahead_s)
        frames = 500 - 3
        codes = stream.push(waveform[: 10 * 16000 + stream.delay_samples])[:, :frames]
        assert code_agreement(whole[:, :frames], codes) == pytest.approx(case.code_agreement, abs=2e-3)
        assert code_agreement(whole[0, :frames], codes[0]) == pytest.approx(case.level0_agreement, abs=2e-3)
        decoded = tiny_codec.graphs.arrays(
            "dequantizer", codes=codes[:, None].astype(np.int64), first_level=np.array(0)
        )
        audio = tiny_codec.run_graph("decoder", latents=decoded[0], lengths=np.array([frames]))[0, 0]
        assert Stoi(waveform[: len(audio)], 16000)(audio) == pytest.approx(case.stoi, abs=5e-3)


def test_three_layers_are_measured_as_streams_encode(tiny_config: CodecConfig) -> None:
    from live_streams import runner

    from dmcodec.nn import DMCodec
    from dmcodec.runtime import StreamEncoder

    config = CodecConfig.from_dict({**tiny_config.to_dict(), "n_filters": 2, "lstm_layers": 3})
    run = runner(DMCodec.seeded(config))
    record = measure_look_ahead(config, run)
    waveform = speech(560 * 320 + 200 * 320 + 320, 16000)[None, None]
    latents = run("encoder", waveform=waveform, lengths=np.array([waveform.shape[2]]))[0]
    whole = run("quantizer", latents=latents)[0][:, 0, :497]
    codes = StreamEncoder(run, config, 0.25).push(waveform[0, 0, : 11 * 16000])[:, :497]
    assert code_agreement(whole, codes) == pytest.approx(record["cases"][1]["code_agreement"], abs=2e-3)


def test_an_encoder_that_runs_forward_only_is_not_measured(tiny_config: CodecConfig) -> None:
    config = CodecConfig.from_dict({**tiny_config.to_dict(), "bidirectional": False})
    assert measure_look_ahead(config, lambda *_arguments, **_inputs: pytest.fail("ran a graph")) == {}


@pytest.mark.parametrize(
    ("stoi", "expected"),
    [
        ((0.90, 0.90, 0.90), 0.1),
        ((0.88, 0.8985, 0.95), 0.5),
        ((0.88, 0.88, 0.90), 1.0),
        ((0.88, 0.88, 0.88), 1.0),
    ],
)
def test_the_default_is_the_shortest_that_costs_no_intelligibility(stoi: tuple[float, ...], expected: float) -> None:
    cases = [LookAheadCase(each, 0.5, 0.5, value) for each, value in zip((0.1, 0.5, 2.0), stoi, strict=True)]
    assert default_look_ahead(cases, 0.90) == expected
    assert TOLERANCE == 0.002


def test_the_manifest_keeps_the_record(copy_of_tiny_bundle: Path) -> None:
    manifest = Bundle.open(copy_of_tiny_bundle).manifest
    assert manifest.look_ahead["default_look_ahead_s"] == manifest.default_look_ahead_s
    write_manifest(copy_of_tiny_bundle, manifest)
    assert Bundle.open(copy_of_tiny_bundle).manifest == manifest


def test_bundles_without_the_record_open(copy_of_tiny_bundle: Path) -> None:
    manifest = dataclasses.replace(Bundle.open(copy_of_tiny_bundle).manifest, look_ahead={})
    write_manifest(copy_of_tiny_bundle, manifest)
    assert "look_ahead" not in json.loads((copy_of_tiny_bundle / MANIFEST).read_text())
    assert Bundle.open(copy_of_tiny_bundle).manifest.default_look_ahead_s == 0.5


@pytest.mark.parametrize(
    "record",
    [
        [],
        "0.5",
        {"cases": []},
        {"default_look_ahead_s": "x"},
        {"default_look_ahead_s": -1},
        {"default_look_ahead_s": 90},
    ],
)
def test_a_record_that_says_nothing_is_refused(copy_of_tiny_bundle: Path, record: Any) -> None:
    path = copy_of_tiny_bundle / MANIFEST
    body = {**json.loads(path.read_text()), "look_ahead": record}
    body.pop("sha256")
    path.write_text(json.dumps({**body, "sha256": json_sha256(body)}))
    with pytest.raises(BundleError, match="not a valid manifest"):
        Bundle.open(copy_of_tiny_bundle)
