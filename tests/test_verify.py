"""`dmcodec verify`: passes where a backend says what the reference says, and finds every way of saying otherwise."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from dmcodec.benchmarks.tables import print_tables
from dmcodec.benchmarks.verify import VerifyOptions, VerifyResult, run_verify
from dmcodec.benchmarks.verify.checks import OutputComparison
from dmcodec.benchmarks.verify.result_tables import verify_tables
from dmcodec.benchmarks.verify.run import verify_codec
from dmcodec.benchmarks.verify.words import summary_lines
from dmcodec.bundle import Bundle, GraphSpec, write_manifest
from dmcodec.cli.common import console
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioError, CheckpointError, ParityError
from dmcodec.export import Source, export_bundle
from dmcodec.export.reference import Expected, Reference
from dmcodec.files import file_sha256
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import Runner
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.sample import SPEECH_FILE

CONFIG = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, codebook_size=16, n_q=3)
Alter = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("verify")
    for precision in ("fp32", "fp16"):
        export_bundle(DMCodec.seeded(CONFIG, 7), folder / precision, precision, source=Source(seed=7))
    return {precision: folder / precision for precision in ("fp32", "fp16")}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("against", ["onnxruntime-cpu", "torch"])
def test_the_cpu_passes(bundles: dict[str, Path], precision: str, against: str) -> None:
    result = run_verify(bundles[precision], VerifyOptions(against=against, threads=1))
    assert result.passed, result.problems
    assert result.precision == precision
    assert result.reference.split()[0] == against.split("-")[0]
    assert {case.num_samples for case in result.cases} >= {1, 319, 961}
    done = {check.what for check in result.checks}
    assert {"stream cut at random", "long clip, encode", "batch of any lengths, decode"} <= done
    assert json.loads(json.dumps(result.to_dict()))["passed"] is True


class WrongBackend(OnnxRuntimeBackend):
    """Alters the first output of one graph."""

    name = "wrong"

    def __init__(self, graph: str, alter: Alter) -> None:
        super().__init__("cpu", 1)
        self._graph, self._alter = graph, alter

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        runner = super().load(path, spec)
        return _Wrong(runner, self._alter) if path.stem == self._graph else runner

    single_threaded_streams = False

    def single_threaded(self) -> None:
        return None


class _Wrong:
    def __init__(self, runner: Runner, alter: Alter) -> None:
        self._runner, self._alter = runner, alter

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        first, *others = self._runner.run(inputs)
        return [self._alter(first), *others]


def verify_wrong(bundle: Path, graph: str, alter: Alter) -> VerifyResult:
    return verify_codec(Codec(Bundle.open(bundle), WrongBackend(graph, alter)), VerifyOptions(threads=1))


@pytest.mark.parametrize(
    ("graph", "alter", "figure"),
    [
        ("encoder", lambda x: x + np.float32(1e-3) * np.abs(x).max(), "latents_snr_db"),
        ("quantizer", lambda x: (x + 1) % 16, "quantizer_agreement"),
        ("quantizer", lambda x: x * (np.arange(3) < 2)[:, None, None], "quantizer_agreement"),  # the last level only
        ("dequantizer", lambda x: x * np.float32(1.001), "dequantizer_snr_db"),
        ("decoder", lambda x: np.roll(x, 1, axis=-1), "decoder_snr_db"),
        ("decoder", lambda x: x * np.float32("nan"), "decoder_snr_db"),
        ("decoder_upsampler", lambda x: x * np.float32(1.001), "stream_snr_db"),
    ],
)
def test_a_wrong_backend_fails(bundles: dict[str, Path], graph: str, alter: Alter, figure: str) -> None:
    result = verify_wrong(bundles["fp32"], graph, alter)
    assert not result.passed
    assert any(figure in problem for problem in result.problems), result.problems
    assert result.to_dict()["problems"] == result.problems


def test_what_only_batches_or_long_clips_show_is_found(bundles: dict[str, Path]) -> None:
    """Wrong beyond the lengths and batches of the graphs' own cases."""

    def last_of_many(x: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([x[:-1], x[-1:] * np.float32(1.5)]) if len(x) > 3 else x

    def late(x: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.arange(x.shape[-1]) < 500, x, x[:, :, :1])

    for graph, alter, word in (("decoder", last_of_many, "decode"), ("encoder", late, "long clip")):
        result = verify_wrong(bundles["fp32"], graph, alter)
        assert all(case.latents_snr_db > 90 for case in result.cases)
        assert any(word in problem for problem in result.problems), result.problems


def test_a_result_of_another_shape_is_named(bundles: dict[str, Path]) -> None:
    with pytest.raises(ParityError, match=r"decoder gives shape .* onnxruntime .* gives"):
        verify_wrong(bundles["fp32"], "decoder", lambda x: x[:, :, :-1])


def altered(bundle: Path, graph: str) -> Path:
    """Scales one weight, and makes all checksums fit again."""
    opened = Bundle.open(bundle)
    path = opened.graph_path(graph)
    model = onnx.load(path)
    weight = next(item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT and item.dims)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, path)
    manifest = opened.manifest
    spec = dataclasses.replace(manifest.graphs[graph], sha256=file_sha256(path), size_bytes=path.stat().st_size)
    write_manifest(bundle, dataclasses.replace(manifest, graphs={**manifest.graphs, graph: spec}))
    return bundle


