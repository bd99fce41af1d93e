"""The blind test of the listening page: a listener rates hidden codecs, and a hidden reference, from 0 to 100.

The scale, the open and the hidden reference, and the switching within a clip are those of MUSHRA (ITU-R BS.1534-3);
there is no anchor, and listeners are not screened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from html import escape

from .result import EvaluationResult

RATINGS_VERSION = 1
SCALE = "0 (bad) to 100 (excellent), MUSHRA-like, with a hidden reference and no anchor"

BLIND_STYLE = """
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .35rem .8rem; cursor: pointer; min-height: 2.4rem; }
button:hover:not(:disabled) { border-color: var(--accent); }
button:disabled { opacity: .45; cursor: default; }
button[aria-pressed="true"] { background: var(--accent); border-color: var(--accent); color: var(--page); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
#blind-title:focus { outline: none; }
[hidden] { display: none !important; }
#blind { max-width: 44rem; margin: 0 auto; }
#blind ol { padding-left: 1.3rem; }
.stimulus { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr) 2.6rem; gap: .3rem .8rem; align-items: center;
  padding: .7rem 0; border-bottom: 1px solid var(--line); }
.stimulus input { width: 100%; accent-color: var(--accent); height: 1.8rem; margin: 0; }
.stimulus input.unrated { opacity: .45; }
.stimulus output { text-align: right; font-variant-numeric: tabular-nums; }
.scale { grid-column: 2; display: flex; justify-content: space-around; color: var(--soft); font-size: .75rem; }
.buttons { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
#listener { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--line);
  border-radius: .3rem; padding: .3rem .5rem; max-width: 100%; }
#blind-results td { white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 30rem) {
  .stimulus { grid-template-columns: minmax(0, 1fr) 2.6rem; }
  .stimulus button { grid-column: 1 / -1; justify-self: start; }
  .scale { grid-column: 1; }
}
"""


def page_id(result: EvaluationResult) -> str:
    """Return 16 hex digits that identify the results: ratings are kept and saved under them."""
    text = json.dumps(dataclasses.asdict(result), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def blind_html(result: EvaluationResult) -> str:
    """Return the section of the blind test, hidden until it is asked for; the script fills it."""
    words = "".join(f"<span>{word}</span>" for word in ("bad", "poor", "fair", "good", "excellent"))
    return f"""<section id="blind" hidden data-page="{page_id(result)}" data-version="{RATINGS_VERSION}"
 data-scale="{escape(SCALE)}" aria-labelledby="blind-title">
<h1 id="blind-title" tabindex="-1">Blind test</h1>
<ol>
<li>Listen to the reference, then to the hidden sounds; switch as often as you like.</li>
<li>Rate how near each sound is to the reference, from 0 (bad) to 100 (excellent, no difference).
 One of them is the reference itself.</li>
