"""What verify, its conformance suite and an export say: five lines, a page of proof, and no path of the machine."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import browser

from dmcodec.benchmarks.page_paths import PathFilter, without_paths_in_command
from dmcodec.benchmarks.verify import VerifyOptions, VerifyResult, run_verify
from dmcodec.benchmarks.verify.conformance_suite import Suite
from dmcodec.benchmarks.verify.figures import measure, worst_of_cases, worst_of_checks
from dmcodec.benchmarks.verify.page import render_proof
from dmcodec.benchmarks.verify.proof import proof_of_export, proof_of_verify
from dmcodec.benchmarks.verify.result import Check
from dmcodec.benchmarks.verify.words import figures_of, summary_lines
from dmcodec.bundle import Bundle
from dmcodec.cli import export, main
from dmcodec.cli.bundle_summary import bundle_lines
from dmcodec.cli.info import _describe_bundle
from dmcodec.config import CodecConfig
from dmcodec.export import Source, export_bundle
from dmcodec.nn import DMCodec
from dmcodec.precision import PRECISIONS

CONFIG = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, codebook_size=16, lstm_layers=1, n_q=2)
NASTY = 'it\'s <b>& "so".bundle'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small fp32 bundle whose name wants escaping; don't alter it."""
    path = tmp_path_factory.mktemp("secret place") / NASTY
    export_bundle(DMCodec.seeded(CONFIG, 3), path, source=Source(seed=3))
    return path


@pytest.fixture(scope="module")
def result(bundle: Path) -> VerifyResult:
    command = shlex.join(["dmcodec", "verify", "--bundle", str(bundle)])
    return run_verify(bundle, VerifyOptions(threads=1, command=command))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs the command line in this process; it returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        return caught.value.code if isinstance(caught.value.code, int) else 0, done.out, done.err

    return run


class Tags(HTMLParser):
    """Checks that every tag of a page is closed, and in its place."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> str:
    """Check that a page is closed HTML that loads nothing; return its text."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"https?://|src=|<script", page)
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


# Figures


def test_the_worst_figure_has_its_case_and_its_threshold(result: VerifyResult) -> None:
    thresholds = PRECISIONS["fp32"].thresholds
    cases = list(result.cases)
    cases[5] = dataclasses.replace(cases[5], latents_snr_db=95.5)
    [latents] = [figure for figure in worst_of_cases(cases, thresholds) if figure.kind == "encoder, latents"]
    assert (latents.text, latents.needs, latents.verdict) == ("95.5 dB", "at least 90 dB", "ok")
    assert latents.case == f"{cases[5].signal} of {cases[5].num_samples:,} samples, batch {cases[5].batch}"
    cases[7] = dataclasses.replace(cases[7], latents_snr_db=89.9)
    [latents] = [figure for figure in worst_of_cases(cases, thresholds) if figure.kind == "encoder, latents"]
    assert (latents.value, latents.verdict) == (89.9, "FAILED")


def test_audio_that_nobody_hears_differ_is_not_the_worst(result: VerifyResult) -> None:
    cases = [dataclasses.replace(case, decoder_snr_db=120.0, decoder_max_abs_error=0.1) for case in result.cases]
    cases[3] = dataclasses.replace(cases[3], decoder_snr_db=70.0, decoder_max_abs_error=5e-7)
    thresholds = PRECISIONS["fp32"].thresholds

    def decoder() -> Any:
        return next(each for each in worst_of_cases(cases, thresholds) if each.kind == "decoder, audio")

    assert decoder().text == "120.0 dB"
    cases = [cases[3]]
    assert (decoder().text, decoder().verdict) == ("70.0 dB (inaudible)", "ok")
    cases = [dataclasses.replace(cases[0], decoder_max_abs_error=5e-3)]
    assert (decoder().text, decoder().verdict) == ("70.0 dB", "FAILED")


