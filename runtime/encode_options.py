"""How a clip is encoded: exactly with a spool, or in windows; and the progress of either."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from dmcodec.bundle import Manifest
from dmcodec.errors import ArgumentError

from .backend import Backend
from .batching import TILED_S
from .long_clips import WindowPlan, window_plan
from .resume import Record
from .spool import check_place

# Called with the seconds of audio that are done, and the seconds in total.
Progress = Callable[[float, float], None]


class Meter:
    """Reports the progress of one encode in seconds of audio, which never go down.

    Args:
        report: what to call, or None.
        tiled_s: audio of this length and more is encoded in stages, so that reading it is a part of the work only.
        total_s: length of the audio, where it is known.
    """

    def __init__(self, report: Progress | None = None, tiled_s: float | None = None, total_s: float = 0.0) -> None:
        self._report, self._tiled_s = report, tiled_s
        self.total_s, self._done_s = total_s, 0.0

    def reading(self, done_s: float, total_s: float) -> None:
        """Take note that `done_s` seconds are read."""
        self.total_s = total_s
        if self._tiled_s is None or total_s < self._tiled_s:
            self._show(done_s)

    def stage(self, share: float) -> None:
        """Take note that a share of the whole work is done, 0 to 1."""
        self._show(share * self.total_s)

    def _show(self, done_s: float) -> None:
        self._done_s = max(done_s, self._done_s)
        if self._report:
            self._report(self._done_s, self.total_s)


@dataclasses.dataclass(frozen=True)
class EncodeOptions:
    """How clips are encoded.

    Attributes:
        plan: of the windows of long clips; None to encode exactly.
        spool: place of the spool; see `dmcodec.runtime.spool.Spool`.
        meter: reports the progress.
        record: of an encode that can go on after an interruption.
        tiles: whether a short clip that is alone may run in tiles.
    """

    plan: WindowPlan | None = None
    spool: str | Path | None = None
    meter: Meter = dataclasses.field(default_factory=Meter)
    record: Record | None = None
    tiles: bool = True


def encodes_exactly(manifest: Manifest, backend: Backend) -> bool:
    """Return whether clips of any length are encoded exactly: the bundle and the backend have the encoder's parts."""
    return manifest.has_encoder_parts and backend.name == "onnxruntime"


def encode_options(
    manifest: Manifest,
    backend: Backend,
    context_s: float | None,
    spool: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> EncodeOptions:
    """Return the options for the arguments of `Codec.encode_file`.

    Raises:
        ArgumentError: an argument out of range, or arguments that exclude each other.
    """
    exact = context_s is None and encodes_exactly(manifest, backend)
    for name, given in (("spool", spool is not None), ("resume", resume)):
        if given and not exact:
            reason = (
                "context_s chooses windows"
                if context_s is not None
                else f"backend {backend.name} encodes in windows"
                if manifest.has_encoder_parts
                else "this bundle was exported by an earlier dmcodec and encodes in windows; export it again"
            )
            raise ArgumentError(f"{name} is for exact encoding: {reason}")
    if resume and spool is not None:
        raise ArgumentError("spool and resume exclude each other: the spool of resume is a folder beside the output")
    check_place(spool)
    if exact:
        return EncodeOptions(None, spool, Meter(progress, TILED_S))
    default_s = float(manifest.encoder_context["default_context_s"])
    return EncodeOptions(
        window_plan(manifest.config, default_s if context_s is None else context_s), None, Meter(progress)
    )
