"""CPU of several ways to do things, turn by turn, so that a slow moment is slow for all."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.tips import cpu_of

SECONDS_A_SAMPLE = 0.02

Way = Callable[[], Any]


class Turns(NamedTuple):
    """CPU microseconds of one key, round by round."""

    microseconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.microseconds)

    def times(self, other: Turns) -> float:
        """How many times the CPU of the other that is: the median of the rounds' ratios."""
        pairs = zip(self.microseconds, other.microseconds, strict=True)
        return statistics.median(mine / others for mine, others in pairs)


def take_turns(ways: Mapping[str, tuple[Way, int]], rounds: int, seed: int) -> dict[str, Turns]:
    """Sample every way, which is of so many keys, once a round: in another order in each."""
    rng = random.Random(seed)
    turns = {name: Turns([]) for name in ways}
    times = {name: _calls_a_sample(way) for name, (way, _) in ways.items()}
    for _ in range(rounds):
        for name in rng.sample(list(ways), len(ways)):
            way, keys = ways[name]
            turns[name].microseconds.append(cpu_of(way, times[name]) / keys * 1e6)
    return turns


def _calls_a_sample(way: Way) -> int:
    """Finding out is the warm-up."""
    way()
    return max(1, int(SECONDS_A_SAMPLE / max(cpu_of(way, 3), 1e-7)))
