"""Makes tests/data/speechtokenizer_golden.npz: weights of a very small SpeechTokenizer, and what its own code says.

    pip install --no-deps speechtokenizer einops
    python tests/data/make_speechtokenizer_golden.py

The code is that of the package speechtokenizer (arXiv 2308.16692), and nothing of dmcodec's network. The weights are
whole numbers from -127 to 127 times a power of two, so that they take a byte each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmcodec.sample import speech

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
CONFIG = {
    "resblock": "1", "batch_size": 6, "learning_rate": 0.0001, "segment_size": 48000,  # of training, as released
    "n_filters": 2, "strides": [5, 4, 2], "dimension": 8, "semantic_dimension": 6, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
    "codebook_size": 16, "n_q": 4, "sample_rate": 16000,
}  # fmt: skip
LENGTHS = (1, 7, 39, 40, 41, 800, 1601)
STATISTICS = ("inited", "cluster_size", "embed_avg")  # of training; not stored
LEVELS = 4
MIN_GAP = 1e-4  # between the nearest entry and the next, as a share of the mean distance: no code hangs by rounding


def rounded(tensor: torch.Tensor) -> tuple[NDArray[np.int8], int]:
    """The tensor as int8, and the exponent of the power of two that they are multiples of."""
    values = tensor.detach().numpy()
    exponent = int(np.ceil(np.log2(max(float(np.abs(values).max()), 1e-9) / 127)))
    return np.round(values / 2.0**exponent).astype(np.int8), exponent


def make_model(kind: Any) -> Any:
    """Random weights with a signal that stays alive through the layers; codebooks of what they have to quantize."""
    torch.manual_seed(5)
    model = kind(CONFIG).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("weight_g") or ".lstm." in name:
            tensor.mul_(2.5 if ".lstm." not in name else 2.0)
        if not name.endswith(STATISTICS) and "_codebook" not in name:
            values, exponent = rounded(tensor)
            tensor.copy_(torch.from_numpy(values * np.float32(2.0**exponent)))
    with torch.inference_mode():
        residual = model.encoder(torch.from_numpy(speech(64000, 16000))[None, None])[0].T
    for level in model.quantizer.vq.layers:
        book = level._codebook
        entries = residual[torch.randperm(len(residual))[: CONFIG["codebook_size"]]]
        values, exponent = rounded(entries)
        book.embed.copy_(torch.from_numpy(values * np.float32(2.0**exponent)))
        book.inited.fill_(1)
        residual = residual - book.embed[torch.cdist(residual, book.embed).argmin(dim=1)]
    return model


def smallest_gap(model: Any, latents: torch.Tensor) -> float:
    """How clearly the nearest entry wins, over all frames and levels."""
    residual, gaps = latents[0].T.double(), []
    for level in model.quantizer.vq.layers:
        entries = level._codebook.embed.double()
        nearest = torch.cdist(residual, entries).square().sort(dim=1)
        gaps.append((nearest.values[:, 1] - nearest.values[:, 0]) / nearest.values.mean(dim=1))
        residual = residual - entries[nearest.indices[:, 0]]
    return float(torch.stack(gaps).min())


def main() -> None:
    from speechtokenizer_package import speechtokenizer_class

    kind = speechtokenizer_class()
    if kind is None:
        sys.exit("error: install the package first: pip install --no-deps speechtokenizer einops")
    model = make_model(kind)
    stored = {name: rounded(each) for name, each in model.state_dict().items() if not name.endswith(STATISTICS)}
    arrays: dict[str, Any] = {
        "config": json.dumps(CONFIG),
        "names": json.dumps(list(stored)),
        "shapes": json.dumps([list(values.shape) for values, _ in stored.values()]),
        "exponents": np.array([exponent for _, exponent in stored.values()], np.int16),
        "weights": np.concatenate([values.reshape(-1) for values, _ in stored.values()]),
    }
    clip = np.round(speech(60000, 16000) * 32767).astype(np.int16)
    for index, length in enumerate(LENGTHS):
        start = 20000 + 3000 * index
        with torch.inference_mode():
            while True:  # on to a stretch whose codes are clear
                wav = clip[start : start + length]
                waveform = torch.from_numpy(wav.astype(np.float32) / 32768)[None, None]
                if smallest_gap(model, model.encoder(waveform)) > MIN_GAP:
                    break
                start += 1
            codes = model.encode(waveform)
            arrays |= {
                f"len{length}/wav": wav,
                f"len{length}/codes": codes[:, 0].numpy().astype(np.uint8),
                f"len{length}/audio": model.decode(codes)[0, 0].numpy(),
                f"len{length}/audio_of_2": model.decode(codes[:2])[0, 0].numpy(),
                f"len{length}/acoustic": model.decode(codes[1:], st=1)[0, 0].numpy(),
                f"len{length}/feature": model(waveform)[2][0].numpy(),
            }
    target = HERE / "speechtokenizer_golden.npz"
    np.savez_compressed(target, **arrays)
    distinct = len(np.unique(np.concatenate([arrays[f"len{length}/codes"].ravel() for length in LENGTHS])))
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes, {distinct} distinct codes\n")


if __name__ == "__main__":
    main()
