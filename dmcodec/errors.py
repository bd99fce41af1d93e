"""The errors: every error that a user can cause derives from `DmcodecError`.

Each class also derives from the built-in error that a caller expects (`FileNotFoundError`, `ValueError`, ...).
"""

import json


class DmcodecError(Exception):
    """Base class. The message says what is wrong (with the file or the argument), then what to do.

    `exit_code` is that of the command line: 2 for a wrong call, 1 for work that failed.
    """

    exit_code = 1


class ArgumentError(DmcodecError, ValueError):
    """An argument that is wrong whatever the files contain."""

    exit_code = 2


class ConfigError(DmcodecError, ValueError):
    """A codec configuration that is incomplete or out of range."""


class MissingDependencyError(DmcodecError, ImportError):
    """A required package is not installed."""


class AudioError(DmcodecError, ValueError):
    """Audio that can't be used: not audio, empty, cut short, NaN, of a wrong shape, or too long."""


class AudioFileNotFoundError(AudioError, FileNotFoundError):
    """No such audio file."""


class AudioDependencyError(AudioError, MissingDependencyError):
    """An audio file that only the extra `media` reads, which is not installed."""


class DmcodecWarning(UserWarning):
    """Base class of the warnings of dmcodec."""


class AudioWarning(DmcodecWarning):
    """Audio that can be used, but is probably not what was meant: channels that cancel, or values far beyond 1."""


class TokensError(DmcodecError, ValueError):
    """Codes that are out of range, of a wrong shape, or of another model."""


class TokensWarning(UserWarning):
    """Ids of a language model that can be used, but not all of them: some were dropped."""


class TokenFileError(TokensError):
    """A token file that is truncated, altered, of another format, or of a newer version."""


class TokenFileNotFoundError(TokenFileError, FileNotFoundError):
    """No such token file."""


class InputNotFoundError(DmcodecError, FileNotFoundError):
    """An input that does not exist, or a folder or a pattern without input files."""


class CheckpointError(DmcodecError, ValueError):
    """A checkpoint that does not fit the configuration."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """No such checkpoint or configuration file."""


class BundleError(DmcodecError, ValueError):
    """A bundle that is incomplete or altered, or a folder that is not a bundle."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle at that path, or one of its files is missing."""


class BundleVersionError(BundleError):
    """A bundle that a newer dmcodec wrote."""


class ExportError(DmcodecError, RuntimeError):
    """An export that failed."""


class ParityError(ExportError):
    """Exported graphs that do not match the torch model within the thresholds."""


class ConformanceError(DmcodecError, ValueError):
    """Conformance data that are incomplete, altered, or of a newer version."""


class BackendError(DmcodecError, RuntimeError):
    """A backend or a graph that can't be loaded, or a graph that failed."""


class ProviderError(BackendError):
    """An execution provider that is not available."""


class GpuError(BackendError):
    """No GPU, no driver, a driver that is too old, or no device memory left."""


class EngineError(BackendError):
    """A TensorRT engine that is missing, altered, or built for another GPU or version."""


class EngineWarning(DmcodecWarning):
    """A TensorRT engine that was built, but whose layers are not what was expected."""


class EngineBuildError(ExportError):
    """TensorRT can't parse a graph or build its engine; the message holds the log of TensorRT."""


class StreamError(DmcodecError, RuntimeError):
    """Calls of a stream in a wrong order (a push after the end, or no end), or a pool that is full or closed."""


class ClusterError(DmcodecError, RuntimeError):
    """A cluster that can't be reached, nodes of it that can't do the work, or work that Ray could not do."""


class OutputError(DmcodecError, OSError):
    """An output that can't be written."""


class OutputExistsError(OutputError, FileExistsError):
    """An output that exists already, without permission to overwrite it."""


class DownloadError(DmcodecError, RuntimeError):
    """A download that failed, or whose content is not the expected one."""


class HubUnreachableError(DownloadError):
    """The Hugging Face hub can't be reached, or its offline mode is on."""


class HubNotFoundError(DownloadError):
    """A repository or revision that the Hugging Face hub does not have, or does not show."""


class HubFileNotFoundError(HubNotFoundError):
    """A file that a repository of the Hugging Face hub does not have."""


class NameWarning(DmcodecWarning):
    """A path that was taken, which is the name of a codec, too."""


class DataError(DmcodecError, ValueError):
    """Training data, a manifest, or a plan that is incomplete, altered, of a newer version, or empty."""


class DataNotFoundError(DataError, FileNotFoundError):
    """No prepared data in that folder, or one of their files is missing."""


class TeacherError(DmcodecError, ValueError):
    """A teacher that can't be loaded or returns NaN, or features that belong to other data."""


class TeacherNotFoundError(TeacherError, FileNotFoundError):
    """No such teacher model, or no features of that kind in the data."""


class TrainingError(DmcodecError, RuntimeError):
    """A training run that can't continue: a loss became NaN, or the processes differ."""


class CorpusError(DmcodecError, RuntimeError):
    """A run over a corpus that stopped: more clips failed than it allows."""


class MetricError(DmcodecError, ValueError):
    """A metric that is not defined for a clip; an evaluation records this and continues."""


class EvaluationError(DmcodecError, RuntimeError):
    """An evaluation that can't be made from its inputs."""


class PretrainedModelError(DmcodecError, RuntimeError):
    """A pretrained model (recogniser, speaker model) that can't be loaded or is of another kind."""


def detail(error: BaseException) -> str:
    """Return the fact in an error of Python that a message of ours adds in brackets: a system's reason, or a place."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 from byte {error.start} on"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
