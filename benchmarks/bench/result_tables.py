"""The result of `dmcodec bench` as tables of measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from dmcodec.benchmarks.gpu import MIB, Gpu
from dmcodec.benchmarks.tables import Table, count_of, milliseconds, print_tables, significant
from dmcodec.benchmarks.timing import Timing

from .options import Shape
from .result import BenchResult, Measurement, MemoryResult


def print_result(result: BenchResult, console: Console) -> None:
    """Print the headline, the bundle, the machine and all tables of measurements."""
    head = "\n".join((result.headline, "", *summary_lines(result))).strip()
    print_tables(head, result_tables(result), console)


def summary_lines(result: BenchResult) -> list[str]:
    """Return a few lines that name the bundle and the machine."""
    bundle, machine = result.bundle, result.machine
    return [
        f"{bundle.path}: model {bundle.model_id}, {bundle.precision}, {bundle.size_bytes / MIB:,.0f} MiB",
        f"{bundle.backend} on {bundle.provider}, {count_of(result.threads, 'thread')}, "
        f"{count_of(machine.usable_cpus, 'usable CPU')}",
        machine.cpu,
        *([result.load.line()] if result.load else []),
        *(gpu_line(gpu) for gpu in machine.gpus),
        *_budget_lines(result),
    ]


def _budget_lines(result: BenchResult) -> list[str]:
    if result.budget_s is None:
        return []
    found = [f"a quick look, within {result.budget_s:g} s; for figures to publish, leave --budget out"]
    return found + ([f"left out: {'; '.join(result.left_out)}"] if result.left_out else [])


def result_tables(result: BenchResult) -> list[Table]:
    """Return all tables of measurements that have rows, in reading order."""
    tables = [
        speedup_table(result),
        fidelity_table(result),
        peer_codec_table(result),
        steady_state_table(result),
        stream_table(result),
        *live_tables(result),
        graph_table(result),
        loading_table(result),
        engine_table(result),
        capture_table(result),
        memory_table(result),
    ]
    return [table for table in tables if table.rows]


def gpu_line(gpu: Gpu) -> str:
    """Describe a GPU in one line."""
    memory = "" if gpu.memory_bytes is None else f", {gpu.memory_bytes / MIB:,.0f} MiB"
    limit = "" if gpu.power_limit_w is None else f", {gpu.power_limit_w:,.0f} W at most"
    return f"{gpu.name}, driver {gpu.driver}{memory}{limit}"


def speedup_table(result: BenchResult) -> Table:
    """Return the speedup of the bundle over each peer, with the agreement of their outputs."""
    rows: list[tuple[str, ...]] = [
        (
            comparison.peer,
            str(Shape(comparison.duration_s, comparison.batch)),
            f"{comparison.encode_speedup:.2f}x",
            _range(comparison.encode_quartiles),
            f"{comparison.decode_speedup:.2f}x",
            _range(comparison.decode_quartiles),
            "-" if comparison.code_agreement is None else f"{comparison.code_agreement:.2%}",
            "-" if comparison.waveform_snr_db is None else f"{comparison.waveform_snr_db:.1f}",
        )
        for comparison in result.comparisons
    ]
    rows += [(failure.peer, "not measured", *["-"] * 6) for failure in result.peer_failures]
    note = (
        f"Interleaved timing (A B A B); median and quartiles of the ratios of {_rounds(result)} pairs. Above 1, "
        f"{result.side} is faster. SNR: of the waveforms that both decode from the same codes."
    )
    others = [codec.peer for codec in result.peer_codecs if not codec.same_network]
    if others:
        note += (
            f"\n{', '.join(others)}: another network than the bundle's. Only times are compared, and each decodes its "
            "own codes; speed says nothing about quality here."
        )
    reasons = [f"{failure.peer} could not be measured: {failure.reason}" for failure in result.peer_failures]
    return Table(
        _title(result, f"Speedup of {result.side}"),
        ("over peer", "audio", "encode", "quartiles", "decode", "quartiles", "equal codes", "SNR dB"),
        tuple(rows),
        labels=2,
        note="\n".join([note, *reasons]),
    )


def fidelity_table(result: BenchResult) -> Table:
    """Return how close each codec is to float32."""
    rows = [
        (
            entry.side,
            f"{entry.code_agreement:.2%}",
            f"{entry.level0_agreement:.2%}",
            "-" if entry.latents_snr_db is None else f"{entry.latents_snr_db:.1f}",
            f"{entry.waveform_snr_db:.1f}",
        )
        for entry in result.fidelity
    ]
    return Table(
        f"Fidelity, {Shape(result.reference_s, 1)}",
        ("codec", "equal codes", "level 0", "latents dB", "audio dB"),
        tuple(rows),
        note="Against the same network in float32 in torch. dB: SNR of the encoder's latents, and of the audio that "
        "both decode from the same codes.",
    )


def peer_codec_table(result: BenchResult) -> Table:
    """Return sample rate, levels and bitrate of the codecs that were named by their paths."""
    rows = [
        (
            codec.peer,
            "the bundle's" if codec.same_network else "another",
            f"{codec.sample_rate:,}",
            f"{codec.frame_rate:g}",
            str(codec.n_q),
            f"{codec.bitrate_bps / 1000:g}",
        )
        for codec in result.peer_codecs
    ]
    note = "\n".join(f"{codec.peer}: {codec.description}." for codec in result.peer_codecs)
    columns = ("codec", "network", "Hz", "frames/s", "levels", "kbit/s")
    return Table("Codecs beside the bundle", columns, tuple(rows), labels=2, note=note)


def steady_state_table(result: BenchResult) -> Table:
    """Return times, RTF and xRT of each codec, operation and shape."""
    return Table(
        _title(result, "Steady state"),
        ("codec", "operation", "audio", "first ms", "p50 ms", "p25 to p75", "p99 ms", "RTF", "xRT"),
        tuple(_steady_state_row(measurement) for measurement in _encode_first(result.measurements)),
        labels=3,
        note=f"n = {_rounds(result)}. RTF = compute time / audio time. xRT = 1 / RTF; of a batch, the throughput.",
    )


def stream_table(result: BenchResult) -> Table:
    """Return the times of streaming decode: of pushes, and of the first audio."""
    rows: list[tuple[str, ...]] = []
    if (stream := result.stream) is not None:
        total_s = stream.tokens_needed_s + stream.first_audio_compute_s
        times_s = (stream.push.p50_s, stream.push.p95_s, stream.push.p99_s, stream.first_audio_compute_s, total_s)
        speed = (significant(stream.speed.rtf), significant(stream.speed.xrt))
        rows.append(
            (milliseconds(stream.chunk_s), milliseconds(stream.look_ahead_s), *map(milliseconds, times_s), *speed)
        )
    return Table(
        _title(result, f"Streaming decode of {result.side}"),
        ("chunk ms", "look-ahead ms", "push p50 ms", "p95 ms", "p99 ms", "first audio ms", "+ tokens ms", "RTF", "xRT"),
        tuple(rows),
        labels=0,
        note="First audio: compute time of the pushes up to the first samples. + tokens: plus the duration of the "
        "speech whose tokens must have arrived by then.",
    )


def live_tables(result: BenchResult) -> list[Table]:
    """Return the latencies of many live streams at once, and how many the machine keeps up with."""
    if (live := result.live) is None:
        return []
    levels = [
        (
            level.operation,
            level.side,
            f"{level.streams:,}",
            f"{level.pushes:,}",
            milliseconds(level.p50_s),
            milliseconds(level.p99_s),
            "yes" if level.holds else "no",
        )
        for level in live.levels
    ]
    capacities = [
        (entry.operation, entry.side, f"{entry.streams:,}{' or more' if entry.is_lower_bound else ''}")
        for entry in live.capacities
    ]
    limit = f"p99 under {milliseconds(live.limit_s)} ms"
    return [
        Table(
            _title(result, f"Live streams of {result.side}"),
            ("operation", "streams", "number", "pushes", "p50 ms", "p99 ms", f"p99 < {live.limit_s * 1000:g} ms"),
            tuple(levels),
            labels=2,
            note=f"Each stream pushes {live.chunk_s * 1000:g} ms at its real times. From when a push is due until its "
            "result is there. Separate: streams on their own, one thread each, as many at a time as threads.",
        ),
        Table(
            "Live streams that the machine keeps up with",
            ("operation", "streams", "number"),
            tuple(capacities),
            labels=2,
            note=f"The largest number with {limit}, searched by doubling and halving.",
        ),
    ]


def graph_table(result: BenchResult) -> Table:
    """Return load, first run and steady state of each graph."""
    rows = [
        (
            graph.graph,
            milliseconds(graph.load_s),
            milliseconds(graph.first_run_s),
            milliseconds(graph.timing.p50_s),
            _span(graph.timing),
            milliseconds(graph.timing.p99_s),
            significant(graph.speed.rtf),
            significant(graph.speed.xrt),
        )
        for graph in result.graphs
    ]
    on_cpu = result.bundle.provider == "cpu"
    others = " Single clips of some seconds run in tiles and steps, in other graphs: these times are not their sum."
    return Table(
        _title(result, f"Graphs of {result.side}, {Shape(result.reference_s, 1)}"),
        ("graph", "load ms", "first ms", "p50 ms", "p25 to p75", "p99 ms", "RTF", "xRT"),
        tuple(rows),
        note=f"n = {_counts([graph.timing for graph in result.graphs])}. Opening the bundle and verifying its "
        f"checksums took {milliseconds(result.open_s)} ms.{others if on_cpu else ''}",
    )


def loading_table(result: BenchResult) -> Table:
    """Return the times to load and compile the peers."""
    rows = [
        (loading.peer, f"{loading.load_s:.2f}", "-" if loading.compile_s is None else f"{loading.compile_s:.1f}")
        for loading in result.peer_loading
    ]
    note = "Load: create the sessions, or build the torch model and check its weights."
    return Table("Loading of the peers", ("codec", "load s", "compile s"), tuple(rows), note=note)


def engine_table(result: BenchResult) -> Table:
    """Return the TensorRT engines with the time that their build took."""
    rows = [
        (
            engine.graph,
            engine.precision,
            f"{engine.library}, {', '.join(engine.architectures)}",
            f"{engine.size_bytes / MIB:,.1f}",
            "-" if engine.build_s is None else f"{engine.build_s:.1f}",
        )
        for engine in result.engines
    ]
    return Table(
        "TensorRT engines",
        ("graph", "precision", "library, GPU architecture", "MiB", "build s"),
        tuple(rows),
        labels=3,
        note="They were built before; no other time contains the build.",
    )


def capture_table(result: BenchResult) -> Table:
    """Return what became of fixed shapes: those that run from a CUDA graph, and those that can't."""
    captures, note = result.captures, ""
    rows: tuple[tuple[str, ...], ...] = ()
    if captures is not None:
        counts = (captures.captured, captures.by_library, captures.launches, captures.failed)
        rows, note = (tuple(f"{count:,}" for count in counts),), "; ".join(captures.reasons)
    return Table(
        "Fixed shapes in CUDA graphs", ("captured", "by the library", "launches", "failed"), rows, labels=0, note=note
    )


