"""What can go wrong, and whose move it is.

MedbotError                 the user can mend it: one short block, exit status 2
├── ConfigError             a value, a key or a combination of them
├── DataError               rows: a file, a column, a row that does not hold what it should
├── ModelError              weights or tokenizer: unknown, unreachable, damaged
├── RunDirectoryError       a run directory that exists, or that cannot be resumed
├── StorageError            no space, no permission
├── DivergenceError         the loss left the numbers
└── TrialError              trials of a grid that failed, each for a reason of its own
Interrupted                 the user asked to stop: the run can be resumed, exit status 130

Every message has three parts: the rule, the value that broke it under the config path that the user
typed, the remedy. Anything else that is raised is a fault of ours: traceback, exit status 1.
"""

import errno
import traceback


class MedbotError(Exception):
    """An error that the user can mend; its text is all that is printed."""


class ConfigError(MedbotError):
    """A value, a key, or a combination of them."""


class DataError(MedbotError):
    """A file, a column or a row that does not hold what it should."""


class ModelError(MedbotError):
    """Weights or a tokenizer that are unknown, unreachable or damaged."""


class RunDirectoryError(MedbotError):
    """A run directory that exists, or that cannot be resumed."""


class StorageError(MedbotError):
    """No space left, or no permission to write."""


class DivergenceError(MedbotError):
    """The training loss became NaN or infinite."""


class TrialError(MedbotError):
    """Trials of a grid failed, each for a reason that was told when it did."""


class Interrupted(KeyboardInterrupt):
    """The user asked to stop; the message says how to go on. No Exception, so that it ends a whole grid."""


STORAGE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}
# safetensors reports the operating system's error as text alone.
STORAGE_TEXTS = ("No space left on device", "File too large", "Disk quota exceeded")


def first_line(error: BaseException) -> str:
    """The first line of the text of `error`, and the next where it ends in a colon; its type where it has no text."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def storage_error(error: BaseException) -> StorageError | None:
    """The StorageError that `error`, or what caused it, amounts to; None where it is about something else."""
    cause: BaseException | None = error
    while cause is not None:
        by_number = isinstance(cause, OSError) and cause.errno in STORAGE_ERRNOS
        frames = traceback.extract_tb(cause.__traceback__)
        # Where no directory can be made, as below /proc, Linux says that there is none.
        by_place = isinstance(cause, FileNotFoundError) and bool(frames) and frames[-1].name == "mkdir"
        if by_number or by_place or any(text in str(cause) for text in STORAGE_TEXTS):
            return unwritable(cause)
        cause = cause.__cause__
    return None


def unwritable(cause: BaseException) -> StorageError:
    """The StorageError for a write that failed with `cause`."""
    return StorageError(
        f"writing must be possible, but got: {cause}\n"
        "Free some space or choose another place: root=<directory> for runs, "
        "cache_dir=<directory> for models and tokenised rows"
    )
