"""The conformance suite: the built-in codec passes it, a codec that differs in any way is found, and so is bad data."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmcodec.benchmarks.verify import VerifyOptions
from dmcodec.benchmarks.verify.conformance import DEPENDENT, INDEPENDENT, ConformanceResult, check_codec
from dmcodec.benchmarks.verify.conformance_suite import CASES, Suite, suite_folder
from dmcodec.benchmarks.verify.conformance_ways import WAYS
from dmcodec.bundle import Bundle, GraphSpec, default_bundle_path, read_manifest
from dmcodec.cli import main
from dmcodec.errors import ConformanceError
from dmcodec.files import json_sha256
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import Runner
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend

MOST_BYTES = 1_000_000
OPTIONS = VerifyOptions(threads=1)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["dmcodec", "verify", "--conformance", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_the_built_in_codec_gives_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command(monkeypatch, "--json")
    result = json.loads(capsys.readouterr().out)
    assert not code, result["problems"]
    assert (result["passed"], result["verdict"]) == (True, INDEPENDENT)
    assert (result["bundle"], result["against"]) == (str(default_bundle_path()), "expected values")
    outcomes = {item["case"]: item for item in result["outcomes"]}
    assert {item["kind"] for item in outcomes.values()} == set(WAYS)
    has_parts = read_manifest(default_bundle_path()).has_encoder_parts
    for item in outcomes.values():
        assert (item["skipped"] is None) == (item["kind"] != "blocks" or has_parts)
        assert item["skipped"] or item["runs"] >= 2
    assert outcomes["decode alone"]["max_abs_error"] < 1e-5


def test_it_is_small_and_listed() -> None:
    suite = Suite.open()
    files = [path for path in suite.folder.iterdir() if path.name != CASES]
    assert {path.name for path in files} == set(suite.files)
    assert sum(path.stat().st_size for path in suite.folder.iterdir()) < MOST_BYTES
    assert suite.expects(read_manifest(default_bundle_path()))
    for clip in suite.clips.values():
        waveform, rate = suite.waveform(clip)
        codes, decoded = suite.array(clip.codes), suite.array(clip.decoded)
        assert (str(codes.dtype), str(decoded.dtype), rate) == ("uint16", "float32", suite.codec["sample_rate"])
        assert codes.shape == (suite.codec["n_q"], -(-len(waveform) // suite.codec["hop_length"]))
        assert decoded.shape == waveform.shape == (clip.num_samples,)


# Other codecs


def subset(*kinds: str) -> Suite:
    suite = Suite.open()
    return dataclasses.replace(suite, cases=tuple(case for case in suite.cases if case.kind in kinds))


def test_any_other_bundle_is_compared_with_each_clip_alone(tiny_codec: Codec) -> None:
    kinds = set(WAYS) - {"processes"}
    result = check_codec(tiny_codec, OPTIONS, subset(*kinds))
    assert result.passed, result.problems
    assert result.against == "each clip alone"
    assert all(outcome.runs for outcome in result.outcomes)


class Altered(OnnxRuntimeBackend):
    """Alters what one graph returns; single-threaded copies are the same."""

    def __init__(self, graph: str, alter: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        super().__init__("cpu", 1)
        self._graph, self._alter = graph, alter

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        runner = super().load(path, spec)
        return _AlteredRunner(runner, self._alter) if path.stem == self._graph else runner


class _AlteredRunner:
    def __init__(self, runner: Runner, alter: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._runner, self._alter = runner, alter

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        first, *others = self._runner.run(inputs)
        return [self._alter(first), *others]


def last_is_wrong(batch: NDArray[Any]) -> NDArray[Any]:
    """Of a batch the last item is off."""
    return np.concatenate([batch[:-1], np.roll(batch[-1:], 1, axis=-1)]) if len(batch) > 1 else batch


def short_is_loud(audio: NDArray[Any]) -> NDArray[Any]:
    return audio * np.float32(1.001) if audio.shape[-1] < 1000 else audio


@pytest.mark.parametrize(
    ("graph", "alter", "kind", "words"),
    [
        ("encoder", last_is_wrong, "batch", "batch of 4"),
        ("encoder", last_is_wrong, "padding", "padding, all clips: sample, 0 samples of zeros more: "),
        ("decoder", last_is_wrong, "decode batch", "audio differs by up to"),
        (
            "decoder_upsampler",
            short_is_loud,
            "decode chunks",
            "decode in chunks of 1 frame: speech, pushes of 1 frames",
        ),
        (
            "encoder_output",
            lambda x: x[:, ::-1].copy(),
            "blocks",
            "frames have other codes, the first at frame 0, level 0",
        ),
    ],
)
def test_what_depends_on_how_it_runs_is_named(
    tiny_bundle: Path, graph: str, alter: Callable[[NDArray[Any]], NDArray[Any]], kind: str, words: str
) -> None:
    codec = Codec(Bundle.open(tiny_bundle), Altered(graph, alter))
    result = check_codec(codec, OPTIONS, subset("alone", "decode alone", kind))
    assert (result.passed, result.verdict) == (False, DEPENDENT)
    failed = [outcome for outcome in result.outcomes if outcome.problem]
    assert {outcome.kind for outcome in failed} == {kind}
    assert any(words in problem for problem in result.problems), result.problems
    assert json.loads(json.dumps(result.to_dict()))["problems"] == result.problems


def built_in(alter: Callable[[NDArray[Any]], NDArray[Any]], suite: Suite) -> ConformanceResult:
    codec = Codec(Bundle.open(default_bundle_path()), Altered("quantizer", alter))
    return check_codec(codec, OPTIONS, suite)


def test_listed_ties_may_differ_from_their_level_on_and_nothing_else() -> None:
    suite = subset("alone")

    def other(x: NDArray[Any]) -> NDArray[Any]:
        x = x.copy()
        x[3:, :, 10:11] = (x[3:, :, 10:11] + 1) % 1024
        return x

    def listed(*tied: tuple[int, int]) -> Suite:
        long = tuple(name for name in suite.cases[0].clips if suite.clips[name].num_samples > 4000)
        clips = {name: dataclasses.replace(suite.clips[name], tied=tied) for name in long}
        case = dataclasses.replace(suite.cases[0], clips=long)
        return dataclasses.replace(suite, clips=clips, cases=(case,))

    [outcome] = built_in(other, listed((10, 3))).outcomes
    assert (outcome.problem, outcome.ties) == (None, outcome.runs)
    assert built_in(other, listed((10, 2))).passed
    for tied in (10, 4), (11, 3):
        [problem] = built_in(other, listed(tied)).problems
        assert problem.endswith("1 of 150 frames have other codes, the first at frame 10, level 3")


@pytest.mark.parametrize("tied", [(150, 0), (3, 8), (-1, 0)])
def test_ties_beyond_the_codes_are_bad_data(tied: tuple[int, int]) -> None:
    suite = Suite.open()
    clip = dataclasses.replace(suite.clips["speech"], tied=(tied,))
    with pytest.raises(ConformanceError, match="speech: codes, audio or ties don't fit"):
        suite.expected(clip)
    other = dataclasses.replace(suite.clips["speech"], codes="short.codes.npy")
    with pytest.raises(ConformanceError, match="speech: codes, audio or ties don't fit"):
        suite.expected(other)


# Bad data


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(suite_folder(), tmp_path / "suite"))


def edited(folder: Path, **changes: Any) -> None:
    """Change the table of cases, and make its digest fit."""
    body = {**json.loads((folder / CASES).read_text()), **changes}
    del body["sha256"]
    (folder / CASES).write_text(json.dumps({**body, "sha256": json_sha256(body)}))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no table": (lambda f: (f / CASES).unlink(), r"cases\.json: no such file"),
    "no JSON": (lambda f: (f / CASES).write_text("{"), r"cases\.json: can't be read"),
    "a list": (lambda f: (f / CASES).write_text("[]"), "no format_version"),
    "altered table": (
        lambda f: (f / CASES).write_text((f / CASES).read_text().replace("batch of 2", "batch of 3")),
        "was altered",
    ),
    "newer": (lambda f: edited(f, format_version=9), "format 9, this dmcodec reads up to 1; update"),
    "no clips": (lambda f: edited(f, clips=[]), "not a table of cases"),
    "clips are numbers": (lambda f: edited(f, clips=[1]), "not a table of cases"),
    "other folders": (lambda f: edited(f, files={"../x": ""}), "not a table of cases"),
    "missing file": (lambda f: (f / "short.codes.npy").unlink(), r"short\.codes\.npy: can't be read"),
    "edited codes": (lambda f: (f / "short.codes.npy").write_bytes(b"x"), r"short\.codes\.npy: was altered"),
    "edited audio": (lambda f: (f / "speech.flac").write_bytes(b"x"), r"speech\.flac: was altered"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_bad_data_are_one_clear_error(copied: Path, damage: str) -> None:
    spoil, words = DAMAGE[damage]
    Suite.open(copied)
    spoil(copied)
    with pytest.raises(ConformanceError, match=words) as caught:
        Suite.open(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kind_that_is_not_known_is_refused(tiny_codec: Codec) -> None:
    suite = Suite.open()
    newer = dataclasses.replace(suite, cases=(dataclasses.replace(suite.cases[0], kind="telepathy"),))
    with pytest.raises(ConformanceError, match="kind 'telepathy' is not known; update dmcodec"):
        check_codec(tiny_codec, OPTIONS, newer)


def test_the_command_names_the_case(
    tiny_bundle: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "dmcodec.benchmarks.verify.conformance"
    suite = subset("decode alone")
    monkeypatch.setattr(f"{module}.Suite.open", lambda *_: suite)
    assert not command(monkeypatch, "--bundle", tiny_bundle, "--threads", 1)
    assert capsys.readouterr().out.endswith(f"{INDEPENDENT}\n")
    monkeypatch.setattr(f"{module}.compare_audio", lambda right, test: _far(right, test))
    assert command(monkeypatch, "--bundle", tiny_bundle, "--threads", 1) == 1
    out, error = capsys.readouterr()
    assert "FAILED" in out
    assert (
        error
        == f"error: {tiny_bundle}: {DEPENDENT}: decode alone: speech, alone: audio differs by up to 1.0e+00 (3.0 dB)\n"
    )
    for option in (("--exactness",), ("--against", "torch"), ("--audio", "x.wav"), ("--checkpoint", "x.pt")):
        assert command(monkeypatch, *option) == 2
        assert "--conformance has its own audio" in capsys.readouterr().err


def _far(_right: Any, _test: Any) -> Any:
    from dmcodec.export.agreement import AudioComparison

    return AudioComparison(3.0, 1.0)
