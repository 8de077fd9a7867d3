"""Training rows that give away an item of a benchmark, whose score would then mean nothing.

What others look for, and what is kept of it here:
- GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C): a shared 13-gram of words, unless many documents have it.
  Here an n-gram weighs by how few items have it: boilerplate ("the most likely diagnosis") weighs little or nothing.
- GPT-4 (OpenAI 2023, arXiv:2303.08774, appendix C): a shared run of 50 characters. Here a run of 64 names the kind of
  a leak and is none by itself: of two different items of MedQA, one pair in 80 shares such a run.
- Tülu 3 (Lambert et al. 2024, arXiv:2411.15124, section 3.2): 8-grams that cover half of the question. Here 3-grams:
  a synonym every eighth word leaves no 8-gram whole, but most 3-grams.
- LM-Sys (Yang et al. 2023, arXiv:2311.04850): rephrased items pass every test for equal text. Here, what of the words
  of the two questions is the same, in whatever order and weighted by rarity, finds those that are rephrased lightly.

A long stem is told by itself. A short one ("Drug of choice for absence seizures is:") is told where it is the whole
question, or stands in it, or where the options are the same too.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from medbot_exp.data.example import Example

RUN = 64  # characters
NGRAM = 3  # words
LONG = 20  # words from which a stem is told by itself; the shortest of MedQA's first 300 has 22
# The shares lie between those of light paraphrases and those of different questions (tests/benchmarks/leaks.py), which
# reach 0.53 of the n-grams and likenesses of 0.51 (long) and 0.67 (short) among 950 published rows.
SHARE = 0.55  # of a long stem's n-grams, by weight, that stand in the row
ALIKE_LONG = 0.6  # likeness of two long questions by their words
ALIKE_SHORT = 0.75
ALIKE_WITH_OPTIONS = 0.5  # where the options are the same, the stem need not tell everything
COMMON_NGRAM = 0.02  # what a larger share of the items has is boilerplate and weighs nothing, …
COMMON_WORD = 0.1
FEW = 20  # … but not what fewer items than this have
RARE_WORDS = 3  # so many words that are not common make a short stem that no other question holds by chance
TERSE = 10  # words below which another number makes another question
SHARED_OPTIONS = 5  # options that more items offer (yes, no, maybe) tell none of them

# A word or a number; 125/85, 16,400 and 2–3 are one number each.
TOKEN = re.compile(r"\d+(?:[.,:/\-–]\d+)*|[^\W_]+")
COUNT = re.compile(r"\W*[a-hA-H1-8][.):]\s")  # in front of an option; "1 cm" and "1.5 mg" count nothing
NUMBER = "0"  # what stands for every number: an age or a dose that is changed makes no other question
NEGATIONS = frozenset({"not", "no", "never", "without", "except", "false", "incorrect", "untrue", "least"})
ELSEWHERE = -1  # a word that no item has, or the gap between two texts of a row


class Kind(StrEnum):
    """How a leak was found, the strongest first.

    overlap: a run of 64 characters (a short stem: all of it) is the same, once case, punctuation, spacing and numbers
    are taken out. ngrams: most of the stem's word n-grams, weighted by rarity. fuzzy: most of the words, likewise.
    """

    overlap = "overlap"
    ngrams = "ngrams"
    fuzzy = "fuzzy"


@dataclass(frozen=True)
class Asked:
    """What a training row could give away of an item: its question, or that behind its context as one `stem`."""

    benchmark: str
    id: str
    stem: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leak:
    """A row that gives away an item.

    Attributes:
        row: the row's id.
        item: the item's id within `benchmark`.
        share: how much is the same, 0 to 1, by the measure of `kind`: of the stem's n-grams, or of both texts' words.
    """

    row: str
    benchmark: str
    item: str
    kind: Kind
    share: float


@dataclass(frozen=True)
class Audit:
    """What was looked through and what was found.

    Attributes:
        rows: how many rows were looked through.
        items: how many items of each benchmark they were held against.
        leaks: each pair of row and item at most once; in the order of the rows.
    """

    rows: int
    items: dict[str, int]
    leaks: list[Leak]

    def counts(self) -> dict[str, dict[str, int]]:
        """Pairs of row and item by benchmark and kind; every benchmark and every kind is there."""
        found = Counter((leak.benchmark, leak.kind) for leak in self.leaks)
        return {benchmark: {kind.value: found[benchmark, kind] for kind in Kind} for benchmark in self.items}

    def leaked_items(self) -> dict[str, int]:
        """How many items of each benchmark a row gives away."""
        return {benchmark: len(items) for benchmark, items in self.given_away().items()}

    def given_away(self) -> dict[str, frozenset[str]]:
        """By benchmark, the ids of the items that a row gives away."""
        pairs = {(leak.benchmark, leak.item) for leak in self.leaks}
        return {benchmark: frozenset(item for of, item in pairs if of == benchmark) for benchmark in self.items}

    def about(self, rows: Sequence[Example], benchmarks: Collection[str]) -> "Audit":
        """What of it is about `rows`, which it looked through, and `benchmarks`."""
        ids = {row.id for row in rows}
        found = [leak for leak in self.leaks if leak.row in ids and leak.benchmark in benchmarks]
        return Audit(len(rows), {name: count for name, count in self.items.items() if name in benchmarks}, found)

    def examples(self, limit: int) -> list[Leak]:
        """The `limit` plainest leaks: the strongest kinds first, and of a kind the largest shares."""
        order = list(Kind)
        return sorted(self.leaks, key=lambda leak: (order.index(leak.kind), -leak.share))[:limit]


def audit(rows: Sequence[Example], asked: Sequence[Asked]) -> Audit:
    """The leaks of `rows`, with what they were counted among."""
    items = {(item.benchmark, item.id) for item in asked}  # those with a context are asked about twice
    counted = Counter(benchmark for benchmark, _ in items)
    benchmarks = dict.fromkeys(item.benchmark for item in asked)
    leaks = find_leaks(rows, asked) if rows else []  # the words of many items take seconds
    return Audit(len(rows), {benchmark: counted[benchmark] for benchmark in benchmarks}, leaks)


def find_leaks(rows: Sequence[Example], asked: Sequence[Asked]) -> list[Leak]:
    """Each pair of a row and an item that it gives away, in the order of the rows, with its strongest kind.

    Long stems are sought in a row's question, reasoning, answer and options, short ones in its question alone: a
    reasoning says "axonal transport is …" without having been asked for it.
    """
    search = Search(asked)
    return [leak for row in rows for leak in strongest(search.leaks(row))]


def strongest(leaks: Iterable[Leak]) -> list[Leak]:
    """Of the leaks of one row the strongest of each item, which may have been asked about with and without context."""
    strength = list(Kind).index
    found: dict[tuple[str, str], Leak] = {}
    for leak in leaks:
        item = (leak.benchmark, leak.item)
        if item not in found or strength(leak.kind) < strength(found[item].kind):
            found[item] = leak
    return list(found.values())


def words(text: str) -> list[str]:
    """The words and numbers of `text` without case, accents, punctuation, and the s of a plural."""
    plain = text.replace("^", "")  # mm^3 is mm³
    if not plain.isascii():
        plain = "".join(mark for mark in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(mark))
    return [singular(word) for word in TOKEN.findall(plain.casefold())]


def singular(word: str) -> str:
    """`word` without the s of a plural: seizures and seizure are one, diagnosis and virus stay."""
    return word[:-1] if word[-1] == "s" and len(word) > 3 and word[-2] not in "sui" else word


def unnumbered(word: str) -> str:
    """`word`, or what stands for a number; b12 and t4 are words."""
    return NUMBER if word[0].isdigit() else word


def numbers(text: Iterable[str]) -> list[str]:
    """The numbers among the words, sorted."""
    return sorted(word for word in text if word[0].isdigit())


def ngrams(ids: np.ndarray, vocabulary: int) -> np.ndarray:
    """The distinct runs of NGRAM words in `ids`, each as one integer; none reaches over ELSEWHERE.

    Args:
        ids: (T,) int64, ELSEWHERE or 0 to `vocabulary` - 1.
        vocabulary: its cube must be an int64, so two million words are the most.
    """
    if len(ids) < NGRAM:
        return np.empty(0, np.int64)
    runs = np.lib.stride_tricks.sliding_window_view(ids, NGRAM)
    runs = runs[(runs != ELSEWHERE).all(axis=1)]
    return np.unique(runs @ vocabulary ** np.arange(NGRAM, dtype=np.int64))


def longest_run(stem: np.ndarray, row: np.ndarray, lengths: np.ndarray) -> int:
    """Characters of the longest run of words, a space between each two, that `stem` and `row` have in common.

    Args:
        stem: (S,) ids of words.
        row: (T,) ids of words, or ELSEWHERE.
        lengths: (V,) characters of each word.
    """
    runs = np.zeros(len(row) + 1, np.int64)  # characters of the run that ends before each place, a space behind each
    longest = 0
    for word in stem:
        runs[1:] = np.where(row == word, runs[:-1] + lengths[word] + 1, 0)
        longest = max(longest, int(runs.max()))
    return max(longest - 1, 0)


def stands_in(phrase: str, text: str) -> bool:
    """Whether `phrase` is a run of whole words of `text`; both have one space between words."""
    return bool(phrase) and f" {phrase} " in f" {text} "


def without(options: Iterable[str], text: str) -> str:
    """`text` without the options that are listed behind it and their letters; `text` itself unless all are there."""
    rest = text
    for option in sorted(options, key=len, reverse=True):
        before, found, behind = f" {rest} ".rpartition(f" {option} ")
        if not found:
            return text
        rest = f"{before} {behind}".strip()
    return re.sub(r"(?: [a-e1-5])+$", "", rest) if rest != text else text


def plain_options(options: Sequence[str]) -> frozenset[str]:
    """`options` as single-spaced words, without the letters or numbers that count them: "A. Digoxin", "(b) Heparin"."""
    texts = [words(option) for option in options]
    if all(map(COUNT.match, options)) and all(len(text) > 1 for text in texts):
        texts = [text[1:] for text in texts]
    return frozenset(map(" ".join, texts))


class Vocabulary(dict[str, int]):
    """The id of each word of the items, and ELSEWHERE for every other word, which is added as it is asked for."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        super().__init__()
        known = dict.fromkeys(unnumbered(word) for text in texts for word in text)
        self.known = {word: number for number, word in enumerate(known)}

    def __missing__(self, word: str) -> int:
        number = self[word] = self.known.get(unnumbered(word), ELSEWHERE)
        return number

    def ids(self, text: Sequence[str]) -> np.ndarray:
        """(len(text),) int64."""
        return np.fromiter(map(self.__getitem__, text), np.int64, len(text))


