"""Tiny untrained teachers, and data for them; needs torch and transformers."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from dmcodec.audio_sources import DatasetOptions, find_sources
from dmcodec.training.data.prepare import PrepareSettings, prepare
from dmcodec.training.teach.teach import TeachSettings

RATE = 16000
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def write_teacher_models(folder: Path) -> Path:
    """Folders: hubert (normalises over time), wavlm (doesn't), ctc, ctc-layer, whisper, bert, gpt."""
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
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, end: len(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = tf.WhisperTokenizer.from_pretrained(folder, **names)
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
    with warnings.catch_warnings():  # transformers 4 tells that it moves the suppressed tokens
        warnings.simplefilter("ignore", UserWarning)
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


def write_untaught(folder: Path) -> Path:
    """Prepared data of five recordings of noise, ten segments, without teachers."""
    for index, seconds in enumerate([2.5, 1.0, 0.7, 3.0, 1.3]):
        samples = np.random.default_rng(index).normal(0, 0.1, round(seconds * RATE))
        soundfile.write(folder / f"{index:02d}.wav", samples, RATE, subtype="PCM_16")
    settings = PrepareSettings(segment_s=1.0, validation=0.3)
    prepare(find_sources([str(folder)], None, DatasetOptions()), folder / "data", settings)
    return folder / "data"


def noises(lengths: list[int]) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in lengths]


def teach_settings(folder: Path, **changes: Any) -> TeachSettings:
    names = {"sm": str(folder / "hubert"), "lm": str(folder / "bert"), "asr": str(folder / "ctc"), "device": "cpu"}
    return TeachSettings(**{**names, **changes})
