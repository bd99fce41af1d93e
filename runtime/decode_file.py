"""The decode of tokens to an audio file, which grows meanwhile."""

from __future__ import annotations

from dmcodec.audio import audio_writer
from dmcodec.streams import AudioTarget
from dmcodec.tokens import Tokens

from .encode_options import Progress
from .pipeline import Pipeline


def decode_file(
    pipeline: Pipeline, tokens: Tokens, path: AudioTarget, progress: Progress | None, audio_format: str | None
) -> None:
    """Decode tokens; arguments and errors are those of `dmcodec.runtime.Codec.decode_file`."""
    done, sample_rate = 0, tokens.sample_rate
    with audio_writer(path, sample_rate, audio_format, tokens.num_samples) as write:
        for block in pipeline.decode_blocks(tokens):
            write(block)
            done += len(block)
            if progress:
                progress(done / sample_rate, tokens.duration_s)
