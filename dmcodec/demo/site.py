"""The files of the page: which address gives which file. Everything else is not found."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from dmcodec.bundle import MANIFEST, Bundle
from dmcodec.sample import SPEECH_FILE

# The files of ONNX Runtime Web that the page loads: its module, and its WebAssembly with the module that starts it.
ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
# A service worker sees what lies beside and below it, so it stands beside the page.
_ROOT_FILES = ("index.html", "service_worker.js")


@dataclasses.dataclass(frozen=True)
class Site:
    """The page with one bundle.

    Attributes:
        files: path of an address, without the leading slash -> file.
    """

    files: Mapping[str, Path]

    @classmethod
    def of(cls, bundle: Bundle, onnxruntime_web: Path) -> Site:
        """Return the page with `bundle`; `onnxruntime_web` is the folder of ORT_FILES."""
        return cls(dict(_files(bundle, onnxruntime_web)))

    def write(self, folder: Path) -> None:
        """Write the files below `folder`, for a server of static files."""
        for name, path in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def web_folder() -> Path:
    """Return the folder of the runtime in JavaScript and of the page."""
    import dmcodec.runtime

    return Path(dmcodec.runtime.__file__).parent / "web"


def _files(bundle: Bundle, onnxruntime_web: Path) -> Iterator[tuple[str, Path]]:
    for folder in ("src", "page"):
        for path in sorted((web_folder() / folder).iterdir()):
            yield path.name if path.name in _ROOT_FILES else f"{folder}/{path.name}", path
    for name in ORT_FILES:
        yield f"ort/{name}", onnxruntime_web / name
    yield f"bundle/{MANIFEST}", bundle.path / MANIFEST
    for spec in bundle.manifest.files:
        yield f"bundle/{spec.file}", bundle.path / spec.file
    yield "sample.flac", SPEECH_FILE
