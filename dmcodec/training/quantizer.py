"""The residual vector quantizer in training: straight-through gradients, and codebooks by moving averages.

The codebooks (`dmcodec.nn.rvq.Codebook`) are buffers; nothing here is a parameter. All processes keep the same
codebooks: they average over the vectors of all processes, and use the random choices of the first one.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from dmcodec.nn.rvq import Codebook, ResidualVectorQuantizer

from .config import QuantizerConfig

RESTART_COUNT = 2.0  # times the threshold: at a decay of 0.99 an unused entry is dead again after 69 steps


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Quantized latents.

    Attributes:
        latents: [B, D, T], the sum of the entries of all levels, straight-through.
        levels: of each level [B, T, D], its entries, straight-through to its input.
        codes: [n_q, B, T].
        commitment: the commitment loss, a scalar, averaged over the levels.
    """

    latents: Tensor
    levels: list[Tensor]
    codes: Tensor
    commitment: Tensor


def prepare_codebooks(quantizer: ResidualVectorQuantizer) -> None:
    """Mark every codebook as not yet initialised, so that the first batch initialises it by k-means."""
    for codebook in quantizer.levels:
        codebook.inited.zero_()


def fill_statistics(quantizer: ResidualVectorQuantizer) -> None:
    """Give codebooks whose checkpoint holds no statistics (all counts are 0) a count of 1 for each entry.

    With a count of 0 all entries would be dead, and be replaced by vectors of the first batch.
    """
    for codebook in quantizer.levels:
        if codebook.inited and not codebook.cluster_size.any():
            codebook.cluster_size.fill_(1)
            codebook.embed_avg.copy_(codebook.embed)


def quantize(
    quantizer: ResidualVectorQuantizer, latents: Tensor, mask: Tensor, config: QuantizerConfig, step: int
) -> Quantized:
    """Quantize latents and, in training mode, update the codebooks.

    Args:
        quantizer: its codebooks' buffers are updated in place.
        latents: [B, D, T] of any floating type; all arithmetic on codebooks is float32.
        mask: [B, T] bool; frames that count for the codebooks and for the commitment loss.
        config: decay and thresholds.
        step: of the training, from 0; the moving averages are faster at first.

    The input of a level is the residual of the levels before. Their entries are constants in it, so the commitment loss
    of every level has a gradient for the encoder. (EnCodec's first code subtracted straight-through entries, which left
    the residual without a gradient.)
    """
    residual = latents.transpose(1, 2).float()
    levels, codes, losses = [], [], []
    total = torch.zeros_like(residual)
    for codebook in quantizer.levels:
        with torch.no_grad():
            valid = residual.detach()[mask]
            if quantizer.training and not codebook.inited:
                initialise(codebook, valid, config)
            centre = codebook.centre()
            indices = codebook.nearest(residual.detach().flatten(0, 1)).view(mask.shape)
            entries = codebook.embed[indices]
            if quantizer.training:
                update(codebook, valid, indices[mask], config, step)
        losses.append(F.mse_loss(residual[mask], entries[mask]))
        levels.append(residual + (entries - residual).detach())
        codes.append(indices)
        residual = (residual - centre) - (entries - centre)  # as in `Codebook.quantize`
        total = total + entries
    straight_through = latents.float() + (total.transpose(1, 2) - latents.float()).detach()
    return Quantized(straight_through.to(latents.dtype), levels, torch.stack(codes), torch.stack(losses).mean())


@torch.no_grad()
def initialise(codebook: Codebook, vectors: Tensor, config: QuantizerConfig) -> None:
    """Initialise a codebook by k-means on the `vectors` [N, D] of all processes.

    An entry without vectors keeps the random vector that it started from.
    """
    vectors = gather_rows(vectors)
    means, counts = kmeans(vectors, len(codebook.embed), config.kmeans_iterations)
    # An entry without vectors starts with the mean count; with 0 it would be dead at once.
    counts = torch.where(counts > 0, counts, len(vectors) / len(means))
    codebook.embed.copy_(broadcast(means))
    codebook.cluster_size.copy_(broadcast(counts))
    codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[:, None])
    codebook.inited.fill_(1)


def kmeans(vectors: Tensor, clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Run Lloyd's algorithm on vectors [N, D], from random ones: return means [clusters, D] and counts [clusters]."""
    centre = vectors.mean(dim=0)
    vectors = vectors - centre  # what they have in common would cancel in the distances
    means = _choose(vectors, clusters)
    counts = vectors.new_zeros(clusters)
    for _ in range(max(iterations, 1)):
        nearest = (means.square().sum(dim=1) - 2 * vectors @ means.T).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means + centre, counts


@torch.no_grad()
def update(codebook: Codebook, vectors: Tensor, indices: Tensor, config: QuantizerConfig, step: int) -> None:
    """Update the moving averages with `vectors` [N, D] and their entries `indices` [N], and restart dead entries.

    Laplace smoothing keeps entries with very small counts finite (EnCodec, section 3.3; van den Oord et al.,
    arXiv 1711.00937, appendix A).
    """
    size = len(codebook.embed)
    counts = sum_over_ranks(torch.bincount(indices, minlength=size).float())
    sums = sum_over_ranks(torch.zeros_like(codebook.embed).index_add_(0, indices, vectors))
    decay = config.decay_at(step)
    codebook.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
    codebook.embed_avg.mul_(decay).add_(sums, alpha=1 - decay)
    total = codebook.cluster_size.sum()
    smoothed = (codebook.cluster_size + config.epsilon) / (total + size * config.epsilon) * total
    codebook.embed.copy_(codebook.embed_avg / smoothed[:, None])
    _restart_dead(codebook, vectors, config)


def _restart_dead(codebook: Codebook, vectors: Tensor, config: QuantizerConfig) -> None:
    """Move dead entries to random vectors of the batch, with a count that keeps them alive for some steps."""
    threshold = torch.clamp(config.dead_fraction * codebook.cluster_size.mean(), max=config.dead_below)
    dead = codebook.cluster_size < threshold
    if not dead.any():  # the counts are the same in all processes, so all take the same branch
        return
    fresh = broadcast(_choose(gather_rows(vectors), int(dead.sum())))
    codebook.embed[dead] = fresh
    codebook.cluster_size[dead] = RESTART_COUNT * threshold
    codebook.embed_avg[dead] = fresh * RESTART_COUNT * threshold


def _choose(vectors: Tensor, count: int) -> Tensor:
    """Return `count` random rows of `vectors`, without repetition where there are enough."""
    if len(vectors) >= count:
        return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]
    return vectors[torch.randint(len(vectors), (count,), device=vectors.device)]


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of `values` over all processes; changes `values`."""
    if is_distributed():
        distributed.all_reduce(values)
    return values


def broadcast(values: Tensor) -> Tensor:
    """Return the `values` of the first process; changes `values`."""
    if is_distributed():
        distributed.broadcast(values, src=0)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows [n, D] of all processes in rank order; n may differ between processes."""
    if not is_distributed():
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(gathered, padded)
    return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])
