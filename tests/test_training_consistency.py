"""The consistency loss against values worked out by hand, and its place in a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_runs import QUIET, same_run

from dmcodec.config import CodecConfig
from dmcodec.errors import ConfigError
from dmcodec.nn import DMCodec
from dmcodec.training.batches import Batch
from dmcodec.training.config import ConsistencyConfig, LossConfig, MelScaleConfig, TrainingConfig
from dmcodec.training.consistency import consistency_loss, perturb_phases
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training.generator import Generator
from dmcodec.training.losses import Objective
from dmcodec.training.metrics_log import read_lines
from dmcodec.training.run_folder import RunFolder

HOP = 2
PLAIN = ConsistencyConfig(1.0, slice_share=0.25, phase_rad=0.0)


def means(waveform: Tensor) -> Tensor:
    """An encoder without context: the mean of each frame of two samples."""
    return waveform.unflatten(-1, (-1, HOP)).mean(-1)


def means_and_mean(waveform: Tensor) -> Tensor:
    """An encoder with context: the mean of all of the input is added to each frame."""
    return means(waveform) + waveform.mean(-1, keepdim=True)


def batch_of(*rows: list[float]) -> Batch:
    """Segments with frames of these values, padded with zeros."""
    frames = torch.tensor([len(row) for row in rows])
    waveform = torch.zeros(len(rows), 1, HOP * int(frames.max()))
    for target, row in zip(waveform, rows, strict=True):
        target[0, : HOP * len(row)] = torch.tensor(row).repeat_interleave(HOP)
    return Batch(waveform, HOP * frames, frames, {}, list(range(len(rows))))


def test_by_hand() -> None:
    batch = batch_of([1.0, 2.0, 3.0, 6.0])  # its mean is 3, its latents are 4, 5, 6, 9
    latents, found = means_and_mean(batch.waveform), set()
    for seed in range(20):
        torch.manual_seed(seed)
        # one frame of four: a slice of value v has the latent v + v, the whole v + 3 there
        found.add(consistency_loss(means_and_mean, batch, latents, HOP, PLAIN).item())
    assert found == {(1 - 3) ** 2, (2 - 3) ** 2, 0.0, (6 - 3) ** 2}


def test_slices_of_two_segments_stay_within_each() -> None:
    batch = batch_of([5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0], [1.0, 1.0, 1.0, 1.0])
    latents = means_and_mean(batch.waveform)
    for seed in range(10):
        torch.manual_seed(seed)
        loss = consistency_loss(means_and_mean, batch, latents, HOP, PLAIN)
        # the first: 5 + 5 in both; the second: 1 + 1 alone, and 1 + 0.5 with its padding
        assert loss.item() == pytest.approx((0.0 + 0.5**2) / 2)


def test_an_encoder_without_context_has_no_loss_and_both_sides_have_a_gradient() -> None:
    batch = batch_of([0.1, 0.7, 0.2, 0.9])
    assert consistency_loss(means, batch, means(batch.waveform), HOP, PLAIN).item() == 0
    scale = torch.tensor(2.0, requires_grad=True)
    latents = means_and_mean(batch.waveform).requires_grad_()
    consistency_loss(lambda waveform: scale * means(waveform), batch, latents, HOP, PLAIN).backward()
    assert scale.grad is not None
    assert latents.grad is not None
    assert int((latents.grad != 0).sum()) == 1  # of the frame that the slice is


def test_perturbed_phases_change_a_little() -> None:
    torch.manual_seed(0)
    waveform = torch.randn(2, 1, 4000)
    assert perturb_phases(waveform, 0.0) is waveform
    changed = perturb_phases(waveform, 0.1)
    assert changed.shape == waveform.shape
    share = ((changed - waveform).square().mean() / waveform.square().mean()).item()
    assert 1e-4 < share < 0.1**2 / 3  # the mean square of the angles; overlapping windows average it
    assert perturb_phases(torch.randn(1, 1, 40), 0.1).shape == (1, 1, 40)


@pytest.fixture
def config(tiny_config: CodecConfig) -> TrainingConfig:
    return TrainingConfig(codec=tiny_config, losses=LossConfig(mel=(MelScaleConfig(256, 60, 1.0),)))


def test_it_is_off_by_default_and_part_of_the_sum_with_a_weight(config: TrainingConfig) -> None:
    torch.manual_seed(0)
    waveform = torch.randn(2, 1, 3200) * 0.1
    batch = Batch(waveform, torch.tensor([3200, 3200]), torch.tensor([10, 10]), {}, [0, 1])
    codec, found = DMCodec.seeded(config.codec), {}
    for weight in (0.0, 7.0):
        changed = dataclasses.replace(config, consistency=ConsistencyConfig(weight))
        generator = Generator(codec, changed, {}).eval()
        before = torch.get_rng_state()
        output = generator(batch, 0)
        # without it, a run draws the same random numbers as before there was this loss
        assert torch.equal(before, torch.get_rng_state()) == (weight == 0)
        found[weight] = Objective(changed).generator(None, batch, output)
    assert "consistency" not in found[0.0][1]
    term = found[7.0][1]["consistency"].item()
    assert term > 1e-4
    assert (found[7.0][0] - found[0.0][0]).item() == pytest.approx(7 * term, rel=1e-3)
    found[7.0][0].backward()
    assert all(each.grad is not None for each in codec.encoder.parameters())


def test_a_run_with_it_goes_on_exactly(
    training_data: PreparedData, training_config: TrainingConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(training_config, consistency=ConsistencyConfig(10.0), steps=3)

    class StopError(Exception):
        pass

    def stop(step: int, _total: int, _losses: object) -> None:
        if step == 3:
            raise StopError

    fit(training_data, tmp_path / "whole", config, QUIET)
    with pytest.raises(StopError):
        fit(training_data, tmp_path / "broken", config, QUIET, report=stop)
    assert RunFolder(tmp_path / "broken").steps() == [0, 2]
    fit(training_data, tmp_path / "broken", config, QUIET, resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")
    assert all(line["consistency"] > 0 for line in read_lines(tmp_path / "whole/train.jsonl"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": -1}, "weight must not be negative"),
        ({"slice_share": 0.0}, "consistency.slice_share must be above 0"),
        ({"slice_share": 1.5}, "at most 1, not 1.5"),
        ({"phase_rad": 4.0}, "consistency.phase_rad must be from 0 to pi"),
        ({"phases": 1.0}, "unknown key consistency.phases"),
    ],
)
def test_what_cannot_be_right_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_dict({"consistency": values})
