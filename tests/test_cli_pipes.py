"""stdin, stdout and pipes; signals and workers; outputs that nobody takes; encodings of stdout."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from platforms import linux, posix

from dmcodec.sample import SPEECH_FILE, speech
from dmcodec.tokens import Tokens

DMCODEC = [sys.executable, "-c", "from dmcodec.cli import main; main()"]

pytestmark = posix


def run(bundle: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*DMCODEC, *map(str, arguments), "--bundle", str(bundle)]
    return subprocess.run(command, capture_output="stdout" not in options, timeout=300, check=False, **options)  # type: ignore[call-overload]


def test_a_pipe_through_encode_and_decode(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    encoded = run(tiny_bundle, "encode", "-", "-o", "-", input=speech_wav.read_bytes(), cwd=tmp_path)
    assert encoded.returncode == 0, encoded.stderr
    assert b"stdout: " in encoded.stderr
    (tmp_path / "t.dmc").write_bytes(encoded.stdout)
    assert Tokens.load(tmp_path / "t.dmc").num_samples == soundfile.info(speech_wav).frames
    decoded = run(tiny_bundle, "decode", "-", "-o", "-", input=encoded.stdout, cwd=tmp_path)
    assert soundfile.info(io.BytesIO(decoded.stdout)).frames == soundfile.info(speech_wav).frames
    again = run(tiny_bundle, "reconstruct", "-", "-o", "-", input=speech_wav.read_bytes(), cwd=tmp_path)
    assert len(again.stdout) == len(decoded.stdout)
    command = [*DMCODEC, "info", "-", "--json"]
    shown = subprocess.run(command, input=encoded.stdout, capture_output=True, timeout=60, check=True)
    assert json.loads(shown.stdout)["file_bytes"] == len(encoded.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["t.dmc"]


def test_names_of_pipes(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    script = (
        'cat "$1" | "${@:3}" encode /dev/stdin -o "$2"/a.dmc && "${@:3}" encode <(cat "$1") -o /dev/stdout >"$2"/b.dmc'
    )
    program = tmp_path / "run"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dmcodec "$@" --bundle "{tiny_bundle}"\n')
    program.chmod(0o755)
    command = ["bash", "-c", script, "bash", str(speech_wav), str(tmp_path), str(program)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.dmc").read_bytes() == (tmp_path / "b.dmc").read_bytes()


def test_usage_of_pipes(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    cases = [
        ((speech_wav, "-o", "-", "--json"), b"both go to stdout"),
        ((speech_wav, speech_wav.parent, "-o", "-"), b"stdout takes one file"),
        (("-", speech_wav, "-o", tmp_path), b"stands alone"),
        (("-", "-o", tmp_path, "--jobs", "2"), b"other processes can't read stdin"),
        (("-", "-o", tmp_path, "--channel", "each"), b"stdin: can be read once only"),
        ((speech_wav, "-o", "-", "--channel", "each"), b"takes one channel"),
    ]
    for arguments, words in cases:
        done = run(tiny_bundle, "encode", *arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        assert words in done.stderr
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    done = run(tiny_bundle, "encode", speech_wav, "-o", "-", stdout=end, stderr=subprocess.PIPE)
    os.close(end)
    os.close(terminal)
    assert done.returncode == 2
    assert b"stdout is a terminal" in done.stderr


def test_errors_of_stdin_name_it_once(tiny_bundle: Path, tmp_path: Path) -> None:
    for arguments in (
        ("encode", "-", "-o", tmp_path / "t.dmc"),
        ("decode", "-", "-o", tmp_path / "a.wav"),
        ("info", "-"),
    ):
        command = [*DMCODEC, *map(str, arguments)]
        done = subprocess.run(command, input=b"nonsense", capture_output=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: stdin: ")
        assert (done.stderr.count(b"\n"), done.stderr.count(b"stdin")) == (1, 1)
        closed = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, timeout=60, check=False)
        assert (closed.returncode, closed.stderr) == (2, b"error: - is stdin, which is closed; name a file\n")
    assert not any(tmp_path.iterdir())


@linux
def test_a_stdout_that_takes_nothing_is_one_error(tiny_bundle: Path, speech_wav: Path) -> None:
    gone, end = os.pipe()
    os.close(gone)
    calls = [("encode", speech_wav, "-o", "-"), ("info",), ("decode", "--stream")]
    tokens = run(tiny_bundle, "encode", speech_wav, "-o", "-").stdout
    with Path("/dev/full").open("wb") as full, os.fdopen(end, "wb") as closed:
        for target, words in ((full, b"No space left"), (closed, b"its reader has ended")):
            for arguments in calls:
                done = run(tiny_bundle, *arguments, input=tokens, stdout=target, stderr=subprocess.PIPE)
                lines = done.stderr.splitlines()
                assert (done.returncode, len(lines)) == (1, 1), done.stderr
                assert lines[0].startswith(b"error: stdout: can't be written (")
                assert words in lines[0]
                assert lines[0].count(b"can't be written") == 1


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_tables_on_a_stdout_without_their_characters(tmp_path: Path, encoding: str) -> None:
    code = """
