"""Ways of running clips: each kind of case of the conformance suite is one small function.

A way yields, for each clip that it ran, the codes or the audio that came out. To add a way, write a function and name
it in WAYS; a case of that kind in scripts/make_conformance.py runs it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.bundle import open_bundle
from dmcodec.errors import ConformanceError
from dmcodec.runtime.batching import stack
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.stream_decoder import StreamDecoder
from dmcodec.tokens import Tokens

from .conformance_suite import Case, Suite
from .encoder_blocks import latents_in_blocks
from .options import VerifyOptions

_JUNK_SEED = 7


@dataclasses.dataclass(frozen=True)
class Ran:
    """What came out for one clip: `codes` [n, frames] of encoding, or `audio` [samples] of decoding.

    `detail` says which of the case's values it was.
    """

    clip: str
    detail: str
    codes: NDArray[Any] | None = None
    audio: NDArray[np.float32] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What the ways run: the codec, the clips' samples at its rate, and the codes that are decoded."""

    codec: Codec
    suite: Suite
    options: VerifyOptions
    waveforms: Mapping[str, NDArray[np.float32]]
    codes: Mapping[str, NDArray[np.int64]]

    def encode(self, codec: Codec, clips: Sequence[str], n_q: int | None = None) -> list[NDArray[Any]]:
        """Encode clips in one call; return codes [n, frames] of each."""
        batch = codec.encode_batch([self.waveforms[name] for name in clips], codec.sample_rate, n_q)
        return [tokens.codes for tokens in batch]

    def tokens(self, clip: str) -> Tokens:
        """Return the codes of a clip as tokens of its length."""
        return Tokens.from_codes(self.codes[clip], self.codec.config, len(self.waveforms[clip]))

    def opened(self, threads: int | None = None) -> Codec:
        """Open the bundle once more, with other threads."""
        options = self.options
        bundle, cache, threads = self.codec.bundle.path, options.engine_cache, threads or options.threads
        return open_bundle(bundle, options.backend, options.provider, threads, cache, options.device_id)


def _alone(setting: Setting, case: Case) -> Iterator[Ran]:
    """Each clip in a call of its own."""
    for name in case.clips:
        yield Ran(name, "alone", setting.encode(setting.codec, [name])[0])


def _batch(setting: Setting, case: Case) -> Iterator[Ran]:
    """All clips in one call, in this order and company."""
    codes = setting.encode(setting.codec, case.clips)
    for place, (name, found) in enumerate(zip(case.clips, codes, strict=True)):
        yield Ran(name, f"place {place} of {len(case.clips)}", found)


def _padding(setting: Setting, case: Case) -> Iterator[Ran]:
    """All clips in one call of the graphs, with so many samples more behind the longest: zeros, then noise."""
    rng = np.random.default_rng(_JUNK_SEED)
    for extra, junk in itertools.product(case.values, (False, True)):
        batch, lengths = stack([setting.waveforms[name][None] for name in case.clips])
        batch = np.pad(batch, ((0, 0), (0, 0), (0, extra))).astype(np.float32)
        if junk:
            behind = np.arange(batch.shape[-1]) >= lengths[:, None, None]
            batch = np.where(behind, rng.normal(0, 0.3, batch.shape), batch).astype(np.float32)
        latents = setting.codec.run_graph("encoder", waveform=batch, lengths=lengths)
        codes = setting.codec.run_graph("quantizer", latents=latents)
        for row, name in enumerate(case.clips):
            frames = setting.codec.config.num_frames(int(lengths[row]))
            yield Ran(name, f"{extra} samples of {'noise' if junk else 'zeros'} more", codes[:, row, :frames])


def _file(setting: Setting, case: Case) -> Iterator[Ran]:
    """Each clip from its file, read in pieces."""
    for name in case.clips:
        yield Ran(name, "encode_file", setting.codec.encode_file(setting.suite.folder / _audio(setting, name)).codes)


def _levels(setting: Setting, case: Case) -> Iterator[Ran]:
    """Each clip with only the first levels."""
    for levels in (value for value in case.values if value <= setting.codec.n_q):
        for name, codes in zip(case.clips, setting.encode(setting.codec, case.clips, levels), strict=True):
            yield Ran(name, f"n_q {levels}", codes)


def _threads(setting: Setting, case: Case) -> Iterator[Ran]:
    """All clips in one call, with other numbers of threads."""
    for threads in case.values:
        codec = setting.opened(threads)
        for name, codes in zip(case.clips, setting.encode(codec, case.clips), strict=True):
            yield Ran(name, f"{threads} threads", codes)


def _processes(setting: Setting, case: Case) -> Iterator[Ran]:
    """The clips in several processes at the same time, each of which opens the bundle."""
    options = setting.options
    request = {
        "bundle": str(setting.codec.bundle.path),
        "backend": options.backend,
        "provider": options.provider,
        "threads": options.threads,
        "engine_cache": str(options.engine_cache) if options.engine_cache else None,
        "device_id": options.device_id,
        "files": [str(setting.suite.folder / _audio(setting, name)) for name in case.clips],
    }
    code = f"from {__name__} import main; main()"
    command = [sys.executable, "-P", "-c", code, json.dumps(request)]
    for count in case.values:
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for index, worker in enumerate(workers):
            out, errors = worker.communicate()
            if worker.returncode:
                said = (errors.strip() or f"exit status {worker.returncode}").splitlines()[-1]
                raise ConformanceError(f"{case.name}: a process failed ({said}); run again")
            for name, codes in zip(case.clips, json.loads(out), strict=True):
                yield Ran(name, f"process {index + 1} of {count}", np.array(codes, np.int64))


