"""Training on a CUDA GPU beside the bare libraries: time of a step, peak memory, start-up.

Each run is a process of its own, one after another: backend=unsloth and a plain Unsloth script, backend=peft and a
plain TRL + PEFT script (bare_gpu.py), on the same rows of one length, LoRA of rank 16 on all linear layers, 8-bit
AdamW, gradient checkpointing. Weights are random, of the true shapes: they serve for speed and memory. Needs a CUDA
GPU, bitsandbytes, and Unsloth unless --only=peft; with --gpus it compares backend=peft with itself, and no bare script.

usage: python tests/benchmarks/gpu.py [--shape 8b] [--cases nf4:2x768,none:8x768] [--steps 12] [--only unsloth,peft]
       python tests/benchmarks/gpu.py --rounds 3 --only unsloth      every other time the plain script goes first
       python tests/benchmarks/gpu.py --gpus 2 --cases none:8x768
       python tests/benchmarks/gpu.py --plan --only peft --cases none:8x768     beside what task=plan says
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SHAPES = {
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
WARM_UP = 3  # steps that compile and choose kernels
HELD_OUT = 2
ROWS = 64 + HELD_OUT  # those to train on fill every step of one epoch
# A plain question and answer, byte for byte: prompt=direct, and the end token.
FRAME = len("### Question\n\n\n### Answer\n") + 1
MODULES = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"


def make_model(shape: str, folder: Path) -> None:
    """A Llama of random weights in `folder`, with a token for each byte."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from medbot_exp.model import byte_tokenizer

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(max_position_embeddings=8192, **ends, **SHAPES[shape])
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def bf16_rate() -> float:
    """TFLOP/s of a matrix product of 8192 x 8192 in bfloat16, random data, median of ten."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return 2 * 8192**3 / statistics.median(times[3:]) / 1e12


def installed(package: str) -> str:
    """The version of `package`, or that it is none here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def prepare(shape: str, folder: Path) -> None:
    """The card, the versions and the rate on standard output; the model in `folder`. In a process that ends."""
    import torch

    packages = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "liger-kernel")
    known = ", ".join(f"{name} {installed(name)}" for name in packages)
    print(f"{torch.cuda.get_device_name()}; {known}; bf16 matrix product {bf16_rate():.0f} TFLOP/s")
    make_model(shape, folder)


def write_rows(path: Path, tokens: int) -> None:
    """Questions and answers that are rows of `tokens` tokens each."""
    rows = []
    for number in range(ROWS):
        question = f"{number:03d} " + "what is it? " * 8
        question = question.strip()
        answer = ("because of this " * tokens)[: tokens - FRAME - len(question)]
        rows.append({"question": question, "answer": answer[:-1] + "x"})
    path.write_text(json.dumps(rows))


def run(command: list[str], folder: Path) -> tuple[float, str]:
    """When the process of `command` began, and what it printed."""
    began = time.time()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} left with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return began, done.stdout


def words_of(
    backend: str, model: Path, rows: Path, quantization: str, batch: int, tokens: int, steps: int, micro_batches: int
) -> list[str]:
    """The overrides of a run."""
    return [
        *(f"backend={backend}", "model=directory", f"model.path={model}", f"model.quantization={quantization}"),
        *(
            "data=file",
            f"data.path={rows}",
            "data.columns.reasoning=null",
            f"data.validation={HELD_OUT}",
            "prompt=direct",
        ),
        *(f"lora.target_modules={MODULES}", "lora.r=16", "optimizer=adamw_8bit", "optimizer.lr=2.0e-4"),
        *(f"trainer.max_steps={steps}", f"trainer.batch_size={batch}", f"trainer.eval_steps={steps}"),
        *(f"trainer.checkpoint_steps={steps}", "trainer.gradient_checkpointing=true", "trainer.samples=0"),
        *("trainer.eval_batch_size=1", "benchmark=[]", "tracking=none", f"model.max_length={tokens}"),
        *(f"cache_dir={rows.parent / 'cache'}", f"trainer.gradient_accumulation_steps={micro_batches}"),
    ]


