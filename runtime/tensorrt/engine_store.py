"""The folder of built engines: each a plan file and beside it a JSON record, without which the plan counts for nothing.

The plan is written first and the record last, each whole or not at all, so that a build that was cut short leaves
nothing that could be taken for an engine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmcodec.bundle import default_bundle_path, read_manifest
from dmcodec.errors import EngineError, MissingDependencyError, OutputError
from dmcodec.files import file_sha256, json_sha256, write_bytes

from .profiles import Profile

FOLDER = "engines"  # within the bundle
RECORD_VERSION = 1
GENERIC = "generic"  # an RTX engine that is compiled for the GPU when it is first used
_KEY_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on; another value of anything is another engine.

    Attributes:
        graph: name of the graph.
        graph_sha256: of its ONNX file.
        rules: version of the rules by which the graph was rewritten for TensorRT.
        precision: of its arithmetic.
        profiles: in the engine's order.
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of the library.
        architectures: "sm_90", ..., or "generic".
        system: operating system and machine, such as "linux-x86_64".
        options: what else was asked of the builder.
    """

    graph: str
    graph_sha256: str
    rules: int
    precision: str
    profiles: tuple[Profile, ...]
    flavour: str
    version: str
    architectures: tuple[str, ...]
    system: str
    options: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hex digits that name the engine."""
        return json_sha256(self.to_dict())[:_KEY_DIGITS]

    @property
    def file(self) -> str:
        """Name of the plan's file."""
        return f"{self.graph}-{self.digest}.engine"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        profiles = [profile.to_dict() for profile in self.profiles]
        return dict(json.loads(json.dumps({**values, "profiles": profiles, "options": dict(self.options)})))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineKey:
        """Reads what `to_dict` gives."""
        profiles = tuple(Profile.from_dict(profile) for profile in values["profiles"])
        architectures = tuple(str(name) for name in values["architectures"])
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{**{name: values[name] for name in names}, "profiles": profiles, "architectures": architectures})


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """A built engine: its key, its file, and what was found when it was inspected."""

    key: EngineKey
    sha256: str
    size_bytes: int
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with a digest over all of them."""
        body: dict[str, Any] = {
            "record_version": RECORD_VERSION,
            "key": self.key.to_dict(),
            "file": self.key.file,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "facts": dict(self.facts),
        }
        body = json.loads(json.dumps(body))
        return {**body, "record_sha256": json_sha256(body)}

    @classmethod
    def from_dict(cls, values: Any) -> EngineRecord:
        """Reads what `to_dict` gives; ValueError, KeyError or TypeError where it is something else."""
        if not isinstance(values, dict) or values.get("record_version") != RECORD_VERSION:
            raise ValueError("not an engine's record of a version that this dmcodec reads")
        body = {name: value for name, value in values.items() if name != "record_sha256"}
        if values.get("record_sha256") != json_sha256(body):
            raise ValueError("altered after the build")
        record = cls(EngineKey.from_dict(body["key"]), body["sha256"], body["size_bytes"], body["facts"])
        if body["file"] != record.key.file:
            raise ValueError("it names another file")
        return record


class EngineStore:
    """The engines in one folder, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self) -> tuple[list[EngineRecord], list[str]]:
        """The engines whose record is whole, and a line for each that is not."""
        found, problems = [], []
        for path in sorted(self.folder.glob("*.engine")):
            try:
                record = self._read(path)
            except EngineError as error:
                problems.append(str(error))
            else:
                found.append(record)
        return found, problems

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The engine of `key`; None where there is none.

        Raises:
            EngineError: it is there but half-written or altered.
        """
        path = self.folder / key.file
        return self._read(path, full=True) if path.exists() or record_path(path).exists() else None

    def plan(self, record: EngineRecord) -> bytes:
        """The plan, checked against its record.

        Raises:
            EngineError: missing, cut or altered.
        """
        path = self.folder / record.key.file
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: can't be read ({error.strerror or error}); {_AGAIN}") from None
        if len(plan) != record.size_bytes or hashlib.sha256(plan).hexdigest() != record.sha256:
            raise EngineError(f"{path}: was altered or cut after the build; {_AGAIN}")
        return plan

    def store(self, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> EngineRecord:
        """Writes an engine and its record.

        Raises:
            OutputError: the folder can't be written to.
        """
        record = EngineRecord(key, hashlib.sha256(plan).hexdigest(), len(plan), facts)
        path = self.folder / key.file
        try:
            # A record of the plan that is replaced must not stand beside the new one, not even for a moment.
            record_path(path).unlink(missing_ok=True)
            write_bytes(path, plan)
            write_bytes(record_path(path), (json.dumps(record.to_dict(), indent=1) + "\n").encode())
        except OSError as error:
            reason = str(error) if isinstance(error, OutputError) else f"{path}: {error.strerror or error}"
            raise OutputError(f"{reason}, or keep the engines elsewhere with --engine-cache DIR") from error
        return record

    def _read(self, path: Path, full: bool = False) -> EngineRecord:
        side = record_path(path)
        try:
            record = EngineRecord.from_dict(json.loads(side.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise EngineError(f"{path}: a build of it was cut short (no {side.name} beside it); {_AGAIN}") from None
        except OSError as error:
            raise EngineError(f"{side}: can't be read ({error.strerror or error}); {_AGAIN}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(f"{side}: not a valid record of an engine ({error}); {_AGAIN}") from None
        if record.key.file != path.name:
            raise EngineError(f"{side}: is the record of {record.key.file}; {_AGAIN}")
        if not path.is_file() or path.stat().st_size != record.size_bytes:
            raise EngineError(f"{path}: is missing, or was cut or altered after the build; {_AGAIN}")
        if full and file_sha256(path) != record.sha256:
            raise EngineError(f"{path}: was altered after the build; {_AGAIN}")
        return record


_AGAIN = "build it again with `dmcodec export --format trt --rebuild`"


def record_path(plan: Path) -> Path:
    """The record that belongs to a plan's file."""
    return plan.with_name(f"{plan.name}.json")


def engine_folder(bundle: Path, engine_cache: str | Path | None) -> Path:
    """Where the engines of a bundle lie: in `engine_cache`, or within the bundle.

    Those of the bundle that comes with dmcodec lie in the user's cache, by model: an installed package isn't to be
    written to, and the next version of dmcodec may bring another model.

    Raises:
        MissingDependencyError: platformdirs, which knows where that is, isn't installed.
    """
    if engine_cache is not None:
        return Path(engine_cache)
    if bundle.resolve() != default_bundle_path().resolve():
        return bundle / FOLDER
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "the folder of engines needs platformdirs; run `pip install dmcodec[trt]`, or name one with --engine-cache"
        ) from None
    return user_cache_path("dmcodec", appauthor=False) / FOLDER / read_manifest(bundle).model_id


def this_system() -> str:
    """Operating system and machine: plans are bound to both."""
    return f"{sys.platform}-{platform.machine().lower()}"
