"""Benchmarks in small files of their publishers' formats; the rows are invented."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medbot_exp.config import BenchmarkConfig, RunConfig
from medbot_exp.evaluation.benchmarks.registry import Benchmark
from medbot_exp.evaluation.item import Item


@pytest.fixture
def benchmark(compose: Callable[..., RunConfig]) -> Callable[..., BenchmarkConfig]:
    """benchmark(name, **changes): the config of conf/benchmark/<name>.yaml, changed."""

    def configured(name: str, **changes: Any) -> BenchmarkConfig:
        return replace(compose(f"benchmark=[{name}]").benchmark[name], **changes)

    return configured


@pytest.fixture
def published(benchmark: Callable[..., BenchmarkConfig]) -> Callable[..., list[Item]]:
    """published(name, **changes): all items of the benchmark `name`, configured as by `benchmark`."""

    def read(name: str, **changes: Any) -> list[Item]:
        return Benchmark(name, benchmark(name, **changes)).published

    return read


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """write(name, content): the path of a file with that content: a text, rows as lines, or a mapping as JSON."""

    def written(name: str, content: str | Sequence[Any] | dict[str, Any]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            text = content
        elif isinstance(content, dict):
            text = json.dumps(content, indent=1)
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


@pytest.fixture
def hub(tmp_path: Path, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """hub({config: {split: rows}}): a folder that is laid out as a data set of the hub, to be named as one."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def laid_out(configs: dict[str, dict[str, Sequence[Any]]]) -> str:
        lines = ["---", "configs:"]
        for config, splits in configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                write(f"hub/{config}/{split}.jsonl", rows)
                lines += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
        return str(Path(write("hub/README.md", "\n".join([*lines, "---", ""]))).parent)

    return laid_out
