"""The few collective operations that codebooks need; without a process group each is the identity."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


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
