"""The metrics: what each is, where it comes from, and which way is better."""

from __future__ import annotations

import dataclasses

from dmcodec.errors import MissingDependencyError
from dmcodec.pretrained.loading import NOT_INSTALLED, package_version


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric. Its values are plain floats in `unit`."""

    key: str
    label: str
    unit: str
    higher_is_better: bool
    decimals: int
    definition: str
    packages: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Label with the unit, and below it an arrow that points where it is better."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.label}{unit}\n{'↑' if self.higher_is_better else '↓'}"

    def text(self, value: float) -> str:
        """The value at this metric's number of decimals."""
        return f"{value:.{self.decimals}f}"

    def described(self) -> str:
        """The definition with the versions of the packages that compute it."""
        versions = ", ".join(f"{name} {package_version(name)}" for name in self.packages)
        return f"{self.definition} [{versions}]" if versions else self.definition


_ALL = (
    Metric("stoi", "STOI", "", True, 3, "classic (not extended) STOI, at the package's own 10 kHz", ("pystoi",)),
    Metric(
        "pesq",
        "PESQ-WB",
        "",
        True,
        2,
        "wideband MOS-LQO of ITU-T P.862.2 at 16 kHz; aligns in time and level within itself; clips up to 60 s",
        ("pesq",),
    ),
    Metric(
        "visqol",
        "ViSQOL",
        "",
        True,
        2,
        "MOS-LQO, speech mode at 16 kHz, lattice mapping (the default of the reference implementation); aligns in time "
        "and level within itself",
        ("visqol-python", "ai-edge-litert"),
    ),
    Metric(
        "visqol-polynomial",
        "ViSQOL-poly",
        "",
        True,
        2,
        "MOS-LQO, speech mode at 16 kHz, polynomial mapping, not scaled to 5; from the same similarities as ViSQOL",
        ("visqol-python",),
    ),
    Metric("si-sdr", "SI-SDR", "dB", True, 1, "scale-invariant SDR of zero-mean signals, no alignment in time"),
    Metric(
        "mel",
        "log-mel L1",
        "",
        False,
        3,
        "mean absolute difference of natural log-mel magnitudes: 80 mels to 8 kHz, HTK scale, Slaney norm, n_fft 1024, "
        "hop 240, Hann, clamped at 1e-5; no alignment in time",
    ),
    Metric("speaker", "speaker", "", True, 3, "cosine of the speaker embeddings of reconstruction and original"),
    Metric(
        "wer",
        "WER",
        "%",
        False,
        2,
        "word errors of all files / words of all reference texts",
        ("jiwer", "transformers"),
    ),
    Metric("wil", "WIL", "%", False, 2, "word information lost, from the counts of all files", ("jiwer",)),
)
METRICS = {metric.key: metric for metric in _ALL}
SIGNAL_METRICS = ("stoi", "pesq", "visqol", "visqol-polynomial", "si-sdr", "mel")
SPEAKER_METRIC = "speaker"
WORD_METRICS = ("wer", "wil")


def require_packages(keys: tuple[str, ...]) -> None:
    """Raises MissingDependencyError where a package that one of the metrics needs isn't installed."""
    missing = {
        package: key for key in keys for package in METRICS[key].packages if package_version(package) == NOT_INSTALLED
    }
    if missing:
        packages, needers = ", ".join(missing), ", ".join(dict.fromkeys(missing.values()))
        raise MissingDependencyError(f"{needers}: missing {packages}; run `pip install dmcodec[evaluate]`")
