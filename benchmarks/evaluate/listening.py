"""The clips of the listening page: of each codec a player, a spectrogram with its time axis, and the clip's figures."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform

from .columns import Column
from .metrics import METRICS
from .options import ORIGINAL
from .result import ClipScore, ColumnResult, Evaluation, EvaluationResult
from .result_tables import bitrate
from .signal_metrics import SAMPLE_RATE
from .sounds import Sound
from .spectra import magnitudes

N_FFT = 512
RANGE_DB = 80.0
WIDTH_PX, HEIGHT_PX = 720, 192
# Bounds of the page: it must open on a phone. Clips beyond the first few are folded until they are asked for.
OPEN_CLIPS = 8
MAX_CLIP_S, MIN_CLIP_S = 30.0, 3.0
MAX_AUDIO_S = 1200.0
_FLOOR = 1e-7
# A full-scale sine has 42 dB on this scale. An original whose loudest point is below this level counts as silent.
SILENCE_DB = -40.0
_TICKS = 5


def clips_html(evaluation: Evaluation, sound: Sound) -> str:
    """Return the section to listen; empty where no audio was kept. Spectrograms are WebP."""
    if not evaluation.audio:
        return ""
    result, most = evaluation.result, longest_s(evaluation)
    sections = "\n".join(_clip(index, name, most, evaluation, sound) for index, name in enumerate(evaluation.audio))
    switch = '<input type="checkbox" id="keep" checked> Continue at the same time when switching within a clip'
    start = '<button type="button" id="blind-start" hidden>Blind test</button>'
    return (
        f'<section id="listen"><h2>Listen</h2>\n<p class="soft">{escape(_words(evaluation, most, sound))}</p>\n'
        f'<div class="bar"><label>{switch}</label>{start}</div>\n{sections}\n'
        f'<script type="application/json" id="clips">{_table_of_clips(result, evaluation.audio)}</script></section>'
    )


def longest_s(evaluation: Evaluation) -> float:
    """Return how many seconds of each clip are on the page, so that the page stays of a size that opens anywhere."""
    sounds = sum(len(audio) for audio in evaluation.audio.values())
    return min(MAX_CLIP_S, max(MIN_CLIP_S, MAX_AUDIO_S / max(1, sounds)))


def _words(evaluation: Evaluation, most: float, sound: Sound) -> str:
    shown, total = len(evaluation.audio), len(evaluation.result.clips)
    lines = ["All files." if shown == total else f"{shown} of {total:,} files, evenly spread over their names."]
    if shown < total:
        lines.append("The figures of every file are in the JSON (--json).")
    if any(len(waveform) > most * SAMPLE_RATE for audio in evaluation.audio.values() for waveform in audio.values()):
        lines.append(f"Of longer clips, the first {most:.0f} s are on the page; the figures are of the whole.")
    lines.append(
        f"The audio is the input of the metrics: 16 kHz mono, here as {sound.described}. Spectrograms: 0 to 8 kHz, a "
        f"range of {RANGE_DB:g} dB below the loudest point of the original, one scale for each clip. Click into a "
        "spectrogram to play from that time."
    )
    return " ".join(lines)


def _table_of_clips(result: EvaluationResult, audio: Mapping[str, Mapping[str, Waveform]]) -> str:
    """Return name and columns of each clip as JSON, in the order of the players; a script must not end within it."""
    names = [column.column.name for column in _with_original(result)]
    clips = [
        {"name": clip, "columns": [name for name in names if name in waveforms]} for clip, waveforms in audio.items()
    ]
    return json.dumps({"original": ORIGINAL, "clips": clips}).replace("<", "\\u003c")


def _clip(index: int, name: str, most: float, evaluation: Evaluation, sound: Sound) -> str:
    result = evaluation.result
    whole = evaluation.audio[name]
    audio = {column: waveform[: round(most * SAMPLE_RATE)] for column, waveform in whole.items()}
    num_samples = max(len(waveform) for waveform in audio.values())
    loudest_db = float(levels_db(audio[ORIGINAL], num_samples).max())
    silent = loudest_db < SILENCE_DB
    cards = "\n".join(
        _card(index, column, audio.get(column.column.name), num_samples, max(loudest_db, SILENCE_DB), name, sound)
        for column in _with_original(result)
    )
    text = result.reference_texts.get(name)
    paragraph = f'<p class="text">{escape(text)}</p>' if text else ""
    duration = f"{len(whole[ORIGINAL]) / SAMPLE_RATE:.2f} s{', the original is silent' if silent else ''}"
    return (
        f'<details class="clip"{" open" if index < OPEN_CLIPS else ""}>\n<summary><h3>{escape(name)}</h3>'
        f'<span class="soft">{duration}</span></summary>\n{paragraph}\n<div class="grid">\n{cards}\n</div>\n</details>'
    )


def _with_original(result: EvaluationResult) -> Iterator[ColumnResult]:
    yield result.original or ColumnResult(Column(ORIGINAL, result.reference, "the reference"), {}, None, {})
    yield from result.columns


def _card(
    index: int,
    column: ColumnResult,
    waveform: Waveform | None,
    num_samples: int,
    loudest_db: float,
    clip: str,
    sound: Sound,
) -> str:
    name, score = column.column.name, column.clips.get(clip)
    rate = "" if column.column.bitrate_bps is None else f"<span>{escape(bitrate(column))} kbit/s</span>"
    head = f'<div class="card"><h4>{escape(name)}{rate}</h4>'
    if waveform is None:
        reason = next(iter(score.failures.values())) if score and score.failures else "no audio"
        return f'{head}<p class="soft">{escape(reason)}</p></div>'
    image = _data("image/webp", spectrogram_webp(waveform, num_samples, loudest_db))
    audio = _data(sound.media_type, sound.encode(waveform))
    preload = "metadata" if index < OPEN_CLIPS else "none"
    # Audio that is shorter than the longest of the clip covers only this share of the image's width.
    share = len(waveform) / num_samples
    return (
        f'{head}<div class="view"><img alt="spectrogram of {escape(name)}" src="{image}">'
        f'<span class="top">8 kHz</span><span class="low">0</span><i></i></div>{_time_axis(num_samples / SAMPLE_RATE)}'
        f'<audio controls preload="{preload}" data-clip="{index}" data-share="{share:.6f}" '
        f'aria-label="{escape(name)}, {escape(clip)}" src="{audio}"></audio>{_scores(score)}</div>'
    )


def _time_axis(duration_s: float) -> str:
    """Return the ticks below a spectrogram. The last may stand a little left of its place, to stay in the card."""
    ticks = "".join(
        f'<span style="left: {100 * time_s / duration_s:.2f}%">{escape(label)}</span>'
        for time_s, label in time_ticks(duration_s)
    )
    return f'<div class="time" aria-hidden="true">{ticks}</div>'


def time_ticks(duration_s: float) -> list[tuple[float, str]]:
    """Return times in seconds from 0 on, at round distances, and their labels; none near the end."""
    scale = 10.0 ** math.floor(math.log10(duration_s / _TICKS))
    step_s = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale * _TICKS >= duration_s)
    unit, name = (1.0, "s") if step_s >= 0.1 else (1e3, "ms") if step_s >= 1e-4 else (1e6, "µs")
    times = [index * step_s for index in range(_TICKS + 1) if index * step_s <= 0.94 * duration_s]
    return [(time_s, f"{time_s * unit:.6g}{f' {name}' if time_s else ''}") for time_s in times]


def _scores(score: ClipScore | None) -> str:
    if score is None:
        return ""
    rows = []
    for key, metric in METRICS.items():
        if key in score.values:
            unit = f" {metric.unit}" if metric.unit else ""
            rows.append(f"<div><dt>{escape(metric.label)}</dt><dd>{metric.text(score.values[key])}{unit}</dd></div>")
        elif key in score.failures:
            rows.append(
                f'<div title="{escape(score.failures[key])}"><dt>{escape(metric.label)}</dt><dd>none</dd></div>'
            )
    heard = f'<p class="heard">“{escape(score.text)}”</p>' if score.text else ""
    return (f"<dl>{''.join(rows)}</dl>" if rows else "") + heard


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def levels_db(waveform: Waveform, num_samples: int) -> NDArray[np.float64]:
    """Compute the short-time level in dB: (samples,) -> (frequencies, WIDTH_PX), lowest frequency first.

    The time axis spans `num_samples`; a shorter waveform is padded with silence.
    """
    padded = np.zeros(max(num_samples, N_FFT) + N_FFT)
    padded[N_FFT // 2 :][: len(waveform)] = waveform[:num_samples]
    frames = magnitudes(padded, N_FFT, max(1, num_samples // (2 * WIDTH_PX)))
    columns = np.linspace(0, frames.shape[1], WIDTH_PX + 1).astype(int)[:-1]
    return np.asarray(20 * np.log10(np.maximum(np.maximum.reduceat(frames, columns, axis=1), _FLOOR)))


def spectrogram_webp(waveform: Waveform, num_samples: int, loudest_db: float) -> bytes:
    """Draw a spectrogram of WIDTH_PX x HEIGHT_PX, 0 Hz at the bottom, with `loudest_db` as the lightest level.

    Levels of `loudest_db` - RANGE_DB and below are black.
    """
    from matplotlib import colormaps
    from PIL import Image

    shares = np.clip((levels_db(waveform, num_samples) - loudest_db) / RANGE_DB + 1, 0, 1)
    pixels = colormaps["magma"](np.flipud(shares), bytes=True)[..., :3]
    buffer = io.BytesIO()
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS)
    resized.save(buffer, "WEBP", quality=72, method=4)
    return buffer.getvalue()
