"""The simulation of cache and filter: by hand, by theory, and against the store itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cachetools
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import (
    Feature,
    InvalidValue,
    LRUCache,
    MissingDependency,
    Namespace,
    OnlineStore,
)
from chalk_online_store.planning.caching import (
    CONTENT_FACTOR,
    ENTRY_BYTES,
    ROW_BYTES,
    Cache,
    Filter,
    Item,
    ladder,
    memory_curve,
    simulate,
)
from chalk_online_store.planning.traffic import Workload, read_trace, zipf
from chalk_online_store.tiers.filter.bloom import KeyFilter, hash_keys
from chalk_online_store.tiers.lru import MISS, InFlightRead, ItemCache
from tests.files import Write, check_refused, write_rows

PRESENT = range(6)
"""Of the entities in random traces, those that exist; numbers from 6 on do not."""

ITEM = Item(300, cached_bytes=1000)
SURE = Filter(6, 1e-9)
"""A filter that is never wrong about so few."""


def workload(*reads: int, times: Sequence[float] | None = None, existing: int = 6) -> Workload:
    """Reads of entities, of which those below `existing` exist; a second apart unless timed."""
    entities = np.array(reads, np.int64)
    seconds = np.arange(len(reads), dtype=np.float64) if times is None else np.array(times)
    return Workload(entities, seconds, entities < existing, existing)


traces = st.lists(st.integers(0, 11), min_size=1, max_size=30) | st.lists(
    st.integers(3, 8), min_size=30, max_size=60
)
caches = st.builds(
    Cache,
    max_size=st.integers(1, 8),
    ttl=st.sampled_from([math.inf, 1.0, 5.0, 20.0]),
    store_cache_misses=st.booleans(),
)
filters = st.builds(
    Filter, st.integers(1, 20), st.sampled_from([0.5, 0.1, 0.001]), st.integers(0, 50)
)
groups = st.integers(1, 3)


# --- by hand -------------------------------------------------------------------------------


def test_a_small_trace_with_neither() -> None:
    """Every item asked for is read from the table, and one that is not there costs as well."""
    outcome = simulate(workload(0, 0, 9), Item(5000, groups=2))
    assert (outcome.reads, outcome.items_read, outcome.hits) == (3, 6, 0)
    assert (outcome.rcu, outcome.rcu_without, outcome.saved) == (5, 5, 0)
    assert (outcome.memory, outcome.max_size, outcome.entries) == (0, 0, 0)


def test_a_small_trace_with_a_cache() -> None:
    """A cache of two keeps the two that were read last, and forgets absent ones."""
    # 0 miss, 1 miss, 0 hit, 2 miss (1 goes), 0 hit, 1 miss (2 goes), 9 absent twice, 0 hit.
    outcome = simulate(workload(0, 1, 0, 2, 0, 1, 9, 9, 0), ITEM, Cache(2))
    assert (outcome.hits, outcome.negative_hits, outcome.items_read) == (3, 0, 6)
    assert (outcome.rcu, outcome.rcu_without) == (3, 4.5)
    assert outcome.saved == pytest.approx(1 / 3)
    assert (outcome.max_size, outcome.entries, outcome.cache_bytes) == (2, 2, 2000)


def test_absent_entities_take_a_place_in_the_cache() -> None:
    """With `store_cache_misses` an absence is a hit the next time, and pushes others out."""
    # 0 miss, 9 miss, 9 negative hit, 1 miss (0 goes), 0 miss (9 goes), 9 miss (1 goes).
    outcome = simulate(workload(0, 9, 9, 1, 0, 9), ITEM, Cache(2, store_cache_misses=True))
    assert (outcome.hits, outcome.negative_hits, outcome.items_read) == (1, 1, 5)
    assert outcome.cache_bytes == 2000


def test_a_small_trace_with_a_filter() -> None:
    """A filter spares the reads of absent entities, each of them, and no others."""
    outcome = simulate(workload(0, 9, 9, 0, 8), Item(300, groups=2), bloom=SURE)
    assert (outcome.bloom_skips, outcome.items_read, outcome.false_positives) == (6, 4, 0)
    assert (outcome.rcu, outcome.rcu_without, outcome.hits) == (2, 5, 0)
    assert (outcome.memory, outcome.cache_bytes) == (outcome.filter_bytes, 0)


def test_a_skip_is_not_put_into_the_cache() -> None:
    """What the filter knows to be absent takes no place from what is there."""
    outcome = simulate(workload(0, 9, 0, 9), ITEM, Cache(1, store_cache_misses=True), SURE)
    assert (outcome.hits, outcome.negative_hits, outcome.bloom_skips) == (1, 0, 2)
    assert (outcome.items_read, outcome.rcu) == (1, 0.5)


def test_false_positives_are_read_and_may_be_cached() -> None:
    """A false positive stays one for its entity, and is a negative hit once it is cached."""
    blind = Filter(10_000, 0.999999)
    reads = workload(10_000, 10_000, 10_000, existing=10_000)
    outcome = simulate(reads, ITEM, bloom=blind)
    assert (outcome.false_positives, outcome.items_read, outcome.bloom_skips) == (3, 3, 0)
    outcome = simulate(reads, ITEM, Cache(1, store_cache_misses=True), blind)
    assert (outcome.false_positives, outcome.negative_hits, outcome.items_read) == (1, 2, 1)


def test_an_entry_expires_after_it_was_filled() -> None:
    """A hit does not lengthen a life, and the ttl itself is already too late."""
    times = [0, 9, 10, 19.5, 20]  # Filled at 0 and 10.
    outcome = simulate(workload(0, 0, 0, 0, 0, times=times), ITEM, Cache(9, ttl=10))
    assert (outcome.hits, outcome.items_read) == (2, 3)


def test_an_expired_entry_keeps_its_place() -> None:
    """What has expired is pushed out in its turn, not before."""
    times = [0, 10, 10, 11]  # 0 has expired, is filled again, and stays; 1 is pushed out by 2.
    outcome = simulate(workload(1, 0, 2, 1, times=times), ITEM, Cache(2, ttl=5))
    assert (outcome.hits, outcome.entries) == (0, 2)


def test_the_memory_of_a_cache_is_bounded() -> None:
    """With `max_bytes`, items go by what they take; one that takes more is not kept at all."""
    reads = workload(0, 1, 2, 0, 2)
    outcome = simulate(reads, ITEM, Cache(9, max_bytes=2999))
    assert (outcome.hits, outcome.entries, outcome.cache_bytes) == (1, 2, 2000)
    filled_again = simulate(workload(0, 0, 0, 1, 0, 1), ITEM, Cache(9, max_bytes=2000, ttl=2.5))
    assert (filled_again.hits, filled_again.cache_bytes) == (3, 2000)
    mixed = Cache(9, max_bytes=1000 + ENTRY_BYTES, store_cache_misses=True)
    outcome = simulate(workload(0, 9, 0, 9, 8, 8, 9, 0), ITEM, mixed)
    # 8 pushes 0 out; 8 and 9 stay, until 0 pushes 8 out.
    assert (outcome.hits, outcome.negative_hits, outcome.entries) == (4, 3, 2)
    assert outcome.cache_bytes == 1000 + ENTRY_BYTES
    small = Cache(9, max_bytes=999, store_cache_misses=True)
    outcome = simulate(workload(9, 0, 0, 9), ITEM, small)
    assert (outcome.hits, outcome.negative_hits, outcome.entries) == (1, 1, 1)


def test_an_entity_of_two_groups() -> None:
    """A hit renews each of an entity's items; of an entity pushed out in part, a part hits."""
    # 0 miss, 1 miss, 0 hit twice, 2 miss (1 goes), 0 hit twice, 1 miss (2 goes).
    outcome = simulate(workload(0, 1, 0, 2, 0, 1), replace(ITEM, groups=2), Cache(4))
    assert (outcome.hits, outcome.items_read, outcome.rcu) == (4, 8, 4)
    # 0 miss, 1 miss (one of 0 goes), 0 hit once, 0 hit twice.
    outcome = simulate(workload(0, 1, 0, 0), replace(ITEM, groups=2), Cache(3))
    assert (outcome.hits, outcome.items_read) == (3, 5)


