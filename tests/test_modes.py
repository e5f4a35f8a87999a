"""What each capacity mode costs: by hand where that can be, simulated where it lags."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, Vector
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.items import Sample, typical_rows
from chalk_online_store.planning.memory import (
    GIB,
    KEY_OVERHEAD,
    ValkeyCost,
    break_even,
    choose_store,
    in_valkey,
)
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.modes import ModeAdvice, autoscaled, compare
from chalk_online_store.planning.prices import Prices, read_prices
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.testing import Valkey

USER = Namespace("user", int, [Feature("name", str)])
VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.
PRICES = read_prices().of("us-east-1")
assert PRICES.valkey is not None
NODES = PRICES.valkey.nodes
SECONDS = 730 * 3600


def sized(trough: float = 1.0, entities: int = 10_000_000, **settings: Any) -> Sizing:
    part = NamespaceMix("user", entities, query=(Query(2000, 10),), write=(Write(1000),))
    mix = Mix((part,), trough=trough, **settings)
    return size(mix, {"user": Sample(USER, typical_rows(USER, 3))})


def compared(sizing: Sizing, **settings: Any) -> ModeAdvice:
    return compare(sizing, [PRICES] * len(sizing.regions), **settings)


def test_each_mode_is_what_one_reckons() -> None:
    """10,000 RCU and 1,000 WCU around the clock, at 70 % of what is provisioned."""
    (region,) = compared(sized()).regions
    free, fixed, scaled = region.modes
    assert free.reads == pytest.approx(10_000 * SECONDS / 1e6 * 0.125)
    assert free.writes == pytest.approx(1_000 * SECONDS / 1e6 * 0.625)
    assert fixed.reads == pytest.approx(14_286 * 730 * 0.00013)
    assert fixed.writes == pytest.approx(1_429 * 730 * 0.00065)
    assert fixed.utilisation == pytest.approx(0.70, abs=0.001)
    assert scaled.dollars == pytest.approx(fixed.dollars, rel=0.001)  # Nothing to scale.


def test_a_steady_load_is_provisioned() -> None:
    """At 70 % around the clock it costs 41 % of on-demand, and autoscaling saves nothing."""
    advice = compared(sized())
    assert advice.mode == "provisioned"
    assert "41% of on-demand" in advice.reason
    assert any("1 year: saves" in note for note in advice.notes)


def test_a_day_that_varies_is_autoscaled() -> None:
    """Between a tenth and the peak, capacity follows; without a throttle, and above its target."""
    advice = compared(sized(trough=0.1))
    scaled, fixed = (advice.regions[0].of(mode) for mode in ("autoscaled", "provisioned"))
    assert advice.mode == "autoscaled"
    assert scaled.dollars < 0.85 * fixed.dollars
    assert scaled.throttled == 0
    assert fixed.utilisation < scaled.utilisation <= 0.7


def test_what_throttles_is_not_recommended() -> None:
    """From nothing to the peak, autoscaling is too late: cheaper it may be, but it does not do."""
    advice = compared(sized(trough=0.0))
    scaled, fixed = (advice.regions[0].of(mode) for mode in ("autoscaled", "provisioned"))
    assert scaled.dollars < fixed.dollars
    assert scaled.throttled > 0.0001
    assert advice.mode == "provisioned"


def test_what_is_little_used_is_on_demand() -> None:
    """With a target so low that capacity idles, provisioned saves nothing worth its care."""
    advice = compared(sized(trough=0.1), target=30.0)
    assert advice.mode == "on-demand"
    assert "not worth" in advice.reason


def test_autoscaling_follows_within_its_bounds() -> None:
    """From what the trough needs to twice what the peak needs."""
    run = autoscaled(peak=7000, trough=0.1)
    assert run.capacity.min() >= 1000
    assert run.capacity.max() <= 20_000
    assert run.throttled_share == 0


def test_every_region_pays_for_all_writes() -> None:
    """Two regions cost twice the writes; reserved capacity does not cover them."""
    one, two = (compared(sized(regions=names)) for names in (("a",), ("a", "b")))
    assert sum(r.of("on-demand").writes for r in two.regions) == pytest.approx(
        2 * one.regions[0].of("on-demand").writes
    )
    assert two.regions[1].of("on-demand").reads == 0
    assert any("does not cover" in note for note in two.notes)


def test_storage_decides_on_the_table_class() -> None:
    """Much storage for few requests is cheaper in Standard-IA, and is costed so."""
    small, large = sized(), sized(entities=200_000_000_000)
    assert "be dearer" in compared(small).notes[-1]
    assert "be cheaper" in compared(large).notes[-1]
    dear, cheap = (compared(large, infrequent_access=flag).regions[0] for flag in (False, True))
    assert cheap.storage == pytest.approx(dear.storage * 0.10 / 0.25)
    assert compared(small, recovery=False).regions[0].recovery == 0


def test_break_even_is_where_both_cost_the_same() -> None:
    """28.9 % for reads and for writes, at the prices that come along."""
    standard = PRICES.standard
    for hour, million, even in (
        (standard.rcu_hour, standard.million_rru, standard.break_even_reads),
        (standard.wcu_hour, standard.million_wru, standard.break_even_writes),
    ):
        assert hour == pytest.approx(even * 3600 / 1e6 * million)
        assert even == pytest.approx(0.2889, abs=0.0001)


def test_memory_buys_nodes() -> None:
    """Bytes and overhead, growth, what a node keeps for itself, a replica each: by hand."""
    sizing = sized(entities=200_000_000)
    (group,) = sizing.groups
    gib = 200e6 * (group.bytes + KEY_OVERHEAD) / GIB
    found = in_valkey(sizing, [PRICES])
    assert found.gib == pytest.approx(gib)
    usable = found.node.gib * 0.75
    assert found.shards == -(-gib // usable)
    assert found.dollars == pytest.approx(found.shards * 2 * found.node.hour * 730)
    for node in NODES:
        assert found.shards * found.node.hour <= -(-gib // (node.gib * 0.75)) * node.hour


@pytest.mark.parametrize(
    "kinds",
    [
        {"vector": VECTOR[256]},
        {f"{kind.__name__}_{n}": kind for kind in (float, int, str, bool) for n in range(5)},
    ],
    ids=["vector", "mixed"],
)
def test_a_server_takes_as_much_memory_as_is_reckoned(kinds: dict[str, Any]) -> None:
    """What `used_memory` of a real Valkey grows by is within 10 % of bytes and overhead."""
    declared = [Feature(name, kind, max_staleness="30d") for name, kind in kinds.items()]
    user, more = Namespace("user", int, declared), 10_000
    some = typical_rows(user)
    rows = [some[n % len(some)] | {"id": 10_000_000 + n} for n in range(1000 + more)]
    with Valkey() as server, OnlineStore.open(server.url("dev:"), [user]) as store:
        store.write(user, rows[:1000], ordering="arrival")
        before = used_memory(server)
        store.write(user, rows[1000:], ordering="arrival")
        grown = used_memory(server) - before
    sizing = size(Mix((NamespaceMix("user", more),), months=0), {"user": Sample(user, some)})
    assert in_valkey(sizing, [PRICES]).gib * GIB == pytest.approx(grown, rel=0.10)


def used_memory(server: Valkey) -> int:
    found = re.search(rb"used_memory:(\d+)", server.ask("INFO", "memory"))
    assert found
    return int(found[1])


def test_prices_are_a_file_that_can_be_replaced(tmp_path: Path) -> None:
    """With a date; a region without prices, and a file that is wrong, are named."""
    prices = read_prices()
    assert prices.as_of == date(2025, 8, 28)
    assert len(prices.regions) == 36
    with pytest.raises(InvalidValue, match=r"No prices for region 'mars-east-1'.*prices fetch"):
        prices.of("mars-east-1")
    path = tmp_path / "ours.json"
    ours = Prices(date(2026, 1, 1), "our contract", {"eu-north-1": PRICES})
    path.write_bytes(msgspec.json.encode(ours))
    assert read_prices(path) == ours
    path.write_text('{"as_of": "2026-01-01", "source": "x", "regions": {"a": {}}}')
    with pytest.raises(InvalidValue, match=r"ours.json: .*standard.*regions"):
        read_prices(path)


@pytest.mark.parametrize("target", [10.0, 95.0])
def test_a_target_is_what_aws_takes(target: float) -> None:
    """20 to 90 %."""
    with pytest.raises(InvalidValue, match="20 to 90"):
        compared(sized(), target=target)


@pytest.mark.parametrize(
    ("dollars", "name", "why"),
    [
        (1000.0, "Valkey", "cost 50% of DynamoDB"),
        (600.0, "DynamoDB", "cost 83% of it"),
        (250.0, "DynamoDB", "2.0 times as much"),
        (0.0, "DynamoDB", "inf times"),
    ],
)
def test_memory_is_chosen_where_it_is_clearly_cheaper(dollars: float, name: str, why: str) -> None:
    """Less than 70 % of the table's price, for what a lost node loses."""
    valkey = ValkeyCost(10.0, NODES[0], 1, 1, 500.0)
    chosen, reason = choose_store(valkey, dollars)
    assert (chosen, why in reason) == (name, True)


