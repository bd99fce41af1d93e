"""A bundle to a repository of the Hugging Face hub, in one commit, with a model card."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path

from dmcodec.bundle import MANIFEST, Bundle
from dmcodec.errors import ArgumentError, HubNotFoundError

from .card import CARD, MARK, checked_license, model_card
from .hub import download, explained, hub_client, remote_file
from .names import DEFAULT_REVISION, HubName, hub_name, is_hub_name


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A bundle on the hub. `wrote_card` is false where the repository has a card that somebody wrote."""

    name: HubName
    commit: str
    size_bytes: int
    wrote_card: bool


def push(
    bundle: str | Path, target: str, license_name: str | None, private: bool = False, replace_card: bool = False
) -> Pushed:
    """Upload a bundle, which is checked first; make the repository where it is missing.

    The files of the manifest are uploaded, without TensorRT engines, which fit one GPU only.

    Args:
        bundle: folder of the bundle.
        target: hf://ORG/REPO, or with @BRANCH, which is made where it is missing.
        license_name: identifier of the weights' licence, for the card.
        private: whether a repository that is made now is private.
        replace_card: replace the repository's README.md, even where `push` did not write it.

    Raises:
        ArgumentError: no such name, a commit instead of a branch, or no licence.
        BundleError: no bundle, or it was altered.
        DownloadError: the hub can't be reached, or refuses.
        MissingDependencyError: huggingface_hub is not installed.
    """
    if not is_hub_name(target):
        raise ArgumentError(f"{target!r}: names no repository; write hf://ORG/REPO")
    name, license_name = hub_name(target), checked_license(license_name)
    if name.is_commit:
        raise ArgumentError(f"{name}: a commit can't be pushed to; name a branch, or leave @REVISION out")
    opened = Bundle.open(bundle)
    manifest = dataclasses.replace(opened.manifest, engines={})
    hub = hub_client("push")
    with explained(name):
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        api.create_repo(name.repo, private=private or None, exist_ok=True)
        if name.revision != DEFAULT_REVISION:
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
    keeps_card = not replace_card and _has_foreign_card(name)
    text = json.dumps(manifest.to_dict(), indent=1, allow_nan=False)
    contents: dict[str, bytes | str] = {MANIFEST: f"{text}\n".encode()}
    contents |= {spec.file: str(opened.path / spec.file) for spec in manifest.files}
    if not keeps_card:
        contents[CARD] = model_card(name, manifest, license_name).encode()
    with explained(name):
        done = api.create_commit(
            name.repo,
            [hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in contents.items()],
            commit_message=f"Bundle of model {manifest.model_id}, {manifest.precision}",
            revision=name.revision,
        )
    return Pushed(name, str(done.oid), manifest.size_bytes, not keeps_card)


def _has_foreign_card(name: HubName) -> bool:
    """Return whether the repository has a card that `push` did not write."""
    try:
        remote = remote_file(name, CARD)
        with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
            download(name, CARD, Path(folder, CARD), remote)
            return MARK not in Path(folder, CARD).read_text(encoding="utf-8", errors="replace")
    except HubNotFoundError:  # none, or nothing was committed yet
        return False
