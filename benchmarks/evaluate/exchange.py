"""Results of an evaluation as other suites write them: VERSA's JSON lines, Codec-SUPERB's result file."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .metrics import WORD_METRICS
from .result import ClipScore, ColumnResult, EvaluationResult

# Metric -> VERSA's key.
VERSA_KEYS = {
    "pesq": "pesq",
    "stoi": "stoi",
    "estoi": "estoi",
    "visqol": "visqol",
    "si-sdr": "si_snr",
    "si-snr": "si_snr",
    "mcd": "mcd",
    "f0-corr": "f0corr",
    "f0-rmse": "f0rmse",
    "vuv": "vuv",
    "dnsmos": "dns_overall",
    "dnsmos-p808": "dns_p808",
    "utmos": "utmos",
    "speaker": "spk_similarity",
}
# Codec-SUPERB's name -> metric. Its `pesq` is wideband, too.
SUPERB_NAMES = {
    "mel": "superb-mel",
    "stft": "superb-stft",
    "waveform": "superb-waveform",
    "pesq": "pesq",
    "pesq-wb": "pesq",
    "stoi": "stoi",
    "f0corr": "f0-corr",
}
SUPERB_CATEGORIES = ("Speech", "overall")


def versa_lines(column: ColumnResult, result: EvaluationResult) -> str:
    """Return one JSON object a line for each clip of a column: `key`, and the metrics that VERSA has a name for.

    A metric without a value has no key (VERSA writes 0 or NaN there).
    """
    prefix = "whisper" if "(whisper" in "".join(result.definitions.get(key, "") for key in WORD_METRICS) else "asr"
    lines = [
        {
            "key": name,
            **{ours: score.values[key] for key, ours in VERSA_KEYS.items() if key in score.values},
            **_words(score, result.reference_texts.get(name, ""), prefix),
        }
        for name, score in column.clips.items()
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _words(score: ClipScore, reference: str, prefix: str) -> dict[str, Any]:
    if score.words is None:
        return {}
    counts = {
        "delete": score.words.deletions,
        "insert": score.words.insertions,
        "replace": score.words.substitutions,
        "equal": score.words.hits,
    }
    texts = {f"{prefix}_hyp_text": score.text, "ref_text": reference}
    return {**texts, **{f"{prefix}_wer_{name}": count for name, count in counts.items()}}


def versa_paths(path: Path, result: EvaluationResult) -> Mapping[Path, ColumnResult]:
    """Return the file of each column: `path` for a single one, else with the column's name before the suffix."""
    if len(result.columns) == 1:
        return {path: result.columns[0]}
    found: dict[Path, ColumnResult] = {}
    for column in result.columns:
        stem = re.sub(r"[^\w.+-]+", "_", column.column.name).strip("_") or "codec"
        candidates = (f"{path.stem}.{stem}{count}{path.suffix}" for count in ("", *range(2, len(result.columns) + 2)))
        found[next(each for name in candidates if (each := path.with_name(name)) not in found)] = column
    return found


def versa_candidates(path: Path) -> list[Path]:
    """Return files that exist and have the form of those that `versa_paths` names."""
    if path.exists():
        return [path]
    pattern = f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"
    return sorted(path.parent.glob(pattern)) if path.parent.is_dir() else []


def codec_superb(result: EvaluationResult) -> str:
    """Return Codec-SUPERB's result file: for each codec and category the mean of each metric, over clips with a value.

    All clips count as its category Speech. A metric without any value is left out.
    """
    codecs = {}
    for column in result.columns:
        means = {
            name: column.summary[key].value
            for name, key in SUPERB_NAMES.items()
            if key in column.summary and column.summary[key].value is not None
        }
        codecs[column.column.name] = dict.fromkeys(SUPERB_CATEGORIES, means)
    return json.dumps(codecs, indent=4, ensure_ascii=False) + "\n"
