"""Bundles of the hub, against a stand-in of the hub on this machine."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import Hub, running_hub

from dmcodec.bundle import Bundle, read_manifest
from dmcodec.errors import (
    ArgumentError,
    BundleError,
    DmcodecError,
    DownloadError,
    HubUnreachableError,
    MissingDependencyError,
    OutputError,
)
from dmcodec.models import hub as hub_module
from dmcodec.models.card import model_card
from dmcodec.models.hub_bundles import hub_bundle
from dmcodec.models.names import HubName, hub_name
from dmcodec.models.push import push
from dmcodec.models.resolve import bundle_path
from dmcodec.models.store import Store
from dmcodec.runtime import Codec

pytest.importorskip("huggingface_hub")
REPO = "lab/voice"
NAME = HubName(REPO)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, where the hub is looked for, with a cache of its own."""
    monkeypatch.setenv("DMCODEC_CACHE", str(tmp_path / "cache"))
    for variable in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hub_module, "_PAUSE_S", 0.0)
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)  # read at its import; old versions use it
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_a_bundle_of_the_hub_is_loaded_and_pinned(hub: Hub, tiny_bundle: Path, store: Store) -> None:
    first = hub.commit_folder(REPO, tiny_bundle)
    hub.commit(REPO, {"virus.py": b"raise SystemExit", "README.md": b"hello"})
    second = hub.branches[REPO]["main"]
    with Codec.load(f"hf://{REPO}") as codec:
        assert codec.bundle.manifest.model_id == read_manifest(tiny_bundle).model_id
        assert codec.bundle.path == store.hub_bundle(REPO, second)
        assert "voice" in repr(codec)
    files = {"manifest.json", *(spec.file for spec in read_manifest(tiny_bundle).files)}
    assert set(hub.asked()) == files == {path.name for path in codec.bundle.path.iterdir()}
    assert not any("torch" in agent for agent in hub.agents)  # telemetry is off

    asked = len(hub.requests)
    hub.commit(REPO, {"manifest.json": b"{}"})
    assert Codec.load(Path(f"hf://{REPO}")).bundle.path == codec.bundle.path  # as Path writes it
    assert len(hub.requests) == asked  # pinned: no request
    assert Codec.load(f"hf://{REPO}@{first}").bundle.path == store.hub_bundle(REPO, first)
    with pytest.raises(BundleError, match="not as it was pushed"):
        hub_bundle(NAME, store, refresh=True)
    hub.commit_folder(REPO, tiny_bundle)
    assert hub_bundle(NAME, store, refresh=True) == store.hub_bundle(REPO, hub.branches[REPO]["main"])


