"""Short training runs, in this process and in another."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import torch

from dmcodec.training.config import TrainingConfig
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.fit import fit
from dmcodec.training.loop import RunOptions
from dmcodec.training.metrics_log import read_lines
from dmcodec.training.run_folder import RunFolder

QUIET = RunOptions(checkpoint_every=2, validate_every=3, samples=1, tensorboard=False)


def train(data: Path, out: Path, config: TrainingConfig, *arguments: str) -> subprocess.Popen[str]:
    """`dmcodec train fit` as a process."""
    file = out.parent / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "dmcodec", "train", "fit", str(data), "-o", str(out), "--config", str(file)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=120)
    return output, errors


def same_run(first: Path, second: Path) -> None:
    """The same losses at every step, and the same weights at the end, bit by bit."""
    assert read_lines(first / "train.jsonl") == read_lines(second / "train.jsonl")
    assert read_lines(first / "validation.jsonl") == read_lines(second / "validation.jsonl")
    last = RunFolder(first).steps()[-1]
    one, other = RunFolder(first).load(last), RunFolder(second).load(last)
    assert all(torch.equal(one.codec[name], other.codec[name]) for name in one.codec)
    torch.testing.assert_close(dict(one.state), dict(other.state), rtol=0, atol=0)


def write_unbroken_run(data: PreparedData, config: TrainingConfig, out: Path) -> Path:
    """A run from its first step to its last."""
    fit(data, out, config, dataclasses.replace(QUIET, tensorboard=True))
    return out
