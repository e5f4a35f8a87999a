"""Client CPU of each call by each client, in interleaved rounds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.client import Client
from benchmarks.data import Call

SAMPLE_SECONDS = 0.05
"""About how much CPU time one sample takes: enough for many garbage collections."""


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
    seconds = sample(contender, at_once) * at_once / 1e6
    return at_once * max(1, math.ceil(SAMPLE_SECONDS / seconds))


def sample(contender: Contender, times: int) -> float:
    """CPU microseconds a call, all threads of this process included."""
    start = time.process_time_ns()
    contender.client.repeat(contender.call, times)
    return (time.process_time_ns() - start) / 1e3 / times
