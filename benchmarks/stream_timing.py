"""Streaming decode: how long a push takes, and when the first audio is there."""

from __future__ import annotations

import time

import numpy as np

from dmcodec.benchmarks.options import BenchOptions
from dmcodec.benchmarks.results import StreamResult
from dmcodec.benchmarks.sides import BundleSide
from dmcodec.benchmarks.statistics import Speed, Timing
from dmcodec.benchmarks.timing import Progress, timed


def measure_stream(side: BundleSide, options: BenchOptions, progress: Progress) -> StreamResult:
    """Decodes the reference clip's length of random codes as a stream, `rounds` times after one to warm up.

    Pushes follow each other at once; what waiting for tokens adds is told apart as `tokens_needed_s`.
    """
    codec, config = side.codec, side.codec.config
    frames = max(options.chunk_frames, round(options.reference_s * config.frame_rate))
    codes = np.random.default_rng(0).integers(config.codebook_size, size=(config.n_q, frames))
    pushes_s: list[float] = []
    first_audio_s: list[float] = []
    total_s: list[float] = []
    for done in range(options.rounds + 1):
        progress("stream", done, options.rounds + 1)
        start, first_s = time.perf_counter(), None
        with codec.stream_decoder() as stream:
            for place in range(0, frames, options.chunk_frames):
                push_s, audio = timed(stream.push, codes[:, place : place + options.chunk_frames])
                if first_s is None and audio.size:
                    first_s = time.perf_counter() - start
                if done:
                    pushes_s.append(push_s)
            stream.finish()
        if done:
            total_s.append(time.perf_counter() - start)
            first_audio_s.append(time.perf_counter() - start if first_s is None else first_s)
    progress("stream", options.rounds + 1, options.rounds + 1)
    look_ahead = codec.decoder_reach.look_ahead_frames
    chunks_needed = -(-(look_ahead + 1) // options.chunk_frames)
    return StreamResult(
        chunk_s=options.chunk_frames / config.frame_rate,
        look_ahead_s=look_ahead / config.frame_rate,
        tokens_needed_s=chunks_needed * options.chunk_frames / config.frame_rate,
        first_audio_compute_s=float(np.median(first_audio_s)),
        push=Timing.of(pushes_s),
        speed=Speed.of(float(np.median(total_s)), frames / config.frame_rate),
    )
