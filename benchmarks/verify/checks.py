"""What users do with the codec, on the backend that is put to the test, against the reference run clip by clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import read_blocks
from dmcodec.bundle import Manifest
from dmcodec.export.agreement import compare_audio, compare_codes
from dmcodec.export.parity import SEED
from dmcodec.export.reference import Expected, Reference, run_reference
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

from .options import VerifyOptions
from .result import Check

# FOLDED: Turns what came out into a `Check`, with the thresholds of a precision.


AUDIO_S = 60.0  # of a file of the user's
_CLIP_S = 6.0  # the longest of a batch
_MAX_PUSH_FRAMES = 30


class Checks:
    """The checks of one codec against one reference, in turn."""

    def __init__(self, codec: Codec, reference: Reference, thresholds_of: str, options: VerifyOptions) -> None:
        self._codec, self._reference, self._options = codec, reference, options
        self._judge = Judge(reference, thresholds_of)

    def all(self) -> list[tuple[str, Callable[[], Iterator[Check]]]]:
        """Names of the checks, and what yields them."""
        found = [("levels", self._levels), ("streams", self._streams), ("batches", self._batches)]
        found.append(("long clips", self._long))
        if self._options.audio:
            found.append(("audio files", self._files))
        return found

    def _levels(self) -> Iterator[Check]:
        """Every n_q to encode with, and to decode from every level on."""
        codec, n_q = self._codec, self._codec.n_q
        waveform = self._speech(1.0)[:-7]
        expected = run_reference(self._reference, waveform)
        got = [codec.encode(waveform, codec.sample_rate, n_q=levels).codes for levels in range(1, n_q + 1)]
        yield self._judge.codes("encode at every n_q", f"1 to {n_q}", [expected] * n_q, got, range(1, n_q + 1))
        tokens = self._tokens(expected, len(waveform))
        parts = [tokens.levels(levels, skip) for skip in range(n_q) for levels in range(1, n_q - skip + 1)]
        audio = [self._decoded(part)[: len(waveform)] for part in parts]
        yield self._judge.audio(
            "decode at every n_q and first_level", f"{len(parts)} of them", audio, codec.decode_batch(parts)
        )

    def _streams(self) -> Iterator[Check]:
        """Streams cut at random, against the whole decode of the reference and of the same backend."""
        seconds = self._options.sizes.stream_s
        expected = run_reference(self._reference, self._speech(seconds))
        tokens = Tokens.from_codes(expected.codes, self._codec.config)
        whole, own = self._decoded(tokens), self._codec.decode(tokens)
        streamed = [self._streamed(expected.codes, seed) for seed in range(3)]
        detail = f"{seconds:g} s, 3 times"
        yield self._judge.audio("stream cut at random", detail, [whole] * 3, streamed)
        yield self._judge.audio("stream against the backend's whole decode", detail, [own] * 3, streamed)

    def _batches(self) -> Iterator[Check]:
        """Clips of any lengths in one call, and of like lengths, which run together; against each alone."""
        clips, longest = self._options.sizes.clips, round(_CLIP_S * self._codec.sample_rate)
        rng = np.random.default_rng(SEED)
        mixed = [1, *(int(length) for length in rng.integers(2, longest, clips - 1))]
        yield from self._batch("batch of any lengths", mixed)
        yield from self._batch("batch of like lengths", [longest // 4 - 101 * index for index in range(clips)])

    def _batch(self, what: str, lengths: list[int]) -> Iterator[Check]:
        codec = self._codec
        waveforms = [self._speech(_CLIP_S, 0.1 * index)[:length] for index, length in enumerate(lengths)]
        expected = [run_reference(self._reference, waveform) for waveform in waveforms]
        detail = f"{len(lengths)} clips of {min(lengths)} to {max(lengths)} samples"
        got = codec.encode_batch(waveforms, codec.sample_rate)
        yield self._judge.codes(f"{what}, encode", detail, expected, [tokens.codes for tokens in got])
        tokens = [self._tokens(item, len(waveform)) for item, waveform in zip(expected, waveforms, strict=True)]
        audio = codec.decode_batch(tokens)
        right = [item.audio[: len(waveform)] for item, waveform in zip(expected, waveforms, strict=True)]
        yield self._judge.audio(f"{what}, decode", detail, right, audio)

    def _long(self) -> Iterator[Check]:
        """A long clip in windows and as a stream, against the reference in one piece."""
        seconds = self._options.sizes.long_s
        context = f"{seconds:g} s, {self._codec.context_s:g} s of context"
        yield from self._clip("long clip in windows", context, self._speech(seconds)[:-77])

    def _files(self) -> Iterator[Check]:
        """The user's own audio."""
        for path in self._options.audio:
            yield from self._clip(path.name, f"the first {AUDIO_S:g} s at most", self._read(path))

    def _clip(self, what: str, detail: str, waveform: NDArray[np.float32]) -> Iterator[Check]:
        codec = self._codec
        expected = run_reference(self._reference, waveform)
        codes = codec.encode(waveform, codec.sample_rate).codes
        agreement = None if codec.runs_whole(len(waveform)) else _window_agreement(codec.bundle.manifest)
        yield self._judge.codes(f"{what}, encode", detail, [expected], [codes], window_agreement=agreement)
        audio = codec.decode(self._tokens(expected, len(waveform)))
        yield self._judge.audio(f"{what}, decode", detail, [expected.audio[: len(waveform)]], [audio])

    def _read(self, path: Path) -> NDArray[np.float32]:
        rate, blocks, total = self._codec.sample_rate, [], 0
        most = round(AUDIO_S * rate)
        for block in read_blocks(path, rate):
            blocks.append(block)
            total += len(block)
            if total >= most:
                break
        return np.concatenate(blocks)[:most]

    def _speech(self, seconds: float, start_s: float = 0.0) -> NDArray[np.float32]:
        rate = self._codec.sample_rate
        start = round(start_s * rate)
        return speech(start + round(seconds * rate), rate)[start:]

    def _tokens(self, expected: Expected, num_samples: int) -> Tokens:
        return Tokens.from_codes(expected.codes, self._codec.config, num_samples)

    def _decoded(self, tokens: Tokens) -> NDArray[np.float32]:
        latents = self._reference.dequantize(tokens.codes.astype(np.int64), tokens.first_level)
        return self._reference.decode(latents)

    def _streamed(self, codes: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        cuts, end = [0], codes.shape[1]
        while cuts[-1] < end:
            cuts.append(min(end, cuts[-1] + int(rng.integers(1, _MAX_PUSH_FRAMES + 1))))
        with self._codec.stream_decoder() as stream:
            audio = [stream.push(codes[:, start:stop]) for start, stop in pairwise(cuts)]
            return np.concatenate([*audio, stream.finish()])


def _window_agreement(manifest: Manifest) -> float:
    """Share of the codes that the default context left as they were, measured at export."""
    measured = manifest.encoder_context
    cases = (case for case in measured["cases"] if case["context_s"] >= measured["default_context_s"])
    return float(next(cases)["code_agreement"])


# What a window's limited context may change: docs/streaming.md
WINDOW_CODE_AGREEMENT = 0.999


def _all(expected: Sequence[Expected]) -> list[int]:
    return [len(item.codes) for item in expected]


class Judge:
    """Makes checks for one reference and precision."""

    def __init__(self, reference: Reference, precision: str) -> None:
        self._reference, self._precision, self._thresholds = reference, precision, PRECISIONS[precision].thresholds

    def codes(
        self,
        what: str,
        detail: str,
        expected: Sequence[Expected],
        got: Sequence[NDArray[Any]],
        levels: Sequence[int] | None = None,
        window_agreement: float | None = None,
    ) -> Check:
        """Codes [n, T] of clips against the first n levels of what was expected of each.

        Args:
            levels: how many levels were asked for, of each clip; all by default.
            window_agreement: of codes made with limited context: the share that it left as they were at export. It may
                change a code in a thousand; of a model that remembers for longer than that, half that share is
                bounded: other speech gives other shares, but what is broken gives next to none.
        """
        due = [(count, item.codes.shape[1]) for item, count in zip(expected, levels or _all(expected), strict=True)]
        for shape, codes in zip(due, got, strict=True):
            if codes.shape != shape:
                return Check(what, detail, problem=f"{what}: codes {codes.shape} where {shape} are due")
        agreement = compare_codes(self._reference, expected, got)
        check = Check(what, detail, **dataclasses.asdict(agreement))
        bounds = self._thresholds
        if window_agreement is None:
            return self._bounded(
                check, level0_agreement=bounds.level0_agreement, frame_agreement=bounds.frame_agreement
            )
        if not bounds.frame_agreement:  # half precision flips codes by itself
            return self._bounded(check, level0_agreement=bounds.level0_agreement)
        if window_agreement < WINDOW_CODE_AGREEMENT:
            return self._bounded(check, code_agreement=window_agreement / 2)
        return self._bounded(check, level0_agreement=bounds.level0_agreement, code_agreement=WINDOW_CODE_AGREEMENT)

    def audio(
        self, what: str, detail: str, expected: Sequence[NDArray[np.float32]], got: Sequence[NDArray[np.float32]]
    ) -> Check:
        """Waveforms [samples] that both sides made from the same codes; the worst of the audible errors counts."""
        for right, audio in zip(expected, got, strict=True):
            if audio.shape != right.shape:
                return Check(what, detail, problem=f"{what}: audio {audio.shape} where {right.shape} is due")
        found = [compare_audio(*pair) for pair in zip(expected, got, strict=True)]
        audible = [item for item in found if not item.inaudible]
        lowest = min(item.snr_db for item in audible or found)
        check = Check(what, detail, snr_db=lowest, max_abs_error=max(item.max_abs_error for item in found))
        return self._bounded(check, snr_db=self._thresholds.decoder_snr_db if audible else None)

    def _bounded(self, check: Check, **bounds: float | None) -> Check:
        for name, bound in bounds.items():
            value = getattr(check, name)
            if bound is not None and not value >= bound:
                return dataclasses.replace(
                    check,
                    problem=f"{check.what}: {name} is {value:.6g} ({check.detail}); "
                    f"{self._precision} needs at least {bound:.6g}",
                )
        return check
