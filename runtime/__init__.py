"""The runtime: runs a bundle without torch. Start with `from dmcodec.runtime import Codec`."""

from dmcodec.bundle import default_bundle_path
from dmcodec.tokens import Tokens

from .codec import Codec
from .stream_decoder import DecoderState, StreamDecoder

__all__ = ["Codec", "DecoderState", "StreamDecoder", "Tokens", "default_bundle_path"]
