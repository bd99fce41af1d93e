"""What a bundle in int8 says of itself, for `dmcodec info` and the report of an export: its layers, and their cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def int8_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a name and a text for each line.

    Args:
        record: `int8` of a manifest.
    """
    figures, budget = record["held_out"], record["budget"]
    rows = [(f"int8 layers of the {side}", _layers(record, side)) for side in ("encoder", "decoder")]
    rows.append(("int8 judged on", f"{record['held_out_s']:g} s held out of {record['speech']}"))
    rows.append(
        (
            "int8 codes equal to float32's",
            f"{_share(figures['code_agreement'])}, level 0 {_share(figures['level0_agreement'])} "
            f"(at least {_share(budget['level0_agreement'])}); latents {figures['latents_snr_db']:.1f} dB",
        )
    )
    decoder = f"{figures['decoder_snr_db']:.1f} dB (at least {budget['decoder_snr_db']:g})"
    rows.append(("int8 decoder, same codes", f"{decoder}{_scores(figures, '_decoder')}"))
    rows.append(("int8 round trip", _scores(figures, "").lstrip("; ")))
    return rows


def _layers(record: Mapping[str, Any], side: str) -> str:
    layers, tried = record[f"{side}_layers"], record["trials"][side]
    return f"{len(layers)} of {len(tried)} tried: {', '.join(layers) or 'none'}"


def _scores(figures: Mapping[str, Any], ending: str) -> str:
    """Return the scores of int8, each beside float32's."""
    parts = []
    for name, key, decimals in (("STOI", "stoi", 4), ("PESQ-WB", "pesq_wb", 3)):
        if f"{key}{ending}" in figures:
            value, float32 = figures[f"{key}{ending}"], figures[f"{key}_fp32"]
            parts.append(f"{name} {value:.{decimals}f} (float32 {float32:.{decimals}f})")
    return "".join(f"; {part}" for part in parts)


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"
