"""Which region is asked: preference, health, lag, and what an operator has ordered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from chalk_online_store import InvalidValue, RegionState, Routing
from chalk_online_store.effects import Instant
from chalk_online_store.errors import AccessDenied, ConnectionFailed, RequestTimeout, Throttled
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.replication import Lag
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.settings import HedgeBudget

KIND = "Get"
REGIONS = ("east", "west", "north")


def router(*names: str, home: str = "", **routing: Any) -> Router:
    """A router of these regions, the first of which is the home unless stated."""
    names = names or REGIONS
    settings = {"return_after": "10s", "return_over": "10s", **routing}
    return Router(names, home or names[0], Routing(**settings), random.Random(5))


def at(seconds: float) -> Instant:
    """A time."""
    return Instant(seconds, round(seconds * 1e6))


def lose(routed: Router, *names: str, now: float = 0.0) -> None:
    """Have regions fail."""
    for name in names:
        generation = routed.health[name].generation
        for _ in range(3):
            routed.raised(name, generation, KIND, ConnectionFailed("refused"), 1.0, now)


def restore(routed: Router, name: str, begins: float, ends: float) -> None:
    """Have a region answer, every second."""
    now = begins
    while now <= ends:
        routed.answered(name, routed.health[name].generation, KIND, 0.01, now)
        now += 1


def overtake(routed: Router, name: str, now: float) -> None:
    """Have hedges to others win, time and again."""
    for number in range(5):
        generation = routed.health[name].generation
        routed.lost_hedge(name, generation, KIND, 0.02, now + number / 20)


def firsts(routed: Router, now: float, count: int = 400) -> Counter[str]:
    """What is asked first, in many reads."""
    return Counter(routed.to_read(at(now))[0] for _ in range(count))


def test_the_first_region_is_preferred() -> None:
    """While all is well, reads and writes go to the first, and the others wait in order."""
    routed = router()
    assert tuple(routed.to_read(at(0))) == REGIONS
    assert routed.to_write(at(0)) == "east"


@pytest.mark.parametrize(
    ("lost", "order"),
    [
        (["east"], ["west", "north", "east"]),
        (["west"], ["east", "north", "west"]),
        (["east", "west"], ["north", "east", "west"]),
        (["east", "west", "north"], ["east", "west", "north"]),
    ],
)
def test_what_is_down_is_asked_last(lost: Sequence[str], order: list[str]) -> None:
    """No region is given up for good: where all are down each is tried."""
    routed = router()
    lose(routed, *lost)
    assert list(routed.to_read(at(1))) == order
    assert routed.to_write(at(1)) == order[0]


def test_what_is_down_but_answers_probes_is_tried_before_what_does_not() -> None:
    """Of regions that are down, the one that is about to return is the better hope."""
    routed = router()
    lose(routed, *REGIONS)
    restore(routed, "north", 1, 3)
    assert list(routed.to_read(at(3))) == ["north", "east", "west"]


def test_reads_return_gradually_and_writes_at_the_end() -> None:
    """A region that returns gets a growing share of the reads, and no write until it has all."""
    routed = router()
    lose(routed, "east")
    restore(routed, "east", 1, 16)
    since = routed.health["east"].since
    shares = [firsts(routed, since + second)["east"] / 400 for second in (0, 2, 4, 6, 9.9)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.6
    assert routed.to_write(at(since + 9.9)) == "west"
    assert firsts(routed, since + 16) == {"east": 400}
    assert routed.to_write(at(since + 16)) == "east"


def test_writes_do_not_leave_a_region_that_is_slow() -> None:
    """Slowness moves reads alone: writes of one item in two regions could lose one of them."""
    routed = router()
    overtake(routed, "east", 0.5)
    assert routed.health["east"].state is RegionState.SLOW
    assert routed.to_read(at(1))[0] == "west"
    assert routed.to_write(at(1)) == "east"


def test_writes_do_not_come_back_to_a_region_that_became_slow_on_its_return() -> None:
    """They stay where they are until the preferred region is wholly healthy."""
    routed = router()
    lose(routed, "east")
    assert routed.to_write(at(1)) == "west"
    restore(routed, "east", 1, 16)
    overtake(routed, "east", 17.0)
    assert routed.health["east"].state is RegionState.SLOW
    assert routed.to_write(at(18)) == "west"


def test_where_all_are_down_writes_go_to_the_one_that_answers() -> None:
    """They do not wait for its return, which may take minutes; and they stay while it answers."""
    routed = router()
    lose(routed, *REGIONS)
    assert routed.to_write(at(1)) == "east"
    restore(routed, "west", 1, 2)
    assert routed.to_write(at(2)) == "west"
    restore(routed, "east", 3, 4)
    assert routed.to_write(at(4)) == "west"
    lose(routed, "west", now=5)
    assert routed.to_write(at(5)) == "east"


def test_a_write_home_stays_there() -> None:
    """With writes="home" no failure moves writes."""
    routed = router(home="west", writes="home")
    lose(routed, "west")
    assert routed.to_write(at(1)) == "west"


def test_writes_to_any_region_follow_the_reads() -> None:
    """With writes="any-region" and reads="nearest", each process writes to its nearest."""
    routed = router(reads="nearest", writes="any-region")
    for name, took in (("east", 0.1), ("west", 0.01), ("north", 0.05)):
        routed.probed(name, took)
    assert list(routed.to_read(at(1))) == ["west", "north", "east"]
    assert routed.to_write(at(1)) == "west"


def test_a_little_nearer_is_not_enough() -> None:
    """The preference changes only for a region that is clearly nearer: else it would flap."""
    routed = router("east", "west", reads="nearest")
    routed.probed("east", 0.010)
    for took, first in ((0.009, "east"), (0.008, "east"), (0.001, "west")):
        for _ in range(50):
            routed.probed("west", took)
        assert routed.to_read(at(1))[0] == first


def test_local_reads_know_one_region() -> None:
    """With reads="local" no other region is asked, whatever happens."""
    routed = router(reads="local")
    lose(routed, "east")
    assert list(routed.to_read(at(1))) == ["east"]


# --- what is a failure ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [Throttled("slow down"), AccessDenied("no")])
def test_refusals_are_not_failures(error: Any) -> None:
    """A throttle or a refusal, however often, leaves a region healthy."""
    routed = router()
    for _ in range(100):
        routed.raised("east", 0, KIND, error, 1.0, 1.0)
    assert routed.to_read(at(1))[0] == "east"


def test_a_region_that_had_no_time_has_not_failed() -> None:
    """Timeouts of calls that had hardly any time left say nothing of the region."""
    routed = router()
    for _ in range(100):
        routed.raised("east", 0, KIND, RequestTimeout("late"), 0.01, 1.0)
    assert routed.health["east"].well
    for _ in range(3):
        routed.raised("east", 0, KIND, RequestTimeout("late"), 0.25, 1.0)
    assert not routed.health["east"].well


# --- patience ------------------------------------------------------------------------------


def test_time_is_kept_for_the_others() -> None:
    """Each region that is still to be asked has its part of what is left of a call."""
    routed = router()
    assert routed.attempt_timeout("east", KIND, 0.9, others=2) == pytest.approx(0.3)
    assert routed.attempt_timeout("east", KIND, 0.9, others=0) == 0.9
    lose(routed, "north")
    assert routed.attempt_timeout("north", KIND, 0.9, others=0) == pytest.approx(0.45)


def test_patience_is_what_a_region_needs() -> None:
    """Ten times what its requests take at most, but a quarter of a second at least."""
    routed = router()
    for _ in range(100):
        routed.answered("east", 0, KIND, 0.05, 0.0)
        routed.answered("west", 0, KIND, 0.001, 0.0)
    assert routed.attempt_timeout("east", KIND, 60, others=2) == pytest.approx(0.5)
    assert routed.attempt_timeout("west", KIND, 60, others=1) == pytest.approx(0.25)


def test_each_region_has_time_enough_to_answer() -> None:
    """A share of what is left that is shorter than its requests take would help nobody."""
    routed = router()
    for _ in range(100):
        routed.answered("east", 0, KIND, 0.4, 0.0)
    assert routed.attempt_timeout("east", KIND, 0.9, others=2) == pytest.approx(0.6)
    assert routed.attempt_timeout("east", KIND, 0.5, others=2) == 0.5


@pytest.mark.parametrize(("given", "well"), [(0.02, True), (0.04, False)])
def test_a_quick_region_has_failed_sooner(given: float, well: bool) -> None:
    """Three times what its requests take is time enough, be that ever so little."""
    routed = router()
    for _ in range(100):
        routed.answered("east", 0, KIND, 0.01, 0.0)
    for _ in range(3):
        routed.raised("east", 0, KIND, RequestTimeout("late"), given, 1.0)
    assert routed.health["east"].well is well


@pytest.mark.parametrize(("far", "first"), [(0.5, "east"), (0.01, "west")])
def test_a_slow_region_is_left_for_one_that_is_sooner(far: float, first: str) -> None:
    """Where every other one is farther than the slow one is slow, reads stay."""
    routed = router("east", "west")
    overtake(routed, "east", 0.5)
    routed.probed("east", 0.05)
    routed.probed("west", far)
    assert routed.to_read(at(1))[0] == first


# --- hedges --------------------------------------------------------------------------------


def test_no_more_is_hedged_than_the_budget_has() -> None:
    """A burst at once, then the share that requests have earned, of which a burst is kept."""
    budget = HedgeBudget(0.25, 2)
    for earned, hedges in ((0, 2), (3, 0), (1, 1), (1000, 2)):
        for _ in range(earned):
            budget.earn()
        assert [budget.take() for _ in range(3)] == [True] * hedges + [False] * (3 - hedges)


# --- orders --------------------------------------------------------------------------------


def test_a_pinned_region_is_the_only_one() -> None:
    """Also for writes, and also when it is down."""
    routed = router()
    lose(routed, "west")
    routed.order(RegionCommands(1, pinned="west"))
    assert list(routed.to_read(at(1))) == ["west"]
    assert routed.to_write(at(1)) == "west"
    routed.order(RegionCommands(2))
    assert list(routed.to_read(at(1))) == ["east", "north", "west"]


def test_an_evacuated_region_is_not_asked_at_all() -> None:
    """Not even where every other one is down."""
    routed = router()
    routed.order(RegionCommands(1, evacuated=("east",)))
    lose(routed, "west", "north")
    assert set(routed.to_read(at(1))) == {"west", "north"}
    assert routed.to_write(at(1)) == "west"


def test_orders_of_others_may_evacuate_all() -> None:
    """Those of a store with more regions: nothing is read then, and no write raises for that."""
    routed = router()
    routed.order(RegionCommands(1, evacuated=REGIONS))
    assert list(routed.to_read(at(1))) == []
    assert routed.to_write(at(1)) == "east"


def test_a_drained_region_loses_its_traffic_gradually() -> None:
    """Its reads go over `return_over`, its writes at once; and it stays the last resort."""
    routed = router()
    routed.order(RegionCommands(1_000_000, drained=("east",)))
    shares = [firsts(routed, 1 + second)["east"] / 400 for second in (0.5, 3, 6, 11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.8
    assert shares[-1] == 0
    assert routed.to_write(at(2)) == "west"
    lose(routed, "west", "north", now=12)
    assert routed.to_read(at(12))[0] == "east"
    assert routed.to_write(at(12)) == "east"


def test_the_latest_orders_hold() -> None:
    """Orders that arrive late, from a replica that is behind, change nothing."""
    routed = router()
    routed.order(RegionCommands(2, pinned="west"))
    routed.order(RegionCommands(1, pinned="north"))
    assert list(routed.to_read(at(1))) == ["west"]


@pytest.mark.parametrize(
    ("orders", "text"),
    [
        (RegionCommands(pinned="south"), "'south' is no region"),
        (RegionCommands(drained=("south",)), "'south' is no region"),
        (RegionCommands(pinned="west", drained=("west",)), "cannot be pinned and"),
        (RegionCommands(evacuated=REGIONS), "one has to serve"),
    ],
)
def test_orders_that_make_no_sense_are_refused(orders: RegionCommands, text: str) -> None:
    """An operator in a hurry is told what is wrong, before anything is done."""
    with pytest.raises(InvalidValue, match=text):
        orders.check(REGIONS)


# --- probes --------------------------------------------------------------------------------


def test_every_region_is_probed_now_and_then() -> None:
    """About every `probe_every`, each process at times of its own; ill ones every second."""
    routed = router(probe_every="10s")
    lose(routed, "north")
    probes = Counter[str]()
    for tenth in range(6000):
        probes.update(routed.due(tenth / 10))
    assert probes["east"] == pytest.approx(60, rel=0.2)
    assert probes["west"] == pytest.approx(60, rel=0.2)
    assert probes["north"] == pytest.approx(600, rel=0.2)


def test_a_region_that_becomes_unwell_is_probed_at_once() -> None:
    """Whether it is down for all, or only a few requests failed, is seen as soon as possible."""
    routed = router()
    assert set(routed.due(0.0)) == set(REGIONS)
    assert routed.due(0.1) == ()
    lose(routed, "west", now=0.2)
    assert list(routed.due(0.2)) == ["west"]


# --- lag -----------------------------------------------------------------------------------

SECOND = 1_000_000


def test_lag_is_what_a_region_lacks() -> None:
    """The time from the newest heartbeat that has arrived to when it was looked for."""
    lag = Lag()
    assert lag.behind("west", "east") is None
    lag.saw("east", {"east": 9 * SECOND}, 10 * SECOND, {})
    lag.saw("west", {"east": 7 * SECOND}, 10 * SECOND, {"east": 10 * SECOND})
    assert lag.behind("west", "east") == 3.0


def test_a_region_that_is_gone_has_accepted_nothing_since() -> None:
    """How far a replica is behind a lost region does not grow with the time of its loss."""
    lag = Lag()
    lag.saw("east", {"east": 9 * SECOND}, 10 * SECOND, {})
    lag.saw("west", {"east": 7 * SECOND}, 500 * SECOND, {"east": 10 * SECOND})
    assert lag.behind("west", "east") == 3.0


def test_an_outage_that_is_over_is_no_lag() -> None:
    """What was known of a replica while the source was away stays as it was when that is back."""
    routed = router("east", "west")
    restore(routed, "east", 10, 10)
    routed.saw("east", {"east": 10 * SECOND}, at(10))
    lose(routed, "east", now=11)
    routed.saw("west", {"east": 9 * SECOND}, at(100))
    restore(routed, "east", 101, 120)
    assert routed.behind("west") == 1.0


def test_where_nobody_writes_nothing_is_missing() -> None:
    """Heartbeats that ended long ago, all of which have arrived, are no lag."""
    lag = Lag()
    lag.saw("east", {"east": 9 * SECOND}, 500 * SECOND, {})
    lag.saw("west", {"east": 9 * SECOND}, 500 * SECOND, {"east": 500 * SECOND})
    assert lag.behind("west", "east") == 0.0


def behind(routed: Router, seconds: int) -> None:
    """Have the west be so many seconds behind the east, at 100 s."""
    restore(routed, "east", 100, 100)
    routed.saw("east", {"east": 100 * SECOND}, at(100))
    routed.saw("west", {"east": (100 - seconds) * SECOND}, at(100))


@pytest.mark.parametrize(
    ("seconds", "beyond", "order"),
    [
        (5, "avoid", ["west", "east"]),
        (20, "avoid", ["west", "east"]),
        (5, "refuse", ["west", "east"]),
        (20, "refuse", ["east"]),
    ],
)
def test_max_lag_refuses_or_avoids(seconds: int, beyond: Any, order: list[str]) -> None:
    """A replica that is further behind than it may be is refused, or asked where none is well."""
    routed = router("east", "west", max_lag="10s", beyond_max_lag=beyond)
    behind(routed, seconds)
    assert routed.to_read(at(100))[0] == "east"
    lose(routed, "east", now=100)
    assert list(routed.to_read(at(100))) == order


def test_reads_tell_how_far_their_region_is_behind() -> None:
    """Nothing is missing in the region that is written to; of a replica it is told, if known."""
    routed = router("east", "west")
    assert routed.behind("west") is None
    behind(routed, 5)
    assert routed.behind("east") == 0.0
    assert routed.behind("west") == 5.0


def fail_over_and_back(routed: Router) -> None:
    """Have writes go to the west from 100 s on, and back to the east at 200 s."""
    lose(routed, "east", now=100)
    assert routed.to_write(at(150)) == "west"
    restore(routed, "east", 180, 200)
    restore(routed, "west", 199, 199)
    routed.saw("west", {"west": 199 * SECOND}, at(199))
    assert routed.to_write(at(220)) == "east"


def test_a_region_that_is_back_lacks_what_was_written_elsewhere() -> None:
    """Nothing is missing at home only when all that was written in its absence has come."""
    routed = router("east", "west", max_lag="10s")
    fail_over_and_back(routed)
    routed.saw("east", {"east": 220 * SECOND, "west": 150 * SECOND}, at(220))
    assert routed.behind("east") == 49.0  # The west was last reached at 199 s.
    assert routed.to_read(at(220)) == ["west", "east"]
    routed.saw("east", {"east": 230 * SECOND, "west": 230 * SECOND}, at(230))
    assert routed.behind("east") == 0.0
    assert routed.to_read(at(230)) == ["east", "west"]
    restore(routed, "west", 300, 300)
    routed.saw("west", {"west": 300 * SECOND}, at(300))
    routed.saw("east", {"west": 280 * SECOND}, at(300))
    assert routed.behind("east") == 0.0  # Nobody writes in the west any more.


def test_what_was_written_in_the_meantime_counts_until_it_was_left() -> None:
    """The lag is told as long as the heartbeats that arrive are from before that."""
    routed = router("east", "west")
    fail_over_and_back(routed)
    for beat, behind in ((198, 1.0), (219, 0.0)):
        routed.saw("east", {"west": beat * SECOND}, at(219))
        assert routed.behind("east") == behind


def test_the_home_region_counts_wherever_is_written() -> None:
    """What is entered there, in the registry, may be missing as well."""
    routed = router(home="west")
    routed.saw("north", {"east": 99 * SECOND, "west": 90 * SECOND}, at(100))
    assert routed.behind("north") == 10.0


# --- what is set ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"reads": "first"},
        {"writes": "both"},
        {"beyond_max_lag": "ignore"},
        {"probe_every": "0s"},
        {"return_after": "infinity"},
        {"max_lag": "0s"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    """What is no setting is refused where it is written."""
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        Routing(**settings)
