"""The folder of built engines. Each engine is a plan file with a JSON record beside it; a plan without one is ignored.

The plan is written first and the record last, each by an atomic rename, so that an interrupted build leaves no engine.
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
from dmcodec.user_cache import user_cache_folder

from .profiles import Profile

FOLDER = "engines"  # within the bundle
RECORD_VERSION = 1
GENERIC = "generic"  # architecture of an RTX engine that is compiled for the GPU at its first use
REBUILD_HINT = "build it again with `dmcodec export --format trt --bundle BUNDLE --rebuild`"
_KEY_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on. Any other value means another engine.

    Attributes:
        graph: name of the graph.
        graph_sha256: of its ONNX file.
        rules: version of the rules that rewrote the graph for TensorRT.
        precision: of its arithmetic.
        profiles: optimization profiles, in the engine's order.
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of the library.
        architectures: GPU architectures: "sm_90", ..., or "generic".
        system: operating system and machine, such as "linux-x86_64".
        options: further options of the builder.
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
        """Hex digits that identify the engine."""
        return json_sha256(self.to_dict())[:_KEY_DIGITS]

    @property
    def file(self) -> str:
        """Name of the plan file."""
        return f"{self.graph}-{self.digest}.engine"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        profiles = [profile.to_dict() for profile in self.profiles]
        return dict(json.loads(json.dumps({**values, "profiles": profiles, "options": dict(self.options)})))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineKey:
        """Read the values of `to_dict`."""
        profiles = tuple(Profile.from_dict(profile) for profile in values["profiles"])
        architectures = tuple(str(name) for name in values["architectures"])
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{**{name: values[name] for name in names}, "profiles": profiles, "architectures": architectures})


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """A built engine.

    Attributes:
        key: everything that it depends on.
        sha256: of the plan file.
        size_bytes: of the plan file.
        facts: results of its build and inspection, as JSON values.
    """

    key: EngineKey
    sha256: str
    size_bytes: int
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values with a digest over all of them."""
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
        """Read the values of `to_dict`; raise ValueError, KeyError or TypeError for anything else."""
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
    """The engines in one folder. The folder need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self) -> tuple[list[EngineRecord], list[str]]:
        """Return the records of all complete engines, and a message for each incomplete one."""
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
        """Find the engine of `key`; return None where there is none.

        Raises:
            EngineError: the engine exists but is incomplete or altered.
        """
        path = self.folder / key.file
        return self._read(path, full=True) if path.exists() or record_path(path).exists() else None

    def plan(self, record: EngineRecord) -> bytes:
        """Read a plan and check it against its record.

        Raises:
            EngineError: the plan is missing, cut or altered.
        """
        path = self.folder / record.key.file
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: can't be read ({error.strerror or error}); {REBUILD_HINT}") from None
        if len(plan) != record.size_bytes or hashlib.sha256(plan).hexdigest() != record.sha256:
            raise EngineError(f"{path}: was altered or cut after the build; {REBUILD_HINT}")
        return plan

    def store(self, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> EngineRecord:
        """Write an engine and its record.

        Raises:
            OutputError: the folder can't be written to.
        """
        record = EngineRecord(key, hashlib.sha256(plan).hexdigest(), len(plan), facts)
        path = self.folder / key.file
        try:
            # First remove the old record: it must never stand beside a new plan.
            record_path(path).unlink(missing_ok=True)
            write_bytes(path, plan)
            write_bytes(record_path(path), (json.dumps(record.to_dict(), indent=1) + "\n").encode())
        except OSError as error:
            reason = str(error) if isinstance(error, OutputError) else f"{path}: {error.strerror or error}"
            raise OutputError(f"{reason}, or keep the engines elsewhere with --engine-cache DIR") from error
        return record

    def _read(self, path: Path, full: bool = False) -> EngineRecord:
        """Read and check the record of a plan file; `full`: check the digest of the plan, too."""
        record_file = record_path(path)
        try:
            record = EngineRecord.from_dict(json.loads(record_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise EngineError(
                f"{path}: a build of it was cut short (no {record_file.name} beside it); {REBUILD_HINT}"
            ) from None
        except OSError as error:
            raise EngineError(f"{record_file}: can't be read ({error.strerror or error}); {REBUILD_HINT}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(f"{record_file}: not a valid record of an engine ({error}); {REBUILD_HINT}") from None
        if record.key.file != path.name:
            raise EngineError(f"{record_file}: is the record of {record.key.file}; {REBUILD_HINT}")
        if not path.is_file() or path.stat().st_size != record.size_bytes:
            raise EngineError(f"{path}: is missing, or was cut or altered after the build; {REBUILD_HINT}")
        if full and file_sha256(path) != record.sha256:
            raise EngineError(f"{path}: was altered after the build; {REBUILD_HINT}")
        return record


def record_path(plan: Path) -> Path:
    """Return the record file of a plan file."""
    return plan.with_name(f"{plan.name}.json")


def engine_folder(bundle: Path, engine_cache: str | Path | None) -> Path:
    """Return the folder of a bundle's engines: `engine_cache` where it is given, else a folder within the bundle.

    Engines of the bundle that comes with dmcodec are in the user's cache folder, by model id: an installed package must
    not be written to, and the next version of dmcodec may hold another model.

    Raises:
        MissingDependencyError: platformdirs, which finds the user's cache folder, is not installed.
    """
    if engine_cache is not None:
        return Path(engine_cache)
    if bundle.resolve() != default_bundle_path().resolve():
        return bundle / FOLDER
    try:
        cache = user_cache_folder()
    except ModuleNotFoundError:
        raise MissingDependencyError(
            'the folder of engines needs platformdirs; run `pip install "dmcodec[trt]"`, '
            "or name a folder with --engine-cache"
        ) from None
    return cache / FOLDER / read_manifest(bundle).model_id


def this_system() -> str:
    """Return the operating system and machine; plans are bound to both."""
    return f"{sys.platform}-{platform.machine().lower()}"
