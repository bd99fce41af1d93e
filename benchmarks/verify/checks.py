"""Uses of the codec on the verified backend, compared with the reference, which runs each clip alone."""

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
from dmcodec.errors import AudioError
from dmcodec.export.agreement import compare_audio, compare_codes
from dmcodec.export.parity import SEED
from dmcodec.export.reference import Expected, Floats, Reference, run_reference
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

from .options import VerifyOptions
from .result import Check

MAX_FILE_S = 60.0  # of each audio file of the user
# Threshold for codes of windows, whose context is limited: docs/explanation/what-is-approximate.md.
WINDOW_CODE_AGREEMENT = 0.999
_MAX_CLIP_S = 6.0  # of a batch
_MAX_PUSH_FRAMES = 30


class Checks:
    """The checks of one codec against one reference."""

    def __init__(self, codec: Codec, reference: Reference, thresholds_of: str, options: VerifyOptions) -> None:
        self._codec, self._reference, self._options = codec, reference, options
        self._compare = OutputComparison(reference, thresholds_of)

    def groups(self) -> list[tuple[str, Callable[[], Iterator[Check]]]]:
        """Return the name of each group of checks, and the function that yields them."""
        groups = [("levels", self._levels), ("streams", self._streams), ("batches", self._batches)]
        groups.append(("long clips", self._long_clip))
        if self._options.audio:
            groups.append(("audio files", self._files))
        return groups

    def _levels(self) -> Iterator[Check]:
        """Check encode at each n_q, and decode at each first_level and n_q."""
        codec, n_q = self._codec, self._codec.n_q
        waveform = self._speech(1.0)[:-7]
        expected = run_reference(self._reference, waveform)
        codes = [codec.encode(waveform, codec.sample_rate, n_q=levels).codes for levels in range(1, n_q + 1)]
        yield self._compare.codes("encode at every n_q", f"1 to {n_q}", [expected] * n_q, codes, range(1, n_q + 1))
        tokens = self._tokens(expected, len(waveform))
        parts = [tokens.levels(levels, skip) for skip in range(n_q) for levels in range(1, n_q - skip + 1)]
        audio = [self._reference_audio(part)[: len(waveform)] for part in parts]
        yield self._compare.audio(
            "decode at every n_q and first_level", f"{len(parts)} pairs", audio, codec.decode_batch(parts)
        )

    def _streams(self) -> Iterator[Check]:
        """Check streams cut at random, against the whole decode of the reference and of the same backend."""
        seconds = self._options.sizes.stream_s
        expected = run_reference(self._reference, self._speech(seconds))
        tokens = Tokens.from_codes(expected.codes, self._codec.config)
        whole, own = self._reference_audio(tokens), self._codec.decode(tokens)
        streamed = [self._streamed(expected.codes, seed) for seed in range(3)]
        detail = f"{seconds:g} s, 3 times"
        yield self._compare.audio("stream cut at random", detail, [whole] * 3, streamed)
        yield self._compare.audio("stream against the backend's whole decode", detail, [own] * 3, streamed)

    def _batches(self) -> Iterator[Check]:
        """Check clips of any lengths in one call, and clips of similar lengths, which run as one batch."""
        clips, longest = self._options.sizes.clips, round(_MAX_CLIP_S * self._codec.sample_rate)
        rng = np.random.default_rng(SEED)
        mixed = [1, *(int(length) for length in rng.integers(2, longest, clips - 1))]
        yield from self._batch("batch of any lengths", mixed)
        yield from self._batch("batch of similar lengths", [longest // 4 - 101 * index for index in range(clips)])

    def _batch(self, use: str, lengths: list[int]) -> Iterator[Check]:
        codec = self._codec
        waveforms = [self._speech(_MAX_CLIP_S, 0.1 * index)[:length] for index, length in enumerate(lengths)]
        expected = [run_reference(self._reference, waveform) for waveform in waveforms]
        detail = f"{len(lengths)} clips of {min(lengths)} to {max(lengths)} samples"
        encoded = codec.encode_batch(waveforms, codec.sample_rate)
        yield self._compare.codes(f"{use}, encode", detail, expected, [tokens.codes for tokens in encoded])
        tokens = [self._tokens(item, len(waveform)) for item, waveform in zip(expected, waveforms, strict=True)]
        audio = codec.decode_batch(tokens)
        references = [item.audio[: len(waveform)] for item, waveform in zip(expected, waveforms, strict=True)]
        yield self._compare.audio(f"{use}, decode", detail, references, audio)

    def _long_clip(self) -> Iterator[Check]:
        """Check a long clip, encoded exactly or in windows, and its decode as a stream, against one piece."""
        codec, seconds = self._codec, self._options.sizes.long_s
        use, how = "long clip in windows", f", {codec.context_s:g} s of context"
        if codec.encodes_exactly:
            use, how = "long clip", ", exactly"
        yield from self._clip(use, f"{seconds:g} s{how}", self._speech(seconds)[:-77])

    def _files(self) -> Iterator[Check]:
        """Check the user's audio files; one of several that can't be used is a problem, and the others run."""
        detail = f"the first {MAX_FILE_S:g} s at most"
        for path in self._options.audio:
            try:
                waveform = self._read(path)
            except AudioError as error:
                if len(self._options.audio) == 1:
                    raise
                yield Check(path.name, detail, problem=str(error))
            else:
                yield from self._clip(path.name, detail, waveform)

    def _clip(self, use: str, detail: str, waveform: NDArray[np.float32]) -> Iterator[Check]:
        codec = self._codec
        expected = run_reference(self._reference, waveform)
        codes = codec.encode(waveform, codec.sample_rate).codes
        exact = codec.encodes_exactly or codec.runs_whole(len(waveform))
        agreement = None if exact else _window_agreement(codec.bundle.manifest)
        yield self._compare.codes(f"{use}, encode", detail, [expected], [codes], window_agreement=agreement)
        audio = codec.decode(self._tokens(expected, len(waveform)))
        yield self._compare.audio(f"{use}, decode", detail, [expected.audio[: len(waveform)]], [audio])

    def _read(self, path: Path) -> NDArray[np.float32]:
        rate, blocks, total = self._codec.sample_rate, [], 0
        max_samples = round(MAX_FILE_S * rate)
        for block in read_blocks(path, rate):
            blocks.append(block)
            total += len(block)
            if total >= max_samples:
                break
        return np.concatenate(blocks)[:max_samples]

    def _speech(self, seconds: float, start_s: float = 0.0) -> NDArray[np.float32]:
        rate = self._codec.sample_rate
        start = round(start_s * rate)
        return speech(start + round(seconds * rate), rate)[start:]

    def _tokens(self, expected: Expected, num_samples: int) -> Tokens:
        return Tokens.from_codes(expected.codes, self._codec.config, num_samples)

    def _reference_audio(self, tokens: Tokens) -> Floats:
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
    """Return the share of the codes that the default context didn't change, as measured at export."""
    measured = manifest.encoder_context
    cases = (case for case in measured["cases"] if case["context_s"] >= measured["default_context_s"])
    return float(next(cases)["code_agreement"])


class OutputComparison:
    """Compares codes and audio with the expected output, with the thresholds of a precision."""

    def __init__(self, reference: Reference, precision: str) -> None:
        self._reference, self._precision, self._thresholds = reference, precision, PRECISIONS[precision].thresholds

    def codes(
        self,
        use: str,
        detail: str,
        expected: Sequence[Expected],
        codes: Sequence[NDArray[Any]],
        levels: Sequence[int] | None = None,
        window_agreement: float | None = None,
    ) -> Check:
        """Compare codes [n, T] of clips with the first n levels of the expected codes.

        Args:
            use, detail: for the `Check`.
            expected: output of the reference for each clip.
            codes: output of the codec for each clip.
            levels: the n_q that each clip was encoded with; all levels by default.
            window_agreement: for codes of windows, whose context is limited: the share that the export measured. Ties
                are set aside. The threshold is WINDOW_CODE_AGREEMENT. Where the export measured less (the model has a
                longer memory than the context), the threshold is half of the measured share: other speech gives other
                shares, but a broken backend gives nearly 0.
        """
        levels = levels or [len(item.codes) for item in expected]
        shapes = [(n_q, item.codes.shape[1]) for item, n_q in zip(expected, levels, strict=True)]
        for shape, clip_codes in zip(shapes, codes, strict=True):
            if clip_codes.shape != shape:
                return Check(use, detail, problem=f"{use}: codes have shape {clip_codes.shape}, expected {shape}")
        agreement = compare_codes(self._reference, expected, codes)
        check = Check(use, detail, **dataclasses.asdict(agreement))
        thresholds = self._thresholds
        if window_agreement is None:
            return self._bounded(
                check, level0_agreement=thresholds.level0_agreement, frame_agreement=thresholds.frame_agreement
            )
        if not thresholds.frame_agreement:  # half precision changes codes, with any context
            return self._bounded(check, level0_agreement=thresholds.level0_agreement)
        if window_agreement < WINDOW_CODE_AGREEMENT:
            return self._bounded(check, untied_agreement=window_agreement / 2)
        return self._bounded(
            check, level0_agreement=thresholds.level0_agreement, untied_agreement=WINDOW_CODE_AGREEMENT
        )

    def audio(self, use: str, detail: str, expected: Sequence[Floats], audio: Sequence[NDArray[np.float32]]) -> Check:
        """Compare waveforms [samples] that reference and codec decoded from the same codes.

        The lowest SNR of the clips with an audible error is compared with the threshold; other clips pass.
        """
        for reference, waveform in zip(expected, audio, strict=True):
            if waveform.shape != reference.shape:
                return Check(
                    use, detail, problem=f"{use}: audio has shape {waveform.shape}, expected {reference.shape}"
                )
        compared = [compare_audio(*pair) for pair in zip(expected, audio, strict=True)]
        audible = [item for item in compared if not item.inaudible]
        lowest = min(item.snr_db for item in audible or compared)
        check = Check(use, detail, snr_db=lowest, max_abs_error=max(item.max_abs_error for item in compared))
        if not audible:
            return dataclasses.replace(check, thresholds={"snr_db": self._thresholds.decoder_snr_db})
        return self._bounded(check, snr_db=self._thresholds.decoder_snr_db)

    def _bounded(self, check: Check, **thresholds: float | None) -> Check:
        """Return the check with its thresholds, and with a problem where a value is below its own."""
        bounded = {name: threshold for name, threshold in thresholds.items() if threshold is not None}
        check = dataclasses.replace(check, thresholds=bounded)
        for name, threshold in bounded.items():
            value = getattr(check, name)
            if not value >= threshold:
                return dataclasses.replace(
                    check,
                    problem=f"{check.what}: {name} is {value:.6g} ({check.detail}); "
                    f"{self._precision} needs at least {threshold:.6g}",
                )
        return check
