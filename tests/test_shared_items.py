"""What a shared cache keeps: what was read of the table, joined with what it has heard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store.backend import GroupKeys
from chalk_online_store.codec.changes import Attributes, Change, Times, features_of, merge
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.raw_items import RawItemShape
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.testing import Valkey
from chalk_online_store.valkey.packing import attributes_of, packed_item, value_of
from chalk_online_store.valkey.sharing import ABSENT, SharedItems
from chalk_online_store.valkey.transport import ValkeyTransport
from chalk_online_store.valkey.urls import ValkeyTarget
from tests.helpers import stress
from tests.test_valkey_merge import KEY, LAYOUT, changes


def wanted(key: ItemKey) -> GroupKeys:
    """One item."""
    return GroupKeys(key.sk, RawItemShape(LAYOUT), [key.pk])


class Cache:
    """One server, asked through the cache's operations."""

    def __init__(self, server: Valkey) -> None:
        assert server.port is not None
        self.items = SharedItems("join:", "test", "", ttl=300, timeout=10.0, clustered=False)
        self.driver = SyncDriver({"": ValkeyTransport(ValkeyTarget((("127.0.0.1", server.port),)))})
        self.client = redis.Redis(port=server.port)
        self.driver.run(self.items.fill([(KEY, ABSENT)], 10.0))
        (self.key,) = self.client.scan_iter("join:*:1:*")

    def hear(self, history: list[Change]) -> None:
        """Tell it of changes, one after the other."""
        for change in history:
            assert self.driver.run(self.items.update([change], 10.0)) == 1

    def fill(self, item: Attributes | None) -> Attributes | None:
        """Fill it with what the table has; what it then answers."""
        packed = ABSENT if item is None else packed_item(LAYOUT, item)
        self.driver.run(self.items.fill([(KEY, packed)], 10.0))
        return self.get()

    def get(self) -> Attributes | None:
        """What it answers."""
        (found,) = self.driver.run(self.items.get([wanted(KEY)], 10.0))
        return None if found is None else attributes_of(found)

    def clear(self) -> None:
        """Forget the item. Its key is not looked for: others have many on the same server."""
        self.client.delete(self.key)


@pytest.fixture(scope="module", params=["valkey", "redis_server"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    found = Cache(request.getfixturevalue(request.param))
    yield found
    found.driver.close()
    found.client.close()


def after(history: list[Change]) -> Attributes | None:
    """The item that changes make of nothing."""
    item: Attributes | None = None
    for change in history:
        item = merge(LAYOUT, item, change)
    return item


def newer(one: Attributes, other: Attributes) -> dict[str, tuple[int, bytes | None]]:
    """When each feature was observed, and as what: the newer of both; of equals the one's."""
    found = {}
    told, read = Times(one), Times(other)
    for name in {*features_of(one, LAYOUT), *features_of(other, LAYOUT)}:
        if told.of(name) >= read.of(name):
            found[name] = told.of(name), one.get(name)
        else:
            found[name] = read.of(name), other.get(name)
    return found


def said(item: Attributes, names: set[str]) -> dict[str, tuple[int, bytes | None]]:
    times = Times(item)
    return {name: (times.of(name), item.get(name)) for name in names}


since_1970 = changes().filter(lambda change: change.observed_at > 0)
histories = st.lists(since_1970, min_size=1, max_size=4)


@pytest.mark.slow
@given(told=histories, table=st.lists(since_1970, max_size=4))
def test_what_was_read_is_joined_with_what_was_told(
    cache: Cache, told: list[Change], table: list[Change]
) -> None:
    """Of each feature the cache answers the newer of what it was told of and of what was read."""
    cache.clear()
    cache.hear(told)
    assert cache.get() is None  # Nobody has read the item.
    heard, read = after(told) or {}, after(table) or {}
    found = cache.fill(after(table))
    assert found is not None
    expected = newer(heard, read)
    assert said(found, set(expected)) == expected
    times = Times(found)
    assert times.latest == max(Times(heard).latest, Times(read).latest)
    assert times.erased == max(Times(heard).erased, Times(read).erased)


@settings(max_examples=stress(30))
@given(table=st.lists(since_1970, max_size=4), told=histories)
def test_what_is_told_afterwards_is_merged(
    cache: Cache, table: list[Change], told: list[Change]
) -> None:
    """What the cache is told of an item that it keeps is what the table makes of it."""
    cache.clear()
    cache.fill(after(table))
    cache.hear(told)
    found, expected = cache.get() or {}, after(table + told) or {}
    names = {*features_of(found, LAYOUT), *features_of(expected, LAYOUT)}
    assert said(found, names) == said(expected, names)


@settings(max_examples=stress(30))
@given(history=histories)
def test_an_item_of_the_table_is_packed_whole(history: list[Change]) -> None:
    """A packed item has every attribute of the table's but its key and its expiry."""
    layout = TableLayout(pk="a-key", sk="b-key", ttl="c-key")
    item = merge(layout, None, history[0])
    for change in history[1:]:
        item = merge(layout, item, change)
    packed = attributes_of(packed_item(layout, item))
    assert packed == {n: v for n, v in item.items() if n not in layout.reserved}


@pytest.mark.parametrize(
    "attribute",
    [
        b'{"N":"1.5"}',
        b'{"S":"a b"}',
        b'{"S":" "}',
        b'{"B":"AA=="}',
        b'{"B":"AAAAAAAAAAA="}',
        b'{"BOOL":true}',
        b'{"BOOL":false}',
        b'{"NULL":true}',
    ],
)
def test_white_space_is_not_the_value(attribute: bytes) -> None:
    """An engine that writes its JSON with spaces says the same."""
    spaced = attribute.replace(b'":', b'": ', 1)
    assert value_of(spaced) == value_of(attribute)


def test_tables_do_not_share_items(cache: Cache) -> None:
    """Two tables that have one cache do not read each other's items."""
    other = SharedItems("join:", "other", "", ttl=300, timeout=10.0, clustered=False)
    key = ItemKey("a:2", "b")
    cache.driver.run(cache.items.fill([(key, ABSENT)], 10.0))
    found = [cache.driver.run(items.get([wanted(key)], 10.0)) for items in (cache.items, other)]
    assert found == [[ABSENT], [None]]
