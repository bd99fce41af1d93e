"""The proof of a model repository: what the simulated server answers is what `Codec` answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ParityError
from dmcodec.export.fidelity import max_abs_error, snr_db
from dmcodec.export.parity import INAUDIBLE_ERROR, THRESHOLDS
from dmcodec.export.reference import GraphReference
from dmcodec.export.ties import tied_frames
from dmcodec.export.triton.simulation import Arrays, Simulation
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

# True lengths in frames, and a part of one. All are padded to the longest, so that they run as one batch.
_LENGTHS_FRAMES = (40.3, 40.0, 17.7, 3.1)


def require_equal(simulation: Simulation, codec: Codec) -> None:
    """Raises ParityError where a request doesn't get what `Codec` gives for its clip alone."""
    hop = codec.hop_length
    lengths = [1, *(max(1, round(frames * hop)) for frames in _LENGTHS_FRAMES)]
    clips = [speech(9000 * index + length, codec.sample_rate)[-length:] for index, length in enumerate(lengths)]
    longest = codec.config.num_frames(max(lengths)) * hop
    simulation.warm_up()
    answers = simulation.infer("tokenize", [tokenize_request(clip, longest) for clip in clips])
    reference = GraphReference("Codec", codec.config, codec.graphs.arrays)
    for answer, clip in zip(answers, clips, strict=True):
        _require_codes(reference, codec, clip, answer["codes"][0, :, : int(answer["frames"][0, 0])])
    tokens = [codec.encode(clip, codec.sample_rate) for clip in clips]
    parts = [*tokens, tokens[1].levels(1), tokens[2].levels(skip=codec.n_q - 1)]
    most = max(part.num_frames for part in parts)
    waveforms = simulation.infer("synthesize", [synthesize_request(part, most) for part in parts])
    for answer, part in zip(waveforms, parts, strict=True):
        audio, expected = answer["waveform"][0, 0, : part.num_samples], codec.decode(part)
        snr, error = snr_db(expected, audio), max_abs_error(expected, audio)
        if not (snr >= THRESHOLDS[codec.bundle.manifest.arithmetic].decoder_snr_db or error <= INAUDIBLE_ERROR):
            raise ParityError(
                f"synthesize: {snr:.1f} dB from Codec's audio of {part.num_frames} frames, {part.n_q} levels from "
                f"{part.first_level}. Nothing was written"
            )


def _require_codes(
    reference: GraphReference, codec: Codec, clip: NDArray[np.float32], codes: NDArray[np.int64]
) -> None:
    """As at export: codes are the same but for ties, to the thresholds of the bundle's arithmetic."""
    thresholds = THRESHOLDS[codec.bundle.manifest.arithmetic]
    latents = reference.encode(clip)
    expected = reference.quantize(latents)
    problem = f"{codes.shape} codes where {expected.shape} are due"
    if codes.shape == expected.shape:
        tied = tied_frames(reference.codebooks, latents[None], expected[:, None], codes[:, None])[0]
        equal = expected == codes
        frames, level0 = (float((part | tied).mean()) for part in (equal.all(axis=0), equal[0]))
        if frames >= thresholds.frame_agreement and level0 >= thresholds.level0_agreement:
            return
        problem = f"{frames:.2%} of the frames agree"
    raise ParityError(f"tokenize: {problem}, for a clip of {len(clip)} samples. Nothing was written")


def tokenize_request(clip: NDArray[np.float32], padded: int) -> Arrays:
    """A request of one clip, padded to `padded` samples."""
    waveform = np.zeros((1, 1, padded), np.float32)
    waveform[0, 0, : len(clip)] = clip
    return {"waveform": waveform, "lengths": np.array([[len(clip)]], np.int64)}


def synthesize_request(tokens: Tokens, padded: int) -> Arrays:
    """A request of one clip's tokens, padded to `padded` frames."""
    codes = np.zeros((1, tokens.n_q, padded), np.int64)
    codes[0, :, : tokens.num_frames] = tokens.codes
    first_level, frames = (np.array([[value]], np.int64) for value in (tokens.first_level, tokens.num_frames))
    return {"codes": codes, "first_level": first_level, "frames": frames}
