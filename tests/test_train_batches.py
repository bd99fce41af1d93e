"""The batches of training: epochs, crops, padding, and where a run goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmcodec.training.batches import BatchPlan, Segments, training_batches
from dmcodec.training.config import TrainingConfig
from dmcodec.training.data.dataset import PreparedData


@pytest.mark.parametrize(("batch_size", "processes"), [(1, 1), (2, 1), (2, 2), (5, 3), (100, 1)])
def test_an_epoch_holds_every_segment(batch_size: int, processes: int) -> None:
    lengths = np.random.default_rng(0).integers(8000, 48000, 71)
    plan = BatchPlan(lengths, batch_size, processes, seed=3)
    for epoch in (0, 1):
        parts = [plan.epoch(epoch, process) for process in range(processes)]
        assert all(len(part) == plan.batches_per_epoch for part in parts)
        assert all(len(batch) == batch_size for part in parts for batch in part)
        assert {position for part in parts for batch in part for position in batch} == set(range(71))
    assert plan.epoch(0, 0) == BatchPlan(lengths, batch_size, processes, seed=3).epoch(0, 0)
    assert plan.epoch(0, 0) != plan.epoch(1, 0) or batch_size == 100


def test_batches_go_on_where_they_stopped(training_data: PreparedData, training_config: TrainingConfig) -> None:
    segments = Segments(training_data, training_data.segment_ids("train"), training_config.codec, ("lm", "sm"))
    plan = BatchPlan(training_data.num_samples[segments.ids], 2, 1, 0)
    count = 2 * plan.batches_per_epoch + 1

    def some(start: int, number: int) -> list[Any]:
        stream = training_batches(segments, plan, 0, start, workers=0)
        return [next(stream) for _ in range(number)]

    whole = some(0, count)
    for start in (1, plan.batches_per_epoch, plan.batches_per_epoch + 2):
        for wanted, found in zip(whole[start:], some(start, count - start), strict=True):
            assert wanted.segments == found.segments
            assert torch.equal(wanted.waveform, found.waveform)


def test_crops_are_stretches_of_segments_and_of_their_features(
    training_data: PreparedData, training_config: TrainingConfig
) -> None:
    segments = Segments(training_data, training_data.segment_ids("train"), training_config.codec, ("lm", "sm"))
    plan = BatchPlan(training_data.num_samples[segments.ids], 2, 1, 0)
    crop = 10 * 320 + 100
    stream = training_batches(segments, plan, 0, 0, workers=0, crop_samples=crop)
    batches = [next(stream) for _ in range(2 * plan.batches_per_epoch)]
    starts: dict[int, set[int]] = {}
    for batch in batches:
        for row, segment in enumerate(batch.segments):
            whole = training_data.waveform(segment)
            samples, frames = int(batch.num_samples[row]), int(batch.num_frames[row])
            assert samples == min(crop, len(whole))
            found = batch.waveform[row, 0, :samples].numpy()
            (first,) = [
                frame
                for frame in range((len(whole) - samples) // 320 + 1)
                if np.array_equal(whole[frame * 320 : frame * 320 + samples], found)
            ]
            starts.setdefault(segment, set()).add(first)
            all_frames = training_config.codec.num_frames(len(whole))
            for kind in ("lm", "sm"):
                features = training_data.teacher(kind, segment, all_frames, 50.0)[first : first + frames]
                assert np.array_equal(batch.teachers[kind][row, : len(features)].numpy(), features)
    assert any(len(each) == 2 for each in starts.values())  # another stretch in the next epoch
    resumed = training_batches(segments, plan, 0, plan.batches_per_epoch + 1, workers=0, crop_samples=crop)
    assert torch.equal(next(resumed).waveform, batches[plan.batches_per_epoch + 1].waveform)


def test_a_batch_is_padded_with_silence(training_data: PreparedData, training_config: TrainingConfig) -> None:
    segments = Segments(training_data, training_data.segment_ids("train"), training_config.codec, ("lm", "sm"))
    short = int(np.argmin(training_data.num_samples[segments.ids]))
    long = int(np.argmax(training_data.num_samples[segments.ids]))
    batch = segments.collate([segments[short], segments[long]])
    samples = training_data.num_samples[segments.ids[[short, long]]].tolist()
    assert batch.num_samples.tolist() == samples
    assert batch.waveform.shape == (2, 1, samples[1])
    assert not batch.waveform[0, 0, samples[0] :].any()
    assert batch.frame_mask().sum(dim=1).tolist() == batch.num_frames.tolist() == [-(-n // 320) for n in samples]
    assert batch.sample_mask().sum(dim=(1, 2)).tolist() == samples
    assert batch.teachers["lm"].shape[2] == 24
    assert batch.teachers["sm"].shape[2] == 20
