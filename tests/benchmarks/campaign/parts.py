"""The parts of a campaign."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from campaign import kills, outages, tiny
from campaign.contestants import Contestant
from campaign.options import Job, Options


@dataclass(frozen=True)
class Part:
    """A fault.

    Attributes:
        jobs: its cases, for a contestant; the last argument tells how many kills there were so far.
        lanes: how many at a time, where that is not for the user to say.
        bounded: recovery is a matter of seconds, not of how long the fault lasts.
    """

    label: str
    jobs: Callable[[Contestant, Options, Callable[[], int]], Iterator[Job]]
    lanes: int | None = None
    bounded: bool = True


PARTS = {
    "random": Part("random kill -9: controller, trial, both, during recovery", kills.random_kills),
    "points": Part("kill -9 before and after every ask, spawn, report, tell, write, rename, commit", kills.every_point),
    "controllers": Part("two controllers at once, random kill -9", outages.two_controllers),
    "stopped": Part(
        "a trial stopped, declared dead by another host, and woken", outages.stopped, lanes=8, bounded=False
    ),
    "disk": Part("disk full, for all from the start or for one process midway", outages.full_disk),
    "journal": Part("a journal cut at every byte of its last record", outages.torn_journal),
    "lock": Part(f"the storage locked for {outages.LOCK_SECONDS:g} s", outages.held_lock, lanes=4, bounded=False),
    "clock": Part("the clock jumps by an hour, either way", outages.clock_jumps),
    "postgresql": Part("PostgreSQL crashes and comes back", outages.server_crash, lanes=1, bounded=False),
    "tiny": Part("random kill -9 of training, model=tiny", tiny.training, lanes=1, bounded=False),
}
