"""The quantizer in training: gradients, moving averages, k-means, dead entries, several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dmcodec.config import CodecConfig
from dmcodec.nn.rvq import Codebook, ResidualVectorQuantizer
from dmcodec.training.config import QuantizerConfig
from dmcodec.training.quantizer import initialise, kmeans, prepare_codebooks, quantize, update

CONFIG = QuantizerConfig()
NO_RESTART = QuantizerConfig(dead_below=0)
STEP = 10_000  # past the warm-up of the decay
TINY = CodecConfig(n_filters=8, dimension=6, semantic_dimension=6, codebook_size=16, n_q=3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(batch: int, frames: int) -> Tensor:
    return torch.ones(batch, frames, dtype=torch.bool)


def trained_quantizer() -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(TINY)
    for level, codebook in enumerate(quantizer.levels):
        codebook.embed.normal_(std=0.5**level)
    return quantizer.eval()


def test_it_gives_the_codes_and_latents_of_inference() -> None:
    quantizer, latents = trained_quantizer(), random(2, 6, 30)
    found = quantize(quantizer, latents, full(2, 30), CONFIG, STEP)
    assert torch.equal(found.codes, quantizer.encode(latents))
    torch.testing.assert_close(found.latents, quantizer.decode(found.codes), atol=1e-5, rtol=1e-5)


def test_gradients_pass_straight_through_once() -> None:
    latents = random(2, 6, 30).requires_grad_()
    weight = random(2, 6, 30, seed=1)
    (quantize(trained_quantizer(), latents, full(2, 30), CONFIG, STEP).latents * weight).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weight)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_s_output_has_a_gradient(level: int) -> None:
    latents = random(2, 6, 30).requires_grad_()
    weight = random(2, 30, 6, seed=1)
    (quantize(trained_quantizer(), latents, full(2, 30), CONFIG, STEP).levels[level] * weight).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weight.transpose(1, 2))


def test_commitment_and_its_gradient_by_hand() -> None:
    quantizer, latents = trained_quantizer(), random(2, 6, 30).requires_grad_()
    mask = full(2, 30)
    mask[1, 20:] = False
    found = quantize(quantizer, latents, mask, CONFIG, STEP)
    found.commitment.backward()
    with torch.no_grad():
        residual, wanted, gradient = latents.transpose(1, 2), 0.0, torch.zeros(2, 30, 6)
        for level, codebook in enumerate(quantizer.levels):
            residual = residual - codebook.embed[found.codes[level]]
            wanted += residual[mask].square().mean().item() / 3
            gradient += torch.where(mask[..., None], 2 * residual / (int(mask.sum()) * 6), 0) / 3
    assert found.commitment.item() == pytest.approx(wanted, rel=1e-5)
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, gradient.transpose(1, 2))


def test_evaluation_moves_no_codebook() -> None:
    quantizer = trained_quantizer()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantize(quantizer, random(2, 6, 30), full(2, 30), CONFIG, STEP)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_moving_averages_by_numpy() -> None:
    torch.manual_seed(0)
    codebook = Codebook(4, 3)
    codebook.cluster_size.copy_(torch.tensor([5.0, 1.0, 0.0, 2.0]))
    codebook.embed_avg.copy_(random(4, 3))
    vectors, indices = random(10, 3, seed=1), torch.tensor([0, 0, 1, 3, 3, 3, 0, 1, 0, 3])
    size, average = codebook.cluster_size.numpy().copy(), codebook.embed_avg.numpy().copy()
    update(codebook, vectors, indices, NO_RESTART, STEP)
    counts, sums = np.zeros(4), np.zeros((4, 3))
    for vector, index in zip(vectors.numpy(), indices.tolist(), strict=True):
        counts[index] += 1
        sums[index] += vector
    size, average = 0.99 * size + 0.01 * counts, 0.99 * average + 0.01 * sums
    smoothed = (size + 1e-5) / (size.sum() + 4e-5) * size.sum()
    np.testing.assert_allclose(codebook.cluster_size, size, rtol=1e-5)
    np.testing.assert_allclose(codebook.embed, average / smoothed[:, None], rtol=1e-4)


def test_entries_converge_to_the_means_of_their_vectors() -> None:
    codebook = Codebook(2, 1)
    codebook.embed.copy_(torch.tensor([[-1.0], [1.0]]))
    codebook.embed_avg.copy_(codebook.embed)
    codebook.cluster_size.fill_(1)
    vectors = torch.tensor([[-3.0], [-2.0], [2.5], [3.5]])
    for _ in range(1500):
        update(codebook, vectors, codebook.nearest(vectors), NO_RESTART, STEP)
    torch.testing.assert_close(codebook.embed, torch.tensor([[-2.5], [3.0]]), atol=1e-2, rtol=0)


def test_kmeans_finds_clusters() -> None:
    torch.manual_seed(1)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = centres.repeat(50, 1) + 0.1 * random(150, 2)
    best = min((kmeans(vectors, 3, 50) for _ in range(10)), key=lambda found: _error(vectors, found[0]))
    assert sorted(best[1].tolist()) == [50, 50, 50]
    distances = torch.cdist(centres, best[0]).min(dim=1).values
    assert distances.max() < 0.1


def test_kmeans_never_gets_worse() -> None:
    vectors, errors = random(200, 4), []
    for iterations in (1, 3, 10, 50):
        torch.manual_seed(0)
        errors.append(_error(vectors, kmeans(vectors, 12, iterations)[0]))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def _error(vectors: Tensor, means: Tensor) -> float:
    return torch.cdist(vectors, means).min(dim=1).values.square().mean().item()


def test_the_first_batch_initialises_every_level() -> None:
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(TINY).train()
    prepare_codebooks(quantizer)
    latents = 5 + random(4, 6, 50)  # far from the random entries: without k-means, one entry would take them all
    found = quantize(quantizer, latents, full(4, 50), CONFIG, STEP)
    assert all(bool(codebook.inited) for codebook in quantizer.levels)
    for codes in found.codes:
        assert len(codes.unique()) > 10
    assert found.commitment < 1
    first = [codebook.embed.clone() for codebook in quantizer.levels]
    quantize(quantizer, latents, full(4, 50), CONFIG, STEP)
    assert all((codebook.embed - old).abs().max() < 1 for codebook, old in zip(quantizer.levels, first, strict=True))


def test_a_first_batch_with_fewer_vectors_than_entries_works() -> None:
    torch.manual_seed(0)
    codebook, vectors = Codebook(16, 3), random(5, 3)
    initialise(codebook, vectors, CONFIG)
    assert torch.isfinite(codebook.embed).all()
    assert (codebook.cluster_size > 0).all()
    nearest = codebook.embed[codebook.nearest(vectors)]
    torch.testing.assert_close(nearest, vectors)


def test_dead_entries_restart_on_vectors_of_the_batch_and_stay_for_a_while() -> None:
    torch.manual_seed(0)
    codebook = Codebook(4, 2)
    codebook.embed.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [60.0, 60.0]]))
    codebook.cluster_size.copy_(torch.tensor([100.0, 100.0, 0.0, 0.0]))
    codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[:, None])
    vectors = random(200, 2)
    update(codebook, vectors, codebook.nearest(vectors), CONFIG, STEP)
    restarted = codebook.embed[2:].clone()
    for row in restarted:
        assert torch.cdist(row[None], vectors).min() < 1e-5
    used = codebook.nearest(vectors).unique()
    assert len(used) == 4
    far = torch.full((200, 2), -30.0)  # nothing uses them now: they may not be moved again at once
    update(codebook, far, torch.zeros(200, dtype=torch.int64), CONFIG, STEP)
    torch.testing.assert_close(codebook.embed[2:], restarted, atol=1e-4, rtol=1e-4)


def test_entries_in_use_are_left_alone() -> None:
    codebook, vectors = Codebook(4, 2), random(400, 2)
    initialise(codebook, vectors, CONFIG)
    before = codebook.embed.clone()
    update(codebook, vectors, codebook.nearest(vectors), CONFIG, STEP)
    assert (codebook.embed - before).abs().max() < 0.1


def test_padded_frames_teach_the_codebooks_nothing() -> None:
    latents, mask = random(2, 6, 30), full(2, 30)
    mask[:, 20:] = False
    states = []
    for junk in (0.0, 1000.0):
        quantizer = trained_quantizer().train()
        changed = latents.clone()
        changed[:, :, 20:] = junk
        quantize(quantizer, changed, mask, NO_RESTART, STEP)
        states.append(quantizer.codebooks())
    torch.testing.assert_close(states[0], states[1])


RANK = """
import sys

