"""`dmcodec evaluate`: quality of the speech that codecs reconstruct, and a page to listen to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmcodec.cpus import usable_cpus
from dmcodec.errors import ArgumentError

from .bundles import named_codec
from .common import (
    CODEC,
    ForceOption,
    JsonOption,
    ReportOption,
    ThreadsOption,
    command_line,
    console,
    listed,
    missing_dependency,
    note,
    numbers,
    print_json,
)
from .progress import show_progress

if TYPE_CHECKING:
    from dmcodec.benchmarks.evaluate import EvaluationResult

METRICS = "Metrics"
OUTPUTS = "Outputs"
DEFAULT_REPORT_CLIPS = 8


def evaluate(
    reference: Annotated[Path, typer.Option(help="Folder of the original audio.", metavar="DIR")],
    limit: Annotated[
        int | None, typer.Option(help="Take the first N files only, in order of name (default: all).", metavar="N")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Accept folders that lack files; these count as failed.")
    ] = False,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help="Bundle, also by a name of `dmcodec models` or hf://ORG/REPO, or checkpoint to run, or "
            "transformers:ID of a codec on the hub, or transformers:DIR; repeat it for more.",
            metavar="[NAME=]PATH",
            rich_help_panel=CODEC,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration of the checkpoints (default: that of the released models).",
            metavar="FILE",
            rich_help_panel=CODEC,
        ),
    ] = None,
    n_q: Annotated[
        list[str] | None,
        typer.Option(
            "--n-q",
            help="Quantizer levels to use, from level 0 on (default: all).",
            metavar="N,...",
            rich_help_panel=CODEC,
        ),
    ] = None,
    bandwidth: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of --n-q: the levels that have these bandwidths (default: all levels).",
            metavar="KBIT/S,...",
            rich_help_panel=CODEC,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the same files as another codec reconstructed them; repeat it for more.",
            metavar="[NAME=]DIR",
            rich_help_panel=CODEC,
        ),
    ] = None,
    threads: ThreadsOption = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="stoi, pesq, visqol, visqol-polynomial, si-sdr, mel (the default), estoi, pesq-nb, si-snr, mcd, "
            "f0-corr, f0-rmse, vuv, dnsmos, dnsmos-sig, dnsmos-bak, dnsmos-p808, stability; utmos with --utmos; "
            "speaker with --speaker-model; wer and wil with --asr.",
            metavar="NAME,...",
            rich_help_panel=METRICS,
        ),
    ] = None,
    asr: Annotated[
        str | None,
        typer.Option(
            help="Speech recogniser for wer and wil, CTC or Whisper: id or folder of a transformers model.",
            metavar="MODEL",
            rich_help_panel=METRICS,
        ),
    ] = None,
    transcripts: Annotated[
        Path | None,
        typer.Option(
            help="Transcripts of the original audio: lines of file and text, or of file, start_s, end_s and text, "
            "separated by tabs (default: the text that the recogniser finds in the original).",
            metavar="FILE.tsv",
            rich_help_panel=METRICS,
        ),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            help="Language of the speech, for multilingual Whisper models; auto lets them detect it (default: en).",
            metavar="NAME",
            rich_help_panel=METRICS,
        ),
    ] = "en",
    normaliser: Annotated[
        str,
        typer.Option(
            help="Normalisation of texts: english (that of Whisper) or basic, for other languages (default: english).",
            metavar="NAME",
            rich_help_panel=METRICS,
        ),
    ] = "english",
    speaker_model: Annotated[
        str | None,
        typer.Option(
            help="Model for speaker similarity: id or folder of a transformers x-vector model, or resemblyzer "
            "(default with --metrics speaker: microsoft/wavlm-base-plus-sv).",
            metavar="MODEL",
            rich_help_panel=METRICS,
        ),
    ] = None,
    utmos: Annotated[
        Path | None,
        typer.Option(
            help="Model of UTMOS: a TorchScript file, utmos_scripted.pt of UTMOS-PyTorch.",
            metavar="FILE.pt",
            rich_help_panel=METRICS,
        ),
    ] = None,
    stability_files: Annotated[
        int | None,
        typer.Option(
            "--stability-files",
            help="With --metrics stability: clips to use, at most 10 s of each, spread over the files (default: 10).",
            metavar="N",
            rich_help_panel=METRICS,
        ),
    ] = None,
    stability_rounds: Annotated[
        list[str] | None,
        typer.Option(
            "--stability-rounds",
            help="With --metrics stability: numbers of re-encodings (default: 1,5,25).",
            metavar="N,...",
            rich_help_panel=METRICS,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the bootstrap intervals, and of the noise and slices of stability (default: 0).",
            metavar="N",
            rich_help_panel=METRICS,
        ),
    ] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes for the signal metrics, stoi to dnsmos (default: one for each CPU that this process may "
            "use).",
            metavar="N",
            rich_help_panel=METRICS,
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            help="Figures that others published, to show beside the measured ones, marked: a JSON list of name, "
            "metric, value and source (default: none).",
            metavar="FILE.json",
            rich_help_panel=METRICS,
        ),
    ] = None,
    report: ReportOption = None,
    report_clips: Annotated[
        int | None,
        typer.Option(
            help="With --report: clips to listen to, 50 at most, spread over the files "
            f"(default: {DEFAULT_REPORT_CLIPS}).",
            metavar="N",
        ),
    ] = None,
    report_audio: Annotated[
        str | None,
        typer.Option(
            help="With --report: audio on the page as wav, which is what was measured, or as mp3, a sixth of its size "
            "(default: wav).",
            metavar="NAME",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.", metavar="FILE.md", rich_help_panel=OUTPUTS)
    ] = None,
    versa: Annotated[
        Path | None,
        typer.Option(
            help="Also write each clip's scores as JSON lines with VERSA's keys; several codecs: one file each, "
            "FILE.CODEC.jsonl.",
            metavar="FILE.jsonl",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    codec_superb: Annotated[
        Path | None,
        typer.Option(
            "--codec-superb",
            help="Also write Codec-SUPERB's result file, and compute its metrics.",
            metavar="FILE.json",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the quality of the speech that codecs reconstruct.

    The results are signal metrics, word errors, speaker similarity, codebook use and token stability; means have
    confidence intervals.

    Options marked with ",..." take several values: --n-q 2,8 or --n-q 2 --n-q 8.
    """
    outputs = [path for path in (report, markdown, versa, codec_superb) if path is not None]
    for option, given in (("report-clips", report_clips), ("report-audio", report_audio)):
        if report is None and given is not None:
            raise ArgumentError(f"--{option} belongs to --report; add it")
    if force and not outputs:
        raise ArgumentError("--force belongs to --report, --markdown, --versa or --codec-superb; add one")
    try:
        from dmcodec.benchmarks.evaluate import EvaluateOptions, Named, run_evaluation
        from dmcodec.benchmarks.evaluate.exchange import versa_candidates
        from dmcodec.benchmarks.evaluate.options import MAX_REPORT_CLIPS
        from dmcodec.benchmarks.evaluate.page import render_page, require_plotting
        from dmcodec.benchmarks.evaluate.result_tables import print_evaluation
        from dmcodec.benchmarks.evaluate.sounds import SOUNDS
    except ModuleNotFoundError as error:
        raise missing_dependency("evaluate", error, "cpu,evaluate") from None
    from dmcodec.files import refuse_existing, refuse_inputs, write_bytes
    from dmcodec.text import utf8

    options = EvaluateOptions(
        reference=reference,
        codecs=tuple(named_codec(Named.parse(argument)) for argument in codec or ()),
        config=config,
        against=tuple(Named.parse(argument) for argument in against or ()),
        n_q=numbers("--n-q", n_q, int),
        bandwidths=numbers("--bandwidth", bandwidth, float),
        metrics=None if metrics is None else listed("--metrics", metrics),
        recogniser=asr,
        transcripts=transcripts,
        language=None if language == "auto" else language,
        normaliser=normaliser,
        speaker_model=speaker_model,
        published=published,
        utmos=utmos,
        superb=codec_superb is not None,
        stability_files=stability_files,
        stability_rounds=numbers("--stability-rounds", stability_rounds, int),
        limit=limit,
        allow_missing=allow_missing,
        jobs=usable_cpus() if jobs is None else jobs,
        threads=threads,
        seed=seed,
        report_clips=(DEFAULT_REPORT_CLIPS if report_clips is None else report_clips) if report else 0,
        command=command_line(),
    )
    if report_audio is not None and report_audio not in SOUNDS:
        raise ArgumentError(f"--report-audio {report_audio!r} is not known; use one of {', '.join(SOUNDS)}")
    sound = SOUNDS[report_audio or "wav"]
    for path in (*outputs, *(versa_candidates(versa) if versa else ())):
        refuse_existing(path, force)
        refuse_inputs(path, transcripts, config, published, utmos)
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise ArgumentError("two outputs have the same path; name each its own file")
    if report:
        if options.report_clips > MAX_REPORT_CLIPS:
            note(f"--report-clips {options.report_clips}: a page takes {MAX_REPORT_CLIPS}; --json has all figures")
        require_plotting()
        sound.require()
    with show_progress() as progress:
        evaluation = run_evaluation(options, progress)
    if as_json:
        print_json(evaluation.result.to_dict())
    else:
        print_evaluation(evaluation.result, console())
    if report:
        page = utf8(render_page(evaluation, sound)).encode()
        write_bytes(report, page)
        note(f"report written to {report} ({len(page) / 1e6:.1f} MB)")
    _write_texts(evaluation.result, markdown, versa, codec_superb)


def _write_texts(result: EvaluationResult, markdown: Path | None, versa: Path | None, superb: Path | None) -> None:
    from dmcodec.benchmarks.evaluate.exchange import codec_superb, versa_lines, versa_paths
    from dmcodec.benchmarks.evaluate.result_tables import markdown_page
    from dmcodec.files import write_bytes
    from dmcodec.text import utf8

    texts = {markdown: markdown_page(result)} if markdown else {}
    texts |= {path: versa_lines(column, result) for path, column in versa_paths(versa, result).items()} if versa else {}
    texts |= {superb: codec_superb(result)} if superb else {}
    for path, text in texts.items():
        write_bytes(path, utf8(text).encode())
        note(f"{path} written")
