"""task=plan: what a run would cost in memory and time; the model of the run is neither loaded nor trained."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from medbot_exp.config import BackendName, PlannedDevice, Quantization, RunConfig, Sharding
from medbot_exp.data.sources import check_file
from medbot_exp.device import GPU_EXTRA, find_device, needs, refuse_lacking, refuse_unfit
from medbot_exp.errors import ConfigError
from medbot_exp.lora import refuse_absent
from medbot_exp.model import Outline, outline
from medbot_exp.model_files import check_outline
from medbot_exp.processes import ALONE, refuse
from medbot_exp.report.console import print_facts, stdout_console
from medbot_exp.report.progress import duration, plural
from medbot_exp.rundir import HydraFiles
from medbot_exp.tasks.memory_plan import MemoryPlan, plan_elsewhere, plan_memory, precision_elsewhere
from medbot_exp.tasks.start import Tokenized, quiet_libraries, read_questions, tokenized
from medbot_exp.training import backend, footprint
from medbot_exp.training.allocator import free_host_bytes, keep_freed_memory
from medbot_exp.training.footprint import GIB
from medbot_exp.training.rehearsal import Pace, rehearse, taken

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
MIB = 2**20


@dataclass(frozen=True)
class Course:
    """How long a training goes.

    Attributes:
        steps: optimizer steps.
        rows_per_step: rows of one, at most.
        epochs: passes over the rows.
        tokens: of all steps, prompt and completion, padding left out.
        evaluations: times that the held-out loss is measured, before and behind the training included.
    """

    steps: int
    rows_per_step: int
    epochs: float
    tokens: int
    evaluations: int


def run(config: RunConfig, hydra_files: HydraFiles) -> None:
    """Print the plan of a run of `config`.

    For a GPU that this machine does not have, or where one is asked for by `task.device`, the memory is planned all the
    same, and the time is not.

    Raises:
        MedbotError: the user can mend it, as for a run of `config`.
    """
    refuse_unplanned(config)
    refuse(config, ALONE)
    check_outline(config.model)
    check_file(config.data)
    device = find_device()
    elsewhere = config.task.device is PlannedDevice.cuda or (device.type != "cuda" and bool(needs(config)))
    cache_dir = Path(config.cache_dir).expanduser()
    if not elsewhere:
        refuse_lacking(config)
        refuse_unfit(config, device)
        backend.begin(config.backend.name, cache_dir)
    quiet_libraries()
    if device.type == "cpu":
        keep_freed_memory()
    passed, _ = read_questions(config)
    outlined = outline(config.model, cache_dir)
    rows = tokenized(config, passed.split, outlined, cache_dir)
    memory = (
        plan_elsewhere(config, outlined, rows.longest())
        if elsewhere
        else plan_memory(config, outlined, rows.longest(), device)
    )
    if memory is not None:
        refuse_absent(list(memory.model.linears), config.lora)
    untimed = why_untimed(config, elsewhere, memory) or too_large_to_time(config, outlined, rows, memory)
    pace = None
    if untimed is None:
        log.info(
            "timing a few steps of a model with few of its layers, maybe for minutes: task.rehearse=false does not"
        )
        pace = rehearse(config, outlined, rows.train, rows.held_out, device)
    course = course_of(config, rows)
    console = stdout_console()
    if memory is not None:
        console.print()
        console.print(memory_table(memory))
    told = facts(config, rows, course, memory, machine_of(config, device, elsewhere))
    told["time"] = f"not timed: {untimed}" if pace is None else time_told(course, pace)
    if elsewhere:
        told["needs"] = f"a CUDA GPU, and there: {' and '.join(planned_installs(config))}"
    print_facts(console, told | {"to train": hydra_files.command(without=("task=", "task."))})


def refuse_unplanned(config: RunConfig) -> None:
    """Raise a ConfigError for a run whose cost cannot be planned, by name."""
    if config.trainer.resume is not None:
        raise ConfigError(
            f"task=plan plans whole runs, but got trainer.resume={config.trainer.resume}; leave trainer.resume out"
        )
    if config.trainer.sharding is Sharding.full:
        raise ConfigError(
            "task=plan cannot tell how much of divided weights is whole at a time, but got trainer.sharding=full; "
            "plan it with trainer.sharding=none, as each GPU of that takes it at most"
        )


def course_of(config: RunConfig, rows: Tokenized) -> Course:
    """How long a training of `config` on `rows` goes, unless it is stopped early."""
    trainer, count = config.trainer, len(rows.train)
    per_step = min(trainer.batch_size * trainer.gradient_accumulation_steps, count)
    batches = math.ceil(count / trainer.batch_size)
    steps_per_epoch = math.ceil(batches / trainer.gradient_accumulation_steps)
    steps = trainer.max_steps or math.ceil((trainer.epochs or 1) * steps_per_epoch)
    # The last step of an epoch has the rows that are left.
    epochs, rest = divmod(steps, steps_per_epoch)
    seen = epochs * count + min(rest * per_step, count)
    average = sum(map(len, rows.train.input_ids)) / count
    return Course(steps, per_step, seen / count, round(seen * average), 1 + math.ceil(steps / trainer.eval_steps))


def memory_table(memory: MemoryPlan) -> Table:
    """The parts of what a run takes at most."""
    plan = memory.footprint()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("memory at most" if memory.setting.cuda else "memory, about")
    table.add_column("", justify="right")
    training = sum(plan.training.values()) >= plan.evaluation
    parts = {**plan.resident, **(plan.training if training else {"held-out loss": plan.evaluation})}
    for name, size in parts.items():
        table.add_row(part_name(name, memory), amount(size))
    table.add_section()
    table.add_row("in all", amount(plan.total()), style="bold")
    return table


def part_name(name: str, memory: MemoryPlan) -> str:
    """A part of the memory, with what it is kept in or for."""
    trainer, processes = memory.config.trainer, memory.setting.processes
    types = {4: "float32", 2: "16 bits"}
    weights = types[memory.setting.weight_bytes]
    if memory.config.model.quantization is Quantization.nf4:
        weights = f"4 bits, embeddings and head {weights}"
    more = {
        "weights": weights,
        "adapter": "float32",
        "workspace": "of matrix products",
        "optimizer": memory.config.optimizer.name.name,
        "activations": f"{plural(memory.rows.batch(trainer, processes), 'row')} of {memory.rows.training} tokens",
        "held-out loss": f"{plural(memory.rows.held_out_batch(trainer), 'row')} of {memory.rows.held_out} tokens",
    }
    return f"{name} ({more[name]})" if name in more else name


def amount(size: float) -> str:
    """`size` bytes for a person."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.{0 if size >= MIB else 2}f} MiB"