def test_a_chain_after_a_tie_has_no_threshold(result: VerifyResult) -> None:
    case = dataclasses.replace(result.cases[0], ties=2, chain_snr_db=12.0, chain_max_abs_error=1.0)
    sound = dataclasses.replace(case, ties=0, chain_snr_db=99.0)
    thresholds = PRECISIONS["fp32"].thresholds
    chains = [worst_of_cases(cases, thresholds)[-1] for cases in ([case], [case, sound])]
    assert [(each.text, each.needs, each.verdict) for each in chains] == [
        ("12.0 dB", "no threshold", "reported"), ("99.0 dB", "at least 90 dB", "ok"),
    ]  # fmt: skip


def test_figures_of_uses_have_the_thresholds_of_their_checks() -> None:
    windows = Check("long clip", "40 s", 0.9, 0.95, 0.8, 0.91, 0, thresholds={"untied_agreement": 0.4})
    exact = Check("batch", "3 clips", 1.0, 1.0, 1.0, 1.0, 0, thresholds={"level0_agreement": 1.0})
    wrong = dataclasses.replace(exact, what="levels", level0_agreement=0.99999)
    figures = {figure.kind: figure for figure in worst_of_checks([windows, exact, wrong])}
    assert figures["in use, codes in windows"].text == "91.00 %"
    assert figures["in use, codes of level 0"].case == "levels: 3 clips"
    assert (figures["in use, codes of level 0"].text, figures["in use, codes of level 0"].reached) == ("99.99 %", False)
    assert measure(1.0, in_db=False) == "100 %"


# Five lines


def test_five_lines_say_what_is_proven_and_what_is_not(result: VerifyResult) -> None:
    lines = summary_lines(result)
    assert [line.split(":")[0] for line in lines] == ["passed", "worst", "codes", "proves", "does not prove"]
    assert "against onnxruntime" in lines[0]
    assert "0 frames differ by a tie only" in lines[2]
    assert "mix" not in lines[2]
    assert "what the graphs give for each clip alone" in lines[3]
    assert "the graphs match the checkpoint" in lines[4]
    assert "sounds good" in lines[4]


@pytest.mark.parametrize(
    ("weights", "proven", "not_proven"),
    [
        ("checkpoint", "torch in float64 with the weights of the checkpoint", "other machines"),
        ("seed", "torch in float64 with the weights of the seed", "other machines"),
        ("bundle", "match torch in float64", "that these weights are the checkpoint's"),
    ],
)
def test_what_torch_proves_depends_on_its_weights(
    result: VerifyResult, weights: str, proven: str, not_proven: str
) -> None:
    lines = summary_lines(dataclasses.replace(result, reference="torch", reference_weights=weights))
    assert proven in lines[3]
    assert not_proven in lines[4]


def test_other_precisions_say_that_their_tokens_are_not_to_be_mixed(result: VerifyResult) -> None:
    for name, row in PRECISIONS.items():
        other = dataclasses.replace(result, precision=name)
        said = "never mix" in summary_lines(other)[2]
        assert said == (row.mixing is not None) == (name != "fp32")
        text = checked(render_proof(proof_of_verify(other)))
        assert (f"Tokens of {name} must not be mixed with those of another precision" in text) == said


def failed(result: VerifyResult) -> VerifyResult:
    case = dataclasses.replace(result.cases[2], quantizer_agreement=0.5)
    check = Check(
        "batch", "3 clips", 0.1, 0.2, 0.1, 0.2, 1, problem="batch: level0_agreement is 0.2 in /home/bob/x.wav"
    )
    return dataclasses.replace(result, cases=(case, *result.cases), checks=(check, *result.checks))


def test_a_failure_is_the_first_line_and_the_worst_figure(result: VerifyResult) -> None:
    lines = summary_lines(failed(result))
    assert len(lines) == 5
    assert lines[0].startswith("FAILED: ")
    assert lines[1].startswith("worst: quantizer alone, equal frames: 50.00 %, needs at least 100 %")
    assert lines[3].startswith("failed: 2 figures; first quantizer_agreement is 0.5")
    assert "--details" in lines[4]


# The page