def test_strong_reads_go_past_the_cache() -> None:
    """A consistent read takes twice the units, and asks neither cache nor filter."""
    outcome = simulate(workload(0, 0, 9), replace(ITEM, consistent=True), Cache(9))
    assert (outcome.hits, outcome.rcu, outcome.entries) == (0, 3, 1)


def test_memory_of_an_item_is_estimated_unless_stated() -> None:
    """The estimate grows with the stored bytes; a measured figure replaces it."""
    assert Item(300).memory == ROW_BYTES + CONTENT_FACTOR * 300
    assert Item(300, cached_bytes=7).memory == 7
    assert simulate(workload(0, 1), Item(300), Cache(9)).cache_bytes == 2 * Item(300).memory


def test_the_price_of_a_million_reads() -> None:
    """Dollars follow the units that remain for each read of an entity."""
    outcome = simulate(workload(0, 0, 0, 0), ITEM, Cache(1))
    assert outcome.dollars_per_million(0.125) == pytest.approx(0.5 / 4 * 0.125)


@pytest.mark.parametrize("count", [1, 2])
def test_an_entity_that_comes_into_being(count: int) -> None:
    """From when it is there, an entity counts as another one: no absence is served for it."""
    entities = np.zeros(4, np.int64)
    reads = Workload(entities, np.arange(4.0), np.array([False, False, True, True]), 1)
    cache = Cache(9, store_cache_misses=True)
    outcome = simulate(reads, replace(ITEM, groups=count), cache)
    assert (outcome.hits, outcome.negative_hits) == (2 * count, count)
    assert outcome.entries == 2 * count


