"""Dialects of checkpoints: the codec's tensors, wherever trainers put them and however these are written.

- Wrappers in names: `module.` (DataParallel, DDP, DeepSpeed), `_orig_mod.` (torch.compile), FSDP's, in any order.
- Dictionaries around the weights, and prefixes: {"model"}, {"state_dict"}, {"generator"}, Lightning's `model.`, ...
- EnCodec's names in transformers, which are other ones for the same layers.
- Weight norm: `weight_g` and `weight_v`, torch's parametrizations, or folded into `weight`.
- No training statistics of the codebooks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmcodec.errors import CheckpointError

from .checkpoint_reader import FoundTensor

# Names of g and v in torch.nn.utils.parametrizations.weight_norm, and the older ones of the released checkpoints.
_NEW_STYLE = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
STATISTICS = ("inited", "cluster_size", "embed_avg")
# Parts that only training uses, where one module holds them beside the codec's.
_TRAINING_ONLY = ("discriminator", "mpd", "msd", "mstftd", "mrd", "loss", "criterion", "teacher", "metric")
_SHOWN = 4


@dataclass(frozen=True)
class Selection:
    """The codec's tensors in a checkpoint: under the codec's own names, and what stood before these in the file."""

    state: Mapping[str, Tensor]
    prefix: str


def plain_name(path: str) -> str:
    """Return a tensor's path without wrappers, and with the older names of weight norm."""
    for new, old in _NEW_STYLE.items():
        path = path.replace(new, old)
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


def select(found: Sequence[FoundTensor], expected: Mapping[str, Tensor], source: str) -> Selection:
    """Find the codec among the tensors of a checkpoint.

    Args:
        found: all tensors of the file.
        expected: state dict of the codec, of which the names count.
        source: name of the checkpoint in errors.

    Returns:
        The codec's tensors, and unexpected ones beside them. Names may be missing; statistics of codebooks are not.

    Raises:
        CheckpointError: the file holds none of the codec's tensors, or several codecs that differ.
    """
    others = _names_in_transformers(expected)
    tensors = [(each, _own_name(plain_name(each.path), others)) for each in found]
    prefixes = _prefixes([path for _, path in tensors], expected)
    if not prefixes:
        names = ", ".join(path for _, path in tensors[:_SHOWN])
        first = next(iter(expected))
        raise CheckpointError(
            f"{source}: holds none of the codec's tensors, such as {first}; it holds {len(tensors)} others ({names}, "
            "...). Name a checkpoint of DM-Codec, SpeechTokenizer or EnCodec"
        )
    selections = [Selection(_under(prefix, tensors, expected), prefix) for prefix in prefixes]
    complete = [each for each in selections if not set(expected) - set(each.state)]
    if len(complete) > 1 and not all(_equal(complete[0], other, expected) for other in complete[1:]):
        names = " and ".join(repr(each.prefix.rstrip(".")) for each in complete)
        raise CheckpointError(
            f"{source}: holds several codecs that differ, {names}; save the one to use alone, with "
            "torch.save(torch.load(FILE)[NAME], NEW_FILE)"
        )
    return (complete or selections)[0]


def _names_in_transformers(expected: Iterable[str]) -> dict[str, str]:
    """Return the codec's own names by those that transformers' EncodecModel has for the same tensors."""
    names = {}
    for own in expected:
        other = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", own)
        other = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", other)
        other = re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", other)
        if other != own:
            names[other] = own
            if own.endswith(".weight_v"):  # where weight norm is folded into the weight
                names[other.removesuffix("_v")] = own.removesuffix("_v")
    return names


def _own_name(path: str, names: Mapping[str, str]) -> str:
    """Return a path whose end is one of `names` with the codec's own name there."""
    start = 0
    while start < len(path):
        if path[start:] in names:
            return path[:start] + names[path[start:]]
        dot = path.find(".", start)
        if dot < 0:
            break
        start = dot + 1
    return path


def _prefixes(paths: Sequence[str], expected: Mapping[str, Tensor]) -> list[str]:
    """Return what stands before the codec's names, the most frequent first."""
    known = set(expected) | {name.removesuffix("_v") for name in expected if name.endswith(".weight_v")}
    counts: Counter[str] = Counter()
    for path in paths:
        parts = path.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in known:
                counts[path[: len(path) - len(".".join(parts[start:]))]] += 1
    return [prefix for prefix, _ in counts.most_common()]


def _under(
    prefix: str, tensors: Sequence[tuple[FoundTensor, str]], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the codec's tensors under a prefix, and others of the same dictionaries.

    Scalars (counts of steps and averages) and parts for training only are left out.
    """
    inside = [(each, path.removeprefix(prefix)) for each, path in tensors if path.startswith(prefix)]
    parts = {name.split(".")[0] for name in expected}
    known = set(expected) | {name.removesuffix("_v") for name in expected if name.endswith(".weight_v")}
    homes = {each.container for each, name in inside if name in known}
    state = {}
    for each, name in inside:
        first = name.split(".")[0]
        foreign = each.tensor.ndim == 0 or (first not in parts and first.lower().startswith(_TRAINING_ONLY))
        if name in known or (each.container in homes and not foreign):
            state[name] = each.tensor
    return _with_statistics(_split_weights(state, expected), expected)


def _split_weights(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with folded weights as direction and norm. A row of zeros gets any direction and norm 0."""
    split = {}
    for name, tensor in state.items():
        v, g = f"{name}_v", f"{name}_g"
        if v not in expected or name in expected:
            split[name] = tensor
        elif not (v in state and g in state) and tensor.ndim > 1 and tensor.is_floating_point():
            norm = torch.linalg.vector_norm(tensor.float(), dim=tuple(range(1, tensor.ndim)), keepdim=True)
            split[v], split[g] = torch.where(norm == 0, 1.0, tensor.float()), norm
    return split


def _with_statistics(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with missing statistics of codebooks as those of a codebook that was never trained."""
    filled = dict(state)
    for name in expected:
        level, _, field = name.rpartition(".")
        entries = state.get(f"{level}.embed")
        if field not in STATISTICS or entries is None or entries.ndim != 2:
            continue
        counts = state.get(f"{level}.cluster_size")
        if field == "inited":
            filled[name] = state.get(name, torch.ones(1)).float().reshape(-1)
        elif field == "cluster_size" and (counts is None or f"{level}.embed_avg" not in state):
            filled[name] = torch.zeros(len(entries))
        elif field == "embed_avg" and (counts is None or name not in state):
            filled[name] = entries.clone()
    return filled


def _equal(one: Selection, other: Selection, expected: Mapping[str, Tensor]) -> bool:
    names = [name for name in expected if not name.endswith(STATISTICS)]
    return all(
        one.state[name].shape == other.state[name].shape and torch.equal(one.state[name], other.state[name])
        for name in names
    )
