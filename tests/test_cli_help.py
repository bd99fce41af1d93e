"""Help texts, usage errors and progress of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from dmcodec.cli.app import build_app
from dmcodec.cli.progress import ProgressLines


def verbs() -> Iterator[tuple[str, Any]]:
    """Yield path and click command of each verb."""
    for name, command in typer.main.get_command(build_app()).commands.items():  # type: ignore[attr-defined]
        for sub, each in getattr(command, "commands", {None: command}).items():
            yield f"{name} {sub}" if sub else name, each


VERBS = dict(verbs())
GROUPS = ("", "train")
# Typer has a copy of click from 0.26 on; with older releases, click 8.5 forgets the help of arguments.
OWN_CLICK = find_spec("typer._click") is not None


@pytest.mark.parametrize("verb", [*GROUPS, *VERBS])
def test_help_fits_80_columns(verb: str, call: Any) -> None:
    code, text, errors = call(*verb.split(), "--help")
    assert (code, errors) == (0, "")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "<bool>" not in text
    assert "<" not in text  # no type that typer adds by itself
    # No ladder of single words: the column of help texts is at least 30 wide.
    for line in text.splitlines():
        if match := re.match(r"│ \*?\s*--\S+.*?\s{2,}(\S.*?)\s*│$", line):
            start = line.index(match[1])
            assert len(line) - start > 30, line


@pytest.mark.parametrize("verb", VERBS)
def test_options_have_units_and_say_their_default_once(verb: str) -> None:
    for parameter in VERBS[verb].params:
        text = f"{verb} {parameter.name}: {parameter.help}"
        if parameter.help is None and parameter.param_type_name == "argument" and not OWN_CLICK:
            continue
        assert parameter.help, text
        assert parameter.help.endswith("."), text
        assert parameter.help.count("default") <= 1, text
        flag = getattr(parameter, "is_flag", False)
        assert flag or parameter.metavar, text
        if parameter.param_type_name == "option" and not flag and parameter.default is not None:
            value = parameter.default
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            assert f"(default: {shown}" in parameter.help or shown in parameter.help, text


def test_the_same_option_is_explained_by_the_same_words() -> None:
    """Options with one meaning have one text in all verbs; those of `train` and `export` mean other things."""
    shared = ("bundle", "backend", "provider", "threads", "n_q", "report", "as_json", "engine_cache", "device_id")
    for name in shared:
        texts = {
            parameter.help
            for verb, command in VERBS.items()
            if not verb.startswith(("train", "export", "doctor"))
            for parameter in command.params
            if parameter.name == name
        }
        assert len(texts) == 1, texts


def test_the_output_and_the_bundle_have_one_name() -> None:
    writing = ("encode", "decode", "reconstruct", "export", "doctor", "pull", "train prepare", "train fit")
    options = {verb: {name for each in command.params for name in each.opts} for verb, command in VERBS.items()}
    assert all({"--out", "-o"} <= options[verb] for verb in writing)
    assert not any({"--output", "--recogniser"} & names for names in options.values())
    for verb in ("encode", "decode", "reconstruct", "export", "bench", "verify", "doctor", "info"):
        assert "--bundle" in options[verb]
        [bundle] = [each for each in VERBS[verb].params if each.name == "bundle"]
        assert bundle.metavar == "BUNDLE"


@pytest.mark.parametrize("verb", GROUPS)
def test_a_group_alone_shows_its_help(verb: str, call: Any) -> None:
    assert call(*verb.split()) == call(*verb.split(), "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), ("no such command 'nonsense'", "see dmcodec --help")),
        (("train", "nonsense"), ("no such command", "see dmcodec train --help")),
        (("encode",), ("missing argument 'IN'", "see dmcodec encode --help")),
        (("encode", "a.wav"), ("missing option '--out' / '-o'", "see dmcodec encode --help")),
        (("encode", "a.wav", "--output", "a.dmc"), ("no such option", "--output", "see dmcodec encode --help")),
        (("encode", "a.wav", "-o", "a.dmc", "--threads", "many"), ("'--threads'", "integer", "dmcodec encode --help")),
        (("encode", "a.wav", "-o"), ("-o", "requires an argument", "see dmcodec encode --help)")),
        (("verify", "x.bundle"), ("x.bundle", "--bundle BUNDLE", "see dmcodec verify --help")),
        (("bench", "x.bundle"), ("x.bundle", "--bundle BUNDLE", "see dmcodec bench --help")),
        (("doctor", "x.bundle"), ("x.bundle", "--bundle BUNDLE", "see dmcodec doctor --help")),
        (("pull", "lm", "folder"), ("--out",)),
        (("bench", "--batch", "1,two"), ("--batch 'two' is not a whole number",)),
        (("bench", "--duration", "long"), ("--duration 'long' is not a number",)),
        (("export", "--seed", "0", "--out", "x", "--refit"), ("--refit is for --format trt only",)),
        (("export", "--seed", "0", "--out", "x", "--kind", "gpu"), ("--kind is for --format triton only",)),
        (("export", "--seed", "0", "--out", "x", "--bundle", "x"), ("--bundle: it has its weights",)),
        (("export", "--format", "triton", "--out", "x", "--batch", "4"), ("--batch is for --format trt only",)),
    ],
)
def test_a_usage_error_is_one_line(arguments: tuple[str, ...], words: tuple[str, ...], call: Any) -> None:
    code, out, errors = call(*arguments)
    assert (code, out) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    for word in words:
        assert word in errors


def test_a_folder_is_no_token_file(tmp_path: Path, call: Any) -> None:
    code, _, errors = call("info", tmp_path)
    assert code == 2
    assert f"run `dmcodec info --bundle {tmp_path}`" in errors
    assert call("info", "a.dmc", "--bundle", tmp_path)[0] == 2


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_progress_in_a_log_is_a_line_every_10_seconds_and_one_at_the_end() -> None:
    clock, lines = Clock(), list[str]()
    report = ProgressLines(lines.append, clock)
    for second in range(36):
        clock.now_s = float(second)
        report("encode, files", second, 35)
    assert lines == [
        "encode, files: 10 of 35 after 10 s",
        "encode, files: 20 of 35 after 20 s",
        "encode, files: 30 of 35 after 30 s",
        "encode, files: 35 of 35 after 35 s",
    ]


def test_short_work_writes_no_progress_in_a_log() -> None:
    clock, lines = Clock(), list[str]()
    report = ProgressLines(lines.append, clock)
    for stage in ("load", "measure"):
        for done in range(5):
            clock.now_s += 0.9
            report(stage, done, 4)
    assert lines == []
    clock.now_s += 11
    report("encode", 1, 1, "loss 0.5")
    assert lines == ["encode (loss 0.5): 1 of 1 after 11 s"]
