"""Listening pages of unusual evaluations: many files, one file, silence, codecs that fail, and swept levels."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from metric_process import in_this_process
from numpy.typing import NDArray

from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, listening, run, run_evaluation
from dmcodec.benchmarks.evaluate.listening import levels_db, time_ticks
from dmcodec.benchmarks.evaluate.page import render_page
from dmcodec.benchmarks.evaluate.result import ClipScore
from dmcodec.sample import speech

RATE = 16000
NASTY = '<b>it\'s & "so"<script>alert(1)<'


def evaluate(
    folder: Path, waves: dict[str, NDArray[np.floating]], names: list[str] | None = None, **options: Any
) -> Evaluation:
    """Evaluate folders of these waves as "codec", which has only some of them, against "ref"."""
    for part in ("ref", "codec"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, wave in waves.items():
        soundfile.write(folder / "ref" / f"{name}.wav", wave, RATE)
        if names is None or name in names:
            soundfile.write(folder / "codec" / f"{name}.wav", wave * 0.9, RATE)
    chosen: dict[str, Any] = {"metrics": ("mel",), "allow_missing": True, "report_clips": 8, **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_tasks", in_this_process)
        return run_evaluation(EvaluateOptions(folder / "ref", against=(Named(folder / "codec"),), **chosen))


def tone(samples: int) -> NDArray[np.floating]:
    return 0.3 * np.sin(np.arange(samples) / 5)


def test_many_files_leave_a_page_of_fifty_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "spectrogram_webp", lambda *_: b"")  # a hundred take seconds
    found = evaluate(tmp_path, {f"{index:04}": tone(1200) for index in range(55)}, report_clips=2000)
    text = render_page(found)
    assert text.count('<details class="clip"') == 50
    assert text.count('<details class="clip" open') == 8
    assert "50 of 55 files, evenly spread over their names. The figures of every file are in the JSON" in text
    assert text.count('preload="none"') == 2 * 42
    assert len(text) < 5_000_000
    assert len(found.result.to_dict()["columns"][0]["clips"]) == 55


def test_a_codec_that_fails_on_most_clips_leaves_a_short_page(tmp_path: Path) -> None:
    folder = tmp_path / "secret place"
    waves = {f"clip {index}": tone(1200) for index in range(60)}
    found = evaluate(folder, waves, names=["clip 0"])
    for index in range(1, 59):
        (folder / "codec" / f"clip {index}.wav").write_bytes(b"RIFF, but no more")
    again = evaluate(folder, {}, report_clips=3)
    text = render_page(again)
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert text.count('<td class="label">codec</td>') < 10  # rows of one reason are one
    assert render_page(found).count("no file of this name") > 1


def test_silence_and_one_sample_have_a_page(tmp_path: Path) -> None:
    found = evaluate(tmp_path, {"silence": np.zeros(8000), "one": np.full(1, 0.1), "tone": tone(8000)})
    text = render_page(found)
    assert "0.50 s, the original is silent" in text
    assert "0.00 s</span>" in text
    silent = levels_db(np.zeros(8000, np.float32), 8000)
    assert silent.max() < -100


def test_one_file_has_no_interval_and_no_bold(tmp_path: Path) -> None:
    found = evaluate(tmp_path, {"only": tone(8000)})
    text = render_page(found)
    assert "Quality over 1 file<" in text
    assert 'class="best"' not in text
    assert "95 %" not in text
    assert "A single file has no confidence interval." in text


def test_means_over_different_files_have_no_bold(tmp_path: Path) -> None:
    one, other = (evaluate(tmp_path, {"a": tone(8000), "b": tone(9000)}, names=names) for names in (None, None))
    first = one.result.columns[0]
    second = dataclasses.replace(other.result.columns[0], column=dataclasses.replace(first.column, name="other"))
    partial = dataclasses.replace(second, clips={**second.clips, "b": ClipScore({}, {"mel": "no memory"})})
    for found, marked in ((second, 2), (partial, 0)):
        result = dataclasses.replace(one.result, columns=(first, found))
        text = render_page(dataclasses.replace(one, result=result))
        assert text.count('class="best"') == marked
        assert ("none is bold" in text) == (marked == 0)


def test_intervals_need_ten_files(tmp_path: Path) -> None:
    for count, shown in ((9, False), (10, True)):
        waves = {str(index): tone(4000 + 100 * index) for index in range(count)}
        text = render_page(evaluate(tmp_path / str(count), waves, report_clips=0))
        assert ("with 95 % confidence intervals" in text) == shown
        assert bool(re.search(r"<small>[\d.]+ to [\d.]+</small>", text)) == shown
        assert "–" not in text
        assert 'id="blind"' not in text  # nothing to listen to


@pytest.mark.parametrize(
    ("duration_s", "last"), [(1 / 16000, "40 µs"), (0.05, "40 ms"), (1.0, "0.8 s"), (5.0, "4 s"), (29.0, "20 s")]
)
def test_time_axes_have_round_ticks(duration_s: float, last: str) -> None:
    ticks = time_ticks(duration_s)
    labels = [label for _, label in ticks]
    assert (ticks[0][0], labels[0], labels[-1]) == (0.0, "0", last)
    assert 2 <= len(ticks) <= 6


def test_levels_are_plotted_against_bitrate(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_tasks", in_this_process)
    (tmp_path / "ref").mkdir()
    soundfile.write(tmp_path / "ref" / "a.wav", speech(8000, RATE), RATE)
    options = EvaluateOptions(
        tmp_path / "ref", codecs=(Named(tiny_bundle, NASTY),), n_q=(1, 2), metrics=("mel", "si-sdr"), threads=1
    )
    found = run_evaluation(options)
    text = render_page(found)
    assert text.count("<svg role") == 2
    assert 'aria-label="log-mel L1 against bitrate"' in text
    assert "<b>it" not in text
    assert str(tiny_bundle.parent) not in text
    without = dataclasses.replace(found, result=dataclasses.replace(found.result, metrics=()))
    assert "Quality" not in render_page(without)  # token stability alone: nothing to plot
    one = dataclasses.replace(options, n_q=(2,))
    assert "<svg" not in render_page(run_evaluation(one))
