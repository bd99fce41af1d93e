"""Parity and speed of every backend that can run here, in one JSON document."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.bench.run import engines_of
from dmcodec.benchmarks.codecs.interface import BUNDLE_PEERS, TENSORRT, runs_on_gpu
from dmcodec.benchmarks.machine import PACKAGES, describe_machine
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.files import write_bytes

from .findings import Examination, to_dicts
from .goals import judge
from .options import SIDES, GpuReportOptions
from .process import DMCODEC, run_json

FORMAT_VERSION = 1
NO_GPU = "no GPU that the driver sees"


def run_gpu_report(
    examination: Examination, options: GpuReportOptions, out: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Runs verify and bench for every bundle and side, each in a process, and writes the report after each step.

    Raises:
        BundleError: a bundle is missing or altered.
        OutputError: the report can't be written.
    """
    manifests = {path: Bundle.open(path).manifest for path in options.bundles}
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": options.command,
        "machine": dataclasses.asdict(describe_machine(PACKAGES)),
        "findings": to_dicts(examination.findings),
        "has_gpu": examination.has_gpu,
        "runs": [],
        "goals": [],
    }

    def save() -> None:
        benches = [run["bench"]["value"] for run in report["runs"] if run.get("bench") and run["bench"]["ok"]]
        report["goals"] = judge(benches)
        write_bytes(out, (json.dumps(report, indent=1) + "\n").encode())

    save()
    tell = progress or (lambda _stage, _done, _total: None)
    pairs = [(path, side) for path in options.bundles for side in options.sides or SIDES]
    for done, (path, side) in enumerate(pairs):
        manifest = manifests[path]
        run: dict[str, Any] = {"bundle": str(path), "model_id": manifest.model_id, "precision": manifest.precision}
        run |= {"side": side, "skipped": _skipped(examination, options)}
        report["runs"].append(run)
        if run["skipped"] is None:
            for name, command in _steps(path, side, examination.has_torch, options):
                tell(f"{manifest.precision} on {side}: {name}", done, len(pairs))
                run[name] = dataclasses.asdict(run_json([*DMCODEC, *command], options.timeout_s))
                save()
                if not run[name]["ok"] and run[name]["value"] is None:
                    break  # it can't run at all; the next step would say the same
        save()
    tell("done", len(pairs), len(pairs))
    return report


def _skipped(examination: Examination, options: GpuReportOptions) -> str | None:
    """Why nothing is tried: without a GPU only what was named is."""
    return None if examination.has_gpu or options.sides else NO_GPU


def _steps(path: Path, side: str, torch: bool, options: GpuReportOptions) -> list[tuple[str, list[str]]]:
    """The steps of one side: name and arguments of `dmcodec`."""
    backend, provider = BUNDLE_PEERS[side]
    chosen = ["--backend", backend, *(["--provider", provider] if provider else [])]
    weights = [*_option("--checkpoint", options.checkpoint), *_option("--config", options.config)]
    sweep = [f"--duration={seconds:g}" for seconds in options.durations_s]
    sweep += [f"--batch={batch}" for batch in options.batches]
    against = ["--against", "torch", *weights] if torch and runs_on_gpu(side) else []
    steps = [
        ("verify", ["verify", "--bundle", str(path), *chosen]),
        (
            "bench",
            ["bench", "--bundle", str(path), *chosen, *sweep, f"--rounds={options.rounds}", "--stream", *against],
        ),
    ]
    if side == TENSORRT and not engines_of(path):
        steps.insert(0, ("build", ["export", "--format", "trt", "--bundle", str(path)]))
    return [(name, [*command, "--json"]) for name, command in steps]


def _option(name: str, value: Path | None) -> list[str]:
    return [] if value is None else [name, str(value)]


def failures(report: dict[str, Any]) -> list[str]:
    """Why a report is not a success: nothing ran on a GPU, or what ran is wrong. In words."""
    gpu_runs = [run for run in report["runs"] if runs_on_gpu(run["side"])]
    found = []
    if not any(run.get("verify", {}).get("value") for run in gpu_runs):
        reasons = dict.fromkeys(_reason(run) for run in gpu_runs) or [NO_GPU]
        found.append(f"nothing ran on a GPU: {'; '.join(reasons)}")
    for run in report["runs"]:
        if run.get("verify", {}).get("value") and not run["verify"]["ok"]:
            found.append(f"{run['precision']} on {run['side']}: {run['verify']['reason']}")
    return found


def _reason(run: dict[str, Any]) -> str:
    if run["skipped"]:
        return str(run["skipped"])
    failed = next((run[name] for name in ("build", "verify", "bench") if name in run and not run[name]["ok"]), None)
    return f"{run['side']}: {failed['reason']}" if failed else f"{run['side']}: not run"
