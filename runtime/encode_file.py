"""The encode of an audio file to tokens, and to a token file that grows meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmcodec.audio import Waveform, read_blocks
from dmcodec.streams import AudioSource
from dmcodec.token_file import Header, token_file_writer
from dmcodec.tokens import Tokens

from .encode_options import EncodeOptions
from .pipeline import Pipeline
from .resume import resumable


def encode_file(
    pipeline: Pipeline,
    path: AudioSource,
    out: str | Path | BinaryIO | None,
    n_q: int,
    options: EncodeOptions,
    channel: int | None,
    resume: bool,
) -> Tokens:
    """Encode an audio file; arguments and errors are those of `dmcodec.runtime.Codec.encode_file`."""
    manifest, backend = pipeline.graphs.bundle.manifest, pipeline.graphs.backend
    config, model_id = manifest.config, manifest.model_id
    header = Header(n_q, 0, config.codebook_size, config.hop_length, config.sample_rate, 0, model_id)
    num_samples, parts = 0, []

    def blocks() -> Iterator[Waveform]:
        nonlocal num_samples
        for block in read_blocks(path, config.sample_rate, options.meter.reading, channel):
            num_samples += len(block)
            yield block

    with (
        resumable(path, out, model_id, backend, channel=channel) if resume else nullcontext() as record,
        token_file_writer(out, header) if out is not None else nullcontext() as writer,
    ):
        for codes in pipeline.encode_blocks(blocks(), replace(options, record=record)):
            parts.append(codes[:n_q])
            if writer is not None:
                writer.write(parts[-1])
        if writer is not None:
            writer.finish(num_samples)
    return Tokens.from_codes(np.concatenate(parts, axis=1), config, num_samples, model_id)


def encode_blocks(pipeline: Pipeline, blocks: Iterable[Waveform], n_q: int, options: EncodeOptions) -> Tokens:
    """Encode a clip that arrives in blocks (samples,) float32 at the codec's rate."""
    manifest, num_samples = pipeline.graphs.bundle.manifest, 0

    def counted() -> Iterator[Waveform]:
        nonlocal num_samples
        for block in blocks:
            num_samples += len(block)
            yield block

    codes = np.concatenate([part[:n_q] for part in pipeline.encode_blocks(counted(), options)], axis=1)
    return Tokens.from_codes(codes, manifest.config, num_samples, manifest.model_id)
