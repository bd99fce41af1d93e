"""Measure the distillation loss (feature axis) that features reach which are constant in time.

    python recipes/small/constants.py DATA

DATA comes from `dmcodec train prepare` and `train teach`. The loss is measured on crops of 1.28 s of 1000 random
segments. Frames of an aligned LM without a word do not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.training.data import PreparedData

SEGMENTS = 1000
FRAME_RATE_HZ = 50.0
CROP_FRAMES = 64  # 1.28 s
SEED = 0


def main() -> None:
    """Print loss and mean cosine for each teacher: of one constant for all crops, and of the best one for each crop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = PreparedData.open(parser.parse_args().data)
    random = np.random.default_rng(SEED)
    ids = data.segment_ids("train")
    segments = random.choice(ids, min(SEGMENTS, len(ids)), replace=False)
    for kind in data.teachers:
        crops = (crop(data, kind, int(segment), random) for segment in segments)
        cosines = np.array([cosine_with_one(features) for features in crops if len(features)])
        report(f"{kind}, one constant for all crops", np.sign(cosines.mean(axis=0)) * cosines)
        report(f"{kind}, one constant per crop", np.abs(cosines))


def crop(data: PreparedData, kind: str, segment: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return a teacher's features [frames, width] for a random crop of a segment, without rows of zeros."""
    num_frames = round(int(data.num_samples[segment]) * FRAME_RATE_HZ / data.sample_rate)
    features = data.teacher(kind, segment, num_frames, FRAME_RATE_HZ)
    start = random.integers(max(1, len(features) - CROP_FRAMES + 1))
    features = features[start : start + CROP_FRAMES]
    return features[features.any(axis=1)]


def cosine_with_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine [width], along time, of features [frames, width] with a constant of 1."""
    rms = np.sqrt(np.square(features).mean(axis=0))
    return np.asarray(features.mean(axis=0) / rms, np.float32)


def report(name: str, cosines: NDArray[np.float32]) -> None:
    """Print the mean loss, -log sigmoid(cosine), and the mean of the cosines [crops, width]."""
    loss = np.log1p(np.exp(-cosines)).mean()
    print(f"{name}: loss {loss:.3f}, cosine {cosines.mean():.2f}, {len(cosines)} crops")


if __name__ == "__main__":
    main()
