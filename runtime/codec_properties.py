"""What a codec says of itself: properties of its bundle and its backend."""

from __future__ import annotations

from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import DecoderReach, decoder_reach

from .backend import Backend
from .encode_options import encodes_exactly


class CodecProperties:
    """The properties of a codec.

    Attributes:
        bundle: the bundle that it runs.
        backend: what runs it.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend

    @property
    def config(self) -> CodecConfig:
        """Configuration of the codec."""
        return self.bundle.manifest.config

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms, in Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.config.frame_rate

    @property
    def n_q(self) -> int:
        """Number of quantizer levels."""
        return self.config.n_q

    @property
    def levels_of_bandwidth(self) -> dict[float, int]:
        """`n_q` for each bitrate in kbit/s that the codec was trained for; empty where no table of them is known."""
        return self.config.levels_of_bandwidth

    @property
    def codebook_size(self) -> int:
        """Entries per codebook."""
        return self.config.codebook_size

    @property
    def decoder_reach(self) -> DecoderReach:
        """Frames before and after a frame that its audio depends on."""
        return decoder_reach(self.config)

    @property
    def context_s(self) -> float:
        """Default context of the windows of long clips, in seconds; measured at export."""
        return float(self.bundle.manifest.encoder_context["default_context_s"])

    @property
    def encodes_exactly(self) -> bool:
        """Whether clips of any length get the tokens of one piece; else those over 30 s are encoded in windows."""
        return encodes_exactly(self.bundle.manifest, self.backend)

    @property
    def look_ahead_s(self) -> float:
        """Default look-ahead of live encoding, in seconds; measured at export."""
        return self.bundle.manifest.default_look_ahead_s