def ours(
    backend: str,
    model: Path,
    rows: Path,
    quantization: str,
    batch: int,
    tokens: int,
    steps: int,
    gpus: int = 1,
    micro_batches: int = 1,
) -> dict:
    """A run of medbot_exp: seconds of each step, peak memory in GiB, seconds of start-up, losses.

    Args:
        gpus: processes that share `micro_batches` of `batch` rows a step.
    """
    root = rows.parent / f"root-{backend}-{quantization}-{batch}x{tokens}-{gpus}-{micro_batches}"
    words = [*words_of(backend, model, rows, quantization, batch, tokens, steps, micro_batches), f"root={root}"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)] if gpus > 1 else []
    began, _ = run([sys.executable, *torchrun, "-m", "medbot_exp", *words], rows.parent)
    (directory,) = root.glob("runs/*/*")
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rates = [line["train/tokens_per_second"] for line in lines if "train/tokens_per_second" in line]
    # Each is the mean from the first step on.
    ends = [0.0, *(number * batch * micro_batches * tokens / rate for number, rate in enumerate(rates, 1))]
    ready = next(line for line in (directory / "run.log").read_text().splitlines() if "trainable parameters" in line)
    return {
        "seconds": [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)],
        "peak_memory_gib": json.loads((directory / "result.json").read_text())["peak_memory_gib"],
        "start_up": datetime.strptime(ready[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() - began,
        "losses": [line["train/loss"] for line in lines if "train/loss" in line],
        "planned_gib": float(re.search(r"memory plan: ([\d.]+) GiB", (directory / "run.log").read_text())[1]),
    }


def bare(library: str, model: Path, rows: Path, quantization: str, batch: int, tokens: int, steps: int) -> dict:
    """The same by a plain script."""
    from medbot_exp.data.prepare import read_cache

    cached = [read_cache(path) for path in (rows.parent / "cache" / "tokenized").glob("*.json")]
    found = max((each for each in cached if each and set(map(len, each.input_ids)) == {tokens}), key=len)
    settings = {
        "library": library,
        "model": str(model),
        "quantization": quantization,
        "max_length": tokens,
        "batch_size": batch,
        "steps": steps,
        "output": str(rows.parent / "bare"),
        "rows": {"input_ids": found.input_ids, "completion_mask": found.completion_mask},
    }
    path = rows.parent / "settings.json"
    path.write_text(json.dumps(settings))
    began, printed = run([sys.executable, str(Path(__file__).with_name("bare_gpu.py")), str(path)], rows.parent)
    measured = json.loads(printed.strip().splitlines()[-1])
    return measured | {"start_up": measured["ready"] - began}


def planned_step(backend: str, *asked: Any) -> str:
    """Seconds of a step as task=plan tells them, and how long it took to tell them."""
    began, printed = run(
        [sys.executable, "-m", "medbot_exp", "task=plan", *words_of(backend, *asked, 1)], asked[1].parent
    )
    step = re.search(r"steps of ([\d.]+) s", printed)
    told = "not timed" if step is None else f"{step[1]} s a step"
    return f"task=plan: {told}, within {time.time() - began:.0f} s"


def compare_gpus(gpus: int, case: str, *asked: Any) -> None:
    """Print a step of `gpus` micro-batches on one GPU, and shared by as many."""
    *_, batch, tokens, _ = asked
    print(f"\n| case, {gpus} micro-batches a step | GPUs | s/step | tokens/s | loss of the last step |")
    print("|---|---|---|---|---|")
    for count in (1, gpus):
        found = ours("peft", *asked, gpus=count, micro_batches=gpus)
        step = statistics.median(found["seconds"][WARM_UP:])
        rate = gpus * batch * tokens / step
        print(f"| {case} | {count} | {step:.3f} | {rate:,.0f} | {found['losses'][-1]:.4f} |", flush=True)


def compare_libraries(library: str, rounds: int, case: str, *asked: Any) -> None:
    """Print our run and the plain script's, `rounds` times in turns, and ours by theirs."""
    pair = [(f"backend={library}", ours), (f"{library} alone", bare)]
    steps: dict[str, list[float]] = {name: [] for name, _ in pair}
    for turn in range(rounds):
        for name, measure in pair if turn % 2 == 0 else reversed(pair):
            try:
                found = measure(library, *asked)
            except RuntimeError as error:
                print(f"{case}, {name}: {error}", file=sys.stderr, flush=True)
                continue
            step = statistics.median(found["seconds"][WARM_UP:])
            steps[name].append(step)
            *_, batch, tokens, _ = asked
            print(
                f"| {case} | {name} | {step:.3f} | {batch * tokens / step:,.0f} "
                f"| {found['peak_memory_gib']:.2f} | {found.get('planned_gib', '-')} | {found['start_up']:.1f} "
                f"| {found['losses'][-1]:.4f} |",
                flush=True,
            )
    if rounds > 1 and all(steps.values()):
        mine, theirs = (statistics.median(each) for each in steps.values())
        print(f"| {case} | {library}, medians of {rounds} | {mine / theirs:.2f} times | | | | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--cases", default="nf4:2x768,none:8x768", help="<quantization>:<rows>x<tokens>")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", default="unsloth,peft")
    parser.add_argument("--gpus", type=int, default=1, help="more: compare backend=peft on them with one of them")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is run, in turns; ratios are of medians")
    parser.add_argument("--plan", action="store_true", help="what task=plan says of our runs, too")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(options.shape, options.prepare)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = folder / "model"
        words = ["--shape", options.shape, "--prepare", str(model)]
        print(run([sys.executable, __file__, *words], folder)[1].strip().splitlines()[-1], flush=True)
        if options.gpus == 1:
            print("\n| case | by | s/step | tokens/s | peak GiB | planned GiB | start-up s | loss of the last step |")
            print("|---|---|---|---|---|---|---|---|")
        for case in options.cases.split(","):
            quantization, _, size = case.partition(":")
            batch, tokens = map(int, size.split("x"))
            rows = folder / f"rows-{tokens}.json"
            write_rows(rows, tokens)
            asked = (model, rows, quantization, batch, tokens, options.steps)
            if options.gpus > 1:
                compare_gpus(options.gpus, f"{options.shape} {case}", *asked)
                continue
            for library in options.only.split(","):
                compare_libraries(library, options.rounds, f"{options.shape} {case}", *asked)
                if options.plan:
                    print(f"{options.shape} {case}, backend={library}, {planned_step(library, *asked)}", flush=True)


if __name__ == "__main__":
    main()
