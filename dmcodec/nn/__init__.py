"""The DM-Codec network in torch."""

from dmcodec.nn.model import DMCodec

__all__ = ["DMCodec"]
