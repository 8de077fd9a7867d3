"""How many planted leaks the gate finds, how often it is wrong about real rows, and what it costs.

Found: items of MedQA, MedMCQA and PubMedQA are planted among rows that are no leaks, as they are or changed; a row's
reasoning and answer are those of another row. Wrong: rows and items that are known to be others, each held against all
but itself. Cost: rows and items made of sentences of real ones, with other numbers, in a process of its own.

usage: OMP_NUM_THREADS=1 python tests/benchmarks/leaks.py --data ../shared/data [--paraphrases FILE] [--planted 1000]
  --data: the folder with medical_o1_150.json, medqa_us_test_300.jsonl, medmcqa_dev_300.jsonl, pubmedqa_pqal_200.json
  --paraphrases: JSON lines of strength, item (a number of MedQA's rows, from 0) and paraphrase, written by hand
"""

import argparse
import json
import multiprocessing
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paraphrases import changed_words, other_numbers, paraphrase, sentences, spelt_otherwise

from medbot_exp.data.example import Example
from medbot_exp.data.leaks import LONG, Asked, Leak, find_leaks, words
from medbot_exp.data.sources import BUNDLED, read_file

BENCHMARKS = ("medqa", "medmcqa", "pubmedqa")


@dataclass(frozen=True)
class Real:
    """The published rows, as training rows by where they are from, and as items by benchmark, with the same ids."""

    items: dict[str, list[Asked]]
    rows: dict[str, list[Example]]


def read(folder: Path) -> Real:
    """The rows of `folder`, and the bundled cases."""
    texts = {
        "medqa": [
            (row["question"], "", row["answer"], tuple(row["options"].values()))
            for row in read_file(folder / "medqa_us_test_300.jsonl")
        ],
        "medmcqa": [
            (row["question"], row["exp"] or "", "", tuple(row[f"op{letter}"] for letter in "abcd"))
            for row in read_file(folder / "medmcqa_dev_300.jsonl")
        ],
        "pubmedqa": [
            (row["QUESTION"], " ".join(row["CONTEXTS"]), row["LONG_ANSWER"], ("yes", "no", "maybe"))
            for row in json.loads((folder / "pubmedqa_pqal_200.json").read_text(encoding="utf-8")).values()
        ],
        "medical_o1": [
            (row["Question"], row["Complex_CoT"], row["Response"], ())
            for row in read_file(folder / "medical_o1_150.json")
        ],
        "cases": [
            (row["question"], row["reasoning"], row["answer"], tuple(row["options"].values()))
            for row in read_file(BUNDLED / "clinical_cases.jsonl")
        ],
    }
    rows = {name: [Example(f"{name}-{n}", *own) for n, own in enumerate(all_)] for name, all_ in texts.items()}
    items = {
        name: [Asked(name, row.id, row.question, row.options) for row in own]
        for name, own in rows.items()
        if name != "medical_o1"
    }
    return Real(items, rows)


def listed(stem: str, options: Sequence[str]) -> str:
    """The stem with its options below, one a line behind its letter."""
    return "\n".join([stem, *(f"{chr(65 + number)}. {option}" for number, option in enumerate(options))])


