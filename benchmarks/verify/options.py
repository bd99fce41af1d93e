"""What is to be verified, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dmcodec.errors import ArgumentError

ONNXRUNTIME_CPU = "onnxruntime-cpu"
TORCH = "torch"
REFERENCES = (ONNXRUNTIME_CPU, TORCH)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is run: the stream's clip, the long clip, and the number of clips in batches."""

    stream_s: float
    long_s: float
    clips: int


QUICK = Sizes(stream_s=4.0, long_s=40.0, clips=6)
FULL = Sizes(stream_s=10.0, long_s=120.0, clips=24)


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """What to verify of a bundle.

    Attributes:
        backend, provider, threads: what is put to the test, as in `dmcodec.runtime.Codec.load`.
        against: the reference: "onnxruntime-cpu" or "torch".
        checkpoint, config: where torch's weights are; by default those of the bundle's seed, or else what it holds.
        audio: files that are run, too; their first minute.
        exactness: longer clips and more of them.
        engine_cache: of tensorrt: the folder of its engines; by default within the bundle.
        command: how it was asked for, for the record.
    """

    backend: str = "onnxruntime"
    provider: str | None = None
    threads: int | None = None
    against: str = ONNXRUNTIME_CPU
    checkpoint: Path | None = None
    config: Path | None = None
    audio: tuple[Path, ...] = ()
    exactness: bool = False
    engine_cache: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.against not in REFERENCES:
            raise ArgumentError(f"against {self.against!r} is not known; use one of {', '.join(REFERENCES)}")
        if self.config and not self.checkpoint:
            raise ArgumentError("config belongs to a checkpoint; name it with --checkpoint, or leave --config out")
        if self.checkpoint and self.against != TORCH:
            raise ArgumentError("checkpoint belongs to torch; add --against torch")

    @property
    def sizes(self) -> Sizes:
        """How much is run."""
        return FULL if self.exactness else QUICK
