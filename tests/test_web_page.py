"""The page in headless Chromium against the Python runtime: files, the microphone, tokens, streams, offline."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.demo import DemoServer, Site, find_onnxruntime_web
from dmcodec.runtime import Codec, Tokens
from dmcodec.sample import speech

WEB = Path(__file__).resolve().parents[1] / "runtime/web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(NODE is None, reason="no Node.js on this machine"),
    pytest.mark.skipif(
        not (WEB / "node_modules/playwright-core").is_dir(), reason="run `npm ci` in runtime/web for the page's tests"
    ),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    site = Site.of(Bundle.open(default_bundle_path()), find_onnxruntime_web())
    with DemoServer(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load(threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def proof(url: str, codec: Codec, folder: Path) -> dict[str, Any]:
    """What the page did, from `page_proof.js`."""
    samples = np.round(speech(3 * 16000, 16000) * 32768).astype(np.int16)
    soundfile.write(folder / "speech.wav", samples, 16000)
    soundfile.write(folder / "silence.wav", np.zeros(16000, np.int16), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no more than that")
    codec.encode(speech(2 * 16000, 16000), 16000, n_q=8).save(folder / "python.dmc")
    options = {
        "url": url,
        "chromium": CHROMIUM,
        "wav": str(folder / "speech.wav"),
        "tokens": str(folder / "python.dmc"),
        "broken": str(folder / "broken.wav"),
        "silent": str(folder / "silence.wav"),
        "out": str(folder),
    }
    (folder / "options.json").write_text(json.dumps(options))
    command = [str(NODE), str(WEB / "test/page_proof.js"), str(folder / "options.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def _floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), np.float32)


def _codes(result: dict[str, Any]) -> NDArray[np.uint16]:
    return np.array(result["codes"], np.uint16).reshape(8, -1)


def test_a_file_has_the_codes_and_the_audio_of_python(proof: dict[str, Any], codec: Codec, folder: Path) -> None:
    samples, rate = soundfile.read(folder / "speech.wav", dtype="float32")
    np.testing.assert_array_equal(_floats(proof["file"]["original"]), samples)
    tokens = codec.encode(samples, rate)
    np.testing.assert_array_equal(_codes(proof["file"]), tokens.codes)
    np.testing.assert_allclose(_floats(proof["file"]["decoded"]), codec.decode(tokens), rtol=0, atol=1e-4)
    saved = Tokens.load(folder / "saved.dmc")
    assert saved.model_id == codec.bundle.manifest.model_id
    np.testing.assert_array_equal(saved.codes, tokens.codes)


def test_fewer_levels_are_heard_with_the_slider(proof: dict[str, Any], codec: Codec, folder: Path) -> None:
    tokens = Tokens.load(folder / "saved.dmc")
    np.testing.assert_allclose(_floats(proof["threeLevels"]["decoded"]), codec.decode(tokens, n_q=3), rtol=0, atol=1e-4)


def test_tokens_of_python_are_read(proof: dict[str, Any], codec: Codec, folder: Path) -> None:
    tokens = Tokens.load(folder / "python.dmc")
    np.testing.assert_array_equal(_codes(proof["tokens"]), tokens.codes)
    assert proof["tokens"]["original"] is None


def test_the_microphone_has_the_codes_of_python(proof: dict[str, Any], codec: Codec) -> None:
    original = _floats(proof["microphone"]["original"])
    assert len(original) > 16000
    assert np.abs(original).max() > 0.01
    tokens = codec.encode(original, 16000)
    np.testing.assert_array_equal(_codes(proof["microphone"]), tokens.codes)
    decoded = codec.decode(tokens, n_q=3)  # as the slider stands
    np.testing.assert_allclose(_floats(proof["microphone"]["decoded"]), decoded, rtol=0, atol=1e-4)


def test_a_stream_in_the_worker_is_the_whole(proof: dict[str, Any]) -> None:
    assert proof["stream"] < 1e-5


def test_what_goes_wrong_is_a_sentence(proof: dict[str, Any]) -> None:
    assert "can't be read as audio by this browser" in proof["broken"]
    assert "holds only silence" in proof["silent"]
    assert "microphone" in proof["refused"].lower()
    assert proof["errors"] == []


def test_the_page_plays_switches_and_fits_a_phone(proof: dict[str, Any], folder: Path) -> None:
    assert proof["playing"] == "Stop"
    assert proof["switched"] == "true"
    assert proof["overflow"] <= 390
    assert (folder / "wide.png").stat().st_size > 10000
    assert (folder / "phone.png").stat().st_size > 10000


def test_it_works_offline_and_talks_to_its_server_only(proof: dict[str, Any], url: str) -> None:
    assert proof["offline"].startswith("sample: 10.")
    assert {host.partition(":")[0] for host in proof["hosts"] if host} == {"127.0.0.1"}
