"""The script that merges on the server does exactly what `codec.changes.merge` does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store.backend import Call, WriteOutcome
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    fresh_item,
    leaves_newer,
    merge,
    number,
)
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.errors import DamagedItem
from chalk_online_store.testing import Valkey
from chalk_online_store.valkey.backend import ValkeyBackend
from chalk_online_store.valkey.packing import attributes_of
from chalk_online_store.valkey.transport import ValkeyTransport
from chalk_online_store.valkey.urls import ValkeyTarget

LAYOUT = TableLayout()
KEY = ItemKey("a:1", "b")
NAMES = [*"abcd", "aa", *(f"x{i}" for i in range(14))]
KEPT = 1000
SOON = int(time.time()) + 100_000


class Table:
    """One server, asked through the backend, and looked into past it."""

    def __init__(self, server: Valkey) -> None:
        assert server.port is not None
        target = ValkeyTarget((("127.0.0.1", server.port),))
        self.backend = ValkeyBackend("test", "merge:", keep_expired=KEPT)
        self.driver = SyncDriver({"": ValkeyTransport(target)})
        self.client = redis.Redis(port=server.port)
        self.key = "merge:a:1:b"

    def apply(self, *changes: Change) -> list[Any]:
        """What becomes of changes, one after the other."""
        call = Call(time.monotonic() + 120)
        return [self.driver.run(self.backend.change([each], call))[0] for each in changes]

    def item(self) -> Attributes | None:
        """The item as DynamoDB would have it, but for its key."""
        value = self.client.get(self.key)
        if value is None:
            return None
        assert isinstance(value, bytes)
        return {**attributes_of(value), **self._expiry()}

    def _expiry(self) -> Attributes:
        """The attribute for the second at which the key expires, if it does."""
        # EXPIRETIME would say it, but Redis 6.2 does not have it. In a transaction, no time passes.
        with self.client.pipeline(transaction=True) as transaction:
            transaction.pttl(self.key)
            transaction.time()
            left, (seconds, microseconds) = transaction.execute()
        if left == -1:
            return {}
        expires = round(seconds + microseconds / 1e6 + left / 1e3)
        return {LAYOUT.ttl: number(expires - KEPT)}


@pytest.fixture(scope="module", params=["valkey", "redis_server"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    found = Table(request.getfixturevalue(request.param))
    yield found
    found.driver.close()
    found.client.close()


# Times on both sides of 2**53, where Lua's numbers end, and of every border of 32 bits.
NEAR = [0, 1, 2**31, 2**32, 2**53, 2**53 + 1, 1_780_000_000_000_000, 10**17, -1, -(2**32), -(2**53)]
times = st.builds(lambda base, more: base + more, st.sampled_from(NEAR), st.integers(0, 2))
attributes = st.one_of(
    st.integers(-(2**70), 2**70).map(number),
    st.sampled_from([b'{"NULL":true}', b'{"BOOL":true}', b'{"N":"1.5"}', b'{"B":"AAAAAAAAAAA="}']),
    st.sampled_from([0, 1, 31, 32, 255, 256, 65535, 65536]).map(
        lambda n: b'{"S":"%b"}' % (b"s" * n)
    ),
    st.sampled_from([1, 16, 300, 66_000]).map(lambda n: b'{"L":[%b]}' % b",".join([number(1)] * n)),
    st.sampled_from([b"", b"AA==", b"AAAA" * 100, b"AAAA" * 30_000]).map(
        lambda b: b'{"B":"%b"}' % b
    ),
)
expiries = st.none() | st.integers(SOON, SOON + 10)
names = st.sampled_from(NAMES)
dropped = st.lists(names, max_size=2, unique=True).map(tuple)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Whole, partial and erasing changes, of schemas that know different features."""
    kind = draw(st.sampled_from(["whole", "part", "part", "erase"]))
    values: SearchStrategy[dict[str, bytes | None]] = st.dictionaries(
        names, attributes | st.none(), min_size=1, max_size=19
    )
    row = {} if kind == "erase" else draw(values)
    return Change.of(KEY, draw(times), row, kind != "part", len(row), draw(expiries), draw(dropped))


def outcome(item: Attributes | None, merged: Attributes, change: Change) -> WriteOutcome:
    if merged is item:
        return WriteOutcome.SUPERSEDED
    if leaves_newer(LAYOUT, merged, change):
        return WriteOutcome.LEFT_NEWER
    wholly = item is None or merged == fresh_item(LAYOUT, change)
    return WriteOutcome.APPLIED if wholly else WriteOutcome.PARTIALLY_APPLIED


@given(history=st.lists(changes(), min_size=1, max_size=7))
def test_the_script_is_merge(table: Table, history: list[Change]) -> None:
    """After any changes the item, its expiry and every outcome are those of the one truth."""
    table.client.delete(table.key)
    item: Attributes | None = None
    for change in history:
        merged = merge(LAYOUT, item, change)
        assert table.apply(change) == [outcome(item, merged, change)]
        item = merged
        key = {LAYOUT.pk, LAYOUT.sk}
        assert table.item() == {n: v for n, v in item.items() if n not in key}


def test_changes_of_many_items_are_applied_each(table: Table) -> None:
    """More changes than one script takes, some of them late, have their outcomes in order."""
    keys = [ItemKey(f"a:many{i}", "b") for i in range(200)]
    call = Call(time.monotonic() + 120)

    def write(time: int) -> list[Change]:
        row = {"a": number(time)}
        return [
            Change.of(key, time if i % 3 else 5, row, True, 1, None) for i, key in enumerate(keys)
        ]

    assert table.driver.run(table.backend.change(write(6), call)) == [WriteOutcome.APPLIED] * 200
    found = table.driver.run(table.backend.change(write(3), call))
    assert found == [WriteOutcome.SUPERSEDED if i % 3 else WriteOutcome.APPLIED for i in range(200)]


@pytest.mark.parametrize("value", [b"", b"\x81\xa1@", b"\x81\xa1@\x90", b"\x80\x80", b"text"])
def test_what_is_no_item_is_not_touched(table: Table, value: bytes) -> None:
    """A value that the script cannot read stays as it is, and the change's outcome says so."""
    table.client.set(table.key, value)
    (found,) = table.apply(Change.of(KEY, 1, {"a": number(1)}, False, 1, None))
    assert isinstance(found, DamagedItem)
    assert table.client.get(table.key) == value


def test_an_expiry_is_the_servers(table: Table) -> None:
    """What has expired and is kept no longer is gone, without anybody's doing."""
    backend = ValkeyBackend("test", "merge:", keep_expired=0)
    table.client.delete(table.key)
    past = int(time.time()) - 5
    change = Change.of(KEY, past * 10**6, {"a": number(1)}, True, 1, past)
    call = Call(time.monotonic() + 120)
    assert table.driver.run(backend.change([change], call)) == [WriteOutcome.APPLIED]
    deadline = time.monotonic() + 120
    while table.client.exists(table.key):
        assert time.monotonic() < deadline
