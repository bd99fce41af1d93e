"""Checkpoints of the hub, which huggingface_hub fetches into its own cache, against a stand-in of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, running_hub

from dmcodec.checkpoint_files import find_checkpoint
from dmcodec.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DmcodecError,
    DownloadError,
    HubUnreachableError,
)
from dmcodec.hub_checkpoints import fetch_checkpoint

pytest.importorskip("huggingface_hub")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, where huggingface_hub looks for the hub, with a cache of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for variable in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "client"))
    with running_hub() as hub:
        monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)  # read at its import
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def test_a_checkpoint_of_the_hub(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    files = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "model.bin": b"pickle",
        "deep/other.safetensors": b"",
    }
    hub.commit("lab/plain", files)
    folder = fetch_checkpoint("lab/plain")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    hub.commit("lab/torch", {"codec.pt": b"weights", "epochs/1.pt": b"weights"})
    assert {path.name for path in fetch_checkpoint(Path("lab/torch@main")).iterdir()} == {"codec.pt"}
    done = capfd.readouterr()
    assert (done.out, done.err) == ("", "")


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("lab/none", CheckpointNotFoundError, "no such file or folder; .*no such repository, or it is private"),
        ("lab/model@v9", CheckpointNotFoundError, "no such file or folder; .*no revision 'v9'; name a branch"),
        ("lab/gated", DownloadError, "is gated; accept its terms"),
        ("lab/busy", DownloadError, "too many requests"),
        ("lab/down", DownloadError, "status 503; run the same command again later, or name a folder"),
        ("fnlp/SpeechTokenizer", CheckpointNotFoundError, "has no weights .*run `dmcodec pull speechtokenizer`"),
        ("lab/model", CheckpointNotFoundError, "has no weights .*where they are in one of its folders"),
        ("lab/voice", CheckpointError, "is a bundle, not a checkpoint; give it with --bundle hf://lab/voice"),
        ("hf://lab/voice", CheckpointNotFoundError, "^hf://lab/voice: is the name of a bundle"),
        ("speechtokenizer", CheckpointNotFoundError, "the name of a codec; run `dmcodec pull speechtokenizer`"),
        (f"a/{'b' * 300}", CheckpointNotFoundError, "no such checkpoint file$"),
        ("a--b/c", CheckpointNotFoundError, "no such checkpoint file$"),
        ("folder", CheckpointNotFoundError, "^folder: no such checkpoint file$"),
    ],
)
def test_checkpoints_that_the_hub_does_not_give(
    name: str, error: type[DmcodecError], reason: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.commit("lab/voice", {"manifest.json": b"{}", "weights.bin": b""})
    for repo in ("fnlp/SpeechTokenizer", "lab/model"):
        hub.commit(repo, {"README.md": b"", "average/weights.pt": b"", "average/config.json": b""})
    hub.errors |= {"lab/gated": (403, "GatedRepo"), "lab/busy": (429, ""), "lab/down": (503, "")}
    with pytest.raises(error, match=reason) as caught:
        find_checkpoint(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)
    assert "average/weights.pt" not in hub.asked()


def test_no_network_for_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(HubUnreachableError, match=r"lab/model: no such file or folder, .*can't be reached; connect"):
        find_checkpoint("lab/model")
