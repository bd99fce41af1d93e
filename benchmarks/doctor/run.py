"""The GPU report: verification and speed of each backend, in one JSON document."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.bench.run import describe_engines
from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS, HYBRID, TENSORRT, runs_on_gpu
from dmcodec.benchmarks.machine import PACKAGES, describe_machine, utc_now
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.bundle import Bundle
from dmcodec.files import write_bytes
from dmcodec.runtime.hybrid_backend import ENGINE_GRAPHS
from dmcodec.runtime.providers import BUILD_ENGINES

from .figures import publish
from .findings import to_dicts
from .options import BACKENDS, STREAMS, GpuReportOptions
from .probe import DMCODEC, run_json
from .result import FORMAT_VERSION, Examination, check_choices, check_goals

NO_GPU = "no GPU that the driver sees"


def run_gpu_report(
    examination: Examination, options: GpuReportOptions, out: Path, progress: Progress = no_progress
) -> dict[str, Any]:
    """Run verify and bench for each bundle and backend, each in a new process, and write the report after each step.

    Returns:
        The report, as written to `out`. Its key "side" is the name of a backend.

    Raises:
        BundleError: a bundle is missing or altered.
        OutputError: the report can't be written.
    """
    manifests = {path: Bundle.open(path).manifest for path in options.bundles}
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "date": utc_now(),
        "command": options.command,
        "machine": dataclasses.asdict(describe_machine(PACKAGES)),
        "findings": to_dicts(examination.findings),
        "has_gpu": examination.has_gpu,
        "runs": [],
        "goals": [],
        "choices": [],
    }

    def save() -> None:
        benches = [run["bench"]["value"] for run in report["runs"] if run.get("bench") and run["bench"]["ok"]]
        report["goals"], report["choices"] = check_goals(benches), check_choices(benches)
        write_bytes(out, (json.dumps(report, indent=1) + "\n").encode())

    save()
    pairs = [(path, backend) for path in options.bundles for backend in options.backends or BACKENDS]
    for done, (path, backend) in enumerate(pairs):
        manifest = manifests[path]
        run: dict[str, Any] = {"bundle": str(path), "model_id": manifest.model_id, "precision": manifest.precision}
        run |= {"side": backend, "skipped": _skip_reason(examination, options)}
        report["runs"].append(run)
        if run["skipped"] is None:
            for name, command in _steps(path, backend, examination.has_torch, options):
                progress(f"{manifest.precision} on {backend}: {name}", done, len(pairs))
                run[name] = dataclasses.asdict(run_json([*DMCODEC, *command], options.timeout_s))
                save()
                if not run[name]["ok"] and run[name]["value"] is None:
                    break  # the backend can't run; the next step would fail with the same reason
        save()
    progress("done", len(pairs), len(pairs))
    if options.publish is not None and ran_on_gpu(report):
        publish(report, options.publish)
    return report


def _skip_reason(examination: Examination, options: GpuReportOptions) -> str | None:
    """Return why a backend isn't run: without a GPU, only the backends that the options name are."""
    return None if examination.has_gpu or options.backends else NO_GPU


def _steps(path: Path, peer: str, torch: bool, options: GpuReportOptions) -> list[tuple[str, list[str]]]:
    """Return the steps of one backend: name and arguments of `dmcodec`."""
    backend, provider = BUNDLE_PEERS[peer]
    chosen = ["--backend", backend, *(["--provider", provider] if provider else [])]
    weights = [*_option("--checkpoint", options.checkpoint), *_option("--config", options.config)]
    sweep = [f"--duration={seconds:g}" for seconds in options.durations_s]
    sweep += [f"--batch={batch}" for batch in options.batches]
    against = ["--against", "torch", *weights] if torch and runs_on_gpu(peer) else []
    live = [f"--streams={STREAMS}"] if runs_on_gpu(peer) else []
    steps = [
        ("verify", ["verify", "--bundle", str(path), *chosen]),
        (
            "bench",
            [
                "bench",
                "--bundle",
                str(path),
                *chosen,
                *sweep,
                f"--rounds={options.rounds}",
                "--stream",
                *live,
                *against,
            ],
        ),
    ]
    building = ["export", "--format", "trt", "--bundle", str(path)]
    if peer == TENSORRT and not describe_engines(path):
        steps.insert(0, ("build", building))
    elif peer == HYBRID:  # those that are there are kept
        steps.insert(0, ("build", [*building, "--graphs", ",".join(ENGINE_GRAPHS)]))
    elif provider in BUILD_ENGINES:
        steps.insert(0, ("build", [*building, "--flavour", "onnxruntime"]))
    return [(name, [*command, "--json"]) for name, command in steps]


def _option(name: str, value: Path | None) -> list[str]:
    return [] if value is None else [name, str(value)]


def failures(report: dict[str, Any]) -> list[str]:
    """Return why a report is a failure, in words: nothing ran on a GPU, or a backend failed verification."""
    gpu_runs = [run for run in report["runs"] if runs_on_gpu(run["side"])]
    found = []
    if not ran_on_gpu(report):
        reasons = dict.fromkeys(_reason(run) for run in gpu_runs) or [NO_GPU]
        found.append(f"nothing ran on a GPU: {'; '.join(reasons)}")
    for run in report["runs"]:
        if run.get("verify", {}).get("value") and not run["verify"]["ok"]:
            found.append(f"{run['precision']} on {run['side']}: {run['verify']['reason']}")
    return found


def ran_on_gpu(report: dict[str, Any]) -> bool:
    """Return whether anything of a report ran on a GPU."""
    return any(run.get("verify", {}).get("value") for run in report["runs"] if runs_on_gpu(run["side"]))


def _reason(run: dict[str, Any]) -> str:
    if run["skipped"]:
        return str(run["skipped"])
    failed = next((run[name] for name in ("build", "verify", "bench") if name in run and not run[name]["ok"]), None)
    return f"{run['side']}: {failed['reason']}" if failed else f"{run['side']}: not run"
