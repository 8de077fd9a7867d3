"""Where a model comes from, what is refused, and that what arrives is what was meant."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from omegaconf import OmegaConf

from medbot_exp import digest
from medbot_exp.config import ArchitectureConfig, Dtype, ModelConfig, conf_directory
from medbot_exp.errors import ModelError, OutOfMemoryError, resource_error
from medbot_exp.model import Loaded, byte_tokenizer, digest_meanwhile, load

CPU = torch.device("cpu")
TEXT = "Hämoglobin 12 µg/dl, don't stop ."


def model_config(option: str, **changes) -> ModelConfig:
    """conf/model/<option>.yaml with `changes`."""
    chosen = OmegaConf.load(conf_directory() / "model" / f"{option}.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), chosen, changes))
    assert isinstance(config, ModelConfig)
    return config


def architecture(**changes) -> ArchitectureConfig:
    """The shape in conf/model/tiny.yaml with `changes`."""
    shape = model_config("tiny").architecture
    assert shape is not None
    return replace(shape, **changes)


def tiny(**changes):
    """A fresh model of model=tiny, its architecture with `changes`."""
    return load(model_config("tiny", architecture=architecture(**changes)), Path(os.devnull), CPU).model


def logits_of(model, ids: list[int]) -> torch.Tensor:
    """(len(ids), V) logits."""
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits[0]


@pytest.fixture
def directory(saved_tiny, tmp_path) -> Path:
    """A copy of `saved_tiny` to damage."""
    return Path(shutil.copytree(saved_tiny, tmp_path / "model"))


def load_directory(directory: Path, **changes) -> Loaded:
    """The model in `directory`, as model=directory loads it."""
    return load(model_config("directory", path=str(directory), **changes), directory.parent / "cache", CPU)


def edit_json(path: Path, **changes) -> None:
    """Set `changes` in the JSON object at `path`."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestTiny:
    def test_same_seed_gives_the_same_weights_and_another_seed_does_not(self, tmp_path):
        first, second = (load(model_config("tiny"), tmp_path, CPU).model.state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        other = tiny(seed=1).state_dict()
        assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])

    def test_global_generator_is_left_alone(self, tmp_path):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        load(model_config("tiny"), tmp_path, CPU)
        assert torch.equal(torch.get_rng_state(), before)

    def test_version_follows_the_architecture(self, tmp_path):
        first = load(model_config("tiny"), tmp_path, CPU).located
        other = load(model_config("tiny", architecture=architecture(seed=1)), tmp_path, CPU).located
        assert first.directory is None
        assert first.version != other.version

    @pytest.mark.parametrize("dtype", [Dtype.float32, Dtype.bfloat16])
    def test_weights_have_the_dtype_asked_for(self, tmp_path, dtype):
        model = load(model_config("tiny", dtype=dtype), tmp_path, CPU).model
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype.name)}

    def test_auto_dtype_is_float32_on_a_cpu(self, tmp_path):
        assert load(model_config("tiny", dtype=Dtype.auto), tmp_path, CPU).model.dtype is torch.float32

    def test_too_small_a_vocabulary_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match="200 embeddings and 260 tokens"):
            load(model_config("tiny", architecture=architecture(vocab_size=200)), tmp_path, CPU)

    def test_impossible_architecture_is_a_model_error(self, tmp_path):
        with pytest.raises(ModelError, match="attention heads"):
            load(model_config("tiny", architecture=architecture(num_attention_heads=5)), tmp_path, CPU)


class TestByteTokenizer:
    # Every UTF-8 length, control characters, combining marks, and what "clean-up" of spaces would change.
    @pytest.mark.parametrize(
        "text", [TEXT, "", "  two  spaces\n\t\r\n", "e\u0301 血糖 🩺 \U0010ffff \x00\x7f", "<think> ?"]
    )
    def test_text_comes_back_from_one_token_per_byte(self, text):
        tokenizer = byte_tokenizer()
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text

    def test_pad_differs_from_end(self):
        tokenizer = byte_tokenizer()
        assert tokenizer.pad_token_id is not None
        assert tokenizer.pad_token_id != tokenizer.eos_token_id

    def test_chat_template_marks_every_turn_with_one_token(self):
        tokenizer = byte_tokenizer()
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == [
            *("<|user|>", "a", "<|end|>"),
            *("<|assistant|>", "b", "<|end|>"),
            "<|assistant|>",
        ]


