"""The plain form of graphs: for clips that fill the batch, without what places padding at each clip's own end.

`encoder`, `decoder` and `encoder_downsampler` take the length of each clip of a batch. Their plain forms, graphs of a
bundle as well, take none: all clips are as long as the tensor. Bundles of an earlier dmcodec don't have them.
"""

from __future__ import annotations

from functools import lru_cache

from .bundle import DOWNSAMPLER
from .config import KERNEL_SIZE, CodecConfig
from .convolutions import ConvPadding

# Graph -> its input whose last axis is time.
HAVE_PLAIN_FORMS = {"encoder": "waveform", "decoder": "latents", DOWNSAMPLER: "waveform"}
_MOST_FRAMES = 10_000


def plain_name(graph: str) -> str:
    """Return the name of a graph's plain form."""
    return f"{graph}_plain"


@lru_cache(maxsize=64)
def least_plain_frames(config: CodecConfig, graph: str) -> int:
    """Return from how many frames on the plain form of a graph holds.

    A reflection needs more samples than it adds, at each convolution. `graph` is a name of HAVE_PLAIN_FORMS, or
    "decoder_upsampler", which has the plain form only, where one frame is enough.
    """
    holds = _decoder_holds if graph.startswith("decoder") else _encoder_holds
    whole = graph in ("encoder", "decoder")
    return next(frames for frames in range(1, _MOST_FRAMES) if holds(config, frames, whole))


def least_plain_size(config: CodecConfig, graph: str) -> int:
    """Return the least size of the last axis of the graph's input of HAVE_PLAIN_FORMS: in frames, or in samples."""
    frames = least_plain_frames(config, graph)
    return frames if graph == "decoder" else (frames - 1) * config.hop_length + 1


def _encoder_holds(config: CodecConfig, frames: int, whole: bool) -> bool:
    """Return whether all paddings of the encoder, or of its layers before the LSTM, fit clips of so many frames."""
    size = (frames - 1) * config.hop_length + 1  # of the shortest
    ends = config.padding(KERNEL_SIZE)
    fits = _fits(size, ends)
    for stride in reversed(config.strides):
        fits = fits and _residual_blocks_fit(config, size) and _fits(size, config.padding(2 * stride, stride))
        size = -(-size // stride)
    return fits and (not whole or _fits(size, ends))


def _decoder_holds(config: CodecConfig, frames: int, whole: bool) -> bool:
    """Return whether all paddings of the decoder, or of its layers after the LSTM, fit so many frames."""
    ends = config.padding(KERNEL_SIZE)
    fits, size = not whole or _fits(frames, ends), frames
    for stride in config.strides:
        size *= stride
        fits = fits and _residual_blocks_fit(config, size)
    return fits and _fits(size, ends)


def _residual_blocks_fit(config: CodecConfig, size: int) -> bool:
    return all(
        _fits(size, config.padding(config.residual_kernel_size, dilation=config.dilation_base**layer))
        for layer in range(config.n_residual_layers)
    )


def _fits(size: int, padding: ConvPadding) -> bool:
    """Return whether a signal has more samples than its padding on either side."""
    return size > max(padding.left, padding.most_right)
