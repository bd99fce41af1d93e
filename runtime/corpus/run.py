"""A run of `dmcodec tokenize`: the plan is made or found, the shards that are not done run, and all is summed up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.errors import ArgumentError, CorpusError, OutputError, OutputExistsError
from dmcodec.extras import require
from dmcodec.files import locked
from dmcodec.runtime.corpus.engines.engine import CodecOptions, Engine
from dmcodec.runtime.corpus.outputs import FORMATS
from dmcodec.runtime.corpus.outputs.megatron import MEGATRON, chosen_layout
from dmcodec.runtime.corpus.sources.find import Corpus
from dmcodec.runtime.spool import check_place
from dmcodec.runtime.token_checks import checked_n_q
from dmcodec.temporary import sweep

from .failures import write_failures
from .plan import FAILURES, ITEMS, PLAN, REPORTS, TOKENS, Plan, Settings, read_plan
from .planning import CorpusDigest, Draft, Listed, drafted, refuse_another_corpus
from .reports import ShardReport
from .summary import Summary, done_shards

LOCK = ".lock"
CODES = ("lists", "packed")
# Of the measurement for the estimate of the time.
_CLIPS, _CLIP_S = 8, 3.0


@dataclass(frozen=True)
class TokenizeOptions:
    """What a corpus is made into.

    Attributes:
        format: of the output, a name in `dmcodec.runtime.corpus.outputs.FORMATS`.
        codes: "lists" or "packed": how the Parquet format stores codes.
        n_q: levels to keep, from level 0 on; None for all.
        shard_s: seconds of audio in a shard, about; None for a length that suits the corpus.
        force: replace an output of `dmcodec tokenize` that is there.
        keep_plan: go on with the plan that is there, without a look at the corpus.
        max_failures: stop when more clips have failed; None never stops.
        layout: of the ids of the Megatron format: "frame", "level" or "semantic", or a file of `TokenLayout.save`; None
            for "frame".

    Raises:
        ArgumentError: an unknown format, or values that exclude each other.
    """

    format: str = "parquet"
    codes: str = "lists"
    n_q: int | None = None
    shard_s: float | None = None
    force: bool = False
    keep_plan: bool = False
    max_failures: int | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ArgumentError(f"--format {self.format!r} is not known; use one of {', '.join(FORMATS)}")
        if self.codes not in CODES:
            raise ArgumentError(f"--codes {self.codes!r} is not known; use one of {', '.join(CODES)}")
        if self.codes != "lists" and self.format != "parquet":
            raise ArgumentError(f"--codes is for --format parquet; leave it out with {self.format}")
        if self.layout is not None and self.format != MEGATRON.name:
            raise ArgumentError(f"--layout is for --format {MEGATRON.name}; leave it out with {self.format}")
        if self.force and self.keep_plan:
            raise ArgumentError("--force and --keep-plan exclude each other; the one replaces what the other keeps")
        if self.max_failures is not None and self.max_failures < 0:
            raise ArgumentError(f"--max-failures {self.max_failures} must be at least 0")


@dataclass(frozen=True)
class State:
    """How far a run has come, with what earlier runs did.

    Attributes:
        done_s, total_s: seconds of audio, estimated.
        run_s: seconds of audio that this run did.
        failures: clips without tokens.
    """

    done_s: float
    total_s: float
    run_s: float
    failures: int


Watch = Callable[[State], None]


def tokenize(
    corpus: Corpus,
    out: str | Path,
    codec: CodecOptions,
    engine: Engine,
    options: TokenizeOptions | None = None,
    watch: Watch | None = None,
    listed: Listed | None = None,
) -> Summary:
    """Tokenize a corpus; go on where an earlier run into the same folder was interrupted.

    Args:
        corpus: as `dmcodec.runtime.corpus.sources.find.find_corpus` returns it.
        out: folder of the output.
        codec: how the codec is loaded.
        engine: runs the shards.
        options: see there.
        watch: called now and then with the state of the run.
        listed: called now and then with the number of clips that are listed for the plan.

    Returns:
        What the output holds. Clips that failed are in its failures and in `failures.parquet`.

    Raises:
        InputNotFoundError: an input names nothing, or the corpus is empty.
        DataError: two clips have one id, or a manifest or the plan that is there is damaged.
        OutputExistsError: the folder holds something else, or the plan of another corpus or other settings.
        OutputError: the output can't be written, or another process writes it.
        CorpusError: more clips failed than `max_failures`. What is finished stays, here and after all other errors.
    """
    options, folder = options or TokenizeOptions(), Path(out)
    with planned(corpus, folder, codec, options, listed) as draft, locked(folder / LOCK, wait=False):
        plan = _settled(draft, options)
        for each in (folder, folder / ITEMS, folder / TOKENS, folder / REPORTS):
            sweep(each)
        return _Run(plan, options, watch or (lambda _state: None)).go(engine, codec)


@contextmanager
def planned(
    corpus: Corpus, folder: Path, codec: CodecOptions, options: TokenizeOptions, listed: Listed | None = None
) -> Iterator[Draft | Plan]:
    """Yield the plan that is in the folder of the output, or a new one that is not written yet.

    Errors are those of `tokenize`.
    """
    require("dmcodec tokenize", "corpus", "pyarrow", *FORMATS[options.format].needs)
    settings = settings_of(codec, options)
    check_place(codec.spool)
    refuse_foreign(folder)
    found = None if options.force or not (folder / PLAN).exists() else read_plan(folder)
    if found is not None:
        _refuse_other_settings(found, settings)
        if not options.keep_plan:
            _refuse_another_corpus(found, corpus)
        yield found
        return
    if options.keep_plan:
        raise ArgumentError(f"--keep-plan: {folder} holds no plan yet; leave it out")
    with drafted(corpus.items(), folder, corpus.inputs, settings, options.shard_s, listed) as draft:
        yield draft


def settings_of(codec: CodecOptions, options: TokenizeOptions) -> Settings:
    """Return the settings of a plan: those of the options, and what the bundle says.

    Raises:
        BundleError: no such bundle, or a damaged one.
        ArgumentError: more levels than the codec has.
    """
    manifest = Bundle.open(codec.bundle or default_bundle_path()).manifest
    config = manifest.config
    found = Settings(
        format=options.format,
        codes=options.codes,
        model_id=manifest.model_id,
        precision=manifest.precision,
        backend=f"{codec.backend} {codec.provider or ('cpu' if codec.on_cpu else 'cuda')}",
        sample_rate=config.sample_rate,
        hop_length=config.hop_length,
        codebook_size=config.codebook_size,
        n_q=checked_n_q(options.n_q, config),
    )
    return replace(found, layout=chosen_layout(options.layout, found)) if options.format == MEGATRON.name else found


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError or OutputExistsError where the folder is none, or holds what `tokenize` did not write."""
    try:
        if not folder.exists():
            return
        names = {path.name for path in folder.iterdir()}
    except NotADirectoryError:
        raise OutputExistsError(f"{folder}: is a file; the output of a corpus is a folder, name a new one") from None
    except OSError as error:
        raise OutputError(f"{folder}: can't be read ({error.strerror or error}); name another folder") from None
    if PLAN not in names and not all(name in (LOCK, ITEMS) or ".dmcodec-" in name for name in names):
        raise OutputExistsError(f"{folder}: holds files that are not of `dmcodec tokenize`; name a new folder")