def test_at_the_break_even_both_cost_the_same() -> None:
    """The mix at so many times its load costs on demand what its memory costs."""
    users = {"user": Sample(USER, typical_rows(USER, 3))}

    def at(times: float) -> Sizing:
        query, write = Query(200 * times, 10), Write(100 * times)
        return size(
            Mix((NamespaceMix("user", 10**8, query=(query,), write=(write,)),), trough=0.1), users
        )

    advice = replace(compared(at(1)), mode="on-demand")
    valkey = in_valkey(at(1), [PRICES])
    even = break_even(valkey, advice)
    assert even > 0
    assert in_valkey(at(even), [PRICES]) == valkey
    assert compared(at(even)).dollars("on-demand") == pytest.approx(valkey.dollars)


def test_there_may_be_no_break_even() -> None:
    """Nothing is asked of the table: infinity. Storage alone costs more than memory: 0."""
    (part,) = sized().mix.namespaces
    idle = compared(
        size(
            Mix((msgspec.structs.replace(part, query=(), write=()),)),
            {"user": Sample(USER, typical_rows(USER, 3))},
        )
    )
    valkey = in_valkey(sized(), [PRICES])
    assert break_even(valkey, idle) == math.inf
    assert break_even(replace(valkey, dollars=0.0), compared(sized())) == 0


def test_writes_of_a_global_table_are_autoscaled_in_both_modes() -> None:
    """The provisioned mode costs what its table does: AWS demands autoscaled writes there."""
    one, two = (sized(trough=0.3, regions=names) for names in (("a",), ("a", "b")))
    advice, alone = compared(two), compared(one)
    for region in advice.regions:
        fixed, scaled = region.of("provisioned"), region.of("autoscaled")
        assert fixed.writes == scaled.writes < alone.regions[0].of("provisioned").writes
        assert fixed.write_floor < fixed.write_units
    assert advice.regions[0].of("provisioned").reads == alone.regions[0].of("provisioned").reads


def test_a_global_table_that_would_throttle_is_on_demand() -> None:
    """If autoscaled writes follow the load too late, neither provisioned mode is recommended."""
    advice = compared(sized(trough=0.0, regions=("a", "b")), target=90.0)
    assert max(r.of("provisioned").throttled for r in advice.regions) > 0.0001
    assert (advice.mode, "throttle" in advice.reason) == ("on-demand", True)
