"""Names of codecs: `small`, those that `dmcodec pull` fetches, and `hf://ORG/REPO[@REVISION]`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dmcodec.errors import ArgumentError

SMALL = "small"  # the bundle that comes with dmcodec
HUB_PREFIX = "hf://"
DEFAULT_REVISION = "main"

# As text, and as `Path` writes it: with one slash, or a backslash.
_HUB = re.compile(r"hf:[/\\]{1,2}(?P<rest>.*)", re.DOTALL)
_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]*(?<![.-])"
_REPO = re.compile(rf"(?=.{{1,96}}$)(?P<repo>{_PART}/{_PART})")  # as the hub takes them
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}")
COMMIT = re.compile(r"[0-9a-f]{7,64}")  # as an answer names it, which is the name of a folder, too


@dataclass(frozen=True)
class DriveSource:
    """A checkpoint on Google Drive."""

    file_id: str

    @property
    def shown(self) -> str:
        """The source in words."""
        return f"Google Drive file {self.file_id}"


@dataclass(frozen=True)
class HubSource:
    """A checkpoint in a repository of the Hugging Face hub.

    Attributes:
        repo: ORG/REPO.
        weights: path of the weights in it.
        config: path of the configuration in it.
    """

    repo: str
    weights: str
    config: str

    @property
    def shown(self) -> str:
        """The source in words."""
        return f"{self.repo} on the Hugging Face hub"


@dataclass(frozen=True)
class Known:
    """A codec that `dmcodec pull` fetches by its name.

    Attributes:
        title: what it is, in words.
        source: where its checkpoint is.
        converts: whether the checkpoint is one of DM-Codec's layout, which is converted to safetensors; else the files
            of the source are exported as they are, by `dmcodec export --checkpoint FOLDER`.
        sample_rate: of the codec, in Hz.
        causal: whether the codec is.
    """

    title: str
    source: DriveSource | HubSource
    converts: bool = True
    sample_rate: int = 16000
    causal: bool = False


# The release of DM-Codec's authors (arXiv 2410.15017), of SpeechTokenizer's (arXiv 2308.16692), and of EnCodec's (arXiv
# 2210.13438).
KNOWN: Mapping[str, Known] = {
    "lm-sm": Known("DM-Codec with both teachers (LM and SM), 16 kHz", DriveSource("1pvrPcbUTUAlo2_iGLIIf7IFNJPfzmHbh")),
    "lm": Known("DM-Codec with the language model's teacher, 16 kHz", DriveSource("14DMrDzIssP-8qzXBG8v65ctF4WPA_Uyv")),
    "speechtokenizer": Known(
        "SpeechTokenizer, trained on HuBERT's average, 16 kHz",
        HubSource(
            "fnlp/SpeechTokenizer",
            "speechtokenizer_hubert_avg/SpeechTokenizer.pt",
            "speechtokenizer_hubert_avg/config.json",
        ),
    ),
    "encodec-24khz": Known(
        "EnCodec, causal, 24 kHz",
        HubSource("facebook/encodec_24khz", "model.safetensors", "config.json"),
        converts=False,
        sample_rate=24000,
        causal=True,
    ),
}


@dataclass(frozen=True)
class HubName:
    """A bundle on the hub: repository ORG/REPO, and a branch, a tag or a commit."""

    repo: str
    revision: str = DEFAULT_REVISION

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _WHOLE_COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        at = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{HUB_PREFIX}{self.repo}{at}"


def is_hub_name(text: str) -> bool:
    """Return whether a text, or the text of a path, begins as the name of a bundle on the hub."""
    return _HUB.match(text) is not None


def hub_name(text: str) -> HubName:
    """Parse `hf://ORG/REPO[@REVISION]`, also as `Path` writes it.

    Raises:
        ArgumentError: it is no such name.
    """
    match = _HUB.match(text)
    repo, at, revision = (match["rest"].replace("\\", "/") if match else "").partition("@")
    found = _REPO.fullmatch(repo.rstrip("/") if not at else repo)
    if found is None or (at and not _REVISION.fullmatch(revision)):
        raise ArgumentError(
            f"hf://{match['rest'] if match else text}: no bundle on the hub is called so; write hf://ORG/REPO or hf://ORG/REPO@REVISION"
        )
    return HubName(found["repo"], revision or DEFAULT_REVISION)


def known(name: str) -> Known:
    """Return the row of a name that can be pulled.

    Raises:
        ArgumentError: there is none; the message has the names, the nearest first.
    """
    if name == SMALL:
        raise ArgumentError(f"{SMALL}: comes with dmcodec, there is nothing to pull; load it by this name")
    if name not in KNOWN:
        raise ArgumentError(
            f"{name!r} is not a released model; {did_you_mean(name)}use one of {', '.join(KNOWN)}, or hf://ORG/REPO"
        )
    return KNOWN[name]


def did_you_mean(name: str) -> str:
    """Return a question with the names that are like `name`, or "" where none is."""
    near = difflib.get_close_matches(name.lower(), (SMALL, *KNOWN), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}? " if near else ""
