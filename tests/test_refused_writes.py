"""Conditional writes that an engine refuses: requests and units, as a proxy and the engine count.

The proxy between store and engine counts the requests; the engine's `ConsumedCapacity` gives the
units of those that it accepted. No figure comes from the library's own model.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from chalk_online_store import OnlineStore, features
from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.mix import Mix, NamespaceMix, Write
from chalk_online_store.planning.sizing import size
from chalk_online_store.schema import namespace_of
from chalk_online_store.testing import Dynoxide, FaultProxy, create_table

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@features
class Account:
    id: int
    balance: float
    logins: int
    risk: float


@pytest.fixture(scope="module")
def proxy(dynoxide: Dynoxide) -> Iterator[FaultProxy]:
    with FaultProxy(dynoxide) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> Iterator[OnlineStore]:
    name = f"refused-{uuid.uuid4().hex}"
    create_table(proxy.endpoint_url, name)
    with OnlineStore.open(proxy.url(name), [Account], session=proxy.session()) as store:
        store.write(Account, [{"id": 0, "balance": 0.5, "logins": 1, "risk": 0.5}])
        yield store


def whole(store: OnlineStore, key: int, at: float) -> float:
    """Write all features; the WCU that the engine reports."""
    row = {"id": key, "balance": at, "logins": key, "risk": 0.5}
    return store.write(Account, [row], observed_at=T0 + timedelta(seconds=at)).wcu


def part(store: OnlineStore, key: int, at: float, feature: str = "risk") -> float:
    """Write one feature; the WCU that the engine reports."""
    row = {"id": key, feature: 7}
    return store.write(Account, [row], observed_at=T0 + timedelta(seconds=at)).wcu


def updates_of(proxy: FaultProxy, act: Callable[[], None]) -> int:
    """Return the number of UpdateItem requests that reach the engine meanwhile."""
    before = proxy.stats().requests.get("UpdateItem", 0)
    act()
    return proxy.stats().requests.get("UpdateItem", 0) - before


def test_a_whole_write_after_a_partial_one_takes_one_request(
    store: OnlineStore, proxy: FaultProxy
) -> None:
    """Of 60 whole writes, each after a partial one, a single one is refused."""
    units: list[float] = []

    def act() -> None:
        for key in range(1, 61):
            units.extend((part(store, key, 1), whole(store, key, 2)))

    assert updates_of(proxy, act) == 120 + 1
    assert sum(units) == 120
    row = store.read(Account, [7], consistent=True)[0]
    assert row.to_dict() == {"balance": 2.0, "logins": 7, "risk": 0.5}
    assert row.observed_at("risk") == row.observed_at("logins") == T0 + timedelta(seconds=2)


def test_a_partial_write_beside_a_newer_feature_takes_one_request(
    store: OnlineStore, proxy: FaultProxy
) -> None:
    """Of 60 partial writes that are older than another feature, a single one is refused."""
    for key in range(1, 61):
        whole(store, key, 1)
        part(store, key, 10, "logins")

    def act() -> None:
        for key in range(1, 61):
            assert part(store, key, 5) == 1

    assert updates_of(proxy, act) == 60 + 1
    row = store.read(Account, [7], consistent=True)[0]
    assert row.to_dict() == {"balance": 1.0, "logins": 7, "risk": 7.0}
    assert row.observed_at("risk") == T0 + timedelta(seconds=5)
    assert row.observed_at("logins") == T0 + timedelta(seconds=10)


def test_a_superseded_write_takes_one_request(store: OnlineStore, proxy: FaultProxy) -> None:
    """A write that is older than all it would change is refused, and nothing follows."""
    for key in range(1, 21):
        whole(store, key, 10)

    def act() -> None:
        for key in range(1, 21):
            whole(store, key, 5)
            part(store, key, 5)

    assert updates_of(proxy, act) == 40


def test_a_late_whole_write_takes_two_requests_as_it_is_sized(
    store: OnlineStore, proxy: FaultProxy
) -> None:
    """A whole write beside a newer feature is refused each time, as the sizing says."""
    for key in range(1, 21):
        whole(store, key, 1)
        part(store, key, 10, "logins")
    units: list[float] = []

    def act() -> None:
        units.extend(whole(store, key, 5) for key in range(1, 21))

    requests = updates_of(proxy, act)
    namespace = namespace_of(Account)
    row = {"id": 1, "balance": 5.0, "logins": 1, "risk": 0.5}
    mix = Mix((NamespaceMix("account", 0, write=(Write(20, late=1.0),)),))
    found = size(mix, {"account": Sample(namespace, [row])})
    refused = sum(line.amount for line in found.lines if line.what == "write, refused")
    assert (requests, sum(units)) == (40, 20)
    assert (found.total("WCU"), refused) == (requests, requests - sum(units))


def test_rare_partial_writes_do_not_enlarge_other_items(
    store: OnlineStore, proxy: FaultProxy
) -> None:
    """If one in 100 whole writes finds a partial one, it alone takes a second request."""

    def act() -> None:
        for key in range(1, 301):
            if key % 100 == 0:
                part(store, key, 1)
            whole(store, key, 2)

    assert updates_of(proxy, act) == 300 + 3 + 3


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_mixed_order_is_refused_as_often_as_the_rarer_case(
    store: OnlineStore, proxy: FaultProxy, share: float
) -> None:
    """Refusals of partial writes follow the rarer of both cases: late, or newer than all."""
    rng = random.Random(3)
    for key in range(1, 201):
        whole(store, key, 1)
        part(store, key, 10, "logins")
    late = [rng.random() < share for _ in range(200)]

    def act() -> None:
        for key, is_late in enumerate(late, 1):
            part(store, key, 5 if is_late else 15)

    refused = updates_of(proxy, act) - 200
    rarer = min(late.count(True), late.count(False))
    assert rarer <= refused <= 1.5 * rarer + 3
