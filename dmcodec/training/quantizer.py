"""The residual vector quantizer in training: straight-through gradients, codebooks by moving averages.

The networks' codebooks (`dmcodec.nn.rvq.Codebook`) are buffers; nothing here is a parameter. Several processes keep the
same codebooks: they average over everybody's vectors, and take random choices from the first process.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from dmcodec.nn.rvq import Codebook, ResidualVectorQuantizer

from .config import QuantizerConfig

# FOLDED: The few collective operations that codebooks need; without a process group each is the identity.


RESTART_COUNT = 2.0  # times the threshold: at a decay of 0.99 an entry that nothing uses dies again after 69 steps


@dataclasses.dataclass(frozen=True)
class Quantized:
    """`latents` [B, D, T]: the sum of all levels' entries, straight-through. `levels[i]` [B, T, D]: level i's entries,
    straight-through to that level's input. `codes` [n_q, B, T]. `commitment`: a scalar, averaged over the levels.
    """

    latents: Tensor
    levels: list[Tensor]
    codes: Tensor
    commitment: Tensor


def prepare_codebooks(quantizer: ResidualVectorQuantizer) -> None:
    """Marks every codebook as not yet initialised; the first batch then does it by k-means."""
    for codebook in quantizer.levels:
        codebook.inited.zero_()


def quantize(
    quantizer: ResidualVectorQuantizer, latents: Tensor, mask: Tensor, config: QuantizerConfig, step: int
) -> Quantized:
    """Quantizes `latents` [B, D, T] and, where the quantizer is in training mode, lets its codebooks follow them.

    Args:
        quantizer: its codebooks' buffers are updated in place.
        latents: of any floating type; all arithmetic on codebooks is float32.
        mask: [B, T] bool: frames that count, for the codebooks and for the commitment loss.
        config: decay and thresholds.
        step: of the training, from 0; the moving averages are faster in the beginning.

    A level's input is the rest that the former levels' entries leave, those taken as constants: so every level's
    commitment reaches the encoder. (In EnCodec's first code the straight-through entries were subtracted, with which
    the rest had no gradient.)
    """
    residual = latents.transpose(1, 2).float()
    levels, codes, losses = [], [], []
    total = torch.zeros_like(residual)
    for codebook in quantizer.levels:
        with torch.no_grad():
            valid = residual.detach()[mask]
            if quantizer.training and not codebook.inited:
                initialise(codebook, valid, config)
            indices = codebook.nearest(residual.detach().flatten(0, 1)).view(mask.shape)
            entries = codebook.embed[indices]
            if quantizer.training:
                update(codebook, valid, indices[mask], config, step)
        losses.append(F.mse_loss(residual[mask], entries[mask]))
        levels.append(residual + (entries - residual).detach())
        codes.append(indices)
        residual = residual - entries
        total = total + entries
    straight_through = latents.float() + (total.transpose(1, 2) - latents.float()).detach()
    return Quantized(straight_through.to(latents.dtype), levels, torch.stack(codes), torch.stack(losses).mean())


@torch.no_grad()
def initialise(codebook: Codebook, vectors: Tensor, config: QuantizerConfig) -> None:
    """k-means on the `vectors` [N, D] of all processes. Entries with no vector stay at a random one."""
    vectors = gather_rows(vectors)
    means, counts = kmeans(vectors, len(codebook.embed), config.kmeans_iterations)
    # An entry without vectors starts with the mean count, or it would be dead at once.
    counts = torch.where(counts > 0, counts, len(vectors) / len(means))
    codebook.embed.copy_(broadcast(means))
    codebook.cluster_size.copy_(broadcast(counts))
    codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[:, None])
    codebook.inited.fill_(1)


def kmeans(vectors: Tensor, clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from randomly chosen vectors [N, D]: means [clusters, D] and the count of each (float)."""
    means = _choose(vectors, clusters)
    counts = vectors.new_zeros(clusters)
    for _ in range(max(iterations, 1)):
        nearest = (means.square().sum(dim=1) - 2 * vectors @ means.T).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means, counts


@torch.no_grad()
def update(codebook: Codebook, vectors: Tensor, indices: Tensor, config: QuantizerConfig, step: int) -> None:
    """One step of the moving averages over `vectors` [N, D] and the entries [N] they were given; dead entries restart.

    Laplace smoothing keeps entries with next to no count from blowing up (EnCodec, section 3.3; van den Oord et al.,
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
    """Moves dead entries onto random vectors of the batch, with a count that gives them time to be used."""
    threshold = torch.clamp(config.dead_fraction * codebook.cluster_size.mean(), max=config.dead_below)
    dead = codebook.cluster_size < threshold
    if not dead.any():  # the counts are everybody's, so all processes take the same branch
        return
    fresh = broadcast(_choose(gather_rows(vectors), int(dead.sum())))
    codebook.embed[dead] = fresh
    codebook.cluster_size[dead] = RESTART_COUNT * threshold
    codebook.embed_avg[dead] = fresh * RESTART_COUNT * threshold


def _choose(vectors: Tensor, count: int) -> Tensor:
    """`count` random rows of `vectors`; each at most once, where there are enough."""
    if len(vectors) >= count:
        return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]
    return vectors[torch.randint(len(vectors), (count,), device=vectors.device)]


def active() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, in place."""
    if active():
        distributed.all_reduce(values)
    return values


def broadcast(values: Tensor) -> Tensor:
    """The first process's `values`, in place."""
    if active():
        distributed.broadcast(values, src=0)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [n, D] of all processes, in rank order; n may differ between them."""
    if not active():
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    everyone = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(everyone, padded)
    return torch.cat([part[: int(count)] for part, count in zip(everyone, counts, strict=True)])
