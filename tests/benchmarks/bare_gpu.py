"""The same training on a GPU as a plain script: Unsloth's own way, or TRL with PEFT.

usage: bare_gpu.py SETTINGS.json      prints one JSON line: seconds of each step, peak memory, losses, when it was ready
"""

import json
import sys
import time
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())
if settings["library"] == "unsloth":
    from unsloth import FastLanguageModel  # before the libraries that it changes
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402


class Stopwatch(TrainerCallback):
    """Seconds of each optimizer step, the GPU's work included."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)


MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
nf4 = settings["quantization"] == "nf4"
extra = {}
if settings["library"] == "unsloth":
    model, tokenizer = FastLanguageModel.from_pretrained(
        settings["model"], max_seq_length=settings["max_length"], dtype=torch.bfloat16, load_in_4bit=nf4
    )
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=16, lora_dropout=0, target_modules=MODULES, use_gradient_checkpointing="unsloth"
    )
else:
    from peft import LoraConfig

    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        settings["model"], dtype=torch.bfloat16, device_map={"": 0}, quantization_config=four_bits if nf4 else None
    )
    extra["peft_config"] = LoraConfig(r=16, lora_alpha=16, target_modules=MODULES, task_type="CAUSAL_LM")
ready = time.time()
stopwatch = Stopwatch()
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(
        output_dir=settings["output"],
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=1,
        learning_rate=2e-4,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.01,
        optim="adamw_8bit",
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=True,
        bf16=True,
        completion_only_loss=True,
        max_length=None,
        seed=3407,
        report_to="none",
    ),
    train_dataset=Dataset.from_dict(settings["rows"]),
    processing_class=tokenizer,
    callbacks=[stopwatch],
    **extra,
)
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
peak = torch.cuda.max_memory_reserved() / 2**30
print(json.dumps({"seconds": stopwatch.seconds, "peak_memory_gib": peak, "losses": losses, "ready": ready}))
