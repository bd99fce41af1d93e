"""The table of precisions: weights, arithmetic, thresholds and descriptions.

A new precision is one row here, and its conversion in `dmcodec.export`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """The type that a graph computes in. Its inputs and outputs are always float32.

    Attributes:
        name: as in the graphs of a manifest.
        dtype: name of the numpy type.
        tensorrt_types: names that TensorRT gives the type of a layer's output.
    """

    name: str
    dtype: str
    tensorrt_types: tuple[str, ...]


FP32 = Arithmetic("fp32", "float32", ("Float", "FP32"))
FP16 = Arithmetic("fp16", "float16", ("Half", "FP16"))
# Of graphs in which layers compute in int8; the others compute in float32. Only ONNX Runtime on a CPU runs them.
INT8 = Arithmetic("int8", "float32", ("Int8", "INT8"))
ARITHMETICS: Mapping[str, Arithmetic] = {item.name: item for item in (FP32, FP16, INT8)}


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The agreement with the reference that an export must reach.

    Attributes:
        latents_snr_db: SNR of the encoder's latents.
        decoder_snr_db: SNR of the decoder's waveform.
        frame_agreement: share of frames whose codes are all equal, or differ by a tie.
        level0_agreement: the same share for level 0 alone.
        dequantizer_snr_db: SNR of the dequantizer's latents.
        chain_snr_db: SNR of encoder to decoder; None if codes may differ, since one such code changes the waveform.
        quantizer_agreement: share of frames whose codes are all equal if both quantize the same latents.
    """

    latents_snr_db: float
    decoder_snr_db: float
    frame_agreement: float
    level0_agreement: float
    dequantizer_snr_db: float
    chain_snr_db: float | None
    quantizer_agreement: float = 1.0


@dataclasses.dataclass(frozen=True)
class Int8Budget:
    """What int8 may cost on held-out speech, against the same network in float32.

    Attributes:
        decoder_snr_db: least SNR of the decoder's waveform, for the same codes.
        decoder_pesq_wb_loss: most that PESQ-WB of that waveform may be below float32's.
        level0_agreement: least share of equal codes of level 0.
        stoi_loss, pesq_wb_loss: most that encoding and decoding in int8 may lose.
    """

    decoder_snr_db: float = 40.0
    decoder_pesq_wb_loss: float = 0.02
    level0_agreement: float = 0.98
    stoi_loss: float = 0.003
    pesq_wb_loss: float = 0.03


INT8_BUDGET = Int8Budget()


@dataclasses.dataclass(frozen=True)
class Precision:
    """One precision of a bundle.

    Attributes:
        name: as in `--precision` and in the manifest.
        summary: a few words for help texts and reports.
        arithmetic: of the encoder's and the decoder's convolutions. The RVQ computes in float32: half precision changes
            codes.
        recurrent: arithmetic of the LSTMs: gates, and the cell state, which adds up over all frames of a clip.
        rounds_weights: large weights are stored in half precision, also those of the RVQ from level 1 on.
        thresholds: of the export, against the model that was exported.
        full_size_mb: size of a bundle with the configuration of the released models, in MB.
        has_int8: layers compute in int8 that are chosen at export (`dmcodec.export.int8`), within INT8_BUDGET; large
            weights of the others are stored in 8 bits or in float16.
    """

    name: str
    summary: str
    arithmetic: Arithmetic
    recurrent: Arithmetic
    rounds_weights: bool
    thresholds: Thresholds
    full_size_mb: int
    has_int8: bool = False

    @property
    def rvq(self) -> str:
        """The precision of the weights of the RVQ."""
        return self.name if self.rounds_weights else FP32.name

    @property
    def mixing(self) -> str | None:
        """Why its tokens must not be mixed with those of other precisions; None where the codes are those of fp32."""
        if self.thresholds.frame_agreement == 1:
            return None
        return (
            f"Tokens of {self.name} must not be mixed with those of another precision: some codes differ, and the "
            "model id in a token file is the same. Make all tokens of a dataset, and all that a model trained on it "
            "gets, with one precision. Any precision decodes them."
        )


PRECISIONS: Mapping[str, Precision] = {
    row.name: row
    for row in (
        Precision(
            name="fp32",
            summary="float32",
            arithmetic=FP32,
            recurrent=FP32,
            rounds_weights=False,
            thresholds=Thresholds(90.0, 90.0, 1.0, 1.0, 90.0, 90.0),
            full_size_mb=445,
        ),
        Precision(
            name="fp16",
            summary="float16 in convolutions, float32 in LSTMs and the RVQ",
            arithmetic=FP16,
            recurrent=FP32,
            rounds_weights=False,
            thresholds=Thresholds(40.0, 40.0, 0.0, 0.9, 90.0, None),
            full_size_mb=240,
        ),
        Precision(
            name="fp16-weights",
            summary="weights stored in float16, computed in float32",
            arithmetic=FP32,
            recurrent=FP32,
            rounds_weights=True,
            # These allow for the rounding. Against the model with rounded weights, the thresholds of fp32 hold.
            thresholds=Thresholds(40.0, 40.0, 0.0, 0.9, 40.0, None, quantizer_agreement=0.0),
            full_size_mb=240,
        ),
        Precision(
            name="int8",
            summary="int8 in LSTMs, and in convolutions where it is measured to be harmless; for CPUs",
            arithmetic=FP32,
            recurrent=FP32,
            rounds_weights=False,
            # On any signal, of any length and level; on speech INT8_BUDGET holds.
            thresholds=Thresholds(15.0, 20.0, 0.0, 0.0, 90.0, None),
            full_size_mb=145,
            has_int8=True,
        ),
    )
}


def refuse_int8(precision: str, where: str, way_out: str) -> None:
    """Raise ArgumentError for a precision whose graphs hold operators that only ONNX Runtime has, on a CPU.

    Args:
        precision: of a bundle; one that is not known has no such operators.
        where: what can't run them.
        way_out: what the user can do.
    """
    row = PRECISIONS.get(precision)
    if row is not None and row.has_int8:
        raise ArgumentError(f"{precision} graphs run in ONNX Runtime on a CPU, not {where}; {way_out}")
