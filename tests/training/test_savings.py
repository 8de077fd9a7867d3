"""Changes that make a run smaller: each does what its overrides say, and those that are told are enough."""

from dataclasses import replace

import pytest

from medbot_exp.config import Precision
from medbot_exp.training import savings
from medbot_exp.training.footprint import GIB, Longest, Setting, estimate

GPU = Setting(Precision.bf16, weight_bytes=2, cuda=True, liger=True)


@pytest.mark.parametrize("smaller", savings.SMALLER)
def test_each_change_takes_less_and_its_overrides_say_what_it_is(recipe, shapes, smaller):
    config = recipe("trainer.batch_size=4", "trainer.eval_batch_size=64")
    text, changed = smaller(config)
    held_out = 2000 if smaller is savings.halve_held_out_batch else 1
    before, after = (
        estimate(each, shapes["8b"], Longest(each.model.max_length - held_out + 1, held_out), GPU)
        for each in (config, changed)
    )
    assert after.total() < before.total()
    for override in text.split():
        key, value = override.split("=")
        group, name = key.split(".")
        found = getattr(getattr(changed, group), name)
        assert str(getattr(found, "name", found)).lower() == value


def test_half_a_batch_keeps_the_rows_of_a_step(recipe):
    text, changed = savings.halve_batch(recipe("trainer.batch_size=8", "trainer.gradient_accumulation_steps=2"))
    assert text == "trainer.batch_size=4 trainer.gradient_accumulation_steps=4"
    odd, _ = savings.halve_batch(recipe("trainer.batch_size=7", "trainer.gradient_accumulation_steps=2"))
    assert odd == "trainer.batch_size=2 trainer.gradient_accumulation_steps=7"
    assert savings.halve_batch(replace(changed, trainer=replace(changed.trainer, batch_size=1))) is None


def test_changes_of_several_processes_are_of_all(recipe, shapes):
    config = recipe("trainer.batch_size=4", "trainer.gradient_accumulation_steps=2")
    four, rows = replace(GPU, processes=4), Longest(2048, 512)
    free = 0.9 * estimate(config, shapes["8b"], rows, four).total()
    changes = savings.changes_that_fit(config, shapes["8b"], rows, four, free)
    assert "trainer.batch_size=1 trainer.gradient_accumulation_steps=8" in [change.overrides for change in changes]


def test_machine_without_a_gpu_is_advised_no_4_bits(recipe, shapes):
    config, rows = recipe("trainer.batch_size=4"), Longest(2048, 512)
    cpu = Setting(Precision.fp32, weight_bytes=4, cuda=False, liger=False)
    whole = estimate(config, shapes["8b"], rows, cpu)
    changes = savings.changes_that_fit(config, shapes["8b"], rows, cpu, 0.9 * whole.total())
    assert [change.overrides for change in changes] == [
        "trainer.gradient_checkpointing=true",
        "trainer.batch_size=2 trainer.gradient_accumulation_steps=2",
        "model.max_length=1024",
    ]
    assert savings.changes_that_fit(config, shapes["8b"], rows, cpu, whole.resident["weights"]) == []


class TestChangesThatFit:
    def asked(self, config, shape, free):
        changes = savings.changes_that_fit(config, shape, Longest(2048, 512), GPU, free * GIB)
        assert all(change.footprint.gib() <= free for change in changes)
        return [change.overrides for change in changes]

    def test_are_three_at_most_each_enough_by_itself(self, recipe, shapes):
        config = recipe("trainer.batch_size=4")
        assert estimate(config, shapes["8b"], Longest(2048, 512), GPU).gib() > 44
        assert self.asked(config, shapes["8b"], 44) == [
            "trainer.gradient_checkpointing=true",
            "trainer.batch_size=2 trainer.gradient_accumulation_steps=2",
            "model.quantization=nf4",
        ]

    def test_are_put_together_where_none_is_enough(self, recipe, shapes):
        (change,) = self.asked(recipe("trainer.batch_size=4"), shapes["8b"], 8)
        assert change.startswith("trainer.gradient_checkpointing=true ") and "model.quantization=nf4" in change
        assert change.count("trainer.batch_size") == 1

    def test_of_several_each_one_is_needed(self, recipe, shapes):
        config = recipe("trainer.batch_size=4", "trainer.eval_batch_size=64", "model.max_length=2048")
        (change,) = self.asked(config, shapes["8b"], 8)
        overrides = change.split()
        batch = [word for word in overrides if word.startswith(("trainer.batch_size", "trainer.gradient_acc"))]
        for left_out in [[word] for word in overrides if word not in batch] + ([batch] if batch else []):
            rest = [word for word in overrides if word not in left_out]
            changed = recipe("trainer.batch_size=4", "trainer.eval_batch_size=64", "model.max_length=2048", *rest)
            most = changed.model.max_length
            rows = Longest(min(2048, most), min(512, most))
            assert estimate(changed, shapes["8b"], rows, GPU).gib() > 8, left_out

    @pytest.mark.parametrize(
        "override, word", [("lora.init=pissa", "nf4"), ("data.on_too_long=error", "model.max_length")]
    )
    def test_are_none_that_the_run_would_refuse(self, recipe, shapes, override, word):
        for free in range(6, 60, 2):
            assert word not in " ".join(self.asked(recipe(override, "trainer.batch_size=8"), shapes["8b"], free))

    def test_are_none_where_nothing_is_enough(self, recipe, shapes):
        assert self.asked(recipe(), shapes["8b"], 4) == []
