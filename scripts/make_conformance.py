"""Make the conformance suite again: dmcodec/data/conformance.

    python scripts/make_conformance.py

The audio is cut from the speech that comes with dmcodec. The expected codes and audio are those of the built-in
codec's weights in torch, in float64, one clip at a time; the frames where the nearest and the next entry are so near
that float32 may take either are listed. Needed where the built-in codec gets other weights, or a case is added.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.benchmarks.verify.conformance_suite import Case, Clip, Suite, suite_folder
from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.export.agreement import INAUDIBLE_ERROR, tied_frames
from dmcodec.export.reference import TorchReference, run_reference
from dmcodec.export.torch_model import torch_model
from dmcodec.files import file_sha256, output_folder
from dmcodec.precision import PRECISIONS
from dmcodec.sample import speech

RATE = 16000
SPEECH, OTHER, SHORT, NOISE, SILENCE = "speech", "other-speech", "short", "noise", "silence"
LESS, FRAME, MORE, SAMPLE = "frame-less-1", "frame", "frame-and-1", "sample"
ALL = (SPEECH, OTHER, SHORT, NOISE, SILENCE, LESS, FRAME, MORE, SAMPLE)

CASES = (
    Case("alone", "alone", ALL),
    Case("batch of 2", "batch", (SPEECH, SPEECH)),
    Case("batch of 4, other company", "batch", (OTHER, SPEECH, SPEECH, OTHER)),
    Case("batch of 8", "batch", (SPEECH, OTHER) * 4),
    Case("batch of 16", "batch", (OTHER,) * 15 + (SPEECH,)),
    Case("batch of short clips", "batch", (FRAME, LESS, FRAME, MORE, SAMPLE, SAMPLE)),
    Case("batch of any lengths", "batch", ALL),
    Case("batch of any lengths, reversed", "batch", ALL[::-1]),
    Case("padding, one clip", "padding", (SPEECH,), (1, 319, 320, 16000)),
    Case("padding, all clips", "padding", ALL, (0, 1000)),
    Case("files", "file", ALL),
    Case("levels", "levels", (SPEECH, SHORT), (1, 2, 3, 4, 5, 6, 7, 8)),
    Case("threads", "threads", ALL, (1, 2, 4)),
    Case("processes", "processes", ALL, (2,)),
    Case("blocks", "blocks", ALL, (1000, 64, 7)),
    Case("blocks of 1 frame", "blocks", (SHORT, NOISE), (1,)),
    Case("decode alone", "decode alone", ALL),
    Case("decode in a batch of 4", "decode batch", (OTHER, SPEECH, SPEECH, OTHER)),
    Case("decode in a batch of any lengths", "decode batch", ALL),
    Case("decode in chunks of 1 frame", "decode chunks", (SPEECH, SHORT, FRAME, SAMPLE), (1,)),
    Case("decode in chunks of 5 frames", "decode chunks", ALL, (5,)),
    Case("decode in uneven chunks", "decode chunks", ALL, (3, 1, 4, 1, 5, 9, 2, 6)),
    Case("decode in chunks of 1000 frames", "decode chunks", ALL, (1000,)),
    Case("decode 4 streams at the same time", "decode streams", (SHORT, FRAME), (4,)),
)


def clips() -> dict[str, NDArray[np.int16]]:
    """Return the samples of the clips: 16-bit, so that FLAC keeps them exactly."""
    clip = speech(160_000, RATE)
    noise = np.random.default_rng(15).normal(0, 0.1, 5000).astype(np.float32)
    parts = {
        SPEECH: clip[16_000 : 16_000 + 3 * RATE - 77],
        OTHER: clip[90_000 : 90_000 + 43_000],
        SHORT: clip[70_000 : 70_000 + RATE // 2 + 1],
        NOISE: noise,
        SILENCE: np.zeros(6400, np.float32),
        LESS: clip[40_000 : 40_000 + 319],
        FRAME: clip[50_000 : 50_000 + 320],
        MORE: clip[60_000 : 60_000 + 321],
        SAMPLE: clip[30_000 : 30_000 + 1],
    }
    return {name: np.round(32768 * part).clip(-32768, 32767).astype(np.int16) for name, part in parts.items()}


def tied(codebooks: NDArray[np.float32], latents: NDArray[np.float64], codes: NDArray[np.int64]) -> list[list[int]]:
    """Return frame and level of each tie: the first level at which the next entry is as near, up to rounding."""
    centred = codebooks.astype(np.float64) - codebooks.mean(axis=1, dtype=np.float64, keepdims=True)
    found: dict[int, int] = {}
    residual = latents.T.copy()
    for level, entries in enumerate(codebooks.astype(np.float64)):
        vectors = residual - entries.mean(axis=0)
        scores = np.square(centred[level]).sum(axis=1) - 2 * vectors @ centred[level].T
        scores[np.arange(len(scores)), codes[level]] = np.inf
        other = codes.copy()
        other[level] = scores.argmin(axis=1)
        ties = tied_frames(codebooks, latents[None], codes[:, None], other[:, None])[0]
        for frame in np.flatnonzero(ties):
            found.setdefault(int(frame), level)
        residual -= entries[codes[level]]
    return [[frame, level] for frame, level in sorted(found.items())]


def write(folder: Path) -> None:
    """Write all files of the suite into `folder`."""
    bundle = Bundle.open(default_bundle_path())
    manifest = bundle.manifest
    model = torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs})
    reference = TorchReference(model)
    records = {}
    for name, samples in clips().items():
        audio, codes, decoded = f"{name}.flac", f"{name}.codes.npy", f"{name}.decoded.npy"
        soundfile.write(folder / audio, samples, RATE, subtype="PCM_16")
        waveform = samples.astype(np.float32) / 32768
        expected = run_reference(reference, waveform)
        np.save(folder / codes, expected.codes.astype(np.uint16))
        np.save(folder / decoded, expected.audio[: len(waveform)].astype(np.float32))
        ties = tied(reference.codebooks, expected.latents, expected.codes)
        records[name] = Clip(name, audio, codes, decoded, len(waveform), tuple((f, level) for f, level in ties))
    config = manifest.config
    Suite(
        folder=folder,
        codec={
            "model_id": manifest.model_id,
            "precision": manifest.precision,
            **{name: getattr(config, name) for name in ("sample_rate", "hop_length", "n_q", "codebook_size")},
        },
        tolerance={
            "audio_snr_db": PRECISIONS[manifest.arithmetic].thresholds.decoder_snr_db,
            "audio_max_abs_error": INAUDIBLE_ERROR,
        },
        clips=records,
        cases=CASES,
        files={path.name: file_sha256(path) for path in sorted(folder.iterdir())},
    ).write()


def main() -> None:
    """Write the suite to the folder that the only argument names, by default to dmcodec/data/conformance."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else suite_folder()
    with output_folder(out, force=True) as folder:
        write(folder)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(list(out.iterdir()))} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
