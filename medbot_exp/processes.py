"""The processes of one run: which of them this is, what the first does alone, what all agree on.

`torchrun` and `accelerate launch` start the same command several times and number the processes in the environment.
The first one (rank 0) has the run directory, the record and the terminal; the others compute. Between them:
`of_first` for what one does for all, `sums` and `any` for what all decide alike, `one_voice` for errors.
Everything here is nothing where there is one process, and torch loads only where there are several.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from medbot_exp.config import BackendName, Quantization, RunConfig, Sharding, TrainerConfig
from medbot_exp.errors import ConfigError, ProcessError, ToldElsewhere, first_line, reason, resource_error

T = TypeVar("T")

# What a launcher tells each process; accelerate and transformers take any of the first four for several processes.
PLACE_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
MEETING_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")
# The first process may fetch and convert a model while the others wait for it.
LONGEST_WAIT = timedelta(hours=6)
# How long a process with an error waits for the first one to tell of it: all have the same one at about the same time.
TELL_SECONDS = 5.0
# How long one that has nothing to tell stays, where no launcher ends it.
LINGER_SECONDS = 20.0
# The store's key with the number of the process that tells of an error.
VOICE = "medbot_exp/voice"
# The store's key that is there once a process was stopped by the user.
STOPPED = "medbot_exp/stopped"
# In the texts of errors of processes whose connection to another one broke.
CONNECTION_WORDS = ("gloo", "nccl", "connection")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this one's number, from 0.
        count: how many there are, on all hosts.
        local_rank: this one's number on its host, which is that of its GPU.
        store: where they leave word for each other; None for one process, and until they have met.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    store: Any = None

    @property
    def first(self) -> bool:
        """Whether this one has the record and the terminal."""
        return self.rank == 0

    @property
    def gpu(self) -> int | None:
        """The index of this one's GPU, where there are several processes; None leaves it to torch."""
        return None if self.count == 1 else self.local_rank

    def sums(self, *values: float) -> list[float]:
        """Each of `values` added up over all processes: the same numbers, to the bit, in all of them."""
        if self.count == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return self.sums(here)[0] > 0

    def wait(self) -> None:
        """Return once all processes have come here."""
        self.sums(0)

    def of_first(self, action: Callable[[], T]) -> T:
        """What `action` returns in the first process, which alone runs it.

        Raises:
            ToldElsewhere: it raised there; the first process raises the error itself.
        """
        if self.count == 1:
            return action()
        from torch import device, distributed

        answer: list[Any] = [False, None]
        if self.first:
            try:
                answer = [True, action()]
            finally:
                distributed.broadcast_object_list(answer, src=0, device=device("cpu"))
        else:
            distributed.broadcast_object_list(answer, src=0, device=device("cpu"))
            if not answer[0]:
                raise ToldElsewhere
        return answer[1]

    @contextmanager
    def local_first(self) -> Iterator[None]:
        """Run the body in the first process of each host, then in the others, which find what that one cached."""
        if self.local_rank > 0:
            self.wait()
        try:
            yield
        finally:
            if self.local_rank == 0:
                self.wait()

    @contextmanager
    def met(self) -> "Iterator[Processes]":
        """The processes, able to talk to each other while the body runs.

        Raises:
            ConfigError: there are more of them than GPUs.
        """
        if self.count == 1:
            yield self
            return
        from torch import cuda, distributed

        on_gpus = cuda.is_available()
        if on_gpus:
            local = int(os.environ["LOCAL_WORLD_SIZE"])
            if local > cuda.device_count():
                raise ConfigError(
                    f"each process must have a GPU of its own, but got {local} processes and {cuda.device_count()} "
                    f"GPUs; use --nproc-per-node {cuda.device_count()}"
                )
            cuda.set_device(self.local_rank)
        # What is agreed on are numbers in the host's memory, so they need gloo beside NCCL.
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        store, _, _ = next(distributed.rendezvous("env://"))
        distributed.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.count, timeout=LONGEST_WAIT
        )
        together = replace(self, store=store)
        with together.one_voice():
            yield together
        # After an error it stays: taking leave waits for the others, and one of them may be gone.
        distributed.destroy_process_group()

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Tell an error of the body once: the first process, or where it goes on or is stuck, one that has the error.

        Raises:
            ToldElsewhere: another process tells of it; in the first one, with what that had.
            ProcessError: in the first one, as another ended and could not tell of it.
            KeyboardInterrupt: the user stopped this one, or, in the first one, another that was told so before it.
        """
        try:
            yield
        except (ProcessError, ToldElsewhere):
            raise
        except BaseException as error:
            if self.count == 1:
                raise
            if isinstance(error, KeyboardInterrupt) and not self.first:
                self.store.set(STOPPED, "")
                raise
            cause = self._cause_elsewhere(error)
            if not self.first:
                if cause is not None:
                    raise ToldElsewhere from error
                self.store.set(word_of(self.rank), f"process {self.rank} of {self.count} had: {reason(error)}")
                self._wait_for_a_voice()
            if not self._takes_the_voice():
                raise ToldElsewhere(str(cause or reason(error))) from error
            if cause is not None:
                raise cause from error
            raise

    def _cause_elsewhere(self, error: BaseException) -> BaseException | None:
        # An ended process shows as a broken connection, or as the signal that its launcher sends to the rest.
        if not isinstance(error, RuntimeError | KeyboardInterrupt) or resource_error(error) is not None:
            return None
        broken = isinstance(error, KeyboardInterrupt) or any(word in str(error).lower() for word in CONNECTION_WORDS)
        left = [rank for rank in range(1, self.count) if rank != self.rank and self.store.check([word_of(rank)])]
        if left:
            word = self.store.get(word_of(left[0])).decode()
            return ProcessError(word if broken else f"{word}\nProcess {self.rank} had: {first_line(error)}")
        if broken and not isinstance(error, KeyboardInterrupt):
            if self.store.check([STOPPED]):
                return KeyboardInterrupt()
            return ProcessError(
                f"all {self.count} processes must reach the end, but one ended without a word ({first_line(error)}), "
                "as when the system kills it because memory runs out; see what the launcher says of it"
            )
        return None

    def _wait_for_a_voice(self) -> None:
        until = time.monotonic() + TELL_SECONDS
        while not self.store.check([VOICE]) and time.monotonic() < until:
            time.sleep(0.1)

    def _takes_the_voice(self) -> bool:
        # Whichever process comes first keeps it; it may ask again, as an error passes several places on its way out.
        return self.store.compare_set(VOICE, "", str(self.rank)).decode() == str(self.rank)

    def starting(self, command: str) -> str:
        """`command`, which begins with python, as it is typed for as many processes of one host."""
        return command if self.count == 1 else command.replace("python", f"torchrun --nproc-per-node {self.count}", 1)

    def silence(self) -> None:
        """Keep what all processes would say alike to the first: stdout, the log and Python's warnings."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        logging.disable(logging.CRITICAL)
        logging.captureWarnings(True)

    def tells_of(self, error: BaseException) -> bool:
        """Whether it is for this process to print `error`.

        Before they met, all processes do the same with the same command line, so the first speaks for them.
        """
        return not isinstance(error, ToldElsewhere) and (self.first or have_met())


