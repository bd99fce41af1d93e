"""TokenLayout: from the codes of clips to the ids of a language model, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import Codes, checked_codes, codes_array, is_whole
from dmcodec.config import MAX_N_Q
from dmcodec.errors import ArgumentError, InputNotFoundError, TokensError, detail
from dmcodec.files import write_bytes
from dmcodec.text_files import read_text

from .arrays import checked_axes, clips_of, id_array, like, rows_of, stacked
from .parsing import Dropped, ParsedIds, parse_delayed, parse_flat
from .sequences import cut, delayed_sequence, flat_sequence, joined, sequence_arrays
from .vocabulary import Vocabulary, numbered

PATTERNS = ("frame", "level", "delay", "semantic")
FORMAT_VERSION = 1
_CODE_FIELDS = ("codebook_size", "n_q", "level_offsets", "first_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenLayout(Vocabulary):
    """How the codes of a codec become the ids of a language model, and ids become codes again.

    A sequence is [bos] codes [eos]; those of a batch are filled up with pad. Patterns of its codes:

    - "frame": frame by frame, within a frame level by level; ids (length,)
    - "level": level by level, each with all its frames; ids (length,)
    - "delay": parallel levels, level k shifted by delays[k] steps (arXiv 2306.05284); ids (n_q, steps). Each row is
      [bos], delays[k] times pad, codes, [eos], and pad up to the same length.
    - "semantic": level 0 only; ids (length,)

    The object serializes to JSON, with the id of the model that its codes are of.

    Attributes:
        pattern: as above.
        delays: steps by which each level is shifted, the smallest 0; (0, 1, 2, ...) by default, and None where the
            pattern is not "delay". (0, 0, 0, ...) makes parallel levels without a delay.
        sample_rate: of the codec, in Hz.
        hop_length: of the codec, samples per frame.
        model_id: 16 hex digits of the weights that the codes are of, or "" if unknown. Tokens of another model are
            refused.
        first_level: quantizer level of row 0.

    Raises:
        ArgumentError: values out of range, or that don't go together.
    """

    sample_rate: int
    hop_length: int
    pattern: str = "frame"
    delays: tuple[int, ...] | None = None
    model_id: str = ""
    first_level: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern not in PATTERNS:
            raise ArgumentError(f"layout: pattern must be one of {', '.join(PATTERNS)}, not {self.pattern!r}")
        self._set_whole("sample_rate", 1, 2**32 - 1)
        self._set_whole("hop_length", 1, 2**32 - 1)
        self._set_whole("first_level", 0, MAX_N_Q - self.n_q)
        if self.pattern == "semantic" and (self.n_q, self.first_level) != (1, 0):
            raise ArgumentError("layout: pattern 'semantic' has level 0 only: n_q must be 1 and first_level 0")
        if (
            not isinstance(self.model_id, str)
            or self.model_id.strip("0123456789abcdef")
            or len(self.model_id) not in (0, 16)
        ):
            raise ArgumentError(f"layout: model_id must be 16 hex digits or empty, not {self.model_id!r}")
        object.__setattr__(self, "delays", self._checked_delays())

    def _checked_delays(self) -> tuple[int, ...] | None:
        if self.pattern != "delay":
            if self.delays is not None:
                raise ArgumentError(f"layout: delays belong to the pattern 'delay', not to {self.pattern!r}")
            return None
        delays = tuple(range(self.n_q)) if self.delays is None else self.delays
        listed = isinstance(delays, (list, tuple, np.ndarray)) and all(is_whole(steps) for steps in delays)
        if not listed or len(delays) != self.n_q or min(delays) != 0 or max(delays) > 1 << 20:
            raise ArgumentError(
                f"layout: delays must be {self.n_q} whole numbers, one for each level, the smallest 0, not {delays!r}"
            )
        if max(delays) and self.pad_id is None:
            raise ArgumentError("layout: a delay pattern needs a pad_id")
        return tuple(int(steps) for steps in delays)

    @classmethod
    def of(
        cls,
        codec: Any,
        pattern: str = "frame",
        specials: Iterable[str] | Mapping[str, int] = ("bos", "eos", "pad"),
        **fields: Any,
    ) -> TokenLayout:
        """Make the layout of a codec, or of tokens like these.

        Args:
            codec: a `Codec`, the manifest of its bundle, `Tokens`, or the settings in the metadata of a corpus in
                Parquet files.
            pattern: as for the class.
            specials: names of the special tokens, which get the ids after those of the codes, in this order; or a
                mapping of names to ids. Names are bos, eos, pad and sep.
            fields: other fields of the class. By default n_q is that of the codec (1 for "semantic"), and levels have
                ids of their own, but for "delay", where each level has an embedding of its own.

        Raises:
            ArgumentError: as the class does.
        """
        values = _facts(codec)
        values |= {"level_offsets": pattern != "delay"} | ({"n_q": 1} if pattern == "semantic" else {}) | fields
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ArgumentError(f"layout: no field {unknown[0]!r}; fields are {', '.join(sorted(known))}")
        codes = Vocabulary(**{name: values[name] for name in _CODE_FIELDS if name in values})
        return cls(pattern=pattern, **{**numbered(specials, codes.vocab_size), **values})

    @property
    def parallel(self) -> bool:
        """Whether the ids of a clip are (n_q, steps), not (length,)."""
        return self.pattern == "delay"

    def num_ids(self, num_frames: Any, bos: bool = True, eos: bool = True) -> Any:
        """Return the ids of a sequence of so many frames (steps, for parallel levels); an array for an array."""
        extra = (bos and self.bos_id is not None) + (eos and self.eos_id is not None)
        return num_frames + max(self.delays) + extra if self.delays else num_frames * self.n_q + extra

    def ids(self, codes: Any, lengths: Any = None, *, axes: str = "BKT", bos: bool = True, eos: bool = True) -> Any:
        """Return the ids of one clip, or of a batch.

        Args:
            codes: `Tokens`; or codes (n_q, frames), or a batch of them with `axes`: an array, or a torch tensor of any
                device (the work is done on the CPU). Of "semantic", codes may have more levels: row 0 is taken.
            lengths: (B,) frames of the clips of a batch, where they are not all its frames.
            axes: of a batch of codes, and of a batch of ids (n_q, steps): "BKT" or "KBT".
            bos: False leaves it out.
            eos: False leaves it out, for a prompt for example.

        Returns:
            int64, a tensor on the same device for a tensor: (length,), or (B, length); for the pattern "delay"
            (n_q, steps), or (B, n_q, steps) or (n_q, B, steps). Shorter clips are filled up with pad at the end;
            `num_ids(lengths)` are their lengths.

        Raises:
            TokensError: codes of another shape, range, model or levels, or clips of different lengths without a pad_id.
        """
        checked_axes(axes)
        if hasattr(codes, "model_id") and hasattr(codes, "codes"):
            self._check_tokens(codes)
            codes = codes.codes
        array = codes_array(codes)
        if array.ndim == 3:
            levels = None if self.pattern == "semantic" else self.n_q
            sequences = [self._sequence(clip, bos, eos) for clip in clips_of(array, levels, axes, lengths)]
            return like(codes, self.pad(sequences, axes=axes)[0])
        if lengths is not None:
            raise TokensError("codes: lengths belong to a batch; cut one clip with codes[:, :length]")
        return like(codes, self._sequence(array, bos, eos))

    def _sequence(self, codes: NDArray[Any], bos: bool, eos: bool) -> NDArray[np.int64]:
        rows = checked_codes(codes, self.codebook_size)
        rows = rows[:1] if self.pattern == "semantic" else rows
        if len(rows) != self.n_q:
            hint = f"; take the first with codes[:{self.n_q}]" if len(rows) > self.n_q else ""
            hint = "; transpose (frames, n_q) with .T" if rows.shape[1] == self.n_q else hint
            raise TokensError(f"codes: {len(rows)} levels, but the layout has {self.n_q}{hint}")
        if self.delays is None:
            return flat_sequence(rows, self, self.pattern == "level", bos, eos)
        return delayed_sequence(rows, self, self.delays, bos, eos)

    def _arrays(self, sequences: Sequence[Any]) -> list[NDArray[np.int64]]:
        return sequence_arrays(sequences, self.n_q if self.parallel else None)

    def pad(self, sequences: Sequence[Any], *, axes: str = "BKT") -> tuple[Any, Any]:
        """Stack sequences of ids of different lengths to a batch, filled up with pad at the end.

        Returns:
            ids (B, length), or for parallel levels as `axes` says; and the lengths (B,). Tensors for tensors.

        Raises:
            TokensError: no sequences, or different lengths without a pad_id.
        """
        checked_axes(axes)
        arrays = self._arrays(sequences)
        lengths = np.array([array.shape[-1] for array in arrays])
        if self.pad_id is None and len(set(lengths.tolist())) > 1:
            raise TokensError("ids: clips of different lengths need a pad_id in the layout")
        padded = stacked(arrays, self.pad_id or 0, axes)
        return like(sequences[0], padded), like(sequences[0], lengths)

    def codes(self, ids: Any, lengths: Any = None, *, axes: str = "BKT") -> Any:
        """Return the codes of ids, the inverse of `ids`: of one sequence, or of a batch of clips of equal length.

        Returns:
            (n_q, frames) uint16, or a batch with `axes`; an int64 tensor on the same device for a tensor.

        Raises:
            TokensError: ids that are no legal sequence, and where; or clips of different lengths (`parse` takes them).
        """
        parsed = self.parse(ids, lengths, axes=axes)
        if np.ndim(parsed.lengths) and len(set(parsed.lengths.tolist())) > 1:
            raise TokensError("ids: the clips have different lengths; parse(ids) returns codes and lengths")
        return parsed.codes

    def parse(self, ids: Any, lengths: Any = None, *, axes: str = "BKT", lenient: bool = False) -> ParsedIds:
        """Return the codes of ids that may be no legal sequences: of one sequence, or of a batch.

        A legal sequence is that of `ids`, with or without bos and eos, and with any pad before and behind it.

        Args:
            ids: (length,) or (B, length); for the pattern "delay" (n_q, steps), or a batch with `axes`.
            lengths: (B,) ids of the sequences of a batch; what is behind them is not looked at.
            axes: of the batch of codes that is returned, and of ids (n_q, steps).
            lenient: drop ids that don't fit, rather than raise: whole frames are kept, by the levels of their ids, or
                without level offsets by their places.

        Raises:
            TokensError: ids that are no legal sequence, and where; or that nobody can tell the levels of.
        """
        checked_axes(axes)
        array = id_array(ids)
        if array.ndim == 1 + self.parallel:
            if lengths is not None:
                raise TokensError("ids: lengths belong to a batch; cut one sequence with ids[..., :length]")
            codes, dropped = self._parse(array, lenient, "ids")
            return ParsedIds(like(ids, codes), codes.shape[1], tuple(dropped))
        clips, all_dropped = [], []
        for index, row in enumerate(rows_of(array, self.parallel, axes, lengths)):
            codes, dropped = self._parse(row, lenient, f"ids: clip {index}")
            clips.append(codes)
            all_dropped += [dataclasses.replace(each, clip=index) for each in dropped]
        frames = np.array([codes.shape[1] for codes in clips])
        return ParsedIds(like(ids, stacked(clips, 0, axes)), like(ids, frames), tuple(all_dropped))

    def _parse(self, ids: NDArray[np.int64], lenient: bool, where: str) -> tuple[Codes, list[Dropped]]:
        if self.delays is None:
            return parse_flat(ids, self, self.pattern == "level", lenient, where)
        if len(ids) != self.n_q:
            raise TokensError(f"{where}: {len(ids)} levels, but the layout has {self.n_q}; see axes for a batch")
        return parse_delayed(ids, self, self.delays, lenient, where)

    def join(self, sequences: Sequence[Any]) -> Any:
        """Join sequences to one, with `sep_id` between them (a step of it, for parallel levels).

        Raises:
            ArgumentError: the layout has no sep_id.
            TokensError: no sequences, or of another shape.
        """
        separator = self._separator()
        return like(sequences[0], joined(self._arrays(sequences), separator))

    def split(self, ids: Any) -> list[Any]:
        """Split a sequence at `sep_id`, the inverse of `join`; ArgumentError where the layout has none."""
        separator = self._separator()
        return [like(ids, part) for part in cut(self._arrays([ids])[0], separator)]

    def _separator(self) -> int:
        if self.sep_id is None:
            raise ArgumentError("layout: has no sep_id; name 'sep' among its specials")
        return self.sep_id

    def _check_tokens(self, tokens: Any) -> None:
        """Raise TokensError for tokens of another model or configuration."""
        if self.model_id and tokens.model_id and self.model_id != tokens.model_id:
            raise TokensError(
                f"tokens: made by model {tokens.model_id}, but the layout is of model {self.model_id}; "
                "make a layout of this model with TokenLayout.of"
            )
        for name in ("codebook_size", "sample_rate", "hop_length", "first_level"):
            if getattr(tokens, name) != getattr(self, name):
                raise TokensError(f"tokens: {name} {getattr(tokens, name)}, but the layout has {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as JSON values."""
        return {"format_version": FORMAT_VERSION, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, values: Any, source: str = "layout") -> TokenLayout:
        """Read a layout from JSON values; `source` names them in errors.

        Raises:
            TokensError: a field is missing, unknown or out of range, or a newer dmcodec wrote it.
        """
        version: Any = values.get("format_version") if isinstance(values, dict) else None
        if not is_whole(version):
            raise TokensError(f"{source}: is no token layout; name a JSON file that TokenLayout.save wrote")
        if version > FORMAT_VERSION:
            raise TokensError(f"{source}: format {version}, this dmcodec reads {FORMAT_VERSION}; update dmcodec")
        names = [field.name for field in dataclasses.fields(cls)]
        wrong = [name for name in names if name not in values] + sorted(set(values) - {*names, "format_version"})
        if wrong:
            raise TokensError(f"{source}: field {wrong[0]!r} is {'unknown' if wrong[0] in values else 'missing'}")
        try:
            return cls(**{name: values[name] for name in names})
        except ArgumentError as error:
            raise TokensError(str(error).replace("layout", source, 1)) from None

    def save(self, path: str | Path) -> None:
        """Write the layout as a JSON file; OutputError where it can't be written."""
        write_bytes(path, f"{json.dumps(self.to_dict(), indent=1)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> TokenLayout:
        """Read a layout from the JSON file that `save` wrote.

        Raises:
            InputNotFoundError: no such file.
            TokensError: no layout, or of a newer dmcodec.
        """
        try:
            values = json.loads(read_text(Path(path)))
        except FileNotFoundError:
            raise InputNotFoundError(f"{path}: no such file; name a JSON file that TokenLayout.save wrote") from None
        except (OSError, ValueError, RecursionError) as error:
            raise TokensError(f"{path}: can't be read as a token layout ({detail(error)})") from None
        return cls.from_dict(values, str(path))


def _facts(codec: Any) -> dict[str, Any]:
    """Return the fields of a layout that its codec says, from whatever holds them."""
    manifest = getattr(getattr(codec, "bundle", codec), "manifest", codec)
    config = getattr(manifest, "config", None)

    def of(name: str) -> Any:
        return codec.get(name) if isinstance(codec, Mapping) else getattr(manifest, name, getattr(config, name, None))

    facts = {name: of(name) for name in ("codebook_size", "n_q", "sample_rate", "hop_length")}
    if None in facts.values():
        raise ArgumentError(
            f"layout: of() takes a Codec, its manifest, Tokens, or the settings of a corpus, not {type(codec).__name__}"
        )
    return {**facts, "model_id": of("model_id") or "", "first_level": of("first_level") or 0}