def test_a_proof_page_has_the_verdict_first_and_hides_paths(result: VerifyResult, bundle: Path) -> None:
    page = render_proof(proof_of_verify(result))
    text = checked(page)
    assert page.index('<div class="verdict passed"') < page.index("Worst figure") < page.index("<details")
    assert "<b>&" not in page
    assert "secret" not in page
    assert "/tmp" not in page
    manifest = Bundle.open(bundle).manifest
    hashes = [manifest.to_dict()["sha256"], *(spec.sha256 for spec in manifest.files)]
    assert all(each in text for each in hashes)
    for words in ("Differ by a tie only: 0 frames", "200 dB: this value stands for identical signals", "numpy",
                  result.machine.cpu, result.date, "What this does not prove", "dmcodec verify --bundle"):  # fmt: skip
        assert words in text
    for figure in figures_of(result):
        assert figure.kind in text
        assert figure.needs in text


def test_a_proof_page_of_a_failure_lists_every_problem(result: VerifyResult) -> None:
    page = render_proof(proof_of_verify(failed(result)))
    text = checked(page)
    assert '<div class="verdict failed"' in page
    assert text.index("FAILED") < text.index("What failed") < text.index("Worst figure")
    assert "level0_agreement is 0.2 in x.wav" in text
    assert "What this proves" not in text


def test_an_export_has_a_proof(bundle: Path) -> None:
    text = checked(render_proof(proof_of_export(Bundle.open(bundle), "dmcodec export --seed 3 --out /home/bob/b")))
    assert "against torch in float64" in text
    assert "with the weights of the seed" in text
    assert "encoder in parts, latents" in text
    assert "dmcodec export --seed 3 --out b" in text
    assert "none: untrained weights, from a seed" in text


def test_a_proof_holds_the_hash_of_the_checkpoint(bundle: Path) -> None:
    opened, sha256 = Bundle.open(bundle), "ab" * 32
    provenance = {**opened.manifest.provenance, "checkpoint": "c.safetensors", "checkpoint_sha256": sha256}
    manifest = dataclasses.replace(opened.manifest, provenance=provenance)
    text = checked(render_proof(proof_of_export(dataclasses.replace(opened, manifest=manifest))))
    assert sha256 in text
    assert "with the weights of the checkpoint" in text


def test_pages_fit_a_phone_and_a_dark_desktop(result: VerifyResult, tmp_path: Path) -> None:
    path = tmp_path / "proof.html"
    path.write_text(render_proof(proof_of_verify(result)), encoding="utf-8")
    with browser(tmp_path / "profile") as chromium:
        chromium.open(path)
        chromium.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        for width, dark in ((390, False), (390, True), (1200, True)):
            chromium.resize(width, dark=dark)
            assert not chromium.overflows()
            shown = "return document.querySelector('.worst tbody td:last-child').getBoundingClientRect().right"
            assert chromium.run(shown) <= width  # the figures need no scrolling
        assert chromium.errors == []


# The command line


def test_verify_writes_a_page_and_five_lines(bundle: Path, tmp_path: Path, call: Any) -> None:
    page = tmp_path / "proof.html"
    code, out, errors = call("verify", "--bundle", bundle, "--threads", "1", "--report", page)
    assert code == 0, errors
    assert len(out.splitlines()) == 5
    assert f"report written to {page}" in errors
    assert "PASSED" in checked(page.read_text(encoding="utf-8")).upper()
    code, _, errors = call("verify", "--bundle", bundle, "--report", page)
    assert (code, "exists already" in errors) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--details", "--json"), "--json holds every case already"),
        (("--force",), "--force belongs to --report"),
        (("x.bundle",), "name a bundle with --bundle BUNDLE (see dmcodec verify --help)"),
        (("--conformance", "x.bundle", "--bundle", "y.bundle"), "both name a bundle"),
        (("--conformance", "--exactness"), "leave --audio"),
    ],
)
def test_calls_that_make_no_sense(arguments: tuple[str, ...], words: str, call: Any) -> None:
    code, out, errors = call("verify", *arguments)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert words in errors