ALONE = Processes()


def launched() -> Processes:
    """The processes that a launcher's environment variables speak of; one, where they are not all there."""
    told = all(name in os.environ for name in (*PLACE_VARIABLES, *MEETING_VARIABLES))
    if not told or os.environ["WORLD_SIZE"] == "1":
        return ALONE
    rank, count, local_rank = (int(os.environ[name]) for name in PLACE_VARIABLES[:3])
    return Processes(rank, count, local_rank)


def forget_place(environment: MutableMapping[str, str]) -> None:
    """Take out what says that a process is one of several: one that is not, or that is started for itself, is alone."""
    for name in PLACE_VARIABLES:
        environment.pop(name, None)


def linger() -> None:
    """Wait to be ended, for a while: a launcher ends all processes when one leaves, also one that is about to tell."""
    with suppress(KeyboardInterrupt):
        time.sleep(LINGER_SECONDS)


def have_met() -> bool:
    """Whether this process is in a group of several."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def word_of(rank: int) -> str:
    """The store's key under which process `rank` leaves its error."""
    return f"medbot_exp/error/{rank}"


def share_of(trainer: TrainerConfig, count: int) -> TrainerConfig:
    """`trainer` for one of `count` processes: together they take the rows that one takes in an optimizer step.

    The micro-batch stays as large as it can, as it is what keeps a GPU busy; fewer of them are accumulated.
    """
    rows = trainer.batch_size * trainer.gradient_accumulation_steps // count
    batch_size = max(size for size in range(1, trainer.batch_size + 1) if rows % size == 0)
    return replace(trainer, batch_size=batch_size, gradient_accumulation_steps=rows // batch_size)


def refuse(config: RunConfig, processes: Processes) -> None:
    """Raise a ConfigError for what `config` asks for that does not go with so many processes, by name."""
    trainer, count = config.trainer, processes.count
    rows = trainer.batch_size * trainer.gradient_accumulation_steps
    sharded = trainer.sharding is Sharding.full
    divisible = config.backend.name is BackendName.peft
    lacking = [
        (
            count > 1 and rows % count != 0,
            f"each of {count} processes must take as many rows of a step, but trainer.batch_size={trainer.batch_size} "
            f"trainer.gradient_accumulation_steps={trainer.gradient_accumulation_steps} make {rows}",
            f"use trainer.gradient_accumulation_steps={count}, or a number of processes that divides {rows}",
        ),
        (
            count > 1 and not divisible,
            f"backend=unsloth trains in one process, and here are {count}",
            "use backend=peft, or start it without torchrun",
        ),
        (
            sharded and count == 1,
            "trainer.sharding=full divides the weights among processes, and here is one",
            f"start it with torchrun --nproc-per-node <GPUs> -m medbot_exp{'' if divisible else ' and backend=peft'}, "
            "or use trainer.sharding=none",
        ),
        (
            sharded and config.model.quantization is not Quantization.none,
            f"trainer.sharding=full cannot divide weights of model.quantization={config.model.quantization.name}",
            "use model.quantization=none, or trainer.sharding=none",
        ),
        *accelerate_settings(trainer),
    ]
    faults = [f"{setting}; {remedy}" for wanted, setting, remedy in lacking if wanted]
    if faults:
        raise ConfigError("\n".join(faults))


def accelerate_settings(trainer: TrainerConfig) -> Iterator[tuple[bool, str, str]]:
    """What `accelerate launch`, or a file of `accelerate config`, may ask for and a run decides itself."""
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        value = os.environ.get(name, "false")
        yield (
            value.lower() in ("1", "true", "yes"),
            f"the weights are divided by trainer.sharding alone, but accelerate has set {name}={value}",
            "launch with --multi_gpu, and use trainer.sharding=full",
        )
    value = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    yield (
        value not in ("no", trainer.precision.name),
        f"trainer.precision alone chooses the arithmetic, but accelerate has set ACCELERATE_MIXED_PRECISION={value}",
        "launch with --mixed_precision no",
    )
