"""Options of `dmcodec evaluate`, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.transformers import is_transformers
from dmcodec.checkpoint_files import is_bundle
from dmcodec.errors import ArgumentError

from .metrics import METRICS, SIGNAL_METRICS, SPEAKER_METRIC, WORD_METRICS

ORIGINAL = "original"
MAX_REPORT_CLIPS = 50  # a page with more opens too slowly
NORMALISERS = ("english", "basic")
DEFAULT_SPEAKER_MODEL = "microsoft/wavlm-base-plus-sv"


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate.

    Attributes:
        reference: folder of the original audio.
        codecs: bundles (folders), checkpoints (files) and models of transformers that reconstruct the reference.
        config: configuration file of the checkpoints; by default that of the released models.
        against: folders of the reference's files as other codecs reconstructed them, under the same names.
        n_q: numbers of quantizer levels; each codec gets one column for each. Empty: all levels of the codec.
        bandwidths: in kbit/s, instead of `n_q`.
        metrics: keys of METRICS; None: all signal metrics, and the metrics whose model is named.
        recogniser: id or folder of a transformers model for WER and WIL, CTC or Whisper.
        transcripts: TSV file of path and text; without it, the recogniser's text of the original is the reference.
        language: language of the speech, for multilingual Whisper models; None: they detect it.
        normaliser: normalisation of texts, one of NORMALISERS.
        speaker_model: id or folder of a transformers x-vector model, or "resemblyzer".
        published: JSON file of figures that others published, to show beside the measured ones.
        limit: number of files to take, the first in order of their names; None: all.
        allow_missing: accept a folder that lacks files; these count as failed.
        jobs: processes that compute signal metrics.
        threads: CPU threads of codecs and models; by default one for each CPU that this process may use.
        seed: seed of the bootstrap.
        report_clips: number of clips whose audio is kept for the listening page, MAX_REPORT_CLIPS at most.
        command: the command line, for the record.
    """

    reference: Path
    codecs: tuple[Named, ...] = ()
    config: Path | None = None
    against: tuple[Named, ...] = ()
    n_q: tuple[int, ...] = ()
    bandwidths: tuple[float, ...] = ()
    metrics: tuple[str, ...] | None = None
    recogniser: str | None = None
    transcripts: Path | None = None
    language: str | None = "en"
    normaliser: str = "english"
    speaker_model: str | None = None
    published: Path | None = None
    limit: int | None = None
    allow_missing: bool = False
    jobs: int = 1
    threads: int | None = None
    seed: int = 0
    report_clips: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        if not self.codecs and not self.against:
            raise ArgumentError("nothing to evaluate: name a codec with --codec or a folder of audio with --against")
        self._check_numbers()
        self._check_metrics()
        if self.normaliser not in NORMALISERS:
            raise ArgumentError(f"--normaliser {self.normaliser!r} is not known; use one of {', '.join(NORMALISERS)}")
        if self.config and all(is_bundle(codec.path) or is_transformers(codec.path) for codec in self.codecs):
            raise ArgumentError("--config belongs to a checkpoint, and no --codec is one; leave it out")
        if self.n_q and self.bandwidths:
            raise ArgumentError("--n-q and --bandwidth exclude each other; choose the levels with one of them")
        for option, values in (("--n-q", self.n_q), ("--bandwidth", self.bandwidths)):
            if values and not self.codecs:
                raise ArgumentError(f"{option} belongs to a codec; add --codec")
            if len(set(values)) < len(values):
                raise ArgumentError(f"{option} has the same value twice; name each once")
        for kbits in self.bandwidths:
            if not (math.isfinite(kbits) and kbits > 0):
                raise ArgumentError(f"--bandwidth must be above 0 kbit/s, not {kbits:g}")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Keys of the metrics to compute, in the order of METRICS."""
        if self.metrics is not None:
            return tuple(key for key in METRICS if key in self.metrics)
        chosen = [*SIGNAL_METRICS]
        if self.speaker_model:
            chosen.append(SPEAKER_METRIC)
        if self.recogniser:
            chosen += WORD_METRICS
        return tuple(chosen)

    @property
    def wants_words(self) -> bool:
        """Whether a recogniser is needed."""
        return any(key in WORD_METRICS for key in self.wanted)

    @property
    def wants_speaker(self) -> bool:
        """Whether a speaker model is needed."""
        return SPEAKER_METRIC in self.wanted

    def _check_numbers(self) -> None:
        for name, value, least in (
            ("limit", self.limit, 1),
            ("jobs", self.jobs, 1),
            ("threads", self.threads, 1),
            ("report_clips", self.report_clips, 0),
            ("seed", self.seed, 0),
            *(("n_q", n_q, 1) for n_q in self.n_q),
        ):
            if value is not None and value < least:
                raise ArgumentError(f"{name} must be at least {least}, not {value}")

    def _check_metrics(self) -> None:
        unknown = [key for key in self.metrics or () if key not in METRICS]
        if unknown:
            raise ArgumentError(f"--metrics {unknown[0]!r} is not known; use {', '.join(METRICS)}")
        if self.metrics is not None and not self.metrics:
            raise ArgumentError(f"name at least one metric of {', '.join(METRICS)}")
        if self.wants_words and not self.recogniser:
            raise ArgumentError("wer and wil need a recogniser; name one with --asr, as in --asr openai/whisper-medium")
        if self.recogniser and not self.wants_words:
            raise ArgumentError("--asr belongs to wer and wil; add them to --metrics, or leave it out")
        if self.transcripts and not self.wants_words:
            raise ArgumentError("--transcripts belongs to wer and wil; add --asr MODEL")
        if self.speaker_model and not self.wants_speaker:
            raise ArgumentError("--speaker-model belongs to speaker; add it to --metrics, or leave it out")
