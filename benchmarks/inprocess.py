"""For benchmarks of a part of the store: contenders in this process, in interleaved rounds."""

from __future__ import annotations

import math
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

SAMPLE_SECONDS = 0.05
"""About how much CPU time one sample takes: enough for many garbage collections."""


@dataclass(frozen=True)
class Call:
    """One kind of call that every contender makes, about so many entities."""

    title: str
    entities: int


class Client(ABC):
    """One way to make calls."""

    name: str
    at_once = 1
    """How many calls it has under way; it can only make a multiple of that."""

    @abstractmethod
    def repeat(self, call: Call, times: int) -> Any:
        """Make a call so many times, and give the last result."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds open."""


class Contender(NamedTuple):
    """One client at one call."""

    call: Call
    client: Client


class Sampled(NamedTuple):
    """CPU microseconds that one client took for one call, round by round."""

    call: str
    client: str
    microseconds: list[float]


def measure(contenders: Sequence[Contender], rounds: int, seed: int) -> list[Sampled]:
    """Sample every contender once a round, in an order that is another one in each."""
    rng = random.Random(seed)
    times = [calls_a_sample(contender) for contender in contenders]
    sampled = [Sampled(call.title, client.name, []) for call, client in contenders]
    for _ in range(rounds):
        for place in rng.sample(range(len(contenders)), len(contenders)):
            sampled[place].microseconds.append(sample(contenders[place], times[place]))
    return sampled


def calls_a_sample(contender: Contender) -> int:
    """How many calls take about `SAMPLE_SECONDS`; finding out is the warm-up."""
    at_once = contender.client.at_once
    sample(contender, at_once)
    return calls_of(sample(contender, at_once), at_once)


def calls_of(cpu_us: float, at_once: int, least: int = 1) -> int:
    """How many calls of so much CPU each make a sample: so many times `at_once`, or more."""
    seconds = cpu_us * at_once / 1e6
    return at_once * max(least, math.ceil(SAMPLE_SECONDS / seconds))


def sample(contender: Contender, times: int) -> float:
    """CPU microseconds a call, all threads of this process included."""
    start = time.process_time_ns()
    contender.client.repeat(contender.call, times)
    return (time.process_time_ns() - start) / 1e3 / times


@contextmanager
def a_core_for_servers() -> Iterator[int | None]:
    """Keep this process off one core, where there are two and the system can do it."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        yield None
        return
    core = max(cores)
    os.sched_setaffinity(0, cores - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, cores)