# --- against the store, and other models ----------------------------------------------------

USER = Namespace("user", int, [Feature("a", int), Feature("b", int, group="now")])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store that has the present entities."""
    found = f"sqlite:///{tmp_path_factory.mktemp('simulation')}/features.db"
    with OnlineStore.open(found, schema=[USER]) as store:
        store.write(USER, [{"id": number, "a": 1, "b": 2} for number in PRESENT])
    return found


@given(traces, st.integers(1, 8), st.booleans(), st.sampled_from([["a"], ["a", "b"]]))
def test_hits_are_those_of_the_real_store(
    url: str, reads: list[int], max_size: int, misses: bool, names: list[str]
) -> None:
    """On any trace, the store's own report counts as many cache hits as the simulation."""
    config = LRUCache(max_size, store_cache_misses=misses)
    with OnlineStore.open(url, schema=[USER], lru_cache=config) as store:
        hits = sum(store.read(USER, [key], names).report.cache_hits for key in reads)
    cache = Cache(max_size, store_cache_misses=misses)
    assert simulate(workload(*reads), Item(300, len(names)), cache).hits == hits


steps = st.lists(st.tuples(st.integers(2, 9), st.sampled_from([0.0, 0.5, 1, 4])), min_size=20)


@given(steps, caches, groups)
def test_hits_are_those_of_the_real_cache_in_time(
    timed: list[tuple[int, float]], cache: Cache, count: int
) -> None:
    """With a ttl, too: the cache that the store has serves the same items at the same times."""
    times = list(itertools.accumulate(pause for _, pause in timed))
    reads = [key for key, _ in timed]
    ttl = "infinity" if math.isinf(cache.ttl) else cache.ttl
    real = ItemCache(LRUCache(cache.max_size, ttl, cache.store_cache_misses, ttl_jitter=0))
    hits = sum(read_real(real, key, count, now) for key, now in zip(reads, times, strict=True))
    assert simulate(workload(*reads, times=times), Item(300, count), cache).hits == hits


def read_real(cache: ItemCache, entity: int, count: int, now: float) -> int:
    """The hits of one read through the cache, as tiers/cached_reads.py does it."""
    trip = InFlightRead()
    looks = [cache.look([str(entity)], str(group), "shape", now, trip) for group in range(count)]
    row = "row" if entity in PRESENT else None
    cache.land(trip, list(trip.shapes), [row] * len(trip.shapes), now)
    return sum(look.found[0] is not MISS for look in looks)


