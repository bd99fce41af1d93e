"""A corpus of any size to tokens: a plan of shards, engines that run them, and the formats that they are written in.

Start at `tokenize`.
"""

from dmcodec.runtime.corpus.engines.engine import CodecOptions
from dmcodec.runtime.corpus.engines.local import LocalEngine
from dmcodec.runtime.corpus.engines.ray import RayEngine
from dmcodec.runtime.corpus.sources.containers import TableOptions
from dmcodec.runtime.corpus.sources.find import Corpus, find_corpus

from .run import TokenizeOptions, tokenize
from .summary import Summary, read_summary

__all__ = [
    "CodecOptions",
    "Corpus",
    "LocalEngine",
    "RayEngine",
    "Summary",
    "TableOptions",
    "TokenizeOptions",
    "find_corpus",
    "read_summary",
    "tokenize",
]
