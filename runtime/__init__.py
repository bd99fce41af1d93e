"""Runs a bundle without torch: `from dmcodec.runtime import Codec`."""

from dmcodec.bundle import default_bundle_path
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.stream_decoder import DecoderState, StreamDecoder
from dmcodec.tokens import Tokens

__all__ = ["Codec", "DecoderState", "StreamDecoder", "Tokens", "default_bundle_path"]