def _refuse_other_settings(plan: Plan, settings: Settings) -> None:
    for name, new in vars(settings).items():
        old = getattr(plan.settings, name)
        if old != new:
            raise OutputExistsError(
                f"{plan.folder}: holds the plan of another output, of {name} {old} and not {new}; name another folder, "
                "or begin again with --force"
            )


def _refuse_another_corpus(plan: Plan, corpus: Corpus) -> None:
    digest = CorpusDigest()
    for _ in digest.added(corpus.items()):
        pass
    if digest.value != plan.corpus_sha256:
        refuse_another_corpus(plan, corpus.items())


def _settled(draft: Draft | Plan, options: TokenizeOptions) -> Plan:
    """Write a new plan, unless another process has written the same one meanwhile."""
    if isinstance(draft, Plan):
        return draft
    plan, folder = draft.plan, draft.plan.folder
    if (folder / PLAN).exists() and not options.force:
        found = read_plan(folder)
        if found != plan:
            raise OutputExistsError(f"{folder}: another process has planned there meanwhile; run the command again")
        return found
    for name in (PLAN, FAILURES):
        (folder / name).unlink(missing_ok=True)
    for name in (REPORTS, TOKENS, ITEMS):
        shutil.rmtree(folder / name, ignore_errors=True)
    draft.write()
    return plan


class _Run:
    """The state of `tokenize` while shards run."""

    def __init__(self, plan: Plan, options: TokenizeOptions, watch: Watch) -> None:
        self._plan, self._options, self._watch = plan, options, watch
        self._running: dict[int, tuple[float, int]] = {}  # seconds done and failures of shards that run
        self._totals = done_shards(plan)
        self._before_s, self._total_s = self._totals.audio_s, plan.audio_s

    def go(self, engine: Engine, codec: CodecOptions) -> Summary:
        plan = self._plan
        pending = [index for index in range(len(plan.shards)) if index not in self._totals.done]
        with ExitStack() as stack:
            stack.callback(self._write_failures)
            self._check()
            if pending:
                reports = stack.enter_context(closing(engine.run(plan, pending, codec, self._progress)))  # type: ignore[type-var]
                for report in reports:
                    self._add(report)
                    self._check()
        return self._totals.result()

    def _add(self, report: ShardReport) -> None:
        self._running.pop(report.index, None)
        self._totals.add(report)

    def _progress(self, shard: int, done_s: float, failures: int) -> None:
        self._running[shard] = (done_s, failures)
        self._check()

    def _check(self) -> None:
        """Show the state; stop where too many clips failed."""
        failures = self._totals.failures + sum(count for _, count in self._running.values())
        done_s = self._totals.audio_s + sum(seconds for seconds, _ in self._running.values())
        self._watch(State(done_s, self._total_s, done_s - self._before_s, failures))
        limit = self._options.max_failures
        if limit is not None and failures > limit:
            raise CorpusError(
                f"{failures} clips failed, more than --max-failures {limit}; "
                f"{len(self._totals.done)} of {len(self._plan.shards)} shards are done and stay"
            )

    def _write_failures(self) -> None:
        write_failures(self._plan, self._totals.result().failures)


def measured_xrt(codec: CodecOptions) -> float:
    """Return about how many seconds of audio one worker encodes in a second on this machine; takes a second or so."""
    loaded = codec.load()
    noise = np.random.default_rng(0).normal(0, 0.1, (_CLIPS, round(_CLIP_S * loaded.sample_rate))).astype(np.float32)
    loaded.encode_prepared(list(noise[:1, : loaded.sample_rate]))
    start = time.perf_counter()
    loaded.encode_prepared(list(noise))
    return _CLIPS * _CLIP_S / (time.perf_counter() - start)
