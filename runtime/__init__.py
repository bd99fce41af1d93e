"""The runtime: runs a bundle without torch. Start with `from dmcodec.runtime import Codec`."""

from dmcodec.bundle import default_bundle_path
from dmcodec.layouts import TokenLayout
from dmcodec.runtime.pool.stream_pool import StreamPool
from dmcodec.runtime.pool.streams import PooledDecoder, PooledEncoder
from dmcodec.tokens import Tokens

from .codec import Codec
from .device_codec import DeviceCodec
from .encoder_steps import EncoderState
from .stream_decoder import DecoderState, StreamDecoder
from .stream_encoder import StreamEncoder

__all__ = [
    "Codec",
    "DecoderState",
    "DeviceCodec",
    "EncoderState",
    "PooledDecoder",
    "PooledEncoder",
    "StreamDecoder",
    "StreamEncoder",
    "StreamPool",
    "TokenLayout",
    "Tokens",
    "default_bundle_path",
]
