"""What is told of a model's files before any of it is loaded, and what they say that it is made for."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medbot_exp.config import ModelConfig
from medbot_exp.errors import ConfigError, ModelError
from medbot_exp.model import byte_tokenizer, load
from medbot_exp.model_files import check_length, check_outline, check_paths, object_of, positions_of

CPU = torch.device("cpu")


@pytest.fixture
def directory(saved_tiny, tmp_path) -> Path:
    """A copy of `saved_tiny` to damage."""
    return Path(shutil.copytree(saved_tiny, tmp_path / "model"))


@pytest.fixture
def config(compose, directory) -> ModelConfig:
    """model=directory with `directory`, whatever is done to it."""
    return replace(compose("model=directory", "model.path=model").model, path=str(directory))


def edit_json(path: Path, **changes) -> None:
    """Set `changes` in the JSON object at `path`."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits_of(config: ModelConfig, directory: Path) -> torch.Tensor:
    """(T, V): what the model in `directory` makes of some tokens."""
    model = load(replace(config, path=str(directory)), directory.parent / "cache", CPU).model
    with torch.inference_mode():
        return model(torch.tensor([[5, 80, 17, 200]])).logits[0]


def test_whole_directory_is_taken(config):
    check_paths(config)


def test_json_that_cannot_be_read_is_a_model_error(directory):
    with pytest.raises(ModelError, match=r"must be a JSON object, but .* Is a directory"):
        object_of(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ['{"weight_map": ', "[]"])
def test_damaged_json_is_a_model_error(directory, config, name, content):
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    (directory / name).write_text(content)
    (directory / "model.safetensors.index.json").touch()
    with pytest.raises(ModelError, match=rf"{re.escape(name)} must be a JSON object, but .*; copy it again"):
        check_paths(config)


