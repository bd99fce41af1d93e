"""The model card of a bundle on the hub: README.md with metadata, figures of the manifest, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dmcodec.bundle import Manifest
from dmcodec.errors import ArgumentError
from dmcodec.text import one_line

from .names import HubName

CARD = "README.md"
MARK = "<!-- written by `dmcodec push`; a card without this line is kept -->"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def checked_license(name: str | None) -> str:
    """Return the identifier of a licence as the hub writes it, in small letters.

    Raises:
        ArgumentError: there is none, or it is not a word such as apache-2.0.
    """
    text = (name or "").strip().lower()
    if not _LICENSE.fullmatch(text):
        given = f"{name!r} is no identifier; " if text else "people must know what they may do with the weights; "
        raise ArgumentError(f"--license: {given}name one of the hub's, such as apache-2.0, mit, cc-by-4.0 or other")
    return text


def model_card(name: HubName, manifest: Manifest, license_name: str) -> str:
    """Return the text of README.md for a bundle: metadata in YAML, then Markdown."""
    config = manifest.config
    load = str(name)
    lines = [
        "---",
        f"license: {license_name}",
        "library_name: dmcodec",
        "pipeline_tag: audio-to-audio",
        "tags:",
        *(f"- {tag}" for tag in ("audio", "speech", "codec", "tokenizer", "onnx")),
        "---",
        "",
        MARK,
        "",
        f"# {name.repo.rpartition('/')[2]}",
        "",
        f"A speech codec as a bundle of ONNX graphs: {config.sample_rate} Hz, {config.frame_rate:g} frames a second of "
        f"{config.n_q} codes, {config.bitrate_bps() / 1000:g} kbit/s. It runs without torch.",
        "",
        "```sh",
        'pip install "dmcodec[cpu,hub]"',
        f"dmcodec reconstruct speech.wav -o out.wav --bundle {load}",
        "```",
        "",
        "```python",
        "from dmcodec.runtime import Codec",
        "",
        f'codec = Codec.load("{load}")',
        'tokens = codec.encode_file("speech.wav")',
        "waveform = codec.decode(tokens)",
        "```",
        "",
        "dmcodec fetches the files of the manifest only, compares the sha256 of each, and unpickles nothing. "
        f"`{load.partition('@')[0]}@COMMIT` names one state of this repository for good.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {title} | {_cell(value)} |" for title, value in _rows(manifest)),
        "",
        "| file | size, MB | sha256 |",
        "|---|---|---|",
        *(f"| {_cell(spec.file)} | {spec.size_bytes / 1e6:.2f} | `{spec.sha256}` |" for spec in manifest.files),
        "",
    ]
    return "\n".join(lines)


def _cell(value: str) -> str:
    """Return a text for a table in Markdown: in one line, and without meaning as Markdown or HTML."""
    plain = one_line(value).encode("utf-8", "backslashreplace").decode()
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", plain)


def _rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    config, parity = manifest.config, manifest.parity
    yield "model id", manifest.model_id
    yield "precision", manifest.precision
    yield "size", f"{manifest.size_bytes / 1e6:.1f} MB"
    yield "codebooks", f"{config.n_q} of {config.codebook_size} entries"
    for key, title in (("code_agreement", "codes equal to torch's"), ("level0_agreement", "level 0 equal to torch's")):
        if key in parity:
            yield title, f"{100 * parity[key]:.2f} %"
    for key, title in (("decoder_snr_db", "decoded waveform against torch's"), ("chain_snr_db", "encoded and decoded")):
        if key in parity:
            yield title, f"at least {parity[key]:.1f} dB SNR"
    if "stoi_whole" in manifest.look_ahead:
        yield "STOI of reconstructed speech, as measured at export", f"{manifest.look_ahead['stoi_whole']:.4f}"
    yield "checkpoint", _checkpoint(manifest.provenance)
    yield "exported with", _versions(manifest.provenance)


def _checkpoint(provenance: Mapping[str, Any]) -> str:
    if provenance.get("checkpoint") is None:
        return f"none: untrained weights of seed {provenance.get('seed')}; its audio is not speech"
    return f"{provenance['checkpoint']}, sha256 {provenance.get('checkpoint_sha256')}"


def _versions(provenance: Mapping[str, Any]) -> str:
    named = (f"{key} {provenance[key]}" for key in ("torch", "onnx", "onnxruntime") if provenance.get(key))
    return ", ".join([str(provenance.get("exporter", "dmcodec")), *named])
