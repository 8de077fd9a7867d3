"""Rows are filled up with a token that is not the end token; where there is none, what to name is told in time."""

import json
import re
import shlex
from dataclasses import replace

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from medbot_exp.errors import ModelError
from medbot_exp.model import byte_tokenizer
from medbot_exp.model_files import check_outline, check_paths
from medbot_exp.padding import set_pad_token


def padless_tokenizer(special: list[str], pad: str | None) -> PreTrainedTokenizerFast:
    """A byte tokenizer with an end token, the `special` tokens, and `pad` to pad with."""
    content = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == "<|end|>"]
    backend = Tokenizer.from_str(json.dumps(content))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.pad_token = pad
    return tokenizer


@pytest.fixture
def model_config(compose):
    """model_config(**changes): that of model=directory."""

    def changed(**changes):
        return replace(compose("model=directory", "model.path=model").model, **changes)

    return changed


@pytest.mark.parametrize("pad", [None, "<|end|>"])  # as in Llama 3, as in DeepSeek-R1's distillates
@pytest.mark.parametrize(
    ("special", "expected"),
    [
        (["<|other|>", "<|reserved_0|>", "<|finetune_right_pad_id|>"], "<|finetune_right_pad_id|>"),
        (["<|other|>", "<|reserved_0|>"], "<|reserved_0|>"),
        (["<|other|>"], "<|other|>"),
    ],
)
def test_the_best_named_special_token_pads_instead_of_the_end_token(pad, special, expected, model_config, caplog):
    tokenizer = padless_tokenizer(special, pad)
    with caplog.at_level("INFO"):
        set_pad_token(tokenizer, model_config())
    assert tokenizer.pad_token == expected
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    why = "would pad with its end token" if pad else "has none of its own"
    assert caplog.messages == [f"rows are padded with {expected!r}, as the tokenizer {why}"]


def test_the_start_token_is_not_taken(model_config):
    tokenizer = padless_tokenizer(["<|begin|>", "<|other|>"], None)
    tokenizer.bos_token = "<|begin|>"
    set_pad_token(tokenizer, model_config())
    assert tokenizer.pad_token == "<|other|>"


def test_a_pad_token_of_its_own_stays(model_config):
    tokenizer = padless_tokenizer(["<|pad|>", "<|other|>"], "<|other|>")
    set_pad_token(tokenizer, model_config())
    assert tokenizer.pad_token == "<|other|>"


def test_a_configured_one_is_used(model_config):
    tokenizer = padless_tokenizer(["<|pad|>", "<|other|>"], "<|pad|>")
    set_pad_token(tokenizer, model_config(pad_token="<|other|>"))
    assert tokenizer.pad_token == "<|other|>"


# What breaks a rule: pad token, configured one, words of the error.
BROKEN = [
    (None, None, "must have a token to pad with, but has neither"),
    ("<|end|>", None, r"another token than its end token, .* never learns to stop, but pads with '<\|end\|>'"),
    (None, "<|nonesuch|>", r"`model\.pad_token` must .* model\.pad_token='<\|nonesuch\|>'"),
    (None, "<|end|>", r"`model\.pad_token` must .* model\.pad_token='<\|end\|>'"),
]


@pytest.mark.parametrize("pad, configured, words", BROKEN)
def test_the_remedy_names_a_token_that_is_taken(pad, configured, words, model_config, compose):
    with pytest.raises(ModelError, match=words) as caught:
        set_pad_token(padless_tokenizer([], pad), model_config(pad_token=configured))
    (override,) = shlex.split(re.search(r"model\.pad_token=\S+$", str(caught.value))[0])
    tokenizer = padless_tokenizer([], pad)
    set_pad_token(tokenizer, compose("model=directory", "model.path=model", override).model)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


@pytest.mark.parametrize("pad, configured, words", BROKEN)
def test_a_directory_is_told_of_before_the_run_begins(pad, configured, words, model_config, tmp_path):
    save(padless_tokenizer([], pad), tmp_path)
    with pytest.raises(ModelError, match=words):
        check_paths(model_config(path=str(tmp_path), pad_token=configured))


@pytest.mark.parametrize(
    "special, pad, changes",
    [
        ([], "<|end|>", {"model_path_pad": "z"}),
        (["<|other|>"], "<|end|>", {}),
        ([], None, {"pad_token": {"content": "a", "special": True}}),
        ([], None, {"added_tokens_decoder": {"5": {"content": "b", "special": True}}}),
        ([], None, {"extra_special_tokens": ["c"]}),
        ([], None, {"extra_special_tokens": {"image_token": "d"}}),
        ([], None, {"eos_token": None}),  # which a tokenizer's class may bring
    ],
)
def test_a_directory_that_may_pad_passes(special, pad, changes, model_config, tmp_path):
    save(padless_tokenizer(special, pad), tmp_path)
    configured = changes.pop("model_path_pad", None)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    check_outline(model_config(path=str(tmp_path), pad_token=configured))


def save(tokenizer: PreTrainedTokenizerFast, directory) -> None:
    """A model's directory with `tokenizer`, as far as it is looked at before a run."""
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text('{"vocab_size": 300}')
    (directory / "model.safetensors").touch()


def test_a_tokenizer_without_end_token_is_refused(model_config):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="must have an end token"):
        set_pad_token(tokenizer, model_config())