def shuffled(options: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(list(options), len(options))


def embedded(item: Asked, around: str, rng: random.Random) -> str:
    """The stem between two sentences of another question."""
    parts = sentences(around)
    cut = rng.randrange(len(parts) + 1)
    return " ".join([*parts[:cut], item.stem, *parts[cut:]])


Change = Callable[[Asked, str, random.Random], str]
CHANGES: dict[str, Change] = {
    "exact, with options": lambda item, around, rng: listed(item.stem, item.options),
    "options reordered": lambda item, around, rng: listed(item.stem, shuffled(item.options, rng)),
    "stem only": lambda item, around, rng: item.stem,
    "case, punctuation, spacing, Unicode": lambda item, around, rng: spelt_otherwise(item.stem, rng),
    "in the midst of another question": embedded,
    "numbers changed": lambda item, around, rng: other_numbers(item.stem, rng),
    "numbers changed, with options": lambda item, around, rng: listed(
        other_numbers(item.stem, rng), shuffled(item.options, rng)
    ),
    "light paraphrase": lambda item, around, rng: paraphrase(item.stem, rng),
    "light paraphrase, with options": lambda item, around, rng: listed(
        paraphrase(item.stem, rng), shuffled(item.options, rng)
    ),
}
SAME = {name for name in CHANGES if not name.startswith(("numbers", "light"))}  # the stem is not to be changed


def plant(real: Real, change: str, planted: int, rng: random.Random) -> list[tuple[Asked, Example]]:
    """`planted` items with the row that gives each away; one that the change leaves as it is gives way to another."""
    items = [item for name in BENCHMARKS for item in real.items[name]]
    rows: list[tuple[Asked, Example]] = []
    while len(rows) < planted:
        item, other = rng.choice(items), rng.choice(real.rows["medical_o1"])
        question = CHANGES[change](item, other.question, rng)
        if change in SAME or not question.startswith(item.stem):
            rows.append((item, replace(other, id=f"planted-{len(rows)}", question=question)))
    return rows


def share(found: Sequence[bool]) -> str:
    """`97.8% of 1000`, or a dash where there is nothing to find."""
    return f"{sum(found) / len(found):.1%} of {len(found)}" if found else "-"


def print_found(real: Real, planted: int, rng: random.Random) -> None:
    """The table of planted leaks that are found."""
    items = [item for name in BENCHMARKS for item in real.items[name]]
    others = [*real.rows["medical_o1"], *real.rows["cases"]]
    print("| planted | words changed | all | MedQA | MedMCQA | PubMedQA | as overlap, ngrams, fuzzy | other alarms |")
    print("|---|---|---|---|---|---|---|---|")
    for change in CHANGES:
        pairs = plant(real, change, planted, rng)
        wanted = {row.id: item.id for item, row in pairs}
        leaks = find_leaks([*(row for _, row in pairs), *others], items)
        kinds = {leak.row: leak.kind for leak in leaks if wanted.get(leak.row) == leak.item}
        found = {name: [row.id in kinds for item, row in pairs if item.benchmark == name] for name in BENCHMARKS}
        edits = sorted(changed_words(item.stem, row.question) for item, row in pairs)
        kept = change in SAME or change.endswith("with options")  # what is added is no change
        counts = Counter(kinds.values())
        wrong = {leak.row for leak in leaks if wanted.get(leak.row) != leak.item}
        print(
            f"| {change} | {'-' if kept else f'{edits[len(edits) // 2]:.0%}'} "
            f"| {share([row.id in kinds for _, row in pairs])} "
            f"| {' | '.join(share(found[name]) for name in BENCHMARKS)} "
            f"| {counts['overlap']}, {counts['ngrams']}, {counts['fuzzy']} | {len(wrong)} |",
            flush=True,
        )


def print_by_hand(real: Real, path: Path) -> None:
    """The table of paraphrases that people wrote."""
    items = [item for name in BENCHMARKS for item in real.items[name]]
    lines = read_file(path)
    print("\n| by hand | words changed | found | as overlap, ngrams, fuzzy | other alarms |")
    print("|---|---|---|---|---|")
    for strength in dict.fromkeys(line["strength"] for line in lines):
        own = [line for line in lines if line["strength"] == strength]
        rows = [Example(f"medqa-{line['item']}", line["paraphrase"], "", "") for line in own]
        leaks = find_leaks(rows, items)
        counts = Counter(leak.kind for leak in leaks if leak.row == leak.item)
        edits = sorted(changed_words(real.items["medqa"][line["item"]].stem, line["paraphrase"]) for line in own)
        print(
            f"| {strength} | {edits[len(edits) // 2]:.0%} | {sum(counts.values()) / len(own):.1%} of {len(own)} "
            f"| {counts['overlap']}, {counts['ngrams']}, {counts['fuzzy']} "
            f"| {sum(leak.row != leak.item for leak in leaks)} |"
        )


def print_false_alarms(real: Real) -> list[Leak]:
    """The table of alarms about rows that are others than the items; the alarms, to be looked at."""
    alarms: list[Leak] = []
    print("\n| rows | items | pairs | rows with an alarm |")
    print("|---|---|---|---|")
    for name, rows in real.rows.items():
        for benchmark, items in real.items.items():
            wrong = [leak for leak in find_leaks(rows, items) if leak.row != leak.item]
            alarmed = len({leak.row for leak in wrong})
            alarms += wrong
            pairs = len(rows) * len(items) - (len(rows) if name == benchmark else 0)
            print(
                f"| {name} {len(rows)} | {benchmark} {len(items)} | {pairs:,} | {alarmed} ({alarmed / len(rows):.2%}) |"
            )
    return alarms


def grams(text: str, size: int) -> list[str]:
    """Each run of `size` words, in their order."""
    found = words(text)
    return [" ".join(found[start : start + size]) for start in range(len(found) - size + 1)]


def shares_13_words(question: str, stem: str) -> bool:
    """GPT-3's rule, without its list of common n-grams."""
    return not set(grams(question, 13)).isdisjoint(grams(stem, 13))


def shares_50_characters(question: str, stem: str) -> bool:
    """GPT-4's rule, its three places being the beginning, the middle and the end."""
    whole, sought = ("".join(filter(str.isalnum, text.casefold())) for text in (question, stem))
    last = max(len(sought) - 50, 0)
    return any(sought[start : start + 50] in whole for start in (0, last // 2, last))


def covers_half_in_8_words(question: str, stem: str) -> bool:
    """Tülu 3's rule."""
    known = set(grams(question, 8))
    covered = {start + word for start, gram in enumerate(grams(stem, 8)) if gram in known for word in range(8)}
    return 2 * len(covered) >= len(words(stem))


def print_published(real: Real, rng: random.Random) -> None:
    """The table of what published rules find of MedQA's paraphrases, and of its other items."""
    stems = [item.stem for item in real.items["medqa"]]
    others = [paraphrase(stem, rng) for stem in stems]
    print("\n| rule, on MedQA | light paraphrases found | rows with an alarm about another item |")
    print("|---|---|---|")
    rules = {
        "13 words": shares_13_words,
        "50 characters": shares_50_characters,
        "8-grams over half": covers_half_in_8_words,
    }
    for name, rule in rules.items():
        found = [rule(other, stem) for other, stem in zip(others, stems, strict=True)]
        wrong = [any(rule(row, stem) for stem in stems if stem is not row) for row in stems]
        print(f"| {name} | {share(found)} | {share(wrong)} |", flush=True)


def recombined(parts: Sequence[str], count: int, rng: random.Random) -> str:
    """`count` sentences of `parts` with other numbers."""
    return " ".join(other_numbers(part, rng) for part in rng.choices(parts, k=count))


def measure(folder: Path, rows: int, items: int, seed: int) -> tuple[float, float, float, int]:
    """Seconds of find_leaks over made-up rows and items, peak memory before and after in GiB, and leaks."""
    rng = random.Random(seed)
    real = read(folder)
    asked = [sentence for name in ("medqa", "cases") for item in real.items[name] for sentence in sentences(item.stem)]
    reasons = [sentence for row in real.rows["medical_o1"] for sentence in sentences(row.reasoning)]
    answers = [sentence for row in real.rows["medical_o1"] for sentence in sentences(row.answer)]
    made_items = [Asked("made", str(n), recombined(asked, rng.randint(4, 10), rng)) for n in range(items)]
    made_rows = [
        Example(
            str(n),
            recombined(asked, rng.randint(3, 9), rng),
            recombined(reasons, rng.randint(15, 45), rng),
            recombined(answers, rng.randint(4, 10), rng),
        )
        for n in range(rows)
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    leaks = find_leaks(made_rows, made_items)
    seconds = time.perf_counter() - start
    return seconds, before / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, len(leaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--paraphrases", type=Path)
    parser.add_argument("--planted", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    real = read(options.data)
    long = {name: sum(len(words(item.stem)) >= LONG for item in own) for name, own in real.items.items()}
    print(", ".join(f"{name}: {count} of {len(real.items[name])} stems are long" for name, count in long.items()), "\n")
    print_found(real, options.planted, random.Random(options.seed))
    if options.paraphrases:
        print_by_hand(real, options.paraphrases)
    print_published(real, random.Random(options.seed))
    alarms = print_false_alarms(real)
    print(
        "\nAlarms:\n", *(f"{leak.row} about {leak.item}: {leak.kind} {leak.share:.2f}" for leak in alarms), sep="\n- "
    )
    # Spawned: a fork would count this process's memory as its own.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, before, peak, found = pool.apply(measure, (options.data, options.rows, options.items, options.seed))
    print("\n| rows | items | seconds | peak memory, GiB | of it the rows and items, GiB | leaks |")
    print("|---|---|---|---|---|---|")
    print(f"| {options.rows:,} | {options.items:,} | {seconds:.1f} | {peak:.2f} | {before:.2f} | {found} |")


if __name__ == "__main__":
    main()