class Index:
    """Which items have a feature (a word, an n-gram), and what each weighs: log(1 + items / items that have it).

    Args:
        features: the distinct features of each item, as integers.
        common: features that more items have weigh nothing.

    Attributes:
        totals: (items,) the weight of an item's features; 1 where they are all common, so that shares of it are 0.
        rare: (items,) how many of them are not common.
    """

    def __init__(self, features: Sequence[np.ndarray], common: float) -> None:
        everything = np.concatenate([np.empty(0, np.int64), *features])
        owners = np.repeat(np.arange(len(features)), [len(own) for own in features])
        names, places, frequency = np.unique(everything, return_inverse=True, return_counts=True)
        kept = (frequency <= common)[places]
        owners, places = owners[kept], places[kept]
        self.count = len(features)
        self.names = names
        self.weights = np.where(frequency <= common, np.log1p(self.count / frequency), 0.0)
        self.rare = np.bincount(owners, minlength=self.count)
        self.totals = np.where(self.rare > 0, np.bincount(owners, self.weights[places], self.count), 1.0)
        # The items that have a feature lie side by side, those of place p from starts[p] to starts[p + 1].
        self.owners = owners[np.argsort(places, kind="stable")]
        self.starts = np.append(0, np.cumsum(np.bincount(places, minlength=len(names))))

    def places(self, features: np.ndarray) -> np.ndarray:
        """Where those of `features` stand in `names` that an item has."""
        if not len(self.names):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self.names, features), len(self.names) - 1)
        return places[self.names[places] == features]

    def shared(self, features: np.ndarray) -> np.ndarray:
        """(items,) the weight of those features of an item that are among `features`, which are distinct."""
        places = self.places(features)
        starts = self.starts[places]
        sizes = self.starts[places + 1] - starts
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        owners = self.owners[np.repeat(starts, sizes) + within]
        return np.bincount(owners, np.repeat(self.weights[places], sizes), self.count)

    def weight(self, features: np.ndarray, others: int) -> float:
        """The weight of `features` and of `others` more, which no item has."""
        return float(self.weights[self.places(features)].sum()) + others * math.log1p(self.count)


