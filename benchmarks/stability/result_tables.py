"""Token stability as tables of plain text, the same on a terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Mapping

from dmcodec.benchmarks.tables import Table, count_of

from .result import MAX_S, Agreement, Stability

MAX_LEVELS = 8  # columns; codecs of more levels have the others in the JSON
_NONE = "-"


def stability_tables(codecs: Mapping[str, Stability]) -> list[Table]:
    """Return the tables of codecs by name: changes, re-encoding, and what could not be measured."""
    measured = {name: each for name, each in codecs.items() if each.files}
    tables = [_changes(measured), _rounds(measured), _definitions(measured), _failures(codecs)]
    return [table for table in tables if table.rows]


def percent(share: float | None) -> str:
    """Return a share as percent with one decimal, never rounded to 100 or 0 where it isn't; a dash for None."""
    if share is None:
        return _NONE
    shown = f"{100 * share:.1f}"
    if shown == "100.0" and share < 1:
        return "99.9"
    return "0.1" if shown == "0.0" and share > 0 else shown


def _changes(codecs: Mapping[str, Stability]) -> Table:
    levels = _most_levels(codecs)
    rows = [
        (name, each.label, *_cells(each, levels)) for name, stability in codecs.items() for each in stability.changes
    ]
    of_codecs = {name: f"{count_of(len(each.files), 'file')}, {each.seconds:,.1f} s" for name, each in codecs.items()}
    if len(set(of_codecs.values())) == 1:
        sizes = next(iter(of_codecs.values()))
    else:
        sizes = "; ".join(f"{name}: {size}" for name, size in of_codecs.items())
    return Table(
        "Token stability: codes that stay, in percent",
        ("codec", "change of the input", *_headings(levels)),
        tuple(rows),
        2,
        f"{sizes}; at most the first {MAX_S:g} s of each. Lowest: all levels, in the file with the lowest share. "
        "Edits: Levenshtein distance of the sequences of codes per 100 frames, which doesn't depend on how frames are "
        "paired. "
        "A level's code can stay while the levels before it change.",
    )


def _rounds(codecs: Mapping[str, Stability]) -> Table:
    levels = _most_levels(codecs)
    rows = [
        (
            name,
            f"{each.rounds:,}",
            *_cells(each.agreement, levels),
            _NONE if each.stoi is None else f"{each.stoi:.3f}",
        )
        for name, stability in codecs.items()
        for each in stability.rounds
    ]
    return Table(
        "Re-encoding: first codes that are left, in percent",
        ("codec", "rounds", *_headings(levels), "STOI"),
        tuple(rows),
        1,
        "Each round decodes the codes and encodes the audio again. STOI is that of the audio which the codes of the "
        "round decode to, against the original; round 0 is the codec's plain reconstruction.",
    )


def _definitions(codecs: Mapping[str, Stability]) -> Table:
    found = {each.label: each.definition for stability in codecs.values() for each in stability.changes}
    return Table("Changes of the input", ("change", "definition"), tuple(found.items()), 2)


def _failures(codecs: Mapping[str, Stability]) -> Table:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, stability in codecs.items():
        for clip, reason in stability.skipped.items():
            rows.setdefault((name, "all", reason), []).append(clip)
        for each in (*stability.changes, *(each.agreement for each in stability.rounds)):
            for clip, reason in each.failures.items():
                rows.setdefault((name, each.label, reason), []).append(clip)
    return Table(
        "Not measured",
        ("codec", "what", "files", "reason", "for example"),
        tuple((name, what, str(len(clips)), reason, clips[0]) for (name, what, reason), clips in rows.items()),
        5,
    )


def _most_levels(codecs: Mapping[str, Stability]) -> int:
    counts = [len(each.levels) for stability in codecs.values() for each in stability.changes]
    return min(MAX_LEVELS, max(counts, default=0))


def _headings(levels: int) -> tuple[str, ...]:
    return (*(f"level {level}" if level == 0 else str(level) for level in range(levels)), "all", "lowest\nfile",
            "edits\nlevel 0", "edits\nall")  # fmt: skip


def _cells(each: Agreement, levels: int) -> tuple[str, ...]:
    shown = [percent(share) for share in each.levels[:levels]]
    shown += [_NONE] * (levels - len(shown))
    first = each.edit_distance[0] if each.edit_distance else None
    return (
        *shown,
        percent(each.all_levels),
        percent(each.lowest),
        percent(first),
        percent(each.edit_distance_all_levels),
    )
