"""One shard: its clips are read ahead, encoded in batches, and written. Every engine calls `run_shard`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import AudioError, DataError, DmcodecError, OutputError
from dmcodec.files import output_file, output_folder, write_bytes
from dmcodec.runtime.batching import WHOLE_S
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.corpus.outputs import FORMATS
from dmcodec.runtime.corpus.outputs.writer import Contents, Row, ShardWriter
from dmcodec.runtime.file_batches import Outcome, run_work
from dmcodec.text import one_line, utf8
from dmcodec.tokens import Tokens

from .clips import Clips
from .columns import converted
from .items import Item
from .plan import TOKENS, Plan, shard_name
from .reports import Failure, ShardReport, report_path, stored_bytes

# Most of batch size x longest clip: longer batches take more memory, and are no faster on one thread. Another value
# would change which clips run together, and so the rounding.
BATCH_S = 16.0
# Called with the seconds of audio that are done, and the number of failures up to now.
Progress = Callable[[float, int], None]


def run_shard(
    plan: Plan, index: int, codec: Codec, progress: Progress | None = None, spool: str | Path | None = None
) -> ShardReport:
    """Encode the clips of a shard and write its files and its report; return the report.

    The files follow from the plan, the audio and the model alone: which clips run in one batch depends on nothing else.
    They are written under temporary names, read back, and renamed; the report, which marks the shard as done, is
    written after that. A clip that can't be used is a failure in the report, and harms no other.

    Args:
        plan: with the folder of the output.
        index: of the shard.
        codec: of the plan's model, with one thread on the CPU.
        progress: see `Progress`.
        spool: of long clips; see `Codec.encode`.

    Raises:
        OutputError: the output can't be written, or can't be read back.
        DataError: the list of the shard's clips is gone, or was altered.
        BackendError: the codec fails on every clip.
    """
    items = plan.items(index)
    shape = plan.settings.n_q, plan.settings.codebook_size
    with contextlib.closing(Clips(items, plan.settings.sample_rate, WHOLE_S)) as clips:
        run = _Run(plan, index, items, progress or (lambda _done, _failures: None), np.zeros(shape, np.int64))
        with _written(plan, index) as (writer, contents):
            run.writer = writer
            run_work(_Tokenize(codec, clips, plan.settings.n_q, spool), items, run.record, run.long_progress)
            run.refuse_broken_codec()
            contents.append(Contents(run.clips, run.frames * plan.settings.n_q))
    files = {name: stored_bytes(plan.folder / TOKENS / name) or 0 for name in _file_names(plan, index)}
    report = ShardReport(index, run.clips, run.num_samples, run.frames, files, run.counts, tuple(run.failures))
    write_bytes(report_path(plan.folder, index), report.to_json())
    return report


def _file_names(plan: Plan, index: int) -> list[str]:
    return [shard_name(index) + suffix for suffix in FORMATS[plan.settings.format].suffixes]


@contextlib.contextmanager
def _written(plan: Plan, index: int) -> Iterator[tuple[ShardWriter, list[Contents]]]:
    """Yield the writer of a shard, and a list that takes what was written; check the files against it, rename them."""
    output, settings = FORMATS[plan.settings.format], plan.writer_settings
    paths = [plan.folder / TOKENS / name for name in _file_names(plan, index)]
    with ExitStack() as stack:
        temporary = [
            stack.enter_context(output_file(path) if suffix else output_folder(path, force=True))
            for path, suffix in zip(paths, output.suffixes, strict=True)
        ]
        writer, contents = output.open(settings, temporary), list[Contents]()
        try:
            yield writer, contents
            writer.close()
        except BaseException:
            writer.abort()
            raise
        try:
            found = output.check(settings, temporary)
        except DataError as error:
            raise OutputError(f"{paths[0]}: can't be read back after it was written; check the disk") from error
        if [found] != contents:
            raise OutputError(
                f"{paths[0]}: holds {found.clips} clips and {found.codes} codes after it was written, not "
                f"{contents[0].clips} and {contents[0].codes}; check the disk"
            )


@dataclass
class _Run:
    """What is done of a shard."""

    plan: Plan
    index: int
    items: Sequence[Item]
    progress: Progress
    counts: NDArray[np.int64]
    writer: ShardWriter | None = None
    clips: int = 0
    num_samples: int = 0
    frames: int = 0
    done_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    errors: list[DmcodecError] = field(default_factory=list)
    broken: bool = False  # after an error of the writer, nothing is written any more

    def record(self, outcome: Outcome) -> None:
        """Write a row, or take note of a failure; called in the order of the items."""
        if self.broken:
            return
        item = self.items[outcome.index]
        if outcome.error is not None:
            self._fail(item, outcome.error)
        else:
            assert outcome.facts is not None
            self._write(item, outcome.facts["tokens"])
        self.done_s += item.audio_s or 0.0
        self.progress(self.done_s, len(self.failures))

    def _fail(self, item: Item, error: DmcodecError) -> None:
        if isinstance(error, OutputError):  # no room for the spool: no fault of the clip
            self.broken = True
            raise error
        self.errors.append(error)
        self.failures.append(Failure(item.id, utf8(item.source), one_line(utf8(str(error)))))

    def _write(self, item: Item, tokens: Tokens) -> None:
        columns = {name: converted(item.columns.get(name), kind) for name, kind in self.plan.columns.items()}
        assert self.writer is not None
        try:
            self.writer.write(
                Row(item.id, tokens.codes, tokens.num_samples, tokens.sample_rate, tokens.first_level, columns)
            )
        except BaseException:
            self.broken = True
            raise
        self.clips += 1
        self.num_samples += tokens.num_samples
        self.frames += tokens.num_frames
        for level, codes in enumerate(tokens.codes):
            self.counts[level] += np.bincount(codes, minlength=self.counts.shape[1])

    def refuse_broken_codec(self) -> None:
        """Raise the first error where no clip has tokens, and a reason other than the audio is among the errors."""
        if not self.clips:
            for error in self.errors:
                if not isinstance(error, AudioError):
                    raise error

    def long_progress(self, item: Item) -> Callable[[float, float], None]:
        """Return what takes the progress of one long clip."""
        start_s, length_s = self.done_s, item.audio_s or 0.0

        def show(done_s: float, total_s: float) -> None:
            share = done_s / total_s if total_s > 0 else 0.0
            self.progress(start_s + length_s * min(1.0, share), len(self.failures))

        return show


@dataclass(frozen=True)
class _Tokenize:
    """The work on the clips of a shard; see `dmcodec.runtime.file_batches.Work`."""

    codec: Codec
    clips: Clips
    n_q: int
    spool: str | Path | None
    workers: int = 1
    total_s: float = BATCH_S

    @property
    def in_sets(self) -> bool:
        """On a GPU, whose memory the batches fill; the codes don't depend on it."""
        return self.codec.backend.provider != "cpu"

    def read(self, item: Item) -> tuple[Waveform, float] | None:
        waveform = self.clips.read(item)
        return None if waveform is None else (waveform, len(waveform) / self.codec.sample_rate)

    def compute(self, clips: Sequence[Waveform], alone: bool) -> list[Tokens]:  # noqa: ARG002 - one thread always
        # Tiles need graphs and memory of their own; a clip that is no longer than a batch needs none.
        tiles = len(clips[0]) > round(BATCH_S * self.codec.sample_rate)
        return self.codec.encode_prepared(clips, self.n_q, tiles=tiles)

    def write(self, item: Item, tokens: Tokens, compute_s: float) -> dict[str, Any]:  # noqa: ARG002
        return {"tokens": tokens}

    def whole(self, item: Item, progress: Callable[[float, float], None]) -> dict[str, Any]:
        blocks = self.clips.blocks(item, progress)
        return {"tokens": self.codec.encode_blocks(blocks, self.n_q, self.spool)}
