"""What chaos runs measure: percentiles, moves and returns of traffic, losses, and their tables."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.chaos import measure, report
from benchmarks.chaos.calls import READ_MANY, READ_ONE, WRITE, Call, Change, entity_of, plan
from benchmarks.chaos.measure import Window
from benchmarks.chaos.promises import check
from benchmarks.chaos.scenarios import SCENARIOS
from benchmarks.chaos.settings import PREFERRED, STANDBY, Pace
from benchmarks.results import insert

FAULT = Window(6.0, 14.0)


def read(due: float, region: str = PREFERRED, **more: Any) -> Call:
    return Call(READ_ONE, 0, due, due, due + 0.002, regions=[region], **more)


def write(number: int, ended: float, error: str = "") -> Call:
    return Call(WRITE, number, ended - 0.01, ended - 0.01, ended, error)


@pytest.mark.parametrize(("share", "found"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    share: float, found: int
) -> None:
    """It is one of the values, so a single stall is not averaged away."""
    assert measure.percentile(reversed(range(1, 101)), share) == found
    assert measure.percentile([], share) is None


def test_a_call_is_timed_from_when_it_was_due() -> None:
    """One that had to wait for a thread took as long as its caller waited."""
    assert Call(READ_ONE, 0, due=1.0, began=1.4, ended=1.5).took == pytest.approx(0.5)


def test_a_plan_is_steady_and_numbers_each_kind() -> None:
    """Half of the calls read a batch, a quarter one entity, a quarter write: evenly spread."""
    planned = list(plan(1.0, a_second=80))
    kinds = [call.kind for call in planned]
    assert [kinds.count(kind) for kind in (READ_MANY, READ_ONE, WRITE)] == [40, 20, 20]
    assert [call.due for call in planned] == [tick / 80 for tick in range(80)]
    for kind in (READ_MANY, READ_ONE, WRITE):
        numbers = [call.number for call in planned if call.kind == kind]
        assert numbers == list(range(len(numbers)))


def test_traffic_has_moved_after_the_last_call_that_had_to_do_with_the_region() -> None:
    """Failing over counts, being answered elsewhere does not; a later probe of traffic neither."""
    calls = [read(5.9), read(6.1), read(6.3, STANDBY, failovers=1)]
    calls += [read(6.4 + n / 10, STANDBY) for n in range(75)]
    assert measure.moved_after(calls, PREFERRED, FAULT) == pytest.approx(0.3)
    assert measure.moved_after([*calls, read(12.0)], PREFERRED, FAULT) == pytest.approx(0.3)
    assert measure.moved_after(calls, STANDBY, FAULT) is None


def test_traffic_is_back_when_the_region_answers_most_from_then_on() -> None:
    """A share of the calls on the way, and a relapse, are not yet a return."""
    after = Window(14.0, 18.0)
    calls = [read(14 + n / 10, PREFERRED if n >= 25 or n == 7 else STANDBY) for n in range(40)]
    assert measure.returned_after(calls, PREFERRED, after) == 2.5
    assert measure.returned_after(calls, STANDBY, after) is None


def test_the_first_state_of_a_region_that_is_not_well_is_told_with_its_reason() -> None:
    """What happened before the fault, or to another region, is not it."""
    changes = [
        Change(5.0, PREFERRED, "slow", "before"),
        Change(6.2, STANDBY, "down", "another"),
        Change(6.5, PREFERRED, "down", "RequestTimeout"),
    ]
    found = measure.marked_after(changes, PREFERRED, FAULT)
    assert found == {"after": 0.5, "state": "down", "reason": "RequestTimeout"}


def test_a_value_is_lost_when_an_older_one_is_held_or_none() -> None:
    """Failed writes promise nothing, and a newer value than the acknowledged one is no loss."""
    calls = [write(0, 1.0), write(1, 2.0), write(2, 3.0, "RequestTimeout"), write(4, 4.0)]
    first, second = entity_of("sync", 0), entity_of("sync", 4)
    newest = measure.acknowledged(calls, "sync")
    assert newest == {first: 1, second: 4}
    assert measure.acknowledged(calls, "sync", before=1.5) == {first: 0}
    assert measure.lost(newest, {first: 2, second: 4}) == 0
    assert measure.lost(newest, {first: 0}) == 2
    assert measure.differing([{first: 1, second: 4}, {first: 1}]) == 1


def test_a_timeline_counts_answers_by_region_and_failures() -> None:
    """A failed call is nobody's answer."""
    calls = [read(0.1), read(0.2, STANDBY), read(0.7, error="Throttled")]
    reads = measure.timeline(calls, (PREFERRED, STANDBY), 1.0)["reads"]
    assert reads["regions"] == {PREFERRED: [2.0, 0.0], STANDBY: [2.0, 0.0]}
    assert reads["failed"] == [0.0, 2.0]
    assert reads["p99"] == [pytest.approx(2.0), pytest.approx(2.0)]