@given(traces, st.integers(1, 8))
def test_hits_are_those_of_cachetools(reads: list[int], max_size: int) -> None:
    """An LRU cache that others wrote hits and misses alike."""
    model: cachetools.LRUCache[int, bool] = cachetools.LRUCache(max_size)
    hits = 0
    for key in reads:
        hits += key in model
        model[key] = True
    outcome = simulate(workload(*reads), ITEM, Cache(max_size, store_cache_misses=True))
    assert outcome.hits == hits
    assert outcome.entries == len(model)


@given(traces, caches, filters)
def test_one_group_is_replayed_as_several_are(reads: list[int], cache: Cache, one: Filter) -> None:
    """An entity of three groups in a cache three times as large hits three times as often."""
    single = simulate(workload(*reads), ITEM, cache, one)
    triple = replace(cache, max_size=3 * cache.max_size)
    threefold = simulate(workload(*reads), replace(ITEM, groups=3), triple, one)
    for name in ("hits", "negative_hits", "bloom_skips", "items_read", "false_positives", "rcu"):
        assert getattr(threefold, name) == 3 * getattr(single, name)


# --- laws ----------------------------------------------------------------------------------


@given(traces, caches, st.one_of(st.none(), filters), groups)
def test_every_item_is_accounted_for(
    reads: list[int], cache: Cache, bloom: Filter | None, count: int
) -> None:
    """Hits, skips and reads of the table are all there is, and nothing costs more than before."""
    item = replace(ITEM, groups=count)
    outcome = simulate(workload(*reads), item, cache, bloom)
    asked = len(reads) * count
    assert outcome.hits + outcome.bloom_skips + outcome.items_read == asked
    assert 0 <= outcome.negative_hits <= outcome.hits
    assert 0 <= outcome.false_positives <= outcome.items_read
    assert outcome.rcu == outcome.items_read / 2
    assert outcome.rcu_without == asked / 2
    assert outcome.entries <= cache.max_size


@given(traces, caches, st.one_of(st.none(), filters))
def test_a_larger_cache_never_costs_more(
    reads: list[int], cache: Cache, bloom: Filter | None
) -> None:
    """A cache that may have more has all that a smaller one has: fewer units, or as many."""
    curve = memory_curve(
        workload(*reads), ITEM, range(1, 13), cache.ttl, cache.store_cache_misses, bloom
    )
    units = [outcome.rcu for outcome in curve]
    assert units == sorted(units, reverse=True)


@given(traces, st.one_of(st.none(), caches), filters, groups)
def test_a_filter_never_costs_more(
    reads: list[int], cache: Cache | None, bloom: Filter, count: int
) -> None:
    """A filter spares reads, and the places in the cache that absent entities would take."""
    item = replace(ITEM, groups=count)
    without = simulate(workload(*reads), item, cache)
    assert simulate(workload(*reads), item, cache, bloom).rcu <= without.rcu


@given(st.integers(0, 3000), st.integers(1, 500), st.sampled_from([0.2, 0.01, 0.0001]))
def test_a_filter_takes_the_memory_of_the_real_one(entities: int, expected: int, r: float) -> None:
    """A filter that got more entities than expected grows by the same layers as the real one."""
    real = KeyFilter.sized(expected, r)
    real.add(hash_keys([f"n:{number}" for number in range(entities)]))
    # The real one does not count a key that it takes for a known one.
    assert Filter(expected, r).memory(real.count) == real.nbytes


@pytest.mark.parametrize(("expected", "target"), [(20_000, 0.01), (20_000, 0.1), (3_000, 0.05)])
def test_a_filter_is_wrong_as_often_as_the_real_one(expected: int, target: float) -> None:
    """False positives are as frequent as those of a real filter of the same keys."""
    real = KeyFilter.sized(expected, target)
    for start in range(0, 20_000, 100):
        real.add(hash_keys([f"n:{number}" for number in range(start, start + 100)]))
    wrong = real.contains(hash_keys([f"n:{number}" for number in range(20_000, 120_000)])).mean()
    reads = workload(*range(20_000, 120_000), existing=20_000)
    outcome = simulate(reads, ITEM, bloom=Filter(expected, target))
    assert outcome.false_positives / 100_000 == pytest.approx(wrong, rel=0.15)


