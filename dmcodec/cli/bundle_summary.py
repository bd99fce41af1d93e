"""A bundle in lines that a person reads. All that is known of it is in the JSON of `dmcodec info`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from dmcodec.precision import PRECISIONS
from dmcodec.text import one_line

from .int8_rows import int8_rows

_WIDTH = 14
_SNR_KINDS = {
    "latents_snr_db": "encoder",
    "dequantizer_snr_db": "dequantizer",
    "decoder_snr_db": "decoder",
    "stream_snr_db": "stream",
}


def bundle_lines(facts: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """Yield the summary of what `dmcodec info --json` says of a bundle.

    Args:
        facts: the JSON values.
        width: columns of the terminal; None: lines are not wrapped.
    """
    yield one_line(str(facts["bundle"]))
    for name, text in _rows(facts):
        head = f"  {name:<{_WIDTH}}"
        line = one_line(f"{head}{text}")
        if width is None:
            yield line
        else:
            yield from wrap(line, max(width, 40), subsequent_indent=" " * len(head), break_on_hyphens=False)


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config, precision = facts["config"], facts["precision"]
    yield "model", f"{facts['model_id']}: {_origin(facts['provenance'])}"
    yield "audio", f"{config['sample_rate'] / 1000:g} kHz, mono"
    levels, bitrate = config["n_q"], facts["bitrate_bps"] / 1000
    yield (
        "tokens",
        f"{levels} levels of {config['codebook_size']:,} codes, {facts['frame_rate']:g} frames a second: "
        f"{bitrate:g} kbit/s, {bitrate / levels:g} kbit/s for each level",
    )
    if facts["bandwidths"]:
        yield "bandwidths", ", ".join(f"{kbps} kbit/s: n_q {n_q}" for kbps, n_q in facts["bandwidths"].items())
    yield "precision", f"{precision}: {PRECISIONS[precision].summary}" if precision in PRECISIONS else precision
    if precision in PRECISIONS and (mixing := PRECISIONS[precision].mixing):
        yield "", mixing
    if facts.get("int8"):
        for index, (name, text) in enumerate(int8_rows(facts["int8"])):
            yield "int8" if index == 0 else "", f"{name.removeprefix('int8 ')}: {text}"
    yield "size", _size(facts)
    yield "proof", _proof(facts["parity"])
    yield "long clips", _long_clips(facts)
    yield from _contexts(facts)
    yield "streams", f"decode {facts['look_ahead_ms']:g} ms behind their tokens ({facts['look_ahead_frames']} frames)"
    yield from _live(facts["live_encoding"])
    yield from _engines(facts["engines"])
    yield "written by", _versions(facts["provenance"])
    yield "", "`dmcodec info --json` shows every field, `dmcodec verify` proves it on this machine"


def _origin(provenance: Mapping[str, Any]) -> str:
    if provenance.get("checkpoint"):
        sha256 = provenance.get("checkpoint_sha256") or ""
        return f"weights of {provenance['checkpoint']}" + (f" (sha256 {sha256[:16]}...)" if sha256 else "")
    if provenance.get("seed") is not None:
        return f"UNTRAINED weights of seed {provenance['seed']}, to measure speed"
    return "weights of unknown origin"


def _size(facts: Mapping[str, Any]) -> str:
    text = f"{facts['size_bytes'] / 1e6:.1f} MB in {len(facts['graphs'])} graphs"
    shared = facts["weights"]
    return f"{text}; {shared['size_bytes'] / 1e6:.1f} MB are weights shared by the graphs" if shared else text


def _proof(parity: Mapping[str, Any]) -> str:
    """Return what the export proved. Records of earlier versions have fewer figures."""
    snrs = [f"{label} {_db(parity[name])}" for name, label in _SNR_KINDS.items() if name in parity]
    parts = [", ".join(snrs)] if snrs else []
    if "frame_agreement" in parity:
        parts.append(f"codes equal in {_percent(parity['frame_agreement'])} of the frames")
    if "level0_agreement" in parity:
        parts.append(f"level 0 in {_percent(parity['level0_agreement'])}")
    if not parts:
        return "no figures in the manifest; run `dmcodec verify`"
    return f"at export, against torch, at worst: {'; '.join(parts)}; {parity.get('ties', 0)} ties aside"


def _db(value: float) -> str:
    return "identical" if value >= 200 else f"{value:.1f} dB"


def _long_clips(facts: Mapping[str, Any]) -> str:
    if facts["long_clips"] == "encoded exactly":
        return "encoded exactly, in bounded memory, with the tokens of one piece"
    context_s = facts["encoder_context"]["default_context_s"]
    again = "`dmcodec export --bundle OLD --out NEW` writes exact graphs"
    return f"encoded in windows with {context_s:g} s of context; {again}"


def _contexts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what windows cost: all that was measured where the bundle has nothing else, or the default where it has."""
    measured = facts["encoder_context"]
    default_s = measured["default_context_s"]
    exact = facts["long_clips"] == "encoded exactly"
    if exact:
        yield "  windows", f"where they are chosen (context_s=), {default_s:g} s of context by default:"
    for case in measured.get("cases", ()):
        if not exact or case["context_s"] == default_s:
            yield f"    {case['context_s']:g} s", _equal(case)


def _live(live: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if live is None:
        yield "live encoding", "no: export again with `dmcodec export --bundle OLD --out NEW`"
        return
    whole = f"; STOI of the whole clip {live['stoi_whole']:.4f}" if "stoi_whole" in live else ""
    yield "live encoding", f"look-ahead {live['default_look_ahead_s']:g} s, delay {live['delay_s']:.3f} s{whole}"
    for case in live.get("cases", ()):
        yield f"    {case['look_ahead_s']:g} s", f"{_equal(case)}, STOI {case['stoi']:.4f}"


def _engines(engines: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for file, engine in engines.items():
        profiles = "; ".join(profile["name"] for profile in engine["profiles"])
        runs_on = f"{engine['flavour']} {engine['version']} for {', '.join(engine['architectures'])}"
        size = f"{engine['size_bytes'] / 1e6:.1f} MB"
        yield f"engine {engine['graph']}", f" {engine['precision']}, {size}, {runs_on}: {profiles} ({file})"


def _versions(provenance: Mapping[str, Any]) -> str:
    names = [f"{name} {provenance[name]}" for name in ("torch", "onnx", "onnxruntime") if provenance.get(name)]
    return ", ".join([str(provenance.get("exporter", "an unknown exporter")), *names])


def _equal(case: Mapping[str, Any]) -> str:
    return f"codes equal {_percent(case['code_agreement'])}, level 0 {_percent(case['level0_agreement'])}"


def _percent(share: float) -> str:
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"
