"""The data folder that training reads: audio cut to segments, transcripts, and teachers' features."""

from .dataset import PreparedData
from .features import TeacherInfo

__all__ = ["PreparedData", "TeacherInfo"]
