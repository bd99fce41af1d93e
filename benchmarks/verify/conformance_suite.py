"""The conformance suite's files: audio, what the built-in codec makes of it, and the table of cases.

docs/reference/conformance.md describes them for readers in any language.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import read_audio
from dmcodec.bundle import Manifest, default_bundle_path
from dmcodec.errors import AudioError, ConformanceError
from dmcodec.files import file_sha256, json_sha256, write_bytes

CASES = "cases.json"
FORMAT_VERSION = 1
_WAY_OUT = "install dmcodec again, or make the suite with scripts/make_conformance.py"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip: names of its files, and what is expected of the codec that the suite was made with.

    Attributes:
        name: as in the cases.
        audio: FLAC file, 16 bits, mono.
        codes: NPY file of codes uint16 [n_q, frames].
        decoded: NPY file of what the codes decode to, float32 [samples].
        num_samples: samples of the audio, and of what is decoded.
        tied: pairs of frame and level: from this level on the codes of the frame may be others, by a tie.
    """

    name: str
    audio: str
    codes: str
    decoded: str
    num_samples: int
    tied: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """One case: what is done (`kind`), to which clips, and with which `values`."""

    name: str
    kind: str
    clips: tuple[str, ...]
    values: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Suite:
    """The suite of a folder; made by `open`.

    Attributes:
        folder: that holds the files.
        codec: `model_id`, `precision`, `sample_rate` and so on of the codec that the expected values are of.
        tolerance: `audio_snr_db` and `audio_max_abs_error`; audio that reaches either is right.
        clips: by name.
        cases: in the order in which they run.
        files: SHA-256 by the files' names.
    """

    folder: Path
    codec: Mapping[str, Any]
    tolerance: Mapping[str, float]
    clips: Mapping[str, Clip]
    cases: tuple[Case, ...]
    files: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path | None = None) -> Suite:
        """Read the table of cases and check that every file is there and unaltered; by default of `suite_folder()`.

        Raises:
            ConformanceError: a file is missing or altered, or a newer dmcodec wrote the table.
        """
        folder = folder or suite_folder()
        path = folder / CASES
        body = _read_table(path)
        try:
            suite = cls._parse(folder, body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConformanceError(f"{path}: not a table of cases ({error!r}); {_WAY_OUT}") from None
        for name, sha256 in suite.files.items():
            _check_file(folder / name, sha256)
        return suite

    @classmethod
    def _parse(cls, folder: Path, body: Mapping[str, Any]) -> Suite:
        clips = {item["name"]: Clip(**{**item, "tied": _pairs(item["tied"])}) for item in body["clips"]}
        cases = tuple(
            Case(item["name"], item["kind"], tuple(item["clips"]), tuple(map(int, item["values"])))
            for item in body["cases"]
        )
        named = {name for case in cases for name in case.clips}
        files = {name for clip in clips.values() for name in (clip.audio, clip.codes, clip.decoded)}
        if missing := sorted((named - set(clips)) | (files - set(body["files"]))):
            raise ValueError(f"{missing[0]} is not listed")
        if foreign := [name for name in body["files"] if Path(name).name != name]:
            raise ValueError(f"{foreign[0]!r} is not a plain name")
        return cls(folder, body["codec"], body["tolerance"], clips, cases, body["files"])

    def write(self) -> None:
        """Write the table of cases into the folder, with the digests of `files`."""
        body = {
            "format_version": FORMAT_VERSION,
            "codec": dict(self.codec),
            "tolerance": dict(self.tolerance),
            "clips": [dataclasses.asdict(clip) for clip in self.clips.values()],
            "cases": [dataclasses.asdict(case) for case in self.cases],
            "files": dict(self.files),
        }
        body = json.loads(json.dumps(body))
        text = json.dumps({**body, "sha256": json_sha256(body)}, indent=1)
        write_bytes(self.folder / CASES, f"{text}\n".encode())

    def expects(self, manifest: Manifest) -> bool:
        """Return whether the expected values are those of this bundle: of its weights, rounded as they are."""
        return (self.codec["model_id"], self.codec["precision"]) == (manifest.model_id, manifest.precision)

    def waveform(self, clip: Clip) -> tuple[NDArray[np.float32], int]:
        """Return a clip's samples [samples] and their rate in Hz."""
        try:
            samples, rate = read_audio(self.folder / clip.audio)
        except AudioError as error:
            raise ConformanceError(f"{error}; {_WAY_OUT}") from None
        return samples[0], rate

    def expected(self, clip: Clip) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what is expected of a clip: codes [n_q, frames], and the audio [samples] that they decode to.

        Raises:
            ConformanceError: their shapes don't fit the clip, or a tie lies outside the codes.
        """
        codes, decoded = self.array(clip.codes), self.array(clip.decoded)
        frames = -(-clip.num_samples // int(self.codec["hop_length"]))
        shape = (int(self.codec["n_q"]), frames)
        inside = all(0 <= frame < shape[1] and 0 <= level < shape[0] for frame, level in clip.tied)
        if codes.shape != shape or decoded.shape != (clip.num_samples,) or not inside:
            raise ConformanceError(f"{self.folder}: {clip.name}: codes, audio or ties don't fit its length; {_WAY_OUT}")
        return codes.astype(np.int64), decoded.astype(np.float32)

    def array(self, name: str) -> NDArray[Any]:
        """Return the array of an NPY file.

        Raises:
            ConformanceError: it is none.
        """
        try:
            values: NDArray[Any] = np.load(self.folder / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConformanceError(f"{self.folder / name}: not an NPY file ({error}); {_WAY_OUT}") from None
        return values


def suite_folder() -> Path:
    """Return the folder of the suite that comes with dmcodec."""
    return default_bundle_path().with_name("conformance")


def _read_table(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConformanceError(f"{path}: no such file; {_WAY_OUT}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ConformanceError(f"{path}: can't be read as a table of cases ({error}); {_WAY_OUT}") from None
    version = body.get("format_version") if isinstance(body, dict) else None
    if not isinstance(version, int):
        raise ConformanceError(f"{path}: not a table of cases, it has no format_version; {_WAY_OUT}")
    if version > FORMAT_VERSION:
        raise ConformanceError(f"{path}: format {version}, this dmcodec reads up to {FORMAT_VERSION}; update dmcodec")
    if body.pop("sha256", None) != json_sha256(body):
        raise ConformanceError(f"{path}: was altered (its digest doesn't match); {_WAY_OUT}")
    return body


def _check_file(path: Path, sha256: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be read ({error.strerror or error}); {_WAY_OUT}") from None
    if found != sha256:
        raise ConformanceError(f"{path}: was altered (its sha256 is not that in {CASES}); {_WAY_OUT}")


def _pairs(values: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(frame), int(level)) for frame, level in values)
