"""The worst figure of each kind, beside its threshold and with the case that gave it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from dmcodec.benchmarks.tables import count_of
from dmcodec.export.agreement import INAUDIBLE_ERROR, SNR_CEILING_DB
from dmcodec.export.parity import ParityCase, bounds, reaches
from dmcodec.precision import Thresholds

from .result import Check

IDENTICAL = (
    f"An SNR ends at {SNR_CEILING_DB:g} dB: this value stands for identical signals, whose SNR would be infinite, and "
    f"-{SNR_CEILING_DB:g} dB for output that is not finite, or that should be silent and is not."
)
INAUDIBLE = (
    f"Inaudible: no sample of the audio differs by more than {INAUDIBLE_ERROR:g} (-120 dBFS). Such audio passes at any "
    "SNR: in near silence, the rounding of float32 alone is less than 90 dB below the signal."
)
TIE = (
    "A tie: two codebook entries are equally near within the rounding of float32, so that either code is right. A "
    "frame that differs by a tie only counts as equal."
)

# Value of a case of the export -> what it is of. In reading order.
_GRAPHS = {
    "latents_snr_db": "encoder, latents",
    "quantizer_agreement": "quantizer alone, equal frames",
    "dequantizer_snr_db": "dequantizer, latents",
    "decoder_snr_db": "decoder, audio",
    "stream_snr_db": "stream, audio",
    "level0_agreement": "encoder and quantizer, codes of level 0",
    "frame_agreement": "encoder and quantizer, frames with all codes equal",
    "chain_snr_db": "all graphs in a chain, audio",
}
_USES = {
    "level0_agreement": "in use, codes of level 0",
    "frame_agreement": "in use, frames with all codes equal",
    "untied_agreement": "in use, codes in windows",
    "snr_db": "in use, audio",
}
_PARTS = {
    "sweep_latents_snr_db": ("latents_snr_db", "encoder in parts, latents"),
    "sweep_level0_agreement": ("level0_agreement", "encoder in parts, codes of level 0"),
    "sweep_frame_agreement": ("frame_agreement", "encoder in parts, frames with all codes equal"),
}
_PARTS_CASE = "speech of 4 s in tiles and sweeps"
_AUDIO = ("decoder", "stream", "chain")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        kind: what it is of.
        value: an SNR in dB, or a share of 0 to 1.
        in_db: whether it is an SNR.
        threshold: the least value that passes; None where there is none.
        case: the input that gave it.
        reached: whether it passes.
        inaudible: of audio: whether no sample differs by more than INAUDIBLE_ERROR.
    """

    kind: str
    value: float
    in_db: bool
    threshold: float | None
    case: str
    reached: bool
    inaudible: bool = False

    @property
    def text(self) -> str:
        """The value with its unit."""
        if self.in_db and abs(self.value) == SNR_CEILING_DB:
            return f"{self.value:g} dB ({'identical' if self.value > 0 else 'unusable'})"
        text = measure(self.value, self.in_db)
        quiet = self.inaudible and (self.threshold is None or self.value < self.threshold)
        return f"{text} (inaudible)" if quiet else text

    @property
    def needs(self) -> str:
        """The threshold with its unit."""
        if self.threshold is None:
            return "no threshold"
        return f"at least {self.threshold:g} dB" if self.in_db else f"at least {100 * self.threshold:g} %"

    @property
    def verdict(self) -> str:
        """One word."""
        return "FAILED" if not self.reached else "reported" if self.threshold is None else "ok"


def measure(value: float, in_db: bool) -> str:
    """Return a figure with its unit; a share is never rounded up to 100 %."""
    if in_db:
        return f"{value:.1f} dB"
    percent = min(100 * value, 99.99) if value < 1 else 100.0
    return f"{percent:.2f} %" if value < 1 else f"{percent:g} %"


def worst_of_cases(cases: Sequence[ParityCase], thresholds: Thresholds) -> list[Figure]:
    """Return the worst figure of each kind of the graphs' cases."""
    found = []
    for name, kind in _GRAPHS.items():
        figures = [_of_case(case, name, kind, bounds(case, thresholds)[name]) for case in cases]
        found += _worst(figures)
    return found


def worst_of_checks(checks: Sequence[Check]) -> list[Figure]:
    """Return the worst figure of each kind of the uses."""
    found = []
    for name, kind in _USES.items():
        figures = [
            _of_check(check, name, kind)
            for check in checks
            if getattr(check, name) is not None and (name != "untied_agreement" or name in check.thresholds)
        ]
        found += _worst(figures)
    return found


def worst_of_parts(parity: Mapping[str, float], thresholds: Thresholds) -> list[Figure]:
    """Return the figures of the encoder in parts in a manifest's record of parity; none of an earlier version's."""
    found = []
    for name, (threshold, kind) in _PARTS.items():
        if name in parity:
            bound = _bound(name, getattr(thresholds, threshold))
            reached = bound is None or parity[name] >= bound
            found.append(Figure(kind, parity[name], _in_db(name), bound, _PARTS_CASE, reached))
    return found


def nearest(figures: Iterable[Figure]) -> Figure | None:
    """Return the figure that failed, or else the SNR that is nearest to its threshold; None where none has one.

    Shares are left out where all pass: their threshold is 100 %, which most of them are.
    """
    bounded = [figure for figure in figures if figure.threshold is not None]
    if failed := [figure for figure in bounded if not figure.reached]:
        return failed[0]
    audible = [figure for figure in bounded if figure.in_db and not figure.inaudible]
    return min(audible, key=lambda figure: figure.value - (figure.threshold or 0), default=None)


def _of_case(case: ParityCase, name: str, kind: str, threshold: float | None) -> Figure:
    bound = _bound(name, threshold)
    graph = name.removesuffix("_snr_db")
    inaudible = graph in _AUDIO and getattr(case, f"{graph}_max_abs_error") <= INAUDIBLE_ERROR
    where = f"{case.signal} of {count_of(case.num_samples, 'sample')}, batch {case.batch}"
    reached = bound is None or reaches(case, name, bound)
    return Figure(kind, getattr(case, name), _in_db(name), bound, where, reached, inaudible)


def _of_check(check: Check, name: str, kind: str) -> Figure:
    bound = _bound(name, check.thresholds.get(name))
    value = getattr(check, name)
    inaudible = name == "snr_db" and check.max_abs_error is not None and check.max_abs_error <= INAUDIBLE_ERROR
    reached = bound is None or inaudible or value >= bound
    return Figure(kind, value, _in_db(name), bound, f"{check.what}: {check.detail}", reached, inaudible)


def _in_db(name: str) -> bool:
    return name.endswith("snr_db")


def _bound(name: str, threshold: float | None) -> float | None:
    """Return a threshold; None for a share of 0, which any value reaches."""
    return None if threshold == 0 and not _in_db(name) else threshold


def _worst(figures: Sequence[Figure]) -> list[Figure]:
    """Return the worst one, in a list; an empty one of none.

    A figure without a threshold, or that nobody hears, is shown only where there is no other.
    """
    return [min(figures, key=_order)] if figures else []


def _order(figure: Figure) -> tuple[bool, bool, bool, float]:
    return figure.reached, figure.threshold is None, figure.inaudible, figure.value
