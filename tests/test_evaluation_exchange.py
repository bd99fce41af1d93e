"""UTMOS, scores of the originals, stability in an evaluation, and the files for other suites."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from metric_process import in_this_process

from dmcodec.audio import Waveform
from dmcodec.benchmarks.codecs.bundle import BundleCodec
from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run, run_evaluation
from dmcodec.benchmarks.evaluate.exchange import codec_superb, versa_candidates, versa_lines, versa_paths
from dmcodec.benchmarks.evaluate.page import render_page
from dmcodec.benchmarks.evaluate.result_tables import (
    evaluation_tables,
    markdown_page,
    quality_table,
    quality_tables,
)
from dmcodec.benchmarks.evaluate.utmos import UtmosModel
from dmcodec.cli import main
from dmcodec.errors import ArgumentError, EvaluationError, InputNotFoundError, MetricError, PretrainedModelError
from dmcodec.sample import speech

# Where a package of the `evaluate` extra is missing, nothing here can be measured.
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("pystoi", "pesq", "scipy", "librosa", "speechmos", "rapidfuzz", "torch")
]

RATE = 16000


def noisy(wave: Waveform, scale: float) -> Waveform:
    return (wave + scale * np.random.default_rng(0).standard_normal(len(wave))).astype(np.float32)


# UTMOS


@pytest.fixture(scope="module")
def utmos_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript module whose score is 1 plus a hundred times the mean square."""
    import torch

    class Score(torch.nn.Module):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return 1 + 100 * waveform.square().mean(-1).flatten()

    path = tmp_path_factory.mktemp("utmos") / "utmos_scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Score(), torch.zeros(1, 1, 100)).save(str(path))
    return path


def test_a_utmos_file_is_run(utmos_file: Path) -> None:
    model = UtmosModel(utmos_file)
    assert model.score(np.full(2000, 0.1, np.float32)) == pytest.approx(2)
    assert "utmos_scripted.pt, sha256 " in model.description
    with pytest.raises(MetricError, match=r"shorter than 0\.1 s"):
        model.score(np.ones(1599, np.float32))
    with pytest.raises(MetricError, match="silent"):
        model.score(np.zeros(1600, np.float32))