def test_the_steps_of_every_scenario_lie_in_its_fault() -> None:
    """Each begins when the healthy time is over and ends when it says."""
    for scenario in SCENARIOS.values():
        steps = list(scenario.steps(Pace()))
        assert steps[0].at == 6.0
        assert steps[-1].at == 14.0
        assert steps == sorted(steps, key=lambda step: step.at)


def line(**more: Any) -> dict[str, Any]:
    """What a run of the blackhole would leave."""
    percentiles = {"p50": 1.5, "p99": 4.0, "p999": 250.0, "max": 251.0}
    kind = {
        "calls": 1_800,
        "errors": {},
        "latency": dict.fromkeys(("before", "during", "after"), percentiles),
        "longest": 0.6,
        "failovers": 2,
        "retries": 0,
        "invented": 0,
        "concerned": True,
        "moved": 0.38,
        "returned": None,
    }
    three = {"before": 1.0, "during": 1.25, "after": None}
    return {
        "scenario": "blackhole",
        "title": "connections go silent",
        "store": "sync",
        "reads": kind,
        "writes": kind,
        "left": None,
        "hedges": {"sent": 20, "of": 1_800},
        "requests_a_call": three,
        "connections": {"before": 16, "during": 20, "after": 18},
        "cpu_us": three,
        "behind": {"before": 0.0, "during": 8.5, "after": None},
        "written": 150,
        "away": 0,
        "lost": 0,
        "differing": 0,
    } | more


def test_what_was_promised_is_held_against_what_was_measured() -> None:
    """Each promise that is broken is told with what was seen."""
    scenario = SCENARIOS["blackhole"]
    assert all(kept for _, kept, _ in check(scenario, line()))
    late = line()["reads"] | {"moved": 1.2, "errors": {"RequestTimeout": 3}, "longest": 1.3}
    late["invented"] = 2
    broken = line(reads=late, hedges={"sent": 150, "of": 1_800}, lost=2)
    assert {(name, seen) for name, kept, seen in check(scenario, broken) if not kept} == {
        ("no failed read", "3 of 1800"),
        ("nothing invented", "2 entities"),
        ("reads moved in 1 s", "1.20 s"),
        ("ended by the deadline", "1.30 s"),
        ("hedges in budget", "150 of 1,800"),
        ("no write lost", "2 of 150"),
    }


def test_every_table_has_a_line_for_each_run_and_its_place_on_the_page() -> None:
    """A return that never came is "not", what was not measured is "-"."""
    found = line()
    found["promises"] = list(check(SCENARIOS["blackhole"], found))
    tables = report.tables([found])
    assert "| connections go silent | sync  | 0 of 1,800 | 1.5 / 4.0 / 250 |" in tables["reads"]
    assert "| 0.38 s |  not |" in tables["writes"]
    assert "1.00 / 1.25 / - |" in tables["costs"]
    assert "|  8.5 |" in tables["losses"].replace("            ", " ")
    page = "".join(f"<!-- {name} -->\n\n<!-- /{name} -->\n" for name in tables)
    assert insert(page, tables).count("| connections go silent") == 4