def test_offline(hub: Hub, tiny_bundle: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.commit_folder(REPO, tiny_bundle)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachableError, match=r"hf://lab/voice: HF_HUB_OFFLINE is set.*unset it.*not in the cache"):
        bundle_path(f"hf://{REPO}")
    assert not hub.requests
    monkeypatch.delenv("HF_HUB_OFFLINE")
    there = bundle_path(f"hf://{REPO}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert bundle_path(f"hf://{REPO}") == there == bundle_path(f"hf://{REPO}@{commit}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert bundle_path(f"hf://{REPO}") == there
    with pytest.raises(HubUnreachableError, match=f"can't be reached; connect.*; commit {commit} is in the cache"):
        hub_bundle(NAME, store, refresh=True)
    with pytest.raises(HubUnreachableError, match=r"hf://lab/voice@v2: .* can't be reached.*it is not in the cache"):
        bundle_path(f"hf://{REPO}@v2")


@pytest.mark.parametrize(
    ("repo", "answer", "reason"),
    [
        ("lab/none", None, "no such repository, or it is private; check the name, or log in"),
        (REPO, (401, "GatedRepo"), "is gated; accept its terms .*log in"),
        (REPO, (403, "GatedRepo"), "is gated; accept its terms .*log in"),
        (REPO, (401, ""), "log in"),
        (REPO, (403, ""), "refuses access; log in"),
        (REPO, (404, ""), "no such repository, revision or file"),
        (REPO, (429, ""), "too many requests"),
        (REPO, (503, ""), "status 503; run the same command again"),
        (f"{REPO}@v9", None, "no revision 'v9'"),
        ("lab/empty", None, "holds no bundle"),
    ],
)
def test_each_refusal_has_its_sentence(
    repo: str, answer: tuple[int, str] | None, reason: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.commit(REPO, {"manifest.json": b"{}"})
    hub.commit("lab/empty", {"README.md": b""})
    if answer:
        hub.errors[REPO] = answer
    with pytest.raises(DmcodecError, match=f"hf://{repo}: .*{reason}") as caught:
        Codec.load(f"hf://{repo}")
    assert "hf_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_token_that_is_none(hub: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    monkeypatch.setenv("HF_TOKEN", "hf_s\xe9cret")
    with pytest.raises(DownloadError, match=r"hf://lab/voice: the token .* copy it again$"):
        Codec.load(f"hf://{REPO}")


def altered(bundle: Path, name: str) -> bytes:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize("name", ["decoder.onnx", "weights.bin", "manifest.json"])
def test_an_altered_file_is_refused_and_not_kept(name: str, hub: Hub, tiny_bundle: Path, store: Store) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    hub.commit(REPO, {name: altered(tiny_bundle, name)})
    for _ in range(2):
        with pytest.raises(BundleError, match=rf"hf://lab/voice: is not as it was pushed: {name}.*@REVISION"):
            Codec.load(f"hf://{REPO}")
    assert not [path for path in store.folder.rglob("*") if path.name == name]
    hub.commit_folder(REPO, tiny_bundle)
    Codec.load(f"hf://{REPO}").close()


def test_files_of_another_size_are_not_even_fetched(hub: Hub, tiny_bundle: Path) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    hub.commit(REPO, {"weights.bin": bytes(5_000_000)})
    with pytest.raises(BundleError, match=r"weights\.bin has 5000000 bytes, the manifest says"):
        Codec.load(f"hf://{REPO}")
    assert "weights.bin" not in hub.asked()


def test_a_missing_file_and_foreign_names(hub: Hub, copy_of_tiny_bundle: Path) -> None:
    hub.commit_folder(REPO, copy_of_tiny_bundle)
    del hub.commits[hub.branches[REPO]["main"]]["quantizer.onnx"]
    with pytest.raises(BundleError, match=r"hf://lab/voice: is not as it was pushed: quantizer\.onnx is missing"):
        Codec.load(f"hf://{REPO}")
    from dmcodec.files import json_sha256

    for file in ("..", "../../evil", "manifest.json", ".hidden", "a\nb"):
        body = json.loads((copy_of_tiny_bundle / "manifest.json").read_text())
        del body["sha256"]
        body["graphs"]["decoder"]["file"] = file
        body["sha256"] = json_sha256(body)
        hub.commit(REPO, {"manifest.json": json.dumps(body).encode()})
        with pytest.raises(BundleError, match="not as it was pushed"):
            Codec.load(f"hf://{REPO}")


def test_an_interrupted_download_resumes(hub: Hub, tiny_bundle: Path) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    weights = (tiny_bundle / "weights.bin").stat().st_size
    hub.cut_bytes["weights.bin"], hub.cuts = weights // 4, 3  # one more than it tries again
    with pytest.raises(DownloadError, match=r"weights\.bin broke off; .* MB are kept, run the same command again"):
        Codec.load(f"hf://{REPO}")
    Codec.load(f"hf://{REPO}").close()
    asked = [each for _, path, each in hub.requests if path.endswith("weights.bin") and each]
    starts = [int(each.removeprefix("bytes=").removesuffix("-")) for each in asked]
    assert len(starts) == 3
    assert all(weights // 8 * times < start <= weights // 4 * times for times, start in enumerate(starts, 1))
    hub.commit_folder("lab/other", tiny_bundle)
    hub.cuts = 2
    Codec.load("hf://lab/other").close()  # a connection that breaks twice is no error


def test_another_file_than_announced(hub: Hub, tiny_bundle: Path) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    hub.lying["weights.bin"] = altered(tiny_bundle, "weights.bin")
    with pytest.raises(DownloadError, match=r"weights\.bin came with another sha256 than the hub announced"):
        Codec.load(f"hf://{REPO}")
    hub.lying["weights.bin"] = (tiny_bundle / "weights.bin").read_bytes() + b"more"
    with pytest.raises(DownloadError, match="broke off"):
        Codec.load(f"hf://{REPO}")
    hub.lying.clear()
    Codec.load(f"hf://{REPO}").close()


def test_a_full_disk(hub: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit_folder(REPO, tiny_bundle)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub_module, "_continue", full)
    with pytest.raises(OutputError, match=r"can't be written \(No space left on device\), with .* MB free"):
        Codec.load(f"hf://{REPO}")


def test_two_at_once(hub: Hub, tiny_bundle: Path) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(bundle_path(f"hf://{REPO}"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(hub.asked()) == len(set(hub.asked()))  # each file once


def test_push(hub: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match="log in with"):
        push(tiny_bundle, f"hf://{REPO}", "apache-2.0")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = push(tiny_bundle, f"hf://{REPO}", "Apache-2.0")
    files = hub.commits[done.commit]
    manifest = read_manifest(tiny_bundle)
    assert set(files) == {"manifest.json", "README.md", *(spec.file for spec in manifest.files)}
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: dmcodec\n")
    assert f'Codec.load("hf://{REPO}")' in card
    assert f"{manifest.parity['decoder_snr_db']:.1f} dB" in card
    assert all(spec.sha256 in card for spec in manifest.files)
    assert "untrained weights of seed 0" in card
    assert str(tiny_bundle.parent) not in card
    assert Codec.load(f"hf://{REPO}").bundle.manifest == manifest
    assert push(tiny_bundle, f"hf://{REPO}@next", "mit").wrote_card
    assert Codec.load(f"hf://{REPO}@next").bundle.manifest == manifest


def test_names_in_a_card_are_only_text(tiny_bundle: Path) -> None:
    hostile = "a|b\n# [c](http://d)<script>`\ud800.pt"
    manifest = replace(
        read_manifest(tiny_bundle), provenance={"checkpoint": hostile, "checkpoint_sha256": "1f", "torch": "2|\n3"}
    )
    card = model_card(NAME, manifest, "mit")
    row = next(line for line in card.splitlines() if line.startswith("| checkpoint"))
    assert row == r"| checkpoint | a\|b\\n# \[c\](http://d)\<script\>\`\\ud800.pt, sha256 1f |"
    assert r"torch 2\|\\n3" in card
    card.encode()


def test_a_card_that_somebody_wrote_is_kept(hub: Hub, tiny_bundle: Path) -> None:
    hub.commit(REPO, {"README.md": b"# Mine"})
    assert not push(tiny_bundle, f"hf://{REPO}", "mit").wrote_card
    assert hub.commits[hub.branches[REPO]["main"]]["README.md"] == b"# Mine"
    for replaced in (True, False):  # then it is push's own
        assert push(tiny_bundle, f"hf://{REPO}", "mit", replace_card=replaced).wrote_card


@pytest.mark.parametrize("answer", [(429, ""), (503, ""), (403, "")])
def test_a_card_that_can_not_be_looked_at_is_not_replaced(
    answer: tuple[int, str], hub: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.commit(REPO, {"README.md": b"# Mine"})
    hub.errors[REPO] = answer
    with pytest.raises(DownloadError, match=f"hf://{REPO}: the hub "):
        push(tiny_bundle, f"hf://{REPO}", "mit")
    assert hub.branches[REPO]["main"] == commit  # nothing was pushed


def test_engines_stay_at_home(hub: Hub, copy_of_tiny_bundle: Path) -> None:
    from dmcodec.bundle import write_manifest

    manifest = read_manifest(copy_of_tiny_bundle)
    write_manifest(copy_of_tiny_bundle, replace(manifest, engines={"a.engine": {"graph": "decoder"}}))
    push(copy_of_tiny_bundle, f"hf://{REPO}", "mit")
    assert Codec.load(f"hf://{REPO}").bundle.manifest == manifest


def test_what_can_not_be_pushed(hub: Hub, tiny_bundle: Path, copy_of_tiny_bundle: Path) -> None:
    for target, license_name, reason in (
        ("lab/voice", "mit", "names no repository; write hf://ORG/REPO"),
        (f"hf://{REPO}", None, "--license: people must know .* such as apache-2.0"),
        (f"hf://{REPO}", "my own: licence", "'my own: licence' is no identifier"),
        (f"hf://{REPO}@{'a' * 40}", "mit", "a commit can't be pushed to"),
    ):
        with pytest.raises(ArgumentError, match=reason):
            push(tiny_bundle, target, license_name)
    (copy_of_tiny_bundle / "decoder.onnx").write_bytes(altered(tiny_bundle, "decoder.onnx"))
    with pytest.raises(BundleError, match="altered"):
        push(copy_of_tiny_bundle, f"hf://{REPO}", "mit")
    assert not hub.requests


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://a",
        "hf://a/b/c",
        "hf://a/..",
        "hf://../b",
        "hf://a/b@",
        "hf://a/b@x y",
        "hf://a--b/c",
        "hf://-a/b",
        f"hf://{'a' * 90}/{'b' * 10}",
    ],
)
def test_what_is_no_name_of_the_hub(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"write hf://ORG/REPO or hf://ORG/REPO@REVISION"):
        hub_name(text)


def test_names_of_the_hub() -> None:
    assert hub_name("hf://a/b.c-d") == hub_name("hf:/a/b.c-d") == hub_name("hf:\\a\\b.c-d") == HubName("a/b.c-d")
    assert hub_name("hf://a/b@refs/pr/1") == HubName("a/b", "refs/pr/1")
    assert str(HubName("a/b", "v1")) == "hf://a/b@v1"


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setenv("DMCODEC_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r'hf://a/b needs huggingface_hub.*pip install "dmcodec\[hub\]"'):
        Codec.load("hf://a/b")


def test_a_damaged_copy_in_the_cache(hub: Hub, tiny_bundle: Path, store: Store) -> None:
    hub.commit_folder(REPO, tiny_bundle)
    path = bundle_path(f"hf://{REPO}")
    (path / "weights.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="altered or cut"):
        Codec.load(f"hf://{REPO}")
    assert Bundle.open(hub_bundle(NAME, store, refresh=True))
    store.remove_hub(NAME)
    assert not store.repo(REPO).exists()
    assert Bundle.open(bundle_path(f"hf://{REPO}"))
    shutil.rmtree(path)
    assert Bundle.open(bundle_path(f"hf://{REPO}"))  # pinned, but not here: fetched again
