"""What would features that don't change with time reach in the distillation's loss along time?

    python recipes/small/constants.py DATA

DATA comes from `dmcodec train prepare` and `train teach`. Taken are stretches of 1.28 s of 1000 random segments; an
aligned LM's frames without a word don't count, nor do stretches without any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.training.data import PreparedData

SEGMENTS = 1000
FRAME_RATE_HZ = 50.0
STRETCH_FRAMES = 64  # 1.28 s
SEED = 0


def main() -> None:
    """Prints loss and mean cosine of constants for each teacher: of one for all stretches, and of one for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = PreparedData.open(parser.parse_args().data)
    random = np.random.default_rng(SEED)
    segments = random.choice(data.segment_ids("train"), SEGMENTS, replace=False)
    for kind in data.teachers:
        stretches = (stretch(data, kind, int(segment), random) for segment in segments)
        cosines = np.array([cosine_with_one(features) for features in stretches if len(features)])
        report(f"{kind}, one for all", np.sign(cosines.mean(axis=0)) * cosines)
        report(f"{kind}, one for each", np.abs(cosines))


def stretch(data: PreparedData, kind: str, segment: int, random: np.random.Generator) -> NDArray[np.float32]:
    """A teacher's features [frames, width] for a random stretch of a segment, where it says something."""
    num_frames = round(int(data.num_samples[segment]) * FRAME_RATE_HZ / data.sample_rate)
    features = data.teacher(kind, segment, num_frames, FRAME_RATE_HZ)
    start = random.integers(max(1, len(features) - STRETCH_FRAMES + 1))
    features = features[start : start + STRETCH_FRAMES]
    return features[features.any(axis=1)]


def cosine_with_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine [width], along time, of features [frames, width] with a constant of 1."""
    rms = np.sqrt(np.square(features).mean(axis=0))
    return np.asarray(features.mean(axis=0) / rms, np.float32)


def report(what: str, cosines: NDArray[np.float32]) -> None:
    """Prints the mean loss, -log sigmoid(cosine), and the mean of the cosines [stretches, width]."""
    loss = np.log1p(np.exp(-cosines)).mean()
    print(f"{what}: loss {loss:.3f}, cosine {cosines.mean():.2f}, {len(cosines)} stretches")


if __name__ == "__main__":
    main()
