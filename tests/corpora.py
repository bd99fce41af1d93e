"""Corpora of short clips, and what is read back of their tokens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from dmcodec.runtime import Codec
from dmcodec.runtime.corpus.engines.engine import CodecOptions
from dmcodec.runtime.corpus.engines.local import LocalEngine
from dmcodec.runtime.corpus.run import TokenizeOptions, tokenize
from dmcodec.runtime.corpus.sources.find import find_corpus
from dmcodec.runtime.corpus.summary import Summary
from dmcodec.sample import speech
from dmcodec.tokens import Tokens


def write_clip(path: Path, seconds: float, rate: int = 16000, start: float = 0.0) -> Path:
    """Write speech to a WAV file, from `start` seconds of the sample on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = speech(round((start + seconds) * rate), rate)[round(start * rate) :]
    with path.open("wb") as file:
        soundfile.write(file, samples, rate, format="WAV")
    return path


def write_corpus(folder: Path, count: int = 20, seed: int = 0) -> Path:
    """Write clips of 0.05 to 1.2 s at three sample rates, in two folders."""
    random = np.random.default_rng(seed)
    for index, seconds in enumerate(random.uniform(0.05, 1.2, count)):
        name = folder / ("a" if index % 2 else "b/deep") / f"{index:03}.wav"
        write_clip(name, float(seconds), (16000, 8000, 22050)[index % 3], float(random.uniform(0, 3)))
    return folder


def run(corpus: Path | list[Path], out: Path, workers: int = 1, **options: Any) -> Summary:
    """Tokenize with the local engine; shards hold 2 s unless `shard_s` says otherwise."""
    inputs = [str(each) for each in (corpus if isinstance(corpus, list) else [corpus])]
    chosen = TokenizeOptions(**{"shard_s": 2.0, **options})
    return tokenize(find_corpus(inputs), out, CodecOptions(), LocalEngine(workers), chosen)


def table(out: Path) -> pa.Table:
    """All rows, in order."""
    return pa.concat_tables(pq.read_table(path) for path in sorted((out / "tokens").glob("*.parquet")))


def contents(out: Path) -> dict[str, bytes]:
    """Every file of an output by its name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def reasons(out: Path) -> dict[str, str]:
    """Id and reason of each failure."""
    failures = pq.read_table(out / "failures.parquet").to_pylist()
    return {each["id"]: each["reason"] for each in failures}


def manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a manifest of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class _Dying(Codec):
    def encode_prepared(self, prepared: Sequence[Any], *arguments: Any, **options: Any) -> list[Tokens]:
        if round(DyingCodec.DEADLY_S * self.sample_rate) in map(len, prepared):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_prepared(prepared, *arguments, **options)


class DyingCodec(CodecOptions):
    """Loads a codec that kills its process when it gets a clip of DEADLY_S seconds."""

    DEADLY_S = 0.75

    def load(self) -> Codec:
        codec = super().load()
        return _Dying(codec.bundle, codec.backend)


class UnloadableCodec(CodecOptions):
    """Kills the process that loads it."""

    def load(self) -> Codec:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().load()
