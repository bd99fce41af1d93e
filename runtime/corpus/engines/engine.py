"""What an engine is: runs shards of a plan, and reports each that is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dmcodec.runtime.codec import Codec
from dmcodec.runtime.corpus.plan import Plan
from dmcodec.runtime.corpus.reports import ShardReport


@dataclass(frozen=True)
class CodecOptions:
    """How the codec of a worker is loaded; it can be sent to other processes.

    Attributes:
        bundle: absolute path of the bundle; None for the one that comes with dmcodec.
        backend, provider, engine_cache: as for `Codec.load`.
        spool: as for `Codec.encode`.
    """

    bundle: Path | None = None
    backend: str = "onnxruntime"
    provider: str | None = None
    engine_cache: Path | None = None
    spool: str | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the graphs run on the CPU."""
        return self.backend == "onnxruntime" and self.provider in (None, "cpu")

    def load(self) -> Codec:
        """Return the codec: with one thread on the CPU, so that neither workers nor engines change its rounding."""
        threads = 1 if self.on_cpu else None
        return Codec.load(
            self.bundle, backend=self.backend, provider=self.provider, threads=threads, engine_cache=self.engine_cache
        )


# Called with the number of a shard, the seconds of audio that are done of it, and its failures up to now.
ShardProgress = Callable[[int, float, int], None]


class Engine(Protocol):
    """Runs shards with `dmcodec.runtime.corpus.shard.run_shard`, in any order."""

    def run(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress
    ) -> Iterator[ShardReport]:
        """Yield the report of each pending shard when its files are in place.

        Where the caller closes the iterator, all work ends; shards that are not complete leave nothing behind.

        Raises:
            DmcodecError: the work can't go on (no codec, a full disk); what is finished stays.
        """
