"""Our plugins in applications that are not ours: how they tell what went wrong."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from hydra.errors import CompactHydraException

from medbot_exp.errors import Interrupted, MedbotError, TrialError

P = ParamSpec("P")
T = TypeVar("T")


def told_plainly(method: Callable[P, T]) -> Callable[P, T]:
    """`method`, whose errors that the user can mend are told without a traceback, as Hydra tells its own."""

    @wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (MedbotError, Interrupted) as error:
            # Who set it wants to see it all; our own application's entrypoint does, and tells errors itself.
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            if isinstance(error, Interrupted):
                print(error, file=sys.stderr)
                sys.exit(130)
            if isinstance(error, TrialError) and error.__cause__ is not None:
                raise  # where in the task function it arose helps to mend it
            raise CompactHydraException(str(error)) from error

    return told
