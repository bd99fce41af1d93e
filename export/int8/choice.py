"""From the graphs of a bundle in float32 to those in int8, with the record of the choice and of what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from dmcodec.bundle import STEPS
from dmcodec.config import CodecConfig
from dmcodec.errors import ParityError
from dmcodec.export.graph_builder import Graph
from dmcodec.plain_form import plain_name
from dmcodec.precision import INT8, INT8_BUDGET, Int8Budget

from .conv import OP as CONV_OP
from .figures import Rvq, encoder_figures, joined_snr_db, speech_scores
from .layers import channel_means, find_layers
from .lstm import OP as LSTM_OP
from .plan import CONV, LSTM, Int8Plan, Layer
from .selection import Budget, Measured, Network, Progress, to_dicts
from .sessions import Session
from .speech import Speech

# What the layers may use up on the speech on which they are tried: less than the budget, for the sake of other speech.
_RESERVE_DB, _RESERVE_LEVEL0 = 2.0, 0.007
# Level 0 alone would let an encoder change many codes of the other levels.
_LEAST_LATENTS_SNR_DB, _LEAST_CODE_AGREEMENT = 40.0, 0.92

Report = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Int8Graphs:
    """Graphs by their names, and the manifest's record `int8`."""

    graphs: Mapping[str, Graph]
    record: Mapping[str, Any]


def int8_graphs(graphs: Mapping[str, Graph], config: CodecConfig, speech: Speech, report: Report) -> Int8Graphs:
    """Choose layers, and rewrite the graphs of a bundle.

    Args:
        graphs: of a bundle, in float32.
        config: of the codec.
        speech: on which layers are tried, and on which the result is judged.
        report: called with a stage, the number of its steps that are done, and the number of all its steps.

    Raises:
        ParityError: the result is outside the budget on the speech that is held out.
    """
    networks = _Networks(graphs, config, speech)
    parts = networks.encoder(), networks.decoder()
    encoder, encoder_trials = parts[0].choose(_stage(report, "trying layers of the encoder"))
    decoder, decoder_trials = parts[1].choose(_stage(report, "trying layers of the decoder"))
    means = {**parts[0].means, **parts[1].means}
    layers = {layer.weight: layer for layer in (*encoder, *decoder)}
    report("comparing int8 with float32", 0, 1)
    plan, held_out = _smallest(networks, [Int8Plan(layers, True, eight_bits, means) for eight_bits in (True, False)])
    report("comparing int8 with float32", 1, 1)
    record = {
        "speech": speech.source,
        "tried_s": _seconds(speech.tried, config),
        "held_out_s": _seconds(speech.held_out, config),
        "encoder_layers": [layer.name for layer in encoder],
        "decoder_layers": [layer.name for layer in decoder],
        "stored_bits": 8 if plan.eight_bits else 16,
        "budget": dataclasses.asdict(INT8_BUDGET),
        "held_out": held_out,
        "trials": {"encoder": to_dicts(encoder_trials), "decoder": to_dicts(decoder_trials)},
    }
    # Quantizer and dequantizer have no such layers.
    return Int8Graphs({name: _rewritten(graph, plan) for name, graph in _without_int8_steps(graphs, plan)}, record)


class _Networks:
    """Encoder and decoder in float32 on the speech, and what others are compared with."""

    def __init__(self, graphs: Mapping[str, Graph], config: CodecConfig, speech: Speech) -> None:
        self._encoder, self._decoder = (graphs[plain_name(name)].model for name in ("encoder", "decoder"))
        self._config, self._speech = config, speech
        self._products = _products(graphs)
        self._rvq = Rvq(graphs["quantizer"].model, graphs["dequantizer"].model)
        encoder = Session(self._encoder)
        self._tried, self._loud = (self._rvq.encoded(encoder, clips) for clips in (speech.tried, speech.loud()))

    def encoder(self) -> Network:
        clips = [clip[None, None] for clip in self._speech.loud()]

        def measure(model: onnx.ModelProto) -> Measured:
            got = encoder_figures(self._tried, self._rvq.encoded(Session(model), self._speech.tried))
            return got.latents_snr_db, got.code_agreement, got.level0_agreement

        seconds = sum(clip.size for clip in clips) / self._config.sample_rate
        layers = self._layers(self._encoder, clips, seconds)
        level0 = INT8_BUDGET.level0_agreement + _RESERVE_LEVEL0
        budget = Budget(_LEAST_LATENTS_SNR_DB, _LEAST_CODE_AGREEMENT, level0)
        means = channel_means(self._encoder, [clip[None, None] for clip in self._speech.tried])
        return Network(self._encoder, layers, measure, budget, means)

    def decoder(self) -> Network:
        latents = self._rvq.dequantized(self._tried)
        expected = _decoded(Session(self._decoder), latents)

        def measure(model: onnx.ModelProto) -> Measured:
            return joined_snr_db(expected, _decoded(Session(model), latents)), 1.0, 1.0

        loud = self._rvq.dequantized(self._loud)
        seconds = sum(item.shape[2] for item in loud) / self._config.frame_rate
        layers = self._layers(self._decoder, loud, seconds)
        budget = Budget(INT8_BUDGET.decoder_snr_db + _RESERVE_DB)
        return Network(self._decoder, layers, measure, budget, channel_means(self._decoder, latents))

    def _layers(self, model: onnx.ModelProto, inputs: Sequence[Any], seconds: float) -> list[Layer]:
        found = find_layers(model, inputs, seconds)
        return [layer for layer in found if layer.op_type == LSTM or layer.weight not in self._products]

    def held_out(self, plan: Int8Plan) -> dict[str, float]:
        """Compare the networks of a plan with float32 on the speech that is held out."""
        clips, rate = self._speech.held_out, self._config.sample_rate
        expected = self._rvq.encoded(Session(self._encoder), clips)
        got = self._rvq.encoded(Session(plan.apply(self._encoder)), clips)
        decoder, narrow = Session(self._decoder), Session(plan.apply(self._decoder))
        latents = self._rvq.dequantized(expected)
        whole, same_codes = _decoded(decoder, latents), _decoded(narrow, latents)
        round_trip = _decoded(narrow, self._rvq.dequantized(got))
        scores = speech_scores(clips, {"_fp32": whole, "_decoder": same_codes, "": round_trip}, rate)
        figures = encoder_figures(expected, got)
        return {**dataclasses.asdict(figures), "decoder_snr_db": joined_snr_db(whole, same_codes), **scores}


