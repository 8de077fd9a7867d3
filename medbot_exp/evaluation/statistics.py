"""How sure a score is, and whether two runs that answered the same items differ.

Items of one subject, or asked again in another order, are no independent draws: where there are several groups, whole
groups are what varies, and everything here is as sure as their number allows. Of one group alone nothing is known but
its items: these are what varies then, each with all its turns.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from medbot_exp.errors import ConfigError
from medbot_exp.evaluation.order import published_id

LEVEL = 0.95
POWER = 0.8
SIGNS_ENUMERATED = 14  # groups up to which all 2^G signs are tried, instead of SIGNS_DRAWN of them
SIGNS_DRAWN = 10_000


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
        item: what was asked: its id and, behind a space, a hash of question, options and label.
        group: items of one group vary together; an item's own where it stands alone.
    """

    item: str
    group: Hashable
    correct: bool

    @property
    def published(self) -> str:
        """The id of the item that this is a turn of."""
        return published_id(self.item.rsplit(" ", 1)[0])


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same items.

    Attributes:
        groups: of items, that vary as wholes.
        difference: accuracy of the second less that of the first.
        interval: of the difference; that of four groups or fewer can lie off 0, though `p` calls nothing different.
        only_first, only_second: items that one of them alone has right.
        p: mid-p of McNemar's test, or of the signs of groups, by which they are called different.
        p_exact: of the same test without the mid, which calls fewer than LEVEL allows different.
        detectable: the smallest difference that so many items, answered as differently, show with POWER; 1 where they
            show none, as up to four groups.
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


def accuracy_interval(correct: Sequence[bool], items: Sequence[Hashable], groups: Sequence[Hashable]) -> Interval:
    """Wilson's interval (J. Am. Stat. Assoc. 22, 1927) of the share of right answers.

    Where answers share groups, their effective number takes n's place: n over the design effect and over the square of
    how much wider Student's t is than the normal (Korn and Graubard, Survey Methodology 24, 1998, who put it into
    Clopper and Pearson's interval). Where all are right, or none, there is no design effect to see: then n is items.

    Args:
        items: which each is a turn of.
    """
    n, share = len(correct), float(np.mean(correct))
    normal = float(stats.norm.ppf((1 + LEVEL) / 2))
    sums, sizes = by_group(np.asarray(correct, dtype=float), varying(items, groups))
    independent = share * (1 - share) / n
    if len(sums) in (1, n) or not independent:
        return wilson(share, len(set(items)), normal)
    error, freedom = standard_error(sums, sizes)
    # A group cannot tell more than its answers would alone.
    effect = max(1.0, (error * stats.t.ppf((1 + LEVEL) / 2, freedom) / normal) ** 2 / independent)
    return wilson(share, n / effect, normal)


def varying(items: Sequence[Hashable], groups: Sequence[Hashable]) -> Sequence[Hashable]:
    """What each answer varies together with: its group, or its item where all are of one group."""
    return groups if len(set(groups)) > 1 else items


def wilson(share: float, n: float, quantile: float) -> Interval:
    """Wilson's score interval of `share` of `n`, which an effective number need not make whole."""
    spread = quantile**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = quantile * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return Interval(float(middle - half) if share > 0 else 0.0, float(middle + half) if share < 1 else 1.0)


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
    published = [ours[item].published for item in items]
    differences = right[1] - right[0]
    of_items, turns = by_group(differences, published)
    discordant = float((of_items**2 / turns).sum() / len(items))
    sums, sizes = by_group(differences, varying(published, [ours[item].group for item in items]))
    only_first, only_second = (int(((right[one] == 1) & (right[1 - one] == 0)).sum()) for one in (0, 1))
    exact, mid = mcnemar(only_first, only_second) if len(sums) == len(items) else flipped(sums, seed)
    return Comparison(
        n=len(items),
        groups=len(sums),
        first=float(right[0].mean()),
        second=float(right[1].mean()),
        difference=float(sums.sum() / sizes.sum()),
        interval=difference_interval(sums, sizes, len(turns), discordant),
        only_first=only_first,
        only_second=only_second,
        p=mid,
        p_exact=exact,
        detectable=detectable(sums, sizes, len(turns), discordant),
    )


