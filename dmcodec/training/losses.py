"""Losses of the generator and of the discriminators (arXiv 2410.15017, section 3.3 and appendix).

The commitment loss is in `quantizer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.mel import mel_filters

from .batches import Batch
from .config import MelScaleConfig, SpectralConfig, TrainingConfig
from .discriminators import DiscriminatorOutput
from .generator import GeneratorOutput

FLOOR = 1e-5  # of mel magnitudes
COMPRESSION_FLOOR = 1e-3  # magnitudes far below it are not compressed


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the sum over discriminators of mean (1 - D(x))^2 + mean D(G)^2 (least squares, arXiv 1611.04076)."""
    losses = [(1 - r.float()).square().mean() + f.float().square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return the sum over discriminators of mean (1 - D(G))^2."""
    return torch.stack([(1 - f.float()).square().mean() for f in fake]).sum()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the sum over all feature maps of the mean absolute difference; `real` gets no gradient."""
    losses = [
        F.l1_loss(f.float(), r.detach().float())
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps, fake_maps, strict=True)
    ]
    return torch.stack(losses).sum()


class LogMel(nn.Module):
    """Waveforms [B, samples] -> natural-log mel magnitudes [B, n_mels, frames], 0 Hz to half the sample rate.

    Hann window of n_fft samples; reflected by (n_fft - hop_length) / 2 at both ends, so that there is one frame per
    hop; filters on the HTK mel scale with Slaney's area norm; magnitudes floored at 1e-5.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, scale: MelScaleConfig, sample_rate: int) -> None:
        super().__init__()
        self.scale = scale
        filters = torch.from_numpy(mel_filters(scale.n_fft, scale.n_mels, sample_rate)).float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(scale.n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        scale = self.scale
        padding = (scale.n_fft - scale.hop_length) // 2
        padded = F.pad(waveform[:, None].float(), (padding, padding), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, scale.n_fft, scale.hop_length, window=self.window, center=False, return_complex=True
        )
        # The square root has no gradient at 0, and silence needs one.
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9**2).sqrt()
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel spectrograms of waveforms [B, samples], a weighted sum over scales.

    From HiFi-GAN (arXiv 2010.05646, section 2.4), with the constants of the released recipe.
    """

    def __init__(self, scales: Sequence[MelScaleConfig], sample_rate: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(LogMel(scale, sample_rate) for scale in scales)
        self.weights = [scale.weight for scale in scales]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        distances = [
            weight * F.l1_loss(log_mel(output), log_mel(target))
            for weight, log_mel in zip(self.weights, self.scales, strict=True)
        ]
        return torch.stack(distances).sum()

    def first_scale(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the unweighted distance at the first scale, which selects the best checkpoint."""
        return F.l1_loss(self.scales[0](output), self.scales[0](target))


class SpectralLoss(nn.Module):
    """Mean squared difference of compressed spectra of waveforms [B, samples], a weighted sum over spectra.

    Magnitudes are raised to a power of about 0.3, as loudness is. One part of the loss compares the compressed
    magnitudes, the other one the complex values of these magnitudes with unchanged phases (Braun and Tashev,
    arXiv 2009.12286, section 3). Magnitudes far below 1e-3 are not compressed: the slope of the power is infinite at 0.
    """

    def __init__(self, spectra: Sequence[SpectralConfig]) -> None:
        super().__init__()
        self.spectra = tuple(spectra)
        for i, spectrum in enumerate(self.spectra):
            self.register_buffer(f"window_{i}", torch.hann_window(spectrum.n_fft), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        distances = [
            spectrum.weight * self._distance(output, target, spectrum, self.get_buffer(f"window_{i}"))
            for i, spectrum in enumerate(self.spectra)
        ]
        return torch.stack(distances).sum()

    def _distance(self, output: Tensor, target: Tensor, spectrum: SpectralConfig, window: Tensor) -> Tensor:
        (values, magnitudes), (true_values, true_magnitudes) = (
            _compressed(waveform, spectrum, window) for waveform in (output, target)
        )
        complex_distance = (values - true_values).square().sum(-1).mean()
        distance = (magnitudes - true_magnitudes).square().mean()
        return (1 - spectrum.complex_share) * distance + spectrum.complex_share * complex_distance


def _compressed(waveform: Tensor, spectrum: SpectralConfig, window: Tensor) -> tuple[Tensor, Tensor]:
    """Return the compressed spectrum: complex values as pairs [B, bins, frames, 2], magnitudes [B, bins, frames]."""
    values = torch.view_as_real(
        torch.stft(waveform.float(), spectrum.n_fft, spectrum.hop_length, window=window, return_complex=True)
    )
    power = values.square().sum(-1) + COMPRESSION_FLOOR**2
    values = values * power[..., None] ** ((spectrum.compression - 1) / 2)
    return values, power ** (spectrum.compression / 2)


def feature_axis_loss(features: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over feature dimensions of -log sigmoid(cosine along the frame axis) (paper, section 3.2).

    Args:
        features: of the codec, [B, T, D].
        teacher: [B, T, D]; gets no gradient.
        mask: [B, T] bool, true where the teacher has features; other frames count as 0 in both.
    """
    cosine = F.cosine_similarity(features * mask[..., None], teacher.detach() * mask[..., None], dim=1)
    return -F.logsigmoid(cosine).mean()


def time_axis_loss(features: Tensor, teacher: Tensor, mask: Tensor, similarity_weight: float = 1.0) -> Tensor:
    """Return the mean over frames of L1 distance - `similarity_weight` * log sigmoid(cosine along the feature axis).

    Shapes as in `feature_axis_loss`; frames outside `mask` do not count.
    """
    features, teacher = features[mask], teacher.detach()[mask]
    cosine = F.cosine_similarity(features, teacher, dim=-1)
    return F.l1_loss(features, teacher) - similarity_weight * F.logsigmoid(cosine).mean()


def cut_to_shorter(features: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all three [B, T, ...] cut to the shorter length: a teacher may give one frame less than the codec."""
    frames = min(features.shape[1], teacher.shape[1])
    return features[:, :frames], teacher[:, :frames], mask[:, :frames]


def teacher_mask(mask: Tensor, teacher: Tensor) -> Tensor:
    """Return `mask` [B, T] without the frames where the teacher's features are all 0, as no word is said there."""
    return mask & torch.any(teacher != 0, dim=-1)


class Objective(nn.Module):
    """The losses of a training configuration; weights are in `TrainingConfig.losses`."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelLoss(config.losses.mel, config.codec.sample_rate)
        self.spectral = SpectralLoss(config.losses.spectral) if config.losses.spectral else None

    def discriminators(self, discriminators: nn.Module, batch: Batch, output: GeneratorOutput) -> Tensor:
        """Return the loss of the discriminators, a scalar; the generator gets no gradient."""
        # One call for real and fake: DistributedDataParallel needs one forward pass for each backward pass.
        both: DiscriminatorOutput = discriminators(torch.cat([batch.waveform, output.waveform.detach().float()]))
        real, fake = zip(*(score.chunk(2) for score in both.scores), strict=True)
        return discriminator_loss(real, fake)

    def generator(
        self, discriminators: nn.Module | None, batch: Batch, output: GeneratorOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the generator, and its unweighted terms by name.

        Args:
            discriminators: with frozen weights; None before they take part.
            batch: of segments.
            output: of the generator for `batch`.
        """
        waveform, target = output.waveform.float(), batch.waveform
        weights = self.config.losses
        terms = {
            "waveform": (waveform - target).abs().sum() / batch.num_samples.sum(),
            "mel": self.mel(waveform[:, 0], target[:, 0]),
            "commitment": output.commitment,
        }
        total = weights.waveform * terms["waveform"] + terms["mel"] + weights.commitment * terms["commitment"]
        if self.spectral is not None:
            terms["spectral"] = self.spectral(waveform[:, 0], target[:, 0])
            total = total + terms["spectral"]
        if output.consistency is not None:
            terms["consistency"] = output.consistency
            total = total + self.config.consistency.weight * output.consistency
        distillation = self.config.distillation
        for kind, features in output.features.items():
            terms[f"distillation_{kind}"] = self._distillation(features.float(), batch.teachers[kind], batch)
            share = distillation.weight_of(kind)
            total = total + weights.distillation * share * terms[f"distillation_{kind}"]
        if discriminators is not None:
            with torch.no_grad():
                real: DiscriminatorOutput = discriminators(target)
            fake: DiscriminatorOutput = discriminators(waveform)
            terms["adversarial"] = adversarial_loss(fake.scores)
            terms["feature_matching"] = feature_matching_loss(real.feature_maps, fake.feature_maps)
            total = total + weights.adversarial * terms["adversarial"]
            total = total + weights.feature_matching * terms["feature_matching"]
        return total, terms

    def _distillation(self, features: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        features, teacher, mask = cut_to_shorter(features, teacher, batch.frame_mask())
        mask = teacher_mask(mask, teacher)
        if not mask.any():  # no word is said in the batch
            return features.sum() * 0.0
        if self.config.distillation.axis == "time":
            return time_axis_loss(features, teacher, mask, self.config.distillation.time_lambda)
        return feature_axis_loss(features, teacher, mask)
