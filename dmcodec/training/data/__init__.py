"""Training data in a folder: segments of audio, transcripts, and teachers' features."""

from .dataset import PreparedData
from .features import TeacherInfo

__all__ = ["PreparedData", "TeacherInfo"]
