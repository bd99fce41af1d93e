"""`train teach`, with tiny untrained teachers made on the spot."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies
from numpy.typing import NDArray

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from dmcodec.audio_sources import DatasetOptions, find_sources  # noqa: E402
from dmcodec.errors import ArgumentError, DmcodecError, OutputExistsError, TeacherError, TeacherNotFoundError  # noqa: E402
from dmcodec.pretrained.recognisers import Heard, Word, load_recogniser, spread  # noqa: E402
from dmcodec.training.data import PreparedData  # noqa: E402
from dmcodec.training.data.given_transcripts import Given  # noqa: E402
from dmcodec.training.data.prepare import PrepareSettings, prepare  # noqa: E402
from dmcodec.training.teach.language_model import LanguageModel  # noqa: E402
from dmcodec.training.teach.speech_model import SpeechModel  # noqa: E402
from dmcodec.training.teach.store import check  # noqa: E402
from dmcodec.training.teach.teach import TeachSettings, teach  # noqa: E402
from dmcodec.training.teach.transcripts import SegmentSources, heard_in, place, read_transcripts, retime, within  # noqa: E402  # noqa: E402

RATE = 16000
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders: hubert (normalises over time), wavlm (doesn't), ctc, ctc-layer, whisper, bert, gpt."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    _speech_models(folder)
    _whisper(folder / "whisper")
    _text_models(folder)
    return folder


def _speech_models(folder: Path) -> None:
    tf: Any = importlib.import_module("transformers")  # its own types are too narrow for tiny models

    plain = tf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    masked = tf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    by_layer = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    for name, model, extractor in (
        ("hubert", tf.HubertModel(tf.HubertConfig(**SPEECH)), plain),
        ("wavlm", tf.WavLMModel(tf.WavLMConfig(**SPEECH, **by_layer)), masked),
    ):
        model.save_pretrained(folder / name)
        extractor.save_pretrained(folder / name)
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = tf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    for name, extractor, options in (("ctc", plain, {}), ("ctc-layer", masked, by_layer)):
        config = tf.Wav2Vec2Config(**SPEECH, **options, vocab_size=len(vocabulary), pad_token_id=0)
        model = tf.Wav2Vec2ForCTC(config)
        with torch.no_grad():  # so that frames differ, and words come out
            model.lm_head.weight.mul_(200)
        model.save_pretrained(folder / name)
        tf.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder / name)


def _whisper(folder: Path) -> None:
    tf: Any = importlib.import_module("transformers")  # its own types are too narrow for tiny models

    end, start, bare = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
    vocabulary = {token: i for i, token in enumerate(["!", "\u0120", *LETTERS])}
    names = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}
    tokenizer = tf.WhisperTokenizer(vocab=vocabulary, merges=[], **names)
    tokenizer.add_special_tokens({"additional_special_tokens": [start, bare]})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (end, start, bare)}
    special = {"bos_token_id": ids[end], "eos_token_id": ids[end], "pad_token_id": ids[end]}
    model = tf.WhisperForConditionalGeneration(
        tf.WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=24, vocab_size=len(tokenizer), num_mel_bins=80,
            max_source_positions=200, max_target_positions=64, decoder_start_token_id=ids[start],
            median_filter_width=3, suppress_tokens=list(ids.values()), begin_suppress_tokens=[], **special,
        )
    )  # fmt: skip
    model.generation_config = tf.GenerationConfig(
        **special, decoder_start_token_id=ids[start], no_timestamps_token_id=ids[bare], is_multilingual=False,
        suppress_tokens=list(ids.values()), alignment_heads=[[0, 0], [1, 1]], max_length=64, return_timestamps=False,
    )  # fmt: skip
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight.mul_(30)
    model.save_pretrained(folder)
    extractor = tf.WhisperFeatureExtractor(feature_size=80, chunk_length=4)
    tf.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def _text_models(folder: Path) -> None:
    tf: Any = importlib.import_module("transformers")  # its own types are too narrow for tiny models
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "seven", "##teen"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=160, **special)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    bert = tf.BertModel(tf.BertConfig(vocab_size=len(tokens), max_position_embeddings=160, **sizes))
    bert.save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")
    tf.GPT2Model(
        tf.GPT2Config(vocab_size=len(tokens), n_positions=160, n_embd=12, n_layer=2, n_head=2)
    ).save_pretrained(folder / "gpt")
    fast.save_pretrained(folder / "gpt")


@pytest.fixture(scope="module")
def data_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    for index, seconds in enumerate([2.5, 1.0, 0.7, 3.0, 1.3]):
        samples = np.random.default_rng(index).normal(0, 0.1, round(seconds * RATE))
        soundfile.write(folder / f"{index:02d}.wav", samples, RATE, subtype="PCM_16")
    settings = PrepareSettings(segment_s=1.0, validation=0.3)
    prepare(find_sources([str(folder)], None, DatasetOptions()), folder / "data", settings)
    return folder / "data"


@pytest.fixture
def data(data_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_once, tmp_path / "data"))


def noises(lengths: list[int]) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("name", ["hubert", "wavlm", "whisper"])
@pytest.mark.parametrize("layer", ["avg", "last", "1"])
def test_a_batch_of_speech_is_each_alone(models: Path, name: str, layer: str) -> None:
    model = SpeechModel(str(models / name), layer, "cpu", RATE)
    assert model.pads == (name == "wavlm")
    assert (model.width, model.frame_rate_hz) == (16, 50.0)
    lengths = [16000, 9000, 12345] if model.pads else [12345, 12345, 12345]
    waveforms = noises(lengths)
    for waveform, found in zip(waveforms, model.features(waveforms), strict=True):
        (alone,) = model.features([waveform])
        assert found.shape == alone.shape
        assert abs(len(alone) - len(waveform) / 320) < 1.5
        assert np.abs(found - alone).max() < 1e-4 * max(1, np.abs(alone).max())


def test_layers_are_what_their_names_say(models: Path) -> None:
    waveform = noises([16000])
    layers = {layer: SpeechModel(str(models / "hubert"), layer, "cpu", RATE).features(waveform)[0] for layer in "012"}
    average = SpeechModel(str(models / "hubert"), "avg", "cpu", RATE).features(waveform)[0]
    last = SpeechModel(str(models / "hubert"), "last", "cpu", RATE).features(waveform)[0]
    assert np.allclose(average, np.mean(list(layers.values()), axis=0), atol=1e-5)
    assert np.array_equal(last, layers["2"])
    for wrong in ("3", "first", "-1"):
        with pytest.raises(ArgumentError, match="--sm-layer"):
            SpeechModel(str(models / "hubert"), wrong, "cpu", RATE)


@pytest.mark.parametrize("name", ["ctc", "ctc-layer", "whisper"])
def test_a_batch_is_heard_as_each_alone(models: Path, name: str) -> None:
    recogniser = load_recogniser(str(models / name), "cpu", RATE)
    lengths = [16000, 9000, 24000] if recogniser.pads else [16000, 16000, 16000]
    waveforms = noises(lengths)
    for waveform, heard in zip(waveforms, recogniser.transcribe(waveforms), strict=True):
        (alone,) = recogniser.transcribe([waveform])
        assert alone.num_frames == heard.num_frames
        assert abs(heard.num_frames - len(waveform) / 320) < 1.5
        assert alone.text == heard.text
        assert " ".join(word.text for word in heard.words) == heard.text
        duration_s = len(waveform) / RATE
        assert all(0 <= word.start_s <= word.end_s <= duration_s for word in heard.words)
    assert any(heard.text for heard in recogniser.transcribe(waveforms))


def test_a_shorter_window_is_whispers_own_choice(models: Path) -> None:
    recogniser = load_recogniser(str(models / "whisper"), "cpu", RATE, None, 2.0)
    recogniser.transcribe(noises([16000]))
    with pytest.raises(TeacherError, match="--asr-window"):
        recogniser.transcribe(noises([48000]))
    with pytest.raises(ArgumentError, match="--asr-window"):
        load_recogniser(str(models / "whisper"), "cpu", RATE, None, 5.0)
    with pytest.raises(ArgumentError, match="Whisper"):
        load_recogniser(str(models / "ctc"), "cpu", RATE, "en")
    with pytest.raises(ArgumentError, match="English only"):
        load_recogniser(str(models / "whisper"), "cpu", RATE, "fr")


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_padded_text_has_a_row_a_frame(models: Path, name: str) -> None:
    model = LanguageModel(str(models / name), "avg", "cpu")
    texts, frames = ["seventeen a b c", "", "x y z " * 40], [50, 30, 50]
    found = model.padded(texts, frames)
    assert [each.shape for each in found] == [(count, 12) for count in frames]
    for text, count, each in zip(texts, frames, found, strict=True):
        (alone,) = model.padded([text], [count])
        assert np.abs(each - alone).max() < 1e-5
    with pytest.raises(TeacherError, match="positions"):
        model.padded(["a"], [161])


def test_aligned_text_follows_the_words(models: Path) -> None:
    model = LanguageModel(str(models / "bert"), "last", "cpu")
    words = [Word("seventeen", 0.1, 0.3), Word("a", 0.3, 0.304), Word("b", 0.5, 0.6)]
    (rows,) = model.aligned([words], [50], 50.0)
    silent = np.asarray(~rows.any(axis=1))
    assert silent[:5].all()
    assert not silent[5:16].any()
    assert silent[16:25].all()
    assert not silent[25:30].any()
    assert silent[30:].all()
    assert (rows[5:10] == rows[5]).all()  # "seven" and "##teen" share the word's time
    assert (rows[10:15] == rows[10]).all()
    assert not np.array_equal(rows[5], rows[10])
    texts = [words, [Word("z", 0.0, 1.0)], []]
    for each, alone in zip(model.aligned(texts, [50] * 3, 50.0), texts, strict=True):
        assert np.abs(each - model.aligned([alone], [50], 50.0)[0]).max() < 1e-5


WORDS = strategies.lists(strategies.text("ab,'", min_size=1, max_size=4), max_size=8)


@given(said=WORDS, heard=WORDS, duration_s=strategies.floats(0.1, 10))
def test_retimed_words_stay_the_same_words_in_order(said: list[str], heard: list[str], duration_s: float) -> None:
    words = spread(" ".join(said), 0.0, duration_s)
    found = retime(words, spread(" ".join(heard), 0.2 * duration_s, 0.9 * duration_s))
    assert [word.text for word in found] == said
    assert all(word.start_s <= word.end_s + 1e-9 for word in found)
    starts = [word.start_s for word in found]
    assert all(before <= after + 1e-9 for before, after in pairwise(starts))


def test_words_take_times_from_what_was_heard() -> None:
    words = spread("the big black cat", 0, 4)
    heard = [Word("The", 1.0, 1.2), Word("pig", 1.2, 1.5), Word("flak", 1.5, 1.9), Word("cat.", 2.0, 2.4)]
    found = retime(words, heard)
    assert (found[0].start_s, found[0].end_s) == (1.0, 1.2)
    assert (found[3].start_s, found[3].end_s) == (2.0, 2.4)
    assert found[1].start_s == 1.2
    assert found[2].end_s == 2.0
    assert [(word.text, round(word.start_s, 6), round(word.end_s, 6)) for word in within(found, 1.9, 1.0)] == [
        ("cat", 0.1, 0.5)
    ]
    placed = place([Given("one two", 1.0, 2.0), Given("three", 0.0, 0.5)], 10.0)
    assert [word.text for word in placed] == ["three", "one", "two"]


def test_words_in_an_overlap_are_heard_once() -> None:
    sources = SegmentSources(["a", "a"], [0.0, 2.0], [3.0, 3.0], {"a": [0, 1]})
    heard = {
        0: Heard("one two three", (Word("one", 0, 1), Word("two", 2.0, 2.4), Word("thr", 2.7, 3.0)), 150),
        1: Heard("two three", (Word("two", 0, 0.4), Word("three", 0.7, 1.2)), 150),
    }
    text = {"a": [Given("one two three")]}
    words = heard_in(sources, [0, 1], heard)
    assert [(word.text, word.start_s) for word in words] == [("one", 0.0), ("two", 2.0), ("three", 2.7)]
    assert [word.start_s for word in retime(place(text["a"], 5.0), words)] == [0.0, 2.0, 2.7]


def settings(models: Path, **changes: Any) -> TeachSettings:
    names = {"sm": str(models / "hubert"), "lm": str(models / "bert"), "asr": str(models / "ctc"), "device": "cpu"}
    return TeachSettings(**{**names, **changes})


def test_teaching_and_reading(models: Path, data: Path) -> None:
    teach(data, settings(models), per_shard=4)
    read = PreparedData.open(data)
    model = SpeechModel(str(models / "hubert"), "avg", "cpu", RATE)
    recogniser = load_recogniser(str(models / "ctc"), "cpu", RATE)
    language = LanguageModel(str(models / "bert"), "avg", "cpu")
    assert {kind: info.width for kind, info in read.teachers.items()} == {"sm": 16, "lm": 12}
    assert not read.teachers["lm"].aligned
    for segment in range(read.num_segments):
        (expected,) = model.features([read.waveform(segment)])
        found = read.teacher("sm", segment, 50, 50.0)
        assert np.abs(found - expected[:50]).max() < 2e-3 * np.abs(expected).max()
        (heard,) = recogniser.transcribe([read.waveform(segment)])
        (expected,) = language.padded([heard.text], [heard.num_frames])
        assert np.abs(read.teacher("lm", segment, 50, 50.0) - expected).max() < 2e-3 * np.abs(expected).max()
    assert sorted(path.name for path in (data / "teachers" / "sm").iterdir()) == [
        "00000.npy",
        "00001.npy",
        "00002.npy",
        "meta.json",
        "offsets.npy",
    ]
    assert not (data / ".teach").exists()


def test_teaching_goes_on_where_it_stopped(models: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    features, transcribe = SpeechModel.features, type(load_recogniser(str(models / "ctc"), "cpu", RATE)).transcribe

    def counted(of: Any, limit: int) -> Any:
        def run(self: Any, waveforms: Any) -> Any:
            runs.append(len(waveforms))
            if sum(runs) > limit:
                raise KeyboardInterrupt
            return of(self, waveforms)

        return run

    from dmcodec.pretrained.recognisers import CtcRecogniser

    for taught, limit, total in ((SpeechModel, 6 + 2, 10), (CtcRecogniser, 4, 10)):
        name, of = ("features", features) if taught is SpeechModel else ("transcribe", transcribe)
        with monkeypatch.context() as patched:
            patched.setattr(taught, name, counted(of, limit))
            patched.setattr("dmcodec.training.teach.transcripts.PER_PART", 2)
            with pytest.raises(KeyboardInterrupt):
                teach(data, settings(models, batch_size=1), per_shard=3)
        runs.clear()
        with monkeypatch.context() as patched:
            patched.setattr(taught, name, counted(of, 99))
            patched.setattr("dmcodec.training.teach.transcripts.PER_PART", 2)
            teach(data, settings(models, batch_size=1, **({"lm": None} if taught is SpeechModel else {})), per_shard=3)
        assert 0 < sum(runs) < total, taught
        runs.clear()
    PreparedData.open(data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    teach(data, settings(models), per_shard=3)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == before


def test_other_settings_need_force(models: Path, data: Path) -> None:
    teach(data, settings(models), per_shard=4)
    with pytest.raises(OutputExistsError, match="another layer"):
        teach(data, settings(models, sm_layer="1"), per_shard=4)
    with pytest.raises(OutputExistsError, match=r"another .*align"):
        teach(data, settings(models, align=True), per_shard=4)
    with pytest.raises(OutputExistsError, match="recogniser"):
        teach(data, settings(models, sm=None, asr=str(models / "whisper")), per_shard=4)
    PreparedData.open(data)
    teach(data, settings(models, sm=None, align=True, frame_rate_hz=25.0), per_shard=4, force=True)
    info = PreparedData.open(data).teachers["lm"]
    assert info.aligned
    assert info.frame_rate_hz == 25.0
    assert len(PreparedData.open(data).teacher("lm", 0, 50, 50.0)) == 50


def test_data_changed_after_teaching(models: Path, data_once: Path, data: Path) -> None:
    teach(data, settings(models, lm=None), per_shard=4)
    sources = find_sources([str(data_once.parent / "0*.wav")], None, DatasetOptions())
    prepare(sources, data, PrepareSettings(segment_s=0.5, validation=0.3), force=True)
    with pytest.raises(TeacherError, match="changed after teaching"):
        PreparedData.open(data)
    with pytest.raises(OutputExistsError, match="another fingerprint"):
        teach(data, settings(models, lm=None), per_shard=4)
    teach(data, settings(models, lm=None), per_shard=4, force=True)
    PreparedData.open(data)


def test_given_transcripts_need_no_recogniser(models: Path, data: Path) -> None:
    texts = {f"{index:02d}": [Given("seventeen a b")] for index in range(4)}
    with pytest.raises(TeacherError, match="2 of 10 segments have no transcript"):
        teach(data, settings(models, sm=None, asr=None), texts)
    timed = texts | {"04": [Given("x y", 0.0, 0.4), Given("z", 0.9, 1.3)]}
    teach(data, settings(models, sm=None, asr=None, align=True), timed)
    transcripts = read_transcripts(data / "transcripts.parquet")
    assert transcripts[0].text == "seventeen"  # of 2.5 s, the longest word takes the first
    assert {each.origin for each in transcripts} == {"given"}
    assert [each.text for each in transcripts[8:]] == ["x y", "y z"]
    rows = PreparedData.open(data).teacher("lm", 8, 50, 50.0)
    assert rows[:20].any(axis=1).all()
    assert not rows[20:].any()
    teach(data, settings(models, sm=None, align=True), texts, force=True)
    assert {each.origin for each in read_transcripts(data / "transcripts.parquet")} == {"given", "recognised"}


def test_features_that_half_precision_cannot_hold() -> None:
    good = np.zeros((3, 2), np.float32)
    check(0, good, 2)
    for value, words in ((np.nan, "NaN"), (np.inf, "NaN or inf"), (7e4, "half precision")):
        bad = good.copy()
        bad[1, 1] = value
        with pytest.raises(TeacherError, match=f"segment 7.*{words}"):
            check(7, bad, 2)


def test_a_teacher_that_gives_nan(models: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = Path(shutil.copytree(models / "hubert", tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "layers.1" in name and name.endswith("weight"))
    save_file({**weights, name: np.full_like(weights[name], np.nan)}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=r"segment \d+: .*NaN"):
        teach(data, settings(models, sm=str(broken), lm=None))
    assert "sm" not in PreparedData.open(data).teachers


def test_a_full_disk_leaves_no_half_teacher(models: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(DmcodecError, match="No space left on device"):
            teach(data, settings(models, lm=None))
    assert not PreparedData.open(data).teachers
    teach(data, settings(models, lm=None))
    assert set(PreparedData.open(data).teachers) == {"sm"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sm": "/no/such/model"}, "/no/such/model"),
        ({"sm": "bert"}, "feature extractor"),
        ({"sm": None, "asr": "hubert"}, "no weights"),
        ({"sm": None, "lm": "hubert"}, "tokenizer"),
    ],
)
def test_models_of_the_wrong_kind(
    models: Path, data: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {key: str(models / value) if value and "/" not in value else value for key, value in changes.items()}
    with pytest.raises((TeacherError, TeacherNotFoundError), match=words) as caught:
        teach(data, settings(models, **named))
    assert "\n" not in str(caught.value)


def test_wrong_calls(models: Path, data: Path) -> None:
    for changes in ({"sm": None, "lm": None}, {"batch_size": 0}, {"frame_rate_hz": 0.0}):
        with pytest.raises(ArgumentError):
            settings(models, **changes)
    with pytest.raises(ArgumentError, match="--device"):
        teach(data, settings(models, device="moon"))


def test_the_command(models: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dmcodec", "train", "teach"]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        call = [*command, *map(str, arguments)]
        return subprocess.run(call, capture_output=True, text=True, timeout=120, env=environment)

    options = ("--sm", models / "whisper", "--lm", models / "bert", "--asr", models / "whisper", "--align", "--json")
    done = run(data, *options, "--device", "cpu", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
    assert json.loads(done.stdout)["lm"]["aligned"] is True
    assert set(PreparedData.open(data).teachers) == {"sm", "lm"}
    for exit_code, words, arguments in (
        (2, "name a teacher", (data,)),
        (1, "no such data folder", (tmp_path / "none", "--sm", models / "hubert")),
    ):
        done = run(*arguments)
        assert done.returncode == exit_code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("error: ") == 1
