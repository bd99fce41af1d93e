"""Reference texts: a TSV file of path and text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dmcodec.audio import AUDIO_SUFFIXES
from dmcodec.errors import EvaluationError, InputNotFoundError


def read_transcripts(path: Path) -> Mapping[str, str]:
    """Texts by clip name from lines of `path<TAB>text`; the paths are below the reference folder, suffix or not.

    Raises:
        InputNotFoundError: no such file.
        EvaluationError: not such a file; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file of transcripts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: can't be read as a TSV file of transcripts ({error})") from None
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise EvaluationError(f"{path}: line {number} has no tab; expected path<TAB>text")
        name = _clip_name(file.strip())
        if name in texts:
            raise EvaluationError(f"{path}: line {number} names {name} a second time")
        texts[name] = text.strip()
    if not texts:
        raise EvaluationError(f"{path}: holds no transcripts")
    return texts


def _clip_name(file: str) -> str:
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in AUDIO_SUFFIXES else str(path)
