"""Options of `dmcodec evaluate`, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.transformers import is_transformers
from dmcodec.benchmarks.stability import StabilityOptions
from dmcodec.benchmarks.stability.result import DEFAULT_FILES, DEFAULT_ROUNDS
from dmcodec.checkpoint_files import is_bundle
from dmcodec.errors import ArgumentError

from .metrics import METRICS, SIGNAL_METRICS, SPEAKER_METRIC, SUPERB_METRICS, UTMOS_METRIC, WORD_METRICS

ORIGINAL = "original"
MAX_REPORT_CLIPS = 50  # a page with more opens too slowly
STABILITY = "stability"  # in --metrics; a table of its own
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
        metrics: keys of METRICS, and "stability"; None: the default signal metrics, and the metrics whose model is
            named.
        recogniser: id or folder of a transformers model for WER and WIL, CTC or Whisper.
        transcripts: TSV file of path and text; without it, the recogniser's text of the original is the reference.
        language: language of the speech, for multilingual Whisper models; None: they detect it.
        normaliser: normalisation of texts, one of NORMALISERS.
        speaker_model: id or folder of a transformers x-vector model, or "resemblyzer".
        published: JSON file of figures that others published, to show beside the measured ones.
        utmos: TorchScript file of UTMOS.
        limit: number of files to take, the first in order of their names; None: all.
        allow_missing: accept a folder that lacks files; these count as failed.
        jobs: processes that compute signal metrics.
        threads: CPU threads of codecs and models; by default one for each CPU that this process may use.
        seed: seed of the bootstrap.
        report_clips: number of clips whose audio is kept for the listening page, MAX_REPORT_CLIPS at most.
        superb: also compute the metrics of Codec-SUPERB's result file.
        stability_files: number of clips for "stability"; None: DEFAULT_FILES.
        stability_rounds: numbers of re-encodings for "stability"; empty: DEFAULT_ROUNDS.
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
    utmos: Path | None = None
    limit: int | None = None
    allow_missing: bool = False
    jobs: int = 1
    threads: int | None = None
    seed: int = 0
    report_clips: int = 0
    superb: bool = False
    stability_files: int | None = None
    stability_rounds: tuple[int, ...] = ()
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
        more = SUPERB_METRICS if self.superb else ()
        if self.metrics is not None:
            return tuple(key for key in METRICS if key in (*self.metrics, *more))
        chosen = [*SIGNAL_METRICS, *more]
        if self.utmos:
            chosen.append(UTMOS_METRIC)
        if self.speaker_model:
            chosen.append(SPEAKER_METRIC)
        if self.recogniser:
            chosen += WORD_METRICS
        return tuple(key for key in METRICS if key in chosen)

    @property
    def stability(self) -> StabilityOptions | None:
        """Options of "stability"; None where it isn't asked for."""
        if self.metrics is None or STABILITY not in self.metrics:
            return None
        files = DEFAULT_FILES if self.stability_files is None else self.stability_files
        return StabilityOptions(files, self.stability_rounds or DEFAULT_ROUNDS, self.seed)

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
        known = (*METRICS, STABILITY)
        unknown = [key for key in self.metrics or () if key not in known]
        if unknown:
            raise ArgumentError(f"--metrics {unknown[0]!r} is not known; use {', '.join(known)}")
        if self.metrics is not None and not self.metrics:
            raise ArgumentError(f"name at least one metric of {', '.join(known)}")
        self._check_stability()
        if self.wants_words and not self.recogniser:
            raise ArgumentError("wer and wil need a recogniser; name one with --asr, as in --asr openai/whisper-medium")
        if self.recogniser and not self.wants_words:
            raise ArgumentError("--asr belongs to wer and wil; add them to --metrics, or leave it out")
        if self.transcripts and not self.wants_words:
            raise ArgumentError("--transcripts belongs to wer and wil; add --asr MODEL")
        if self.speaker_model and not self.wants_speaker:
            raise ArgumentError("--speaker-model belongs to speaker; add it to --metrics, or leave it out")

        if UTMOS_METRIC in self.wanted and self.utmos is None:
            raise ArgumentError("utmos needs its model; name the TorchScript file utmos_scripted.pt with --utmos")
        if self.utmos is not None and UTMOS_METRIC not in self.wanted:
            raise ArgumentError("--utmos belongs to utmos; add it to --metrics, or leave it out")

    def _check_stability(self) -> None:
        if self.stability is None:
            if self.stability_files is not None or self.stability_rounds:
                option = "rounds" if self.stability_files is None else "files"
                raise ArgumentError(f"--stability-{option} belongs to stability; add --metrics stability")
        elif not self.codecs:
            raise ArgumentError(
                "stability compares codes, and a folder of audio (--against) has none; name a codec with --codec"
            )
