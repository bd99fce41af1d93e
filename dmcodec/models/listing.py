"""What codecs there are: the built-in one, those in the cache, and those that can be pulled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmcodec.bundle import MANIFEST, Manifest, default_bundle_path, read_manifest
from dmcodec.errors import ArgumentError, BundleError

from .names import KNOWN, SMALL, did_you_mean, hub_name, is_hub_name
from .store import Store

BUILT_IN, PULLED, HUB, CAN_BE_PULLED, DAMAGED = "built-in", "pulled", "hub", "can be pulled", "damaged"


@dataclasses.dataclass(frozen=True)
class Listed:
    """A codec.

    Attributes:
        name: that loads it.
        state: "built-in", "pulled", "hub" (in the cache), "can be pulled", or "damaged".
        title: what it is, in words.
        path: its folder; None if it is not here.
        manifest: of its bundle; None if it is not here, or damaged.
        problem: what is damaged.
    """

    name: str
    state: str
    title: str
    path: Path | None = None
    manifest: Manifest | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the figures of the manifest."""
        values: dict[str, Any] = {"name": self.name, "state": self.state, "title": self.title}
        values["bundle"] = None if self.path is None else str(self.path)
        if self.problem:
            values["problem"] = self.problem
        return values if self.manifest is None else {**values, **figures(self.manifest)}


def figures(manifest: Manifest) -> dict[str, Any]:
    """Return size and figures of a bundle as JSON values, with units in the names."""
    config = manifest.config
    return {
        "model_id": manifest.model_id,
        "precision": manifest.precision,
        "size_bytes": manifest.size_bytes,
        "sample_rate": config.sample_rate,
        "frame_rate": config.frame_rate,
        "n_q": config.n_q,
        "codebook_size": config.codebook_size,
        "bitrate_bps": config.bitrate_bps(),
        "code_agreement": manifest.parity.get("code_agreement"),
        "decoder_snr_db": manifest.parity.get("decoder_snr_db"),
        "stoi": manifest.look_ahead.get("stoi_whole"),
    }


def list_models(store: Store | None) -> list[Listed]:
    """Return the built-in codec, what is in the cache, and what can be pulled, each once. Only manifests are read.

    Without a store there is nothing in the cache.
    """
    found = [_listed(SMALL, BUILT_IN, "DM-Codec, small, 16 kHz; comes with dmcodec", default_bundle_path())]
    if store is not None:
        found += _in_cache(store)
    here = {each.name for each in found}
    return found + [Listed(name, CAN_BE_PULLED, row.title) for name, row in KNOWN.items() if name not in here]


def remove_model(name: str, store: Store) -> None:
    """Remove a codec from the cache: a pulled one by its name, or one of the hub.

    Raises:
        ArgumentError: no such name, or the codec that comes with dmcodec.
        BundleNotFoundError: it is not in the cache.
        OutputError: it can't be removed.
    """
    if name == SMALL:
        raise ArgumentError(f"{SMALL}: comes with dmcodec and is not in the cache; it can't be removed")
    if is_hub_name(name):
        store.remove_hub(hub_name(name))
    elif name in KNOWN or name in store.pulled_names():
        store.remove_pulled(name)
    else:
        raise ArgumentError(f"{name!r} is no codec's name; {did_you_mean(name)}`dmcodec models` lists the names")


def _in_cache(store: Store) -> Iterator[Listed]:
    for name in store.pulled_names():
        title = KNOWN[name].title if name in KNOWN else "a codec that this dmcodec does not know"
        yield _listed(name, PULLED, title, store.pulled(name))
    for hub, path in store.hub_names():
        yield _listed(str(hub), HUB, f"{hub.repo} at {path.parent.name[:12]}", path)


def _listed(name: str, state: str, title: str, path: Path) -> Listed:
    try:
        return Listed(name, state, title, path, read_manifest(path))
    except BundleError as error:
        problem = f"has no {MANIFEST}" if not (path / MANIFEST).is_file() else str(error)
        return Listed(name, DAMAGED, title, path, problem=problem)
