"""Published figures beside measured ones: marked rows, never a best one, and a sentence for every wrong file."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run_evaluation
from dmcodec.benchmarks.evaluate.page import render_page
from dmcodec.benchmarks.evaluate.published import read_published
from dmcodec.benchmarks.evaluate.result_tables import quality_table
from dmcodec.benchmarks.evaluate.sounds import SOUNDS
from dmcodec.errors import ArgumentError, DmcodecError, EvaluationError, InputNotFoundError, MissingDependencyError
from dmcodec.sample import speech

pytestmark = pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="scipy is not installed")

REPOSITORY = Path(__file__).resolve().parents[1]
PAPER = REPOSITORY / "docs" / "measurements" / "dm-codec-paper.json"
FIGURES: list[dict[str, Any]] = [
    {"name": "Fine & <good>", "metric": "mel", "value": 0, "source": "a paper, Table 3", "note": "of 24 kHz"},
    {"name": "Fine & <good>", "metric": "wer", "value": 4.5, "source": "a paper, Table 3"},
    {"name": "Other", "metric": "stoi", "value": 0.95, "source": "another paper"},
]


def written(folder: Path, value: Any) -> Path:
    path = folder / "published.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("published")
    for index, name in enumerate(("ref", "one", "two")):
        (folder / name).mkdir()
        soundfile.write(folder / name / "a.wav", speech(16000, 16000) * (1 - 0.1 * index), 16000)
    against = (Named(folder / "one"), Named(folder / "two"))
    options = EvaluateOptions(
        folder / "ref", against=against, metrics=("mel",), published=written(folder, FIGURES), report_clips=1
    )
    return run_evaluation(options)


def test_published_rows_are_marked_and_come_last(evaluation: Evaluation) -> None:
    table = quality_table(evaluation.result)
    assert [row[0] for row in table.rows] == ["one", "two", "Fine & <good> (published)"]
    assert table.rows[-1][1:] == ("-", "0.000")
    assert "(published): not measured here; files and settings may be others: a paper, Table 3." in table.note
    assert "(published), log-mel L1: of 24 kHz." in table.note
    assert "(published) also: WER, STOI, which are not measured here." in table.note
    values = evaluation.result.to_dict()["published"]
    assert values[0] == {
        "name": "Fine & <good>", "source": "a paper, Table 3", "values": {"mel": 0.0, "wer": 4.5},
        "notes": {"mel": "of 24 kHz"},
    }  # fmt: skip


def test_on_the_page_no_published_figure_is_the_best(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    rows = [row for row in page.split("<tr") if "(published)</td>" in row]
    assert len(rows) == 1
    assert "Fine &amp; &lt;good&gt; (published)" in rows[0]
    assert 'class="best"' not in rows[0]
    assert page.count('class="best"') == 1


def test_audio_on_the_page_is_wav_or_mp3(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    wav, mp3 = render_page(evaluation), render_page(evaluation, SOUNDS["mp3"])
    assert wav.count("data:audio/wav;base64,") == mp3.count("data:audio/mpeg;base64,") == 3
    assert "here as 16-bit WAV" in wav
    assert "here as MP3 of about 40 kbit/s" in mp3
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    with pytest.raises(MissingDependencyError, match=r"can't write MP3; run `pip install --upgrade soundfile`"):
        render_page(evaluation, SOUNDS["mp3"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", r"can't be read as JSON \(line 1, column 2\); it should be \[\{"),
        ({}, "is not a list of published figures"),
        ([], "is not a list of published figures"),
        ([3], "figure 1: is no object"),
        ([*FIGURES, {"name": "x"}], "figure 4: lacks metric"),
        ([{**FIGURES[0], "unit": "%"}], "figure 1: 'unit' is not known; a figure has name, metric, value, source"),
        ([{**FIGURES[0], "metric": "mos"}], "figure 1: metric 'mos' is not known; use one of stoi"),
        ([{**FIGURES[0], "value": "0.9"}], "figure 1: value '0.9' is not a number"),
        ([{**FIGURES[0], "value": True}], "figure 1: value True is not a number"),
        ('[{"name": "x", "metric": "mel", "value": NaN, "source": "y"}]', "figure 1: value nan is not a number"),
        ([{**FIGURES[0], "name": " "}], "figure 1: name, metric, source and note must be texts"),
        ([{**FIGURES[0], "note": 3}], "figure 1: name, metric, source and note must be texts"),
        ([FIGURES[0], FIGURES[0]], "figure 2: Fine & <good> has a second mel from the same source"),
        (FIGURES[1:], r"none of its metrics \(wer, stoi\) is measured; add one to --metrics"),
    ],
)
def test_wrong_files(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(EvaluationError, match=words) as found:
        read_published(written(tmp_path, value), ("mel", "si-sdr"))
    assert str(found.value).startswith(str(tmp_path / "published.json"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no such file of published figures"):
        read_published(tmp_path / "x.json", ("mel",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bandwidths": (4.0,)}, "--bandwidth belongs to a codec"),
        (
            {"codecs": (Named(Path("x")),), "bandwidths": (4.0,), "n_q": (8,)},
            "--n-q and --bandwidth exclude each other",
        ),
        ({"codecs": (Named(Path("x")),), "bandwidths": (4.0, 4.0)}, "--bandwidth has the same value twice"),
        ({"codecs": (Named(Path("x")),), "bandwidths": (float("nan"),)}, "--bandwidth must be above 0 kbit/s"),
    ],
)
def test_wrong_bandwidths(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DmcodecError, match=words) as found:
        EvaluateOptions(Path("ref"), against=(Named(Path("y")),), **changes)
    assert isinstance(found.value, ArgumentError)


def test_the_paper_s_figures_are_those_of_its_table_1() -> None:
    rows = {row.name: row.values for row in read_published(PAPER, ("stoi",))}
    assert rows["DM-Codec, LM and SM"] == {"wer": 4.05, "wil": 6.61, "visqol-polynomial": 3.26, "stoi": 0.937}
    assert rows["FACodec"]["stoi"] == max(values["stoi"] for values in rows.values() if "stoi" in values)
    assert rows["Original"] == {"wer": 3.78, "wil": 6.03}


def test_the_comparison_of_the_documentation_is_made_by_its_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, out = tmp_path / "samples", tmp_path / "out"
    samples.mkdir()
    out.mkdir()
    for index, name in enumerate(("Original", "A", "B")):
        soundfile.write(samples / f"{name}_one.flac", speech(16000, 16000) * (1 - 0.2 * index), 16000)
    page = (REPOSITORY / "docs/measurements/quality-of-four-codecs.md").read_text()
    (out / "quality-of-four-codecs.md").write_text(page)
    script = str(REPOSITORY / "scripts" / "compare_codecs.py")
    arguments = [str(samples), "--levels", "1,8", "--metrics", "mel,stoi", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(script, run_name="__main__")
    made = (out / "quality-of-four-codecs.md").read_text()
    rows = made.partition("<!-- table: begin -->")[2].partition("<!-- table: end -->")[0].strip().splitlines()
    assert rows[0] == "| codec | kbit/s | STOI | log-mel L1 |"
    assert [row.split(" | ")[0] for row in rows[2:6]] == [
        "| dmcodec-small, n_q 1",
        "| dmcodec-small, n_q 8",
        "| A",
        "| B",
    ]
    assert rows[6] == "| *EnCodec (published)* | - | 0.920 | - |"
    assert made.partition("<!-- table: end -->")[2] == page.partition("<!-- table: end -->")[2]
    html = (out / "compare-codecs.html").read_text()
    assert "LibriSpeech" in html
    assert str(tmp_path) not in html
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no Original_CLIP.flac"):
        runpy.run_path(script, run_name="__main__")
