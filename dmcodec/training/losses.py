"""The generator's and the discriminators' losses, apart from commitment (quantizer) and distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.mel import mel_filters

from .batches import Batch
from .config import MelScaleConfig, SpectralConfig, TrainingConfig
from .discriminators import Judgements
from .generator import GeneratorOutput

# FOLDED: Log-mel spectrograms of the mel loss (HiFi-GAN, arXiv 2010.05646, with the released recipe's constants).
# FOLDED: Continuous representation distillation: pulling a quantizer level's output towards a teacher's representation.
# FOLDED: What a batch costs: the losses of the discriminators and of the generator, by name.


FAINTEST = 1e-3


class MelLoss(nn.Module):
    """Weighted sum over scales of the mean absolute difference of log-mel spectrograms of waveforms [B, samples]."""

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
        """The unweighted distance at the first scale: the figure that picks the best checkpoint."""
        return F.l1_loss(self.scales[0](output), self.scales[0](target))


class SpectralLoss(nn.Module):
    """Weighted sum over spectra of the mean squared difference of compressed spectra of waveforms [B, samples].

    A spectrum's magnitudes are raised to the power of 0.3 or so, as loudness is; one part compares the magnitudes, the
    other one the complex values with their phases as they were (Braun and Tashev, arXiv 2009.12286, section 3).
    Magnitudes far under 1e-3, where the power's slope goes to infinity, are compressed no further.
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
    """Complex values as pairs [B, bins, frames, 2] and magnitudes [B, bins, frames], compressed."""
    values = torch.view_as_real(
        torch.stft(waveform.float(), spectrum.n_fft, spectrum.hop_length, window=window, return_complex=True)
    )
    power = values.square().sum(-1) + FAINTEST**2
    values = values * power[..., None] ** ((spectrum.compression - 1) / 2)
    return values, power ** (spectrum.compression / 2)


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least squares (Mao et al., arXiv 1611.04076): sum over discriminators of mean (1 - D(x))^2 + mean D(G)^2."""
    losses = [(1 - r.float()).square().mean() + f.float().square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Sum over discriminators of mean (1 - D(G))^2."""
    return torch.stack([(1 - f.float()).square().mean() for f in fake]).sum()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum over all feature maps of all discriminators of the mean absolute difference; `real` is a constant."""
    losses = [
        F.l1_loss(f.float(), r.detach().float())
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps, fake_maps, strict=True)
    ]
    return torch.stack(losses).sum()


FLOOR = 1e-5


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
        # A square root of 0 has no gradient; silence must have one.
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9**2).sqrt()
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


def feature_axis_loss(features: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over feature dimensions of -log sigmoid(cosine, over the frame axis, of the two).

    Args:
        features: [B, T, D], of the codec.
        teacher: [B, T, D]; a constant.
        mask: [B, T] bool, true where the teacher says something; other frames count as 0 in both.
    """
    cosine = F.cosine_similarity(features * mask[..., None], teacher.detach() * mask[..., None], dim=1)
    return -F.logsigmoid(cosine).mean()


def time_axis_loss(features: Tensor, teacher: Tensor, mask: Tensor, similarity_weight: float = 1.0) -> Tensor:
    """Mean over frames of the L1 distance plus `similarity_weight` x -log sigmoid(cosine over the feature axis).

    Shapes as in `feature_axis_loss`; frames outside `mask` don't count.
    """
    features, teacher = features[mask], teacher.detach()[mask]
    cosine = F.cosine_similarity(features, teacher, dim=-1)
    return F.l1_loss(features, teacher) - similarity_weight * F.logsigmoid(cosine).mean()


def cut_to_shorter(features: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three [B, T, ...] cut to the fewer frames of the two: a teacher may give one frame less than the codec."""
    frames = min(features.shape[1], teacher.shape[1])
    return features[:, :frames], teacher[:, :frames], mask[:, :frames]


def teacher_mask(mask: Tensor, teacher: Tensor) -> Tensor:
    """`mask` [B, T] without the frames where the teacher is silent (all zero: no word is spoken there)."""
    return mask & torch.any(teacher != 0, dim=-1)


class Objective(nn.Module):
    """The losses of a configuration (paper, section 3.3 and appendix; weights in `TrainingConfig.losses`)."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelLoss(config.losses.mel, config.codec.sample_rate)
        self.spectral = SpectralLoss(config.losses.spectral) if config.losses.spectral else None

    def discriminators(self, discriminators: nn.Module, batch: Batch, output: GeneratorOutput) -> Tensor:
        """The discriminators' loss; the generator gets no gradient from it."""
        # One call for real and fake: a DistributedDataParallel module wants one forward for each backward.
        judged: Judgements = discriminators(torch.cat([batch.waveform, output.waveform.detach().float()]))
        real, fake = zip(*(score.chunk(2) for score in judged.scores), strict=True)
        return discriminator_loss(real, fake)

    def generator(
        self, discriminators: nn.Module | None, batch: Batch, output: GeneratorOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its unweighted terms. `discriminators` must be frozen; None: they don't count yet."""
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
        distillation = self.config.distillation
        for kind, features in output.features.items():
            terms[f"distillation_{kind}"] = self._distillation(features.float(), batch.teachers[kind], batch)
            share = distillation.weight_of(kind)
            total = total + weights.distillation * share * terms[f"distillation_{kind}"]
        if discriminators is not None:
            with torch.no_grad():
                real: Judgements = discriminators(target)
            fake: Judgements = discriminators(waveform)
            terms["adversarial"] = adversarial_loss(fake.scores)
            terms["feature_matching"] = feature_matching_loss(real.feature_maps, fake.feature_maps)
            total = total + weights.adversarial * terms["adversarial"]
            total = total + weights.feature_matching * terms["feature_matching"]
        return total, terms

    def _distillation(self, features: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        features, teacher, mask = cut_to_shorter(features, teacher, batch.frame_mask())
        mask = teacher_mask(mask, teacher)
        if not mask.any():  # aligned transcripts of a batch without a word
            return features.sum() * 0.0
        if self.config.distillation.axis == "time":
            return time_axis_loss(features, teacher, mask, self.config.distillation.time_lambda)
        return feature_axis_loss(features, teacher, mask)
