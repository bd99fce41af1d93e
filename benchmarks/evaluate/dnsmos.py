"""DNSMOS: scores of speech quality that need no reference, with the models that come with speechmos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError
from dmcodec.runtime.onnxruntime_import import import_onnxruntime

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
    if len(waveform) < MIN_S * sample_rate:
        raise MetricError(f"shorter than {MIN_S:g} s, too short for DNSMOS")
    peak = float(np.abs(waveform).max())
    if peak == 0:
        raise MetricError("the clip is silent: DNSMOS has no meaning")
    scores = _scorer()(np.clip(waveform / max(1.0, peak), -1, 1).astype(np.float32), sample_rate, False)
    return {key: float(scores[name]) for key, name in NAMES.items()}


@functools.cache
def _scorer() -> Callable[[Waveform, int, bool], Mapping[str, Any]]:
    """Return speechmos's computation, on sessions of one thread: its own take all CPUs in each worker process."""
    onnxruntime = import_onnxruntime()  # before speechmos imports it, with telemetry
    from speechmos import dnsmos as package

    folder = Path(package.__file__).parent / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    scorer = package.DNSMOS.__new__(package.DNSMOS)
    for attribute, name in (("onnx_sess", "sig_bak_ovr.onnx"), ("p808_onnx_sess", "model_v8.onnx")):
        session = onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        setattr(scorer, attribute, session)
    return scorer