class Search:
    """The items, indexed once, that row after row is held against."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.asked = asked
        stems = [words(item.stem) for item in asked]
        self.stems = [" ".join(stem) for stem in stems]
        self.vocabulary = Vocabulary(stems)
        self.lengths = np.array([len(word) for word in self.vocabulary.known], np.int64)
        self.ids = [self.vocabulary.ids(stem) for stem in stems]
        self.long = np.array([len(stem) >= LONG for stem in stems], bool)
        self.words = Index([np.unique(ids) for ids in self.ids], max(FEW, COMMON_WORD * len(asked)))
        told = [ids if long else ids[:0] for ids, long in zip(self.ids, self.long, strict=True)]
        self.ngrams = Index([self.ngrams_of(ids) for ids in told], max(FEW, COMMON_NGRAM * len(asked)))
        self.options = [plain_options(item.options) for item in asked]
        self.offered = Counter(self.options)
        self.with_stem: dict[str, list[int]] = {}
        for number, stem in enumerate(self.stems):
            self.with_stem.setdefault(stem, []).append(number)

    def ngrams_of(self, ids: np.ndarray) -> np.ndarray:
        """The distinct n-grams of `ids`, as integers."""
        return ngrams(ids, len(self.vocabulary.known))

    def leaks(self, row: Example) -> Iterator[Leak]:
        """The items that `row` gives away, those with a long stem first."""
        question = words(row.question)
        shared, alike = self.likeness(question)
        yield from self.long_leaks(row, question, alike)
        # A stem that shares less of its words cannot be as alike as it must be, whatever else the question says.
        least = ALIKE_WITH_OPTIONS / (2 - ALIKE_WITH_OPTIONS)
        yield from self.short_leaks(row, question, np.flatnonzero(~self.long & (shared >= least)), alike)

    def likeness(self, question: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """By weight, (items,) the share of a stem's words that `question` has, and that of both that are the same."""
        ids = self.vocabulary.ids(list({unnumbered(word) for word in question}))
        known = np.sort(ids[ids != ELSEWHERE])
        shared = self.words.shared(known)
        together = self.words.totals + self.words.weight(known, len(ids) - len(known))
        return shared / self.words.totals, 2 * shared / together

    def long_leaks(self, row: Example, question: Sequence[str], alike: np.ndarray) -> Iterator[Leak]:
        """The items with a long stem that `row` gives away; `alike` is (items,), the likeness of their words."""
        texts = (row.question, row.reasoning, row.answer, *row.options)
        ids = np.concatenate([np.append(self.vocabulary.ids(words(text)), ELSEWHERE) for text in texts])
        shares = self.ngrams.shared(self.ngrams_of(ids)) / self.ngrams.totals
        # Were a stem made of boilerplate alone, its n-grams would tell nothing.
        shares[self.with_stem.get(" ".join(question), [])] = 1.0
        for number in np.flatnonzero(self.long & ((shares >= SHARE) | (alike >= ALIKE_LONG))).tolist():
            if shares[number] < SHARE:
                yield self.leak(row, number, Kind.fuzzy, alike[number])
            elif longest_run(self.ids[number], ids, self.lengths) >= RUN:
                yield self.leak(row, number, Kind.overlap, shares[number])
            else:
                yield self.leak(row, number, Kind.ngrams, shares[number])

    def short_leaks(self, row: Example, question: list[str], near: np.ndarray, alike: np.ndarray) -> Iterator[Leak]:
        """The items with a short stem that the words of `question` give away.

        They are sought among those `near` to it, and those that it opens with: all words of a stem may be common.
        """
        options = plain_options(row.options)
        openings = (" ".join(question[:length]) for length in range(1, min(LONG, len(question) + 1)))
        opened = (number for opening in openings for number in self.with_stem.get(opening, ()))
        for number in sorted({*near.tolist(), *opened}):
            offered = self.options[number]
            others = bool(options and offered and not options & offered)
            if others and self.words.rare[number] < RARE_WORDS:
                continue  # "Which of the following is true?", of something else
            asked = without(offered, " ".join(question)).split()
            listed = len(asked) < len(question)
            same_options = self.tell_the_item(offered) and (listed or offered <= options)
            likeness = float(self.likeness(asked)[1][number] if listed else alike[number])
            if self.tells_all(number, " ".join(asked), same_options):
                yield self.leak(row, number, Kind.overlap, 1.0)
            elif not others and likeness >= self.least_likeness(number, asked, same_options):
                yield self.leak(row, number, Kind.fuzzy, likeness)

    def tell_the_item(self, offered: frozenset[str]) -> bool:
        """Whether there are options, and few items have the same."""
        return bool(offered) and self.offered[offered] <= SHARED_OPTIONS

    def tells_all(self, number: int, text: str, same_options: bool) -> bool:
        """Whether `text` is the item's stem, or holds it whole where it is no phrase of many questions."""
        stem = self.stems[number]
        told = same_options or self.words.rare[number] >= RARE_WORDS
        return text == stem or (told and stands_in(stem, text))

    def least_likeness(self, number: int, question: Sequence[str], same_options: bool) -> float:
        """How alike `question` and a short stem must be; more than they can be where they ask something else."""
        stem = self.stems[number].split()
        if NEGATIONS.intersection(question) != NEGATIONS.intersection(stem):
            return math.inf
        if same_options:
            return ALIKE_WITH_OPTIONS
        return math.inf if len(stem) < TERSE and numbers(question) != numbers(stem) else ALIKE_SHORT

    def leak(self, row: Example, number: int, kind: Kind, share: float) -> Leak:
        """The leak of item `number`."""
        return Leak(row.id, self.asked[number].benchmark, self.asked[number].id, kind, float(share))
