"""Makes tests/data/tiny_golden.npz: weights of a very small codec, and what the torch code says with them.

    python tests/data/make_tiny_golden.py

Run it only where the torch code is known to be right: it first compares the code with the golden values that were made
with the authors' own code (../shared/golden), and stops where they are absent or differ. The weights are whole numbers
from -127 to 127 times a power of two, so that they take a byte each; they are the same on every machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.nn import DMCodec
from dmcodec.sample import speech

HERE = Path(__file__).resolve().parent
UPSTREAM = HERE.parents[2] / "shared" / "golden"
CONFIG = CodecConfig(n_filters=2, dimension=8, semantic_dimension=6, codebook_size=16, n_q=4)
LENGTHS = (1, 2, 7, 319, 320, 321, 1601, 3300)
STATISTICS = ("inited", "cluster_size", "embed_avg")  # of training; not stored
MIN_GAP = 1e-3  # between the nearest entry and the next, as a share of the mean distance: no code hangs by rounding


def check_against_upstream() -> None:
    model = DMCodec.from_checkpoint(UPSTREAM / "tiny_upstream.config.json", UPSTREAM / "tiny_upstream.pt")
    golden = np.load(UPSTREAM / "tiny_upstream.npz")
    for length in sorted({name.split("/")[0] for name in golden}):
        codes = model.encode(torch.from_numpy(golden[f"{length}/wav"])[None, None])
        np.testing.assert_array_equal(codes[:, 0].numpy(), golden[f"{length}/codes"])
        np.testing.assert_allclose(model.decode(codes)[0, 0].numpy(), golden[f"{length}/audio"], atol=1e-5)


def rounded(tensor: torch.Tensor) -> tuple[NDArray[np.int8], int]:
    """The tensor as int8, and the exponent of the power of two that they are multiples of."""
    values = tensor.detach().numpy()
    exponent = int(np.ceil(np.log2(max(float(np.abs(values).max()), 1e-9) / 127)))
    return np.round(values / 2.0**exponent).astype(np.int8), exponent


def round_weights(model: DMCodec) -> dict[str, tuple[NDArray[np.int8], int]]:
    """Rounds the model's weights in place; returns them as they are stored."""
    stored = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith(STATISTICS):
            stored[name] = rounded(tensor)
            tensor.copy_(torch.from_numpy(stored[name][0] * np.float32(2.0 ** stored[name][1])))
    return stored


def make_model() -> DMCodec:
    """Seeded, with a signal that stays alive through the layers, and codebooks made of what they have to quantize."""
    model = DMCodec.seeded(CONFIG, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g") or ".lstm." in name:
                parameter.mul_(2.0)
        round_weights(model)
        residual = model.encoder(torch.from_numpy(speech(160000, 16000))[None, None])[0].T
        for level in model.quantizer.levels:
            chosen = torch.randperm(len(residual), generator=generator)[: CONFIG.codebook_size]
            level.embed.copy_(residual[chosen])
            residual = residual - level.embed[level.nearest(residual)]
    return model


def smallest_gap(model: DMCodec, latents: torch.Tensor) -> float:
    """How clearly the nearest entry wins, over all frames and levels."""
    residual = latents[0].T.double()
    gaps = []
    for level in model.quantizer.levels:
        entries = level.embed.double()
        nearest = torch.cdist(residual, entries).square().sort(dim=1)
        gaps.append((nearest.values[:, 1] - nearest.values[:, 0]) / nearest.values.mean(dim=1))
        residual = residual - entries[nearest.indices[:, 0]]
    return float(torch.stack(gaps).min())


def main() -> None:
    check_against_upstream()
    model = make_model()
    stored = round_weights(model)
    arrays: dict[str, Any] = {
        "config": json.dumps(CONFIG.to_dict()),
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
                latents = model.encoder(waveform)
                if smallest_gap(model, latents) > MIN_GAP:
                    break
                start += 1
            codes = model.encode(waveform)
            arrays |= {
                f"len{length}/wav": wav,
                f"len{length}/latents": latents[0].numpy(),
                f"len{length}/codes": codes[:, 0].numpy().astype(np.uint8),
                f"len{length}/audio": model.decode(codes)[0, 0].numpy(),
                f"len{length}/feature": model.semantic_features(waveform)[0].numpy(),
            }
            if length <= 321:
                arrays[f"len{length}/audio_nq3"] = model.decode(codes[:3])[0, 0].numpy()
    target = HERE / "tiny_golden.npz"
    np.savez_compressed(target, **arrays)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
