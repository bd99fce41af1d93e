"""Measure how much a codec's tokens tell about words and speakers, by linear probes, cross-validated by recording.

    python recipes/small/probe.py --words DATA --speakers DATA none=runs/none/best lm=runs/lm/best ...

The features of a frame are the sum of its codebook vectors, of level 0 alone or of all levels. Both data folders come
from `dmcodec train prepare`; that of the words needs transcripts with times (`train teach --asr --lm`).

- words: which of the frequent words it is, from the mean vectors of the first, second and last third of its frames;
- speakers: who speaks in a segment, from mean and standard deviation over its frames.

The probe is a ridge regression to one-hot targets. Its accuracy is measured on recordings that it was not fitted to.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.nn import DMCodec
from dmcodec.training.data import PreparedData
from dmcodec.training.teach.transcripts import read_transcripts, transcripts_path

Vectors = NDArray[np.float64]
Example = tuple[Vectors, str, str]  # features, class, recording
FOLDS = 5
RIDGE = 10.0


def main() -> None:
    """Print a line for each codec, and write the results as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codecs", nargs="+", metavar="NAME=FOLDER", help="with codec.safetensors and config.json")
    parser.add_argument("--words", type=Path, required=True, metavar="DATA")
    parser.add_argument("--speakers", type=Path, required=True, metavar="DATA")
    parser.add_argument("--speaker-prefix", default="", help="use only speakers whose name has this prefix")
    parser.add_argument("--min-count", type=int, default=20, help="least count of a word that is a class")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    words, speakers = PreparedData.open(arguments.words), PreparedData.open(arguments.speakers)
    found = {}
    for name, folder in (each.split("=", 1) for each in arguments.codecs):
        codec = load(Path(folder))
        encoded_words, encoded_speakers = Encoded(words, codec), Encoded(speakers, codec)
        found[name] = {}
        for levels in (1, codec.config.n_q):
            for task, examples in (
                ("words", word_examples(encoded_words, levels, arguments.min_count)),
                ("speakers", speaker_examples(encoded_speakers, levels, arguments.speaker_prefix)),
            ):
                found[name][f"{task}, {levels} level{'s' * (levels > 1)}"] = probe(list(examples))
        for task, result in found[name].items():
            print(
                f"{name:10} {task:22} " + "  ".join(f"{key} {value:.3g}" for key, value in result.items()), flush=True
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> DMCodec:
    """Load the codec of a run's best or checkpoint folder."""
    config = CodecConfig.from_json(folder / "config.json")
    return DMCodec.from_checkpoint(config, folder / "codec.safetensors").eval()


class Encoded:
    """The segments of a data folder, each encoded once, at its first use."""

    def __init__(self, data: PreparedData, codec: DMCodec) -> None:
        self.data = data
        self.codec = codec
        self.codes: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def vectors(self, segment: int, levels: int) -> Vectors:
        """Return the summed codebook vectors of a segment: (frames, dimension)."""
        if segment not in self.codes:
            waveform = torch.from_numpy(self.data.waveform(segment))[None, None]
            self.codes[segment] = self.codec.encode(waveform)
        return self.codec.quantizer.decode(self.codes[segment][:levels])[0].T.double().numpy()


def word_examples(encoded: Encoded, levels: int, min_count: int) -> Iterator[Example]:
    """Yield every occurrence of a frequent word."""
    transcripts = read_transcripts(transcripts_path(encoded.data))
    spoken = [
        (segment, plain(word.text), round(word.start_s * 50), round(word.end_s * 50))
        for segment, transcript in enumerate(transcripts)
        for word in transcript.words
    ]
    counts = Counter(word for _, word, _, _ in spoken)
    sources = encoded.data.table().column("source").to_pylist()
    for segment, word, first, end in spoken:
        frames = encoded.vectors(segment, levels)[first:end]
        if word and counts[word] >= min_count and len(frames) >= 3:
            thirds = np.array_split(frames, 3)
            yield np.concatenate([third.mean(axis=0) for third in thirds]), word, sources[segment]


def speaker_examples(encoded: Encoded, levels: int, prefix: str) -> Iterator[Example]:
    """Yield every segment of the speakers."""
    table = encoded.data.table()
    columns = zip(table.column("speaker").to_pylist(), table.column("source").to_pylist(), strict=True)
    for segment, (speaker, source) in enumerate(columns):
        if speaker.startswith(prefix) and not speaker.endswith("-varied"):
            frames = encoded.vectors(segment, levels)
            yield np.concatenate([frames.mean(axis=0), frames.std(axis=0)]), speaker, source


def probe(examples: list[Example]) -> dict[str, float]:
    """Return the accuracy over folds of whole recordings, and that of the most frequent class."""
    features = np.stack([example[0] for example in examples])
    classes, labels = np.unique([example[1] for example in examples], return_inverse=True)
    _, recordings = np.unique([example[2] for example in examples], return_inverse=True)
    folds = np.random.default_rng(0).permutation(recordings.max() + 1)[recordings] % FOLDS
    right = np.concatenate(
        [
            fitted(features[folds != fold], labels[folds != fold], len(classes))(features[folds == fold])
            == labels[folds == fold]
            for fold in range(FOLDS)
        ]
    )
    return {
        "accuracy": float(right.mean()),
        "most_frequent": float(np.bincount(labels).max() / len(labels)),
        "classes": len(classes),
        "examples": len(labels),
    }


def fitted(features: Vectors, labels: NDArray[np.int64], classes: int) -> Callable[[Vectors], NDArray[np.int64]]:
    """Fit a ridge regression of standardised features to one-hot classes; return the classifier."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9

    def design(rows: Vectors) -> Vectors:
        return np.concatenate([(rows - mean) / scale, np.ones((len(rows), 1))], axis=1)

    rows = design(features)
    weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ np.eye(classes)[labels])
    return lambda other: np.argmax(design(other) @ weights, axis=1)


def plain(word: str) -> str:
    """Return a word in lower case, without punctuation around it."""
    return word.lower().strip(".,;:?!\"'()- ")


if __name__ == "__main__":
    main()