def memory_table(result: BenchResult) -> Table:
    """Return the peak memory of each codec and operation, with GPU memory and power where a GPU was read."""
    reasons = dict.fromkeys(entry.reason for entry in result.memory if entry.reason)
    notes = ["Peak resident memory of a new process that does only this, libraries included."]
    rows: list[tuple[str, ...]] = [(entry.side, entry.operation, _mib(entry.peak_rss_bytes)) for entry in result.memory]
    columns: tuple[str, ...] = ("codec", "operation", "MiB")
    sources = {entry.gpu_source for entry in result.memory if entry.gpu_source}
    if sources:
        columns += ("GPU MiB", "W", "J per s of audio")
        rows = [row + _gpu_cells(entry) for row, entry in zip(rows, result.memory, strict=True)]
        notes.append(
            "GPU MiB: peak of the memory in use, minus what was in use before. W: mean power of repeated runs. "
            f"Read through {', '.join(sources)}."
        )
    return Table(
        f"Peak memory{' and power' if sources else ''}, {Shape(result.reference_s, 1)}",
        columns,
        tuple(rows),
        labels=2,
        note=" ".join([*notes, *reasons]),
    )


def _gpu_cells(entry: MemoryResult) -> tuple[str, ...]:
    power = (entry.power_w, entry.energy_j_per_audio_s)
    return (_mib(entry.peak_gpu_bytes), *("-" if value is None else f"{value:,.3g}" for value in power))