def _products(graphs: Mapping[str, Graph]) -> set[str]:
    """Return the weights that graphs without steps take as matrix products, which have no int8 here."""
    found: set[str] = set()
    for graph in (graph for name, graph in graphs.items() if name not in STEPS.values()):
        convolutions = {node.input[1] for node in graph.model.graph.node if node.op_type == CONV}
        found |= _weights(graph) - convolutions
    return found


def _without_int8_steps(graphs: Mapping[str, Graph], plan: Int8Plan) -> Iterator[tuple[str, Graph]]:
    """Yield all graphs but those in steps of which a convolution is in int8: windows run then, which have it so, too.

    Else a stream would round otherwise than a batch, and a clip's codes would depend on how it is encoded.
    """
    convolutions = {weight for weight, layer in plan.layers.items() if layer.op_type == CONV}
    for name, graph in graphs.items():
        if name not in STEPS.values() or not convolutions & _weights(graph):
            yield name, graph


def _weights(graph: Graph) -> set[str]:
    return {item.name for item in graph.model.graph.initializer}


def _smallest(networks: _Networks, plans: Sequence[Int8Plan]) -> tuple[Int8Plan, dict[str, float]]:
    """Return the first plan that is within the budget on held-out speech, and its figures.

    Raises:
        ParityError: none is.
    """
    for plan in plans:
        held_out = networks.held_out(plan)
        try:
            _require_budget(held_out, INT8_BUDGET)
        except ParityError:
            if plan is plans[-1]:
                raise
        else:
            return plan, held_out
    raise AssertionError("no plans")


def _decoded(decoder: Session, latents: tuple[Any, ...]) -> list[Any]:
    return [decoder.run(latents=item) for item in latents]


def _stage(report: Report, name: str) -> Progress:
    return lambda done, total: report(name, done, total)


def _seconds(clips: tuple[Any, ...], config: CodecConfig) -> float:
    return float(round(sum(map(len, clips)) / config.sample_rate, 3))


def _rewritten(graph: Graph, plan: Int8Plan) -> Graph:
    """Rewrite a graph; its precision is int8 where a layer is."""
    model = plan.apply(graph.model)
    is_int8 = any(node.op_type in (CONV_OP, LSTM_OP) for node in model.graph.node)
    return dataclasses.replace(graph, model=model, precision=INT8.name if is_int8 else graph.precision)


def _require_budget(figures: Mapping[str, float], budget: Int8Budget) -> None:
    """Raise ParityError with the first figure that is outside the budget."""
    lost = {
        "round-trip STOI": (figures["stoi_fp32"] - figures["stoi"], budget.stoi_loss),
        "round-trip PESQ-WB": _loss(figures, "", budget.pesq_wb_loss),
        "decoder's PESQ-WB": _loss(figures, "_decoder", budget.decoder_pesq_wb_loss),
    }
    for name, bound in (("decoder_snr_db", budget.decoder_snr_db), ("level0_agreement", budget.level0_agreement)):
        if not figures[name] >= bound:
            raise _outside(f"{name} is {figures[name]:.6g}; int8 needs at least {bound:.6g}")
    for name, (loss, bound) in lost.items():
        if not loss <= bound:
            raise _outside(f"{name} is {loss:.4f} below that of float32; int8 may lose {bound:g}")


def _loss(figures: Mapping[str, float], ending: str, bound: float) -> tuple[float, float]:
    if "pesq_wb_fp32" not in figures:
        return 0.0, bound
    return figures["pesq_wb_fp32"] - figures.get(f"pesq_wb{ending}", -np.inf), bound


def _outside(problem: str) -> ParityError:
    return ParityError(
        f"int8 on held-out speech: {problem}. The bundle was not written; name speech like yours with --calibration "
        "FOLDER, or export with --precision fp16-weights"
    )
