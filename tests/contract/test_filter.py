"""The Bloom filter in front of every engine."""

from __future__ import annotations

import uuid

import pytest

from chalk_online_store import (
    BloomFilter,
    Feature,
    InvalidSchema,
    InvalidValue,
    LRUCache,
    Namespace,
    OnlineStoreConfig,
    Status,
)
from tests.contract.conftest import Open

FILTER = OnlineStoreConfig(bloom_filter=BloomFilter(expected_entities=1000))
FEATURES = (Feature("a", int), Feature("b", int, group="other"))


def filtered(name: str) -> Namespace:
    """A namespace behind a filter."""
    return Namespace(name, int, FEATURES, online_store_config=FILTER)


USER, SHOP = filtered("user"), filtered("shop")
PLAIN = Namespace("user", int, FEATURES)


def test_absent_entities_cost_nothing(open_store: Open) -> None:
    """Entities that nobody wrote are answered as missing without a request."""
    store = open_store([USER, SHOP])
    store.write(USER, [{"id": i, "a": i, "b": i} for i in range(10)])
    reader = open_store([USER, SHOP])
    reader.warm(1)
    rows = reader.read(USER, [*range(5, 15), 12])
    assert rows.column("a") == [5, 6, 7, 8, 9] + [None] * 6
    assert rows.statuses("b") == [Status.HIT] * 5 + [Status.MISSING] * 6
    assert (rows.report.bloom_skips, rows.report.items_read) == (10, 10)
    assert reader.read(USER, [77]).report.requests == 0
    assert reader.read(SHOP, [1]).statuses("a") == [Status.MISSING]


def test_a_filter_of_many_entities_and_several_chunks(open_store: Open) -> None:
    """A bulk load announces all of its entities; who loads the filter later has them all."""
    # A slow engine must not take so long that the reader stops using the filter.
    config = OnlineStoreConfig(bloom_filter=BloomFilter(expected_entities=1000, refresh="10m"))
    user = Namespace("user", int, FEATURES, online_store_config=config)
    store = open_store([user])
    store.write(user, [{"id": i, "a": i, "b": i} for i in range(3000)], ordering="arrival")
    reader = open_store([user])
    reader.warm(1)
    assert reader.read(user, range(3000), ["a"]).column("a") == list(range(3000))
    absent = reader.read(user, range(10_000, 11_000), ["a"])
    assert absent.report.bloom_skips > 950
    bloom = reader.stats().namespaces["user"].bloom
    assert bloom is not None
    assert bloom.trusted
    assert 2900 < bloom.entities <= 3000
    assert bloom.layers == 2  # It was meant for 1,000.
    assert bloom.estimated_false_positive_rate < 0.02
    assert bloom.skips == absent.report.bloom_skips
    assert bloom.empirical_false_positive_rate == pytest.approx(1 - bloom.skips / 1000)


def test_a_build_beside_other_namespaces(open_store: Open) -> None:
    """One Scan builds the filters of several namespaces, and of nothing else in the table."""
    plain = Namespace("shop", int, FEATURES)
    other = Namespace("other", int, FEATURES)
    store = open_store([PLAIN, plain, other])
    for namespace, count in ((PLAIN, 30), (plain, 7), (other, 99)):
        store.write(namespace, [{"id": i, "a": i, "b": i} for i in range(count)])
    reader = open_store([USER, SHOP])
    seen: list[int] = []
    report = reader.build_bloom_filters(
        [USER, SHOP], wait=0, segments=3, progress=lambda items, rcu: seen.append(items)
    )
    assert report.entities == {"user": 30, "shop": 7}
    assert report.items_scanned == seen[-1] >= 2 * 136
    reader.warm(1)
    assert reader.read(USER, [29, 30]).report.bloom_skips == 2
    assert reader.read(SHOP, [6, 7]).report.bloom_skips == 2
    # Writers that do not declare the filter, but start after it was built, keep it.
    late = open_store([PLAIN])
    late.write(PLAIN, [{"id": 500, "a": 1}])
    fresh = open_store([USER])
    fresh.warm(1)
    assert fresh.read(USER, [500, 501], ["a"]).statuses("a") == [Status.HIT, Status.MISSING]


@pytest.mark.parametrize("options", [{"segments": 0}, {"wait": -1}, {"rcu_per_second": 0}])
def test_a_build_that_nobody_can_mean_is_refused(
    open_store: Open, options: dict[str, float]
) -> None:
    """Nonsense is refused before anything is sent, and so is a namespace without a filter."""
    store = open_store([USER])
    with pytest.raises(InvalidValue):
        store.build_bloom_filters([USER], **options)
    with pytest.raises(InvalidSchema, match="declares no Bloom filter"):
        open_store([PLAIN]).build_bloom_filters([PLAIN])


def test_cache_and_filter_together(open_store: Open) -> None:
    """What is cached is not asked of the filter, and what it skips is not cached."""
    store = open_store([USER], lru_cache=LRUCache(100, store_cache_misses=True))
    store.write(USER, [{"id": 1, "a": 1, "b": 1}])
    store.warm(1)
    for _ in range(2):
        rows = store.read(USER, [1, 2], ["a"])
        assert rows.statuses("a") == [Status.HIT, Status.MISSING]
        assert (rows.report.cache_hits, rows.report.bloom_skips) == (1, 1)
    stats = store.stats().namespaces["user"]
    assert stats.cache is not None
    assert (stats.cache.hits, stats.cache.entries) == (2, 2)  # Both groups were written.


def test_what_others_write_is_seen_after_the_refresh(open_store: Open) -> None:
    """A real clock: an entity that another store writes is there after the refresh interval."""
    quick = BloomFilter(1000, refresh="100ms")
    config = OnlineStoreConfig(bloom_filter=quick)
    user = Namespace(f"n{uuid.uuid4().hex[:8]}", int, FEATURES, online_store_config=config)
    writer, reader = open_store([user]), open_store([user])
    writer.write(user, [{"id": 0, "a": 0}])
    reader.warm(1)
    for key in range(1, 20):
        writer.write(user, [{"id": key, "a": key}])
        reader.wait(0.1)
        assert reader.read(user, [key], ["a"]).statuses("a") == [Status.HIT]
