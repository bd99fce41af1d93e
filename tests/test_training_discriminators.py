"""The discriminators: the sizes of the published networks, and their outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dmcodec.training.config import DiscriminatorConfig
from dmcodec.training.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)

SMALL = DiscriminatorConfig(periods=(2, 3), scales=2, width=0.05, stft_n_fft=(256, 128), stft_filters=4)


def weights(module: nn.Module) -> int:
    """Weights of the convolutions, biases included, normalisations not."""
    convs = [part for part in module.modules() if isinstance(part, (nn.Conv1d, nn.Conv2d))]
    return sum(conv.weight.numel() + (0 if conv.bias is None else conv.bias.numel()) for conv in convs)


def test_full_size_networks_are_the_published_ones() -> None:
    with torch.device("meta"):
        period, scale = MultiPeriodDiscriminator((2, 3, 5, 7, 11)), MultiScaleDiscriminator(3)
        stft = MultiScaleSTFTDiscriminator((1024, 2048, 512, 256, 128), 32)
    # worked out from the layer tables of HiFi-GAN (appendix A.2) and EnCodec (section 3.4)
    one_period = (5 * 32 + 32) + (5 * 32 * 128 + 128) + (5 * 128 * 512 + 512) + (5 * 512 * 1024 + 1024)
    one_period += (5 * 1024 * 1024 + 1024) + (3 * 1024 + 1)
    assert weights(period) == 5 * one_period
    layers = [(1, 128, 15, 1), (128, 128, 41, 4), (128, 256, 41, 16), (256, 512, 41, 16), (512, 1024, 41, 16)]
    layers += [(1024, 1024, 41, 16), (1024, 1024, 5, 1), (1024, 1, 3, 1)]
    assert weights(scale) == 3 * sum(before // groups * after * k + after for before, after, k, groups in layers)
    one_stft = (2 * 32 * 27 + 32) + 3 * (32 * 32 * 27 + 32) + (32 * 32 * 9 + 32) + (32 * 9 + 1)
    assert weights(stft) == 5 * one_stft


def test_the_output_has_scores_and_maps_of_every_part() -> None:
    output = Discriminators(SMALL)(torch.randn(3, 1, 4000))
    assert len(output.scores) == 2 + 2 + 2
    assert [len(maps) for maps in output.feature_maps] == [6, 6, 8, 8, 5, 5]
    assert all(score.shape[0] == 3 for score in output.scores)


def test_a_period_sees_every_pth_sample_only() -> None:
    part = MultiPeriodDiscriminator((3,), 0.1).eval()
    waveform = torch.randn(1, 1, 3 * 243)
    changed = waveform.clone()
    changed[..., 1::3] += 1
    before, after = part(waveform).scores[0], part(changed).scores[0]
    assert before.shape == (1, 1, 3, 3)  # 243 / 3^4 rows, one column for each offset
    torch.testing.assert_close(before[..., [0, 2]], after[..., [0, 2]])
    assert not torch.allclose(before[..., 1], after[..., 1])


def test_only_the_first_scale_is_spectral_normalised() -> None:
    names = [name for name, _ in MultiScaleDiscriminator(3, 0.1).named_buffers()]
    assert names
    assert all(name.startswith("parts.0.") for name in names)


def test_stft_scales_see_values_of_one_size() -> None:
    noise = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(0))
    for part in MultiScaleSTFTDiscriminator((2048, 128), 2).parts:
        inputs: list[Tensor] = []
        first = next(module for module in part.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_pre_hook(lambda _module, args, inputs=inputs: inputs.append(args[0]))
        part(noise)
        assert inputs[0].shape[1] == 2
        # unit white noise has a spectrum of unit power: half in the real, half in the imaginary part
        assert inputs[0].square().mean().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("samples", [2048, 4001, 5120])
def test_any_length_works(samples: int) -> None:
    output = Discriminators(SMALL)(torch.randn(1, 1, samples))
    assert all(torch.isfinite(score).all() for score in output.scores)


def test_they_learn_to_tell_noise_from_a_tone() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(SMALL)
    optimizer = torch.optim.Adam(discriminators.parameters(), 2e-3)
    tone = 0.5 * torch.sin(torch.arange(2048) * 0.3).expand(4, 1, -1)
    first = last = 0.0
    for step in range(12):
        output = discriminators(torch.cat([tone, 0.5 * torch.randn(4, 1, 2048)]))
        loss = sum((((1 - s[:4]) ** 2).mean() + (s[4:] ** 2).mean() for s in output.scores), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < 0.7 * first
