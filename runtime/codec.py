"""The codec that applications embed: waveforms to tokens, and tokens to waveforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.bundle import DOWNSAMPLER_STEPS, Bundle, encoder_part_names
from dmcodec.codes import Codes
from dmcodec.runtime.pool.stream_pool import StreamPool
from dmcodec.streams import AudioSource, AudioTarget
from dmcodec.token_file import Header
from dmcodec.tokens import Tokens

from .backend import Backend, Graphs
from .batching import listed
from .codec_properties import CodecProperties
from .decode_file import decode_file
from .device_codec import DeviceCodec, prepared_clips
from .encode_file import encode_blocks, encode_file
from .encode_options import EncodeOptions, Progress, encode_options
from .loading import open_codec
from .pipeline import Pipeline
from .stream_decoder import StreamDecoder, warm_up_stream
from .stream_encoder import StreamEncoder, check_live_encoding
from .token_checks import check_origin, checked_n_q, checked_tokens


class Codec(CodecProperties):
    """Encodes waveforms to tokens and decodes tokens to waveforms. Safe to use from several threads.

    Graphs are loaded when they are first needed (`load_graphs` and `warm_up` load them earlier). On the CPU, several
    batches run concurrently with one thread each, on a second copy of the graphs that is loaded then.

    Close it, or use it in a `with` block, to free its memory at once. Otherwise it is freed when nothing refers to the
    codec any more.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        super().__init__(bundle, backend)
        self._pipeline = Pipeline(bundle, backend)

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        backend: str = "onnxruntime",
        provider: str | None = None,
        threads: int | None = None,
        engine_cache: str | Path | None = None,
        shrink_memory: bool = False,
        device_id: int | None = None,
        recurrent: str | None = None,
    ) -> Codec:
        """Open a bundle, check that it is complete and unaltered, and prepare a backend.

        Args:
            bundle: folder that `dmcodec export` wrote; or the name of a codec that was pulled (`dmcodec pull`), or
                "small", the codec that comes with dmcodec and is the default; or "hf://ORG/REPO[@REVISION]", a bundle
                on the Hugging Face hub, which is fetched once. A path that exists wins over a name.
            backend: "onnxruntime", or "tensorrt" for the engines that `dmcodec export --format trt` built.
            provider: of onnxruntime: "cpu" (the default), "cuda", "tensorrt" or "nv-tensorrt-rtx". One that can't run
                is an error: nothing falls back.
            threads: CPU threads of onnxruntime for one run; by default one for each CPU that this process may use, by
                affinity, quota and OMP_NUM_THREADS, and one for streams.
            engine_cache: folder of the engines of TensorRT; by default a folder in the bundle.
            shrink_memory: of onnxruntime on the CPU: give the memory of each run back to the system, so that one long
                clip does not raise the memory of the process for good. Runs take longer.
            device_id: number of the GPU among those that the process sees; 0 by default. Not for provider cpu.
            recurrent: of tensorrt: "onnxruntime-cuda" runs the LSTMs in ONNX Runtime's CUDA provider.

        Raises:
            BundleError: missing, incomplete, altered, from a newer dmcodec, not pulled yet, or no such name.
            DownloadError: the hub can't be reached, refuses, or has no such repository or revision.
            ProviderError: the provider is not available.
            GpuError: no GPU, or a driver that is too old.
            EngineError: no engine for this bundle, GPU and version of TensorRT.
            MissingDependencyError: the backend isn't installed.
        """
        return cls(*open_codec(bundle, backend, provider, threads, engine_cache, shrink_memory, device_id, recurrent))

    def close(self) -> None:
        """Free the graphs and all memory on a GPU, after the calls that run. Later calls raise BackendError.

        Results on the device (`Codec.device`) keep their own memory.
        """
        self._pipeline.close()

    def __enter__(self) -> Codec:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle bundle and backend by what opens them; the process that unpickles loads its own graphs."""
        return type(self), (self.bundle, self.backend)

    def __repr__(self) -> str:
        manifest, config = self.bundle.manifest, self.config
        name = self.bundle.path.absolute().name.removesuffix(".bundle")
        return (
            f"Codec({name} {manifest.model_id}, {manifest.precision}, {self.backend.name} {self.backend.provider}, "
            f"{config.sample_rate} Hz, {config.frame_rate:g} frames/s, {config.n_q} x {config.codebook_size} codes)"
        )

    @property
    def graphs(self) -> Graphs:
        """The loaded graphs."""
        return self._pipeline.graphs

    @property
    def device(self) -> DeviceCodec:
        """Encodes and decodes arrays where the codec runs: on TensorRT, in GPU memory without a copy."""
        return DeviceCodec(self)

    def encode(
        self,
        waveform: Any,
        sample_rate: int,
        n_q: int | None = None,
        context_s: float | None = None,
        channel: int | None = None,
        *,
        spool: str | Path | None = None,
        stream: Any = None,
    ) -> Tokens:
        """Encode a waveform.

        Args:
            waveform: (samples,) or (channels, samples), float32, float64 in [-1, 1] or int16; an array of any library
                with DLPack, or a list. With backend tensorrt it may lie on the codec's GPU; see `Codec.device`.
            sample_rate: of `waveform` in Hz; resampled to the codec's if it differs.
            n_q: quantizer levels to keep, 1 to `self.n_q`; all by default.
            context_s: encode a clip longer than 30 s in windows with this context in seconds, an approximation; by
                default it is encoded exactly, or where `encodes_exactly` is false, with `self.context_s`.
            channel: the channel to encode, from 0 on; None averages them.
            spool: where exact encoding keeps features: "memory", a folder for temporary files, or None: in memory up
                to 256 MiB, else in the system's folder for temporary files. 16 bytes a frame for each channel of the
                LSTM: 205 kB a second of audio with the built-in codec, 819 kB at full size.
            stream: of backend tensorrt: the CUDA stream, or its handle, that makes a waveform on the GPU; by default
                the default stream.

        Returns:
            Tokens with codes (n_q, ceil(samples / hop_length)) and the true number of samples at the codec's rate.

        Raises:
            AudioError: another shape or dtype, empty, NaN, or no such channel.
            ArgumentError: n_q, context_s or channel out of range, or no such spool folder.
            OutputError: no room for the spool.

        Warns:
            AudioWarning: channels that cancel where they are averaged, or values far beyond 1.
        """
        return self.encode_batch([waveform], sample_rate, n_q, context_s, channel, spool=spool, stream=stream)[0]

    def encode_batch(
        self,
        waveforms: Sequence[Any],
        sample_rate: int,
        n_q: int | None = None,
        context_s: float | None = None,
        channel: int | None = None,
        *,
        spool: str | Path | None = None,
        stream: Any = None,
    ) -> list[Tokens]:
        """Encode waveforms of any lengths; return one Tokens each, in order, as `encode` returns for each alone.

        Clips of similar length run as one batch. The graph receives the length of each clip, so that neither the
        padding after it nor the other clips change its codes. Arguments and errors are those of `encode`. Waveforms
        that lie on the codec's GPU run one by one.
        """
        levels, device = checked_n_q(n_q, self.config), self.device
        clips = prepared_clips(device, waveforms, sample_rate, channel, stream)
        on_host = [clip for clip in clips if isinstance(clip, np.ndarray)]
        tokens = iter(self.encode_prepared(on_host, n_q, context_s, spool))
        return [
            next(tokens)
            if isinstance(clip, np.ndarray)
            else self._tokens(device.host_codes(clip)[:levels], clip.shape[-1])
            for clip in clips
        ]

    def encode_prepared(
        self,
        prepared: Sequence[Waveform],
        n_q: int | None = None,
        context_s: float | None = None,
        spool: str | Path | None = None,
        tiles: bool = True,
    ) -> list[Tokens]:
        """Encode what `read_blocks` made, unchecked; without `tiles`, a clip of up to 30 s runs whole, also alone."""
        n_q, options = checked_n_q(n_q, self.config), self._encode_options(context_s, spool)
        all_codes = self._pipeline.encode(prepared, dataclasses.replace(options, tiles=tiles))
        return [self._tokens(codes[:n_q], len(item)) for codes, item in zip(all_codes, prepared, strict=True)]

    def encode_blocks(
        self, blocks: Iterable[Waveform], n_q: int | None = None, spool: str | Path | None = None
    ) -> Tokens:
        """Encode a clip that arrives in blocks (samples,), float32 at the codec's rate, as `encode_file` does."""
        return encode_blocks(self._pipeline, blocks, checked_n_q(n_q, self.config), self._encode_options(None, spool))

    def decode(self, tokens: Tokens, n_q: int | None = None) -> Waveform:
        """Decode tokens to a waveform (tokens.num_samples,) float32 at the codec's sample rate.

        Args:
            tokens: made by this codec's model, or without a model id. They may start at a higher level
                (`first_level`).
            n_q: use only the first levels of the tokens; all by default.

        Raises:
            TokensError: another model or configuration, levels that the codec doesn't have, or no frames.
            ArgumentError: n_q is more than the tokens have.
        """
        return self.decode_batch([tokens], n_q)[0]

    def decode_batch(self, batch: Sequence[Tokens], n_q: int | None = None) -> list[Waveform]:
        """Decode tokens of any lengths; return one waveform each, in order, as `decode` returns for each alone."""
        return self._pipeline.decode(
            [checked_tokens(tokens, self.bundle.manifest, n_q) for tokens in listed(batch, "Tokens")]
        )

    def encode_file(
        self,
        path: AudioSource,
        out: AudioTarget | None = None,
        n_q: int | None = None,
        context_s: float | None = None,
        progress: Progress | None = None,
        channel: int | None = None,
        *,
        spool: str | Path | None = None,
        resume: bool = False,
    ) -> Tokens:
        """Encode an audio file of any length, sample rate and number of channels, without holding all its samples.

        Args:
            path: the audio file: its path (also that of a pipe), or a binary file object, which is read from its
                position on.
            out: token file to write during encoding; it appears when it is complete, and after an error nothing is
                left. A binary file object gets all bytes at the end.
            n_q: as for `encode`.
            context_s: likewise.
            channel: likewise.
            spool: likewise.
            progress: called with the seconds that are done, and the seconds in total.
            resume: keep the progress in the folder `out`.spool until the tokens are complete, and go on from there
                after an interruption. The spool is a quarter larger.

        Raises:
            AudioFileNotFoundError: no such file.
            AudioError: not audio, empty, cut short, NaN, no such channel, or changed while it was read.
            AudioDependencyError: a format that needs the extra `media`.
            OutputError: `out` can't be written, there is no room for the spool, or `out`.spool belongs to the encode
                of another file, model or version.
        """
        options = self._encode_options(context_s, spool, resume, progress)
        return encode_file(self._pipeline, path, out, checked_n_q(n_q, self.config), options, channel, resume)

    def decode_file(
        self,
        tokens: Tokens | AudioSource,
        path: AudioTarget,
        n_q: int | None = None,
        progress: Progress | None = None,
        format: str | None = None,
    ) -> None:
        """Decode tokens, or a token file, of any length to an audio file (16-bit WAV or FLAC, or Ogg).

        Args:
            tokens: as for `decode`, or the path of a token file, or a binary file object with one.
            path: the audio file; it appears when it is complete. Or a binary file object: one that can't seek (a pipe)
                gets WAV while it is decoded, all else is written at the end.
            n_q: as for `decode`.
            progress: called with the seconds that are done, and the seconds in total.
            format: "wav", "flac" or "ogg"; by default the suffix says it, and for a file object without one "wav".

        Raises:
            TokenFileError: no token file.
            TokensError, ArgumentError: as for `decode`.
            OutputError: the file can't be written, or has a suffix that isn't known.
        """
        if not isinstance(tokens, Tokens):
            tokens = Tokens.load(tokens)
        selected = checked_tokens(tokens, self.bundle.manifest, n_q)
        decode_file(self._pipeline, selected, path, progress, format)

    def stream_decoder(
        self, n_q: int | None = None, first_level: int = 0, batch_size: int | None = None
    ) -> StreamDecoder:
        """Return a stream that decodes codes while they arrive; see `dmcodec.runtime.StreamDecoder`.

        Args:
            n_q: levels of the codes of each push; all from `first_level` on by default.
            first_level: quantizer level of their first row.
            batch_size: clips that are decoded in parallel; None for one clip without a batch axis.

        Raises:
            ArgumentError: levels that the codec doesn't have, or a batch size below 1.
        """
        return self._pipeline.stream_decoder(n_q, first_level, batch_size)

    def stream_encoder(
        self,
        look_ahead_s: float | None = None,
        sample_rate: int | None = None,
        n_q: int | None = None,
        batch_size: int | None = None,
        step_s: float | None = None,
    ) -> StreamEncoder:
        """Return a stream that encodes samples while they arrive; see `dmcodec.runtime.StreamEncoder`.

        Its graphs are loaded now.

        Args:
            look_ahead_s: seconds of future that the encoder reads, rounded up to frames; `self.look_ahead_s` by
                default.
            sample_rate: of the samples, in Hz; the codec's by default.
            n_q: quantizer levels to return, from level 0 on; all by default.
            batch_size: clips that are encoded in parallel; None for one clip without a batch axis.
            step_s: seconds that are encoded at a time; by default 0.1, but at least 0.4 of the look-ahead. Longer
                steps cost less and delay more.

        Raises:
            ArgumentError: an argument out of range, or backend tensorrt, which has no engines for it.
            BundleError: the bundle lacks the graphs; an earlier dmcodec exported it.
        """
        check_live_encoding(self.bundle, self.backend.name)
        graphs = self._pipeline.stream_graphs
        graphs.load(*encoder_part_names(self.config), "quantizer")  # else the first pushes would come late
        look_ahead_s = self.look_ahead_s if look_ahead_s is None else look_ahead_s
        columns = graphs.state_size(DOWNSAMPLER_STEPS)
        return StreamEncoder(graphs.arrays, self.config, look_ahead_s, sample_rate, n_q, batch_size, step_s, columns)

    def stream_pool(self, max_streams: int = 64, max_wait_ms: float = 10.0) -> StreamPool:
        """Return a pool for many live streams; arguments and errors are those of `dmcodec.runtime.StreamPool`."""
        pipeline = self._pipeline
        return StreamPool(self, pipeline.pooled_encoding, pipeline.concurrent, max_streams, max_wait_ms)

    def latents(self, waveform: Any, sample_rate: int) -> NDArray[np.float32]:
        """Return the latents of a waveform before quantization, (dimension, frames) float32. They run in one piece.

        Raises:
            AudioError: as for `encode`, or longer than 120 s.
        """
        return np.asarray(self.device.latents(waveform, sample_rate))

    def load_graphs(self, *names: str) -> None:
        """Load the named graphs (all by default) now, and not when they are first needed."""
        self._pipeline.load(*names)

    def load_encoder(self, context_s: float | None = None) -> None:
        """Load the graphs that `encode_file` needs with this `context_s` now, and not when they are first needed."""
        self._pipeline.load_encoder(self._encode_options(context_s))

    def warm_up(self, duration_s: float = 1.0, streams: bool = False) -> None:
        """Load the graphs of `encode` and `decode` and run them, so that the first real call is fast.

        With backend tensorrt they run on each CUDA stream that one call uses: for clips of this length, contexts,
        memory and captured graphs are there then.

        Args:
            duration_s: of the clips to come, in seconds.
            streams: also run a stream decoder, by pushes of a frame and of 100 ms.
        """
        self.load_encoder()
        self._pipeline.load_decoder()
        silence = np.zeros(max(1, round(duration_s * self.sample_rate)), np.float32)
        for _ in self._pipeline.each_stream():
            self.decode(self.encode(silence, self.sample_rate))
            if streams:
                warm_up_stream(self.stream_decoder())

    def run_graph(self, name: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Run one graph of the bundle on arrays; return its first output. The manifest has the names and shapes."""
        return self.graphs.arrays(name, **inputs)[0]

    def runs_whole(self, num_samples: int) -> bool:
        """Return whether a clip of `num_samples` runs in one piece, and not in windows or as a stream."""
        return self._pipeline.runs_whole(num_samples)

    def check_origin(self, tokens: Tokens | Header) -> None:
        """Raise TokensError if `tokens` are of another model or configuration than this codec's."""
        check_origin(tokens, self.bundle.manifest)

    def _tokens(self, codes: Codes, num_samples: int) -> Tokens:
        return Tokens.from_codes(codes, self.config, num_samples, self.bundle.manifest.model_id)

    def _encode_options(self, context_s: float | None, *others: Any) -> EncodeOptions:
        return encode_options(self.bundle.manifest, self.backend, context_s, *others)
