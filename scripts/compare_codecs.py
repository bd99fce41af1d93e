"""Compare codecs on published samples, and the built-in codec at 1 to 8 levels, for the documentation.

    python scripts/compare_codecs.py SAMPLES [--asr MODEL] [--levels 1,2,...] [--out docs/measurements]

SAMPLES holds one file for each codec and clip, CODEC_CLIP.flac, and of each clip Original_CLIP.flac. They are sorted
into folders, and `dmcodec evaluate` runs there. It writes the page `compare-codecs.html`, and replaces the table in
`quality-of-four-codecs.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.evaluate.metrics import METRICS
from dmcodec.bundle import default_bundle_path
from dmcodec.cpus import usable_cpus

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "measurements"
ORIGINAL = "Original"
BUILT_IN = "dmcodec-small"
PAGE, TABLE, PAPER = "compare-codecs.html", "quality-of-four-codecs.md", "dm-codec-paper.json"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
VERSIONS, RECOGNISER = re.compile(r"\[([^\]]+)\]"), re.compile(r"recogniser ([^ ;]+)")
COLUMNS = 130
CREDIT = (
    "Speech: LibriSpeech (Panayotov, Chen, Povey, Khudanpur, 2015), CC BY 4.0, here as reconstructed by the codecs. "
    "The samples of DM-Codec, EnCodec, SpeechTokenizer and FACodec are those that DM-Codec's authors published."
)


def main() -> None:
    """Write the page and the table that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("samples", type=Path, help="folder of CODEC_CLIP.flac and Original_CLIP.flac")
    parser.add_argument("--asr", help="recogniser for wer and wil, a transformers id or folder (default: none)")
    parser.add_argument("--levels", default="1,2,3,4,5,6,7,8", help="of the built-in codec (default: %(default)s)")
    parser.add_argument("--metrics", help="as of `dmcodec evaluate` (default: all that need no further model)")
    parser.add_argument("--out", type=Path, default=PAGES, help="folder of the page and the table")
    arguments = parser.parse_args()
    codecs = codecs_of(arguments.samples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sort_samples(arguments.samples, folder)
        (folder / BUILT_IN).symlink_to(default_bundle_path().resolve())
        (folder / PAPER).write_bytes((PAGES / PAPER).read_bytes())
        result = evaluate(folder, codecs, arguments)
        page = (folder / PAGE).read_text(encoding="utf-8")
    credited = page.replace("</h1>", f"</h1>\n<p>{escape(CREDIT)}</p>", 1)
    assert credited != page, "the page has no heading to put the credit under"
    (arguments.out / PAGE).write_text(credited, encoding="utf-8")
    path = arguments.out / TABLE
    path.write_text(with_table(path.read_text(encoding="utf-8"), result), encoding="utf-8")


def codecs_of(samples: Path) -> list[str]:
    """Return the names of the codecs in a folder of samples, the original left out."""
    names = sorted({path.name.partition("_")[0] for path in samples.glob("*_*.flac")})
    if ORIGINAL not in names or len(names) < 2:
        sys.exit(f"error: {samples}: holds no {ORIGINAL}_CLIP.flac, or no CODEC_CLIP.flac beside it")
    return [name for name in names if name != ORIGINAL]


def sort_samples(samples: Path, folder: Path) -> None:
    """Link CODEC_CLIP.flac as CODEC/CLIP.flac."""
    for path in samples.glob("*_*.flac"):
        codec, _, clip = path.name.partition("_")
        (folder / codec).mkdir(exist_ok=True)
        (folder / codec / clip).symlink_to(path.resolve())


def evaluate(folder: Path, codecs: Sequence[str], arguments: argparse.Namespace) -> Any:
    """Run `dmcodec evaluate` in the folder, and return its result as JSON values."""
    command = [sys.executable, "-m", "dmcodec", "evaluate", "--reference", ORIGINAL]
    command += [f"--against={codec}" for codec in codecs]
    command += [f"--codec={BUILT_IN}", f"--n-q={arguments.levels}", f"--published={PAPER}"]
    command += [f"--asr={linked(arguments.asr, folder)}"] if arguments.asr else []
    command += [f"--metrics={arguments.metrics}"] if arguments.metrics else []
    command += [f"--report={PAGE}", "--report-audio=mp3", f"--jobs={usable_cpus()}", "--json"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def linked(model: str, folder: Path) -> str:
    """Link a model's folder and return its name, so that the page holds no path; return an id of the hub as it is."""
    path = Path(model)
    if not path.is_dir():
        return model
    (folder / path.resolve().name).symlink_to(path.resolve())
    return path.resolve().name


def with_table(text: str, result: Mapping[str, Any]) -> str:
    """Return the text of a page with the new table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"no {BEGIN} and {END}"
    return "\n".join([f"{before}{BEGIN}", *table(result), f"{END}{after}"])


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table, and the versions with which it was measured."""
    metrics = result["metrics"]
    units = (
        f"{metric['label']}, {metric['unit']}" if metric["unit"] else metric["label"] for metric in metrics.values()
    )
    yield f"| codec | kbit/s | {' | '.join(units)} |"
    yield "|---" * (len(metrics) + 2) + "|"
    for column in result["columns"]:
        bits = column["column"]["bitrate_bps"]
        values = {key: column["summary"][key]["value"] for key in metrics}
        yield row(column["column"]["name"], "-" if bits is None else f"{bits / 1000:g}", values)
    for published in result["published"]:
        if any(key in published["values"] for key in metrics):
            yield row(f"*{published['name']} (published)*", "-", {key: published["values"].get(key) for key in metrics})
    day = datetime.fromisoformat(result["date"])
    definitions = [metric["definition"] for metric in metrics.values()]
    packages = dict.fromkeys(
        name for text in definitions for each in VERSIONS.findall(text) for name in each.split(", ")
    )
    recognisers = dict.fromkeys(name for text in definitions for name in RECOGNISER.findall(text))
    versions = ", ".join([f"dmcodec {result['dmcodec_version']}", *packages])
    texts = "".join(f"; texts by {name}, whose text of the original is the reference" for name in recognisers)
    yield ""
    yield from textwrap.wrap(f"Measured on {day.day} {day:%B %Y} with {versions}{texts}.", COLUMNS)


def row(name: str, bits: str, values: Mapping[str, float | None]) -> str:
    """Return one row of the table."""
    cells = ("-" if value is None else METRICS[key].text(value) for key, value in values.items())
    return f"| {name} | {bits} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