import torch

from dmcodec.config import CodecConfig
from dmcodec.nn.rvq import ResidualVectorQuantizer
from dmcodec.training.config import QuantizerConfig
from dmcodec.training.quantizer import quantize

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
config = CodecConfig(n_filters=8, dimension=6, semantic_dimension=6, codebook_size=16, n_q=3)
quantizer = ResidualVectorQuantizer(config).train()
quantizer.load_state_dict(torch.load(f"{folder}/start.pt", weights_only=True))
latents = torch.load(f"{folder}/latents.pt", weights_only=True)[rank * 3 : rank * 2 + 3]  # three items, and two
torch.manual_seed(rank)  # different random numbers, the same codebooks
for _ in range(3):
    quantize(quantizer, latents, torch.ones(len(latents), 40, dtype=torch.bool), QuantizerConfig(), 10_000)
torch.save(quantizer.state_dict(), f"{folder}/rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("initialised", [False, True])
def test_two_processes_keep_the_codebooks_of_one(tmp_path: Path, initialised: bool) -> None:
    quantizer, latents = trained_quantizer().train(), random(5, 6, 40)
    if not initialised:
        prepare_codebooks(quantizer)
    for codebook in quantizer.levels:  # nothing dead: what restarts is a random choice
        codebook.cluster_size.fill_(10)
        codebook.embed_avg.copy_(codebook.embed * 10)
    torch.save(quantizer.state_dict(), tmp_path / "start.pt")
    torch.save(latents, tmp_path / "latents.pt")
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(0)  # as rank 0, whose random choices count
    for _ in range(3):
        quantize(quantizer, latents, full(5, 40), CONFIG, STEP)
    for name, tensor in quantizer.state_dict().items():
        torch.testing.assert_close(first[name], tensor, atol=1e-4, rtol=1e-4)
