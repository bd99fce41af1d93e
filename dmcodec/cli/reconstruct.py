"""`dmcodec reconstruct`: speech to tokens and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    BackendOption,
    BundleOption,
    ChannelOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    ThreadsOption,
    load_codec,
    print_json,
    speed,
)


def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Audio file to write (.wav, .flac or .ogg).", metavar="OUT.wav")
    ],
    n_q: NqOption = None,
    channel: ChannelOption = None,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode a speech file and decode it; print bitrate and speed."""
    from dmcodec.audio import output_format
    from dmcodec.files import refuse_existing

    from .encode import describe_tokens
    from .files import file_progress
    from .progress import show_progress

    output_format(out)
    refuse_existing(out, force)
    codec = load_codec(bundle, backend, provider, threads, engine_cache)
    codec.load_graphs("encoder", "quantizer", "dequantizer", "decoder")
    with show_progress() as report:
        times = [time.perf_counter()]
        tokens = codec.encode_file(source, n_q=n_q, progress=file_progress(report, "encode, seconds"), channel=channel)
        times.append(time.perf_counter())
        codec.decode_file(tokens, out, progress=file_progress(report, "decode, seconds"))
        times.append(time.perf_counter())

    facts = describe_tokens(tokens)
    encode_speed = speed(times[1] - times[0], tokens.duration_s)
    decode_speed = speed(times[2] - times[1], tokens.duration_s)
    if as_json:
        paths = {"input": str(source), "output": str(out)}
        print_json({**paths, **facts, "encode": encode_speed, "decode": decode_speed})
        return
    typer.echo(
        f"{out}: {facts['duration_s']:.2f} s through {facts['frames']} frames x {facts['n_q']} levels, "
        f"{facts['bitrate_bps'] / 1000:g} kbit/s"
    )
    for name, values in (("encode", encode_speed), ("decode", decode_speed)):
        typer.echo(f"{name}: {values['compute_s']:.3f} s, RTF {values['rtf']:.3f} (xRT {values['xrt']:.1f})")
