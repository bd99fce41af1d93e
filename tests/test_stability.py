"""Token stability of codecs whose codes can be told by hand, and what can't be measured."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.stability import StabilityOptions, changes, measure_stability
from dmcodec.benchmarks.stability.changes import Subject
from dmcodec.benchmarks.stability.figure import stability_figure
from dmcodec.benchmarks.stability.measure import compare_codes, steps_of
from dmcodec.benchmarks.stability.mp3 import mp3_bytes, mp3_round_trip
from dmcodec.benchmarks.stability.result import Agreement, ClipCounts
from dmcodec.benchmarks.stability.result_tables import percent, stability_tables
from dmcodec.errors import ArgumentError, AudioError, MetricError
from dmcodec.mp3_frames import parse_frame
from dmcodec.sample import speech

pytestmark = pytest.mark.skipif(importlib.util.find_spec("rapidfuzz") is None, reason="rapidfuzz is not installed")

RATE, HOP = 16000, 320
ONE_ROUND = StabilityOptions(rounds=(1,))


class FirstSamples:
    """A codec without context: level 0 is the first sample of each frame, in steps of 1/64; level 1 is its sign.

    `decode` gives frames of that value, minus `loss` steps.
    """

    name = description = "first samples"
    sample_rate, hop_length, frame_rate, n_q, codebook_size = RATE, HOP, RATE / HOP, 2, 128

    def __init__(self, loss: int = 0, context: bool = False) -> None:
        self.loss, self.context, self.calls = loss, context, 0

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        self.calls += 1
        padded = np.pad(waveforms[:, 0], ((0, 0), (0, -waveforms.shape[-1] % HOP)))
        first = np.rint(padded[:, ::HOP] * 64).astype(np.int64) % 64
        if self.context:
            first = (first + padded.shape[1] // HOP) % 64
        return np.stack([first, (padded[:, ::HOP] > 0).astype(np.int64)])[:n_q]

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.repeat((codes[0] - self.loss) / 64, HOP, axis=-1)[:, None].astype(np.float32)


def steps(frames: int, first: int = 1) -> Waveform:
    """Frames of the values 1/64, 2/64, ..."""
    return np.repeat((np.arange(frames) + first) / 64, HOP).astype(np.float32)


def no_score(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    assert len(reference) == len(degraded)
    assert sample_rate in (RATE, 15000)
    return float(np.abs(reference - degraded).max())


def measured(codec: Any, clips: dict[str, Any] | None = None, options: StabilityOptions = ONE_ROUND) -> Any:
    return measure_stability(codec, (2,), clips or {"a": steps(60)}, options, no_score)[2]


def by_key(stability: Any) -> dict[str, Agreement]:
    return {each.key: each for each in stability.changes}


def test_a_codec_without_context_keeps_its_codes() -> None:
    found = by_key(measured(FirstSamples()))
    for key in ("slice-0.2s", "slice-1s", "surroundings", "chunks", "shift-1", "shift-80", "shift-160", "pad-end",
                "pad-start", "batch"):  # fmt: skip
        assert (found[key].levels, found[key].all_levels) == ((1.0, 1.0), 1.0), key
        assert (found[key].edit_distance, found[key].lowest) == ((0.0, 0.0), 1.0), key
    assert {key: each.frames for key, each in found.items() if each.frames != 60} == {
        "slice-0.2s": 10, "slice-1s": 30, "shift-1": 59, "shift-80": 59, "shift-160": 59, "shift-240": 59,
        "shift-319": 59, "shift-320": 59,
    }  # fmt: skip


def test_frames_are_paired_with_the_nearest() -> None:
    found = by_key(measured(FirstSamples()))
    # A frame that begins 240 samples later still begins in the same step, and is compared with the next one.
    assert found["shift-240"].levels == (0.0, 1.0)
    # 2, 3, ..., 60 and 1, 2, ..., 59: one deletion and one insertion
    assert found["shift-240"].edit_distance == (2 / 59, 0.0)
    assert found["shift-240"].edit_distance_all_levels == pytest.approx(1 / 59)
    assert found["shift-320"].levels == (1.0, 1.0)


def test_a_gain_changes_the_codes_it_should() -> None:
    found = by_key(measured(FirstSamples()))
    # round(k * 0.501) is k only for k = 1; round(k * 0.251) never is
    assert found["gain-6"].levels == (1 / 60, 1.0)
    assert found["gain-12"].levels == (0.0, 1.0)


def test_context_is_found() -> None:
    found = by_key(measured(FirstSamples(context=True)))
    for key in ("slice-1s", "surroundings", "chunks", "pad-end", "pad-start"):
        assert found[key].levels == (0.0, 1.0), key
    assert found["batch"].levels == (1.0, 1.0)


def test_re_encoding() -> None:
    kept = measured(FirstSamples(), options=StabilityOptions(rounds=(5, 1))).rounds
    assert [(each.rounds, each.agreement.all_levels, each.stoi) for each in kept] == [(0, 1, 0), (1, 1, 0), (5, 1, 0)]
    lost = measured(FirstSamples(loss=1), options=StabilityOptions(rounds=(1, 3))).rounds
    assert [each.rounds for each in lost] == [0, 1, 3]
    # after r rounds each code is r less, and modulo 64 below 0: a shifted sequence
    assert [each.agreement.levels[0] for each in lost] == [1, 0, 0]
    assert [each.agreement.edit_distance[0] for each in lost] == [0, 2 / 60, 6 / 60]
    assert lost[0].stoi == pytest.approx(1 / 64)  # round 0 decodes once


def test_the_decoded_audio_of_fewer_levels_is_encoded_again() -> None:
    both = measure_stability(FirstSamples(), (2, 1), {"a": steps(60)}, ONE_ROUND, no_score)
    assert [len(both[n_q].changes[0].levels) for n_q in (2, 1)] == [2, 1]
    assert [len(both[n_q].rounds[-1].agreement.levels) for n_q in (2, 1)] == [2, 1]


def test_noise_has_the_ratio_and_is_the_same_again() -> None:
    wave = speech(RATE, RATE)
    subject = Subject(wave, wave, RATE, HOP, (0, 0))
    change = next(each for each in changes(HOP, RATE) if each.key == "noise-30")
    [first], [again] = list(change.pieces(subject)), list(change.pieces(subject))
    np.testing.assert_array_equal(first.waveforms, again.waveforms)
    noise = first.waveforms[0, 0] - wave
    assert 10 * np.log10(np.square(wave).mean() / np.square(noise).mean()) == pytest.approx(30, abs=0.2)


def test_shifts_fit_any_hop() -> None:
    assert [each.key for each in changes(2, RATE) if "shift" in each.key] == ["shift-1", "shift-2"]
    assert [each.key for each in changes(512, 44100) if "shift" in each.key] == [
        "shift-1", "shift-128", "shift-256", "shift-384", "shift-511", "shift-512",
    ]  # fmt: skip
    assert "48 kHz and back" in [each.label for each in changes(512, 44100)]


@pytest.mark.parametrize(("rate", "length"), [(16000, 288), (24000, 192), (44100, 208), (8000, 576)])
def test_mp3_has_64_kbit_s(rate: int, length: int) -> None:
    content = mp3_bytes(speech(rate, rate), rate, 64)
    frames = [frame for at in range(len(content) - 4) if (frame := parse_frame(content[at : at + 4]))]
    assert sum(frame.length - length in (0, 1) for frame in frames if frame.sample_rate == rate) >= 10


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_delay_of_mp3_is_compensated(rate: int) -> None:
    wave = speech(rate, rate)
    back = mp3_round_trip(wave, rate, 64)
    assert back.shape == wave.shape
    early, late = (float(wave[9:-9] @ np.roll(back, shift)[9:-9]) for shift in (-1, 1))
    assert float(wave[9:-9] @ back[9:-9]) > max(early, late)
    assert np.corrcoef(wave, back)[0, 1] > 0.95


def test_mp3_of_another_rate_is_a_reason() -> None:
    codec = FirstSamples()
    codec.sample_rate = 15000
    found = by_key(measured(codec))
    assert found["mp3"].failures == {"a": "MP3 has no sample rate of 15000 Hz"}
    assert (found["mp3"].frames, found["mp3"].all_levels) == (0, None)
    with pytest.raises(MetricError):
        mp3_bytes(steps(60), 15000, 64)


def test_clips_that_cannot_be_measured_have_reasons() -> None:
    clips = {
        "good": steps(60),
        "short": steps(20),
        "silent": np.zeros(RATE, np.float32),
        "silent at first": np.concatenate([np.zeros(10 * RATE, np.float32), steps(60)]),
        "unreadable": MetricError("not audio"),
    }
    found = measured(FirstSamples(), clips)
    assert found.files == ("good",)
    assert {name: reason.split(":")[0] for name, reason in found.skipped.items()} == {
        "short": "shorter than 0.5 s, too short for stability",
        "silent": "the clip is silent",
        "silent at first": "the first 10 s are silent",
        "unreadable": "not audio",
    }
    nothing = measured(FirstSamples(), {"short": steps(20)})
    assert (nothing.files, nothing.changes[0].all_levels) == ((), None)
    assert [table.title for table in stability_tables({"c": nothing})] == ["Not measured"]
    assert stability_figure({"c": nothing}) == ""


def test_long_clips_are_cut() -> None:
    long = np.tile(steps(60), 20)
    found = measured(FirstSamples(), {"a": long})
    assert found.seconds == 10
    assert found.rounds[0].agreement.frames == 500


class FailsOnSome(FirstSamples):
    """Refuses loud clips, waveforms of less than a second, and to decode level 0 above 50."""

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        if np.abs(waveforms).max() > 1.5:
            raise AudioError("too loud")
        if waveforms.shape[-1] < RATE:
            raise RuntimeError("too short\nand more lines, as torch has them")
        return super().encode(waveforms, n_q)

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        if codes[0].max() > 50 and self.calls > 100:
            raise AudioError("too high")
        return super().decode(codes)


def test_a_codec_that_fails_on_some_clips() -> None:
    clips = {"a": steps(60), "loud": 2 * steps(60), "b": steps(50)}
    codec = FailsOnSome()
    found = measured(codec, clips)
    assert (found.files, found.skipped) == (("a", "b"), {"loud": "too loud"})
    assert by_key(found)["slice-0.2s"].failures == {"a": "too short", "b": "too short"}
    assert by_key(found)["surroundings"].failures == {"a": "too loud"}  # its neighbour
    assert by_key(found)["surroundings"].frames == 50
    rows = next(table for table in stability_tables({"c": found}) if table.title == "Not measured").rows
    assert ("c", "all", "1", "too loud", "loud") in rows
    assert ("c", "slice of 0.2 s", "2", "too short", "a") in rows
    codec.calls = 1000
    rounds = measured(codec, {"high": steps(60), "low": steps(50)}, StabilityOptions(rounds=(2,))).rounds
    assert [each.agreement.failures for each in rounds] == [{"high": "round 0: too high"}] * 2
    assert [list(each.agreement.clips) for each in rounds] == [["low"]] * 2


def test_the_number_of_steps_is_known_before() -> None:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1

    codec, clips = FirstSamples(), {"a": steps(60), "b": steps(70)}
    options = StabilityOptions(rounds=(1, 3))
    measure_stability(codec, (1, 2), clips, options, no_score, step)
    assert done == steps_of(options, codec, 2, 2)


def test_codes_are_compared_level_by_level() -> None:
    reference = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    codes = np.array([[1, 2, 9, 4], [6, 7, 8, 5]])
    assert compare_codes(reference, codes) == ClipCounts(4, (3, 0), (1, 2))
    assert compare_codes(reference, codes[:, :2]) == ClipCounts(2, (2, 0), (0, 2))


def test_agreements_are_over_the_frames_of_all_files() -> None:
    clips = {"a": ClipCounts(10, (10, 5), (0, 4)), "b": ClipCounts(30, (15, 0), (15, 30))}
    found = Agreement.of("k", "l", "d", clips, {})
    assert found.levels == (25 / 40, 5 / 40)
    assert found.all_levels == pytest.approx(30 / 80)
    assert found.edit_distance == (15 / 40, 34 / 40)
    assert found.lowest == 15 / 60


def test_percent_never_says_all_of_almost_all() -> None:
    assert [percent(share) for share in (1.0, 0.9999, 0.5, 0.00001, 0.0, None)] == [
        "100.0", "99.9", "50.0", "0.1", "0.0", "-",
    ]  # fmt: skip


def test_the_figure_is_svg_with_a_row_for_each_change() -> None:
    found = {"<codec> & co": measured(FirstSamples()), "other": measured(FirstSamples(loss=1))}
    root = ET.fromstring(stability_figure(found))
    texts = ["".join(each.itertext()) for each in root.iter("text")]
    assert {"gain -6 dB", "re-encoded, 1 round", "<codec> & co", "other", "100 %"} <= set(texts)
    titles = ["".join(each.itertext()) for each in root.iter("title")]
    assert "<codec> & co, gain -6 dB, level 0: 1.7 %" in titles
    assert len(titles) == 2 * 2 * 21  # codecs, level 0 and all levels, 20 changes and one round
    for circle in root.iter("circle"):
        assert 0 < float(circle.get("cx", "")) < 740


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": 0}, "--stability-files must be at least 1"),
        ({"rounds": (0,)}, "--stability-rounds must be numbers of 1 or more"),
        ({"rounds": (5, 5)}, "same value twice"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        StabilityOptions(**options)
