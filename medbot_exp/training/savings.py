"""What makes a training take less of a GPU's memory: changes to its config, and which of them are enough."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from medbot_exp.config import Quantization, RunConfig, Truncation
from medbot_exp.rules import faults_of
from medbot_exp.training.footprint import Footprint, Longest, Setting, Transformer, estimate

# The override that makes a run smaller, and its config with it; None where it cannot.
Smaller = Callable[[RunConfig], tuple[str, RunConfig] | None]


@dataclass(frozen=True)
class Change:
    """Overrides that make a run smaller, and what it takes with them."""

    overrides: str
    footprint: Footprint


def changes_that_fit(
    config: RunConfig, model: Transformer, rows: Longest, setting: Setting, free: float
) -> list[Change]:
    """At most three ways to bring a run below `free` bytes; several changes together where none alone does."""
    known = [smaller for smaller in SMALLER if setting.cuda or smaller is not quantise]  # 4 bits want a GPU

    def footprint_of(changed: RunConfig) -> Footprint:
        most = changed.model.max_length
        shorter = replace(rows, training=min(rows.training, most), held_out=min(rows.held_out, most))
        return estimate(changed, model, shorter, setting)

    def fits(changed: RunConfig) -> bool:
        return footprint_of(changed).total() <= free and not faults_of(changed)

    alone = []
    for smaller in known:
        step = smaller(config)
        while step is not None:
            text, changed = step
            if fits(changed):
                alone.append(Change(text, footprint_of(changed)))
                break
            step = smaller(changed)
    if alone:
        return alone[:3]
    times: dict[Smaller, int] = dict.fromkeys(known, 0)
    for smaller in known:
        _, changed = made_smaller(config, times)
        while (step := smaller(changed)) is not None and not faults_of(step[1]):
            _, changed = step
            times[smaller] += 1
            if fits(changed):
                for other in times:  # one that was taken before, and does nothing beside the later ones
                    fewer = times | {other: 0}
                    if fits(made_smaller(config, fewer)[1]):
                        times = fewer
                text, changed = made_smaller(config, times)
                return [Change(text, footprint_of(changed))]
    return []


def made_smaller(config: RunConfig, times: Mapping[Smaller, int]) -> tuple[str, RunConfig]:
    """The overrides that make each change as many `times` as there are, and `config` with them."""
    texts = []
    for smaller, count in times.items():
        text = None
        for _ in range(count):
            step = smaller(config)
            assert step is not None, "no change depends on another one"
            text, config = step
        texts += [] if text is None else [text]
    return " ".join(texts), config


def recompute(config: RunConfig) -> tuple[str, RunConfig] | None:
    """Activations made again in the backward pass."""
    if config.trainer.gradient_checkpointing:
        return None
    return "trainer.gradient_checkpointing=true", replace(
        config, trainer=replace(config.trainer, gradient_checkpointing=True)
    )


def halve_batch(config: RunConfig) -> tuple[str, RunConfig] | None:
    """At most half the rows at a time, and the same rows a step."""
    rows = config.trainer.batch_size
    together = rows * config.trainer.gradient_accumulation_steps
    if rows == 1:
        return None
    half = max(size for size in range(1, rows // 2 + 1) if together % size == 0)
    more = together // half
    return f"trainer.batch_size={half} trainer.gradient_accumulation_steps={more}", replace(
        config, trainer=replace(config.trainer, batch_size=half, gradient_accumulation_steps=more)
    )


def halve_held_out_batch(config: RunConfig) -> tuple[str, RunConfig] | None:
    """Half the held-out rows at a time."""
    rows = config.trainer.eval_batch_size // 2
    if rows == 0:
        return None
    return f"trainer.eval_batch_size={rows}", replace(config, trainer=replace(config.trainer, eval_batch_size=rows))


def quantise(config: RunConfig) -> tuple[str, RunConfig] | None:
    """The frozen weights in 4 bits."""
    if config.model.quantization is Quantization.nf4 or config.model.architecture is not None:
        return None
    return "model.quantization=nf4", replace(config, model=replace(config.model, quantization=Quantization.nf4))


def halve_length(config: RunConfig) -> tuple[str, RunConfig] | None:
    """Rows of half the length at most."""
    length = config.model.max_length // 2
    if length < 256 or config.data.on_too_long is Truncation.error:
        return None
    return f"model.max_length={length}", replace(config, model=replace(config.model, max_length=length))


# Those that leave the training what it is come first.
SMALLER: tuple[Smaller, ...] = (recompute, halve_batch, halve_held_out_batch, quantise, halve_length)
