"""EnCodec in conformance, bench and evaluate: nothing there takes a codec for one of 16 kHz that is not causal."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import soundfile

from dmcodec.benchmarks.bench import BenchOptions
from dmcodec.benchmarks.bench.measure import measure_stream
from dmcodec.benchmarks.codecs.bundle import BundleCodec, open_bundle
from dmcodec.benchmarks.evaluate import EvaluateOptions, Named, run_evaluation
from dmcodec.benchmarks.timing import no_progress
from dmcodec.benchmarks.verify import VerifyOptions
from dmcodec.benchmarks.verify.conformance import check_codec
from dmcodec.benchmarks.verify.conformance_suite import Suite
from dmcodec.runtime import Codec
from dmcodec.sample import speech


def test_tokens_do_not_depend_on_how_they_are_made(encodec_bundle: Path) -> None:
    suite = Suite.open()
    kinds = {"batch", "padding", "blocks", "decode batch", "decode chunks", "levels"}
    cases = tuple(case for case in suite.cases if case.kind in kinds)
    assert {case.kind for case in cases} == kinds
    codec = Codec.load(encodec_bundle, threads=1)
    result = check_codec(codec, VerifyOptions(threads=1), dataclasses.replace(suite, cases=cases))
    assert result.passed, result.problems


def test_bench_waits_for_the_tokens_that_the_first_audio_needs(encodec_bundle: Path) -> None:
    bundle = BundleCodec(open_bundle(encodec_bundle, threads=1))
    stream = measure_stream(bundle, BenchOptions(durations_s=(0.5,)), 1, no_progress)
    assert stream.look_ahead_s == 0
    assert stream.tokens_needed_s == pytest.approx(10 / 75)  # two pushes of five frames hold the first seven


def test_evaluate_compares_it_at_its_bitrates(encodec_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    soundfile.write(tmp_path / "original/a.wav", speech(16000, 16000), 16000)
    options = EvaluateOptions(
        reference=tmp_path / "original", codecs=(Named(encodec_bundle, "encodec"),), n_q=(2, 8), metrics=("si-sdr",)
    )
    columns = run_evaluation(options).result.columns
    assert [each.column.bitrate_bps for each in columns] == [900, 3600]
    assert all(each.summary["si-sdr"].value is not None for each in columns)
