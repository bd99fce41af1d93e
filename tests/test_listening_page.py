"""The listening page in a real browser: it opens, shows its pictures, and plays, one player at a time."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import Browser, browser

from dmcodec.benchmarks.evaluate import EvaluateOptions, Evaluation, Named, run_evaluation
from dmcodec.benchmarks.evaluate.listening import HEIGHT_PX, WIDTH_PX, levels_db, longest_s
from dmcodec.benchmarks.evaluate.page import render_page
from dmcodec.benchmarks.evaluate.result import ClipScore
from dmcodec.benchmarks.evaluate.result_tables import failure_table
from dmcodec.sample import speech

RATE = 16000
NASTY = '<b>it\'s & "so"<script>alert(1)<'


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    root = tmp_path_factory.mktemp("page")
    talk = speech(6 * RATE, RATE)
    for folder in ("original", "good", "short"):
        (root / folder).mkdir()
    for index, name in enumerate((NASTY.replace("/", ""), "zwei")):
        wave = talk[index * 2 * RATE :][: 2 * RATE]
        soundfile.write(root / "original" / f"{name}.wav", wave, RATE)
        soundfile.write(root / "good" / f"{name}.wav", wave + 0.003 * np.sin(np.arange(len(wave))), RATE)
    soundfile.write(root / "short/zwei.wav", talk[2 * RATE : 3 * RATE], RATE)
    options = EvaluateOptions(
        root / "original",
        against=(Named(root / "good", NASTY), Named(root / "short")),
        metrics=("si-sdr", "mel"),
        allow_missing=True,
        report_clips=8,
        command="dmcodec evaluate <x>",
    )
    return run_evaluation(options)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("html") / "page.html"
    path.write_text(render_page(evaluation), encoding="utf-8")
    return path


def test_the_page_needs_nothing_from_outside_and_escapes_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    assert text.count("<script>") == 1
    assert "<x>" not in text
    assert "<b>it" not in text
    assert "&lt;b&gt;it&#x27;s &amp; &quot;so&quot;&lt;script&gt;" in text
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]*)"', text)
    assert len(sounds) == 5  # two originals, two good, one short
    assert [base64.b64decode(sound)[:4] for sound in sounds] == [b"RIFF"] * 5
    assert "no file of this name" in text


def test_spectrograms_show_where_the_energy_is() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    levels = levels_db(tone, 2 * RATE)
    assert levels.shape == (257, WIDTH_PX)
    assert levels[:, WIDTH_PX // 4].argmax() == 64  # 2 kHz of 8
    assert levels[:, -10:].max() < -100  # the second half of the axis has no sound
    assert HEIGHT_PX < WIDTH_PX


SETUP = """
const players = [...document.querySelectorAll('audio')];
const sleep = ms => new Promise(done => setTimeout(done, ms));
const until = async (test, what) => {
  for (let i = 0; i < 400; i++) { if (test()) return; await sleep(25); }
  throw new Error('never: ' + what);
};
"""


@pytest.fixture(scope="module")
def chromium(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that shows the page; at the end, no script failed and nothing was asked of the network."""
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        found.open(page)
        yield found
        assert found.errors == []


def test_the_page_plays_in_a_browser(chromium: Browser) -> None:
    images = chromium.run("return [...document.images].map(image => [image.complete, image.naturalWidth])")
    assert images == [[True, WIDTH_PX]] * 5
    found = chromium.run(
        SETUP
        + """
        const [first, second] = players;
        await first.play();
        await until(() => first.currentTime > 0.3, 'the first plays on');
        await second.play();
        await until(() => first.paused, 'the first stops');
        await until(() => second.currentTime > 0.4, 'the second goes on from there');
        const cards = document.querySelectorAll('.card.playing').length;
        const bar = second.closest('.card').querySelector('i');
        await until(() => parseFloat(bar.style.left.slice(5)) > 10, 'the bar');
        second.pause();
        return {durations: players.map(p => p.duration), cards, error: players.map(p => p.error)};
        """
    )
    assert found["durations"] == pytest.approx([2, 2, 2, 2, 1], abs=0.01)
    assert found["cards"] == 1
    assert found["error"] == [None] * 5

    clicked = chromium.run(
        SETUP
        + """
        const view = players[3].closest('.card').querySelector('.view');
        const box = view.getBoundingClientRect();
        view.dispatchEvent(new MouseEvent('click', {clientX: box.left + 0.5 * box.width, bubbles: true}));
        await until(() => !players[3].paused && players[3].currentTime > 1, 'plays from the middle');
        players[3].pause();
        return players.filter(player => !player.paused).length;
        """
    )
    assert clicked == 0


