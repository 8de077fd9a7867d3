"""What a benchmark's predictions come to: accuracy, how far it can be trusted, and what kept answers from counting."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from statistics import mean

from medbot_exp.evaluation.order import published_id
from medbot_exp.evaluation.paper import Paper
from medbot_exp.evaluation.prediction import Prediction, State
from medbot_exp.evaluation.statistics import accuracy_interval

BINS = 10  # of confidence, for the calibration error


def paper_metrics(
    paper: Paper, predictions: Sequence[Prediction], seconds: float, given_away: Collection[str] = ()
) -> dict[str, float]:
    """`metrics_of` the predictions on `paper`, by the names that a run records them under.

    too_long counts the items that were left out. Where the ids `given_away` are those of items that a training row
    gives away, clean/n and clean/accuracy are of the others.
    """
    found = metrics_of(predictions, seconds) | {"too_long": len(paper.too_long)}
    if given_away:
        clean = [each.correct for each in predictions if published_id(each.id) not in given_away]
        found["clean/n"] = len(clean)
        if clean:
            found["clean/accuracy"] = mean(clean)
    return {f"eval/{paper.metric}/{key}": value for key, value in found.items()}


def metrics_of(predictions: Sequence[Prediction], seconds: float) -> dict[str, float]:
    """The metrics of one benchmark, shares between 0 and 1.

    n, accuracy, accuracy_low and accuracy_high (95%), subjects (how many of them these bounds are over, where these are
    over subjects and not over items), accuracy_best (were all that have no answer right),
    chance, majority (always the most frequent label), unparsed, truncated, unclosed_think (shares without an answer),
    and where options were measured calibration_error, where a model wrote forced, completion_tokens (mean), seconds,
    tokens_per_second; for yes, no and maybe macro_f1; for every tag its own n and accuracy; for items asked in several
    orders items (n counts the answers), all_right and position_spread.
    """
    n = len(predictions)
    right = [prediction.correct for prediction in predictions]
    published = [published_id(prediction.id) for prediction in predictions]
    interval = accuracy_interval(right, published, [prediction.group or prediction.id for prediction in predictions])
    states = Counter(prediction.state for prediction in predictions)
    missing = {state.name: states[state.name] / n for state in (State.unparsed, State.truncated, State.unclosed_think)}
    labels = Counter(prediction.label for prediction in predictions)
    return {
        "n": n,
        "accuracy": mean(right),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "accuracy_best": mean(right) + sum(missing.values()),
        "chance": mean(1 / len(prediction.options) for prediction in predictions),
        "majority": max(labels.values()) / n,
        **missing,
        **(
            likelihood_metrics(predictions)
            if predictions[0].completion is None
            else writing_metrics(predictions, seconds)
        ),
        **({"macro_f1": macro_f1(predictions)} if set(predictions[0].options) == {"yes", "no", "maybe"} else {}),
        **tag_metrics(predictions),
        **order_metrics(predictions),
        **subject_metrics(predictions),
        "seconds": seconds,
    }


def writing_metrics(predictions: Sequence[Prediction], seconds: float) -> dict[str, float]:
    """What replies in writing cost."""
    tokens = [prediction.completion_tokens for prediction in predictions]
    return {
        "forced": mean(prediction.forced for prediction in predictions),
        "completion_tokens": mean(tokens),
        **({"tokens_per_second": sum(tokens) / seconds} if seconds else {}),
    }


def likelihood_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """How far confidence and accuracy lie apart."""
    return {"calibration_error": calibration_error(predictions)}


def calibration_error(predictions: Sequence[Prediction]) -> float:
    """Expected calibration error of `confidence` (Guo et al., ICML 2017, arXiv 1706.04599), in BINS equally wide bins.

    It says how well a model knows what it knows where options are letters or single words. Of several words a longer
    option has less of the likelihood, also where it is the answer, chosen per byte.
    """
    bins = defaultdict(list)
    for prediction in predictions:
        sure = confidence(prediction)
        bins[min(int(sure * BINS), BINS - 1)].append((sure, prediction.correct))
    gaps = (len(bin) * abs(mean(c for c, _ in bin) - mean(right for _, right in bin)) for bin in bins.values())
    return sum(gaps) / len(predictions)


def confidence(prediction: Prediction) -> float:
    """The probability of the answer among the options: its likelihood's share of theirs."""
    assert prediction.log_likelihoods is not None and prediction.answer is not None
    values = prediction.log_likelihoods
    most = max(values.values())
    if most == -math.inf:
        return 1 / len(values)
    return math.exp(values[prediction.answer] - most) / sum(math.exp(value - most) for value in values.values())


def macro_f1(predictions: Sequence[Prediction]) -> float:
    """The mean over labels of F1; a label that is never given nor right counts 0, as in scikit-learn."""
    scores = []
    for label in predictions[0].options:
        hits = sum(each.answer == label == each.label for each in predictions)
        given = sum(each.answer == label for each in predictions)
        there = sum(each.label == label for each in predictions)
        scores.append(2 * hits / (given + there) if given + there else 0.0)
    return mean(scores)


def tag_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """n and accuracy of the items with each tag, and how much harder negated stems are."""
    tagged = defaultdict(list)
    for prediction in predictions:
        for tag in prediction.tags:
            tagged[tag].append(prediction.correct)
    found: dict[str, float] = {}
    for tag, right in sorted(tagged.items()):
        found |= {f"{tag}/n": len(right), f"{tag}/accuracy": mean(right)}
    plain = [prediction.correct for prediction in predictions if "negated" not in prediction.tags]
    if "negated" in tagged and plain:
        found["negated/gap"] = mean(plain) - mean(tagged["negated"])
    return found


def order_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """For items that were asked in several orders: the share right in all, and how much a label's place matters."""
    turns, places = defaultdict(list), defaultdict(list)
    for prediction in predictions:
        published = published_id(prediction.id)
        if published != prediction.id:
            turns[published].append(prediction.correct)
            places[prediction.label].append(prediction.correct)
    if not turns:
        return {}
    shares = [mean(right) for right in places.values()]
    all_right = mean(all(right) for right in turns.values())
    return {"items": len(turns), "all_right": all_right, "position_spread": max(shares) - min(shares)}


def subject_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """How many subjects the interval of the accuracy is over; nothing where it is over items."""
    subjects = {prediction.group or prediction.id for prediction in predictions}
    items = {published_id(prediction.id) for prediction in predictions}
    alike = len({prediction.correct for prediction in predictions}) == 1  # then they are not seen to vary
    return {"subjects": len(subjects)} if 1 < len(subjects) < len(items) and not alike else {}
