"""How sure a score is, and whether two runs that answered the same items differ.

Items of one subject, or asked again in another order, are no independent draws: where groups are given, whole groups
are what varies, and everything here is as sure as their number allows.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from medbot_exp.errors import ConfigError

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 10_000
SIGNS_ENUMERATED = 14  # groups up to which all 2^G signs are tried, instead of RESAMPLES drawn ones


@dataclass(frozen=True)
class Interval:
    """A confidence interval at LEVEL."""

    low: float
    high: float

    def has(self, value: float) -> bool:
        """Whether `value` is in it."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Answered:
    """One item that a run answered.

    Attributes:
        item: what was asked, as a hash of question, options and label.
        group: items of one group vary together; an item's own where it stands alone.
    """

    item: str
    group: Hashable
    correct: bool


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same items.

    Attributes:
        difference: accuracy of the second less that of the first, with its bootstrap interval.
        only_first, only_second: items that one of them alone has right.
        p: mid-p of McNemar's test, by which they are called different.
        p_exact: of McNemar's exact test, which calls fewer than LEVEL allows different.
        detectable: the smallest difference that so many items, answered as differently, show with POWER.
    """

    n: int
    groups: int
    first: float
    second: float
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p: float
    p_exact: float
    detectable: float


def accuracy_interval(correct: Sequence[bool], groups: Sequence[Hashable]) -> Interval:
    """Wilson's interval (J. Am. Stat. Assoc. 22, 1927) of the share of right answers.

    Where items share groups, the number of items is divided by the design effect, and Student's t with one degree of
    freedom less than groups takes the normal's place (Korn and Graubard, Survey Methodology 24, 1998).
    """
    n, share = len(correct), float(np.mean(correct))
    sums, sizes = by_group(np.asarray(correct, dtype=float), groups)
    if len(sums) == n or len(sums) == 1:
        return wilson(share, n, float(stats.norm.ppf((1 + LEVEL) / 2)))
    independent = share * (1 - share) / n
    # A group cannot tell more than its items would alone.
    effect = max(1.0, standard_error(sums, sizes) ** 2 / independent) if independent else 1.0
    return wilson(share, n / effect, float(stats.t.ppf((1 + LEVEL) / 2, len(sums) - 1)))


def wilson(share: float, n: float, quantile: float) -> Interval:
    """Wilson's score interval of `share` of `n`, which an effective number need not make whole."""
    spread = quantile**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = quantile * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return Interval(max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def compare(first: Sequence[Answered], second: Sequence[Answered], seed: int = 0) -> Comparison:
    """Whether `second` does better than `first`, on the same items in any order.

    Raises:
        ConfigError: the items differ.
    """
    ours, theirs = ({answered.item: answered for answered in run} for run in (first, second))
    if ours.keys() != theirs.keys() or len(ours) != len(first) or len(theirs) != len(second):
        raise ConfigError(
            f"runs must have answered the same items to be compared, but of {len(ours)} and {len(theirs)} items they "
            f"share {len(ours.keys() & theirs.keys())}; evaluate both with the same benchmark settings"
        )
    items = sorted(ours)
    right = np.array([[run[item].correct for item in items] for run in (ours, theirs)], dtype=float)
    groups = [ours[item].group for item in items]
    sums, sizes = by_group(right[1] - right[0], groups)
    only_first, only_second = (int(((right[one] == 1) & (right[1 - one] == 0)).sum()) for one in (0, 1))
    exact, mid = mcnemar(only_first, only_second) if len(sums) == len(items) else flipped(sums, seed)
    return Comparison(
        n=len(items),
        groups=len(sums),
        first=float(right[0].mean()),
        second=float(right[1].mean()),
        difference=float(sums.sum() / sizes.sum()),
        interval=difference_interval(sums, sizes, seed),
        only_first=only_first,
        only_second=only_second,
        p=mid,
        p_exact=exact,
        detectable=detectable(sums, sizes, (only_first + only_second) / len(items)),
    )


def by_group(values: Any, groups: Sequence[Hashable]) -> tuple[Any, Any]:
    """Sum and number of `values` in each group, (G,) float both."""
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    index = np.array([places[group] for group in groups])
    return np.bincount(index, weights=values, minlength=len(places)), np.bincount(index).astype(float)


def standard_error(sums: Any, sizes: Any) -> float:
    """Of the mean sum(sums) / sum(sizes) over groups that vary as wholes (the ratio estimate's linearisation)."""
    return float(standard_errors(sums[None], sizes[None], np.ones((1, len(sums))))[0])


def standard_errors(sums: Any, sizes: Any, weights: Any) -> Any:
    """(R,) of the means in which group g counts `weights[:, g]` times, (R, G)."""
    total = (weights * sizes).sum(1)
    means = (weights * sums).sum(1) / total
    groups = weights.sum(1)
    residuals = (weights * (sums - means[:, None] * sizes) ** 2).sum(1)
    return np.sqrt(groups / (groups - 1) * residuals) / total


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """McNemar's exact test and its mid-p (Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13, 2013), two-sided.

    Given the items that one run alone has right, each is as likely to be the first's as the second's.
    """
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if discordant == 0:
        return 1.0, 1.0
    at_least, seen = 2 * float(stats.binom.cdf(fewer, discordant, 0.5)), float(stats.binom.pmf(fewer, discordant, 0.5))
    if only_first == only_second:  # both tails have the point that was seen, which counts once
        return 1.0, 1 - seen / 2
    return at_least, at_least - seen


def flipped(sums: Any, seed: int) -> tuple[float, float]:
    """As `mcnemar`, for groups: each group's sum of differences is as likely to have the other sign."""
    sums = sums[sums != 0]
    if len(sums) == 0:
        return 1.0, 1.0
    if len(sums) <= SIGNS_ENUMERATED:
        signs = np.array(np.meshgrid(*[[-1, 1]] * len(sums))).reshape(len(sums), -1).T
        found = np.abs(signs @ sums)
    else:
        signs = np.random.default_rng(seed).integers(0, 2, (RESAMPLES - 1, len(sums))) * 2 - 1
        found = np.append(np.abs(signs @ sums), abs(sums.sum()))  # what was seen is one of the possible signs
    at_least, more = (found >= abs(sums.sum()) - 1e-9).mean(), (found > abs(sums.sum()) + 1e-9).mean()
    return float(at_least), float((at_least + more) / 2)


def difference_interval(sums: Any, sizes: Any, seed: int) -> Interval:
    """Bootstrap interval of the mean difference, whole groups drawn with replacement.

    Single items: percentiles of the resampled differences. Groups: of their Student's t (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, section 12.5), as a few groups spread less than what they stand for. Where no
    item differs there is nothing to draw from: then as far either way as the share of differing items may reach.
    """
    if not sums.any():
        share = 1 - ((1 - LEVEL) / 2) ** (1 / len(sums))  # Clopper and Pearson's bound (Biometrika 26, 1934) for none
        return Interval(-share, share)
    generator = np.random.default_rng(seed)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if (sizes == 1).all():
        values, counts = np.unique(sums, return_counts=True)
        drawn = generator.multinomial(len(sums), counts / len(sums), RESAMPLES) @ values / len(sums)
        return Interval(*(float(edge) for edge in np.quantile(drawn, tails)))
    mean, error = sums.sum() / sizes.sum(), standard_error(sums, sizes)
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    errors = standard_errors(sums, sizes, drawn)
    means = (drawn @ sums) / (drawn @ sizes)
    kept = errors > 0
    low, high = np.quantile((means[kept] - mean) / errors[kept], tails) if kept.any() else (0.0, 0.0)
    return Interval(float(mean - high * error), float(mean - low * error))


def detectable(sums: Any, sizes: Any, discordant: float) -> float:
    """The smallest difference of two runs that McNemar's test calls different with POWER (Connor, Biometrics 43, 1987).

    Args:
        discordant: the share of items that one of the two alone has right.
    """
    level, power = stats.norm.ppf((1 + LEVEL) / 2), stats.norm.ppf(POWER)
    n = float(sizes.sum())
    if len(sums) < n and discordant:
        n /= max(1.0, standard_error(sums, sizes) ** 2 * n / discordant)
    if n < 5:  # McNemar's test, by mid-p too, calls nothing different on four items
        return 1.0
    difference = 0.0
    for _ in range(50):  # two runs differ on at least as many items as their scores do
        share = max(discordant, difference)
        root = n * level**2 * share - (n + power**2) * share * (level**2 - power**2)
        difference = float((np.sqrt(n * share) * level + np.sqrt(root)) / (n + power**2)) if share else 1 / n
    return min(1.0, difference)


def holm(ps: Sequence[float]) -> list[float]:
    """`ps` of several comparisons, corrected so that one false call among all is as rare as LEVEL says (Holm, 1979)."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected
