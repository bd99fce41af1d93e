"""Checks of what a codec is asked to decode: the model and the levels of tokens."""

from __future__ import annotations

from dmcodec.bundle import Manifest
from dmcodec.codes import is_whole
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, TokensError
from dmcodec.token_file import Header
from dmcodec.tokens import Tokens


def checked_n_q(n_q: int | None, config: CodecConfig) -> int:
    """Return the number of levels to keep, by default all; ArgumentError if the codec doesn't have them."""
    if n_q is None:
        return config.n_q
    if not is_whole(n_q) or not 1 <= n_q <= config.n_q:
        raise ArgumentError(f"n_q must be 1 to {config.n_q}, not {n_q!r}")
    return int(n_q)


def check_origin(tokens: Tokens | Header, manifest: Manifest) -> None:
    """Raise TokensError if `tokens` are of another model or configuration than the codec's."""
    config, model_id = manifest.config, manifest.model_id
    for name in ("sample_rate", "hop_length", "codebook_size"):
        if getattr(tokens, name) != getattr(config, name):
            raise TokensError(
                f"tokens: {name} is {getattr(tokens, name)}, this codec's is {getattr(config, name)}; "
                "decode them with the model that made them"
            )
    if tokens.model_id not in ("", model_id):
        raise TokensError(
            f"tokens: made by model {tokens.model_id}, this bundle holds model {model_id}; "
            "decode them with the model that made them"
        )
    if tokens.first_level + tokens.n_q > config.n_q:
        last = tokens.first_level + tokens.n_q - 1
        raise TokensError(f"tokens: levels {tokens.first_level} to {last}, this codec has {config.n_q} levels")


def checked_tokens(tokens: Tokens, manifest: Manifest, n_q: int | None) -> Tokens:
    """Return the levels of `tokens` to decode.

    Raises:
        TokensError: no Tokens, of another model or configuration, or without frames.
        ArgumentError: n_q is more than the tokens have.
    """
    if not isinstance(tokens, Tokens):
        raise TokensError(
            f"expected Tokens, got {type(tokens).__name__}; make them of codes with "
            "Tokens.from_codes(codes, codec.config), of a file with Tokens.load(path)"
        )
    check_origin(tokens, manifest)
    if n_q is not None and (not is_whole(n_q) or not 1 <= n_q <= tokens.n_q):
        raise ArgumentError(f"n_q must be 1 to {tokens.n_q} (the levels of these tokens), not {n_q!r}")
    if tokens.num_frames == 0:
        raise TokensError("tokens: no frames to decode")
    return tokens.levels(n_q)