class TestWeights:
    def test_pickled_weights_are_refused_by_name(self, directory, config):
        torch.save({}, directory / "pytorch_model.bin")
        (directory / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"must be safetensors, but .* has pytorch_model\.bin"):
            check_paths(config)

    def test_no_weights_at_all_are_to_be_copied_not_converted(self, directory, config):
        (directory / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"must be safetensors, but .* has none; copy them from .*task=plan"):
            check_paths(config)
        check_outline(config)  # a plan does without

    @pytest.mark.parametrize(
        "damage",
        [lambda whole: whole[:5000], lambda whole: b"", lambda whole: b"version https://git-lfs.github.com/spec/v1\n"],
        ids=["truncated", "empty", "git-lfs pointer"],
    )
    def test_damaged_weights_are_a_model_error(self, directory, config, damage):
        weights = directory / "model.safetensors"
        weights.write_bytes(damage(weights.read_bytes()))
        with pytest.raises(ModelError, match=r"header.*; copy that file again$"):
            check_paths(config)

    @pytest.mark.parametrize(
        "put, words",
        [
            (lambda weights: weights.symlink_to("nowhere"), r"No such file or directory"),
            (lambda weights: weights.mkdir(), r"Is a directory"),
        ],
        ids=["dangling link", "directory"],
    )
    def test_weights_that_cannot_be_read_are_a_model_error(self, directory, config, put, words):
        (directory / "model.safetensors").unlink()
        put(directory / "model.safetensors")
        with pytest.raises(ModelError, match=rf"cannot be read \({words}\); copy that file again$"):
            check_paths(config)

    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"hidden_size": 32}, r"has model\.layers\.0\.self_attn\.q_proj\.weight of \(64, 64\), and .* \(64, 32\)"),
            ({"num_hidden_layers": 3}, r"has none for model\.layers\.2\.self_attn\.q_proj\.weight, .*\(7 of 22 are"),
            ({"tie_word_embeddings": False}, r"has none for lm_head\.weight"),
        ],
    )
    def test_weights_that_are_not_those_of_the_config_are_told_of_by_their_headers(
        self, directory, config, changes, words
    ):
        edit_json(directory / "config.json", **changes)
        with pytest.raises(ModelError, match=words):
            check_paths(config)

    @pytest.mark.parametrize(
        "renamed",
        [
            lambda name: name.replace("model.embed_tokens", "lm_head"),  # as safetensors' save_model has it
            lambda name: name.removeprefix("model."),
        ],
        ids=["head", "no prefix"],
    )
    def test_weights_that_transformers_finds_under_other_names_are_whole(self, directory, config, saved_tiny, renamed):
        weights = directory / "model.safetensors"
        save_file({renamed(name): tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
        check_paths(config)
        torch.testing.assert_close(logits_of(config, directory), logits_of(config, saved_tiny))

    def test_weights_of_a_tied_model_are_still_to_be_of_its_shape(self, directory, config):
        weights = directory / "model.safetensors"
        tensors = load_file(weights)
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")[:-1].clone()
        save_file(tensors, weights, {"format": "pt"})
        with pytest.raises(ModelError, match=r"has lm_head\.weight of \(319, 64\), and .* \(320, 64\)"):
            check_paths(config)

    def test_weights_under_another_name_are_told_of(self, directory, config):
        (directory / "model.safetensors").rename(directory / "consolidated.safetensors")
        with pytest.raises(ModelError, match=r"has consolidated\.safetensors and neither of them; copy the index"):
            check_paths(config)


class TestShards:
    def test_weights_in_shards_are_looked_at_together(self, directory, config):
        model = load(config, directory.parent / "cache", CPU).model
        (directory / "model.safetensors").unlink()
        model.save_pretrained(directory, max_shard_size="100KB")
        assert len(list(directory.glob("*.safetensors"))) > 1
        check_paths(config)
        edit_json(directory / "config.json", num_hidden_layers=3)
        with pytest.raises(ModelError, match=r"\(7 of 22 are"):
            check_paths(config)

    def test_missing_shard_is_named(self, directory, config):
        (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
        shards = {"model.norm.weight": "model-00002-of-00002.safetensors"}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
        with pytest.raises(ModelError, match=r"but .* has no model-00002-of-00002\.safetensors \(of 1 shards\); copy"):
            check_paths(config)

    def test_index_that_lists_nothing_is_refused(self, directory, config):
        (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
        (directory / "model.safetensors.index.json").write_text("{}")
        with pytest.raises(ModelError, match="but it lists none; copy"):
            check_paths(config)


class TestTokenizer:
    def test_missing_tokenizer_is_named(self, directory, config):
        for path in directory.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ModelError, match=f"{directory} must hold a tokenizer"):
            check_paths(config)

    @pytest.mark.parametrize(
        "damage",
        [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"\xff" + whole],
        ids=["truncated", "empty", "not UTF-8"],
    )
    @pytest.mark.parametrize("check", [check_outline, check_paths])
    def test_torn_tokenizer_is_told_with_the_file_to_copy(
        self, directory, config, damage: Callable[[bytes], bytes], check: Callable[[ModelConfig], None]
    ):
        path = directory / "tokenizer.json"
        path.write_bytes(damage(path.read_bytes()))
        words = rf"^tokenizer\.json must be a JSON object, but in {directory} it is not: .*; copy it again$"
        with pytest.raises(ModelError, match=words):
            check(config)

    def test_tokenizer_that_is_in_another_file_is_left_to_transformers(self, directory, config):
        (directory / "tokenizer.json").rename(directory / "vocabulary.json")
        check_paths(config)

    def test_more_tokens_than_embeddings_are_refused(self, directory, config):
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens([f"<extra {number}>" for number in range(100)])
        tokenizer.save_pretrained(directory)
        with pytest.raises(ModelError, match="320 embeddings and 360 tokens"):
            check_paths(config)


class TestLength:
    @pytest.mark.parametrize(
        "shape, positions",
        [
            ({"max_position_embeddings": 4096}, 4096),
            ({"n_positions": 1024}, 1024),
            ({"hidden_size": 64}, None),
            # Llama 3.1, Qwen2.5 with YaRN as its model card has it, Vicuna 1.5 16k, Phi-3 mini 128k.
            (
                {
                    "max_position_embeddings": 131072,
                    "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                },
                131072,
            ),
            (
                {
                    "max_position_embeddings": 32768,
                    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
                },
                131072,
            ),
            ({"max_position_embeddings": 4096, "rope_scaling": {"factor": 4.0, "type": "linear"}}, 16384),
            ({"max_position_embeddings": 131072, "rope_scaling": {"long_factor": [1.0], "type": "longrope"}}, 131072),
            # What transformers refuses, or makes nothing of.
            ({"max_position_embeddings": 4096, "rope_scaling": "linear"}, 4096),
            ({"max_position_embeddings": 4096, "rope_scaling": {"factor": float("inf")}}, 4096),
            (
                {
                    "max_position_embeddings": 4096,
                    "rope_scaling": {"factor": 2, "original_max_position_embeddings": "4k"},
                },
                8192,
            ),
        ],
    )
    def test_length_that_a_model_is_made_for_is_read_from_its_config(self, shape, positions):
        assert positions_of(shape) == positions

    def test_odd_part_for_text_is_passed_over(self, directory, config):
        edit_json(directory / "config.json", text_config="none")
        longer = replace(config, max_length=4096)
        check_paths(longer)
        with pytest.raises(ConfigError, match=r"2048 tokens by its config\.json \("):
            check_length(longer, directory.parent)

    def test_what_the_cache_has_of_a_branch_is_nothing_to_refuse_a_run_by(
        self, compose, tmp_path, saved_tiny, monkeypatch
    ):
        repository = tmp_path / "models--owner--cached"
        commit = "0123456789" * 4
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(saved_tiny, repository / "snapshots" / commit)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        hub = replace(compose("model=deepseek_r1_llama_8b").model, repo="owner/cached", max_length=4096)
        check_length(hub, tmp_path)
        with pytest.raises(ConfigError, match="2048 tokens by its config"):
            check_length(replace(hub, revision=commit), tmp_path)