def main() -> None:
    """Encode the files that the JSON object in the only argument names, and print their codes as JSON."""
    request = json.loads(sys.argv[1])
    cache = Path(request["engine_cache"]) if request["engine_cache"] else None
    backend, provider, threads = request["backend"], request["provider"], request["threads"]
    codec = open_bundle(request["bundle"], backend, provider, threads, cache, request["device_id"])
    json.dump([codec.encode_file(path).codes.tolist() for path in request["files"]], sys.stdout)


def _blocks(setting: Setting, case: Case) -> Iterator[Ran]:
    """Each clip through the encoder in parts, in tiles and blocks of so many frames."""
    for frames, name in itertools.product(case.values, case.clips):
        latents = latents_in_blocks(setting.codec, setting.waveforms[name], frames)
        codes = setting.codec.run_graph("quantizer", latents=latents)
        yield Ran(name, f"blocks of {frames} frames", codes[:, 0])


def _decode_alone(setting: Setting, case: Case) -> Iterator[Ran]:
    """Decode each clip in a call of its own."""
    for name in case.clips:
        yield Ran(name, "alone", audio=setting.codec.decode(setting.tokens(name)))


def _decode_batch(setting: Setting, case: Case) -> Iterator[Ran]:
    """Decode all clips in one call."""
    audio = setting.codec.decode_batch([setting.tokens(name) for name in case.clips])
    for place, (name, found) in enumerate(zip(case.clips, audio, strict=True)):
        yield Ran(name, f"place {place} of {len(case.clips)}", audio=found)


def _decode_chunks(setting: Setting, case: Case) -> Iterator[Ran]:
    """Decode each clip as a stream, in pushes of these numbers of frames in turn."""
    for name in case.clips:
        with setting.codec.stream_decoder() as stream:
            audio = [stream.push(chunk) for chunk in _cut(setting.codes[name], case.values)]
            audio.append(stream.finish())
        yield Ran(name, f"pushes of {_listed(case.values)} frames", audio=_joined(setting, name, audio))


def _decode_streams(setting: Setting, case: Case) -> Iterator[Ran]:
    """Decode so many streams of each clip at the same time, with pushes in turn and of other sizes for each."""
    for count, name in itertools.product(case.values, case.clips):
        streams: list[StreamDecoder] = [setting.codec.stream_decoder() for _ in range(count)]
        pushes = [_cut(setting.codes[name], (index + 1,)) for index in range(count)]
        audio: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        for chunks in itertools.zip_longest(*pushes):
            for index, chunk in enumerate(chunks):
                if chunk is not None:
                    audio[index].append(streams[index].push(chunk))
        for index, stream in enumerate(streams):
            audio[index].append(stream.finish())
            yield Ran(name, f"stream {index + 1} of {count}", audio=_joined(setting, name, audio[index]))


def _cut(codes: NDArray[np.int64], sizes: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= codes.shape[1]:
            return
        yield codes[:, start : start + size]
        start += size


def _joined(setting: Setting, clip: str, audio: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(list(audio))[: len(setting.waveforms[clip])]


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _audio(setting: Setting, clip: str) -> str:
    return setting.suite.clips[clip].audio


def _on_cpu(setting: Setting) -> str | None:
    backend = setting.codec.backend
    return None if (backend.name, backend.provider) == ("onnxruntime", "cpu") else "for ONNX Runtime on the CPU"


def _in_parts(setting: Setting) -> str | None:
    if setting.options.backend != "onnxruntime":
        return "no engines of the encoder in parts"
    has = setting.codec.bundle.manifest.has_encoder_parts
    return None if has else "this bundle has no encoder in parts; export it again with --bundle"


def _always(_setting: Setting) -> str | None:
    return None


@dataclasses.dataclass(frozen=True)
class Way:
    """How a kind of case runs, and the reason why it doesn't apply to a codec, or None."""

    run: Callable[[Setting, Case], Iterator[Ran]]
    skipped: Callable[[Setting], str | None] = _always


WAYS: Mapping[str, Way] = {
    "alone": Way(_alone),
    "batch": Way(_batch),
    "padding": Way(_padding),
    "file": Way(_file),
    "levels": Way(_levels),
    "threads": Way(_threads, _on_cpu),
    "processes": Way(_processes),
    "blocks": Way(_blocks, _in_parts),
    "decode alone": Way(_decode_alone),
    "decode batch": Way(_decode_batch),
    "decode chunks": Way(_decode_chunks),
    "decode streams": Way(_decode_streams),
}


def way_of(case: Case) -> Way:
    """Return how a case runs.

    Raises:
        ConformanceError: its kind is not known.
    """
    if case.kind not in WAYS:
        raise ConformanceError(f"case {case.name!r}: kind {case.kind!r} is not known; update dmcodec")
    return WAYS[case.kind]