class TestDirectory:
    def test_saved_model_gives_the_same_logits(self, directory):
        loaded = load_directory(directory)
        ids = byte_tokenizer()(TEXT)["input_ids"]
        assert loaded.tokenizer(TEXT)["input_ids"] == ids
        expected = logits_of(tiny(), ids)
        torch.testing.assert_close(logits_of(loaded.model, ids), expected)

    def test_path_takes_precedence_over_the_hub(self, directory):
        config = model_config("deepseek_r1_llama_8b", path=str(directory))
        assert load(config, directory.parent / "cache", CPU).located.directory == directory

    def test_model_and_generation_pad_with_the_tokenizers_token(self, directory):
        loaded = load_directory(directory)
        assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
        assert loaded.model.generation_config.pad_token_id == loaded.tokenizer.pad_token_id

    def test_missing_config_is_named(self, directory):
        (directory / "config.json").unlink()
        with pytest.raises(ModelError, match=rf"config\.json, but there is none in {directory}"):
            load_directory(directory)

    @pytest.mark.parametrize(
        "damage",
        [lambda whole: whole[:5000], lambda whole: b"", lambda whole: b"version https://git-lfs.github.com/spec/v1\n"],
        ids=["truncated", "empty", "git-lfs pointer"],
    )
    def test_damaged_weights_are_a_model_error(self, directory, damage):
        weights = directory / "model.safetensors"
        weights.write_bytes(damage(weights.read_bytes()))
        with pytest.raises(ModelError, match=r"header.*; copy that file again$"):
            load_directory(directory)

    def test_memory_that_runs_out_while_files_are_mapped_is_no_fault_of_theirs(self):
        text = "unable to mmap 539570360 bytes from file <model.safetensors>: Cannot allocate memory (12)"
        assert isinstance(resource_error(RuntimeError(text)), OutOfMemoryError)

    @pytest.mark.parametrize(
        "attention, remedy", [("sdpa", "use another model"), ("eager", "use model.attention=sdpa, or another model")]
    )
    def test_remedy_for_what_cannot_be_run_is_none_that_is_taken_already(self, directory, attention, remedy):
        edit_json(directory / "config.json", hidden_act="nonesuch")
        with pytest.raises(ModelError, match=f"; {remedy}$"):
            load_directory(directory, attention=attention)

    def test_remedy_for_a_model_that_cannot_run_with_sdpa_is_eager(self, directory):
        edit_json(directory / "config.json", model_type="gpt_oss")
        with pytest.raises(ModelError, match=r"GptOss.* does not support .*; use model\.attention=eager$"):
            load_directory(directory)

    def test_length_of_rows_is_no_matter_where_none_are_tokenised(self, directory):
        assert load_directory(directory, max_length=4096).model.config.max_position_embeddings == 2048

    def test_digest_ends_with_ctrl_c(self, directory, monkeypatch):
        monkeypatch.setattr(digest, "PIECE_BYTES", 1)  # hours of pieces, were it not to end
        with (directory / "model.safetensors").open("ab") as weights:
            weights.truncate(2**33)
        config = model_config("directory", path=str(directory))
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt), digest_meanwhile(config, directory.parent / "cache"):
            raise KeyboardInterrupt
        assert time.monotonic() - began < 5
        assert not list((directory.parent / "cache").glob("digests/*"))

    def test_weights_of_another_shape_are_a_model_error(self, directory):
        edit_json(directory / "config.json", hidden_size=32)
        with pytest.raises(ModelError):
            load_directory(directory)

    def test_weights_that_lack_a_layer_are_refused(self, directory):
        edit_json(directory / "config.json", num_hidden_layers=3)
        with pytest.raises(ModelError, match=r"layers\.2"):
            load_directory(directory)

    def test_more_tokens_than_embeddings_are_refused(self, directory):
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens([f"<extra {number}>" for number in range(100)])
        tokenizer.save_pretrained(directory)
        with pytest.raises(ModelError, match="320 embeddings and 360 tokens"):
            load_directory(directory)

    def test_missing_tokenizer_is_named(self, directory):
        for path in directory.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ModelError, match=f"{directory} must hold a tokenizer"):
            load_directory(directory)

    def test_damaged_tokenizer_is_a_model_error(self, directory):
        (directory / "tokenizer.json").write_text('{"version": ')
        with pytest.raises(ModelError, match="must hold a tokenizer"):
            load_directory(directory)

    def test_unknown_architecture_is_named(self, directory):
        edit_json(directory / "config.json", model_type="nonesuch")
        with pytest.raises(ModelError, match="nonesuch"):
            load_directory(directory)

    def test_code_that_comes_with_a_model_is_not_run(self, directory, tmp_path):
        (directory / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
        names = {"AutoConfig": "theirs.Theirs", "AutoModelForCausalLM": "theirs.Theirs"}
        edit_json(directory / "config.json", model_type="theirs", auto_map=names)
        with pytest.raises(ModelError, match="custom code"):
            load_directory(directory)
        assert not (tmp_path / "ran").exists()


def test_version_of_a_directory_is_the_digest_of_its_config_and_weights(directory):
    each = [hashlib.sha256((directory / name).read_bytes()).digest() for name in ("config.json", "model.safetensors")]
    expected = hashlib.sha256(b"".join(each)).hexdigest()
    assert load_directory(directory).located.version == expected


# The hub's client reads its settings when it is imported, so each setting gets its own process.
FROM_HUB = """
import json, sys
from medbot_exp.errors import ModelError
from medbot_exp.model import HUB_PATTERNS, from_hub
answers = {}
for repo in sys.argv[1:]:
    try:
        answers[repo] = str(from_hub(repo, "main", HUB_PATTERNS))
    except ModelError as error:
        answers[repo] = f"ModelError: {error}"
print(json.dumps(answers))
"""


def ask_hub(home: Path, *repos: str, **environment: str) -> dict[str, str]:
    """For each of `repos` the snapshot's directory, or the ModelError's text."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", FROM_HUB, *repos],
        env=kept | {"HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does for a repository named after the error."""

    def do_GET(self):
        _, _, _, _, name, *_ = self.path.split("/")  # /api/models/<owner>/<name>/revision/main
        status = 403 if name == "GatedRepo" else 404
        self.send_response(status)
        self.send_header("X-Error-Code", name)
        self.send_header("X-Error-Message", f"told: {name}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What becomes of the hub's own refusals."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        repos = ("owner/GatedRepo", "owner/RepoNotFound", "owner/RevisionNotFound")
        address = f"http://127.0.0.1:{server.server_port}"
        yield ask_hub(tmp_path_factory.mktemp("hub"), *repos, HF_ENDPOINT=address)
    finally:
        server.shutdown()
        server.server_close()


class TestHub:
    @pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
    def test_unreachable_hub_says_what_to_do_offline(self, tmp_path, setting):
        text = ask_hub(tmp_path, "owner/uncached", **setting)["owner/uncached"]
        assert text.startswith("ModelError: the hub must be reachable for model.repo=owner/uncached")
        assert "model.path=<directory>" in text
        assert "model=smollm2_135m" in text

    def test_snapshot_of_an_earlier_run_serves_offline(self, tmp_path, saved_tiny):
        repository = tmp_path / "hub" / "models--owner--cached"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        shutil.copytree(saved_tiny, repository / "snapshots" / ("0" * 40))
        found = ask_hub(tmp_path, "owner/cached", HF_HUB_OFFLINE="1")["owner/cached"]
        assert found == str(repository / "snapshots" / ("0" * 40))

    def test_name_that_no_repository_can_have_is_refused(self, tmp_path):
        text = ask_hub(tmp_path, "no such//name", HF_HUB_OFFLINE="1")["no such//name"]
        assert "`model.repo` must exist on the hub, but got model.repo=no such//name" in text

    def test_gated_repository_says_how_to_log_in(self, refusals):
        assert "gated" in refusals["owner/GatedRepo"]
        assert "hf auth login" in refusals["owner/GatedRepo"]

    def test_unknown_repository_is_named(self, refusals):
        assert "must exist on the hub, but got model.repo=owner/RepoNotFound" in refusals["owner/RepoNotFound"]

    def test_unknown_revision_is_named(self, refusals):
        text = refusals["owner/RevisionNotFound"]
        assert "revision" in text.lower()
        assert "must be reachable" not in text
