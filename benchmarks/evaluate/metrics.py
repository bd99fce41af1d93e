"""The metrics: name, unit, direction, definition and packages of each."""

from __future__ import annotations

import dataclasses

from dmcodec.errors import MissingDependencyError
from dmcodec.extras import require
from dmcodec.pretrained.loading import NOT_INSTALLED, package_version


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric. Its values are floats in `unit`."""

    key: str
    label: str
    unit: str
    higher_is_better: bool
    decimals: int
    definition: str
    packages: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Label with the unit, and below it an arrow: up where higher is better."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.label}{unit}\n{'↑' if self.higher_is_better else '↓'}"

    def text(self, value: float) -> str:
        """Return the value with this metric's number of decimals."""
        return f"{value:.{self.decimals}f}"

    def described(self) -> str:
        """Return the definition, with the versions of the packages that compute the metric."""
        versions = ", ".join(f"{name} {package_version(name)}" for name in self.packages)
        return f"{self.definition} [{versions}]" if versions else self.definition


_ALL = (
    Metric("stoi", "STOI", "", True, 3, "classic (not extended) STOI, computed at 10 kHz", ("pystoi",)),
    Metric("estoi", "ESTOI", "", True, 3, "extended STOI, computed at 10 kHz", ("pystoi",)),
    Metric(
        "pesq",
        "PESQ-WB",
        "",
        True,
        2,
        "wideband MOS-LQO of ITU-T P.862.2 at 16 kHz; with internal alignment of time and level; clips up to 60 s",
        ("pesq",),
    ),
    Metric(
        "pesq-nb",
        "PESQ-NB",
        "",
        True,
        2,
        "narrowband MOS-LQO of ITU-T P.862 with P.862.1, both clips resampled to 8 kHz; with internal alignment of "
        "time and level; clips up to 60 s",
        ("pesq",),
    ),
    Metric(
        "visqol",
        "ViSQOL",
        "",
        True,
        2,
        "MOS-LQO, speech mode at 16 kHz, lattice mapping (the default of the reference implementation); with internal "
        "alignment of time and level",
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
    Metric("si-sdr", "SI-SDR", "dB", True, 1, "scale-invariant SDR of zero-mean signals, without alignment"),
    Metric(
        "si-snr",
        "SI-SNR",
        "dB",
        True,
        1,
        "scale-invariant SNR (arXiv 1711.00541) of zero-mean signals, without alignment: the same figure as SI-SDR",
    ),
    Metric(
        "mel",
        "log-mel L1",
        "",
        False,
        3,
        "mean absolute difference of natural log-mel magnitudes: 80 mels to 8 kHz, HTK scale, Slaney norm, n_fft 1024, "
        "hop 240, Hann, clamped at 1e-5; without alignment in time",
    ),
    Metric(
        "mcd",
        "MCD",
        "dB",
        False,
        2,
        "mel-cepstral distortion of c_1 to c_24 without c_0, from the log-mel spectra of the mel distance (80 mels, "
        "hop 15 ms); frames compared in place, without dynamic time warping; silence included",
        ("scipy",),
    ),
    Metric(
        "f0-corr",
        "F0 corr.",
        "",
        True,
        3,
        "Pearson correlation of F0 in Hz over the frames that are voiced in both; pyin, 50 to 550 Hz, hop 10 ms, "
        "window 64 ms; frames compared in place",
        ("librosa",),
    ),
    Metric(
        "f0-rmse",
        "F0 RMSE",
        "Hz",
        False,
        1,
        "root mean square difference of F0 over the frames that are voiced in both; F0 as for the correlation",
        ("librosa",),
    ),
    Metric(
        "vuv",
        "V/UV error",
        "%",
        False,
        1,
        "frames that are voiced in one of both only, of all frames; voicing of pyin, as for the correlation",
        ("librosa",),
    ),
    Metric(
        "superb-mel",
        "SUPERB mel",
        "",
        False,
        3,
        "Codec-SUPERB's mel: multi-scale log10 and linear L1 of 150 and 80 mels, windows 2048 and 512, at 16 kHz",
        ("librosa",),
    ),
    Metric(
        "superb-stft",
        "SUPERB STFT",
        "",
        False,
        3,
        "Codec-SUPERB's stft: multi-scale log10 and linear L1 of magnitudes, windows 2048 and 512, at 16 kHz",
    ),
    Metric(
        "superb-waveform", "SUPERB wave", "", False, 4, "Codec-SUPERB's waveform: mean absolute difference of samples"
    ),
    Metric(
        "dnsmos",
        "DNSMOS",
        "",
        True,
        2,
        "overall MOS of DNSMOS P.835, of the reconstruction alone; not personalised; level left as it is",
        ("speechmos", "librosa"),
    ),
    Metric("dnsmos-sig", "DNSMOS SIG", "", True, 2, "speech MOS of DNSMOS P.835, as DNSMOS", ("speechmos", "librosa")),
    Metric(
        "dnsmos-bak", "DNSMOS BAK", "", True, 2, "background MOS of DNSMOS P.835, as DNSMOS", ("speechmos", "librosa")
    ),
    Metric("dnsmos-p808", "DNSMOS P.808", "", True, 2, "MOS of DNSMOS P.808, as DNSMOS", ("speechmos", "librosa")),
    Metric(
        "utmos", "UTMOS", "", True, 2, "predicted naturalness MOS of UTMOS, of the reconstruction alone", ("torch",)
    ),
    Metric("speaker", "speaker", "", True, 3, "cosine similarity of the speaker embeddings of both"),
    Metric(
        "wer",
        "WER",
        "%",
        False,
        2,
        "word errors / words of the reference texts, both summed over all files",
        ("jiwer", "transformers"),
    ),
    Metric("wil", "WIL", "%", False, 2, "word information lost, from the summed counts", ("jiwer",)),
)
METRICS = {metric.key: metric for metric in _ALL}
SIGNAL_METRICS = ("stoi", "pesq", "visqol", "visqol-polynomial", "si-sdr", "mel")
SPEAKER_METRIC = "speaker"
UTMOS_METRIC = "utmos"
# Metrics of Codec-SUPERB's result file.
SUPERB_METRICS = ("stoi", "pesq", "f0-corr", "superb-mel", "superb-stft", "superb-waveform")
# Metrics of a single clip: the originals have them, too.
NO_REFERENCE = ("dnsmos", "dnsmos-sig", "dnsmos-bak", "dnsmos-p808", UTMOS_METRIC)
WORD_METRICS = ("wer", "wil")


# Distribution -> its module.
_MODULES = {"visqol-python": "visqol", "ai-edge-litert": "ai_edge_litert"}
# Package -> modules that it imports and does not require.
_UNDECLARED = {"speechmos": ("requests", "onnxruntime")}


def require_packages(keys: tuple[str, ...]) -> None:
    """Raise MissingDependencyError where a package of one of the metrics isn't installed."""
    missing = {
        package: key for key in keys for package in METRICS[key].packages if package_version(package) == NOT_INSTALLED
    }
    if missing:
        packages, needers = ", ".join(missing), ", ".join(dict.fromkeys(missing.values()))
        raise MissingDependencyError(f'{needers}: missing {packages}; run `pip install "dmcodec[evaluate]"`')
    packages_of = [package for key in keys for package in METRICS[key].packages]
    modules = [_MODULES.get(package, package) for package in packages_of]
    modules += [module for package in packages_of for module in _UNDECLARED.get(package, ())]
    require("evaluate", "evaluate", "scipy", *modules)  # scipy computes the intervals
