"""The same training as a plain TRL + PEFT script: what somebody would write who needs just this one run.

usage: bare_trl.py SETTINGS.json      prints one JSON line with the seconds of its training phase
"""

import json
import sys
import time
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

settings = json.loads(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(settings["model"])
model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype="float32")
started = time.perf_counter()
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(
        output_dir=settings["output"],
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        per_device_eval_batch_size=settings["eval_batch_size"],
        learning_rate=settings["lr"],
        warmup_steps=0,
        weight_decay=0.01,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=settings["every"],
        save_steps=settings["every"],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        completion_only_loss=True,
        max_length=None,
        seed=settings["seed"],
        report_to="none",
    ),
    train_dataset=Dataset.from_dict(settings["train"]),
    eval_dataset=Dataset.from_dict(settings["validation"]),
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)
built = time.perf_counter() - started
before = trainer.evaluate()
started = time.perf_counter()
trainer.train()
train_seconds = built + time.perf_counter() - started
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
trainer.save_model(settings["output"])
print(json.dumps({"train_seconds": train_seconds, "losses": losses}))
