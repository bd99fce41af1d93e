"""One error tree: every error that a user can cause derives from `DmcodecError`.

Each class also derives from the built-in error a caller would expect (`FileNotFoundError`, `ValueError`, ...).
`exit_code` is what the command line ends with: 2 where the call itself was wrong, 1 where the work failed.
"""


class DmcodecError(Exception):
    """Base of all errors that dmcodec raises on purpose; the message names the culprit and the way out."""

    exit_code = 1


class ArgumentError(DmcodecError, ValueError):
    """An argument that can't be right, whatever the files hold."""

    exit_code = 2


class ConfigError(DmcodecError, ValueError):
    """A codec configuration that describes no network of this family."""


class MissingDependencyError(DmcodecError, ImportError):
    """A package that the work needs isn't installed."""


class AudioError(DmcodecError, ValueError):
    """Audio that can't be used: not audio, empty, cut short, NaN, wrong shape, too long."""


class AudioFileNotFoundError(AudioError, FileNotFoundError):
    """No such audio file."""


class TokensError(DmcodecError, ValueError):
    """Codes out of range, of the wrong shape, or of another model."""


class TokenFileError(TokensError):
    """A token file that is truncated, altered, foreign, or of a newer version."""


class TokenFileNotFoundError(TokenFileError, FileNotFoundError):
    """No such token file."""


class InputNotFoundError(DmcodecError, FileNotFoundError):
    """A folder or a pattern that holds no input."""


class CheckpointError(DmcodecError, ValueError):
    """A checkpoint that doesn't hold the network that the configuration describes."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """No such checkpoint or configuration file."""


class BundleError(DmcodecError, ValueError):
    """A bundle that is incomplete, altered, or not a bundle."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle at that path, or a graph of it is missing."""


class BundleVersionError(BundleError):
    """A bundle written by a newer dmcodec than this one."""


class ExportError(DmcodecError, RuntimeError):
    """The export could not be written."""


class ParityError(ExportError):
    """The exported graphs don't say what the torch model says."""


class BackendError(DmcodecError, RuntimeError):
    """A backend that can't be loaded, or a graph that failed to run on it."""


class ProviderError(BackendError):
    """The execution provider asked for is not the one that would run."""


class GpuError(BackendError):
    """No GPU, no driver or one that is too old, or no device memory left."""


class EngineError(BackendError):
    """A TensorRT engine that is missing, altered, or of another GPU or version."""


class EngineBuildError(ExportError):
    """TensorRT can't parse a graph or build its engine; carries what its logger said."""


class StreamError(DmcodecError, RuntimeError):
    """A stream used out of turn: pushed after its end, or left without one."""


class OutputError(DmcodecError, OSError):
    """An output that can't be written."""


class OutputExistsError(OutputError, FileExistsError):
    """The output is there already, and overwriting was not asked for."""


class DownloadError(DmcodecError, RuntimeError):
    """A download that failed or brought something else than it should."""


class DataError(DmcodecError, ValueError):
    """Training data that are incomplete, altered, of a newer version, or hold nothing to train on."""


class DataNotFoundError(DataError, FileNotFoundError):
    """No prepared data in that folder, or a file of them is missing."""


class TeacherError(DmcodecError, ValueError):
    """A teacher that can't be loaded, gives NaN, or whose features belong to other data."""


class TeacherNotFoundError(TeacherError, FileNotFoundError):
    """No such teacher model, or the data were not taught by one of that kind."""


class TrainingError(DmcodecError, RuntimeError):
    """A training run that can't go on: a loss became NaN, or processes came apart."""


class MetricError(DmcodecError, ValueError):
    """A metric that is not defined for a clip; an evaluation records it beside the clip and goes on."""


class EvaluationError(DmcodecError, RuntimeError):
    """An evaluation that can't be made of what it was given."""


class PretrainedModelError(DmcodecError, RuntimeError):
    """A pretrained model (recogniser, speaker model) that can't be loaded or isn't of the kind that is needed."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
