"""The page of a study: whole, by itself, true to the numbers, and robust to what studies hold."""

import math
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from medbot_exp.report.charts import curves, history, upright
from medbot_exp.report.page import page
from medbot_exp.report.study import Space, StudySummary, TrialRow
from medbot_exp.report.svg import Choices, Numbers, apart, clipped, number

VOID = {"meta", "wbr", "br", "link", "input"}
NASTY = "</script><script>alert('&')</script>"


def row(index, *values, state="complete", params=None, **more):
    """A trial as a study would give it."""
    given = {"seconds": 1.0, "reason": None, "retry_of": None, "feasible": True, "directory": None, "intermediate": {}}
    return TrialRow(index, state, params or {}, list(values) or None, **(given | more))


def summary(rows, best=(), spaces=None, directions=("minimize",), importances=None):
    """A study of `rows`; the numbers in `best` are its best."""
    names = ["loss", "speed", "size"][: len(directions)]
    chosen = [trial for trial in rows if trial.number in best]
    return StudySummary("fake", list(directions), names, rows, chosen, spaces or {}, importances)


class Tags(HTMLParser):
    """All tags, attributes and text; fails where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.scripts = [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


LONG = "some.very.long.name." * 6
SPACES = {
    "lr": Space(1e-5, 1e-1, log=True),
    "r": Space(1, 64, whole=True),
    "kind": Space(choices=["a", NASTY, None, True]),
    LONG: Space(0.5, 0.5),
}


def many(count):
    """Trials of every state, some with no number, some without a parameter."""
    rows = []
    for index in range(count):
        params = {
            "lr": 10 ** -(1 + index % 5),
            "kind": SPACES["kind"].choices[index % 4],
            LONG: 0.5,
        }
        params |= {"r": 1 + index % 64} if index % 3 else {}
        value = [2 + math.sin(index), math.inf, 1e7, -math.inf, 5e-324][0 if index % 11 else index // 11 % 5]
        curve = {step: math.nan if index % 5 == 2 and step == 3 else value + 1 / step for step in range(1, 6)}
        state = ["complete", "pruned", "complete", "failed", "running"][index % 5]
        values = [] if state in ("failed", "running") else [value]
        reason = NASTY if state == "failed" else None
        rows.append(row(index, *values, state=state, params=params, intermediate=curve, reason=reason, retry_of=index))
    return rows


STUDIES = {
    "none": summary([]),
    "one": summary(many(1), best=[0], spaces=SPACES),
    "two": summary(many(2), best=[0], spaces=SPACES),
    "forty": summary(many(40), best=[5], spaces=SPACES, importances={"lr": 0.9, "kind": 0.1, "r": 0.0}),
    "hundreds": summary(many(300), best=[5], spaces=SPACES),
    "maximize": summary(many(40), best=[5], spaces=SPACES, directions=["maximize"]),
    "failed": summary([row(index, state="failed", reason=NASTY) for index in range(5)]),
    "infeasible": summary([row(index, 1.0, feasible=False) for index in range(5)]),
    "constant": summary([row(index, 0.0, params={"r": 3}) for index in range(5)], [0], {"r": Space(3, 3, whole=True)}),
    "no number": summary([row(0, math.inf, intermediate={1: math.nan}), row(1, math.nan)], [0]),
    "two objectives": summary(
        [row(index, index, -index, params={"r": index + 1}) for index in range(8)], range(8), SPACES, ["minimize"] * 2
    ),
    "three objectives": summary([row(0, 1.0, 2.0, 3.0)], [0], {}, ["minimize"] * 3),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_page_is_balanced_alone_and_the_same_every_time(study):
    text = page(study, {"wall time": NASTY}, f"python app.py x={NASTY}")
    tags = Tags(text)
    assert "http:" not in text and "https:" not in text and "<script src" not in text and "@import" not in text
    assert sum(tag == "script" for tag, _ in tags.tags) == 1
    assert not any(key.startswith("on") or key == "src" for _, attributes in tags.tags for key in attributes)
    assert NASTY in "".join(tags.text) and "alert('&')</script>" not in text
    assert text == page(study, {"wall time": NASTY}, f"python app.py x={NASTY}")


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_mark_has_a_place_inside_its_drawing(study):
    for drawing in re.findall(r"<svg.*?</svg>", page(study, {}, None), re.S):
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())
        assert "nan" not in drawing.replace("nan)", "").split("aria-label")[0]
        for key, text in re.findall(r' (c?[xy][12]?|width|height)="([^"]*)"', drawing):
            assert -1 <= float(text) <= (height if "y" in key else width) + 1, (key, text)
        for points in re.findall(r' d="M([^"]*)"', drawing):
            for x, y in (point.split() for point in points.split("L")):
                assert -1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1
        assert 'role="img" aria-label="' in drawing


def test_page_tells_states_best_and_command():
    rows = [row(0, 2.5, params={"lr": 1e-4}), row(1, 1.25, params={"lr": 0.5}), row(2, 3.0, state="pruned")]
    study = summary([*rows, row(3, state="failed", reason="no memory")], best=[1], spaces={"lr": Space(1e-5, 1)})
    text = "".join(Tags(page(study, {"wall time": "3 s"}, "python app.py lr=0.5")).text)
    for told in (
        "4: 2 complete, 1 pruned, 1 failed",
        "1.25 (trial 1)",
        "3 s",
        "python app.py lr=0.5",
        "no memory (trial 3)",
    ):
        assert told in text
    assert "No trial is complete" in page(STUDIES["failed"], {}, None)
    assert "No trial has begun" in page(STUDIES["none"], {}, None)
    assert "keeps the constraints" in page(STUDIES["infeasible"], {}, None)


@pytest.mark.parametrize(("complete", "told"), [(1, True), (3, True), (4, False), (0, False)])
def test_importances_that_few_trials_cannot_show_are_told(complete, told):
    rows = [row(index, index, params={"lr": 0.1}) for index in range(complete)]
    spaces = {"lr": Space(1e-5, 1), "r": Space(1, 64, whole=True)}
    text = page(summary([*rows, row(9, 9.0, state="pruned")], spaces=spaces), {}, None)
    assert (f"Shown from 4 complete trials on, of which the study has {complete}." in text) is told


def test_a_trial_that_was_tried_again_says_why_apart_from_those_that_failed_for_good():
    rows = [
        row(0, state="retried", reason="killed by SIGKILL"),
        row(1, state="failed", reason="killed by SIGKILL", retry_of=0),
        row(2, state="retried", reason="its process is gone"),
        row(3, state="running", reason="none yet"),
        row(4, 1.0, retry_of=2),
        row(5, state="failed", reason="no memory"),
        row(6, state="failed", reason="no memory"),
        row(7, state="retried"),
    ]
    listed = re.search(r'<ul class="reasons">(.*?)</ul>', page(summary(rows), {}, None)).group(1)
    assert re.findall(r"<li>(.*?) <span>\((.*?)\)</span></li>", listed) == [
        ("killed by SIGKILL", "trial 1; trial 0, tried again"),
        ("its process is gone", "trial 2, tried again"),
        ("no memory", "trial 5, 6"),
    ]


def test_a_trial_that_was_tried_again_has_a_tick_in_the_history_and_the_legend_tells_it():
    rows = [row(0, state="retried", reason="killed by SIGKILL"), row(1, 1.0, retry_of=0)]
    drawn = history(summary(rows))
    assert re.findall(r'<path class="(lost[^"]*)" data-trial="(\d)"', drawn) == [("lost retried", "0")]
    assert "trial 0, retried: killed by SIGKILL" in drawn
    assert legend(drawn) == {"complete": "complete", "so-far": "best so far", "lost retried": "retried"}
    drawn = history(summary([*rows, row(2, state="failed")]))
    assert legend(drawn)["lost"] == "failed, or no number"


def test_each_kind_of_learning_curve_has_a_colour_of_its_own_and_is_told():
    ended = {"pruned": "pruned", "failed": "failed", "retried": "retried", "running": "running"}
    rows = [row(index, state=state, intermediate={1: 2.0, 2: 1.0}) for index, state in enumerate(ended)]
    rows += [row(4, 1.0, intermediate={1: 2.0, 2: 1.0}), row(5, 1.0, feasible=False, intermediate={1: 2.0, 2: 1.0})]
    drawn = curves(summary(rows))
    told = ended | {"complete": "complete", "infeasible": "infeasible"}
    assert legend(drawn) == {f"line {key}": label for key, label in told.items()}
    style = files("medbot_exp.report").joinpath("page.css").read_text()
    selectors = {part.strip() for head in re.findall(r"([^{}]*)\{", style) for part in head.split(",")}
    # The colour of complete trials is the one that curves and points have where nothing else is said.
    for kind in told.keys() - {"complete"}:
        assert {f".curve.{kind}", f"circle.{kind}", f".key.{kind}"} <= selectors


def legend(drawn):
    """What the legend of a figure says, by the class of the mark."""
    return dict(re.findall(r'<span class="key ([^"]*)">([^<]*)</span>', drawn))


@pytest.mark.parametrize("direction,reached", [("minimize", [3, 3, 2, 2, 1]), ("maximize", [3, 5, 5, 5, 5])])
def test_best_so_far_steps_as_counted_by_hand(direction, reached):
    rows = [row(index, value) for index, value in enumerate([3.0, 5.0, 2.0, 4.0, 1.0])]
    rows.append(row(5, 0.5, state="pruned"))  # does not count
    rows.append(row(6, 9.0, feasible=False))
    drawn = history(summary(rows, directions=[direction]))
    steps = re.search(r'class="so-far" d="M([^"]*)"', drawn).group(1).split("L")
    heights = [float(point.split()[1]) for point in steps]
    axis = upright(summary(rows, directions=[direction]), [3, 5, 2, 4, 1, 0.5, 9.0])
    assert heights[0::2] == pytest.approx([axis.at(value) for value in reached], abs=0.06)


def test_single_far_values_go_to_the_edge_and_the_best_never_does():
    values = [3.0 + index / 50 for index in range(20)]
    study = summary([])
    axis = upright(study, [*values, 1e6])
    assert axis.high < 5 and axis.at(1e6) == axis.end
    assert upright(study, [*values, 1e-6]).low < 1e-6
    assert upright(summary([], directions=["maximize"]), [*values, 1e6]).high > 1e6
    assert upright(study, [3.0, 3.1, 40.0]).high > 40  # too few to tell


def test_table_sorts_by_numbers_and_links_only_inside_the_study():
    rows = [row(0, 1e-5, directory="trial-0000"), row(1, 2.0, directory="/etc"), row(2, 2.0, directory="javascript:x")]
    tags = Tags(page(summary(rows, [0]), {}, None)).tags
    assert [attributes["href"] for tag, attributes in tags if tag == "a"] == ["./trial-0000", "./javascript%3Ax"]
    assert {"1e-05", "2.0"} <= {attributes.get("data-value") for tag, attributes in tags if tag == "td"}


@pytest.mark.parametrize(
    "value,text",
    [
        (0.25, "0.25"),
        (1e-4, "1e-4"),
        (-2.5e-5, "-2.5e-5"),
        (20000, "20000"),
        (3.1416e7, "3.142e7"),
        (0, "0"),
        (3.0, "3"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "axis,labels",
    [
        (Numbers.over([0, 1], 0, 400), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Numbers.over([1e-5, 1e-2], 0, 400), ["1e-5", "1e-4", "0.001", "0.01"]),
        (Numbers.over([1, 3], 0, 400, whole=True), ["1", "2", "3"]),
        (Numbers.over([3, 3], 0, 400, whole=True), ["3"]),
        (Numbers.over([1, 64], 0, 400, log=True), ["1", "3", "10", "30"]),
        (Choices(["a", "null"], 0, 400), ["a", "null"]),
    ],
)
def test_ticks_are_nice(axis, labels):
    assert [label for _, label in axis.ticks(5)] == labels


@pytest.mark.parametrize("low,high", [(5e-324, 1e149), (-1e149, 1e149), (1, 1 + 1e-12), (5e-324, 5e-324), (0, 0)])
def test_extreme_axes_have_few_ticks_in_place(low, high):
    for axis in (Numbers.over([low, high], 0, 400), Numbers.over([low, high], 0, 400).padded()):
        ticks = axis.ticks(5)
        assert len(ticks) <= 12 and all(-1 <= place <= 401 for place, _ in ticks)
        assert all(0 <= axis.at(value) <= 400 for value in (low, high))


def test_labels_that_would_touch_are_left_out():
    kept = apart([(0, "10000000"), (20, "20000000"), (200, "3")])
    assert [label for _, label in kept] == ["10000000", "3"]
    assert clipped("a" * 50 + "z" * 50, 67) == "aaaa…zzzzz" and clipped("short", 67) == "short"


def test_choices_that_begin_alike_stay_apart():
    labels = [label for _, label in Choices(["[q_proj,v_proj]", "[q_proj,k_proj,v_proj,o_proj]"], 0, 160).ticks(5)]
    assert len(set(labels)) == 2
