"""Intervals and tests against scipy, statsmodels and arithmetic; two runs are compared item by item or not at all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from medbot_exp.errors import ConfigError
from medbot_exp.evaluation import statistics
from medbot_exp.evaluation.statistics import Answered, accuracy_interval, by_group, compare, holm, mcnemar


def answered(correct, groups=None):
    return [
        Answered(f"item-{place:04}", f"item-{place:04}" if groups is None else groups[place], bool(right))
        for place, right in enumerate(correct)
    ]


@pytest.mark.parametrize("right, n", [(0, 10), (3, 10), (10, 10), (276, 500), (1, 1273)])
def test_interval_is_wilsons(right, n):
    correct = [True] * right + [False] * (n - right)
    interval = accuracy_interval(correct, range(n))
    assert (interval.low, interval.high) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)


class TestIntervalOfGroups:
    def test_is_wider_where_items_of_a_group_go_together(self):
        correct = [place // 20 % 2 == 0 for place in range(400)]
        groups = [place // 20 for place in range(400)]
        together, apart = accuracy_interval(correct, groups), accuracy_interval(correct, range(400))
        # Twenty groups, each all right or all wrong: as sure as twenty items.
        assert together.high - together.low > 4 * (apart.high - apart.low)
        assert together.low < 0.3 and together.high > 0.7

    def test_is_at_least_that_of_single_items(self):
        correct, groups = [True, False] * 50, [place // 2 for place in range(100)]  # every group alike: no variance
        together, apart = accuracy_interval(correct, groups), accuracy_interval(correct, range(100))
        assert together.low <= apart.low and together.high >= apart.high

    def test_is_a_number_where_all_is_right(self):
        assert accuracy_interval([True] * 30, [place % 3 for place in range(30)]).high == 1.0


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (0, 1), (5, 5), (10, 21), (3, 0), (40, 22)])
def test_exact_p_is_that_of_statsmodels(only_first, only_second):
    expected = reference_mcnemar([[9, only_first], [only_second, 9]], exact=True).pvalue
    assert mcnemar(only_first, only_second)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "only_first, only_second, expected",
    [
        (0, 0, 1.0),
        (1, 1, 0.75),  # 1 - 2/4 / 2
        (5, 5, 0.876953125),  # 1 - 252/1024 / 2
        (0, 1, 0.5),  # 2 * 1/2 - 1/2
        (3, 0, 0.125),  # 2 * 1/8 - 1/8
        (0, 5, 0.03125),
        (1, 7, 0.0390625),  # 2 * 9/256 - 8/256: the table of 1 and 7 in Fagerland, Lydersen and Laake (2013)
    ],
)
def test_mid_p_is_that_of_the_paper_and_of_all_signs(only_first, only_second, expected):
    exact, mid = mcnemar(only_first, only_second)
    assert mid == pytest.approx(expected)
    signs = np.repeat([-1.0, 1.0], [only_first, only_second])
    assert statistics.flipped(signs, seed=0) == pytest.approx((exact, mid))


def test_groups_of_one_item_are_tested_as_items():
    rng = np.random.default_rng(3)
    first, second = rng.random(300) < 0.5, rng.random(300) < 0.6
    sums = second.astype(float) - first
    exact, mid = statistics.flipped(sums, seed=0)
    expected = mcnemar(int((sums < 0).sum()), int((sums > 0).sum()))
    assert (exact, mid) == pytest.approx(expected, abs=0.02)  # by drawn signs


def test_few_groups_are_tried_with_all_signs():
    # |3 + 1 + 2| = 6 with all signs alike alone, of eight ways to choose them.
    assert statistics.flipped(np.array([3.0, 1.0, 2.0]), seed=0) == pytest.approx((2 / 8, 1 / 8))
    assert statistics.flipped(np.array([0.0, 0.0]), seed=0) == (1.0, 1.0)


class TestCompare:
    rng = np.random.default_rng(7)
    first = rng.random(500) < 0.5
    second = np.where(rng.random(500) < 0.25, ~first, first)

    def test_tells_the_difference_whatever_the_order(self):
        ours, theirs = answered(self.first), answered(self.second)[::-1]
        found = compare(ours, theirs)
        assert found.difference == pytest.approx(self.second.mean() - self.first.mean())
        assert (found.first, found.second) == pytest.approx((self.first.mean(), self.second.mean()))
        assert found.only_first == (self.first & ~self.second).sum()
        assert found.only_second == (~self.first & self.second).sum()
        assert (found.n, found.groups) == (500, 500)
        assert compare(ours, theirs) == found

    def test_interval_is_that_of_the_normal_for_many_items(self):
        found = compare(answered(self.first), answered(self.second))
        each = self.second.astype(float) - self.first
        half = 1.96 * each.std() / math.sqrt(500)
        expected = (found.difference - half, found.difference + half)
        assert (found.interval.low, found.interval.high) == pytest.approx(expected, abs=0.005)

    def test_groups_make_it_less_sure(self):
        first = np.repeat([True, False] * 20, 10)
        second = np.repeat([True, False, False, True] * 10, 10)  # whole groups change sides
        groups = np.repeat(range(40), 10).tolist()
        apart, together = (compare(answered(first, of), answered(second, of)) for of in (None, groups))
        assert together.groups == 40 and together.difference == apart.difference == 0
        width = {found: found.interval.high - found.interval.low for found in (apart, together)}
        assert width[together] > 2.5 * width[apart]
        assert together.detectable > 2.5 * apart.detectable

    def test_same_answers_do_not_differ(self):
        found = compare(answered(self.first), answered(self.first))
        assert (found.difference, found.p) == (0, 1)

    @pytest.mark.parametrize("change", ["another", "fewer", "twice"])
    def test_other_items_are_refused(self, change):
        ours = answered(self.first)
        theirs = {
            "another": [replace(ours[0], item="else"), *ours[1:]],
            "fewer": ours[1:],
            "twice": [*ours, ours[0]],
        }[change]
        with pytest.raises(ConfigError, match="must have answered the same items"):
            compare(ours, theirs)


def test_detectable_difference_is_found_as_often_as_it_says():
    rng = np.random.default_rng(11)
    n, discordant = 1273, 0.2
    first = np.zeros(n)
    first[: int(n * discordant / 2)], first[-int(n * discordant / 2) :] = 1, -1
    smallest = statistics.detectable(first, np.ones(n), discordant)
    better, worse = (discordant + smallest) / 2, (discordant - smallest) / 2
    draws = rng.multinomial(n, [better, worse, 1 - discordant], 4000)
    found = np.mean([mcnemar(int(b), int(w))[1] < 0.05 for b, w, _ in draws])
    assert found == pytest.approx(statistics.POWER, abs=0.03)


def test_detectable_difference_exists_where_two_runs_never_differed():
    assert 0 < statistics.detectable(np.zeros(500), np.ones(500), 0.0) < 0.05


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.filterwarnings("error")
def test_four_items_show_no_difference(n):
    assert mcnemar(n, 0)[1] > 0.05
    for discordant in (0.0, 1.0):
        assert statistics.detectable(np.zeros(n), np.ones(n), discordant) == 1.0


@pytest.mark.parametrize("ps", [[0.01, 0.04, 0.03], [0.5], [0.2, 0.2, 0.9, 0.001, 0.02], [1.0, 1.0]])
def test_holm_is_that_of_statsmodels(ps):
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_groups_are_summed_in_the_order_of_their_first_item():
    sums, sizes = by_group(np.array([1.0, 0.0, 1.0, 1.0]), ["b", "a", "b", "c"])
    assert (sums.tolist(), sizes.tolist()) == ([2, 0, 1], [2, 1, 1])


@pytest.mark.parametrize("n", [6, 300])
def test_runs_that_never_differed_may_differ_as_much_as_no_discordant_item_allows(n):
    run = answered([place % 2 for place in range(n)])
    bound = proportion_confint(0, n, method="beta")[1]
    interval = statistics.compare(run, run).interval
    assert (interval.low, interval.high) == pytest.approx((-bound, bound))
