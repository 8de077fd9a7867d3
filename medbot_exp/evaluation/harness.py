"""How lm-evaluation-harness 0.4 puts a question; each benchmark has its words, those of the harness's task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medbot_exp.evaluation.item import Item


@dataclass(frozen=True)
class Words:
    """The words of one task of the harness.

    Attributes:
        question: an item's, up to the place of its answer.
        heading: what stands above all of its prompt; None where nothing does.
    """

    question: Callable[[Item], str]
    heading: Callable[[Item], str] | None = None

    def prompt(self, item: Item, worked: Sequence[Item]) -> str:
        """The question of `item` behind `worked` examples with their answers."""
        examples = [f"{self.question(shot)} {shot.label}" for shot in worked]
        heading = "" if self.heading is None else self.heading(item)
        return heading + "\n\n".join([*examples, self.question(item)])
