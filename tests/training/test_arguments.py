"""What a training is asked of TRL: every schedule, every optimizer, LoRA+."""

from dataclasses import replace

import pytest
import torch
from transformers import get_scheduler
from trl import SFTTrainer

from medbot_exp import lora
from medbot_exp.config import OptimizerName, Precision, Schedule
from medbot_exp.device import in_bitsandbytes
from medbot_exp.model import byte_tokenizer, random_llama
from medbot_exp.rundir import RunDirectory
from medbot_exp.training.arguments import lora_plus, training_arguments
from medbot_exp.training.kernels import Choice, Kernels

CPU = torch.device("cpu")
PLAIN = Kernels(liger=Choice(False, ""), padding_free=Choice(False, ""))


@pytest.fixture
def asked(tmp_path):
    """asked(config, kernels): what TRL is asked for."""

    def arguments(config, kernels=PLAIN):
        directory = RunDirectory(tmp_path)
        return training_arguments(config.trainer, config.optimizer, Precision.fp32, 0, CPU, directory, kernels)

    return arguments


@pytest.fixture
def model(compose):
    config = compose("model=tiny", "lora.r=4")
    return lora.attach(random_llama(config.model.architecture, byte_tokenizer(), "sdpa"), config.lora)


def test_lora_plus_gives_the_b_matrices_their_own_rate(compose, asked, model):
    config = compose("optimizer.lora_plus_ratio=16.0", "optimizer.lr=1.0e-2")
    optimizer = lora_plus(model, asked(config), config.optimizer)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rate[id(parameter)] == pytest.approx(1.0e-2 * (16 if "lora_B" in name else 1)), name


@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_schedule_needs_no_further_arguments(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    assert get_scheduler(schedule.name, optimizer, num_warmup_steps=1, num_training_steps=10)


@pytest.mark.parametrize("name", [name for name in OptimizerName if not in_bitsandbytes(name)])
def test_every_optimizer_of_torch_is_built(compose, asked, model, name):
    config = compose("model=tiny")
    config.optimizer.name = name
    kind, options = SFTTrainer.get_optimizer_cls_and_kwargs(asked(config), model)
    assert kind([parameter for parameter in model.parameters() if parameter.requires_grad], **options)


@pytest.mark.parametrize("use", [True, False])
def test_kernels_are_asked_for_where_they_were_chosen(compose, asked, use):
    config, chosen = compose("model=tiny"), Choice(use, "")
    assert asked(config, replace(PLAIN, liger=chosen)).use_liger_kernel is use
    assert asked(config, replace(PLAIN, padding_free=chosen)).padding_free is use
    assert asked(config, replace(PLAIN, padding_free=None)).padding_free is None  # as bare Unsloth is given it


def test_precision_is_the_configs_whatever_the_environment_says(compose, asked, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert asked(compose("model=tiny")).mixed_precision == "no"