<li>Save the ratings at the end. Keys: 0 plays the reference, 1 to 9 the sounds, arrows move a slider.</li>
</ol>
<p><label>Listener, if you like: <input id="listener" maxlength="80" autocomplete="off"></label></p>
<h2 id="trial" aria-live="polite"></h2>
<div id="stimuli"></div>
<template id="scale"><div class="scale" aria-hidden="true">{words}</div></template>
<div class="buttons">
<button type="button" id="blind-previous">Previous clip</button>
<button type="button" id="blind-next">Next clip</button>
<button type="button" id="blind-save">Save ratings (JSON)</button>
<button type="button" id="blind-reveal">Show what was what</button>
<button type="button" id="blind-again">Start over</button>
<button type="button" id="blind-leave">Back to the results</button>
</div>
<p class="soft" id="blind-state" role="status"></p>
<div id="blind-results"></div>
</section>"""


BLIND_SCRIPT = """
(() => {
  const find = id => document.getElementById(id);
  const section = find('blind'), start = find('blind-start');
  const { original, clips } = JSON.parse(find('clips').textContent);
  const all = [...document.querySelectorAll('audio')];
  const players = clips.map((clip, index) => {
    const own = all.filter(player => Number(player.dataset.clip) === index);
    return new Map(clip.columns.map((name, place) => [name, own[place]]));
  });
  const tested = clips.map((clip, index) => index).filter(index => clips[index].columns.length > 1);
  if (!tested.length) return;
  start.hidden = false;
  const key = 'dmcodec-ratings-' + section.dataset.page;

  const shuffled = values => {
    const found = [...values];
    for (let last = found.length - 1; last > 0; last--) {
      const other = Math.floor(Math.random() * (last + 1));
      [found[last], found[other]] = [found[other], found[last]];
    }
    return found;
  };
  const fresh = () => ({
    started: new Date().toISOString(), listener: '', trial: 0,
    trials: shuffled(tested).map(index => ({ clip: index, order: shuffled(clips[index].columns), ratings: {} })),
  });
  const same = (one, other) => [...one].sort().join('\\n') === [...other].sort().join('\\n');
  const fits = state => Array.isArray(state.trials) && same(state.trials.map(trial => trial.clip), tested)
    && state.trials.every(trial => same(trial.order, clips[trial.clip].columns) && typeof trial.ratings === 'object')
    && state.trial >= 0 && state.trial < tested.length;
  let kept = true;
  const read = () => {
    try {
      const state = JSON.parse(localStorage.getItem(key));
      return state && fits(state) ? state : fresh();
    } catch { return fresh(); }
  };
  const write = () => {
    try { localStorage.setItem(key, JSON.stringify(state)); kept = true; } catch { kept = false; }
    tell();
  };
  let state = read();

  const letter = place => String.fromCharCode(65 + place % 26) + (place < 26 ? '' : Math.floor(place / 26));
  const trial = () => state.trials[state.trial];
  const player = name => players[trial().clip].get(name);
  const buttons = new Map();
  const rated = () => state.trials.reduce((sum, each) => sum + Object.keys(each.ratings).length, 0);
  const wanted = state.trials.reduce((sum, each) => sum + each.order.length, 0);

  const tell = () => {
    const where = kept ? 'They are kept in this browser until you start over.'
      : 'This browser keeps nothing for this page: save them before you leave it.';
    find('blind-state').textContent = rated() + ' of ' + wanted + ' sounds are rated. ' + where;
    find('blind-save').disabled = rated() === 0;
    find('blind-reveal').disabled = rated() === 0;
  };
  const stop = () => { for (const each of all) each.pause(); };
  // The hidden reference has the player of the open one: buttons are told apart by their place, never by the player.
  let active = null;
  const press = () => {
    for (const [place, button] of buttons)
      button.setAttribute('aria-pressed', String(place === active && !button.player.paused));
  };
  const toggle = place => {
    const chosen = buttons.get(place).player, ends = active === place && !chosen.paused;
    stop();
    active = place;
    if (!ends) chosen.play();
    press();
  };
  for (const each of all) for (const event of ['play', 'pause', 'ended']) each.addEventListener(event, press);

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const playButton = (label, name, place) => {
    const button = element('button', { type: 'button', textContent: label });
    button.player = player(name);
    button.setAttribute('aria-pressed', 'false');
    button.addEventListener('click', () => toggle(place));
    buttons.set(place, button);
    return button;
  };
  const stimulus = (name, place) => {
    const label = 'Sound ' + letter(place), value = trial().ratings[name];
    const button = playButton('Play ' + letter(place), name, place + 1);
    const slider = element('input', { type: 'range', min: 0, max: 100, step: 1, value: value ?? 50 });
    slider.setAttribute('aria-label', label + ', 0 bad to 100 excellent');
    slider.classList.toggle('unrated', value === undefined);
    const output = element('output', { textContent: value ?? '\\u2013' });
    const rate = () => {
      trial().ratings[name] = Number(slider.value);
      output.textContent = slider.value;
      slider.classList.remove('unrated');
      write();
    };
    slider.addEventListener('input', rate);
    slider.addEventListener('pointerup', rate);
    return element('div', { className: 'stimulus' }, button, slider, output, find('scale').content.cloneNode(true));
  };
  const show = () => {
    stop();
    buttons.clear();
    const clip = clips[trial().clip];
    for (const each of players[trial().clip].values()) Object.assign(each, { preload: 'auto', currentTime: 0 });
    find('trial').textContent = 'Clip ' + (state.trial + 1) + ' of ' + state.trials.length + ': ' + clip.name;
    const reference = playButton('Play reference', original, 0);
    find('stimuli').replaceChildren(element('p', {}, reference), ...trial().order.map(stimulus));
    find('blind-previous').disabled = state.trial === 0;
    find('blind-next').disabled = state.trial === state.trials.length - 1;
    find('listener').value = state.listener;
    find('blind-results').replaceChildren();
    tell();
  };
  const go = step => { state.trial += step; write(); show(); };

  const exported = () => ({
    format_version: Number(section.dataset.version), page: section.dataset.page, title: document.title,
    scale: section.dataset.scale, listener: state.listener, started: state.started,
    exported: new Date().toISOString(), reference: original,
    clips: state.trials.map(each => ({
      clip: clips[each.clip].name, order: each.order,
      ratings: Object.fromEntries(each.order.map(name => [name, each.ratings[name] ?? null])),
    })),
  });
  const save = () => {
    const text = JSON.stringify(exported(), null, 1) + '\\n';
    const link = element('a', { download: 'ratings-' + section.dataset.page + '.json' });
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const reveal = () => {
    const names = [...new Set(clips.flatMap(clip => clip.columns))];
    const rows = names.map(name => {
      const values = state.trials.map(each => each.ratings[name]).filter(value => value !== undefined);
      const sum = values.reduce((total, value) => total + value, 0);
      const mean = values.length ? (sum / values.length).toFixed(1) : '\\u2013';
      return element('tr', {}, element('td', { className: 'label', textContent: name }),
        element('td', { textContent: mean }), element('td', { textContent: values.length }));
    });
    const head = ['codec', 'mean rating', 'clips'].map((text, place) =>
      element('th', { textContent: text, className: place ? '' : 'label', scope: 'col' }));
    const order = 'This clip: ' + trial().order.map((name, place) => letter(place) + ' is ' + name).join(', ') + '.';
    const table = element('table', {}, element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows));
    find('blind-results').replaceChildren(element('p', { textContent: order }),
      element('div', { className: 'wide' }, table));
  };

  const turn = on => {
    stop();
    section.hidden = !on;
    find('page').hidden = on;
    if (on) { write(); show(); find('blind-title').focus(); } else start.focus();
  };
  start.addEventListener('click', () => turn(true));
  find('blind-leave').addEventListener('click', () => turn(false));
  find('blind-next').addEventListener('click', () => go(1));
  find('blind-previous').addEventListener('click', () => go(-1));
  find('blind-save').addEventListener('click', save);
  find('blind-reveal').addEventListener('click', reveal);
  find('blind-again').addEventListener('click', () => {
    if (!confirm('Delete all ratings and shuffle again?')) return;
    state = fresh();
    write();
    show();
  });
  find('listener').addEventListener('input', event => { state.listener = event.target.value; write(); });
  document.addEventListener('keydown', event => {
    const typing = event.target.id === 'listener' || event.ctrlKey || event.altKey || event.metaKey;
    if (section.hidden || typing || !/^[0-9]$/.test(event.key)) return;
    if (buttons.has(Number(event.key))) toggle(Number(event.key));
  });
})();
"""
