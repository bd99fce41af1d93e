"""Continuous representation distillation: pulling a quantizer level's output towards a teacher's representation.

Two forms: along the feature axis (SpeechTokenizer, arXiv 2308.16692, equation 1; DM-Codec, arXiv 2410.15017, section
3.2), and along time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