def test_every_player_seeks_to_every_place(chromium: Browser) -> None:
    found = chromium.run(
        SETUP
        + """
        for (const share of [0.3, 0.5, 0.95])
          await Promise.all(players.map(async player => {
            player.currentTime = share * player.duration;
            await until(() => !player.seeking || player.error, 'seeks');
          }));
        return players.map(player => player.error && player.error.message);
        """
    )
    assert found == [None] * 5


def test_the_page_fits_a_phone_and_a_dark_desktop(chromium: Browser) -> None:
    colours = []
    for width, dark in ((390, False), (390, True), (1200, True)):
        chromium.resize(width, dark=dark)
        assert not chromium.overflows()
        colours.append(chromium.run("return getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1] == colours[2]


BLIND = (
    SETUP
    + """
const find = id => document.getElementById(id);
const sounds = () => [...document.querySelectorAll('.stimulus button')];
const sliders = () => [...document.querySelectorAll('.stimulus input')];
const orders = () => JSON.parse(localStorage.getItem(Object.keys(localStorage)[0])).trials.map(trial => trial.order);
const rate = (slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); };
"""
)


def test_a_blind_test_is_played_rated_kept_and_exported(chromium: Browser, page: Path, tmp_path: Path) -> None:
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    played = chromium.run(
        BLIND
        + """
        find('blind-start').click();
        const hidden = getComputedStyle(find('page')).display;
        const shown = find('stimuli').innerText;
        document.dispatchEvent(new KeyboardEvent('keydown', {key: '0', bubbles: true}));
        const playing = () => players.filter(player => !player.paused);
        await until(() => playing().length && playing()[0].currentTime > 0.2, 'the reference plays');
        const pressed = [];
        for (const sound of sounds()) {
          sound.click();
          await until(() => playing().length === 1 && playing()[0].currentTime > 0.25, 'goes on from there');
          pressed.push([...document.querySelectorAll('#stimuli button')].map(button => button.ariaPressed));
        }
        sounds().at(-1).click();
        await until(() => !playing().length, 'the second click stops it');
        sounds()[0].click();
        await until(() => playing().length === 1, 'the first again');
        sounds()[0].click();
        const paused = players.every(player => player.paused);
        rate(sliders()[0], 73);
        find('listener').value = '<i>me</i>';
        find('listener').dispatchEvent(new Event('input'));
        return {hidden, shown, pressed, paused, order: orders(), state: find('blind-state').textContent,
          labels: sliders().map(slider => slider.getAttribute('aria-label'))};
        """
    )
    assert played["hidden"] == "none"
    assert "short" not in played["shown"]
    assert "<b>" not in played["shown"]
    # Only the sound that was clicked, also where it is the hidden reference.
    for sound, states in enumerate(played["pressed"]):
        assert [index for index, state in enumerate(states) if state == "true"] == [sound + 1]
    assert played["paused"]
    assert played["state"].startswith("1 of 5 sounds are rated. They are kept in this browser")
    assert all("0 bad to 100 excellent" in label for label in played["labels"])

    chromium.reload()
    again = chromium.run(
        BLIND
        + """
        find('blind-start').click();
        const order = orders(), first = sliders()[0].value, output = document.querySelector('output').textContent;
        while (!find('blind-next').disabled) { rate(sliders()[1], 100); find('blind-next').click(); }
        rate(sliders()[0], 0);
        find('blind-save').click();
        find('blind-reveal').click();
        return {order, first, output, results: find('blind-results').innerText, listener: find('listener').value,
          bold: document.querySelectorAll('#blind b, #blind i').length};
        """
    )
    assert again["order"] == played["order"]
    assert (again["first"], again["output"], again["listener"], again["bold"]) == ("73", "73", "<i>me</i>", 0)
    assert "original" in again["results"]

    deadline = time.monotonic() + 10
    while not (files := list(tmp_path.glob("ratings-*.json"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    saved = json.loads(files[0].read_text(encoding="utf-8"))
    assert (saved["format_version"], saved["listener"], saved["reference"]) == (1, "<i>me</i>", "original")
    assert [clip["order"] for clip in saved["clips"]] == again["order"]
    assert {clip["clip"] for clip in saved["clips"]} == {"zwei", NASTY.replace("/", "")}
    first, last = saved["clips"]
    assert (first["ratings"][first["order"][0]], first["ratings"][first["order"][1]]) == (73, 100)
    assert last["ratings"][last["order"][0]] == 0
    assert sum(value is None for clip in saved["clips"] for value in clip["ratings"].values()) == 2


def test_the_order_is_another_for_another_listener(chromium: Browser) -> None:
    seen = chromium.run(
        BLIND
        + """
        window.confirm = () => true;
        const seen = new Set();
        for (let i = 0; i < 40; i++) { find('blind-again').click(); seen.add(JSON.stringify(orders())); }
        const rated = find('blind-state').textContent;
        find('blind-leave').click();
        return {count: seen.size, rated, page: getComputedStyle(find('page')).display !== 'none'};
        """
    )
    assert seen["count"] > 5
    assert seen["rated"].startswith("0 of 5")
    assert seen["page"]


# Other evaluations


def test_two_thousand_reasons_leave_a_short_table(evaluation: Evaluation) -> None:
    column = evaluation.result.columns[0]
    reasons = [f"/home/somebody/speech/{index}.wav: can't be read" for index in range(1000)]
    reasons += [f"reason {index}" for index in range(1000)]
    clips = {str(index): ClipScore({}, {"mel": reason}) for index, reason in enumerate(reasons)}
    columns = (dataclasses.replace(column, clips=clips),)
    result = dataclasses.replace(evaluation.result, columns=columns, clips=dict.fromkeys(clips, 1.0))
    table = failure_table(result)
    assert table.rows[0][2:4] == ("1000", "the file: can't be read")  # one reason, one row
    assert len(table.rows) == 40
    assert "961 more rows are in the JSON only" in table.note
    text = render_page(dataclasses.replace(evaluation, result=result, audio={}))
    assert "somebody" not in text
    assert len(text) < 100_000


def test_bold_marks_the_best_and_all_that_look_like_it(evaluation: Evaluation) -> None:
    good, short = evaluation.result.columns
    same = dataclasses.replace(short, summary=good.summary, clips=good.clips)
    for columns, marked in (((good, short), 0), ((good, same), 4)):  # short: of fewer files
        result = dataclasses.replace(evaluation.result, columns=columns)
        text = render_page(dataclasses.replace(evaluation, result=result, audio={}))
        assert text.count('class="best"') == marked
    assert "Bold: the best mean of each metric" in text


def test_long_clips_are_cut_on_the_page(evaluation: Evaluation) -> None:
    audio = {"zwei": {name: np.zeros(100 * RATE, np.float32) for name in ("original", "short")}}
    found = dataclasses.replace(evaluation, audio=audio)
    assert longest_s(found) == 30
    assert "Of longer clips, the first 30 s are on the page; the figures are of the whole." in render_page(found)
    many = {str(index): audio["zwei"] for index in range(50)}
    assert longest_s(dataclasses.replace(found, audio=many)) == 12