def test_a_curve_has_a_step_for_each_size() -> None:
    """A curve goes from a thousandth of all items to all, each as if simulated alone."""
    reads = zipf(5000, 2000, 1.0, 0.2)
    item = replace(ITEM, groups=2)
    curve = memory_curve(reads, item, ttl=3.0, store_cache_misses=True, bloom=Filter(2000))
    assert [outcome.max_size for outcome in curve] == [4, 12, 40, 120, 400, 1200, 4000]
    for outcome in curve:
        cache = Cache(outcome.max_size, ttl=3.0, store_cache_misses=True)
        assert outcome == simulate(reads, item, cache, Filter(2000))
    assert ladder(workload(9, existing=0), ITEM) == [1]


# --- workloads -----------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.5])
def test_reads_follow_the_law_of_zipf(exponent: float) -> None:
    """Each rank is read as often as the law says, present and absent entities alike."""
    reads = zipf(400_000, 50, exponent, 0.25, seed=1)
    law = np.arange(1, 51) ** -exponent
    law /= law.sum()
    assert reads.present.mean() == pytest.approx(0.75, abs=0.005)
    for present, first in ((True, 0), (False, 50)):
        drawn = reads.entities[reads.present == present] - first
        counted = np.bincount(drawn, minlength=50)
        expected = law * len(drawn)
        assert len(counted) == 50
        # Chi-squared with 49 degrees of freedom is above 90 once in 3,000 times.
        assert (((counted - expected) ** 2) / expected).sum() < 90


def test_reads_are_drawn_again_by_their_seed() -> None:
    """The same seed gives the same reads, another one others; times follow each other evenly."""
    first, again, other = (zipf(100, 1000, seed=seed, reads_per_second=10) for seed in (3, 3, 4))
    assert (first.entities == again.entities).all()
    assert (first.entities != other.entities).any()
    assert first.times[:3] == pytest.approx([0, 0.1, 0.2])
    assert (first.existing, first.reads) == (1000, 100)
    assert zipf(5, 3, 900.0).entities.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: zipf(0, 1), "reads=0"),
        (lambda: zipf(1, 0), "entities=0"),
        (lambda: zipf(1, 1, -0.1), "exponent=-0.1"),
        (lambda: zipf(1, 1, math.nan), "exponent=nan"),
        (lambda: zipf(1, 1, 1, 1.5), "absent_share=1.5"),
        (lambda: zipf(1, 1, 1, 0, 0), "reads_per_second=0"),
        (lambda: Item(0), "item_bytes=0"),
        (lambda: Item(1, 0), "groups=0"),
        (lambda: Item(1, cached_bytes=0), "cached_bytes=0"),
        (lambda: Cache(0), "max_size=0"),
        (lambda: Cache(1, 0), "max_bytes=0"),
        (lambda: Cache(1, ttl=-1), "ttl=-1"),
        (lambda: Filter(0), "expected_entities=0"),
        (lambda: Filter(1, 1.0), "target_false_positive_rate=1.0"),
        (workload, "at least one read"),
        (lambda: workload(0, times=[1, 2]), "as many"),
        (lambda: workload(-1), "0 or more"),
        (lambda: workload(0, 0, times=[2, 1]), "sort them"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], Any], named: str) -> None:
    """What cannot be simulated is refused by name when it is stated."""
    with pytest.raises(InvalidValue, match=named):
        make()


# --- traces --------------------------------------------------------------------------------

