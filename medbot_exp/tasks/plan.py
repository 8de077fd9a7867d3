"""task=plan: what a run would cost in memory and time; nothing is trained, and no weights are read."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from medbot_exp.config import BackendName, RunConfig
from medbot_exp.data.sources import check_file
from medbot_exp.device import find_device, needs_cuda, refuse_lacking, refuse_unfit
from medbot_exp.lora import refuse_absent
from medbot_exp.model import check_paths, outline
from medbot_exp.report.console import print_facts, stdout_console
from medbot_exp.report.progress import duration, plural
from medbot_exp.rundir import HydraFiles
from medbot_exp.tasks.memory import MemoryPlan, plan_elsewhere, plan_memory
from medbot_exp.tasks.start import Tokenized, quiet_libraries, read_split, tokenized
from medbot_exp.training import backend, footprint, unsloth
from medbot_exp.training.footprint import GIB
from medbot_exp.training.memory import keep_freed_memory
from medbot_exp.training.rehearsal import Pace, rehearse

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """How long a training goes.

    Attributes:
        steps: optimizer steps.
        rows_per_step: rows of one.
        tokens: of all steps, prompt and completion, padding left out.
        evaluations: times that the held-out loss is measured, before and behind the training included.
    """

    steps: int
    rows_per_step: int
    tokens: int
    evaluations: int


def run(config: RunConfig, hydra_files: HydraFiles) -> None:
    """Print the plan of a run of `config`.

    Where the run needs a GPU and this machine has none, the memory is planned all the same, and the time is not.

    Raises:
        MedbotError: the user can mend it, as for a run of `config`.
    """
    if config.backend.name is BackendName.unsloth:
        unsloth.refuse(config)
    check_paths(config.model)
    check_file(config.data)
    device = find_device()
    elsewhere = device.type != "cuda" and bool(needs_cuda(config))
    cache_dir = Path(config.cache_dir).expanduser()
    if not elsewhere:
        refuse_lacking(config)
        refuse_unfit(config, device)
        backend.begin(config.backend.name, cache_dir)
    quiet_libraries()
    if device.type == "cpu":
        keep_freed_memory()
    split = read_split(config)
    outlined = outline(config.model, cache_dir)
    rows = tokenized(config, split, outlined.tokenizer, cache_dir)
    memory = (
        plan_elsewhere(config, outlined, rows.longest())
        if elsewhere
        else plan_memory(config, outlined, rows.longest(), device)
    )
    if memory is not None:
        refuse_absent(list(memory.model.linears), config.lora)
    pace = None
    if not elsewhere and (memory is None or memory.fits()):
        log.info("timing a few steps of a model with few of its layers")
        pace = rehearse(config, outlined, rows.train, rows.held_out, device)
    course = course_of(config, rows)
    console = stdout_console()
    if memory is not None:
        console.print()
        console.print(memory_table(memory))
    told = facts(config, rows, course, memory, pace, place_of(device, elsewhere))
    print_facts(console, told | {"to train": hydra_files.command(without=("task=",))})


def course_of(config: RunConfig, rows: Tokenized) -> Course:
    """How long a training of `config` on `rows` goes, unless it is stopped early."""
    trainer, count = config.trainer, len(rows.train)
    per_step = trainer.batch_size * trainer.gradient_accumulation_steps
    batches = math.ceil(count / trainer.batch_size)
    steps_per_epoch = math.ceil(batches / trainer.gradient_accumulation_steps)
    steps = trainer.max_steps or math.ceil((trainer.epochs or 1) * steps_per_epoch)
    # The last step of an epoch has the rows that are left.
    epochs, rest = divmod(steps, steps_per_epoch)
    seen = epochs * count + min(rest * per_step, count)
    average = sum(map(len, rows.train.input_ids)) / count
    return Course(steps, per_step, round(seen * average), 1 + math.ceil(steps / trainer.eval_steps))


def memory_table(memory: MemoryPlan) -> Table:
    """The parts of what a run takes at most."""
    plan = memory.footprint()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("memory at most")
    table.add_column("GiB", justify="right")
    training = sum(plan.training.values()) >= plan.evaluation
    parts = {**plan.resident, **(plan.training if training else {"held-out loss": plan.evaluation})}
    for name, size in parts.items():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row("in all", f"{plan.gib():.2f}", style="bold")
    return table


def facts(
    config: RunConfig, rows: Tokenized, course: Course, memory: MemoryPlan | None, pace: Pace | None, place: str
) -> dict[str, str]:
    """What a plan says besides the memory's parts, a line each."""
    told = {"run": f"{config.name}: backend={config.backend.name.name}, on {place}"}
    if memory is not None:
        trained = footprint.trainable_parameters(memory.model, config.lora)
        share = trained / (memory.model.parameters + trained)
        told["parameters"] = f"{memory.model.parameters:,}, and {trained:,} trained ({share:.2%})"
    longest = rows.longest()
    told["rows"] = (
        f"{len(rows.train)} of at most {longest.longest} tokens, "
        f"{len(rows.held_out)} held out of at most {longest.longest_held_out}"
    )
    told["training"] = (
        f"{plural(course.steps, 'step')} of {plural(course.rows_per_step, 'row')}, {course.tokens:,} tokens"
    )
    if memory is not None and memory.free is not None:
        told["fits"] = (
            f"yes: {memory.free_gib():.1f} GiB are free"
            if memory.fits()
            else f"no: {memory.free_gib():.1f} GiB are free\n{memory.advice(memory.free)}"
        )
    told["time"] = time_told(course, pace, memory is None or memory.fits())
    return told


def time_told(course: Course, pace: Pace | None, fits: bool) -> str:
    """How long the training takes, evaluations apart."""
    if pace is None:
        return "not timed: " + ("it needs a CUDA GPU, and this machine has none" if fits else "it does not fit")
    training, held_out = course.steps * pace.step, course.evaluations * pace.held_out
    return (
        f"about {duration(training + held_out)}: {plural(course.steps, 'step')} of {pace.step:.2f} s, and the held-out "
        f"loss {plural(course.evaluations, 'time')} in {pace.held_out:.1f} s; loading and written answers come on top"
    )


def place_of(device: "torch.device", elsewhere: bool) -> str:
    """Where the run would be."""
    import torch

    if elsewhere:
        return "a CUDA GPU with bf16"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's CPU"
