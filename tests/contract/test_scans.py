"""Scans: rows as a read has them, each entity, resumable; counts, conditional deletes, erasure."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import Feature, InvalidValue, LRUCache, Namespace
from tests.contract.conftest import AnyStore, Open
from tests.contract.test_writes import at

ONE = Namespace("scanned", int, [Feature("a", int), Feature("b", str | None)])
TWO = Namespace("parted", tuple[int, str], [Feature("a", int), Feature("b", int, group="other")])
OTHER = Namespace("scan", str, [Feature("a", int)])
KEYS = range(23)


@pytest.fixture(autouse=True)
def _expiretime(request: pytest.FixtureRequest) -> None:
    if "redis_server" in request.node.name:
        command = [request.getfixturevalue("redis_binary"), "--version"]
        said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        found = re.search(r"v=(\d+)", said)
        if found is None or int(found[1]) < 7:
            pytest.skip("Scans need EXPIRETIME, which Redis has since 7.0.")


def fill(store: AnyStore) -> None:
    store.write(ONE, [{"id": key, "a": key, "b": None} for key in KEYS])
    store.write(TWO, [{"id": (key, "x:y"), "a": key, "b": -key} for key in KEYS])
    store.write(OTHER, [{"id": str(key), "a": key} for key in KEYS])


@pytest.mark.parametrize("segments", [1, 3])
def test_a_scan_returns_each_entity_as_a_read_does(open_store: Open, segments: int) -> None:
    """Over pages and segments, a scan has the keys, values and statuses of a read of all keys."""
    store = open_store([ONE, TWO, OTHER])
    fill(store)
    found: dict[Any, Any] = {}
    for rows in store.scan(ONE, segments=segments, page_items=7):
        found |= {row.key: (row["a"], row.status("b").value) for row in rows}
    assert found == {key: (key, "null") for key in KEYS}
    parted: dict[Any, Any] = {}
    for rows in store.scan(TWO, segments=segments, page_items=7):
        parted |= {row.key: (row["a"], row["b"]) for row in rows}
    assert parted == {(key, "x:y"): (key, -key) for key in KEYS}


def test_a_scan_leaves_out_entities_without_the_features(open_store: Open) -> None:
    """Deleted entities, and those without the requested features, have no row; stale ones have."""
    store = open_store([ONE])
    store.write(ONE, [{"id": 1, "a": 1}, {"id": 2, "b": "x"}], observed_at=at(1))
    store.write(ONE, [{"id": 3, "a": 3, "b": "y"}], observed_at=at(1))
    store.delete(ONE, [3], observed_at=at(2))
    rows = [row for page in store.scan(ONE, ["a"], max_staleness={"a": "1s"}) for row in page]
    assert [(row.key, row.status("a").value) for row in rows] == [(1, "stale")]
    assert store.count(ONE).entities == 2


def test_a_scan_continues_from_a_token(open_store: Open) -> None:
    """What a scan has not returned yet is returned by another store's scan with its token."""
    store, later = open_store([ONE]), open_store([ONE])
    store.write(ONE, [{"id": key, "a": key} for key in KEYS])
    scan = store.scan(ONE, segments=2, page_items=5)
    first = {row.key for row in next(iter(scan))}
    rest = {row.key for page in later.scan(ONE, token=scan.token, page_items=5) for row in page}
    assert first
    assert rest != set(KEYS)
    assert first | rest == set(KEYS)
    with pytest.raises(InvalidValue, match="token"):
        later.scan(ONE, token="x")


def test_a_token_belongs_to_its_namespace(open_store: Open) -> None:
    """The token of another namespace's scan is refused before anything is sent."""
    store = open_store([ONE, OTHER])
    fill_one = store.scan(ONE)
    with pytest.raises(InvalidValue, match="another table or namespace"):
        store.scan(OTHER, token=fill_one.token)


def test_a_count_counts_each_entity_once(open_store: Open) -> None:
    """Entities of several groups count once, and deleted ones and other namespaces do not."""
    store = open_store([ONE, TWO, OTHER])
    assert store.count(TWO).entities == 0
    fill(store)
    store.delete(TWO, [(0, "x:y")])
    counted = store.count(TWO, segments=2, rcu_per_second=1_000_000)
    assert counted.entities == len(KEYS) - 1
    assert counted.items_scanned >= 4 * len(KEYS)


def test_delete_where_deletes_only_if_told_to(open_store: Open) -> None:
    """A dry run changes nothing; a real run deletes what the predicate holds for."""
    store = open_store([TWO])
    store.write(TWO, [{"id": (key, ""), "a": key, "b": key} for key in KEYS], observed_at=at(1))
    report = store.delete_where(TWO, lambda row: row["a"] < 5)
    assert report.dry_run
    assert store.count(TWO).entities == len(KEYS)
    store.delete_where(TWO, lambda row: row["a"] < 5, dry_run=False)
    assert store.count(TWO).entities == len(KEYS) - 5
    assert store.read(TWO, [(4, ""), (5, "")], consistent=True).column("a") == [None, 5]


@pytest.mark.parametrize("ahead", [0, 240])
def test_forget_leaves_no_value(open_store: Open, ahead: int) -> None:
    """An entity is erased in groups the schema lacks and with values of a later time, verified."""
    narrow = Namespace("parted", tuple[int, str], [Feature("a", int)])
    older, newer = open_store([narrow], lru_cache=LRUCache(max_size=9)), open_store([TWO])
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    rows = [{"id": (key, "x"), "a": 1, "b": 2} for key in (1, 2)]
    newer.write(TWO, rows, observed_at=moment)
    assert older.get(narrow, (1, "x"))["a"] == 1
    assert older.forget(narrow, (1, "x"), timeout=60).verified
    assert older.get(narrow, (1, "x"))["a"] is None
    newer.write(TWO, [rows[0]], observed_at=at(1))
    found = newer.read(TWO, [(1, "x"), (2, "x")], consistent=True)
    assert (found.column("a"), found.column("b")) == ([None, 1], [None, 2])
