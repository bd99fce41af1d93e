"""The documentation: every command in it runs or parses, every link and name in it exists.

A fenced block of `sh` or `python` is run as it is written, page by page: those of CONTRIBUTING.md in the clone, the
others in a folder that holds these files:

    speech.wav                          two seconds of speech, 16 kHz
    speech/a.wav, speech/more/b.wav     a folder of speech
    speech.dmc, codes.u16               tokens of speech.wav by the codec that comes with dmcodec; the same as raw codes
                                        (no speech.dmc where the page writes it itself)
    checkpoint.safetensors, config.json an untrained checkpoint of few channels
    my.bundle                           its bundle

`<!-- in tests: steps = 2 -->` on the line before the fence runs a block with another value of a variable that it sets.
A comment there keeps a block from being run: `<!-- needs: network -->`, gpu, hours (of
computing), or files (that only the reader has). Of such a block every call of dmcodec must parse.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from commands import check_command

from dmcodec.config import CodecConfig

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    path for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *DOCS.rglob("*.md")) if path.is_file()
)
LINKING = (*PAGES, REPOSITORY / "CHANGELOG.md")
NEEDS = {"network", "gpu", "hours", "files"}
MAX_COLUMNS = 140
# Options of other programs that the pages name in prose.
FOREIGN_OPTIONS = {"--multi_gpu", "--no-deps", "--data-path", "--disable-usage-stats", "--head"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"<!-- needs: (\S+) -->\n\Z")
_IN_TESTS = re.compile(r"<!-- in tests: (\w+) = (\S+) -->\n\Z")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block. `needs` says what keeps it from being run; empty where it is run."""

    line: int
    language: str
    text: str
    needs: str


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        needs = _NEEDS.search(before)
        found.append(Block(before.count("\n") + 1, match[1], in_tests(before, match[2]), needs[1] if needs else ""))
    return found


def in_tests(before: str, text: str) -> str:
    """A block as it is run: a mark before it gives one variable another value."""
    mark = _IN_TESTS.search(before)
    if not mark:
        return text
    changed, times = re.subn(rf"^{mark[1]} = .*$", f"{mark[1]} = {mark[2]}", text, flags=re.MULTILINE)
    assert times == 1, f"{mark[0]!r}: the block sets {mark[1]} {times} times"
    return changed


def prose(page: Path) -> str:
    """The page without its fenced blocks, with as many lines."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))


def spans(page: Path) -> Iterator[str]:
    """Code within the prose."""
    for span in re.findall(r"`([^`]+)`", prose(page)):
        yield " ".join(span.replace("\\|", "|").split())


RUN = [page for page in PAGES if any(b.language in ("sh", "python") and not b.needs for b in blocks(page))]


@pytest.fixture(scope="session")
def verbs() -> dict[str, Any]:
    """Each verb's click command by its full name, such as `train fit`: what the site's reference is generated from."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return dict(hooks.verbs())


@pytest.fixture(scope="session")
def examples(speech_wav: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that the pages name; don't alter it. Its checkpoint is as small as an export allows."""
    from safetensors.torch import save_file

    from dmcodec.export import Source, export_bundle
    from dmcodec.nn import DMCodec
    from dmcodec.runtime import Codec

    folder = tmp_path_factory.mktemp("examples")
    (folder / "speech" / "more").mkdir(parents=True)
    for name in ("speech.wav", "speech/a.wav", "speech/more/b.wav"):
        shutil.copyfile(speech_wav, folder / name)
    tokens = Codec.load().encode_file(folder / "speech.wav", folder / "speech.dmc")
    (folder / "codes.u16").write_bytes(tokens.codes.T.astype("<u2").tobytes())
    config = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, lstm_layers=1, codebook_size=16)
    model = DMCodec.seeded(config)
    save_file(model.state_dict(), folder / "checkpoint.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    export_bundle(model, folder / "my.bundle", source=Source(seed=0))
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `dmcodec` is this working tree's."""
    folder = tmp_path_factory.mktemp("bin")
    for program in ("dmcodec", "pytest"):
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m {program} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    python_path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": python_path,
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, examples: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = REPOSITORY if page.name == "CONTRIBUTING.md" else shutil.copytree(examples, tmp_path / "folder")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "page"}
    run = [block for block in blocks(page) if block.language in ("sh", "python") and not block.needs]
    if any("-o speech.dmc" in block.text for block in run):
        Path("speech.dmc").unlink()
    for block in run:
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            exec(compile(block.text, where, "exec"), names)
            continue
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, f"{where}\n{block.text}\n{done.stderr.decode()}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_call_parses(page: Path) -> None:
    for block in blocks(page):
        assert block.needs in {"", *NEEDS}, f"{name_of(page)}:{block.line}: unknown mark {block.needs!r}"
        if block.language == "python":
            compile(block.text, name_of(page), "exec")
        elif block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                check_command(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_calls_and_options_in_the_prose_exist(page: Path, verbs: dict[str, Any]) -> None:
    known = {verb: {"--help", "--debug", *options(command)} for verb, command in verbs.items()}
    anywhere = {"--version"}.union(FOREIGN_OPTIONS, *known.values())
    for span in spans(page):
        if span.startswith("dmcodec ") and not span.startswith("dmcodec --"):
            if span == "dmcodec train":
                continue
            words = span.split()[1:]
            length = 2 if words[0] == "train" else 1
            verb, rest = " ".join(words[:length]), words[length:]
            assert verb in verbs, f"{name_of(page)}: `{span}`: no verb {verb!r}"
            unknown = {word for word in rest if re.match(r"--?[a-z]", word)} - known[verb]
        else:
            unknown = set(re.findall(r"(?:(?<=\s)|^)--[a-z][\w-]*", span)) - anywhere
        if not span.startswith(("pip ", "pytest ", "accelerate ", "mkdocs ", "tensorboard ")):
            assert not unknown, f"{name_of(page)}: `{span}`: no option {unknown}"


def options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_the_package_exist(page: Path) -> None:
    names = [span for span in spans(page) if re.fullmatch(r"dmcodec(\.\w+)+", span) and not span.endswith(".json")]
    for name in names + re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        parts = name.split(".")
        module = importlib.import_module(parts[0])
        value: Any = module
        for index, part in enumerate(parts[1:], start=2):
            if not hasattr(value, part):
                importlib.import_module(".".join(parts[:index]))
            value = getattr(value, part)


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in {slug(heading) for heading in headings(path)}, f"{name_of(page)}: {target}"


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor that the site gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_lines_of_prose_are_short(page: Path) -> None:
    long = [
        f"{name_of(page)}:{number}"
        for number, line in enumerate(prose(page).splitlines(), start=1)
        if len(line) > MAX_COLUMNS and not line.startswith("|")
    ]
    assert not long


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_fence_escapes_these_tests(page: Path) -> None:
    assert "```" not in prose(page)
    # test_web_documentation.py runs blocks of js.
    assert not {block.language for block in blocks(page)} - {"sh", "python", "text", "js", "html"}


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = re.findall(r"\S+\.md$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_speech_is_what_the_examples_say(examples: Path) -> None:
    info = soundfile.info(examples / "speech.wav")
    assert (info.frames, info.samplerate) == (32000, 16000)
