"""Batches of segments, in an order that depends only on the seed, so that a resumed run continues it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .stopping import ignore_stop_signals

if TYPE_CHECKING:
    from dmcodec.config import CodecConfig
    from dmcodec.training.data.dataset import PreparedData

POOL = 32  # batches in a pool, whose segments are sorted by length to keep the padding small


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch of B segments, zero-padded to the longest.

    Attributes:
        waveform: [B, 1, samples] float32.
        num_samples: [B], length of each segment.
        num_frames: [B], of the codec.
        teachers: by kind of teacher, features [B, frames, width] float32 at the codec's frame rate.
        segments: ids.
    """

    waveform: Tensor
    num_samples: Tensor
    num_frames: Tensor
    teachers: Mapping[str, Tensor]
    segments: list[int]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(
            self.waveform.to(device, non_blocking=True),
            self.num_samples.to(device, non_blocking=True),
            self.num_frames.to(device, non_blocking=True),
            {kind: features.to(device, non_blocking=True) for kind, features in self.teachers.items()},
            self.segments,
        )

    def frame_mask(self) -> Tensor:
        """Return [B, frames] bool, false in the padding."""
        frames = torch.arange(int(self.num_frames.max()), device=self.num_frames.device)
        return frames < self.num_frames[:, None]

    def sample_mask(self) -> Tensor:
        """Return [B, 1, samples] bool, false in the padding."""
        samples = torch.arange(self.waveform.shape[-1], device=self.num_samples.device)
        return (samples < self.num_samples[:, None])[:, None]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A random crop of each segment, of `samples` samples. `seed`, `epoch` and the segment determine its start."""

    samples: int
    seed: int
    epoch: int

    def start_frame(self, segment: int, num_samples: int, hop_length: int) -> int:
        """Return the first frame of the crop; 0 for a segment that is no longer than it."""
        choices = max(0, num_samples - self.samples) // hop_length + 1
        return int(np.random.default_rng((self.seed, self.epoch, segment)).integers(choices))


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """The segments of each batch, in every epoch and for every process.

    Args:
        lengths: of the segments, in samples.
        batch_size: segments per process and batch.
        processes: number of processes; each gets its own part of every global batch.
        seed: of the order.
    """

    lengths: NDArray[np.integer]
    batch_size: int
    processes: int
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of each process in an epoch; repeated segments fill the last one."""
        return -(-len(self.lengths) // (self.batch_size * self.processes))

    def epoch(self, epoch: int, process: int) -> list[list[int]]:
        """Return the batches of a process in an epoch: lists of positions in `lengths`."""
        random = np.random.default_rng((self.seed, epoch))
        size = self.batch_size * self.processes
        order = np.resize(random.permutation(len(self.lengths)), self.batches_per_epoch * size)
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), POOL * size):
            pool = order[start : start + POOL * size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        own = slice(process * self.batch_size, (process + 1) * self.batch_size)
        return [batches[i][own].tolist() for i in random.permutation(len(batches))]


Item = tuple[int, NDArray[np.float32], dict[str, NDArray[np.float32]]]  # segment id, waveform, teachers' features


class Segments(Dataset[Item]):
    """The segments of one split, or a crop of each, with their teachers' features, by position."""

    def __init__(
        self,
        data: PreparedData,
        ids: NDArray[np.int64],
        config: CodecConfig,
        teachers: tuple[str, ...],
        crop: Crop | None = None,
    ) -> None:
        self.data = data
        self.ids = ids
        self.config = config
        self.teachers = teachers
        self.crop = crop

    def cropped(self, crop: Crop) -> Segments:
        """Return the same segments, cropped."""
        return Segments(self.data, self.ids, self.config, self.teachers, crop)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Item:
        segment = int(self.ids[position])
        waveform = self.data.waveform(segment)
        frames = self.config.num_frames(len(waveform))
        features = {kind: self.data.teacher(kind, segment, frames, self.config.frame_rate) for kind in self.teachers}
        if self.crop is not None:
            hop, length = self.config.hop_length, self.crop.samples
            first = self.crop.start_frame(segment, len(waveform), hop)
            waveform = waveform[first * hop : first * hop + length]
            features = {kind: each[first : first - (-length // hop)] for kind, each in features.items()}
        return segment, waveform, features

    def collate(self, items: list[Item]) -> Batch:
        """Make a batch of items, zero-padded to the longest."""
        waveforms = [waveform for _, waveform, _ in items]
        num_samples = torch.tensor([len(waveform) for waveform in waveforms])
        return Batch(
            _padded([waveform[None, :, None] for waveform in waveforms])[..., 0],
            num_samples,
            -(-num_samples // self.config.hop_length),
            {kind: _padded([features[kind][None] for _, _, features in items])[:, 0] for kind in self.teachers},
            [segment for segment, _, _ in items],
        )


def training_batches(
    segments: Segments, plan: BatchPlan, process: int, start: int, workers: int, crop_samples: int | None = None
) -> Iterator[Batch]:
    """Yield batches without end.

    Args:
        segments: of the training split.
        plan: of the batches.
        process: number of the process.
        start: number of the first batch.
        workers: processes that load data.
        crop_samples: length of the crops; None uses whole segments.
    """
    epoch, skip = divmod(start, plan.batches_per_epoch)
    while True:
        current = segments if crop_samples is None else segments.cropped(Crop(crop_samples, plan.seed, epoch))
        yield from loader(current, plan.epoch(epoch, process)[skip:], workers)
        epoch, skip = epoch + 1, 0


def loader(segments: Segments, batches: list[list[int]], workers: int) -> Iterable[Batch]:
    """Return a loader of these batches, in this order."""
    return DataLoader(
        segments,
        batch_sampler=batches,
        collate_fn=segments.collate,
        num_workers=workers,
        worker_init_fn=ignore_stop_signals if workers else None,
        generator=torch.Generator(),  # its own, so that epochs don't change the random numbers of training
    )


def _padded(arrays: list[NDArray[np.float32]]) -> Tensor:
    """Return arrays [1, n, width] as a zero-padded tensor [len(arrays), 1, longest n, width]."""
    longest = max(array.shape[1] for array in arrays)
    out = torch.zeros(len(arrays), 1, longest, arrays[0].shape[2])
    for row, array in zip(out, arrays, strict=True):
        row[:, : array.shape[1]] = torch.from_numpy(np.ascontiguousarray(array))
    return out
