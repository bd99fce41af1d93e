"""Make what the tests of the JavaScript runtime compare with: speech, and what the Python runtime makes of it.

    python scripts/make_web_fixtures.py

Writes runtime/web/test/fixtures/: two seconds of the sample speech as 16-bit samples at 16 kHz (speech.raw), its tokens
by the built-in codec (speech.dmc), and the decoded speech (decoded.raw, 16-bit samples). Run it when the built-in codec
changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmcodec.runtime import Codec
from dmcodec.sample import speech

FOLDER = Path(__file__).parents[1] / "runtime/web/test/fixtures"
SECONDS = 2.01


def main() -> None:
    """Write the files."""
    codec = Codec.load(threads=1)
    samples = np.round(speech(round(SECONDS * codec.sample_rate), codec.sample_rate) * 32768).astype("<i2")
    tokens = codec.encode(samples, codec.sample_rate)
    decoded = np.clip(np.round(codec.decode(tokens) * 32768), -32768, 32767).astype("<i2")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "speech.raw").write_bytes(samples.tobytes())
    (FOLDER / "decoded.raw").write_bytes(decoded.tobytes())
    tokens.save(FOLDER / "speech.dmc")


if __name__ == "__main__":
    main()
