"""`dmcodec bench` beside codecs of any network: only the bundle's own network is compared by its codes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from peer_codecs import write_codec

from dmcodec.benchmarks import BenchOptions, BenchResult, run_bench
from dmcodec.benchmarks.bench import memory, other_codecs
from dmcodec.benchmarks.bench.other_codecs import OtherCodec, open_other_codec
from dmcodec.benchmarks.bench.page import render_report
from dmcodec.benchmarks.bench.result_tables import peer_codec_table, speedup_table
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, PretrainedModelError
from dmcodec.files import file_sha256
from dmcodec.runtime import Codec
from dmcodec.sample import speech

OPTIONS = BenchOptions(durations_s=(0.2,), batches=(1, 2), rounds=2, threads=1)


@pytest.fixture(scope="module")
def encodec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_codec("encodec", tmp_path_factory.mktemp("peers") / "encodec, $1$")


def in_this_process(request: dict[str, Any]) -> dict[str, Any]:
    """What the process of `measure_memory` does, without importing torch again."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["", json.dumps(request)])
        memory.main()
    return {**json.loads(printed.getvalue()), "reason": None}


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_run_process", in_this_process)
        yield


@pytest.fixture(scope="module")
def result(tiny_bundle: Path, tiny_model_files: tuple[Path, Path], encodec: Path) -> BenchResult:
    codecs = (Named(tiny_bundle, "_again"), Named(tiny_model_files[0].parent, "torch"))
    against = (f"transformers:{encodec}",)
    return run_bench(tiny_bundle, dataclasses.replace(OPTIONS, against=against, codecs=codecs))


def test_other_networks_are_compared_by_time_only(result: BenchResult) -> None:
    found = {(entry.peer, entry.batch): entry for entry in result.comparisons}
    assert set(found) == {
        (peer, batch) for peer in ("transformers:encodec, $1$", "_again", "torch") for batch in (1, 2)
    }
    for (peer, _), entry in found.items():
        assert entry.encode_speedup > 0
        assert entry.decode_speedup > 0
        if peer.startswith("transformers:"):
            assert entry.code_agreement is entry.waveform_snr_db is None
        else:
            assert entry.code_agreement is not None
            assert entry.waveform_snr_db is not None
            assert entry.code_agreement >= 0.999
            assert entry.waveform_snr_db >= 90
    rows = {row[0]: row for row in speedup_table(result).rows}
    assert rows["transformers:encodec, $1$"][-2:] == ("-", "-")
    assert "transformers:encodec, $1$: another network than the bundle's" in speedup_table(result).note
    assert "torch: another" not in speedup_table(result).note


def test_each_codec_has_its_levels_and_bitrate(result: BenchResult) -> None:
    found = {entry.peer: entry for entry in result.peer_codecs}
    peer = found["transformers:encodec, $1$"]
    assert (peer.sample_rate, peer.frame_rate, peer.n_q, peer.bitrate_bps) == (24000, 75, 8, 3600)
    assert [entry.same_network for entry in result.peer_codecs] == [False, True, True]
    assert peer_codec_table(result).rows[0] == ("transformers:encodec, $1$", "another", "24,000", "75", "8", "3.6")
    assert "bandwidths 0.9, 1.8, 3.6 kbit/s are n_q 2, 4, 8" in peer_codec_table(result).note
    assert {entry.peer for entry in result.peer_loading} == set(found)


def test_memory_and_report_have_every_codec(result: BenchResult) -> None:
    peaks = {(entry.side, entry.operation): entry.peak_rss_bytes for entry in result.memory}
    assert len(peaks) == 8
    assert all(peaks.values())
    page = render_report(result)
    assert page.count("transformers:encodec, $1$") > 5
    assert "\\$" not in page
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_number_of_levels_is_chosen(tiny_bundle: Path, encodec: Path) -> None:
    codec = (Named(Path(f"transformers:{encodec}"), "E"),)
    options = dataclasses.replace(OPTIONS, batches=(1,), rounds=1, codecs=codec, n_q=3)
    [peer] = run_bench(tiny_bundle, options).peer_codecs
    assert (peer.n_q, peer.bitrate_bps) == (3, 1350)
    with pytest.raises(ArgumentError, match="--n-q 9: the bundle has 8 levels"):
        run_bench(tiny_bundle, dataclasses.replace(options, n_q=9))
    with pytest.raises(ArgumentError, match="n_q must be at least 1"):
        dataclasses.replace(options, n_q=0)


def test_the_original_of_a_bundle_is_the_same_network(
    tiny_bundle: Path, encodec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the checksum of its weights, or by what the weights are; not where the geometry alone is the same."""
    bundle, entry = Bundle.open(tiny_bundle), Named(Path(f"transformers:{encodec}"))
    config = dataclasses.replace(bundle.manifest.config, sample_rate=24000)

    def same(**provenance: Any) -> bool:
        manifest = dataclasses.replace(bundle.manifest, config=config, provenance=provenance)
        return open_other_codec(entry, dataclasses.replace(bundle, manifest=manifest), None, 1, "cpu")[0].same_network

    assert not same()
    assert not same(checkpoint_sha256="0" * 64)
    assert same(checkpoint_sha256=file_sha256(encodec / "model.safetensors"))
    folders = []

    def model_id(folder: Path) -> str:
        folders.append(folder)
        return bundle.manifest.model_id

    monkeypatch.setattr(other_codecs, "_model_id", model_id)
    assert same()
    assert folders == [encodec]


def test_the_same_network_decodes_the_codes_of_the_bundle(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []
    decode = OtherCodec.decode

    def spied(self: OtherCodec, codes: Any) -> Any:
        decoded.append(codes)
        return decode(self, codes)

    monkeypatch.setattr(OtherCodec, "decode", spied)
    options = dataclasses.replace(OPTIONS, batches=(1,), rounds=1, codecs=(Named(tiny_bundle, "again"),))
    [comparison] = run_bench(tiny_bundle, options).comparisons
    assert comparison.waveform_snr_db == 200
    codes = Codec.load(tiny_bundle, threads=1).encode(speech(3200, 16000), 16000).codes
    for found in decoded[:2]:  # warm-up and one round; the others are of the memory
        np.testing.assert_array_equal(found[:, 0], codes)


def test_wrong_codecs(tiny_bundle: Path, encodec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    from dmcodec.cli import main

    with pytest.raises(ArgumentError, match=r"'x' is not known; use one of .*transformers:DIR"):
        BenchOptions(against=("x",))
    with pytest.raises(PretrainedModelError, match=r"holds no config.json"):
        run_bench(tiny_bundle, dataclasses.replace(OPTIONS, against=(f"transformers:{tmp_path}",)))
    twice = (Named(Path(f"transformers:{encodec}"), "onnxruntime-cpu"),)
    with pytest.raises(ArgumentError, match="two codecs would be called 'onnxruntime-cpu'; name them with"):
        run_bench(tiny_bundle, dataclasses.replace(OPTIONS, codecs=twice))
    nothing = tmp_path / "a, b" / "c d" / "nothing"
    command = ["dmcodec", "bench", "--bundle", str(tiny_bundle), "--duration", "0.1", "--batch", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--against", f"transformers:{nothing}"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        f"error: codec '{nothing}' can't be loaded: there is no such folder; name the folder of a model, or its id on "
        "the hub\n"
    )
