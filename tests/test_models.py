"""Codecs by name: which text names what, pulling into the user's cache, the list, and removing."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import running_hub

from dmcodec.benchmarks.codecs.named import Named
from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.cli import main
from dmcodec.cli.bundles import named_codec
from dmcodec.config import CodecConfig
from dmcodec.errors import (
    ArgumentError,
    BundleNotFoundError,
    DownloadError,
    ExportError,
    MissingDependencyError,
    NameWarning,
    OutputError,
    OutputExistsError,
)
from dmcodec.models.listing import list_models, remove_model
from dmcodec.models.names import KNOWN, HubSource
from dmcodec.models.pulling import PulledBundle, PullOptions, pull_bundle
from dmcodec.models.resolve import bundle_path
from dmcodec.models.store import Store, user_store
from dmcodec.runtime import Codec


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A cache of its own, and a working folder of its own."""
    monkeypatch.setenv("DMCODEC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return user_store()


@pytest.fixture
def pulled(store: Store, tiny_bundle: Path) -> Path:
    """A bundle under the name lm-sm."""
    return Path(shutil.copytree(tiny_bundle, store.pulled("lm-sm")))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        return int(caught.value.code or 0), done.out, done.err

    return run


def test_names_and_paths(pulled: Path, tiny_bundle: Path, store: Store) -> None:
    assert bundle_path(None) == bundle_path("small") == default_bundle_path()
    assert bundle_path("lm-sm") == bundle_path(Path("lm-sm")) == pulled
    assert bundle_path(tiny_bundle) == tiny_bundle
    for missing in ("no/such", "./lm", "such.bundle", ".hidden"):
        assert bundle_path(missing) == Path(missing)  # a path: the error is that of opening it
    with Codec.load("lm-sm", threads=1) as codec:
        assert repr(codec).startswith("Codec(lm-sm ")
    assert Codec.load("small").bundle.path == default_bundle_path()
    assert not (store.folder / "locks").exists()  # reading leaves nothing behind


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lm", r"^lm: is not pulled yet; run `dmcodec pull lm`$"),
        ("encodec-24khz", "run `dmcodec pull encodec-24khz`"),
        ("lm-sn", r"^lm-sn: no such folder, and no codec has this name; did you mean lm-sm\? .*`dmcodec models`"),
        ("speech-tokenizer", r"did you mean speechtokenizer\?"),
        ("SMALL", r"did you mean small\?"),
        ("zzz", "no codec has this name; `dmcodec models` lists the names"),
    ],
)
def test_names_that_are_not_there(name: str, reason: str) -> None:
    for load in (bundle_path, Codec.load):
        with pytest.raises(BundleNotFoundError, match=reason):
            load(name)


def test_a_path_wins_over_a_name(pulled: Path, tiny_bundle: Path) -> None:
    for name in ("small", "lm-sm"):
        here = Path(shutil.copytree(tiny_bundle, name))
        with pytest.warns(
            NameWarning, match=f"^{name}: takes the folder {here.absolute()}, since a path wins.*rename it"
        ):
            assert bundle_path(name) == here
    shutil.copytree(tiny_bundle, "lm")  # not pulled: nothing to confuse it with
    assert bundle_path("lm") == Path("lm")
    (Path("lm") / "manifest.json").unlink()  # as a folder of `dmcodec pull lm --out lm`
    with pytest.raises(
        BundleNotFoundError, match=r"^lm: a file or folder of this name is here and wins .* no bundle; rename"
    ):
        bundle_path("lm")


