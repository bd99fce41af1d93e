"""Losses against values worked out with numpy, and what their gradients reach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmcodec.config import CodecConfig
from dmcodec.mel import mel_filters
from dmcodec.nn import DMCodec
from dmcodec.training.batches import Batch
from dmcodec.training.config import (
    DiscriminatorConfig,
    DistillationConfig,
    LossConfig,
    MelScaleConfig,
    SpectralConfig,
    TrainingConfig,
)
from dmcodec.training.discriminators import Discriminators
from dmcodec.training.generator import Generator
from dmcodec.training.losses import (
    LogMel,
    MelLoss,
    Objective,
    SpectralLoss,
    adversarial_loss,
    cut_to_shorter,
    discriminator_loss,
    feature_axis_loss,
    feature_matching_loss,
    teacher_mask,
    time_axis_loss,
)

SCALE = MelScaleConfig(256, 60, 1.0)


def numpy_log_mel(waveform: NDArray[np.float64], scale: MelScaleConfig, sample_rate: int) -> NDArray[np.float64]:
    """The definition, frame by frame, with the filters of another library."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        scale.n_fft // 2 + 1, scale.n_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="htk"
    )
    padded = np.pad(waveform, (scale.n_fft - scale.hop_length) // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(scale.n_fft) / scale.n_fft)
    frames = [
        np.abs(np.fft.rfft(padded[start : start + scale.n_fft] * window))
        for start in range(0, len(padded) - scale.n_fft + 1, scale.hop_length)
    ]
    return np.log(np.maximum(filters.T @ np.stack(frames, axis=1), 1e-5))


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("scale", LossConfig().mel, ids=lambda scale: str(scale.n_fft))
def test_log_mel_is_the_definition(scale: MelScaleConfig) -> None:
    waveform = np.random.default_rng(0).standard_normal(4800) * 0.1
    found = LogMel(scale, 16000)(torch.from_numpy(waveform)[None].float())[0]
    wanted = numpy_log_mel(waveform, scale, 16000)
    assert found.shape == wanted.shape == (80, 4800 // scale.hop_length)
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_mel_filters_have_unit_area() -> None:
    filters = mel_filters(4096, 20, 16000)
    np.testing.assert_allclose(filters.sum(axis=1) * 16000 / 4096, 1.0, atol=0.05)


def test_mel_loss_weighs_its_scales() -> None:
    scales = (SCALE, dataclasses.replace(SCALE, n_fft=512, weight=3.0))
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(2, 2, 2000, generator=generator) * 0.1
    found = MelLoss(scales, 16000)(output, target)
    wanted = 0.0
    for scale in scales:
        log_mel = LogMel(scale, 16000)
        wanted += scale.weight * np.abs(log_mel(output).numpy() - log_mel(target).numpy()).mean()
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_mel_loss_of_silence_has_a_gradient_without_nan() -> None:
    output = torch.zeros(1, 2000, requires_grad=True)
    MelLoss([SCALE], 16000)(output, torch.randn(1, 2000)).backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


def test_least_squares_and_feature_matching_by_hand() -> None:
    real, fake = [torch.tensor([1.0, 0.5]), torch.tensor([0.0])], [torch.tensor([0.0, 1.0]), torch.tensor([2.0])]
    # mean(0, .25) + mean(0, 1) for the first, 1 + 4 for the second
    assert discriminator_loss(real, fake).item() == pytest.approx(0.125 + 0.5 + 5)
    assert adversarial_loss(fake).item() == pytest.approx(0.5 + 1)
    maps_real = [[torch.tensor([1.0, 2.0])], [torch.tensor([0.0]), torch.tensor([4.0])]]
    maps_fake = [[torch.tensor([2.0, 4.0])], [torch.tensor([1.0]), torch.tensor([4.0])]]
    assert feature_matching_loss(maps_real, maps_fake).item() == pytest.approx(1.5 + 1 + 0)


def random_features(seed: int, frames: int = 7) -> Tensor:
    return torch.randn(2, frames, 5, generator=torch.Generator().manual_seed(seed))


def test_feature_axis_distillation_is_the_paper_s_formula() -> None:
    q, t = random_features(0), random_features(1)
    wanted = []
    for b in range(2):
        for d in range(5):
            x, y = q[b, :, d].numpy(), t[b, :, d].numpy()
            cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
            wanted.append(np.log(1 + np.exp(-cosine)))
    found = feature_axis_loss(q, t, torch.ones(2, 7, dtype=torch.bool))
    assert found.item() == pytest.approx(np.mean(wanted), rel=1e-5)


def test_time_axis_distillation_by_numpy() -> None:
    q, t = random_features(0), random_features(1)
    x, y = q.numpy(), t.numpy()
    cosine = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    wanted = np.abs(x - y).mean() + 0.3 * np.log(1 + np.exp(-cosine)).mean()
    found = time_axis_loss(q, t, torch.ones(2, 7, dtype=torch.bool), 0.3)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", [feature_axis_loss, time_axis_loss])
def test_masked_frames_change_no_distillation(loss: object) -> None:
    q, t = random_features(0), random_features(1)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 5:] = False
    other = q.clone()
    other[:, 5:] = 100.0
    assert callable(loss)
    assert loss(q, t, mask).item() == pytest.approx(loss(other, t, mask).item(), rel=1e-6)
    assert loss(q, t, mask).item() == pytest.approx(loss(q[:, :5], t[:, :5], mask[:, :5]).item(), rel=1e-6)


def test_a_teacher_with_fewer_frames_cuts_both() -> None:
    q, t, mask = cut_to_shorter(random_features(0, 8), random_features(1, 7), torch.ones(2, 8, dtype=torch.bool))
    assert q.shape == t.shape == (2, 7, 5)
    assert mask.shape == (2, 7)


def test_frames_without_a_word_are_masked() -> None:
    teacher = random_features(0)
    teacher[0, 3] = 0
    mask = teacher_mask(torch.ones(2, 7, dtype=torch.bool), teacher)
    assert not mask[0, 3]
    assert mask.sum() == 13


@pytest.fixture
def config(tiny_config: CodecConfig) -> TrainingConfig:
    return TrainingConfig(
        codec=tiny_config,
        losses=LossConfig(mel=(SCALE,)),
        discriminators=DiscriminatorConfig(periods=(2,), scales=1, width=0.1, stft_n_fft=(128,), stft_filters=2),
    )


def batch_of(config: TrainingConfig, widths: dict[str, int]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(2, 1, 3200, generator=generator) * 0.1
    waveform[1, :, 1600:] = 0
    teachers = {kind: torch.randn(2, 10, width, generator=generator) for kind, width in widths.items()}
    return Batch(waveform, torch.tensor([3200, 1600]), torch.tensor([10, 5]), teachers, [0, 1])


def numpy_compressed(waveform: NDArray[np.float64], spectrum: SpectralConfig) -> NDArray[np.complex128]:
    """The definition, frame by frame, without a floor."""
    padded = np.pad(waveform, spectrum.n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spectrum.n_fft) / spectrum.n_fft)
    starts = range(0, len(padded) - spectrum.n_fft + 1, spectrum.hop_length)
    values = np.stack([np.fft.rfft(padded[start : start + spectrum.n_fft] * window) for start in starts])
    return np.abs(values) ** spectrum.compression * np.exp(1j * np.angle(values))


def test_spectral_loss_is_the_definition() -> None:
    first, second = SpectralConfig(256, 64, 1.0), SpectralConfig(512, 200, 3.0, compression=0.5, complex_share=0.1)
    target, output = np.random.default_rng(0).standard_normal((2, 4800)) * 0.1
    wanted = 0.0
    for spectrum in (first, second):
        a, b = numpy_compressed(output, spectrum), numpy_compressed(target, spectrum)
        magnitudes, values = np.square(abs(a) - abs(b)).mean(), np.square(abs(a - b)).mean()
        share = spectrum.complex_share
        wanted += float(spectrum.weight * ((1 - share) * magnitudes + share * values))
    found = SpectralLoss((first, second))(torch.from_numpy(output)[None], torch.from_numpy(target)[None])
    assert found.item() == pytest.approx(wanted, rel=1e-3)


def test_spectral_loss_of_silence_has_a_gradient() -> None:
    loss = SpectralLoss((SpectralConfig(256, 64, 1.0),))
    silence = torch.zeros(1, 3200, requires_grad=True)
    assert loss(silence, silence.detach()).item() == 0
    loss(silence, torch.randn(1, 3200, generator=torch.Generator().manual_seed(0)) * 0.1).backward()
    assert silence.grad is not None
    assert silence.grad.isfinite().all()
    assert 0 < silence.grad.abs().max() < 1


def test_phases_count_in_the_complex_share_only() -> None:
    waveform = torch.randn(1, 3200, generator=torch.Generator().manual_seed(0)) * 0.1
    deaf, hears = (SpectralLoss((SpectralConfig(256, 64, 1.0, complex_share=share),)) for share in (0.0, 0.3))
    assert deaf(-waveform, waveform).item() == pytest.approx(0, abs=1e-6)
    assert hears(-waveform, waveform).item() > 0.1


def test_a_spectral_loss_is_part_of_the_sum(config: TrainingConfig) -> None:
    torch.manual_seed(0)
    losses = dataclasses.replace(config.losses, spectral=(SpectralConfig(256, 64, 100.0),))
    batch, found = batch_of(config, {}), {}
    generator = Generator(DMCodec.seeded(config.codec), config, {}).eval()
    for name, chosen in (("without", config.losses), ("with", losses)):
        objective = Objective(dataclasses.replace(config, losses=chosen))
        found[name] = objective.generator(None, batch, generator(batch, 0))
    terms = found["with"][1]
    assert "spectral" not in found["without"][1]
    assert terms["spectral"].item() > 1
    assert (found["with"][0] - found["without"][0]).item() == pytest.approx(terms["spectral"].item(), rel=1e-4)


def test_the_generator_s_loss_is_the_recipe_s_sum(config: TrainingConfig) -> None:
    torch.manual_seed(0)
    widths = {"lm": 24, "sm": 24}
    generator = Generator(DMCodec.seeded(config.codec), config, widths).eval()
    discriminators, objective, batch = (
        Discriminators(config.discriminators).eval(),
        Objective(config),
        batch_of(config, widths),
    )
    total, terms = objective.generator(discriminators, batch, generator(batch, 0))
    value = {name: term.item() for name, term in terms.items()}
    wanted = (
        value["feature_matching"] * 2 + value["adversarial"] + value["mel"] + 10 * value["commitment"]
        + 500 * value["waveform"] + 120 * (value["distillation_lm"] + value["distillation_sm"]) / 2
    )  # fmt: skip
    assert total.item() == pytest.approx(wanted, rel=1e-5)


def grads(module: torch.nn.Module) -> set[str]:
    return {
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


def test_the_discriminators_loss_reaches_only_them(config: TrainingConfig) -> None:
    generator, discriminators = Generator(DMCodec(config.codec), config, {}), Discriminators(config.discriminators)
    batch = batch_of(config, {})
    Objective(config).discriminators(discriminators, batch, generator(batch, 0)).backward()
    assert grads(generator) == set()
    assert len(grads(discriminators)) == len(list(discriminators.parameters()))


def test_distillation_reaches_encoder_transform_and_projection_only(config: TrainingConfig) -> None:
    torch.manual_seed(0)
    generator = Generator(DMCodec.seeded(config.codec), config, {"lm": 24, "sm": 20}).eval()
    batch = batch_of(config, {"lm": 24, "sm": 20})
    output = generator(batch, 0)
    assert output.features["sm"].shape == (2, 10, 20)
    mask = batch.frame_mask()
    sum(feature_axis_loss(output.features[kind], batch.teachers[kind], mask) for kind in ("lm", "sm")).backward()  # type: ignore[union-attr]
    reached = {name.split(".")[0] + "." + name.split(".")[1] for name in grads(generator)}
    assert reached == {"codec.encoder", "codec.transform", "projections.sm"}


@pytest.mark.parametrize(("locked", "lm", "sm"), [(None, 3, 3), ("lm", 0, 3), ("sm", 3, 0)])
def test_each_teacher_pulls_at_its_level(config: TrainingConfig, locked: str | None, lm: int, sm: int) -> None:
    distillation = DistillationConfig(level=3, locked=locked)
    changed = dataclasses.replace(config, distillation=distillation)
    generator = Generator(DMCodec.seeded(config.codec), changed, {"lm": 24, "sm": 24}).eval()
    batch = batch_of(config, {"lm": 24, "sm": 24})
    output = generator(batch, 0)
    codec = generator.codec
    for kind, level in (("lm", lm), ("sm", sm)):
        entries = codec.quantizer.levels[level].embed[output.codes[level]]
        torch.testing.assert_close(output.features[kind], codec.transform(entries), atol=1e-5, rtol=1e-5)


def test_padding_is_no_part_of_the_output(config: TrainingConfig) -> None:
    output = Generator(DMCodec.seeded(config.codec), config, {}).eval()(batch_of(config, {}), 0)
    assert output.waveform.shape == (2, 1, 3200)
    assert not output.waveform[1, :, 1600:].any()
    assert output.waveform[1, :, :1600].any()
