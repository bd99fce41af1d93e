"""Options of `dmcodec verify`, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dmcodec.benchmarks.codecs.registry import ONNXRUNTIME_CPU
from dmcodec.errors import ArgumentError

TORCH = "torch"
REFERENCES = (ONNXRUNTIME_CPU, TORCH)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Amount of audio.

    Attributes:
        stream_s: length of the clip that is streamed.
        long_s: length of the long clip.
        clips: clips in a batch.
    """

    stream_s: float
    long_s: float
    clips: int


QUICK = Sizes(stream_s=4.0, long_s=40.0, clips=6)
FULL = Sizes(stream_s=10.0, long_s=120.0, clips=24)


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """What to verify of a bundle.

    Attributes:
        backend, provider, threads: the backend to verify, as in `dmcodec.runtime.Codec.load`.
        against: the reference: "onnxruntime-cpu" or "torch".
        checkpoint: weights for torch; by default those of the bundle's seed, or else those that the bundle holds.
        config: configuration file of the checkpoint; by default the bundle's configuration.
        audio: audio files to run as well; the first minute of each.
        exactness: run longer clips, and more of them.
        engine_cache: folder of TensorRT engines; by default in the bundle.
        device_id: number of the GPU; by default 0.
        command: the command line, for the record.
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
    device_id: int | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.against not in REFERENCES:
            raise ArgumentError(f"--against {self.against!r} is not known; use one of {', '.join(REFERENCES)}")
        if self.config and not self.checkpoint:
            raise ArgumentError("--config belongs to a checkpoint; name it with --checkpoint, or leave --config out")
        if self.checkpoint and self.against != TORCH:
            raise ArgumentError("--checkpoint belongs to torch; add --against torch")

    @property
    def sizes(self) -> Sizes:
        """Amount of audio to run."""
        return FULL if self.exactness else QUICK