def test_every_verb_takes_a_name(
    pulled: Path, speech_wav: Path, tiny_bundle: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    model_id = Bundle.open(tiny_bundle).manifest.model_id
    code, out, _ = call("info", "--bundle", "lm-sm", "--json")
    assert (code, json.loads(out)["model_id"], json.loads(out)["bundle"]) == (0, model_id, str(pulled))
    assert call("encode", speech_wav, "-o", "a.dmc", "--bundle", "lm-sm")[0] == 0
    assert call("decode", "a.dmc", "-o", "a.wav", "--bundle", "lm-sm")[0] == 0
    assert call("decode", "a.dmc", "-o", "b.wav", "--bundle", "small")[0] == 1  # tokens of another model
    code, _, errors = call("verify", "--bundle", "lm-sn")
    assert (code, errors.count("\n")) == (1, 1)
    assert "did you mean lm-sm?" in errors
    for verb in (("info",), ("export", "--out", "again.bundle"), ("push", "hf://lab/voice")):
        named = ("lm",) if verb[0] == "push" else ("--bundle", "lm")
        assert call(verb[0], *named, *verb[1:])[2] == "error: lm: is not pulled yet; run `dmcodec pull lm`\n"
    assert "write hf://ORG/REPO" in call("info", "--bundle", "hf://nonsense")[2]


def test_a_codec_by_name_is_evaluated(
    pulled: Path, speech_wav: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    Path("ref").mkdir()
    shutil.copyfile(speech_wav, "ref/a.wav")
    measure = ("evaluate", "--reference", "ref", "--metrics", "si-sdr", "--json")
    code, out, errors = call(*measure, "--codec", "lm-sm", "--codec", "mine=small")
    assert code == 0, errors
    assert '"lm-sm"' in out
    assert '"mine"' in out
    assert "did you mean lm-sm?" in call(*measure, "--codec", "lm-sn")[2]
    assert call(*measure, "--codec", "lm")[2] == "error: lm: is not pulled yet; run `dmcodec pull lm`\n"
    assert "no such bundle or checkpoint" in call(*measure, "--codec", "a" * 300)[2]  # longer than a name may be
    shutil.copytree(pulled, "small")
    with pytest.warns(NameWarning, match="^small: takes the folder"):
        assert named_codec(Named.parse("small")) == Named(Path("small"))
    (Path("small") / "manifest.json").unlink()  # as the folder of a checkpoint
    assert named_codec(Named.parse("small")) == Named(Path("small"))


class Exports:
    """In place of an export: copies a bundle, and counts."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.calls = bundle, list[list[str]]()
        self.fails = 0

    def __call__(self, checkpoint: Path, out: Path) -> Bundle:
        self.calls.append(sorted(path.name for path in checkpoint.iterdir()))
        if self.fails:
            self.fails -= 1
            raise ExportError("stopped")
        shutil.copytree(self.bundle, out)
        return Bundle.open(out)


@pytest.fixture
def exports(tiny_bundle: Path) -> Exports:
    return Exports(tiny_bundle)


@pytest.fixture
def options(tiny_model_files: tuple[Path, Path], tiny_config: CodecConfig) -> PullOptions:
    downloads: list[str] = []

    def fetch(file_id: str, target: Path) -> None:
        downloads.append(file_id)
        shutil.copyfile(tiny_model_files[0], target)

    fetch.downloads = downloads  # type: ignore[attr-defined]
    return PullOptions(fetch=fetch, config=tiny_config)


def downloads(options: PullOptions) -> list[str]:
    return options.fetch.downloads  # type: ignore[union-attr]


def test_pull_fetches_exports_and_keeps(store: Store, exports: Exports, options: PullOptions) -> None:
    done = pull_bundle("lm", exports, store, options)
    assert done.fetched
    assert done.bundle.path == store.pulled("lm") == bundle_path("lm")
    assert exports.calls == [["checkpoint.safetensors", "config.json", "source.json"]]
    assert json.loads((done.bundle.path / "source.json").read_text())["sha256"] == done.sha256
    assert not store.work("lm").exists()
    again = pull_bundle("lm", exports, store, options)
    assert (again.fetched, again.sha256) == (False, done.sha256)
    (done.bundle.path / "decoder.onnx").write_bytes(b"")  # damaged: made again
    assert pull_bundle("lm", exports, store, options).fetched
    assert pull_bundle(
        "lm", exports, store, PullOptions(fetch=options.fetch, config=options.config, force=True)
    ).fetched
    assert len(downloads(options)) == 3


def test_an_interrupted_pull_goes_on(store: Store, exports: Exports, options: PullOptions) -> None:
    exports.fails = 1
    with pytest.raises(ExportError):
        pull_bundle("lm", exports, store, options)
    with pytest.raises(BundleNotFoundError, match="not pulled yet"):
        bundle_path("lm")
    (store.work("lm") / "lm.bundle").mkdir()  # of a process that was killed
    assert pull_bundle("lm", exports, store, options).fetched
    assert len(downloads(options)) == 1


def test_another_checkpoint_under_the_same_name(
    store: Store, exports: Exports, options: PullOptions, tiny_model_files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint = tiny_model_files[0]
    config = options.config
    first = pull_bundle("lm", exports, store, PullOptions(from_file=checkpoint, config=config))
    assert not pull_bundle("lm", exports, store, PullOptions(from_file=checkpoint, config=config)).fetched
    other = tmp_path / "other.pt"
    other.write_bytes(checkpoint.read_bytes() + b" ")
    for wrong in (PullOptions(from_file=other, config=config), PullOptions(sha256="0" * 64)):
        with pytest.raises(OutputExistsError, match=f"lm: is in the cache, .*{first.sha256}.*--force"):
            pull_bundle("lm", exports, store, wrong)
    with pytest.raises(DownloadError, match="sha256"):
        pull_bundle("lm", exports, store, PullOptions(fetch=options.fetch, config=config, sha256="0" * 64, force=True))
    assert bundle_path("lm")  # what was there stays


def test_two_pulls_at_once(store: Store, exports: Exports, options: PullOptions) -> None:
    waits: list[str] = []
    found: list[PulledBundle] = []

    def slow(file_id: str, target: Path) -> None:
        assert options.fetch
        time.sleep(0.3)
        options.fetch(file_id, target)

    def run() -> None:
        found.append(
            pull_bundle("lm", exports, store, replace(options, fetch=slow), waiting=lambda: waits.append("waits"))
        )

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.fetched for each in found) == [False, True]
    assert waits == ["waits"]
    assert len(exports.calls) == 1


CAUSAL = json.dumps(CodecConfig(sample_rate=24000, causal=True).to_dict()).encode()


def test_encodec_is_one_row(
    store: Store, exports: Exports, tiny_model_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files go to the export as they are: `dmcodec export --checkpoint FOLDER` reads them."""
    pytest.importorskip("huggingface_hub")
    row = KNOWN["encodec-24khz"]
    assert isinstance(row.source, HubSource)
    causal = CodecConfig(sample_rate=24000, causal=True).to_dict()
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.commit(
            row.source.repo,
            {"config.json": json.dumps(causal).encode(), "model.safetensors": b"weights" * 1000, "other.bin": b""},
        )
        done = pull_bundle("encodec-24khz", exports, store)
        assert sorted(hub.asked()) == ["config.json", "model.safetensors"]
    assert exports.calls == [["config.json", "model.safetensors", "source.json"]]
    assert bundle_path("encodec-24khz") == done.bundle.path
    (store.folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(
        FileNotFoundError, match=r"config\.json: is missing; put the config\.json of facebook/encodec_24khz"
    ):
        pull_bundle("encodec-24khz", exports, store, PullOptions(store.folder / "model.safetensors", force=True))


def test_the_command(
    tiny_model_files: tuple[Path, Path],
    exports: Exports,
    store: Store,
    call: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a real export, the command is run in test_speechtokenizer.py."""
    release = tmp_path / "release"
    release.mkdir()
    for file in tiny_model_files:
        shutil.copyfile(file, release / file.name)
    monkeypatch.setattr("dmcodec.cli.pull.write_bundle", lambda weights, out, force: exports(weights.checkpoint, out))
    code, out, errors = call("pull", "lm", "--from-file", release)
    assert code == 0, errors
    assert f"in {store.pulled('lm')}" in out
    assert "--bundle lm" in out
    assert exports.calls == [["checkpoint.safetensors", "config.json", "source.json"]]
    code, out, _ = call("pull", "lm", "--json")
    assert (code, json.loads(out)["fetched"], json.loads(out)["name"]) == (0, False, "lm")
    code, out, _ = call("pull", "lm", "--from-file", release, "--out", "checkpoint")
    assert code == 0
    assert "next: dmcodec export --checkpoint checkpoint/checkpoint.safetensors" in out
    for arguments, reason in (
        (("lm-sn",), "did you mean lm-sm?"),
        (("small",), "comes with dmcodec, there is nothing to pull"),
        (("lm", "--out", "x", "--force"), "--force is for the user's cache"),
        (("hf://a/b", "--sha256", "0"), "are for released models"),
    ):
        code, _, errors = call("pull", *arguments)
        assert (code, errors.count("\n")) == (2, 1)
        assert reason in errors


def test_the_list_and_removing(
    pulled: Path, store: Store, tiny_bundle: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    commit = "a" * 40
    shutil.copytree(tiny_bundle, store.hub_bundle("lab/voice", commit))
    from dmcodec.models.names import HubName

    store.pin(HubName("lab/voice", "v1"), commit)
    shutil.copytree(tiny_bundle, store.pulled("lm"))
    (store.pulled("lm") / "manifest.json").write_text("{")
    found = {each.name: each for each in list_models(store)}
    states = {name: each.state for name, each in found.items()}
    assert states == {
        "small": "built-in", "lm-sm": "pulled", "lm": "damaged", "hf://lab/voice@v1": "hub",
        "speechtokenizer": "can be pulled", "encodec-24khz": "can be pulled",
    }  # fmt: skip
    out = call("models", "--json")[1]
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    manifest = Bundle.open(tiny_bundle).manifest
    assert rows["lm-sm"]["size_bytes"] == manifest.size_bytes
    assert rows["lm-sm"]["decoder_snr_db"] == manifest.parity["decoder_snr_db"]
    assert rows["speechtokenizer"]["bundle"] is None
    assert "problem" in rows["lm"]
    out = call("models")[1]
    assert all(name in out for name in found)
    assert f"{manifest.size_bytes / 1e6:.1f}" in out

    assert call("models", "--remove", "lm-sm")[0] == 0
    assert not pulled.exists()
    assert call("models", "--remove", "hf://lab/voice@v1")[0] == 0
    assert not store.repo("lab/voice").exists()
    remove_model("lm", store)
    assert [each.name for each in list_models(store) if each.path] == ["small"]
    for name, kind, reason in (
        ("small", ArgumentError, "comes with dmcodec"),
        ("lm", BundleNotFoundError, "is not pulled"),
        ("hf://lab/voice", BundleNotFoundError, "is not in the cache"),
        ("lm-sn", ArgumentError, "did you mean lm-sm"),
        ("../cache", ArgumentError, "no codec's name"),
    ):
        with pytest.raises(kind, match=reason):
            remove_model(name, store)


def test_without_platformdirs(monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str, str]]) -> None:
    monkeypatch.delenv("DMCODEC_CACHE")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert bundle_path("small") == default_bundle_path()
    with pytest.raises(MissingDependencyError, match=r'a codec by name, without DMCODEC_CACHE, .*"dmcodec\[hub\]"'):
        bundle_path("lm")
    code, out, errors = call("models")
    assert (code, "small" in out, "the cache is not listed" in errors) == (0, True, True)
    monkeypatch.setenv("DMCODEC_CACHE", "relative")
    assert user_store().folder == Path("relative").absolute()


def test_a_cache_that_can_not_be_written(store: Store, exports: Exports, options: PullOptions, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: can't be written, and bundles are kept there; set DMCODEC_CACHE"):
        pull_bundle("lm", exports, Store(tmp_path / "file"), options)
    store.folder.mkdir()
    (store.folder / "models").touch()
    with pytest.raises(OutputError, match=r"models: can't be written"):
        pull_bundle("lm", exports, store, options)


def test_a_pull_says_at_once_that_a_package_is_missing(
    store: Store, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, extra, name in (("torch", "pull", "lm"), ("onnxruntime", "cpu", "lm"), ("gdown", "pull", "lm")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingDependencyError, match=rf"dmcodec pull lm needs {module}.*\[{extra}\]"):
                pull_bundle(name, exports, store)
    assert [path.name for path in store.folder.iterdir()] == ["locks"]
