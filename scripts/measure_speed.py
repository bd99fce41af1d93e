"""Measure speed and start-up on this machine, and write the figures into the documentation.

    python scripts/measure_speed.py [--only full,small] [--int8 BUNDLE] [--rounds N] [--render]

Each part is one call of `dmcodec bench`. The results go to docs/measurements/speed.json; the tables of
docs/measurements/speed-on-a-cpu.md and the sentences of the README are made from that file, between marks. Run it on a
machine that does nothing else: what `dmcodec bench` calls no measurement is marked as such in the pages.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("docs/measurements/speed.json")
PAGES = (Path("README.md"), Path("docs/measurements/speed-on-a-cpu.md"))
_CLIPS = ["--duration", "1,10", "--batch", "1"]
# Part -> arguments of `dmcodec bench`.
PARTS: Mapping[str, Sequence[str]] = {
    "full": ["--size", "full", "--against", "torch", *_CLIPS, "--rounds", "7", "--stream"],
    "small": ["--against", "torch", *_CLIPS, "--rounds", "10", "--stream"],
    "batches": ["--size", "full", "--duration", "3", "--batch", "1,4,16", "--rounds", "7"],
    "start-small": ["--start-up", "--rounds", "9"],
    "start-full": ["--start-up", "--size", "full", "--rounds", "5"],
}
INT8 = "full-int8"
SETTLED, MAX_WAIT_S = 0.9, 300.0
README_PARTS = ("full", "start-small")
OPERATIONS = ("encode", "decode")
VERSIONS = ("numpy", "onnxruntime", "torch")
BUSY = "Run it again on an idle machine."  # ends the warning of `dmcodec bench`
_REGION = re.compile(r"(<!-- speed\.json: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Values = Mapping[str, Any]


def main() -> None:
    """Measure the parts that the arguments name, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure (default: %(default)s)")
    parser.add_argument("--int8", type=Path, help=f"bundle of the full size in int8: measures {INT8}, too")
    parser.add_argument("--render", action="store_true", help="measure nothing: write the pages from the results")
    parser.add_argument("--rounds", type=int, help="of each part, for a quick try (default: each part's own)")
    arguments = parser.parse_args()
    parts = {name: list(PARTS[name]) for name in arguments.only.split(",")}
    if arguments.int8:
        parts[INT8] = ["--bundle", str(arguments.int8), *PARTS["full"][2:]]
    if arguments.rounds:
        for options in parts.values():
            options[options.index("--rounds") + 1] = str(arguments.rounds)
    results = json.loads((ROOT / RESULTS).read_text()) if (ROOT / RESULTS).exists() else {}
    if not arguments.render:
        for name, options in parts.items():
            results[name] = measured(options)
            (ROOT / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        (ROOT / page).write_text(rendered(text, results), encoding="utf-8")


def measured(options: Sequence[str]) -> dict[str, Any]:
    """Run `dmcodec bench` with these options, and return its JSON without the time of each run."""
    command = ["dmcodec", "bench", *options]
    settle()
    print("$", shlex.join(command), file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    values: dict[str, Any] = compact(json.loads(done.stdout))
    return {**values, "command": shlex.join(Path(word).name if is_path(word) else word for word in command)}


def settle() -> None:
    """Wait until the load average of the last minute has forgotten the part before, MAX_WAIT_S at most."""
    end = time.monotonic() + MAX_WAIT_S
    while os.getloadavg()[0] > SETTLED and time.monotonic() < end:
        time.sleep(5)


def compact(values: Any) -> Any:
    """Return JSON values without single runs and paths of this machine, and with 5 significant digits."""
    if isinstance(values, dict):
        left_out = ("runs_s", "cpu_runs_s", "provenance", "parity", "path")
        return {name: compact(value) for name, value in values.items() if name not in left_out and not is_path(value)}
    if isinstance(values, list):
        return [compact(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values


def is_path(value: Any) -> bool:
    """Return whether a value is a path of this machine."""
    return isinstance(value, str) and Path(value).is_absolute()


def rendered(text: str, results: Values) -> str:
    """Return a page with the regions between the marks made anew; one of a part that has no results says so."""

    def region(match: re.Match[str]) -> str:
        return f"{match[1]}\n{content(match[2], results)}\n\n{match[3]}"

    return _REGION.sub(region, text)


def content(name: str, results: Values) -> str:
    """Return the Markdown of one region: a part, or `readme`."""
    if any(part not in results for part in (README_PARTS if name == "readme" else [name])):
        return "Not measured yet."
    if name == "readme":
        return readme(results)
    values = results[name]
    if name.startswith("start"):
        return "\n\n".join([record(values), table(("step", "CPU ms", "ms"), start_rows(values))])
    words = values["headline"].rpartition(BUSY)[2].strip()  # `record` says it, too
    blocks = [record(values), wrapped(words)]
    blocks.append(table(("codec", "clip", "encode ms", "RTF", "xRT", "decode ms", "RTF", "xRT"), speed_rows(values)))
    if values["comparisons"]:
        blocks.append(f"`{values['side']}` against its peers, with the quartiles of the ratios:")
        blocks.append(table(("peer", "clip", "encode", "", "decode", ""), ratio_rows(values)))
        blocks.append(table(("codec", "equal codes", "level 0", "latents", "audio"), fidelity_rows(values)))
    if values["stream"]:
        blocks.append(stream_words(values))
    if values["memory"]:
        blocks.append(memory_words(values))
    return "\n\n".join(blocks)


def record(values: Values) -> str:
    """Return the command, the date, the machine, and whether it was a measurement."""
    machine, load = values["machine"], values["load"]
    date = day(values)
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in VERSIONS if name in machine["versions"])
    words = (
        f"{date}; {machine['cpu']}, {machine['usable_cpus']} CPUs, {values['threads']} threads; {versions}; "
        f"load average {average(load['at_start'])} at the start and {average(load['at_end'])} at the end."
    )
    if load["problems"]:
        words += f" **Not a measurement**: {'; '.join(load['problems'])}."
    return f"<!-- needs: hours -->\n```sh\n{values['command']}\n```\n\n" + wrapped(words)


def average(value: float | None) -> str:
    """Return a load average."""
    return "unknown" if value is None else f"{value:.1f}"


def day(values: Values) -> str:
    """Return the date of a part, such as 26 November 2026."""
    date = datetime.fromisoformat(values["date"])
    return f"{date.day} {date:%B %Y}"


def speed_rows(values: Values) -> list[tuple[str, ...]]:
    """Return for each codec and shape the medians with their quartiles, RTF and xRT of both operations."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for entry in values["measurements"]:
        timing, speed = entry["timing"], entry["speed"]
        p50, p25, p75 = (number(1000 * timing[key]) for key in ("p50_s", "p25_s", "p75_s"))
        key = (entry["side"], clip(entry))
        cells = (f"{p50} ({p25} to {p75})", number(speed["rtf"]), number(speed["xrt"]))
        rows[key] = (*rows.get(key, ()), *cells)
    return [(*key, *cells) for key, cells in rows.items()]


def ratio_rows(values: Values) -> list[tuple[str, ...]]:
    """Return the ratio over each peer, with quartiles."""
    return [
        (
            entry["peer"],
            clip(entry),
            *(
                cell
                for operation in OPERATIONS
                for cell in (
                    f"{entry[f'{operation}_speedup']:.2f}x",
                    " to ".join(f"{value:.2f}" for value in entry[f"{operation}_quartiles"]),
                )
            ),
        )
        for entry in values["comparisons"]
    ] + [(failure["peer"], "not measured", "-", "-", "-", "-") for failure in values["peer_failures"]]


def fidelity_rows(values: Values) -> list[tuple[str, ...]]:
    """Return how close each codec is to float32."""
    return [
        (
            entry["side"],
            f"{entry['code_agreement']:.1%}",
            f"{entry['level0_agreement']:.1%}",
            "-" if entry["latents_snr_db"] is None else f"{entry['latents_snr_db']:.0f} dB",
            f"{entry['waveform_snr_db']:.0f} dB",
        )
        for entry in values["fidelity"]
    ]


def stream_words(values: Values) -> str:
    """Return the speed of streaming decode."""
    stream, whole = values["stream"], ratio_to_whole(values)
    push = stream["push"]
    return wrapped(
        f"Streaming decode in pushes of {number(1000 * stream['chunk_s'])} ms: RTF {number(stream['speed']['rtf'])}, "
        f"{whole:.2f} times the decode of the whole clip; push p50 {number(1000 * push['p50_s'])} ms, p99 "
        f"{number(1000 * push['p99_s'])} ms."
    )


def ratio_to_whole(values: Values) -> float:
    """Return the RTF of the stream over that of decoding the reference clip whole."""
    whole = next(
        entry["speed"]["rtf"]
        for entry in values["measurements"]
        if (entry["side"], entry["operation"], entry["batch"]) == (values["side"], "decode", 1)
        and entry["duration_s"] == values["reference_s"]
    )
    return float(values["stream"]["speed"]["rtf"] / whole)


def memory_words(values: Values) -> str:
    """Return the peak memory of each codec."""
    peaks: dict[str, list[str]] = {}
    for entry in values["memory"]:
        if entry["peak_rss_bytes"] is not None:
            peaks.setdefault(entry["side"], []).append(f"{entry['peak_rss_bytes'] / 2**20:,.0f}")
    words = "; ".join(f"{side} {' and '.join(found)} MiB" for side, found in peaks.items())
    return wrapped(f"Peak memory of a process that encodes and one that decodes {values['reference_s']:g} s: {words}.")


def start_rows(values: Values) -> list[tuple[str, ...]]:
    """Return the steps of a start, and their sums."""
    rows = [
        (step["name"], number(1000 * step["cpu_s"]), "-" if step["wall_s"] is None else number(1000 * step["wall_s"]))
        for step in values["steps"]
    ]
    sums = (
        (
            "**all to the first encode**",
            number(1000 * values["first_call_cpu_s"]),
            number(1000 * values["first_call_s"]),
        ),
        ("**to the first decode**", number(1000 * values["first_calls_cpu_s"]), "-"),
    )
    return [*rows, *sums]


def readme(results: Values) -> str:
    """Return the sentences of the README: ratios at 10 s, and the start."""
    full, words = results["full"], []
    for peer, name in (("torch-eager", "eager torch"), ("torch-bf16", "torch in bfloat16")):
        encode, decode = ratios(full, peer)
        words.append(f"{encode:.2f} and {decode:.2f} times as fast as {name}")
    cost = next((entry for entry in full["fidelity"] if entry["side"] == "torch-bf16"), None)
    paid = "" if cost is None else f" (which changes {1 - cost['code_agreement']:.0%} of the codes)"
    start = results["start-small"]
    unsure = [part for part in (full, start) if part["load"]["problems"]]
    busy = " The machine was busy, so this is **not a measurement**." if unsure else ""
    return wrapped(
        f"At full size in float32, clips of 10 s, {full['threads']} threads of an {full['machine']['cpu']}: encode and "
        f"decode are {' and '.join(words)}{paid}. The built-in codec's first encode is done after "
        f"{start['first_call_cpu_s']:.2f} s of CPU time, the start of Python included. [Measured]"
        f"(docs/measurements/speed-on-a-cpu.md) on {day(full)}.{busy}"
    )


def ratios(values: Values, peer: str, duration_s: float = 10.0) -> tuple[float, float]:
    """Return how many times as fast as a peer the codec encodes and decodes, at batch 1."""
    found = next(
        entry
        for entry in values["comparisons"]
        if (entry["peer"], entry["duration_s"], entry["batch"]) == (peer, duration_s, 1)
    )
    return found["encode_speedup"], found["decode_speedup"]


def clip(entry: Values) -> str:
    """Return the shape of a measurement."""
    return f"{entry['duration_s']:g} s" if entry["batch"] == 1 else f"{entry['batch']} x {entry['duration_s']:g} s"


def number(value: float) -> str:
    """Return a number with three significant digits or more, without an exponent."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:,.{decimals}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def wrapped(text: str, width: int = 130) -> str:
    """Return text in lines of at most `width` characters."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


if __name__ == "__main__":
    main()
