"""Models and datasets that can't be loaded: our own sentence, and the library's words in the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmcodec.audio_sources import DatasetOptions, find_sources
from dmcodec.errors import DmcodecError, InputNotFoundError
from dmcodec.pretrained.failures import reason


class LocalEntryNotFoundError(Exception):
    """As the hub's library calls it."""


class RepositoryNotFoundError(Exception):
    """Likewise."""


class GatedRepoError(RepositoryNotFoundError):
    """Likewise."""


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


OFFLINE = OSError("We couldn't connect to 'https://hub' to load the files, and couldn't find them in the cached files.")


@pytest.mark.parametrize(
    ("error", "model_id", "words"),
    [
        (OFFLINE, "org/name", "hub can't be reached; go online, or name a folder"),
        (caused(OSError("x"), LocalEntryNotFoundError("y")), "org/name", "hub can't be reached"),
        (caused(OSError("x"), RepositoryNotFoundError("401")), "org/name", "no such model, or it is private"),
        (caused(OSError("x"), GatedRepoError("403")), "org/name", "accept its terms"),
        (OFFLINE, "./folder", "there is no such folder"),
        (OFFLINE, "models/a/b", "there is no such folder"),
        (OSError("no file named model.safetensors"), "org/name", "files of it are missing"),
        (
            ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"),
            "org/name",
            "needs sentencepiece",
        ),
        (
            ImportError("XTokenizer requires the SentencePiece library but it was not"),
            "org/name",
            "needs SentencePiece",
        ),
        (ValueError("Unrecognized model"), "org/name", "of another kind of model"),
    ],
)
def test_each_failure_has_its_sentence(error: BaseException, model_id: str, words: str) -> None:
    text = reason(error, model_id)
    assert words in text
    assert str(error) not in text


def test_folders_are_told_apart(tmp_path: Path) -> None:
    assert "holds no config.json" in reason(OSError("x"), str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "incomplete, damaged" in reason(OSError("x"), str(tmp_path))


def test_the_words_of_the_library_stay_in_the_cause(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from dmcodec.pretrained.recognisers import load_recogniser

    with pytest.raises(DmcodecError, match=r"recogniser .* can't be loaded: this folder holds no config") as caught:
        load_recogniser(str(tmp_path), "cpu", 16000)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ValueError("Unknown split \"dev\". Should be one of ['train', 'test']."),
            r"only \['train', 'test'\]; name ano",
        ),
        (ValueError("BuilderConfig 'x' not found"), "hf:NAME:CONFIG"),
        (ConnectionError("Couldn't reach 'x' on the Hub"), "hub can't be reached"),
        (ModuleNotFoundError("No module named 'torchcodec'", name="torchcodec"), "needs torchcodec"),
        (RuntimeError("404"), "no such dataset"),
    ],
)
def test_datasets_have_sentences_of_their_own(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputNotFoundError, match=words) as caught:
        find_sources(["hf:org/name"], None, DatasetOptions("dev"))
    assert caught.value.__cause__ is error
