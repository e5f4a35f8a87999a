"""From a mix to capacity: every line against what one reckons by hand."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.errors import InvalidValue, UnknownFeature
from chalk_online_store.planning.items import Lengths, Sample, typical_rows
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write, read_mix
from chalk_online_store.planning.sizing import Sizing, refused_share, size

USER = Namespace(
    "user",
    int,
    [
        Feature("name", str),
        Feature("blob", bytes),
        Feature("risk", float, group="realtime"),
    ],
)


def rows(blob: int) -> list[dict[str, Any]]:
    return [{"id": key, "name": "n" * 10, "blob": bytes(blob), "risk": 0.5} for key in range(4)]


def sized(blob: int = 100, **settings: Any) -> Sizing:
    mix = {name: settings.pop(name) for name in ("regions", "reads", "months") if name in settings}
    part = NamespaceMix("user", **{"entities": 1_000_000, **settings})
    return size(Mix((part,), **mix), {"user": Sample(USER, rows(blob))})


def test_reads_are_items_times_their_units() -> None:
    """Two groups of 20 entities, one of them of 5,000 bytes, and nothing saved by a cache."""
    found = sized(5000, query=(Query(per_second=100, entities=20),))
    assert found.total("RCU", group="default") == 100 * 20 * 1.0  # 2 blocks of 4 KB, half each.
    assert found.total("RCU", group="realtime") == 100 * 20 * 0.5
    (first, second) = (line for line in found.lines if line.unit == "RCU")
    assert first.arithmetic == "100/s x 20 entities x 1 RCU"
    assert second.arithmetic == "100/s x 20 entities x 0.5 RCU"


def test_a_cache_and_a_filter_save_what_they_say() -> None:
    """Present entities are reckoned apart from absent ones, and a filter keeps most of these."""
    query = Query(
        per_second=1000, entities=10, features=("risk",), hit_rate=0.6, absent=0.2, bloom=0.99
    )
    found = sized(query=(query,))
    present = 1000 * 10 * 0.8 * 0.4 * 0.5
    absent = 1000 * 10 * 0.2 * 0.01 * 0.5
    assert found.total("RCU") == pytest.approx(present + absent)
    assert {line.group for line in found.lines if line.unit == "RCU"} == {"realtime"}


def test_few_entities_are_read_by_query() -> None:
    """Where the library reads all groups of an entity by one Query, that is what is counted."""
    found = sized(query=(Query(per_second=100, entities=2),))
    (line,) = (line for line in found.lines if line.unit == "RCU")
    assert (line.group, line.amount) == ("default, realtime", 100 * 2 * 0.5)
    assert "Query" in line.rule


def test_strong_reads_cost_twice() -> None:
    """And nothing of them is cached."""
    found = sized(query=(Query(per_second=10, features=("name",), consistent=True),))
    assert found.total("RCU") == 10
    with pytest.raises(InvalidValue, match="passes by cache"):
        Query(per_second=1, hit_rate=0.5, consistent=True)


def test_a_write_costs_the_whole_item() -> None:
    """A small feature beside a large one costs what both are; in a group of its own, one unit."""
    found = sized(5000, write=(Write(per_second=7, features=("name",)), Write(per_second=9)))
    assert found.total("WCU", group="default") == 7 * 5 + 9 * 5
    assert found.total("WCU", group="realtime") == 9 * 1


def test_every_region_takes_all_writes() -> None:
    """Reads are shared, writes are not; expiries cost in the other regions."""
    found = sized(
        query=(Query(per_second=100, entities=20, features=("risk",)),),
        write=(Write(per_second=50, features=("risk",)),),
        expiring=8.0,
        regions=("us-east-1", "us-west-2", "eu-west-1"),
        reads={"us-east-1": 0.5, "us-west-2": 0.3, "eu-west-1": 0.2},
    )
    east, west, eu = found.regions
    assert (east.rcu, west.rcu, eu.rcu) == pytest.approx((500, 300, 200))
    assert (east.wcu, west.wcu, eu.wcu) == (50, 58, 58)
    assert (east.rcu_after_loss, west.rcu_after_loss) == pytest.approx((800, 800))


def test_storage_grows_and_carries_its_overhead() -> None:
    """100 bytes an item, 148 with several regions, and compound growth."""
    one, two = (sized(growth=0.1, months=2, regions=names) for names in (("a",), ("a", "b")))
    each = [group.bytes for group in one.groups]
    assert one.gb == pytest.approx((sum(each) + 2 * 100) * 1e6 / 1e9)
    assert two.gb == pytest.approx((sum(each) + 2 * 148) * 1e6 / 1e9)
    assert one.gb_later == pytest.approx(one.gb * 1.21)


def test_features_written_apart_carry_their_own_time() -> None:
    """Two writes of one group make its item larger than one, by the second's own observed-at."""
    together = sized(write=(Write(per_second=1),))
    apart = sized(write=(Write(per_second=1), Write(per_second=1, features=("name",))))
    assert together.groups[0].bytes + 5 < apart.groups[0].bytes < together.groups[0].bytes + 40


