"""Files that are given for audio by mistake: each is named as what it is."""

from __future__ import annotations

from .errors import AudioError
from .streams import Input

_KINDS = {
    b"\x89dmc": "is a token file, not audio; `dmcodec decode` reads it",
    b"version https://git-lfs": "is the pointer of a Git LFS file, not audio; fetch the file with `git lfs pull`",
    b"<!doctype html": "is a web page, not audio; fetch the file itself again",
    b"<html": "is a web page, not audio; fetch the file itself again",
}


def refuse_no_audio(source: Input) -> None:
    """Raise AudioError for an empty file, a token file, a web page, or the pointer of a Git LFS file."""
    if source.size == 0:
        raise AudioError(f"{source.name}: is empty, and can't be read as audio")
    head = source.read(0, 64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, problem in _KINDS.items():
        if head.startswith(start):
            raise AudioError(f"{source.name}: {problem}")
