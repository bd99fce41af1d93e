"""Run the conformance suite on a codec: do its tokens depend on batch, padding, chunk, worker or thread?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import prepare_waveform
from dmcodec.benchmarks.codecs.bundle import open_bundle
from dmcodec.benchmarks.machine import utc_now
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.export.agreement import INAUDIBLE_ERROR, AudioComparison, compare_audio, tied_frames
from dmcodec.export.reference import GraphReference
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.codec import Codec

from .conformance_suite import Case, Clip, Suite
from .conformance_ways import Ran, Setting, way_of
from .options import VerifyOptions
from .result import CodecRun, codec_run

FORMAT_VERSION = 1
INDEPENDENT = "tokens do not depend on batch, padding, chunk, worker or thread"
DEPENDENT = "tokens depend on how they are made"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of one case. Values that don't apply are None.

    Attributes:
        case, kind: its name and kind.
        runs: clips that were run, each as often as the case says.
        frames: of all runs.
        ties: frames that differ by a tie only.
        snr_db, max_abs_error: of the audio, the worst.
        problem: the first run that differs, in words; None where there is none.
        skipped: why the case does not apply to this codec; None where it ran.
    """

    case: str
    kind: str
    runs: int = 0
    frames: int = 0
    ties: int | None = None
    snr_db: float | None = None
    max_abs_error: float | None = None
    problem: str | None = None
    skipped: str | None = None


@dataclasses.dataclass(frozen=True)
class ConformanceResult(CodecRun):
    """Result of the suite. Field names are the JSON keys.

    Attributes:
        against: "expected values" of the suite, or "each clip alone".
        outcomes: of the cases.
    """

    against: str
    outcomes: tuple[Outcome, ...]

    @property
    def problems(self) -> list[str]:
        """Each case that differs, in words."""
        return [outcome.problem for outcome in self.outcomes if outcome.problem]

    @property
    def passed(self) -> bool:
        """Whether no case differs."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """The one sentence that the suite is for."""
        skipped = [outcome.case for outcome in self.outcomes if outcome.skipped]
        untried = f" (not tried: {', '.join(skipped)})" if skipped else ""
        return f"{INDEPENDENT}{untried}" if self.passed else DEPENDENT

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "passed": self.passed,
            "verdict": self.verdict,
            "problems": self.problems,
            **dataclasses.asdict(self),
        }


def run_conformance(
    bundle: str | Path, options: VerifyOptions, progress: Progress = no_progress, suite: Suite | None = None
) -> ConformanceResult:
    """Run the suite on a bundle; this takes seconds to minutes.

    The built-in codec is compared with the values that the suite expects, any other with each clip alone. A difference
    raises no error: it is in `ConformanceResult.problems`.

    Args:
        bundle: the bundle.
        options: backend, provider, threads, engine cache and command; the others don't apply.
        progress: called as the cases go on.
        suite: by default the one that comes with dmcodec.

    Raises:
        ConformanceError: a file of the suite is missing or altered.
        BundleError, BackendError, ProviderError, MissingDependencyError: the codec can't run.
    """
    suite = suite or Suite.open()
    codec = open_bundle(
        bundle, options.backend, options.provider, options.threads, options.engine_cache, options.device_id
    )
    return check_codec(codec, options, suite, progress)


def check_codec(
    codec: Codec, options: VerifyOptions, suite: Suite, progress: Progress = no_progress
) -> ConformanceResult:
    """Do the same as `run_conformance` for an open codec, on any backend."""
    date = utc_now()
    waveforms = {name: prepare_waveform(*suite.waveform(clip), codec.sample_rate) for name, clip in suite.clips.items()}
    expected = suite.expects(codec.bundle.manifest)
    judge = _expected(suite) if expected else _own(codec, waveforms)
    setting = Setting(codec, suite, options, waveforms, judge.codes)
    outcomes = []
    for done, case in enumerate(suite.cases):
        progress("checking cases", done, len(suite.cases))
        outcomes.append(_outcome(setting, judge, case))
    progress("checking cases", len(suite.cases), len(suite.cases))
    return ConformanceResult(
        **vars(codec_run(codec, date, options.command)),
        against="expected values" if expected else "each clip alone",
        outcomes=tuple(outcomes),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Judge:
    """What is right for each clip: codes [n_q, frames], their audio [samples], its tolerances, and ties.

    Ties are the suite's `tied` levels [frames] (n_q where there is none), or follow from codebooks and latents.
    """

    codes: Mapping[str, NDArray[np.int64]]
    audio: Mapping[str, NDArray[np.float32]]
    snr_db: float
    max_abs_error: float
    tied_from: Mapping[str, NDArray[np.int64]] | None = None
    latents: Mapping[str, NDArray[np.float32]] | None = None
    codebooks: NDArray[np.float32] | None = None

    def ties(self, clip: str, right: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where frames of codes [n, frames] differ, and only by a tie: [frames]."""
        if self.tied_from is not None:
            first = np.where((right != test).any(axis=0), (right != test).argmax(axis=0), len(right))
            tied: NDArray[np.bool_] = (first < len(right)) & (first >= self.tied_from[clip])
            return tied
        assert self.latents is not None
        assert self.codebooks is not None
        return tied_frames(self.codebooks, self.latents[clip][None], right[:, None], test[:, None])[0]


