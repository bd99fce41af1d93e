"""Token stability in an evaluation: the codecs among its columns, on some of its clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dmcodec.audio import Waveform, prepare_waveform, read_audio
from dmcodec.benchmarks.stability import Stability, StabilityOptions, measure_stability
from dmcodec.benchmarks.stability.measure import steps_of
from dmcodec.benchmarks.stability.result import MAX_S
from dmcodec.benchmarks.timing import Progress
from dmcodec.errors import AudioError, MetricError

from .columns import Clip, CodecSource, Source
from .signal_metrics import SAMPLE_RATE, stoi


def stability_of_columns(
    sources: Sequence[Source], clips: Sequence[Clip], options: StabilityOptions, progress: Progress
) -> dict[str, Stability]:
    """Measure all codecs, and return their results by column. A folder of audio has no codes, and no result."""
    codecs = [source for source in sources if isinstance(source, CodecSource)]
    total = sum(steps_of(options, source.codec, len(clips), len(source.columns)) for source in codecs)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("stability", min(done, total), total)

    found: dict[str, Stability] = {}
    for source in codecs:
        audio = {clip.name: _read(clip, source.codec.sample_rate) for clip in clips}
        by_levels = measure_stability(source.codec, tuple(source.levels.values()), audio, options, _listen, step)
        found.update({name: by_levels[n_q] for name, n_q in source.levels.items()})
    return found


def remarks(sources: Sequence[Source], found: Mapping[str, Stability]) -> list[str]:
    """Return a line for each column without codes."""
    names = [column.name for source in sources for column in source.columns if column.name not in found]
    return [f"{name} has no token stability: it is a folder of audio, which has no codes." for name in names]


def _read(clip: Clip, sample_rate: int) -> Waveform | MetricError:
    try:
        samples, rate = read_audio(clip.path)
        used = samples[:, : round((MAX_S + 1) * rate)]  # no more is used, and hours of it would take long to resample
        return prepare_waveform(used, rate, sample_rate, str(clip.path))
    except AudioError as error:
        return MetricError(str(error))


def _listen(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    original, other = (prepare_waveform(each, sample_rate, SAMPLE_RATE, "a clip") for each in (reference, degraded))
    return stoi(original, other)
