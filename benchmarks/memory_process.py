"""The process that `dmcodec.benchmarks.memory` starts: loads one side, runs one operation, writes its peak memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.benchmarks.sides import DECODE_GRAPHS, ENCODE_GRAPHS, BundleSide, Side, sample_batch
from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig

RUNS = 3
_STATUS = Path("/proc/self/status")


def peak_rss_bytes() -> int | None:
    """Peak resident memory of this process; None on systems that don't tell."""
    if _STATUS.is_file():
        # Not getrusage: on Linux its ru_maxrss of a started process begins at the peak of the one that started it.
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def main() -> None:
    """Does what the JSON object in the only argument says."""
    request = json.loads(sys.argv[1])
    if request["torch"]:
        from dmcodec.benchmarks.torch_peer import torch_threads

        with torch_threads(request["threads"]):
            _run(*_torch_side(request), request)
    else:
        _run(*_bundle_side(request), request)
    sys.stdout.write(json.dumps({"peak_rss_bytes": peak_rss_bytes()}))


def _torch_side(request: dict[str, Any]) -> tuple[Side, CodecConfig]:
    from dmcodec.benchmarks.torch_peer import EagerSide, load_model

    manifest = Bundle.open(request["bundle"]).manifest
    checkpoint, config = (Path(request[name]) if request[name] else None for name in ("checkpoint", "config"))
    return EagerSide(load_model(manifest, checkpoint, config)), manifest.config


def _bundle_side(request: dict[str, Any]) -> tuple[Side, CodecConfig]:
    from dmcodec.runtime.codec import Codec

    codec = Codec.load(request["bundle"], request["backend"], request["provider"], request["threads"])
    side = BundleSide(codec)
    codec.load_graphs(*(ENCODE_GRAPHS if request["operation"] == "encode" else DECODE_GRAPHS))
    return side, codec.config


def _run(side: Side, config: CodecConfig, request: dict[str, Any]) -> None:
    waveforms = sample_batch(config, request["duration_s"], 1)
    if request["operation"] == "encode":
        for _ in range(RUNS):
            side.encode(waveforms)
        return
    frames = config.num_frames(waveforms.shape[2])
    codes = np.random.default_rng(0).integers(config.codebook_size, size=(config.n_q, 1, frames))
    for _ in range(RUNS):
        side.decode(codes)


if __name__ == "__main__":
    main()
