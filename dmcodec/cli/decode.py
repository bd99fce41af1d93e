"""`dmcodec decode`: token files to speech files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.cli.common import (
    BackendOption,
    BundleOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    ThreadsOption,
    load_codec,
    speed,
)


def decode(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Token files (.dmc), globs or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="OUT.wav, or a folder for several inputs.")],
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = None,
    n_q: NqOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode token files (.dmc) to speech files (16-bit WAV or FLAC, or Ogg)."""
    from dmcodec.audio import output_format, write_audio
    from dmcodec.cli.batch import run_files
    from dmcodec.cli.encode import token_facts
    from dmcodec.cli.paths import plan
    from dmcodec.tokens import Tokens

    pairs = plan(inputs, output, ".wav", {".dmc"}, force)
    for _, target in pairs:
        output_format(target)
    codec = load_codec(bundle, backend, provider, threads)
    codec.load_graphs("dequantizer", "decoder")

    def work(source: Path, target: Path) -> dict[str, Any]:
        tokens = Tokens.load(source)
        start = time.perf_counter()
        waveform = codec.decode(tokens, n_q)
        compute_s = time.perf_counter() - start
        write_audio(target, waveform, codec.sample_rate)
        return {**token_facts(tokens.levels(n_q or tokens.n_q)), **speed(compute_s, tokens.duration_s)}

    run_files("decode", pairs, work, _describe, as_json)


def _describe(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['duration_s']:.2f} s, {result['n_q']} levels, "
        f"RTF {result['rtf']:.3f} (xRT {result['xrt']:.1f})"
    )