def by_group(values: Any, groups: Sequence[Hashable]) -> tuple[Any, Any]:
    """Sum and number of `values` in each group, (G,) float both."""
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    index = np.array([places[group] for group in groups])
    return np.bincount(index, weights=values, minlength=len(places)), np.bincount(index).astype(float)


def standard_error(sums: Any, sizes: Any) -> tuple[float, float]:
    """Of the mean sum(sums) / sum(sizes) over two groups or more that vary as wholes, and its degrees of freedom.

    Bell and McCaffrey's (Survey Methodology 28, 2002), which hold for few groups of unlike sizes too: were the single
    values independent, its square would be unbiased. Groups of one size have a degree of freedom less than there are.
    """
    total = sizes.sum()
    others = 1 - sizes / total
    residuals = sums - sums.sum() / total * sizes
    products = sizes**2 / others
    # Of the residuals over sqrt(others): covariances are -sqrt(products[g] * products[h]) / total, variances sizes.
    squares = (sizes**2).sum() + (products.sum() ** 2 - (products**2).sum()) / total**2
    return float(np.sqrt((residuals**2 / others).sum()) / total), float(total**2 / squares)


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
        signs = np.random.default_rng(seed).integers(0, 2, (SIGNS_DRAWN - 1, len(sums))) * 2 - 1
        found = np.append(np.abs(signs @ sums), abs(sums.sum()))  # what was seen is one of the possible signs
    at_least, more = (found >= abs(sums.sum()) - 1e-9).mean(), (found > abs(sums.sum()) + 1e-9).mean()
    return float(at_least), float((at_least + more) / 2)


def difference_interval(sums: Any, sizes: Any, items: int, discordant: float) -> Interval:
    """Interval of the mean difference.

    Single items: Bonett and Price's (J. Educ. Behav. Stat. 37, 2012), Wald's with one item more that the first alone
    has right and one that the second alone has; so its width is never 0. Groups: Student's, and no narrower either way
    than that of their items.

    Args:
        sums, sizes: of what varies as a whole, (G,).
        items: how many there are.
        discordant: the share of items that one of the two alone has right; of those that were asked in several turns,
            the mean square of how much they differ.
    """
    mean = sums.sum() / sizes.sum()
    middle = mean * items / (items + 2)
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(((items * discordant + 2) / (items + 2) - middle**2) / (items + 2))
    low, high = middle - half, middle + half
    if 1 < len(sums) < sizes.sum():
        error, freedom = standard_error(sums, sizes)
        half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
        low, high = min(low, mean - half), max(high, mean + half)
    return Interval(max(-1.0, float(low)), min(1.0, float(high)))


def detectable(sums: Any, sizes: Any, items: int, discordant: float) -> float:
    """The smallest difference of two runs that McNemar's test calls different with POWER (Connor, Biometrics 43, 1987).

    For groups their effective number takes the items' place, and Student's t the normal's.

    Args:
        sums, sizes, items, discordant: as of `difference_interval`.
    """
    level, power, n = stats.norm.ppf((1 + LEVEL) / 2), stats.norm.ppf(POWER), float(items)
    if 1 < len(sums) < sizes.sum():
        error, freedom = standard_error(sums, sizes)
        level, power = stats.t.ppf([(1 + LEVEL) / 2, POWER], freedom)
        n = min(n, discordant / error**2) if error else n
    # Mid-p of G groups or items is 0.5**G where all differ alike, and no less otherwise.
    if 0.5 ** min(len(sums), n) > 1 - LEVEL or n <= level**2 - power**2:
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
