"""The DM-Codec network in torch."""

from .model import DMCodec

__all__ = ["DMCodec"]
