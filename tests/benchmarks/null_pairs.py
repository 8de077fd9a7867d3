"""How often two runs that are equally good are called different, and how often intervals hold the truth.

Pairs are drawn: each of n items is answered differently by the two with a given probability, by either as likely as
by the other; in groups that go together, by the same one more often than chance has it, another one in another group.

Measured, 10,000 pairs each: of 500, 1,273 and 4,183 single items 5.2%, 5.1% and 5.0% are called different, and 94.9%,
94.9% and 95.0% of the intervals hold 0; of items in 100, 57, 21 and 9 groups that go together by 0.3, 4.9% to 5.1%, and
94.9%, 94.8%, 94.4% and 93.7%. Six groups are called different in 5.4% to 6.1%, as 64 signs leave no finer level, with
93.5% to 97.7%; two or three never, with 93.1% to 99.4%.

usage: python tests/benchmarks/null_pairs.py [--pairs 10000]
"""

import argparse

import numpy as np

from medbot_exp.evaluation.statistics import difference_interval, flipped, mcnemar

DISCORDANT = 0.25  # of the items, that one of two equally good runs alone has right
CASES = [  # items, groups, correlation of the differences within a group
    *((n, None, 0.0) for n in (500, 1273, 4183)),  # PubMedQA's and MedQA's test parts, MedMCQA's validation part
    (500, 100, 0.3),
    (1273, 57, 0.3),
    (1273, 9, 0.3),
    (4183, 21, 0.3),
    *((1089, groups, together) for groups in (2, 3, 6) for together in (0.0, 0.05, 0.3)),  # MMLU's medical subjects
]


def single(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """(n,) differences of single items, their sizes, and the share of items that differ."""
    half = DISCORDANT / 2
    differences = rng.choice([-1.0, 0.0, 1.0], n, p=[half, 1 - DISCORDANT, half])
    return differences, np.ones(n), float(np.abs(differences).mean())


def grouped(n: int, groups: int, together: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """(groups,) sums of differences, the groups' sizes, and the share of items that differ."""
    sizes = 1 + rng.multinomial(n - groups, rng.dirichlet(np.full(groups, 5.0)))
    discordant = rng.binomial(sizes, DISCORDANT)
    shape = (1 / together - 1) / 2 if together else None
    second = rng.binomial(discordant, rng.beta(shape, shape, groups) if shape else 0.5)
    return (2.0 * second - discordant), sizes.astype(float), float(discordant.sum() / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{options.pairs} pairs each\n")
    print("| items | groups | going together | called different | by the exact test | 95% intervals that hold 0 |")
    print("|---|---|---|---|---|---|")
    for n, groups, together in CASES:
        rng = np.random.default_rng([n, groups or 0, round(100 * together)])
        called = exactly = held = 0
        for pair in range(options.pairs):
            sums, sizes, discordant = single(n, rng) if groups is None else grouped(n, groups, together, rng)
            exact, mid = (
                mcnemar(int((sums < 0).sum()), int((sums > 0).sum())) if groups is None else flipped(sums, pair)
            )
            called += mid <= 0.05
            exactly += exact <= 0.05
            held += difference_interval(sums, sizes, n, discordant).has(0.0)
        shares = " | ".join(f"{count / options.pairs:.2%}" for count in (called, exactly, held))
        print(f"| {n:,} | {groups or '-'} | {together} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
