"""Models of the evaluation, tiny and untrained: recognisers and speaker models of transformers."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")

from dmcodec.benchmarks.evaluate.recogniser import TransformersRecogniser
from dmcodec.benchmarks.evaluate.speaker import XVector
from dmcodec.errors import DmcodecError, PretrainedModelError
from dmcodec.sample import speech

RATE = 16000


@pytest.fixture(scope="module")
def tiny_ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    tf: Any = importlib.import_module("transformers")  # its own types are too narrow for tiny models

    folder = tmp_path_factory.mktemp("ctc")
    words = {"<pad>": 0, "|": 1, "<unk>": 2, "A": 3, "B": 4, "C": 5}
    (folder / "vocab.json").write_text(json.dumps(words))
    tokenizer = tf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>", bos_token=None, eos_token=None)
    torch.manual_seed(0)
    config = tf.Wav2Vec2Config(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    tf.Wav2Vec2ForCTC(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tf.Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(folder)
    return folder


def test_a_ctc_recogniser(tiny_ctc: Path) -> None:
    recogniser = TransformersRecogniser(str(tiny_ctc))
    assert "CTC, greedy" in recogniser.description
    text = recogniser.transcribe(speech(RATE, RATE))
    assert text == recogniser.transcribe(speech(RATE, RATE))
    assert re.fullmatch(r"([ABC ]|<unk>)*", text)
    assert isinstance(recogniser.transcribe(speech(31 * RATE, RATE)), str)  # in chunks
    with pytest.raises(DmcodecError, match="too short"):
        recogniser.transcribe(speech(100, RATE))


def test_whisper_decodes_greedily_as_its_description_says(
    teacher_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import WhisperForConditionalGeneration

    greedy = {"num_beams": 1, "do_sample": False, "task": "transcribe", "language": "fr"}
    calls: list[dict[str, Any]] = []

    def generate(_self: object, input_features: Any, attention_mask: Any, **options: Any) -> Any:
        calls.append({**options, "frames": input_features.shape[-1]})
        return torch.tensor([[1, 2, 1, 3]])

    multilingual = Path(shutil.copytree(teacher_models / "whisper", tmp_path / "multilingual"))
    settings = json.loads((multilingual / "generation_config.json").read_text())
    (multilingual / "generation_config.json").write_text(json.dumps({**settings, "is_multilingual": True}))
    monkeypatch.setattr(WhisperForConditionalGeneration, "generate", generate)
    recogniser = TransformersRecogniser(str(multilingual), language="fr")
    assert "Whisper, greedy, language fr" in recogniser.description
    assert recogniser.transcribe(speech(RATE, RATE)) == "a b"
    recogniser.transcribe(speech(5 * RATE, RATE))  # longer than its window of 4 s
    assert calls == [
        {**greedy, "frames": 400},
        {**greedy, "frames": 500, "return_timestamps": True},
    ]


def test_an_x_vector_model(tmp_path: Path, tiny_ctc: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tf: Any = importlib.import_module("transformers")

    torch.manual_seed(0)
    config = tf.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, tdnn_dim=(16, 16, 16, 16, 16), xvector_output_dim=12,
    )  # fmt: skip
    tf.Wav2Vec2ForXVector(config).save_pretrained(tmp_path)
    tf.Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(tmp_path)
    model = XVector(str(tmp_path))
    one = model.embed(speech(RATE, RATE))
    assert one.shape == (12,)
    np.testing.assert_array_equal(one, model.embed(speech(RATE, RATE)))
    without_head = tmp_path / "without_head"  # the classes of the training are not needed
    shutil.copytree(tmp_path, without_head, ignore=shutil.ignore_patterns("without_head"))
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(("objective.", "classifier."))}
    assert len(kept) < len(weights)
    save_file(kept, without_head / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(one, XVector(str(without_head)).embed(speech(RATE, RATE)), rtol=1e-5)
    with pytest.raises(PretrainedModelError, match="no x-vector model"):
        XVector(str(tiny_ctc))


def test_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(PretrainedModelError, match=r"recogniser .* can't be loaded"):
        TransformersRecogniser(str(tmp_path))
    with pytest.raises(PretrainedModelError, match=r"speaker model .* can't be loaded"):
        XVector(str(tmp_path / "nothing"))