def test_altered_weights_fail_against_torch(
    copy_of_tiny_bundle: Path, tiny_model_files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, config = tiny_model_files
    bundle = altered(copy_of_tiny_bundle, "decoder")
    command = [
        sys.executable,
        "-c",
        "from dmcodec.cli import main; main()",
        "verify",
        "--bundle",
        str(bundle),
        "--threads",
        "1",
    ]
    command += ["--checkpoint", str(checkpoint), "--config", str(config), "--audio", str(SPEECH_FILE)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "decoder_snr_db is" in done.stderr
    values = json.loads(done.stdout)
    assert values["passed"] is False
    assert values["cases"][0]["latents_snr_db"] > 90  # the encoder is as it was
    assert any(check["what"] == "speech.flac, encode" for check in values["checks"])


def test_the_command_prints_tables(bundles: dict[str, Path]) -> None:
    command = [sys.executable, "-c", "from dmcodec.cli import main; main()", "verify", "--bundle", str(bundles["fp32"])]
    done = subprocess.run([*command, "--threads", "1", "--details"], capture_output=True, text=True, check=True)
    for words in ("against onnxruntime", "latents SNR dB", "stream cut at random", "passed"):
        assert words in done.stdout
    for option, code, words in (
        (("--provider", "cuda"), 1, "built for the CPU only"),
        (("--against", "abacus"), 2, "not known"),
    ):
        done = subprocess.run([*command, *option], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_failures_show_in_the_tables(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    result = verify_wrong(bundles["fp32"], "decoder", lambda x: np.roll(x, 1, axis=-1))
    print_tables("\n".join(summary_lines(result)), verify_tables(result), console())
    assert "FAILED" in capsys.readouterr().out


def test_no_torch_or_onnx_is_needed(bundles: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
        "from dmcodec.benchmarks.verify import VerifyOptions, run_verify; "
        f"assert run_verify({str(bundles['fp32'])!r}, VerifyOptions(threads=1)).passed"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong", [{"against": "onnxruntime-cuda"}, {"config": Path("c.json")}, {"checkpoint": Path("x.pt")}]
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        VerifyOptions(**wrong)


def test_other_weights_and_bad_audio_are_refused(
    bundles: dict[str, Path], tiny_model_files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, config = tiny_model_files
    with pytest.raises(CheckpointError, match="the bundle holds model"):
        run_verify(bundles["fp32"], VerifyOptions(against="torch", checkpoint=checkpoint, config=config))
    with pytest.raises(AudioError, match="no such audio file"):
        run_verify(bundles["fp32"], VerifyOptions(audio=(tmp_path / "no.wav",), threads=1))
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"noise\.wav"):
        run_verify(bundles["fp32"], VerifyOptions(audio=(tmp_path / "noise.wav",), threads=1))


@pytest.mark.parametrize(
    ("window_agreement", "others", "wrong"), [(None, 1, True), (1.0, 1, True), (0.78, 1, False), (0.78, 7, True)]
)
def test_codes_of_windows_are_bounded_by_what_the_context_changed(
    window_agreement: float | None, others: int, wrong: bool
) -> None:
    """What a model remembers for longer than the context is no fault of a backend; most codes being others is."""

    class OneBook:
        codebooks = np.array([[[0.0, 0.0], [1.0, 1.0]]], np.float32)

    latents = np.zeros((2, 10), np.float32)
    expected = Expected(latents, np.zeros((1, 10), np.int64), latents, np.zeros(0, np.float32))
    got = expected.codes.copy()
    got[0, :others] = 1
    comparison = OutputComparison(cast(Reference, OneBook()), "fp32")
    check = comparison.codes("windows", "", [expected], [got], window_agreement=window_agreement)
    assert check.code_agreement == pytest.approx(1 - others / 10)
    assert bool(check.problem) == wrong


@pytest.fixture(scope="module")
def with_ties(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle and its checkpoint; every entry has a neighbour so near that rounding decides between the two."""
    folder = tmp_path_factory.mktemp("ties")
    model = DMCodec.seeded(CONFIG, 7)
    for level in model.quantizer.levels:
        level.embed[1::2] = level.embed[::2] * (1 + 2e-6)
    torch.save(model.state_dict(), folder / "model.pt")
    export_bundle(model, folder / "bundle")
    return folder / "bundle", folder / "model.pt"


def test_ties_are_set_aside_in_windows_too(with_ties: tuple[Path, Path]) -> None:
    bundle, checkpoint = with_ties
    result = run_verify(bundle, VerifyOptions(against="torch", checkpoint=checkpoint, threads=1))
    assert result.passed, result.problems
    [windows] = [check for check in result.checks if check.what == "long clip, encode"]
    assert windows.ties
    assert windows.code_agreement is not None
    assert windows.code_agreement < 0.999
    assert windows.untied_agreement == 1.0
    measured = Bundle.open(bundle).manifest.encoder_context["cases"]
    assert max(case["code_agreement"] for case in measured) == 1.0


def test_ties_do_not_count_against_windows() -> None:
    """Latents in the middle of two entries: neither choice is wrong, at any level after it, too."""

    class TwoBooks:
        codebooks = np.array([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [9.0, 9.0]]], np.float32)

    latents = np.full((2, 10), 0.5, np.float32)
    expected = Expected(latents, np.zeros((2, 10), np.int64), latents, np.zeros(0, np.float32))
    got = expected.codes.copy()
    got[:, :4] = 1
    comparison = OutputComparison(cast(Reference, TwoBooks()), "fp32")
    check = comparison.codes("windows", "", [expected], [got], window_agreement=1.0)
    assert (check.untied_agreement, check.ties, check.problem) == (1.0, 4, None)
