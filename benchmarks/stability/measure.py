"""Measure the token stability of one codec: changes of the input, and re-encoding of what was decoded.

Re-encoding follows O'Reilly et al. (arXiv 2410.11025, code drift of codecs that are not idempotent).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.codecs.interface import MeasuredCodec
from dmcodec.errors import DmcodecError, MetricError, first_line

from .changes import Change, Subject, changes
from .result import MAX_S, MIN_S, Agreement, ClipCounts, Round, Stability, StabilityOptions

# Score of a decoded waveform (samples,) against its original, both at the given sample rate; raises MetricError.
Listener = Callable[[Waveform, Waveform, int], float]
Step = Callable[[], None]
IntCodes = NDArray[np.int64]
AGAIN = "again"
# What a codec may raise for one clip; other people's codecs raise errors of torch.
FAILURES = (DmcodecError, RuntimeError, ValueError)


def compare_codes(reference: IntCodes, codes: IntCodes) -> ClipCounts:
    """Compare codes [n_q, frames] level by level; where the lengths differ, up to the shorter.

    The edit distance is Levenshtein's: insertions, deletions and substitutions of codes.
    """
    from rapidfuzz.distance import Levenshtein

    frames = min(reference.shape[1], codes.shape[1])
    pairs = [(ours[:frames], theirs[:frames]) for ours, theirs in zip(reference, codes, strict=True)]
    return ClipCounts(
        frames,
        tuple(int((ours == theirs).sum()) for ours, theirs in pairs),
        tuple(Levenshtein.distance(ours.tolist(), theirs.tolist()) for ours, theirs in pairs),
    )


def steps_of(options: StabilityOptions, codec: MeasuredCodec, clips: int, columns: int) -> int:
    """Return the number of steps that `measure_stability` reports for some clips and numbers of levels."""
    inputs = 1 + len(changes(codec.hop_length, codec.sample_rate))
    return clips * (inputs + columns * max(options.rounds))


def measure_stability(
    codec: MeasuredCodec,
    levels: Sequence[int],
    clips: Mapping[str, Waveform | MetricError],
    options: StabilityOptions,
    listener: Listener,
    step: Step = lambda: None,
) -> dict[int, Stability]:
    """Measure a codec at each number of levels.

    Args:
        codec: under test.
        levels: numbers of quantizer levels; the codes of fewer levels are the first ones of more.
        clips: mono (samples,) float32 at the codec's sample rate by name, or the reason why there is none. At most the
            first 10 s are used, in whole frames.
        options: how much is measured.
        listener: STOI, for the re-encoded audio.
        step: called after each run of the codec.

    Returns:
        The result by number of levels. What fails for a clip has its reason in the result.
    """
    most = max(levels)
    subjects, references, skipped = _prepared(codec, most, clips, options.seed, step)
    run = _Run(codec, subjects, references, listener, step)
    changed = [(change, *run.compare(change, most)) for change in changes(codec.hop_length, codec.sample_rate)]
    seconds = sum(len(subject.waveform) for subject in subjects.values()) / codec.sample_rate
    return {
        n_q: Stability(
            tuple(subjects),
            skipped,
            seconds,
            tuple(
                Agreement.of(change.key, change.label, change.definition, _first_levels(counts, n_q), failures)
                for change, counts, failures in changed
            ),
            run.rounds(n_q, options.rounds),
        )
        for n_q in levels
    }


@dataclasses.dataclass
class _Run:
    codec: MeasuredCodec
    subjects: Mapping[str, Subject]
    references: Mapping[str, IntCodes]
    listener: Listener
    step: Step

    def compare(self, change: Change, n_q: int) -> tuple[dict[str, ClipCounts], dict[str, str]]:
        """Compare the codes under a change with those of each clip; return counts, and reasons of failures."""
        counts: dict[str, ClipCounts] = {}
        failures: dict[str, str] = {}
        for name, subject in self.subjects.items():
            pairs = []
            try:
                for piece in change.pieces(subject):
                    codes = self.codec.encode(np.ascontiguousarray(piece.waveforms), n_q)[:, 0]
                    reference = self.references[name][:, piece.reference_start :][:, : piece.frames]
                    part = codes[:, piece.start :][:, : piece.frames]
                    frames = min(reference.shape[1], part.shape[1])
                    pairs.append((reference[:, :frames], part[:, :frames]))
                ours, theirs = (np.concatenate(each, axis=1) for each in zip(*pairs, strict=True))
                counts[name] = compare_codes(ours, theirs)
            except FAILURES as error:
                failures[name] = first_line(error)
            self.step()
        return counts, failures

    def rounds(self, n_q: int, wanted: Sequence[int]) -> tuple[Round, ...]:
        """Encode what was decoded, again and again, and compare the codes with the first ones."""
        checked = (0, *sorted(wanted))
        counts: dict[int, dict[str, ClipCounts]] = {rounds: {} for rounds in checked}
        failures: dict[int, dict[str, str]] = {rounds: {} for rounds in checked}
        scores: dict[int, list[float]] = {rounds: [] for rounds in checked}
        for name, subject in self.subjects.items():
            first = self.references[name][:n_q]
            done = -1
            try:
                for done, (codes, decoded) in enumerate(self._again(subject, first, checked[-1])):
                    if done in checked:
                        counts[done][name] = compare_codes(first, codes)
                        scores[done] += self._score(subject, decoded)
            except FAILURES as error:
                for later in checked:
                    if later > done:
                        failures[later][name] = f"round {done + 1}: {first_line(error)}"
        return tuple(
            Round(
                rounds,
                Agreement.of(f"{AGAIN}-{rounds}", _label(rounds), _DEFINITION, counts[rounds], failures[rounds]),
                sum(scores[rounds]) / len(scores[rounds]) if scores[rounds] else None,
                len(scores[rounds]),
            )
            for rounds in checked
        )

    def _again(self, subject: Subject, codes: IntCodes, rounds: int) -> Iterator[tuple[IntCodes, Waveform]]:
        """Yield codes and what they decode to, from the first codes to those of the last round."""
        for left in range(rounds, -1, -1):
            decoded = np.asarray(self.codec.decode(codes[:, None])[0, 0, : len(subject.waveform)], np.float32)
            yield codes, decoded
            if left:
                codes = self.codec.encode(decoded[None, None], len(codes))[:, 0]
                self.step()

    def _score(self, subject: Subject, decoded: Waveform) -> list[float]:
        common = min(len(subject.waveform), len(decoded))
        try:
            return [self.listener(subject.waveform[:common], decoded[:common], subject.sample_rate)]
        except DmcodecError:
            return []


_DEFINITION = "codes of the clip decoded and encoded again, that many times, compared with the first codes"


def _label(rounds: int) -> str:
    return f"{rounds} round{'' if rounds == 1 else 's'}"


def _prepared(
    codec: MeasuredCodec, n_q: int, clips: Mapping[str, Waveform | MetricError], seed: int, step: Step
) -> tuple[dict[str, Subject], dict[str, IntCodes], dict[str, str]]:
    """Return the clips that can be measured, their codes [n_q, frames], and the reasons of the others."""
    subjects: dict[str, Subject] = {}
    references: dict[str, IntCodes] = {}
    skipped: dict[str, str] = {}
    usable = [waveform for waveform in clips.values() if not isinstance(waveform, MetricError)]
    for index, (name, waveform) in enumerate(clips.items()):
        try:
            subject = _subject(codec, waveform, _neighbour(usable, waveform), (seed, index))
            references[name] = codec.encode(subject.waveform[None, None], n_q)[:, 0]
            subjects[name] = subject
        except FAILURES as error:
            skipped[name] = first_line(error)
        step()
    return subjects, references, skipped


def _subject(
    codec: MeasuredCodec, waveform: Waveform | MetricError, neighbour: Waveform | None, seed: tuple[int, ...]
) -> Subject:
    if isinstance(waveform, MetricError):
        raise waveform
    if len(waveform) < MIN_S * codec.sample_rate:
        raise MetricError(f"shorter than {MIN_S:g} s, too short for stability")
    if not np.any(waveform):
        raise MetricError("the clip is silent: its codes say nothing about speech")
    most = min(len(waveform), round(MAX_S * codec.sample_rate))
    cut = waveform[: most // codec.hop_length * codec.hop_length]
    if not np.any(cut):
        raise MetricError(f"the first {MAX_S:g} s are silent: their codes say nothing about speech")
    around = waveform[: codec.sample_rate][::-1] if neighbour is None else neighbour
    return Subject(cut, around, codec.sample_rate, codec.hop_length, seed)


def _neighbour(usable: Sequence[Waveform], waveform: Waveform | MetricError) -> Waveform | None:
    """Return the clip after this one in the list; None where it is the only one."""
    if len(usable) < 2:
        return None
    places = [index for index, other in enumerate(usable) if other is waveform]
    return usable[(places[0] + 1) % len(usable)] if places else None


def _first_levels(counts: Mapping[str, ClipCounts], n_q: int) -> dict[str, ClipCounts]:
    return {name: ClipCounts(each.frames, each.equal[:n_q], each.edits[:n_q]) for name, each in counts.items()}