def _mib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / MIB:,.0f}"


def _steady_state_row(measurement: Measurement) -> tuple[str, ...]:
    timing, speed = measurement.timing, measurement.speed
    return (
        measurement.side,
        measurement.operation,
        str(Shape(measurement.duration_s, measurement.batch)),
        milliseconds(measurement.first_run_s),
        milliseconds(timing.p50_s),
        _span(timing),
        milliseconds(timing.p99_s),
        significant(speed.rtf),
        significant(speed.xrt),
    )


def _title(result: BenchResult, title: str) -> str:
    """Return the title of a table of times, marked where they are none."""
    return title if result.is_measurement else f"{title} (not a measurement)"


def _rounds(result: BenchResult) -> str:
    return _counts([entry.timing for entry in result.measurements])


def _counts(timings: Sequence[Timing]) -> str:
    """Return how many runs there were: `10`, or where that differs, `3 to 10`."""
    counts = [timing.n for timing in timings]
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def _span(timing: Timing) -> str:
    return f"{milliseconds(timing.p25_s)} to {milliseconds(timing.p75_s)}"


def _range(quartiles: tuple[float, float]) -> str:
    return f"{quartiles[0]:.2f} to {quartiles[1]:.2f}"


def _encode_first(measurements: Iterable[Measurement]) -> list[Measurement]:
    return sorted(measurements, key=lambda measurement: measurement.operation != "encode")
