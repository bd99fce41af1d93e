"""The audio of clips: whole files and channels, and parts of recordings, which are read once from front to back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby

import numpy as np

from dmcodec.audio import Waveform, read_blocks, read_mono
from dmcodec.errors import AudioError, DmcodecError
from dmcodec.waveforms import resampler

from .items import Item
from .opening import Readers

# The end of a part may lie so far behind the end of its recording: manifests round.
MISSING_S = 0.1


class Clips:
    """Reads the clips of a shard, in several threads.

    Args:
        items: of the shard, in order.
        rate: of the codec, in Hz.
        whole_s: longer clips are not read here, but with `blocks`.
    """

    def __init__(self, items: Sequence[Item], rate: int, whole_s: float) -> None:
        self._rate, self._limit = rate, round(whole_s * rate)
        self._readers = Readers()
        self._cutters: dict[str, _Cutter] = {}
        for run in _runs(items, whole_s):
            cutter = _Cutter(self._readers, run, rate)
            self._cutters.update((item.id, cutter) for item in run)

    def read(self, item: Item) -> Waveform | None:
        """Return a clip (samples,) at the codec's rate; None for a longer one than `whole_s`.

        Raises:
            AudioError: it can't be read.
        """
        cutter = self._cutters.get(item.id)
        if cutter is not None:
            return cutter.take(item)
        blocks: list[Waveform] = []
        num_samples = 0
        for block in self.blocks(item):
            blocks.append(block)
            num_samples += len(block)
            if num_samples > self._limit:
                return None
        return np.concatenate(blocks)

    def blocks(self, item: Item, progress: Callable[[float, float], None] | None = None) -> Iterator[Waveform]:
        """Yield a clip of any length in blocks (samples,) at the codec's rate; errors are those of `read`.

        `progress` is called with the seconds that are read of a whole file, and its length in seconds.
        """
        self._readers.refuse_changed(item)
        with self._readers.opened(item) as source:
            if not item.is_part:
                yield from read_blocks(source, self._rate, progress, item.channel, item.source)
                return
            part, timeline = _Part(item, self._rate), _Timeline()
            for rate, block in read_mono(source, item.channel, item.source):
                timeline.add(rate, len(block))
                if len(samples := part.feed(timeline, block)):
                    yield samples
                if part.end_s <= timeline.end_s:
                    break
            yield part.finish(timeline)

    def close(self) -> None:
        """Release open files."""
        for cutter in self._cutters.values():
            cutter.close()
        self._readers.close()


def _runs(items: Sequence[Item], whole_s: float) -> Iterator[list[Item]]:
    """Yield items that follow each other and are short parts of the same recording, from front to back."""

    def source(item: Item) -> object:
        is_short = item.is_part and item.duration_s is not None and item.duration_s <= whole_s
        return (item.location, item.channel, item.state) if is_short else None

    for key, group in groupby(items, source):
        run: list[Item] = []
        for item in group if key is not None else ():
            if run and _start(item) < _start(run[-1]):
                yield run
                run = []
            run.append(item)
        if run:
            yield run


def _start(item: Item) -> float:
    return item.start_s or 0.0


class _Timeline:
    """Where in a recording the blocks lie that come from it. Its sample rate may change."""

    def __init__(self) -> None:
        self.rate = 0  # of the last block
        self._base_s = 0.0  # where this rate began
        self._position = self._length = 0  # of the last block, in samples from there on

    def add(self, rate: int, length: int) -> None:
        """Take note of the next block."""
        if rate != self.rate:
            self._base_s, self.rate, self._position = self.end_s, rate, 0
        else:
            self._position += self._length
        self._length = length

    @property
    def end_s(self) -> float:
        """The end of the last block in seconds."""
        return self._base_s + (self._position + self._length) / self.rate if self.rate else 0.0

    def index(self, time_s: float) -> int:
        """Return the sample of the last block that is nearest to a time; its first or last where that lies outside."""
        if time_s == math.inf:
            return self._length
        return min(max(round((time_s - self._base_s) * self.rate) - self._position, 0), self._length)


class _Part:
    """One part of a recording: cut out of its blocks, and resampled as if it were a recording of its own."""

    def __init__(self, item: Item, target_rate: int) -> None:
        self.item = item
        self.start_s = _start(item)
        self.end_s = math.inf if item.duration_s is None else self.start_s + item.duration_s
        self._target_rate, self._rate = target_rate, target_rate
        self._resample = resampler(target_rate, target_rate)
        self._num_samples = 0

    def feed(self, timeline: _Timeline, block: Waveform) -> Waveform:
        """Take the last block of the timeline; return samples of the part at the target rate."""
        first, last = timeline.index(self.start_s), timeline.index(self.end_s)
        if first == last:
            return np.zeros(0, np.float32)
        before = np.zeros(0, np.float32)
        if timeline.rate != self._rate:
            before = self._resample(before, True)
            self._rate, self._resample = timeline.rate, resampler(timeline.rate, self._target_rate)
        return self._counted(np.concatenate([before, self._resample(np.ascontiguousarray(block[first:last]), False)]))

    def finish(self, timeline: _Timeline) -> Waveform:
        """End the part; return its last samples.

        Raises:
            AudioError: the recording ends before the part.
        """
        rest = self._counted(self._resample(np.zeros(0, np.float32), True))
        open_end = self.end_s == math.inf
        if self._num_samples == 0 or (not open_end and timeline.end_s < self.end_s - MISSING_S):
            where = f"starts at {self.start_s:g} s" if open_end else f"ends at {self.end_s:g} s"
            raise AudioError(f"{self.item.source}: ends at {timeline.end_s:g} s, but clip {self.item.id} {where}")
        return rest

    def _counted(self, samples: Waveform) -> Waveform:
        self._num_samples += len(samples)
        return samples


class _Cutter:
    """Cuts parts of one recording, of ascending starts, while several threads ask for them; it is read once."""

    def __init__(self, readers: Readers, items: Sequence[Item], rate: int) -> None:
        self._readers = readers
        self._parts = [(_Part(item, rate), list[Waveform]()) for item in items]  # that are not complete
        self._results: dict[str, Waveform | DmcodecError] = {}
        self._lock = threading.Lock()
        self._timeline = _Timeline()
        self._recording = self._read(items[0])

    def take(self, item: Item) -> Waveform:
        """Return a part, once.

        Raises:
            AudioError: it can't be read.
        """
        with self._lock:
            while item.id not in self._results:
                self._advance()
            found = self._results.pop(item.id)
        if isinstance(found, DmcodecError):
            raise found
        return found

    def close(self) -> None:
        """Close the recording."""
        with self._lock:
            self._recording.close()

    def _read(self, item: Item) -> Generator[tuple[int, Waveform], None, None]:
        self._readers.refuse_changed(item)
        with self._readers.opened(item) as source:
            yield from read_mono(source, item.channel, item.source)

    def _advance(self) -> None:
        """Read one block and complete the parts that end in it; at the end or after an error, complete all."""
        timeline = self._timeline
        try:
            rate, block = next(self._recording)
        except StopIteration:
            self._complete(math.inf)
            return
        except DmcodecError as error:
            self._results.update((part.item.id, error) for part, _ in self._parts)
            self._parts = []
            return
        timeline.add(rate, len(block))
        for part, blocks in self._parts:
            if part.start_s > timeline.end_s:
                break
            blocks.append(part.feed(timeline, block))
        self._complete(timeline.end_s)
        if not self._parts:
            self._recording.close()

    def _complete(self, until_s: float) -> None:
        """Complete the parts that end before a time."""
        for part, blocks in self._parts:
            if part.end_s <= until_s or until_s == math.inf:
                try:
                    self._results[part.item.id] = np.concatenate([*blocks, part.finish(self._timeline)])
                except AudioError as error:
                    self._results[part.item.id] = error
        self._parts = [each for each in self._parts if each[0].item.id not in self._results]
