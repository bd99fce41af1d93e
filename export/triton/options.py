"""How the server is to run the models, checked before anything is written."""

from __future__ import annotations

import dataclasses

from dmcodec.errors import ArgumentError

PLATFORMS = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt")
KINDS = ("gpu", "cpu")
MAX_BATCH_SIZE = 256
MAX_INSTANCES = 64
MAX_QUEUE_DELAY_MS = 10_000.0


@dataclasses.dataclass(frozen=True)
class TritonOptions:
    """How the server is to run the models.

    Attributes:
        platform: what runs encoder and decoder: "onnxruntime", "onnxruntime-tensorrt" (ONNX Runtime with its TensorRT
            accelerator, which builds engines when the server starts) or "tensorrt" (engines built before). The RVQ runs
            on ONNX Runtime in any case.
        kind: "gpu" or "cpu".
        instances: of every model, on each GPU.
        max_batch_size: items that run at once.
        max_queue_delay_ms: how long a request may wait for others to run with.
    """

    platform: str = "onnxruntime"
    kind: str = "gpu"
    instances: int = 1
    max_batch_size: int = 16
    max_queue_delay_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise ArgumentError(f"platform {self.platform!r} is not known; use one of {', '.join(PLATFORMS)}")
        if self.kind not in KINDS:
            raise ArgumentError(f"kind {self.kind!r} is not known; use one of {', '.join(KINDS)}")
        if self.kind == "cpu" and self.platform != "onnxruntime":
            raise ArgumentError(f"platform {self.platform} needs kind gpu; use platform onnxruntime on a CPU")
        if not 1 <= self.instances <= MAX_INSTANCES:
            raise ArgumentError(f"instances must be 1 to {MAX_INSTANCES}, not {self.instances}")
        if not 1 <= self.max_batch_size <= MAX_BATCH_SIZE:
            raise ArgumentError(f"max_batch_size must be 1 to {MAX_BATCH_SIZE}, not {self.max_batch_size}")
        if not 0 <= self.max_queue_delay_ms <= MAX_QUEUE_DELAY_MS:
            raise ArgumentError(
                f"max_queue_delay_ms must be 0 to {MAX_QUEUE_DELAY_MS:g}, not {self.max_queue_delay_ms}"
            )
