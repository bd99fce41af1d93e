"""Options of `dmcodec bench`, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import bundle_codec_name
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.registry import PEERS, TORCH_PEERS, runs_on_gpu
from dmcodec.benchmarks.codecs.torch import TORCH_COMPILE, TORCH_INT8
from dmcodec.benchmarks.codecs.transformers import is_transformers
from dmcodec.errors import ArgumentError

# Limit of the audio in one run: the memory of a run grows by about 45 MB a second at full size.
MAX_DURATION_S = 300.0
DEFAULT_DURATIONS_S = (1.0, 5.0, 10.0, 30.0)
DEFAULT_BATCHES = (1, 4, 16)
DEFAULT_ROUNDS = 10
DEFAULT_CHUNK_FRAMES = 5
USUAL_REFERENCE_S = 10.0
DEFAULT_LIVE_S = 4.0
MAX_STREAMS = 512
MIN_BUDGET_S = 5.0
_ALL_OF_TORCH = "torch"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shape of an input: `batch` clips of `duration_s` seconds each."""

    duration_s: float
    batch: int

    def __str__(self) -> str:
        return f"{self.duration_s:g} s" if self.batch == 1 else f"{self.batch} x {self.duration_s:g} s"


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What to measure of a bundle.

    Attributes:
        backend, provider, device_id: as in `dmcodec.runtime.Codec.load`.
        threads: CPU threads of every codec; by default one for each CPU that this process may use.
        durations_s: clip lengths to measure at batch 1.
        batches: batch sizes to measure at `reference_s`.
        rounds: steady-state runs of each operation, after a first run.
        against: keys of PEERS to compare with, or `transformers:` and the id or the folder of a model; empty: measure
            the bundle alone.
        codecs: other codecs to compare with, of any network.
        n_q: levels of encode and decode; by default all of the bundle, and as many of other codecs.
        checkpoint: weights for torch; by default those of the bundle's seed, or else those that the bundle holds.
        config: configuration file of the checkpoint; by default the bundle's configuration.
        stream: whether to measure streaming decode.
        chunk_frames: frames in each push of a stream.
        streams: numbers of live streams to measure at once, pooled and separate; empty: none.
        live_s: time that each number is measured for, after a warm-up.
        budget_s: time to stay within, as far as one shape with few rounds allows: a quick look. `rounds` is then the
            most, and what does not fit is left out; so is compiling, unless `against` names it.
        command: the command line, for the record.
    """

    backend: str = "onnxruntime"
    provider: str | None = None
    device_id: int | None = None
    threads: int | None = None
    durations_s: tuple[float, ...] = DEFAULT_DURATIONS_S
    batches: tuple[int, ...] = DEFAULT_BATCHES
    rounds: int = DEFAULT_ROUNDS
    against: tuple[str, ...] = ()
    codecs: tuple[Named, ...] = ()
    n_q: int | None = None
    checkpoint: Path | None = None
    config: Path | None = None
    stream: bool = False
    chunk_frames: int = DEFAULT_CHUNK_FRAMES
    streams: tuple[int, ...] = ()
    live_s: float = DEFAULT_LIVE_S
    budget_s: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_peers()
        if self.chunk_frames < 1:
            raise ArgumentError(f"chunk_frames must be at least 1, not {self.chunk_frames}")
        for count in self.streams:
            if not 1 <= count <= MAX_STREAMS:
                raise ArgumentError(f"streams must be 1 to {MAX_STREAMS}, not {count}")
        if not (math.isfinite(self.live_s) and self.live_s > 0):
            raise ArgumentError(f"live_s must be above 0 s, not {self.live_s:g}")
        self._check_budget()
        if self.n_q is not None and self.n_q < 1:
            raise ArgumentError(f"n_q must be at least 1, not {self.n_q}")
        if self.rounds < 1:
            raise ArgumentError(f"rounds must be at least 1, not {self.rounds}")
        if self.threads is not None and self.threads < 1:
            raise ArgumentError(f"threads must be at least 1, not {self.threads}")

    @property
    def reference_s(self) -> float:
        """Clip length of graphs, memory, streams and batches: 10 s where it is measured, else the longest."""
        return USUAL_REFERENCE_S if USUAL_REFERENCE_S in self.durations_s else max(self.durations_s)

    @property
    def reference(self) -> Shape:
        """One clip of `reference_s`: the shape of graphs, memory and torch.compile."""
        return Shape(self.reference_s, 1)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All shapes to measure, each once; the reference is always among them."""
        durations = [Shape(duration_s, 1) for duration_s in sorted(self.durations_s)]
        batches = [Shape(self.reference_s, batch) for batch in sorted(self.batches)]
        return tuple(dict.fromkeys(durations + batches))

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the codecs that the bundle is compared with."""
        known = [name for name in self.against if not is_transformers(name)]
        named = {peer for name in known if name != _ALL_OF_TORCH for peer in PEERS[name]}
        all_peers = dict.fromkeys(peer for name in known for peer in PEERS[name])
        return tuple(peer for peer in all_peers if peer in named or peer not in self._not_by_default)

    @property
    def other_codecs(self) -> tuple[Named, ...]:
        """Codecs that are named by their paths: models of transformers in `against`, and `codecs`."""
        models = (Named(Path(name)) for name in self.against if is_transformers(name))
        return tuple(dict.fromkeys([*models, *self.codecs]))

    @property
    def without_compile(self) -> bool:
        """Whether `against` stands for torch.compile, which the budget leaves out."""
        return self.budget_s is not None and _ALL_OF_TORCH in self.against and TORCH_COMPILE not in self.peers

    @property
    def _not_by_default(self) -> set[str]:
        """Peers that must be named one by one, not by `torch`."""
        return {*([TORCH_INT8] if self.on_gpu else []), *([] if self.budget_s is None else [TORCH_COMPILE])}

    @property
    def torch_peers(self) -> tuple[str, ...]:
        """Names of the peers that run in torch."""
        return tuple(peer for peer in self.peers if peer in TORCH_PEERS)

    @property
    def codec_name(self) -> str:
        """Name of the bundle in results."""
        return bundle_codec_name(self.backend, self.provider)

    @property
    def on_gpu(self) -> bool:
        """Whether the bundle runs on a GPU; torch then does, too."""
        return runs_on_gpu(self.codec_name)

    def _check_shapes(self) -> None:
        if not self.durations_s or not self.batches:
            raise ArgumentError("name at least one duration and one batch size")
        for duration_s in self.durations_s:
            if not (math.isfinite(duration_s) and 0 < duration_s <= MAX_DURATION_S):
                raise ArgumentError(f"duration must be above 0 and at most {MAX_DURATION_S:g} s, not {duration_s:g}")
        for batch in self.batches:
            if batch < 1:
                raise ArgumentError(f"batch must be at least 1, not {batch}")
            if batch * self.reference_s > MAX_DURATION_S:
                raise ArgumentError(
                    f"batch {batch} of {self.reference_s:g} s is more than {MAX_DURATION_S:g} s of audio in one run; "
                    "give a smaller --batch or a shorter --duration"
                )

    def _check_budget(self) -> None:
        if self.budget_s is None:
            return
        if not (math.isfinite(self.budget_s) and self.budget_s >= MIN_BUDGET_S):
            raise ArgumentError(f"budget must be at least {MIN_BUDGET_S:g} s, not {self.budget_s:g}")
        if self.streams:
            raise ArgumentError("--streams takes minutes; leave --budget out")

    def _check_peers(self) -> None:
        for name in self.against:
            if name not in PEERS and not is_transformers(name):
                raise ArgumentError(
                    f"--against {name!r} is not known; use one of {', '.join(PEERS)}, transformers:ID or "
                    "transformers:DIR, or name a codec with --codec"
                )
        if self.codec_name in self.peers:
            raise ArgumentError(f"--against {self.codec_name}: this is the backend that is measured; name another peer")
        if (self.checkpoint or self.config) and not self.torch_peers:
            raise ArgumentError("--checkpoint and --config are for the torch peer; add --against torch")
        if self.config and not self.checkpoint:
            raise ArgumentError("--config belongs to a checkpoint; name it with --checkpoint, or leave --config out")
