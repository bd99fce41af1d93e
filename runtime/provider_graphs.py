"""The graphs that ONNX Runtime's TensorRT providers get in place of the bundle's, and where they lie.

TensorRT does not parse or build all graphs of a bundle as they are. `dmcodec export --format trt --flavour onnxruntime`
writes them in the form that it does, with the shapes to build for, into the folder of the engines. The index is written
last, by an atomic rename, so that a write that was interrupted leaves the graphs of before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmcodec.bundle import GraphSpec
from dmcodec.errors import EngineError, OutputError
from dmcodec.files import file_sha256, json_sha256, write_bytes
from dmcodec.runtime.tensorrt.engine_store import engine_folder
from dmcodec.runtime.tensorrt.profiles import Profile, Shape, Shapes

FOLDER, INDEX = "onnxruntime", "graphs.json"
INDEX_VERSION = 1
_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class ProviderGraph:
    """One graph.

    Attributes:
        file: its name in the folder.
        sha256: of the file.
        source_sha256: of the bundle's graph that it was made from.
        rules: version of the rules that rewrote it.
        profile: the shapes to build for.
    """

    file: str
    sha256: str
    source_sha256: str
    rules: int
    profile: Profile

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "profile": self.profile.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProviderGraph:
        """Read the values of `to_dict`; raise KeyError, TypeError or ValueError for anything else."""
        names = [field.name for field in dataclasses.fields(cls)]
        found = cls(**{**{name: values[name] for name in names}, "profile": Profile.from_dict(values["profile"])})
        if Path(found.file).name != found.file:
            raise ValueError(f"{found.file!r} is no plain name")
        return found


class ProviderGraphs:
    """The graphs in the folder of a bundle's engines.

    Args:
        bundle: folder of the bundle.
        engine_cache: folder of the engines; by default the one within the bundle.
    """

    def __init__(self, bundle: Path, engine_cache: str | Path | None = None) -> None:
        self._bundle = bundle
        self.folder = engine_folder(bundle, engine_cache) / FOLDER

    def caches(self, provider: str) -> Path:
        """Return the folder where a provider keeps its engines, made if it isn't there.

        Raises:
            OutputError: it can't be written to.
        """
        folder = self.folder / f"cache-{provider}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: can't be made ({error.strerror or error}); name another folder with --engine-cache"
            ) from error
        return folder

    def find(self, name: str, spec: GraphSpec) -> tuple[Path, Profile]:
        """Return path and shapes of the graph `name`, whose form in the bundle is `spec`.

        Raises:
            EngineError: it is not there, was altered, or was made from another graph.
        """
        found = self._index().get(name)
        if found is None:
            raise EngineError(f"{name}: {self.folder} has no graph for ONNX Runtime's TensorRT; {self._way_out}")
        path = self.folder / found.file
        if found.source_sha256 != spec.sha256:
            raise EngineError(f"{path}: was made from another graph: the bundle was exported again; {self._way_out}")
        if not path.is_file() or file_sha256(path) != found.sha256:
            raise EngineError(f"{path}: is missing, or was altered or cut; {self._way_out}")
        return path, found.profile

    def write(self, graphs: Mapping[str, tuple[bytes, GraphSpec, int, Profile]]) -> dict[str, ProviderGraph]:
        """Write graphs: by name the serialised graph, the bundle's, the version of the rules and the shapes.

        Graphs of other names that were there stay. Returns all that are there now.

        Raises:
            OutputError: the folder can't be written to.
        """
        try:
            before = self._index()
        except EngineError:  # written over
            before = {}
        new = {}
        for name, (model, spec, rules, profile) in graphs.items():
            sha256 = hashlib.sha256(model).hexdigest()
            new[name] = ProviderGraph(f"{name}-{sha256[:_DIGITS]}.onnx", sha256, spec.sha256, rules, profile)
            self._write(new[name].file, model)
        current = {**before, **new}
        graphs_json = {name: graph.to_dict() for name, graph in current.items()}
        body = json.loads(json.dumps({"index_version": INDEX_VERSION, "graphs": graphs_json}))
        self._write(INDEX, (json.dumps({**body, "sha256": json_sha256(body)}, indent=1) + "\n").encode())
        for path in self.folder.glob("*.onnx"):
            if path.name not in {graph.file for graph in current.values()}:
                path.unlink(missing_ok=True)
        return current

    @property
    def _way_out(self) -> str:
        return f"run `dmcodec export --format trt --flavour onnxruntime --bundle {self._bundle}`"

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_bytes(self.folder / name, content)
        except OSError as error:
            reason = str(error) if isinstance(error, OutputError) else f"{self.folder / name}: {error.strerror}"
            raise OutputError(f"{reason}, or keep the graphs elsewhere with --engine-cache DIR") from error

    def _index(self) -> dict[str, ProviderGraph]:
        path = self.folder / INDEX
        try:
            return _read_index(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(f"{path}: can't be read ({error}); {self._way_out}") from None


def _read_index(body: Any) -> dict[str, ProviderGraph]:
    if body.pop("sha256", None) != json_sha256(body) or body["index_version"] != INDEX_VERSION:
        raise ValueError("altered, or of another version of dmcodec")
    return {name: ProviderGraph.from_dict(values) for name, values in body["graphs"].items()}


def joined(profiles: Sequence[Profile]) -> Profile:
    """Return one profile for all shapes of several; the first says which shapes are the usual ones."""
    inputs = {
        name: Shapes(_extreme(profiles, name, "min", min), shapes.opt, _extreme(profiles, name, "max", max))
        for name, shapes in profiles[0].inputs.items()
    }
    return Profile(" and ".join(each.name for each in profiles), inputs)


def _extreme(profiles: Sequence[Profile], name: str, bound: str, pick: Callable[[Iterable[int]], int]) -> Shape:
    shapes = [getattr(each.inputs[name], bound) for each in profiles]
    return tuple(pick(sizes) for sizes in zip(*shapes, strict=True))
