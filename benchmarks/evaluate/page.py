"""The listening page: one HTML file with tables, players and spectrograms, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.audio import Waveform, to_pcm16
from dmcodec.benchmarks.pages import html_page, html_table
from dmcodec.benchmarks.stability.figure import stability_figure
from dmcodec.benchmarks.stability.result_tables import stability_tables
from dmcodec.benchmarks.tables import Table
from dmcodec.errors import MissingDependencyError

from .columns import Column
from .metrics import METRICS
from .options import ORIGINAL
from .page_assets import SCRIPT, STYLE
from .result import ClipScore, ColumnResult, Evaluation, EvaluationResult
from .result_tables import (
    bitrate,
    codebook_table,
    definition_table,
    failure_table,
    quality_table,
    stability_of,
    summary_lines,
)
from .signal_metrics import SAMPLE_RATE
from .spectra import magnitudes

N_FFT = 512
RANGE_DB = 80.0
WIDTH_PX, HEIGHT_PX = 720, 192
_FLOOR = 1e-7


def render_page(evaluation: Evaluation) -> str:
    """Return the whole page as HTML. It holds the metrics' input as 16-bit FLAC at 16 kHz, and spectrograms as WebP.

    Raises:
        MissingDependencyError: matplotlib or Pillow isn't installed.
    """
    require_plotting()
    result = evaluation.result
    body = "\n".join(
        (
            "<h1>dmcodec evaluate</h1>",
            _head(result),
            _quality(quality_table(result), result) if result.metrics else "",
            html_table(definition_table(result)) if result.metrics else "",
            _clips(evaluation),
            _stability(result),
            *(html_table(table) for table in (codebook_table(result), failure_table(result)) if table.rows),
            _record(result),
        )
    )
    return html_page(f"dmcodec evaluate: {result.reference}", body, STYLE, SCRIPT)


def _head(result: EvaluationResult) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(result))
    return f'<div class="lines">{lines}</div>\n<p class="soft">{escape(result.date)}</p>'


def _record(result: EvaluationResult) -> str:
    command = f"<p><code>{escape(result.command)}</code></p>" if result.command else ""
    return f'<h2>Record</h2>\n<div class="lines"><p>dmcodec {escape(result.dmcodec_version)}</p>{command}</div>'


def _quality(table: Table, result: EvaluationResult) -> str:
    """Return the quality table; the best value of each metric is marked, whatever its interval."""
    best = {key: _best(key, result) for key in result.metrics}
    columns = (result.original, *result.columns) if result.original else result.columns
    rows = []
    for column, row in zip(columns, table.rows, strict=True):
        cells = [f'<td class="label">{escape(row[0])}</td>', f"<td>{escape(row[1])}</td>"]
        for key, text in zip(result.metrics, row[2:], strict=True):
            value, *rest = text.split("\n")
            mark = ' class="best"' if column.column.name == best[key] else ""
            small = "".join(f"<small>{escape(line)}</small>" for line in rest)
            cells.append(f"<td><span{mark}>{escape(value)}</span>{small}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>\n")
    return html_table(table, "".join(rows))


def _stability(result: EvaluationResult) -> str:
    """Return the tables of token stability, and the figure below the first one; "" where it was not measured."""
    found = stability_of(result)
    tables = [html_table(table) for table in stability_tables(found)]
    figure = stability_figure(found)
    return "\n".join((*tables[:1], f'<figure class="stability">{figure}</figure>' if figure else "", *tables[1:]))


def _best(key: str, result: EvaluationResult) -> str | None:
    """Return the name of the column with the best value; None for fewer than two columns with a value."""
    estimates = {
        column.column.name: column.summary[key].value
        for column in result.columns
        if column.summary[key].value is not None
    }
    values = {name: value for name, value in estimates.items() if value is not None}
    if len(values) < 2:
        return None
    return (max if METRICS[key].higher_is_better else min)(values, key=lambda name: values[name])


def _clips(evaluation: Evaluation) -> str:
    if not evaluation.audio:
        return ""
    result, shown = evaluation.result, len(evaluation.audio)
    total = len(result.clips)
    selection = "All files" if shown == total else f"{shown} of {total} files, evenly spread over their names"
    sections = "\n".join(
        _clip(index, name, audio, result) for index, (name, audio) in enumerate(evaluation.audio.items())
    )
    text = (
        f"{selection}. The audio is the input of the metrics: 16 kHz mono, here as 16-bit FLAC. Spectrograms: 0 to "
        f"8 kHz, a range of {RANGE_DB:g} dB below the loudest point of the original, one scale for each clip. Click "
        "into a spectrogram to play from that time."
    )
    switch = '<input type="checkbox" id="keep" checked> Continue at the same time when switching within a clip'
    head = f'<h2>Listen</h2>\n<p class="soft">{escape(text)}</p>\n<div class="bar"><label>{switch}</label></div>'
    return f"{head}\n{sections}"


def _clip(index: int, name: str, audio: Mapping[str, Waveform], result: EvaluationResult) -> str:
    num_samples = max(len(waveform) for waveform in audio.values())
    loudest_db = float(levels_db(audio[ORIGINAL], num_samples).max())
    cards = "\n".join(
        _card(index, column, audio.get(column.column.name), num_samples, loudest_db, name)
        for column in _with_original(result)
    )
    text = result.reference_texts.get(name)
    paragraph = f'<p class="text">{escape(text)}</p>' if text else ""
    duration = f"{len(audio[ORIGINAL]) / SAMPLE_RATE:.2f} s"
    return (
        f'<section class="clip">\n<header><h3>{escape(name)}</h3><span class="soft">{duration}</span></header>\n'
        f'{paragraph}\n<div class="grid">\n{cards}\n</div>\n</section>'
    )


def _with_original(result: EvaluationResult) -> Iterator[ColumnResult]:
    yield result.original or ColumnResult(Column(ORIGINAL, result.reference, "the reference"), {}, None, {})
    yield from result.columns


def _card(
    index: int, column: ColumnResult, waveform: Waveform | None, num_samples: int, loudest_db: float, clip: str
) -> str:
    name, score = column.column.name, column.clips.get(clip)
    rate = "" if column.column.bitrate_bps is None else f"<span>{escape(bitrate(column))} kbit/s</span>"
    head = f'<div class="card"><h4>{escape(name)}{rate}</h4>'
    if waveform is None:
        reason = next(iter(score.failures.values())) if score and score.failures else "no audio"
        return f'{head}<p class="soft">{escape(reason)}</p></div>'
    image = _data("image/webp", spectrogram_webp(waveform, num_samples, loudest_db))
    sound = _data("audio/flac", _flac(waveform))
    # Audio that is shorter than the longest of the clip covers only this share of the image's width.
    share = len(waveform) / num_samples
    return (
        f'{head}<div class="view"><img alt="spectrogram of {escape(name)}" src="{image}">'
        '<span class="top">8 kHz</span><span class="low">0</span><i></i></div>'
        f'<audio controls preload="metadata" data-clip="{index}" data-share="{share:.6f}" src="{sound}"></audio>'
        f"{_scores(score)}</div>"
    )


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
    return f"<dl>{''.join(rows)}</dl>{heard}"


def _flac(waveform: Waveform) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm16(waveform), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def require_plotting() -> None:
    """Raise MissingDependencyError where matplotlib or Pillow isn't installed."""
    for module, package in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f'the page needs {package}; run `pip install "dmcodec[evaluate]"`')


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
