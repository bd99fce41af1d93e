"""The command line, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from platforms import posix

from dmcodec.sample import SPEECH_FILE
from dmcodec.tokens import Tokens

DMCODEC = [sys.executable, "-c", "from dmcodec.cli import main; main()"]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DMCODEC, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def succeed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuse(exit_code: int, words: str, *arguments: object, **options: Any) -> None:
    """The command fails with one error line that holds `words`, and without a traceback."""
    done = run(*arguments, **options)
    assert done.returncode == exit_code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert words in lines[0]
    assert "Traceback" not in done.stderr


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = """
import sys
from dmcodec.cli import main
sys.argv = ["dmcodec", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "onnx", "onnxruntime", "numpy", "matplotlib", "soundfile"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in ("encode", "decode", "reconstruct", "export", "bench", "verify", "doctor", "info", "pull"):
        assert verb in done.stdout


def test_encode_decode_round_trip(tiny_bundle: Path, tmp_path: Path) -> None:
    tokens, wav = tmp_path / "a.dmc", tmp_path / "a.wav"
    assert "RTF" in succeed("encode", SPEECH_FILE, "-o", tokens, "--bundle", tiny_bundle, "--threads", 1)
    succeed("decode", tokens, "-o", wav, "--bundle", tiny_bundle)
    info = soundfile.info(wav)
    assert (info.frames, info.samplerate, info.subtype) == (161440, 16000, "PCM_16")
    facts = json.loads(succeed("info", tokens, "--json"))
    assert facts["frames"] == 505
    assert facts["n_q"] == 8


def test_n_q_is_obeyed(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    out = json.loads(
        succeed("encode", speech_wav, "-o", tmp_path / "a.dmc", "--bundle", tiny_bundle, "--n-q", 3, "--json")
    )
    assert out["results"][0]["n_q"] == 3
    assert Tokens.load(tmp_path / "a.dmc").n_q == 3
    refuse(2, "n_q must be 1 to 3", "decode", tmp_path / "a.dmc", "-o", tmp_path / "a.wav", "--bundle", tiny_bundle,
           "--n-q", 4)  # fmt: skip
    refuse(2, "n_q must be 1 to 8", "encode", speech_wav, "-o", tmp_path / "b.dmc", "--bundle", tiny_bundle,
           "--n-q", 9)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dmc"]


def test_reconstruct_reports_bitrate_and_both_factors(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    out = succeed("reconstruct", speech_wav, "-o", tmp_path / "r.flac", "--bundle", tiny_bundle)
    assert "kbit/s" in out
    assert out.count("RTF") == out.count("xRT") == 2
    facts = json.loads(succeed("reconstruct", speech_wav, "-o", tmp_path / "r.wav", "--bundle", tiny_bundle, "--json"))
    assert facts["encode"]["rtf"] == pytest.approx(1 / facts["encode"]["xrt"])
    assert facts["decode"]["rtf"] == pytest.approx(facts["decode"]["compute_s"] / facts["duration_s"])
    assert soundfile.info(tmp_path / "r.flac").frames == soundfile.info(speech_wav).frames


def test_folders_and_globs_keep_their_layout(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    for name in ("in/a.wav", "in/sub/b.wav", "in/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(speech_wav.read_bytes())
    succeed("encode", tmp_path / "in", "-o", tmp_path / "out", "--bundle", tiny_bundle)
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.dmc"))
    assert found == ["a.dmc", "sub/b.dmc"]
    succeed("decode", str(tmp_path / "out" / "*.dmc"), "-o", tmp_path / "wavs", "--bundle", tiny_bundle)
    assert [path.name for path in (tmp_path / "wavs").iterdir()] == ["a.wav"]


def test_one_bad_file_does_not_stop_the_others(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("not audio")
    done = run("encode", bad, speech_wav, "-o", tmp_path / "out", "--bundle", tiny_bundle)
    assert done.returncode == 1
    assert f"error: {bad}" in done.stderr
    assert "1 of 2 files failed" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [speech_wav.with_suffix(".dmc").name]


def test_existing_outputs_need_force(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.dmc"
    out.write_bytes(b"precious")
    refuse(1, "--force", "encode", speech_wav, "-o", out, "--bundle", tiny_bundle)
    assert out.read_bytes() == b"precious"
    succeed("encode", speech_wav, "-o", out, "--bundle", tiny_bundle, "--force")
    assert Tokens.load(out).num_samples == soundfile.info(speech_wav).frames


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.wav", "no such audio file"),
        ("empty.wav", "can't be read as audio"),
        ("text.wav", "can't be read as audio"),
        ("none.wav", "holds no samples"),
        ("cut.wav", "cut short"),
        ("nan.wav", "NaN"),
    ],
)
def test_bad_audio(tiny_bundle: Path, tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    if name == "empty.wav":
        path.touch()
    elif name == "text.wav":
        path.write_text("hello " * 1000)
    elif name == "none.wav":
        soundfile.write(path, np.zeros(0), 16000)
    elif name == "cut.wav":
        soundfile.write(path, np.zeros(16000), 16000)
        path.write_bytes(path.read_bytes()[:-1000])
    elif name == "nan.wav":
        soundfile.write(path, np.full(100, np.nan), 16000, subtype="FLOAT")
    refuse(1, words, "encode", path, "-o", tmp_path / "a.dmc", "--bundle", tiny_bundle)
    assert not (tmp_path / "a.dmc").exists()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT"])
def test_other_audio_is_accepted(tiny_bundle: Path, tmp_path: Path, subtype: str) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (44100, 2))
    soundfile.write(tmp_path / "in.wav", stereo, 44100, subtype=subtype)
    succeed("reconstruct", tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--bundle", tiny_bundle)
    assert soundfile.info(tmp_path / "out.wav").frames == pytest.approx(16000, abs=1)


def test_bad_tokens_and_bundles(tiny_bundle: Path, copy_of_tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "text.dmc").write_text("hello")
    refuse(1, "not a token file", "decode", tmp_path / "text.dmc", "-o", tmp_path / "a.wav", "--bundle", tiny_bundle)
    refuse(1, "no such token file", "info", tmp_path / "none.dmc")
    refuse(1, "not a bundle", "encode", speech_wav, "-o", tmp_path / "a.dmc", "--bundle", tmp_path)
    (copy_of_tiny_bundle / "decoder.onnx").unlink()
    refuse(1, "decoder.onnx", "encode", speech_wav, "-o", tmp_path / "a.dmc", "--bundle", copy_of_tiny_bundle)


def test_wrong_usage_ends_with_2(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    assert run("encode", speech_wav).returncode == 2
    assert run("nonsense").returncode == 2
    assert run("encode", speech_wav, "-o", "x.dmc", "--threads", "many").returncode == 2
    refuse(2, "need a folder", "encode", speech_wav, speech_wav, "-o", tmp_path / "a.dmc", "--bundle", tiny_bundle)
    refuse(2, "provider", "encode", speech_wav, "-o", tmp_path / "a.dmc", "--bundle", tiny_bundle,
           "--provider", "tpu")  # fmt: skip
    refuse(2, "--checkpoint", "export", "--out", tmp_path / "b")
    refuse(2, "--format", "export", "--out", tmp_path / "b", "--seed", 0, "--format", "coreml")
    refuse(2, "precision", "export", "--out", tmp_path / "b", "--seed", 0, "--precision", "int3")
    same = tmp_path / "same.wav"
    same.write_bytes(speech_wav.read_bytes())
    same.with_suffix(".flac").write_bytes(speech_wav.read_bytes())
    refuse(2, "would both be written", "encode", tmp_path, "-o", tmp_path / "out", "--bundle", tiny_bundle)
    refuse(2, "--batch needs at least one value", "bench", "--batch", ",")
    refuse(2, "--n-q: its value is empty", "evaluate", "--reference", tmp_path, "--n-q", "")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("info", tmp_path / "none.dmc", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_output_that_cannot_be_written(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuse(1, "can't be written", "encode", speech_wav, "-o", tmp_path / "file" / "a.dmc", "--bundle", tiny_bundle)
    refuse(1, "is written as", "reconstruct", speech_wav, "-o", tmp_path / "a.mp3", "--bundle", tiny_bundle)


def _tiny_disk() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@posix
@pytest.mark.parametrize("verb", ["encode", "reconstruct"])
def test_a_full_disk_leaves_nothing(tiny_bundle: Path, tmp_path: Path, verb: str) -> None:
    out = tmp_path / ("a.dmc" if verb == "encode" else "a.wav")
    refuse(1, "can't be written", verb, SPEECH_FILE, "-o", out, "--bundle", tiny_bundle, preexec_fn=_tiny_disk)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_too_long(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    name = "x" * 300
    refuse(1, name, "info", tmp_path / name)
    refuse(1, name, "encode", tmp_path / name, "-o", tmp_path / "a.dmc", "--bundle", tiny_bundle)
    refuse(1, name, "reconstruct", speech_wav, "-o", tmp_path / f"{name}.wav", "--bundle", tiny_bundle)


@posix
def test_progress_on_a_terminal_without_stdout(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    command = [*DMCODEC, "encode", str(speech_wav), "-o", str(tmp_path / "a.dmc"), "--bundle", str(tiny_bundle)]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=end, timeout=60, check=False)
    os.close(end)
    os.close(terminal)
    assert done.returncode == 0
    assert (tmp_path / "a.dmc").is_file()


@posix
def test_progress_on_a_terminal_leaves_stdout_alone(tiny_bundle: Path, speech_wav: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    command = [*DMCODEC, "encode", str(speech_wav), "-o", str(tmp_path / "a.dmc"), "--bundle", str(tiny_bundle)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, text=True)
    os.close(end)
    shown = b""
    with suppress(OSError):  # how the end of the terminal is reported
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.startswith(f"{tmp_path / 'a.dmc'}: ")
    assert b"encode, files" in shown
    assert b"RTF" not in shown


def obey_interrupts() -> None:
    """A shell that starts the tests with `&` lets its children ignore Ctrl-C; the process under test obeys it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@posix
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_leaves_no_half_file(tiny_bundle: Path, tmp_path: Path, stop: int) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for index in range(300):
        (inputs / f"{index:03}.flac").symlink_to(SPEECH_FILE)
    command = [*DMCODEC, "encode", str(inputs), "-o", str(out), "--bundle", str(tiny_bundle)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=obey_interrupts
    )
    deadline = time.monotonic() + 60
    while not (out.exists() and len(list(out.iterdir())) > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, 2)
    assert "Traceback" not in errors
    written = list(out.iterdir())
    assert 0 < len(written) < 300
    for path in written:
        assert path.suffix == ".dmc"
        assert not path.name.startswith(".")
        Tokens.load(path)


def test_export_writes_a_bundle_that_info_shows(tiny_model_files: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, config = tiny_model_files
    bundle = tmp_path / "bundle"
    arguments = ("export", "--checkpoint", checkpoint, "--config", config, "--out", bundle, "--format", "onnx")
    out = succeed(*arguments)
    assert "parity passed" in out
    assert "Graphs against torch" in out
    facts = json.loads(succeed("info", "--bundle", bundle, "--json"))
    assert facts["provenance"]["checkpoint"] == checkpoint.name
    assert facts["parity"]["frame_agreement"] == 1
    refuse(1, "exists already", *arguments)
    half = json.loads(succeed(*arguments, "--precision", "fp16", "--force", "--json"))
    assert half["graphs"]["decoder"]["precision"] == "fp16"
    assert half["graphs"]["quantizer"]["precision"] == "fp32"
    assert half["weights"]["size_bytes"] < 0.6 * facts["weights"]["size_bytes"]
    assert facts["size_bytes"] > facts["weights"]["size_bytes"]
    assert "shared by the graphs" in succeed("info", "--bundle", bundle)


def test_export_names_what_does_not_fit(tiny_model_files: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, _ = tiny_model_files
    refuse(
        1, "has shape", "export", "--checkpoint", checkpoint, "--out", tmp_path / "b"
    )  # not the default configuration
    refuse(1, "no such checkpoint", "export", "--checkpoint", tmp_path / "none.pt", "--out", tmp_path / "b")
    assert not (tmp_path / "b").exists()