from dmcodec.cli.standard_streams import prepared_streams
from dmcodec.cli.common import console
from dmcodec.benchmarks.tables import Table, print_tables
from rich.table import Table as Boxed
import typer
with prepared_streams():
    print_tables("a \\u2192 b \\u2026", [Table("t", ("STOI \\u2191", "x"), (("1 \\u2013 2", "\\u65e5"),))], console())
    table = Boxed("a"); table.add_row("b"); console().print(table)
    typer.echo("caf\\udce9 \\u2014 \\u2502\\u256d")
    typer.echo("caf\\udce9 \\u2502", err=True)
"""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("latin-1")
    dots, dash = ("...", "-") if encoding == "ascii" else ("\x85", "\x96")
    for words in (f"a -> b {dots}", "STOI ^", f"1 {dash} 2", "\\u65e5", "caf\xe9 ", "|+"):
        assert words in text
    assert "caf\xe9 |" in done.stderr.decode("latin-1")


def test_an_interruption_says_how_to_go_on(tiny_bundle: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    soundfile.write(tmp_path / "clip.wav", speech(20 * 16000, 16000), 16000)
    for index in range(60):
        (inputs / f"{index:03}.wav").symlink_to(tmp_path / "clip.wav")
    for jobs, number, code in (("1", signal.SIGINT, 130), ("2", signal.SIGINT, 130), ("2", signal.SIGHUP, 129)):
        out = tmp_path / f"out{jobs}{code}"
        command = [*DMCODEC, "encode", inputs, "-o", out, "--bundle", tiny_bundle, "--jobs", jobs, "--threads", "1"]
        command.append("--json")
        printed = tmp_path / f"{out.name}.json"
        with printed.open("wb") as stdout, subprocess.Popen(
            [*map(str, command)], stdout=stdout, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 60
            while not (out.is_dir() and any(out.glob("*.dmc"))) and time.monotonic() < deadline:
                time.sleep(0.01)
            for _ in range(2):  # as a terminal does: to all processes; and twice
                os.killpg(process.pid, number)
                time.sleep(0.05)
            assert process.stderr is not None
            errors = process.stderr.read()
            assert process.wait(60) == code, errors
        assert "Traceback" not in errors
        assert " of 60 files are done; the same command with --skip-existing" in errors
        written = list(out.iterdir())
        assert 0 < len(written) < 60
        assert {path.suffix for path in written} == {".dmc"}
        document = json.loads(printed.read_text())
        assert document["interrupted"] is True
        assert document["total"]["files"] == len(document["results"]) > 0
        assert {each["output"] for each in document["results"]} <= set(map(str, written))
        assert not any(path.name.startswith(".") for path in written)


def test_a_process_that_dies_costs_only_its_file(tiny_bundle: Path, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from dmcodec.cli import jobs, work
from dmcodec.cli.files import Pair

class Deadly(work.Encode):
    def __call__(self):
        made = super().__call__()
        read = made.read
        made.read = lambda pair: os._exit(7) if pair.source.name == "13.flac" else read(pair)
        return made

if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    pairs = [Pair(folder / f"{{index}}.flac", folder / f"{{index}}.dmc") for index in range(24)]
    found = []
    jobs.run_jobs(Deadly(Path({str(tiny_bundle)!r}), "onnxruntime", None, 1, None, None), pairs, 2, found.append)
    assert [each.index for each in found] == list(range(24))
    [failed] = [each for each in found if each.error]
    assert failed.index == 13 and "exit code 7" in str(failed.error), failed
"""
    for index in range(24):
        (tmp_path / f"{index}.flac").symlink_to(SPEECH_FILE)
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert len(list(tmp_path.glob("*.dmc"))) == 23


@linux
@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1"])
def test_each_name_of_stdout_holds_the_content_alone(
    tiny_bundle: Path, speech_wav: Path, tmp_path: Path, name: str
) -> None:
    done = run(tiny_bundle, "encode", speech_wav, "-o", name)
    (tmp_path / "t.dmc").write_bytes(done.stdout)
    assert Tokens.load(tmp_path / "t.dmc").num_samples == soundfile.info(speech_wav).frames
    assert b"stdout: " in done.stderr
    refused = run(tiny_bundle, "encode", speech_wav, "-o", name, "--json")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"both go to stdout" in refused.stderr