def _expected(suite: Suite) -> _Judge:
    """Judge by the values that the suite expects."""
    expected = {name: suite.expected(clip) for name, clip in suite.clips.items()}
    return _Judge(
        codes={name: codes for name, (codes, _) in expected.items()},
        audio={name: audio for name, (_, audio) in expected.items()},
        snr_db=suite.tolerance["audio_snr_db"],
        max_abs_error=suite.tolerance["audio_max_abs_error"],
        tied_from={name: _tied_levels(clip, expected[name][0]) for name, clip in suite.clips.items()},
    )


def _tied_levels(clip: Clip, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each frame of codes [n_q, frames] the level from which on a tie may decide; n_q where none does."""
    levels = np.full(codes.shape[1], len(codes), np.int64)
    for frame, level in clip.tied:
        levels[frame] = level
    return levels


def _own(codec: Codec, waveforms: Mapping[str, NDArray[np.float32]]) -> _Judge:
    """Judge by what the codec makes of each clip alone."""
    rate = codec.sample_rate
    tokens = {name: codec.encode(waveform, rate) for name, waveform in waveforms.items()}
    return _Judge(
        codes={name: item.codes.astype(np.int64) for name, item in tokens.items()},
        audio={name: codec.decode(item) for name, item in tokens.items()},
        snr_db=PRECISIONS[codec.bundle.manifest.arithmetic].thresholds.decoder_snr_db,
        max_abs_error=INAUDIBLE_ERROR,
        latents={name: codec.latents(waveform, rate) for name, waveform in waveforms.items()},
        codebooks=GraphReference("itself", codec.config, codec.graphs.arrays).codebooks,
    )


def _outcome(setting: Setting, judge: _Judge, case: Case) -> Outcome:
    way = way_of(case)
    if reason := way.skipped(setting):
        return Outcome(case.name, case.kind, skipped=reason)
    return _judged(judge, case, way.run(setting, case))


def _judged(judge: _Judge, case: Case, ran: Iterable[Ran]) -> Outcome:
    runs = frames = ties = 0
    problems: list[str] = []
    audio: list[AudioComparison] = []
    for item in ran:
        runs += 1
        frames += judge.codes[item.clip].shape[1]
        where = f"{case.name}: {item.clip}, {item.detail}"
        if item.codes is not None:
            problem, tied = _compare_codes(judge, item.clip, item.codes.astype(np.int64))
            ties += tied
        else:
            assert item.audio is not None
            problem, compared = _compare_audio(judge, item.clip, item.audio)
            audio += compared
        problems += [f"{where}: {problem}"] if problem else []
    audible = [item for item in audio if not item.inaudible]
    return Outcome(
        case=case.name,
        kind=case.kind,
        runs=runs,
        frames=frames,
        ties=None if audio else ties,
        snr_db=min((item.snr_db for item in audible or audio), default=None),
        max_abs_error=max((item.max_abs_error for item in audio), default=None),
        problem=problems[0] if problems else None,
    )


def _compare_codes(judge: _Judge, clip: str, test: NDArray[np.int64]) -> tuple[str | None, int]:
    """Return what is wrong with codes [n, frames] of a clip, or None, and the number of ties."""
    right = judge.codes[clip][: len(test)]
    if test.shape != right.shape:
        return f"codes have shape {test.shape}, not {right.shape}", 0
    differs = (right != test).any(axis=0)
    tied = judge.ties(clip, right, test)
    wrong = np.flatnonzero(differs & ~tied)
    if not len(wrong):
        return None, int(tied.sum())
    level = int(np.argmax(right[:, wrong[0]] != test[:, wrong[0]]))
    return f"{len(wrong)} of {len(tied)} frames have other codes, the first at frame {wrong[0]}, level {level}", 0


def _compare_audio(
    judge: _Judge, clip: str, test: NDArray[np.float32]
) -> tuple[str | None, tuple[AudioComparison, ...]]:
    """Return what is wrong with audio [samples] of a clip, or None, and its comparison."""
    right = judge.audio[clip]
    if test.shape != right.shape:
        return f"audio has shape {test.shape}, not {right.shape}", ()
    compared = compare_audio(right, test)
    if compared.snr_db >= judge.snr_db or compared.max_abs_error <= judge.max_abs_error:
        return None, (compared,)
    said = f"audio differs by up to {compared.max_abs_error:.1e} ({compared.snr_db:.1f} dB)"
    return said, (compared,)
