"""How often two runs that are equally good are called different, and how often intervals hold the truth.

Pairs are drawn: each of n items is answered differently by the two with a given probability, by either as likely as
by the other; in groups, by the same one more often than chance has it, another one in another group.

usage: python tests/benchmarks/null_pairs.py [--pairs 10000]
"""

import argparse

import numpy as np

from medbot_exp.evaluation.statistics import difference_interval, flipped, mcnemar

DISCORDANT = 0.25  # of the items, that one of two equally good runs alone has right
TOGETHER = 0.3  # correlation of the differences within a group
CASES = [
    *((n, None) for n in (500, 1273, 4183)),  # PubMedQA's and MedQA's test parts, MedMCQA's validation part
    (500, 100),
    (1273, 57),
    (1273, 9),
    (4183, 21),
]


def single(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n,) differences of single items, and their sizes."""
    half = DISCORDANT / 2
    return rng.choice([-1.0, 0.0, 1.0], n, p=[half, 1 - DISCORDANT, half]), np.ones(n)


def grouped(n: int, groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(groups,) sums of differences, and the groups' sizes."""
    sizes = 1 + rng.multinomial(n - groups, rng.dirichlet(np.full(groups, 5.0)))
    shape = (1 / TOGETHER - 1) / 2
    discordant = rng.binomial(sizes, DISCORDANT)
    second = rng.binomial(discordant, rng.beta(shape, shape, groups))
    return (2.0 * second - discordant), sizes.astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{options.pairs} pairs each\n")
    print("| items | groups | called different | by the exact test | 95% intervals that hold 0 |")
    print("|---|---|---|---|---|")
    for n, groups in CASES:
        rng = np.random.default_rng([n, groups or 0])
        called = exactly = held = 0
        for pair in range(options.pairs):
            sums, sizes = single(n, rng) if groups is None else grouped(n, groups, rng)
            exact, mid = (
                mcnemar(int((sums < 0).sum()), int((sums > 0).sum())) if groups is None else flipped(sums, pair)
            )
            called += mid <= 0.05
            exactly += exact <= 0.05
            held += difference_interval(sums, sizes, pair).has(0.0)
        shares = " | ".join(f"{count / options.pairs:.2%}" for count in (called, exactly, held))
        print(f"| {n:,} | {groups or '-'} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