ROWS = [
    {"key": "u1", "timestamp": 1.5, "present": 1},
    {"key": "u2", "timestamp": 3.0, "present": 0},
    {"key": "u1", "timestamp": 2.0, "present": 1},
]
"""The second was logged before the third, and came later."""


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes rows as a trace, in each format."""
    return partial(write_rows, tmp_path / f"trace.{request.param}")


def test_a_trace_is_read(write: Write) -> None:
    """Each format gives the same workload, in the order of its times."""
    read = read_trace(write(ROWS))
    assert read.entities.tolist() == [0, 0, 1]
    assert read.times.tolist() == [1.5, 2.0, 3.0]
    assert read.present.tolist() == [True, True, False]
    assert read.existing == 1


def test_reads_of_one_moment_keep_their_order(write: Write) -> None:
    """What has the same time is replayed in the order of the file."""
    read = read_trace(write([{"key": n, "timestamp": float(n < 50)} for n in range(100)]))
    assert read.entities.tolist() == [*range(50, 100), *range(50)]


def test_a_trace_of_keys_alone(write: Write) -> None:
    """Without times reads follow each other evenly, and all entities exist."""
    read = read_trace(write([{"key": 7}, {"key": 8}, {"key": 7}]), reads_per_second=2)
    assert read.entities.tolist() == [0, 1, 0]
    assert read.times.tolist() == [0, 0.5, 1]
    assert read.present.all()
    assert read.existing == 2


def test_times_in_iso_8601(write: Write) -> None:
    """Moments with an offset, and those without, which are UTC; flags as words."""
    moments = ["1970-01-01T01:00:00+01:00", "1970-01-01 00:00:01.5", "1970-01-01T00:00:02Z"]
    flags = ["true", "False", None]
    rows = [
        {"key": "k", "timestamp": moment, "present": flag}
        for moment, flag in zip(moments, flags, strict=True)
    ]
    read = read_trace(write(rows))
    assert read.times.tolist() == [0, 1.5, 2]
    assert read.present.tolist() == [True, False, True]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_moments_of_parquet(unit: str, zone: str | None, tmp_path: Path) -> None:
    """Parquet's own moments are read, of every unit, with a zone or not; so are bytes as keys."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    counts = pa.array([3 * 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit] + (unit == "ns")])
    table = pa.table({"key": [b"k"], "timestamp": counts.cast(pa.timestamp(unit, zone))})
    parquet.write_table(table, tmp_path / "trace.parquet")
    assert read_trace(tmp_path / "trace.parquet").times.tolist() == [3]


@pytest.mark.parametrize(
    ("rows", "place", "column"),
    [
        ([{"key": "k", "present": 1}, {"key": "", "present": 1}], 2, "column key: it is empty"),
        ([{"key": "k", "timestamp": "secret"}], 1, "column timestamp: it is neither"),
        ([{"key": "k", "timestamp": 1.7e12}], 1, "column timestamp: it is not seconds"),
        ([{"key": "k", "timestamp": "nan"}], 1, "column timestamp: it is not seconds"),
        (
            [{"key": "k", "timestamp": 1.0}, {"key": "secret", "timestamp": None}],
            2,
            "column timestamp: it is given for some",
        ),
        ([{"key": "k", "present": "secret"}], 1, "column present: it is not one of"),
    ],
)
def test_a_bad_trace_is_refused(
    write: Write, rows: list[dict[str, Any]], place: int, column: str
) -> None:
    """The message names file, line and column, and what to do; never what stands there."""
    check_refused(read_trace, write(rows), place, column)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"", "must end in .csv, .jsonl"),
        ("t.csv", b"", "no column key"),
        ("t.csv", b"id,timestamp\n1,2\n", "no column key"),
        ("t.csv", b"key\n", "has no reads"),
        ("t.csv", b"key\n\xff\n", "not csv in UTF-8"),
        ("t.jsonl", b"", "has no reads"),
        ("t.json", b'{"key": 1}\n[{"key": 1}]', "line 2: write an object a line"),
        ("t.ndjson", b"{", "line 1: write an object a line"),
        ("t.jsonl", b'{"id": 1}', "line 1, column key: it is empty"),
        ("t.parquet", b"PAR1", "is not Parquet"),
    ],
)
def test_what_is_no_trace_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """A file of another kind, or an empty one, is told from a bad line."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=message):
        read_trace(path)


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet"])
def test_a_trace_that_is_not_there(name: str, tmp_path: Path) -> None:
    """A file that cannot be read is named, whatever its format."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InvalidValue, match=rf"{name} cannot be read: \w+"):
        read_trace(tmp_path / name)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is not installed, the way out is named."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"A trace in Parquet .*\[arrow\]"):
        read_trace(tmp_path / "t.parquet")
