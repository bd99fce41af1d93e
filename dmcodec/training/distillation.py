"""Continuous representation distillation: pulling a quantizer level's output towards a teacher's representation.

Two forms: along the feature axis (SpeechTokenizer, arXiv 2308.16692, equation 1; DM-Codec, arXiv 2410.15017, section
3.2), and along time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_axis_loss(features: Tensor, teacher: Tensor, mask: Tensor, *, centred: bool = False) -> Tensor:
    """Mean over feature dimensions of -log sigmoid(cosine, over the frame axis, of the two).

    Args:
        features: [B, T, D], of the codec.
        teacher: [B, T, D]; a constant.
        mask: [B, T] bool, true where the teacher says something; other frames count as 0 in both.
        centred: takes each clip's mean over its frames off both first: the cosine is then their correlation, which
            features that don't change with time can't win. Clips of less than two frames don't count then.
    """
    features, teacher = features * mask[..., None], teacher.detach() * mask[..., None]
    if centred:
        enough = mask.sum(dim=1) > 1
        features, teacher = (_less_mean(each[enough], mask[enough]) for each in (features, teacher))
        if not enough.any():
            return features.sum()
    return -F.logsigmoid(F.cosine_similarity(features, teacher, dim=1)).mean()


def _less_mean(values: Tensor, mask: Tensor) -> Tensor:
    """`values` [B, T, D], 0 outside `mask` [B, T], less their mean over the frames of `mask`."""
    mean = values.sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
    return (values - mean) * mask[..., None]


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
