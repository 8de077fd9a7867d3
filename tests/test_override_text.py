"""Texts that Hydra reads back as exactly the value that was written."""

import math
import random

from hydra.core.override_parser.overrides_parser import OverridesParser

from medbot_exp.override_text import written


def random_value(source: random.Random, depth: int = 0):
    """Any value that a config can hold."""
    texts = "ab1 .,=:'\"\\{}[]()$%*@+-_/~#é\t\n?|&"
    kinds = 6 if depth > 1 else 8
    kind = source.randrange(kinds)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.choice([0, -7, 10**15, source.randrange(-99, 99)])
    if kind == 2:
        return source.choice([0.1, -0.0, 1e-05, 1e16, 2.5e-300, math.inf, source.uniform(-1, 1), 3.0])
    if kind == 3:
        return source.choice(["null", "true", "False", "1", "1e-5", "inf", "", " ", "a,b", "choice(1,2)", "nan", "\\"])
    if kind in (4, 5):
        return "".join(source.choice(texts) for _ in range(source.randrange(8)))
    if kind == 6:
        return [random_value(source, depth + 1) for _ in range(source.randrange(4))]
    return {source.choice("abcd") * 2: random_value(source, depth + 1) for _ in range(source.randrange(3))}


def test_written_text_is_read_by_hydra_as_exactly_the_value():
    source = random.Random(3407)
    for _ in range(1000):
        value = random_value(source)
        override = OverridesParser.create().parse_override(f"key={written(value)}")
        assert not override.is_sweep_override()
        # repr tells 1 from 1.0 and true, and -0.0 from 0.0.
        assert repr(override.value()) == repr(value)
