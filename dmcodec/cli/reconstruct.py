"""`dmcodec reconstruct`: speech to tokens and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    BackendOption,
    BundleOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    RunProviderOption,
    ThreadsOption,
    load_codec,
    print_json,
    speed,
)


def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Audio file to write (.wav, .flac, .ogg).")],
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: RunProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    n_q: NqOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode a speech file and decode it again; prints the bitrate and the real-time factors."""
    from dmcodec.audio import output_format
    from dmcodec.files import refuse_existing

    from .encode import token_facts

    output_format(output)
    refuse_existing(output, force)
    codec = load_codec(bundle, backend, provider, threads, engine_cache)
    codec.load_graphs("encoder", "quantizer", "dequantizer", "decoder")
    times = [time.perf_counter()]
    tokens = codec.encode_file(source, n_q=n_q)
    times.append(time.perf_counter())
    codec.decode_file(tokens, output)
    times.append(time.perf_counter())

    facts = token_facts(tokens)
    encode_speed = speed(times[1] - times[0], tokens.duration_s)
    decode_speed = speed(times[2] - times[1], tokens.duration_s)
    if as_json:
        paths = {"input": str(source), "output": str(output)}
        print_json({**paths, **facts, "encode": encode_speed, "decode": decode_speed})
        return
    typer.echo(
        f"{output}: {facts['duration_s']:.2f} s through {facts['frames']} frames x {facts['n_q']} levels, "
        f"{facts['bitrate_bps'] / 1000:g} kbit/s"
    )
    for name, figures in (("encode", encode_speed), ("decode", decode_speed)):
        typer.echo(f"{name}: {figures['compute_s']:.3f} s, RTF {figures['rtf']:.3f} (xRT {figures['xrt']:.1f})")
