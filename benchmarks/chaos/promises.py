"""What a run has to show, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.chaos.scenarios import Scenario
from benchmarks.chaos.settings import TIMEOUT
from chalk_online_store import Hedging

NOISE = 0.1
"""Seconds after its deadline that a call may end, since threads and tasks have to be woken."""

TIMES_SLOWER = 2.5
"""How many times the p99 of reads may grow during a brown-out."""

Promise = tuple[str, bool, str]
"""What was promised, whether it was kept, and what was seen."""


def check(scenario: Scenario, line: Mapping[str, Any]) -> Iterator[Promise]:
    """What one store's run of a scenario had to show; `line` is what was measured."""
    reads, writes = line["reads"], line["writes"]
    if not scenario.reads_may_fail:
        failed = sum(reads["errors"].values())
        yield "no failed read", not failed, f"{failed} of {reads['calls']}"
    yield "nothing invented", not reads["invented"], f"{reads['invented']} entities"
    if scenario.moves is not None:
        moved = reads["moved"]
        kept = moved is not None and moved < scenario.moves
        yield f"reads moved in {scenario.moves:g} s", kept, seconds(moved)
    if scenario.stays:
        left = line["left"]
        yield "traffic stays", left is None, left["reason"] if left else "it did"
    if scenario.name == "brown-out":
        yield _pace(reads["latency"])
    longest = max(reads["longest"], writes["longest"])
    yield "ended by the deadline", longest < TIMEOUT + NOISE, f"{longest:.2f} s"
    yield _budget(line["hedges"])
    yield "no write lost", not line["lost"], f"{line['lost']} of {line['written']}"
    yield "regions agree", not line["differing"], f"{line['differing']} differ"


def _pace(latency: Mapping[str, Mapping[str, float]]) -> Promise:
    times = latency["during"]["p99"] / latency["before"]["p99"]
    return f"p99 at most {TIMES_SLOWER:g} times", times <= TIMES_SLOWER, f"{times:.1f} times"


def _budget(hedges: Mapping[str, int]) -> Promise:
    """A hedge is earned by each request that could be hedged; `burst` are there from the start."""
    hedging = Hedging()
    most = hedging.burst + hedging.budget * hedges["of"]
    return "hedges in budget", hedges["sent"] <= most, f"{hedges['sent']} of {hedges['of']:,}"


def seconds(value: float | None, none: str = "not") -> str:
    """A time for a table."""
    return none if value is None else f"{value:.2f} s"