def facts(config: RunConfig, rows: Tokenized, course: Course, memory: MemoryPlan | None, place: str) -> dict[str, str]:
    """What a plan says besides the memory's parts, a line each."""
    told = {"run": f"{config.name}: backend={config.backend.name.name}, on {place}"}
    if memory is not None:
        trained = footprint.trainable_parameters(memory.model, config.lora)
        share = trained / (memory.model.parameters + trained)
        told["parameters"] = f"{memory.model.parameters:,}, and {trained:,} trained ({share:.2%})"
    longest = rows.longest()
    told["rows"] = (
        f"{len(rows.train)} of at most {longest.training} tokens, "
        f"{len(rows.held_out)} held out of at most {longest.held_out}"
    )
    passes = f"{course.epochs:.3g}"
    told["training"] = (
        f"{plural(course.steps, 'step')} of {plural(course.rows_per_step, 'row')}, {course.tokens:,} tokens, "
        f"{passes} {'pass' if passes == '1' else 'passes'} over the rows"
    )
    if memory is not None and memory.free is not None:
        told["fits"] = (
            f"yes: {memory.free_gib():.1f} GiB are free"
            if memory.fits()
            else f"no: {memory.free_gib():.1f} GiB are free\n{memory.advice(memory.free)}"
        )
    elif memory is not None and (shortage := memory.shortage(free_host_bytes())) is not None:
        told["fits"] = f"no: {shortage}"
    return told


def why_untimed(config: RunConfig, elsewhere: bool, memory: MemoryPlan | None) -> str | None:
    """Why there is to be no pace; None where there can be one."""
    if config.task.device is PlannedDevice.cuda:
        return "task.device=cuda is about a GPU elsewhere"
    if elsewhere:
        return "it needs a CUDA GPU, and this machine has none"
    if not config.task.rehearse:
        return "task.rehearse=false"
    return None if memory is None or memory.fits() else "it does not fit"


def too_large_to_time(config: RunConfig, outlined: Outline, rows: Tokenized, memory: MemoryPlan | None) -> str | None:
    """Why few of the layers do not fit either, on a CPU or on the way to a GPU; None where they do, or nobody knows."""
    if memory is None:
        return None
    needed = taken(config, outlined, rows.train, rows.held_out, memory.setting)
    for what, size, free in (("the GPU's", needed.gpu, memory.free), ("the machine's", needed.host, free_host_bytes())):
        if free is not None and size > free:
            return f"a model with few layers may take up to {amount(size)} of {what} memory, {amount(free)} are free"
    return None


def time_told(course: Course, pace: Pace) -> str:
    """How long the training takes, evaluations apart."""
    training, held_out = course.steps * pace.step, course.evaluations * pace.held_out
    return (
        f"about {duration(training + held_out)}: {plural(course.steps, 'step')} of {pace.step:.2f} s, and the held-out "
        f"loss {plural(course.evaluations, 'time')}, {pace.held_out:.1f} s each; loading, benchmarks and written "
        "answers come on top"
    )


def machine_of(config: RunConfig, device: "torch.device", elsewhere: bool) -> str:
    """Where the run would be."""
    import torch

    if elsewhere:
        kernels = "" if config.backend.name is BackendName.unsloth else " and Liger's kernels"
        return f"a CUDA GPU with {precision_elsewhere(config.trainer.precision).name}{kernels}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's CPU"


def planned_installs(config: RunConfig) -> list[str]:
    """What installs the packages of a run that takes as much memory as is planned for a GPU elsewhere, each once."""
    kernels = [] if config.backend.name is BackendName.unsloth else [GPU_EXTRA]
    return list(dict.fromkeys([*(need.install for need in needs(config) if need.install is not None), *kernels]))
