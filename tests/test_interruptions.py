"""Exceptions of signal handlers inside calls of a store: nothing stays occupied."""

from __future__ import annotations

import gc
import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import (
    BloomFilter,
    Feature,
    LRUCache,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
)
from chalk_online_store.dynamodb.http.blocking import HttpTransport
from chalk_online_store.dynamodb.http.connection import Connection
from chalk_online_store.dynamodb.http.exchange import ResponseReader
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from tests.interruptions import (
    STRESS,
    Interruption,
    Interruptions,
    SoftLimit,
    handler,
    interrupted_by_timer,
)

KEYS = range(12)
TIMEOUT = 20.0
STEP = max(1, 199 // STRESS)
"""Of so many points one is tried, for each call."""

SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "lru": {"lru_cache": LRUCache(max_size=8, ttl="60s", max_bytes=100_000)},
    "refresh ahead": {"lru_cache": LRUCache(max_size=8, ttl="20ms", refresh_ahead=0.9)},
    "coalesce": {"coalesce": "1ms"},
    "filter": {"bloom": True},
    "all": {"bloom": True, "coalesce": "1ms", "lru_cache": LRUCache(max_size=8, ttl="60s")},
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect the garbage that interruptions left here, while its warnings are expected."""
    yield
    gc.collect()


def opened(url: str, bloom: bool = False, **options: Any) -> tuple[OnlineStore, Namespace]:
    config = OnlineStoreConfig(bloom_filter=BloomFilter(100, refresh="50ms") if bloom else None)
    user = Namespace("user", int, [Feature("v", int)], online_store_config=config)
    store = OnlineStore.open(url, [user], timeout=TIMEOUT, **options)
    store.write(user, [{"id": key, "v": key} for key in KEYS])
    store.warm(1)
    return store, user


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread in which a lock that the main thread keeps cannot be entered."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


class World:
    """A store, calls of it that are interrupted, and what has to work afterwards."""

    def __init__(self, store: OnlineStore, user: Namespace, others: ThreadPoolExecutor) -> None:
        self.store = store
        self.user = user
        self._others = others
        self._rng = random.Random(5)
        self._version = 0
        self.calls: dict[str, Callable[[], object]] = {
            "read": lambda: store.read(user, self._rng.sample(KEYS, 3)),
            "read one": lambda: store.read(user, [self._rng.choice(KEYS)]),
            "read absent": lambda: store.read(user, [10_000 + self._rng.randrange(100)]),
            "read consistent": lambda: store.read(user, [1, 2], consistent=True),
            "write": lambda: store.write(user, [{"id": key, "v": -1} for key in (1, 2)]),
            "write new": self._write_new,
        }

    def _write_new(self) -> None:
        self._version += 1
        self.store.write(self.user, [{"id": 1000 + self._version, "v": 1}])

    def check(self) -> None:
        """Read all keys and write, here and in another thread."""
        self._others.submit(self._use).result()
        self._use()

    def _use(self) -> None:
        store, user = self.store, self.user
        began = time.monotonic()
        assert set(store.read(user, KEYS).statuses("v")) == {"hit"}
        key = self._rng.choice(KEYS)
        assert store.read(user, [key]).statuses("v") == ["hit"]
        self._version += 1
        store.write(user, [{"id": key, "v": self._version}])
        assert store.read(user, [key]).column("v") == [self._version]
        # Much less than any timeout: nobody waited for an operation that has ended.
        assert time.monotonic() - began < TIMEOUT / 2

    def check_rest(self) -> None:
        """Check that nothing is in flight once the threads have come to rest."""
        ends = time.monotonic() + TIMEOUT
        while self._is_anything_in_flight():
            assert time.monotonic() < ends
            time.sleep(0.01)
        for cache in self.store.core._tiers.caches.values():
            assert len(cache._entries) <= 8
            cache._count_again()
            assert cache._bytes == sum(entry[-1] for entry in cache._entries.values())

    def _is_anything_in_flight(self) -> bool:
        workers, tiers = self.store.driver._pools(), self.store.core._tiers
        caches = tiers.caches.values()
        owners = [trip.owner for cache in caches for trip in cache._flying.values()]
        owners += [
            each.owner for cache in caches for each in chain.from_iterable(cache._writing.values())
        ]
        batches = tiers.coalescer._open.values() if tiers.coalescer else ()
        return (
            any(owner.locked() for owner in owners)
            or not all(batch.is_lost for batch in batches)
            or not workers.running._queue.empty()
            or not workers.sending._queue.empty()
        )


@pytest.fixture(params=["sqlite file", "sqlite memory", "dynoxide", "valkey", "shared cache"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty table of an engine."""
    name = uuid.uuid4().hex
    if request.param == "sqlite file":
        return f"sqlite:///{tmp_path}/features.db"
    if request.param == "sqlite memory":
        return "sqlite://"
    if request.param == "valkey":
        valkey: Valkey = request.getfixturevalue("valkey")
        return valkey.url(f"{name}:")
    engine: Dynoxide = request.getfixturevalue("dynoxide")
    create_table(engine.endpoint_url, name)
    if request.param == "shared cache":
        cache: Valkey = request.getfixturevalue("valkey")
        return f"{engine.url(name)}&shared_cache_timeout=2&shared_cache={cache.url(f'{name}:')}"
    return engine.url(name)


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_interruption_leaves_nothing_behind(
    url: str, setting: str, other_thread: ThreadPoolExecutor
) -> None:
    """After an exception at any point of a call, all keys are read and written by all threads."""
    store, user = opened(url, **SETTINGS[setting])
    rng = random.Random(setting)
    with store, handler(Interruption):
        world = World(store, user, other_thread)
        for call in world.calls.values():
            at, interrupted = rng.randrange(1, STEP + 1), 0
            while True:
                trial = Interruptions(at)
                if trial.run(call) is not None or trial.passed >= at:
                    interrupted += 1
                    world.check()
                    at += STEP
                elif interrupted:
                    break
                else:  # The call had fewer points, as a hit of the cache has.
                    at = rng.randrange(1, trial.passed + 1)
        world.check_rest()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_second_interruption_leaves_nothing_behind(
    url: str, setting: str, other_thread: ThreadPoolExecutor
) -> None:
    """The same holds if the cleanup after an exception is interrupted as well, again and again."""
    store, user = opened(url, **SETTINGS[setting])
    rng = random.Random(setting)
    with store, handler(SoftLimit):
        world = World(store, user, other_thread)
        for call in world.calls.values():
            at = rng.randrange(1, 3 * STEP + 1)
            while (trial := Interruptions(at, every=rng.choice((1, 2, 3, 5)))).run(call):
                world.check()
                at += 3 * STEP
            assert trial.passed < at
        world.check_rest()


@pytest.mark.parametrize("error", [Interruption, SoftLimit])
@pytest.mark.parametrize("keys", [1, 4])
@pytest.mark.parametrize(
    "cleanup", [None, (Connection, "close"), (HttpTransport, "park")], ids=["none", "close", "park"]
)
def test_an_interrupted_connection_closes_without_the_garbage_collector(
    dynoxide: Dynoxide,
    other_thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    cleanup: tuple[type, str] | None,
    keys: int,
    error: type[BaseException],
) -> None:
    """No cycle of references keeps a connection, even if its cleanup is interrupted as well."""
    name = uuid.uuid4().hex
    create_table(dynoxide.endpoint_url, name)
    store, user = opened(dynoxide.url(name))

    def raise_once(owner: type, method: str) -> None:
        original, left = getattr(owner, method), [error]

        def replacement(*arguments: Any) -> Any:
            if left:
                raise left.pop()
            return original(*arguments)

        monkeypatch.setattr(owner, method, replacement)

    def connections(transport: HttpTransport) -> int:
        """The open ones that are in no pool."""
        made = [each for each in gc.get_objects() if type(each) is Connection and each.is_open]
        pooled = len(transport._idle) + len(transport._parked)
        return sum(each._sock.fileno() >= 0 for each in made) - pooled

    with store:
        world = World(store, user, other_thread)
        transport = store.driver.transports[""]
        assert isinstance(transport, HttpTransport)
        gc.collect()
        others = connections(transport)
        gc.disable()
        try:
            raise_once(ResponseReader, "feed")
            if cleanup is not None:
                raise_once(*cleanup)
            with pytest.raises(error):
                store.write(user, [{"id": key, "v": -1} for key in range(keys)])
            monkeypatch.undo()
            assert connections(transport) == others
        finally:
            gc.enable()
        world.check()


@pytest.mark.skipif(STRESS < 2, reason="CHALK_STRESS=n: n thousand")
@pytest.mark.parametrize("setting", SETTINGS)
def test_real_timers_leave_nothing_behind(
    url: str, setting: str, other_thread: ThreadPoolExecutor
) -> None:
    """Timers of the system interrupt thousands of calls at random, also several times each."""
    store, user = opened(url, **SETTINGS[setting])
    rng = random.Random()
    with store:
        world = World(store, user, other_thread)
        calls, interrupted = list(world.calls.values()), 0
        while interrupted < 1000 * STRESS:
            after, again = rng.uniform(0.00002, 0.002), rng.choice((0, 0, 0.00005))
            interrupted += interrupted_by_timer(rng.choice(calls), after, again)
            if rng.random() < 0.02:
                world.check()
        world.check()
        world.check_rest()
