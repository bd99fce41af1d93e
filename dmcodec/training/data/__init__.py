"""The data folder that training reads: audio cut to segments, transcripts, and teachers' features."""

from dmcodec.training.data.features import TeacherInfo
from dmcodec.training.data.prepared import PreparedData

__all__ = ["PreparedData", "TeacherInfo"]
