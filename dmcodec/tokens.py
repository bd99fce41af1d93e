"""Tokens: the codes of one clip with all that decoding them needs."""

from __future__ import annotations

import dataclasses
import operator
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dmcodec.layouts import TokenLayout

from .codes import Codes, checked_codes, is_whole
from .config import MAX_CODEBOOK_SIZE, MAX_N_Q, CodecConfig, bits_per_code
from .errors import ArgumentError, TokensError, TokensWarning
from .token_file import Header, token_file_reader, token_file_writer

__all__ = ["TokenLayout", "Tokens"]

# The ranges of a token file.
_RANGES = {
    "num_samples": (0, 2**64 - 1),
    "sample_rate": (1, 2**32 - 1),
    "hop_length": (1, 2**32 - 1),
    "codebook_size": (2, MAX_CODEBOOK_SIZE),
    "first_level": (0, MAX_N_Q - 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Codes of one clip.

    Attributes:
        codes: (n_q, frames) uint16, read-only; row 0 is the first quantizer level. Any integer array is accepted and
            copied.
        num_samples: true length of the clip in samples at `sample_rate`; frames = ceil(num_samples / hop_length).
        sample_rate: of the codec, in Hz (not of the file that the clip was read from).
        hop_length: samples per frame.
        codebook_size: entries per codebook; codes are below it.
        model_id: 16 hex digits that identify the weights that made the codes, or "" if unknown.
        first_level: quantizer level of row 0; 0 unless lower levels were dropped.

    Raises:
        TokensError: codes that are not 2-D integers in range, or a length that does not fit them.
    """

    codes: Codes
    num_samples: int
    sample_rate: int
    hop_length: int
    codebook_size: int
    model_id: str = ""
    first_level: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            object.__setattr__(self, name, _checked_integer(name, getattr(self, name), low, high))
        codes = checked_codes(self.codes, self.codebook_size)
        if self.first_level + len(codes) > MAX_N_Q:
            raise TokensError(f"tokens: levels {self.first_level} to {self.first_level + len(codes) - 1} are over 255")
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)
        expected = -(-self.num_samples // self.hop_length)
        if codes.shape[1] != expected:
            hint = "; transpose (frames, n_q) with .T" if codes.shape[0] == expected else ""
            raise TokensError(
                f"tokens: {self.num_samples} samples at {self.hop_length} a frame make {expected} frames, "
                f"but codes have {codes.shape[1]}{hint}"
            )
        if self.model_id and not _is_model_id(self.model_id):
            raise TokensError(f"tokens: model_id must be 16 hex digits or empty, not {self.model_id!r}")

    def __repr__(self) -> str:
        last = self.first_level + self.n_q - 1
        levels = f"levels {self.first_level} to {last}, " if self.first_level else ""
        return (
            f"Tokens({self.n_q} x {self.num_frames} codes of {self.codebook_size}, {levels}"
            f"{self.duration_s:.2f} s at {self.sample_rate} Hz, model {self.model_id or 'unknown'})"
        )

    @classmethod
    def from_codes(
        cls, codes: Any, config: CodecConfig, num_samples: int | None = None, model_id: str = "", first_level: int = 0
    ) -> Tokens:
        """Make tokens of codes (n_q, frames), of a language model for example.

        Args:
            codes: row 0 is quantizer level `first_level`.
            config: of the codec.
            num_samples: true length; without it the clip has whole frames.
            model_id: as for the class.
            first_level: as for the class.

        Raises:
            TokensError: as the class does, or more levels than the codec has.
        """
        array = checked_codes(codes, config.codebook_size)
        if len(array) > config.n_q:
            hint = "; transpose (frames, n_q) with .T" if array.shape[1] <= config.n_q else ""
            raise TokensError(f"codes: {len(array)} levels, but this codec has {config.n_q} levels{hint}")
        if num_samples is None:
            num_samples = array.shape[1] * config.hop_length
        return cls(
            array, num_samples, config.sample_rate, config.hop_length, config.codebook_size, model_id, first_level
        )

    @classmethod
    def from_ids(
        cls, ids: Any, layout: TokenLayout, num_samples: int | None = None, *, lenient: bool = False
    ) -> Tokens:
        """Make tokens of ids, of a language model for example: the inverse of `layout.ids(tokens)`.

        Args:
            ids: one sequence, (length,) or (n_q, steps) by the layout; an array, a list or a torch tensor.
            layout: of the ids; its model id is that of the tokens.
            num_samples: true length; without it the clip has whole frames.
            lenient: drop ids that don't fit, rather than raise; see `TokenLayout.parse`.

        Raises:
            TokensError: ids that are no legal sequence, and where.

        Warns:
            TokensWarning: ids that were dropped, the first of them and how many.
        """
        parsed = layout.parse(ids, lenient=lenient)
        if np.ndim(parsed.lengths):
            raise TokensError("ids: are a batch; make Tokens of one sequence, for example of ids[0]")
        if parsed.dropped:
            count = sum(each.count for each in parsed.dropped)
            warnings.warn(f"ids: dropped {count}; {parsed.dropped[0]}", TokensWarning, stacklevel=2)
        if num_samples is None:
            num_samples = parsed.lengths * layout.hop_length
        return cls(
            parsed.codes, num_samples, layout.sample_rate, layout.hop_length, layout.codebook_size, layout.model_id,
            layout.first_level,
        )  # fmt: skip

    @property
    def n_q(self) -> int:
        """Number of quantizer levels."""
        return self.codes.shape[0]

    @property
    def num_frames(self) -> int:
        """Number of latent frames."""
        return self.codes.shape[1]

    @property
    def duration_s(self) -> float:
        """True length in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def semantic(self) -> Codes:
        """Level 0, the semantic level: (frames,) uint16; TokensError if it was dropped."""
        if self.first_level:
            raise TokensError(f"tokens: level 0 was dropped, they start at level {self.first_level}")
        return self.codes[0]

    @property
    def acoustic(self) -> Codes:
        """All levels but level 0: (n_q - 1, frames) uint16, or (n_q, frames) if level 0 was dropped."""
        return self.codes[max(0, 1 - self.first_level) :]

    @property
    def bitrate_bps(self) -> float:
        """Bits per second of the packed codes."""
        return self.sample_rate / self.hop_length * self.n_q * bits_per_code(self.codebook_size)

    @property
    def file_bytes(self) -> int:
        """Bytes of the token file that `save` writes."""
        return self._header().file_bytes

    def levels(self, n_q: int | None = None, skip: int = 0) -> Tokens:
        """Return the same clip with `n_q` levels (all by default) from row `skip` on, or TokensError."""
        if not is_whole(skip) or not 0 <= skip < self.n_q:
            raise TokensError(f"tokens: skip must be 0 to {self.n_q - 1}, not {skip!r}")
        if n_q is not None and (not is_whole(n_q) or not 1 <= n_q <= self.n_q - skip):
            raise TokensError(f"tokens: n_q must be 1 to {self.n_q - skip}, not {n_q!r}")
        kept = self.codes[skip : None if n_q is None else skip + n_q]
        return dataclasses.replace(self, codes=kept, first_level=self.first_level + skip)

    def frames(self, start: int = 0, stop: int | None = None) -> Tokens:
        """Return frames `start` to `stop` as a clip; the numbers are those of a slice of a sequence.

        The last frame of a clip can be incomplete. It is incomplete in the result as well, if that holds it.
        """
        if not is_whole(start) or not (stop is None or is_whole(stop)):
            raise TokensError(f"tokens: frames are whole numbers, not {start!r} and {stop!r}")
        start, stop, _ = slice(start, stop).indices(self.num_frames)
        stop = max(start, stop)
        num_samples = max(0, min(self.num_samples, stop * self.hop_length) - start * self.hop_length)
        return dataclasses.replace(self, codes=self.codes[:, start:stop], num_samples=num_samples)

    @classmethod
    def join(cls, parts: Iterable[Tokens]) -> Tokens:
        """Join several clips to one, in order.

        Raises:
            TokensError: no parts, parts of different models or levels, or an incomplete frame at the end of a part that
                is not the last.
        """
        if not isinstance(parts, Iterable):
            raise TokensError(f"tokens: join takes a list of Tokens, not {type(parts).__name__}")
        parts = list(parts)
        if not parts:
            raise TokensError("tokens: nothing to join")
        for part in parts:
            if not isinstance(part, Tokens):
                raise TokensError(f"tokens: join takes Tokens, not {type(part).__name__}")
        for index, part in enumerate(parts):
            if part._kind() != parts[0]._kind():
                raise TokensError(f"tokens: part {index} has another model, configuration or levels than part 0")
            if index < len(parts) - 1 and part.num_samples % part.hop_length:
                raise TokensError(f"tokens: part {index} ends within a frame; only the last part may")
        codes = np.concatenate([part.codes for part in parts], axis=1)
        return dataclasses.replace(parts[0], codes=codes, num_samples=sum(part.num_samples for part in parts))

    def _kind(self) -> dict[str, Any]:
        return {**vars(self), "codes": self.n_q, "num_samples": None}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        mine, others = ({**vars(tokens), "codes": None} for tokens in (self, other))
        return mine == others and np.array_equal(self.codes, other.codes)

    __hash__ = None  # type: ignore[assignment]

    def save(self, path: str | Path | BinaryIO) -> None:
        """Write a token file (docs/reference/token-file.md), whole or not at all.

        Args:
            path: the file, or a binary file object (it need not seek).

        Raises:
            OutputError: the file can't be written.
        """
        with token_file_writer(path, self._header()) as writer:
            writer.write(self.codes)
            writer.finish(self.num_samples)

    def _header(self) -> Header:
        return Header(
            self.n_q, self.first_level, self.codebook_size, self.hop_length, self.sample_rate, self.num_samples,
            self.model_id,
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path | BinaryIO) -> Tokens:
        """Read a token file.

        Args:
            path: the file (also a pipe), or a binary file object, which is read from its position to its end.

        Raises:
            TokenFileNotFoundError: no such file.
            TokenFileError: not a token file, truncated, altered, or of a newer version.
        """
        with token_file_reader(path) as reader:
            return cls._of_file(reader.header, reader.read_all(), reader.header.num_samples)

    @classmethod
    def load_frames(cls, path: str | Path, start: int, stop: int) -> Tokens:
        """Read frames `start` to `stop` (exclusive, at most the end of the clip), without reading the rest.

        The codes' checksum is not compared: it covers the whole file.

        Raises:
            ArgumentError: the clip holds none of these frames.
            TokenFileError: as `load`.
        """
        with token_file_reader(path) as reader:
            header = reader.header
            stop = min(stop, header.num_frames)
            if not 0 <= start < stop:
                raise ArgumentError(f"{path}: frames {start} to {stop} are not within its {header.num_frames} frames")
            num_samples = min(header.num_samples, stop * header.hop_length) - start * header.hop_length
            return cls._of_file(header, reader.read_frames(start, stop), num_samples)

    @classmethod
    def _of_file(cls, header: Header, codes: Codes, num_samples: int) -> Tokens:
        return cls(
            codes, num_samples, header.sample_rate, header.hop_length, header.codebook_size, header.model_id,
            header.first_level,
        )  # fmt: skip


def _checked_integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TokensError(f"tokens: {name} must be an integer, not {value!r}") from None
    if not low <= number <= high:
        raise TokensError(f"tokens: {name} must be {low} to {high}, not {number}")
    return number


def _is_model_id(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 16 and set(text) <= set("0123456789abcdef")