def test_what_the_mix_names_has_to_be_there() -> None:
    """A feature that the schema does not have is named."""
    with pytest.raises(UnknownFeature, match="'nope'"):
        sized(query=(Query(per_second=1, features=("nope",)),))


def test_a_mix_is_a_file(tmp_path: Path) -> None:
    """The TOML of the docstring is read, and what is wrong in a file is named with its place."""
    from chalk_online_store.planning import mix as module

    text = textwrap.dedent((module.__doc__ or "").split("Python.")[1].split("All rates")[0])
    path = tmp_path / "mix.toml"
    path.write_text(text)
    mix = read_mix(path)
    assert mix.namespaces[0].query == (Query(per_second=2000, entities=20, hit_rate=0.6),)
    assert mix.mean == 0.7
    path.write_text(text.replace("hit_rate = 0.6", "hit_rate = 6"))
    with pytest.raises(InvalidValue, match=r"mix.toml.*namespace\[0\].query\[0\].hit_rate"):
        read_mix(path)


@pytest.mark.parametrize("length", [16, 500])
def test_made_up_rows_are_as_long_as_is_said(length: int) -> None:
    """A schema alone will do, and lengths can be stated."""
    made = typical_rows(USER, 5, Lengths(text=length))
    assert {len(row["name"]) for row in made} == {length}
    assert sum(Sample(USER, made).sizes()["default"]) > 5 * length


def refused(found: Sizing) -> list[tuple[str, str, float]]:
    return [(x.group, x.arithmetic, x.amount) for x in found.lines if x.what == "write, refused"]


def test_refused_writes_are_a_line_of_their_own() -> None:
    """Late writes cost their refused requests, in the region that writes go to alone."""
    found = sized(
        5000,  # An item of 5 KB and some bytes: 5 WCU.
        write=(Write(per_second=100, features=("name",), late=0.5), Write(per_second=10, late=0.1)),
        regions=("us-east-1", "us-west-2"),
    )
    # At one half, the counter is as often wrong as right. A late whole write is refused always.
    assert refused(found) == [
        ("default", "100/s x 0.5 refused x 5 WCU", 250.0),
        ("default", "10/s x 0.1 refused x 5 WCU", 5.0),
    ]  # The group realtime has one feature: a late write of it is superseded by one request.
    written = 100 * 5 + 10 * (5 + 1)
    assert [region.wcu for region in found.regions] == [written + 255, written]


@pytest.mark.parametrize(
    ("partial", "share"), [(0.0, 0.0), (1.0, 1 / 101), (2.0, 2 / 102), (3.0, 0.0), (100.0, 0.0)]
)
def test_foreseen_refusals_cost_nothing(partial: float, share: float) -> None:
    """Whole writes are refused by own times only while less than 2 % of them find some."""
    writes = (Write(per_second=100), Write(per_second=partial, features=("name",)))
    found = sized(write=writes)
    assert sum(amount for _, _, amount in refused(found)) == pytest.approx(100 * share)


@pytest.mark.parametrize(("late", "share"), [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.1, 0.1011)])
def test_refusals_of_partial_writes_follow_the_rarer_case(late: float, share: float) -> None:
    """The share of refusals is that of a counter's random walk between -2 and 2."""
    # Of weights r^-2 … r^2 with r = 1/9, those above 0 are (r + r^2) / sum = 0.0014 for 0.1.
    assert refused_share(late) == pytest.approx(share, abs=1e-4)


def test_arrival_is_never_refused() -> None:
    """A write in arrival order has no condition."""
    assert refused(sized(write=(Write(per_second=9, ordering="arrival", late=0.5),))) == []
