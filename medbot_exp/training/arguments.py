"""TRL's configuration of a training, from ours."""

from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from medbot_exp.config import OptimizerConfig, Precision, TrainerConfig
from medbot_exp.rundir import RunDirectory
from medbot_exp.training.kernels import Kernels


def training_arguments(
    trainer: TrainerConfig,
    optimizer: OptimizerConfig,
    precision: Precision,
    seed: int,
    device: torch.device,
    directory: RunDirectory,
    kernels: Kernels,
) -> SFTConfig:
    """TRL's configuration for ours, for one device.

    Args:
        trainer: the process's share of it, where several take a step's rows.
        precision: the arithmetic of the step, chosen.
    """
    early_stopping = trainer.early_stopping_patience is not None
    arguments = SFTConfig(
        output_dir=str(directory.checkpoints),
        num_train_epochs=trainer.epochs or 1.0,
        max_steps=trainer.max_steps or -1,  # -1 leaves it to the epochs
        per_device_train_batch_size=trainer.batch_size,
        per_device_eval_batch_size=trainer.eval_batch_size,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
        learning_rate=optimizer.lr,
        lr_scheduler_type=optimizer.schedule.name,
        warmup_steps=optimizer.warmup_ratio,  # below 1 it is a share
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        optim=optimizer.name.name,
        bf16=precision is Precision.bf16,
        fp16=precision is Precision.fp16,
        use_cpu=device.type == "cpu",
        gradient_checkpointing=trainer.gradient_checkpointing,
        use_liger_kernel=kernels.liger.use,
        # Unsloth takes False for a wish, and None for leave to choose.
        padding_free=None if kernels.padding_free is None else kernels.padding_free.use,
        logging_steps=trainer.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=trainer.eval_steps,
        save_strategy="steps",
        save_steps=trainer.checkpoint_steps,
        save_total_limit=None,  # Observer.on_save removes old checkpoints, once the new one is whole
        load_best_model_at_end=early_stopping,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        seed=seed,
        completion_only_loss=True,
        max_length=None,  # rows come truncated
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
    )
    # Where a process sees several GPUs, transformers would spread each batch over them and multiply its size.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if precision is Precision.fp32:  # else transformers goes by ACCELERATE_MIXED_PRECISION
        arguments.mixed_precision = "no"
    return arguments


def lora_plus(model: Any, arguments: SFTConfig, optimizer: OptimizerConfig) -> torch.optim.Optimizer | None:
    """The optimizer of LoRA+ (arXiv 2402.12354): B matrices learn `lora_plus_ratio` times faster; None without it."""
    if optimizer.lora_plus_ratio is None:
        return None
    from peft.optimizers import create_loraplus_optimizer

    # PEFT sets the decay per group from its own argument and passes over the optimizer's.
    kind, options = SFTTrainer.get_optimizer_cls_and_kwargs(arguments, model)
    return create_loraplus_optimizer(
        model=model,
        optimizer_cls=kind,
        loraplus_lr_ratio=optimizer.lora_plus_ratio,
        loraplus_weight_decay=optimizer.weight_decay,
        **options,
    )
