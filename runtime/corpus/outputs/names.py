"""Names of clips within an output: made of the ids, all different, and safe in a folder and in a tar."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

# Bytes of one part between slashes: file systems allow 255, and a suffix comes on top.
_PART_BYTES, _KEPT = 200, 120
_SLASH = re.compile(r"(?<![^/])/|/(?![^/])")  # begins or ends the id, or stands beside another one


def clip_name(clip_id: str) -> str:
    """Return a name for an id: other ids have other names, in ASCII.

    Parts between slashes stay parts. Letters, digits, `_`, `-` and `~` stay as they are, and all else becomes %XX. So
    do dots: readers of WebDataset end the name of a clip at the first dot, and no part is then `.` or `..`. So does a
    slash that has nothing on one of its sides. A part over 200 bytes is cut to 120, and its hash follows.
    """
    quoted = quote(clip_id, safe="/", errors="surrogatepass").replace(".", "%2E")
    return "/".join(map(_shortened, _SLASH.sub("%2F", quoted).split("/")))


def _shortened(part: str) -> str:
    if len(part) <= _PART_BYTES:
        return part
    return f"{part[:_KEPT]}%{hashlib.blake2b(part.encode(), digest_size=16).hexdigest()}"
