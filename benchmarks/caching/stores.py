"""Stores over one table of as many entities as wanted, with a cache, a filter, both or neither."""

from __future__ import annotations

from typing import Any, TypeAlias

import boto3

from benchmarks.canned import ROWS, USER
from benchmarks.clients.base import ACCESS_KEY, SECRET_KEY
from benchmarks.clients.ours import store_url
from benchmarks.data import OBSERVED_AT
from chalk_online_store import BloomFilter, LRUCache, Namespace, OnlineStore, OnlineStoreConfig
from chalk_online_store.testing import create_table

TABLE = "features"
FALSE_POSITIVES = 0.01
"""The target of every filter."""

_ROWS_A_WRITE = 1_000

Served: TypeAlias = tuple[LRUCache | None, BloomFilter | None]


def schema(served: Served = (None, None)) -> Namespace:
    """20 features, served in this way."""
    return Namespace("user", int, USER.features, online_store_config=OnlineStoreConfig(*served))


def opened(url: str, served: Namespace) -> OnlineStore:
    """A store of the table, warm: with a filter, where it has one."""
    session = boto3.Session(ACCESS_KEY, SECRET_KEY)
    store = OnlineStore.open(store_url(url, TABLE), [served], session=session, timeout=60)
    store.warm(1)
    return store


def fill(url: str, entities: int, bloom: BloomFilter) -> None:
    """A table of so many entities, numbered from 0, that the filter hears of."""
    create_table(url, TABLE)
    namespace = schema((None, bloom))
    with opened(url, namespace) as store:
        for start in range(0, entities, _ROWS_A_WRITE):
            numbers = range(start, min(start + _ROWS_A_WRITE, entities))
            rows: list[dict[str, Any]] = [ROWS[n % len(ROWS)] | {"id": n} for n in numbers]
            store.write(namespace, rows, observed_at=OBSERVED_AT, ordering="arrival", timeout=60)
