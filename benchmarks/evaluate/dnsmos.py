"""DNSMOS: scores of speech quality that need no reference, with the models that come with speechmos."""

from __future__ import annotations

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError

MIN_S = 1.0
# Key -> name in the result of speechmos.
NAMES = {"dnsmos": "ovrl_mos", "dnsmos-sig": "sig_mos", "dnsmos-bak": "bak_mos", "dnsmos-p808": "p808_mos"}


def dnsmos(waveform: Waveform, sample_rate: int) -> dict[str, float | MetricError]:
    """Compute DNSMOS P.835 (arXiv 2110.01763) and P.808 (arXiv 2010.15258) of (samples,) at 16 kHz.

    Clips of less than 9.01 s are repeated to that length; of longer ones, the scores of windows 1 s apart are averaged
    (both in speechmos). Samples beyond 1 are refused by speechmos: such a clip is scaled to a peak of 1.

    Raises:
        MetricError: the clip is silent, or shorter than 1 s.
    """
    from speechmos import dnsmos as models

    if len(waveform) < MIN_S * sample_rate:
        raise MetricError(f"shorter than {MIN_S:g} s, too short for DNSMOS")
    peak = float(np.abs(waveform).max())
    if peak == 0:
        raise MetricError("the clip is silent: DNSMOS has no meaning")
    scores = models.run(np.clip(waveform / max(1.0, peak), -1, 1).astype(np.float32), sr=sample_rate)
    return {key: float(scores[name]) for key, name in NAMES.items()}
