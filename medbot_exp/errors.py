"""What can go wrong, and whose move it is.

MedbotError                 the user can mend it: one short block, exit status 2
├── ConfigError             a value, a key or a combination of them
├── DataError               rows: a file, a column, a row that does not hold what it should
├── ModelError              weights or tokenizer: unknown, unreachable, damaged
├── RunDirectoryError       a run directory that exists, or that cannot be resumed
├── StorageError            no space, no permission
├── OutOfMemoryError        the run does not fit into the machine's or the GPU's memory
├── DivergenceError         the loss left the numbers
├── ProcessError            another process of the run ended and could not tell why
├── ToldElsewhere           another process of the run tells of the error
└── TrialError              trials of a grid or a search that failed, each for a reason of its own
TrialPruned                 a search ended the trial early: no failure
Interrupted                 the user asked to stop: the run or the search can go on, exit status 130

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


class OutOfMemoryError(MedbotError):
    """The run does not fit into the memory of the machine or of the GPU."""


class DivergenceError(MedbotError):
    """The training loss became NaN or infinite."""


class TrialError(MedbotError):
    """Trials of a grid or a search failed, each for a reason that was told when it did."""


class ProcessError(MedbotError):
    """Another process of the run ended and could not tell why, so that this one could not go on."""


class ToldElsewhere(MedbotError):
    """Another process of the run tells of the error by which it ends; nothing is printed here."""


class TrialPruned(Exception):
    """A search ended the trial early, as others do better: no failure. Optuna's own of this name means the same."""


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
# safetensors and SQLite report the operating system's error as text alone.
STORAGE_TEXTS = (
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
    "database or disk is full",
    "disk I/O error",
)

# By torch, by the operating system as safetensors passes it on, by the C++ library.
MEMORY_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "Cannot allocate memory",
    "std::bad_alloc",
)


def first_line(error: BaseException | str) -> str:
    """The first line of the text of `error`, and the next where it ends in a colon; its type where it has no text."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is that there was no room to write: the work itself may be sound."""
    cause: BaseException | None = error
    while cause is not None:
        by_number = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if by_number or any(text in str(cause) for text in STORAGE_TEXTS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def storage_error(error: BaseException) -> StorageError | None:
    """The StorageError that `error`, or what caused it, amounts to; None where it is about something else."""
    cause: BaseException | None = error
    while cause is not None:
        by_number = isinstance(cause, OSError) and cause.errno in STORAGE_ERRNOS
        frames = traceback.extract_tb(cause.__traceback__)
        # Where no directory can be made, as below /proc, Linux says that there is none; or a file is in its place.
        missing = isinstance(cause, FileNotFoundError | FileExistsError)
        by_place = missing and bool(frames) and frames[-1].name == "mkdir"
        if by_number or by_place or any(text in str(cause) for text in STORAGE_TEXTS):
            return unwritable(cause)
        cause = cause.__cause__
    return None


def unwritable(cause: BaseException) -> StorageError:
    """The StorageError for a write that failed with `cause`."""
    return StorageError(
        f"writing must be possible, but got: {cause}\n"
        "Choose another place (root=<directory> for runs, cache_dir=<directory> for models and tokenised rows), "
        "or free some space"
    )


def reason(error: BaseException) -> str:
    """Why something failed, for a person."""
    known = error if isinstance(error, MedbotError) else resource_error(error)
    return str(known) if known else f"{type(error).__name__}: {error}"


def resource_error(error: BaseException) -> MedbotError | None:
    """The error for a disk or a memory that was too small; None where `error` is about something else."""
    return storage_error(error) or memory_error(error)


def memory_error(error: BaseException) -> OutOfMemoryError | None:
    """The OutOfMemoryError that `error` amounts to; None where it is about something else."""
    # Torch has a type for the GPU's memory, and for the machine's a RuntimeError like any other.
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not known and not any(text in str(error) for text in MEMORY_TEXTS):
        return None
    return OutOfMemoryError(
        f"the run must fit into memory, but: {first_line(error)}\n"
        "Lower trainer.batch_size, model.max_length or lora.r, or use trainer.gradient_checkpointing=true"
    )
