"""The commands that the program prints are run as printed, one after the other, on small data.

Placeholders in capitals get a value; options that keep the work small are put behind what was printed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from test_hints import printed_commands

from dmcodec.cli import main
from dmcodec.errors import MissingDependencyError
from dmcodec.runtime.tensorrt.library import TENSORRT_RTX, Library

# Runs a command line; returns what it printed on stdout and stderr together.
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """In a folder of its own; `fails`: the command ends with an error, whose text is returned."""
    monkeypatch.chdir(tmp_path)

    def call(command: str, fails: bool = False) -> str:
        program, *arguments = shlex.split(command)
        assert program == "dmcodec"
        monkeypatch.setattr("sys.argv", [program, *arguments])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        output = "".join(capfd.readouterr())
        assert (code != 0) == fails, output
        return output

    return call


def hint(output: str, values: Mapping[str, str] | None = None) -> str:
    """Return the one command in an output, with values for its placeholders."""
    [command] = [found for found in printed_commands(output) if found.startswith("dmcodec ")]
    for placeholder, value in (values or {}).items():
        command, count = re.subn(rf"(?<!\S){re.escape(placeholder)}(?!\S)", value, command)
        assert count, f"{command} has no {placeholder}"
    return command


def test_hints_lead_from_audio_to_a_trained_bundle(
    run: Run, noise_recordings: Path, teacher_models: Path, training_config: object, tmp_path: Path
) -> None:
    """No data, prepare, teach, fit, export, info."""
    shutil.copytree(noise_recordings, tmp_path / "speech")
    (tmp_path / "tiny.json").write_text(json.dumps(training_config.to_dict()))  # type: ignore[attr-defined]
    (tmp_path / "data").mkdir()
    output = run("dmcodec train fit data --out my-run --config tiny.json", fails=True)
    output = run(hint(output, {"AUDIO": "speech"}) + " --segment 1 --validation 0.3")
    taught = hint(output)
    for option, name in (("--sm", "hubert"), ("--asr", "ctc"), ("--lm", "bert")):
        taught = taught.replace(f"{option} MODEL", f"{option} {teacher_models / name}")
    output = run(f"{taught} --device cpu")
    fit = hint(output, {"RUN": "my-run"})
    output = run(f"{fit} --config tiny.json --steps 1 --samples 0 --no-tensorboard")
    run(hint(output, {"BUNDLE": "my.bundle"}))
    output = run("dmcodec info my.bundle", fails=True)
    assert "weights of codec.safetensors" in run(hint(output))


@pytest.mark.parametrize(("kind", "model"), [("sm", "hubert"), ("lm", "bert")])
def test_a_missing_teacher(
    run: Run, untaught: Path, teacher_models: Path, training_config: object, tmp_path: Path, kind: str, model: str
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(training_config.to_dict()))  # type: ignore[attr-defined]
    fit = f"dmcodec train fit {untaught} --out my-run --config tiny.json --distill {kind}"
    command = hint(run(fit, fails=True))
    command = command.replace(f"--{kind} MODEL", f"--{kind} {teacher_models / model}")
    command = command.replace("--asr MODEL", f"--asr {teacher_models / 'ctc'}")
    run(f"{command} --device cpu")
    run(f"{fit} --steps 1 --samples 0 --no-tensorboard")


def test_one_teacher_alone_and_a_folder_with_a_space(
    run: Run, untaught: Path, teacher_models: Path, training_config: object, tmp_path: Path
) -> None:
    """What `teach` prints trains with the teacher that there is."""
    (tmp_path / "tiny.json").write_text(json.dumps(training_config.to_dict()))  # type: ignore[attr-defined]
    untaught.rename(tmp_path / "my data")
    taught = run(f"dmcodec train teach 'my data' --sm {teacher_models / 'hubert'} --device cpu")
    fit = hint(taught, {"RUN": "'my run'"})
    assert fit == "dmcodec train fit 'my data' --out 'my run' --distill sm"
    output = run(f"{fit} --config tiny.json --steps 1 --samples 0 --no-tensorboard")
    assert hint(output).startswith("dmcodec export --checkpoint 'my run/best/codec.safetensors'")
    (tmp_path / "my run" / "best" / "codec.safetensors").rename(tmp_path / "init.pt")
    run("dmcodec train fit 'my data' --out 'my run' --resume --steps 2 --samples 0 --no-tensorboard")


def test_decode_without_arguments(run: Run, speech_wav: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    run(f"dmcodec encode {speech_wav} --out in.dmc --bundle {tiny_bundle}")
    command = hint(run("dmcodec decode", fails=True)).replace("...", "")
    run(command.replace("IN.dmc", "in.dmc").replace("OUT.wav", "out.wav") + f" --bundle {tiny_bundle}")
    assert (tmp_path / "out.wav").is_file()


def test_engines_of_another_precision(run: Run, tiny_bundle: Path, tiny_model_files: tuple[Path, Path]) -> None:
    """TensorRT-RTX builds without a GPU."""
    try:
        Library.load(TENSORRT_RTX)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    small = "--flavour tensorrt-rtx --graphs dequantizer"
    checkpoint, config = tiny_model_files
    refused = run(f"dmcodec export --format trt --bundle {tiny_bundle} --precision fp16 {small}", fails=True)
    command = hint(refused, {"FILE": str(checkpoint), "BUNDLE": "half.bundle"})
    output = run(f"{command} --config {config} {small}")
    assert "1 built" in output