def test_conformance_takes_its_bundle_by_position_too(
    bundle: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = Suite.open()
    few = dataclasses.replace(
        suite, cases=tuple(case for case in suite.cases if case.kind in ("alone", "decode alone"))
    )
    monkeypatch.setattr(Suite, "open", lambda: few)
    page, results = tmp_path / "proof.html", []
    for named in ((bundle,), ("--bundle", bundle)):
        code, out, errors = call("verify", "--conformance", *named, "--threads", 1, "--report", page, "--force")
        assert code == 0, errors
        results.append(out)
        assert len(out.splitlines()) == 5
    assert results[0] == results[1]
    assert results[0].endswith("passed: tokens do not depend on batch, padding, chunk, worker or thread\n")
    text = checked(page.read_text(encoding="utf-8"))
    assert "the clips of the suite give the same tokens however they are run" in text
    assert call("verify", "--conformance", tmp_path / "none")[0] == 1


def test_export_writes_a_page(bundle: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write_bundle", lambda _weights, out, _force: Bundle.open(shutil.copytree(bundle, out)))
    out, page = tmp_path / "b.bundle", tmp_path / "proof.html"
    code, _, errors = call("export", "--seed", 3, "--out", out, "--report", out / "proof.html")
    assert (code, "lies in the bundle" in errors, out.exists()) == (2, True, False)
    code, _, errors = call("export", "--seed", 3, "--out", out, "--report", page)
    assert code == 0, errors
    text = checked(page.read_text(encoding="utf-8"))
    assert text.lstrip().startswith("Proof of b.bundle: passed")
    assert str(tmp_path) not in text
    code, _, errors = call("export", "--seed", 3, "--out", tmp_path / "other", "--report", page)
    assert (code, "exists already" in errors, (tmp_path / "other").exists()) == (1, True, False)
    code, _, errors = call("export", "--format", "trt", "--report", page)
    assert (code, "--report is for --format onnx only" in errors) == (2, True)


# The summary of a bundle


def facts_of(path: Path) -> dict[str, Any]:
    return _describe_bundle(path)


def test_a_bundle_is_shown_in_words(bundle: Path, call: Any) -> None:
    code, out, _ = call("info", "--bundle", bundle)
    assert code == 0
    assert len(out.splitlines()) <= 22
    assert "UNTRAINED weights of seed 3" in out
    assert "2 levels of 16 codes, 50 frames a second: 0.4 kbit/s, 0.2 kbit/s for each level" in out
    assert "decode 80 ms behind their tokens (4 frames)" in out
    assert "parity.frame_agreement" not in out
    keys = json.loads(call("info", "--bundle", bundle, "--json")[1])
    assert {"model_id", "parity", "encoder_context", "live_encoding", "window_overhead", "graphs"} <= set(keys)


def test_a_bundle_of_an_earlier_version_is_shown_too(bundle: Path) -> None:
    facts = facts_of(bundle)
    facts.update(live_encoding=None, long_clips="encoded in windows", weights=None, precision="fp16")
    facts.update(provenance={}, parity={"decoder_snr_db": 200.0})
    text = "\n".join(bundle_lines(facts))
    assert "live encoding no: export again" in text
    assert "encoded in windows with" in text
    assert "weights of unknown origin" in text
    assert "against torch, at worst: decoder identical; 0 ties aside" in text
    assert "must not be mixed" in text
    assert max(map(len, bundle_lines(facts, 60))) <= max(60, len(str(bundle)))


# Paths


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "my folder" / "speech"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


def test_paths_are_shortened_and_other_words_stay(place: Path) -> None:
    shorten = PathFilter([place])
    for text, shown in (
        (f"{place}/a/b.wav: can't be read", "speech/a/b.wav: can't be read"),
        ("/home/bob/x.wav (4 kbit/s, and/or n/a)", "x.wav (4 kbit/s, and/or n/a)"),
        (r"C:\Users\bob\x.wav, \\server\share\y.wav", "x.wav, y.wav"),
        ("openai/whisper-medium hf://a/b https://a.b/c", "openai/whisper-medium hf://a/b https://a.b/c"),
    ):
        assert shorten(text) == shown
    command = f"dmcodec evaluate --reference '{place}' --codec A=/x/y.bundle --asr openai/whisper ../up/z speech/dev"
    assert without_paths_in_command(command) == (
        "dmcodec evaluate --reference speech --codec A=y.bundle --asr openai/whisper z speech/dev"
    )
