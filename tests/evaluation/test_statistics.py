"""Intervals and tests against scipy, statsmodels and arithmetic; two runs are compared item by item or not at all."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats
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
    expected = pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)
    interval = accuracy_interval(correct, range(n), range(n))
    assert (interval.low, interval.high) == expected
    assert interval.has(right / n)
    assert accuracy_interval(correct, range(n), ["subject"] * n) == interval  # of one group alone


class TestIntervalOfGroups:
    def test_is_wider_where_items_of_a_group_go_together(self):
        correct = [place // 20 % 2 == 0 for place in range(400)]
        groups = [place // 20 for place in range(400)]
        together = accuracy_interval(correct, range(400), groups)
        apart = accuracy_interval(correct, range(400), range(400))
        # Twenty groups, each all right or all wrong: as sure as twenty items.
        assert together.high - together.low > 4 * (apart.high - apart.low)
        assert together.low < 0.3 and together.high > 0.7

    def test_is_that_of_single_items_where_groups_are_alike(self):
        correct, groups = [True, False] * 50, [place // 2 for place in range(100)]  # no variance between groups
        assert accuracy_interval(correct, range(100), groups) == accuracy_interval(correct, range(100), range(100))

    @pytest.mark.parametrize("right", [True, False])
    def test_is_that_of_the_items_where_all_turns_are_alike(self, right):
        # Ten items in four turns each: Wilson's for 10 of 10 is 0.722 to 1, for 40 of 40 0.912 to 1.
        items = [place // 4 for place in range(40)]
        interval = accuracy_interval([right] * 40, items, items)
        assert (interval.low, interval.high) == pytest.approx((0.7225, 1.0) if right else (0.0, 0.2775), abs=1e-4)
        of_subjects = accuracy_interval([right] * 40, range(40), [place // 20 for place in range(40)])
        assert (of_subjects.low, of_subjects.high) == pytest.approx((0.9124, 1.0) if right else (0.0, 0.0876), abs=1e-4)

    def test_is_that_of_one_item_however_often_it_was_asked(self):
        interval = accuracy_interval([True, True, True, False], ["x"] * 4, ["x"] * 4)
        assert (interval.low, interval.high) == pytest.approx((0.1179, 0.9854), abs=1e-4)  # Wilson's of 3/4 for n = 1

    @pytest.mark.parametrize("groups, least, most", [(1, 0.94, 0.96), (2, 0.95, 1.0), (3, 0.95, 0.99), (6, 0.94, 0.98)])
    def test_holds_the_truth_as_often_as_it_says(self, groups, least, most):
        rng = np.random.default_rng(groups)
        subjects = np.repeat(np.arange(groups), np.arange(1, groups + 1) * 600 // (groups * (groups + 1)) + 10)
        items = range(len(subjects))
        held = [
            accuracy_interval(rng.random(len(subjects)) < 0.6, items, subjects.tolist()).has(0.6) for _ in range(3000)
        ]
        assert least < np.mean(held) < most


@pytest.mark.parametrize("sizes", [[3.0, 3.0], [2.0, 7.0], [40.0, 90.0, 10.0], [5.0] * 8])
def test_standard_error_is_unbiased_for_independent_items(sizes):
    """As in Bell and McCaffrey: the mean of its square, and the degrees of freedom from the variance of that."""
    rng = np.random.default_rng(5)
    sizes = np.array(sizes)
    squares = np.array([statistics.standard_error(rng.normal(0, np.sqrt(sizes)), sizes)[0] ** 2 for _ in range(20_000)])
    assert squares.mean() == pytest.approx(1 / sizes.sum(), rel=0.05)
    freedom = statistics.standard_error(sizes, sizes)[1]
    assert freedom == pytest.approx(2 * squares.mean() ** 2 / squares.var(), rel=0.1)
    assert freedom <= len(sizes) - 1 + 1e-9


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


def test_detectable_difference_of_items_is_found_as_often_as_it_says():
    rng = np.random.default_rng(11)
    n, discordant = 1273, 0.2
    first = np.zeros(n)
    first[: int(n * discordant / 2)], first[-int(n * discordant / 2) :] = 1, -1
    smallest = statistics.detectable(first, np.ones(n), n, discordant)
    better, worse = (discordant + smallest) / 2, (discordant - smallest) / 2
    draws = rng.multinomial(n, [better, worse, 1 - discordant], 4000)
    found = np.mean([mcnemar(int(b), int(w))[1] < 0.05 for b, w, _ in draws])
    assert found == pytest.approx(statistics.POWER, abs=0.03)


def test_detectable_difference_exists_where_two_runs_never_differed():
    assert 0 < statistics.detectable(np.zeros(500), np.ones(500), 500, 0.0) < 0.05


@pytest.mark.parametrize("groups", [5, 6, 9])
def test_detectable_difference_of_groups_is_found_as_often_as_it_says(groups):
    rng = np.random.default_rng(groups)
    sizes, discordant = np.full(groups, 180.0), 0.25
    # Two runs that are equally good, and whose groups vary just as independent items do.
    alike = np.sqrt(180 * discordant) * np.resize([1.0, -1.0], groups)
    alike -= alike.mean()
    alike *= np.sqrt(180 * discordant / alike.var(ddof=1))
    smallest = statistics.detectable(alike, sizes, 180 * groups, discordant)
    found = 0
    for _ in range(2000):
        differ = rng.binomial(180, discordant, groups)
        second = rng.binomial(differ, (1 + smallest / discordant) / 2)
        found += statistics.flipped(2.0 * second - differ, seed=0)[1] <= 0.05
    assert found / 2000 == pytest.approx(statistics.POWER, abs=0.05)


@pytest.mark.filterwarnings("error")
def test_four_groups_show_no_difference():
    for groups in (2, 3, 4):
        all_alike = np.full(groups, 200.0)
        assert statistics.flipped(all_alike, seed=0)[1] > 0.05
        assert statistics.detectable(all_alike, all_alike, 200 * groups, 1.0) == 1.0
    # Five can, but not where two of them have nearly all items: Student's t has one degree of freedom then.
    sums, sizes = np.array([-28.0, -1, 8, 1, -1]), np.array([157.0, 1, 214, 3, 4])
    assert statistics.detectable(sums, sizes, 379, 0.5673) == 1.0


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.filterwarnings("error")
def test_four_items_show_no_difference(n):
    assert mcnemar(n, 0)[1] > 0.05
    for discordant in (0.0, 1.0):
        assert statistics.detectable(np.zeros(n), np.ones(n), n, discordant) == 1.0


@pytest.mark.parametrize("ps", [[0.01, 0.04, 0.03], [0.5], [0.2, 0.2, 0.9, 0.001, 0.02], [1.0, 1.0]])
def test_holm_is_that_of_statsmodels(ps):
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_groups_are_summed_in_the_order_of_their_first_item():
    sums, sizes = by_group(np.array([1.0, 0.0, 1.0, 1.0]), ["b", "a", "b", "c"])
    assert (sums.tolist(), sizes.tolist()) == ([2, 0, 1], [2, 1, 1])


class TestDifferenceInterval:
    @pytest.mark.parametrize(
        "only_first, only_second, n, expected",
        [
            # Middle (b - a) / (n + 2); either way 1.96 times the root of ((a + b + 2) / (n + 2) - middle^2) / (n + 2).
            (0, 0, 6, (-0.3465, 0.3465)),
            (0, 10, 10, (0.5205, 1.0)),  # all differ alike: not without width, and not above 1
            (1, 7, 21, (0.0134, 0.5084)),
        ],
    )
    def test_is_bonett_and_prices_for_items(self, only_first, only_second, n, expected):
        sums = np.repeat([-1.0, 1.0, 0.0], [only_first, only_second, n - only_first - only_second])
        interval = statistics.difference_interval(sums, np.ones(n), n, (only_first + only_second) / n)
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-4)

    def test_is_students_for_groups_of_one_size(self):
        sums = np.array([30.0, -10.0, 50.0, 10.0])
        interval = statistics.difference_interval(sums, np.full(4, 100.0), 400, 0.5)
        expected = stats.ttest_1samp(sums / 100, 0).confidence_interval(0.95)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))

    def test_of_hardly_any_difference_is_bounded_by_items(self):
        groups = [place % 6 for place in range(1089)]
        base, other = [True] * 1089, [True] * 1088 + [False]
        same, nearly = (compare(answered(base, groups), answered(run, groups)).interval for run in (base, other))
        assert (same.low, same.high) == pytest.approx((-0.00254, 0.00254), abs=1e-5)
        assert (nearly.low, nearly.high) == pytest.approx((-0.00403, 0.00219), abs=1e-5)

    @pytest.mark.parametrize("groups, least, most", [(1, 0.94, 0.96), (2, 0.95, 1.0), (3, 0.95, 1.0), (6, 0.94, 0.99)])
    @pytest.mark.parametrize("difference", [0.0, 0.1])
    def test_holds_the_truth_as_often_as_it_says(self, groups, least, most, difference):
        rng = np.random.default_rng(groups)
        subjects = np.repeat(np.arange(groups), np.arange(1, groups + 1) * 600 // (groups * (groups + 1)) + 10)
        n, chances = len(subjects), [(0.3 - difference) / 2, 0.7, (0.3 + difference) / 2]
        held = 0
        for _ in range(2000):
            values = rng.choice([-1.0, 0.0, 1.0], n, p=chances)
            sums, sizes = by_group(values, statistics.varying(range(n), subjects.tolist()))
            held += statistics.difference_interval(sums, sizes, n, np.abs(values).mean()).has(difference)
        assert least < held / 2000 < most


class TestFewGroups:
    rng = np.random.default_rng(2)
    first, second = np.arange(135) < 48, rng.random(135) < 0.75

    def test_one_alone_is_compared_by_its_items(self):
        of_subject = compare(*(answered(run, ["anatomy"] * 135) for run in (self.first, self.second)))
        assert of_subject == compare(answered(self.first), answered(self.second))
        assert of_subject.p < 1e-6 and of_subject.groups == 135

    def test_two_have_an_interval_but_cannot_be_told_apart(self):
        found = compare(*(answered(run, [place % 2 for place in range(135)]) for run in (self.first, self.second)))
        apart = compare(answered(self.first), answered(self.second))
        assert found.interval.low <= apart.interval.low and found.interval.high >= apart.interval.high
        assert (found.p, found.detectable) == (0.25, 1.0)

    def test_turns_of_one_subject_are_compared_by_its_items(self):
        turns = [Answered(f"{item}~{turn} {turn}ab", "anatomy", False) for item in range(30) for turn in range(4)]
        better = [replace(each, correct=int(each.published) < 12) for each in turns]
        found = compare(turns, better)
        once = compare(answered([False] * 30), answered([place < 12 for place in range(30)]))
        assert (found.n, found.groups) == (120, 30)
        assert (found.p, found.p_exact) == pytest.approx((once.p, once.p_exact))
        assert found.detectable == pytest.approx(once.detectable, rel=0.1)
        assert found.interval.low == pytest.approx(once.interval.low, abs=0.03)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "items, turns, groups", [(1, 1, 1), (1, 4, 1), (2, 1, 1), (2, 4, 2), (8, 1, 2), (12, 3, 6)]
    )
    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_numbers_are_in_range_and_json(self, items, turns, groups, share):
        names = [(f"{item}~{turn}", item % groups) for item in range(items) for turn in range(turns)]
        first = [Answered(name, group, False) for name, group in names]
        second = [Answered(name, group, place < share * len(names)) for place, (name, group) in enumerate(names)]
        for one, other in ((first, second), (second, first), (first, first)):
            found = compare(one, other)
            json.dumps(asdict(found), allow_nan=False)
            assert -1 <= found.interval.low < found.interval.high <= 1
            assert found.interval.has(found.difference)
            assert 0 < found.p <= found.p_exact <= 1 and 0 < found.detectable <= 1