def test_files_that_are_no_utmos(utmos_file: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(InputNotFoundError, match=r"none\.pt: no such file of UTMOS; take utmos_scripted\.pt"):
        UtmosModel(tmp_path / "none.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(PretrainedModelError, match=r"state\.pt: not a TorchScript file"):
        UtmosModel(tmp_path / "state.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 1, 100)).save(str(tmp_path / "same.pt"))
    with pytest.raises(PretrainedModelError, match=r"same\.pt: does not give one score"):
        UtmosModel(tmp_path / "same.pt")


# a whole evaluation


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scores")
    for name in ("original", "noisy"):
        (root / name).mkdir()
    for name, seconds in (("a", 2.5), ("b", 0.9)):  # DNSMOS makes one window of it; too short for it
        wave = speech(round(seconds * RATE), RATE)
        soundfile.write(root / "original" / f"{name}.wav", wave, RATE)
        soundfile.write(root / "noisy" / f"{name}.wav", noisy(wave, 0.01), RATE)
    soundfile.write(root / "original" / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "noisy" / "silent.wav", np.zeros(RATE), RATE)
    return root


@pytest.fixture(scope="module")
def full(folders: Path, tiny_bundle: Path, utmos_file: Path) -> Evaluation:
    options = EvaluateOptions(
        folders / "original",
        codecs=(Named(tiny_bundle, "tiny"),),
        against=(Named(folders / "noisy", "noisy, 2"),),
        metrics=("si-sdr", "utmos", "dnsmos", "dnsmos-bak", "stability"),
        utmos=utmos_file,
        superb=True,
        stability_files=2,
        stability_rounds=(1,),
        threads=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_tasks", in_this_process)
        return run_evaluation(options)


def test_the_originals_have_the_metrics_without_a_reference(full: Evaluation) -> None:
    original = full.result.original
    assert original is not None
    assert set(original.summary) == {"utmos", "dnsmos", "dnsmos-bak"}
    assert (original.summary["utmos"].files, original.summary["utmos"].failed) == (2, 1)
    assert original.clips["silent"].failures["utmos"] == "the clip is silent: UTMOS has no meaning"
    assert original.clips["b"].failures["dnsmos"] == "shorter than 1 s, too short for DNSMOS"
    noise = full.result.columns[1].clips["a"]
    for key in ("dnsmos", "dnsmos-bak"):
        assert original.clips["a"].values[key] > noise.values[key] + 0.2
    assert quality_table(full.result).rows[0][0] == "original"
    for column in full.result.columns:  # also of a codec that makes noise of silence
        assert not {"utmos", "dnsmos", "dnsmos-bak"} & set(column.clips["silent"].values)
        assert column.clips["silent"].failures["utmos"] == "the original is silent"
    assert "torch" in full.result.definitions["utmos"]


def test_stability_stands_beside_the_metrics(full: Evaluation) -> None:
    tiny, noise = full.result.columns
    assert tiny.stability is not None
    assert (tiny.stability.files, list(tiny.stability.skipped)) == (("a", "b"), [])
    assert tiny.stability.rounds[0].agreement.levels == (1.0,) * 8
    assert noise.stability is None
    assert "noisy, 2 has no token stability: it is a folder of audio, which has no codes." in full.result.remarks
    titles = [table.title.split(":")[0] for table in evaluation_tables(full.result)]
    assert titles[1:5] == ["Quality, more metrics", "Token stability", "Re-encoding", "Changes of the input"]
    page = render_page(full)
    assert page.count('<figure class="stability"><svg') == 1
    assert page.index("<h2>Token stability") < page.index('<figure class="stability">') < page.index("<h2>Re-encoding")
    values = json.loads(json.dumps(full.result.to_dict(), allow_nan=False))
    assert values["columns"][0]["stability"]["changes"][0]["key"] == "slice-0.2s"
    assert values["columns"][1]["stability"] is None


def test_many_metrics_take_several_tables(full: Evaluation) -> None:
    whole, tables = quality_table(full.result), quality_tables(full.result)
    assert [len(table.columns) for table in tables] == [2 + 5, 2 + 5]
    assert [name for table in tables for name in table.columns[2:]] == list(whole.columns[2:])
    assert [cell for table in tables for cell in table.rows[-1][2:]] == list(whole.rows[-1][2:])
    assert [table.rows[0][0] for table in tables] == ["tiny", "original"]  # originals: where they have a value
    assert [bool(table.note) for table in tables] == [False, True]
    assert render_page(full).count('<th class="label">codec</th><th>kbit/s</th>') == 2
    few = dataclasses.replace(full.result, metrics=full.result.metrics[:9])
    assert quality_tables(few) == [quality_table(few)]


def test_stability_alone_reads_its_clips_only(folders: Path, tiny_bundle: Path) -> None:
    options = EvaluateOptions(
        folders / "original", codecs=(Named(tiny_bundle),), metrics=("stability",), stability_files=1,
        stability_rounds=(1,), threads=1,
    )  # fmt: skip
    result = run_evaluation(options).result
    assert list(result.clips) == ["a"]
    assert evaluation_tables(result)[0].title.startswith("Token stability")
    silent = folders / "only silence"
    silent.mkdir()
    soundfile.write(silent / "s.wav", np.zeros(RATE), RATE)
    with pytest.raises(EvaluationError, match=r"nothing could be measured \(the clip is silent"):
        run_evaluation(EvaluateOptions(silent, codecs=(Named(tiny_bundle),), metrics=("stability",), threads=1))


def test_a_codec_that_fails_costs_only_its_clips(
    folders: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = BundleCodec.encode

    def failing(self: BundleCodec, waveforms: Any, n_q: int | None = None) -> Any:
        if waveforms.shape[-1] == RATE:  # the silent clip
            raise RuntimeError("no memory\nbut many lines")
        return encode(self, waveforms, n_q)

    monkeypatch.setattr(BundleCodec, "encode", failing)
    options = EvaluateOptions(folders / "original", codecs=(Named(tiny_bundle),), metrics=("si-sdr",), threads=1)
    [column] = run_evaluation(options).result.columns
    assert column.clips["silent"].failures == {"si-sdr": "no memory"}
    assert set(column.clips["a"].values) == {"si-sdr"}


def test_markdown_has_all_tables(full: Evaluation) -> None:
    text = markdown_page(full.result)
    assert text.startswith("# dmcodec evaluate\n\n- reference: ")
    for table in evaluation_tables(full.result):
        assert f"## {table.title}\n\n| {table.columns[0]} |" in text
        for line in text.split(f"## {table.title}\n\n")[1].split("\n\n")[0].splitlines():
            assert line.replace("\\|", "").count("|") == len(table.columns) + 1


def test_versa_has_a_line_for_each_clip(full: Evaluation, tmp_path: Path) -> None:
    files = versa_paths(tmp_path / "s.jsonl", full.result)
    assert [path.name for path in files] == ["s.tiny.jsonl", "s.noisy_2.jsonl"]
    [tiny, _] = files.values()
    lines = [json.loads(line) for line in versa_lines(tiny, full.result).splitlines()]
    assert [line["key"] for line in lines] == ["a", "b", "silent"]
    assert lines[0]["si_snr"] == tiny.clips["a"].values["si-sdr"]
    assert {"key", "pesq", "stoi", "si_snr", "dns_overall", "utmos"} <= set(lines[0])
    assert "dns_overall" not in lines[1]
    assert "stoi" not in lines[2]  # a metric without a value has no key
    assert versa_candidates(tmp_path / "s.jsonl") == []
    (tmp_path / "s.other.jsonl").touch()
    assert versa_candidates(tmp_path / "s.jsonl") == [tmp_path / "s.other.jsonl"]


def test_codec_superb_s_file_has_means_by_category(full: Evaluation) -> None:
    values = json.loads(codec_superb(full.result))
    assert set(values) == {"tiny", "noisy, 2"}
    assert set(values["noisy, 2"]) == {"Speech", "overall"}
    found = values["noisy, 2"]["overall"]
    assert set(found) == {"mel", "stft", "waveform", "pesq", "pesq-wb", "stoi", "f0corr"}
    assert found["pesq"] == full.result.columns[1].summary["pesq"].value
    assert found["waveform"] == pytest.approx(0.008 * 2 / 3, rel=0.05)  # mean |noise|, and 0 for the silent clip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": ("stability",), "codecs": ()}, "stability compares codes, and a folder of audio"),
        ({"stability_files": 3}, "--stability-files belongs to stability"),
        ({"stability_rounds": (3,)}, "--stability-rounds belongs to stability"),
        ({"metrics": ("stability",), "stability_rounds": (0,)}, "--stability-rounds must be"),
        ({"metrics": ("utmos",)}, "utmos needs its model"),
        ({"metrics": ("mel",), "utmos": Path("x.pt")}, "--utmos belongs to utmos"),
    ],
)
def test_wrong_calls(changes: dict[str, Any], reason: str) -> None:
    base: dict[str, Any] = {"reference": Path("x"), "codecs": (Named(Path("c")),), "against": (Named(Path("f")),)}
    with pytest.raises(ArgumentError, match=reason):
        run_evaluation(EvaluateOptions(**{**base, **changes}))


def test_command_line(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*more: object) -> tuple[int, str, str]:
        arguments = ("evaluate", "--reference", folders / "original", "--against", f"n={folders / 'noisy'}", *more)
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        return int(caught.value.code or 0), done.out, done.err

    outputs = ("--markdown", tmp_path / "t.md", "--versa", tmp_path / "v.jsonl")
    code, _, errors = call("--metrics", "mcd,si-snr", "--jobs", 1, *outputs)
    assert (code, errors.count("written")) == (0, 2)
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("# dmcodec evaluate")
    assert json.loads((tmp_path / "v.jsonl").read_text().splitlines()[0])["mcd"] > 0
    code, _, errors = call("--metrics", "mcd", *outputs)
    assert (code, f"{tmp_path / 't.md'}" in errors, "--force" in errors) == (1, True, True)
    code, _, errors = call("--metrics", "mcd", "--force")
    assert (code, "belongs to --report, --markdown, --versa or --codec-superb" in errors) == (2, True)
    code, _, errors = call("--metrics", "mcd", "--markdown", tmp_path / "x", "--versa", tmp_path / "x")
    assert (code, "two outputs have the same path" in errors) == (2, True)
    code, _, errors = call("--metrics", "stability")
    assert (code, errors.splitlines()) == (
        2,
        ["error: stability compares codes, and a folder of audio (--against) has none; name a codec with --codec"],
    )
