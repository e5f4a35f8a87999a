"""What a server acknowledged is there, whole, wherever the connections broke meanwhile.

A model knows what was tried and what was acknowledged. Writes go through a proxy that cuts
requests and answers at random bytes; what is there in the end is read past it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    OnlineStore,
    PersistenceWriter,
    Rows,
    Status,
    WriteFailed,
    Writing,
)
from chalk_online_store.errors import RegistryUnavailable
from chalk_online_store.testing import (
    Fault,
    LostAnswer,
    LostRequest,
    Reset,
    Truncated,
    Valkey,
    ValkeyFaultProxy,
)
from tests.crashing import EPOCH, User, moment, row
from tests.test_valkey import store_at

KEYS = 30
FEATURES = ("version", "text", "blob")


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


def break_at_random(proxy: ValkeyFaultProxy, rng: random.Random) -> None:
    """From now on about half of the requests are cut somewhere, or their answers."""
    kinds: list[Callable[[int], Fault]] = [Reset, LostRequest]
    for size in (60, 300, 3000):
        for kind in kinds:
            for _ in range(3):
                proxy.inject(kind(rng.randrange(size)), share=0.03)
    proxy.inject(LostAnswer(), share=0.04)
    proxy.inject(Truncated(0.7), share=0.03)


Place = tuple[int, str]
"""A feature of an entity."""


@dataclass
class Model:
    """For each feature of each entity, which versions were tried, and the newest that is safe."""

    tried: dict[Place, set[int]] = field(default_factory=lambda: defaultdict(set))
    safe: dict[Place, int] = field(default_factory=lambda: defaultdict(int))

    def trying(self, rows: list[dict[str, Any]], versions: list[int]) -> None:
        """These are about to be written."""
        for place, version in _places(rows, versions):
            self.tried[place].add(version)

    def acknowledged(self, rows: list[dict[str, Any]], versions: list[int]) -> None:
        """These are written, if nothing newer was there."""
        for place, version in _places(rows, versions):
            self.safe[place] = max(self.safe[place], version)

    def check(self, found: Rows) -> int:
        """Hold what was read of all entities to it; how many features were read."""
        seen = 0
        for key, each in enumerate(found):
            for name in FEATURES:
                place = key, name
                if each.status(name) is Status.FAILED:
                    continue
                seen += 1
                if each.status(name) is Status.MISSING:
                    assert not self.safe[place], f"{place} is lost"
                    continue
                observed_at = each.observed_at(name)
                assert observed_at is not None
                version = round((observed_at - EPOCH).total_seconds() * 1e6)
                assert version in self.tried[place]
                assert version >= self.safe[place]
                assert each[name] == row(key, version)[name], "torn"
        return seen


def _places(rows: list[dict[str, Any]], versions: list[int]) -> list[tuple[Place, int]]:
    pairs = zip(rows, versions, strict=True)
    return [((each["id"], name), v) for each, v in pairs for name in FEATURES if name in each]


def some_rows(rng: random.Random, now: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of some entities, whole or in part, of versions that are newest or rather old."""
    rows, versions = [], []
    for key in rng.sample(range(KEYS), rng.randint(1, KEYS)):
        version = now if rng.random() < 0.7 else rng.randint(1, now)
        whole = row(key, version)
        names = FEATURES if rng.random() < 0.5 else rng.sample(FEATURES, rng.randint(1, 2))
        rows.append({"id": key, **{name: whole[name] for name in names}})
        versions.append(version)
    return rows, versions


@pytest.mark.parametrize("seed", range(3))
def test_no_acknowledged_write_is_lost(
    kind: type, valkey: Valkey, valkey_fault_proxy: ValkeyFaultProxy, seed: int
) -> None:
    """In event time, each is there or newer; no value is torn, and none was never written."""
    rng = random.Random(seed)
    prefix = f"acknowledged{time.monotonic_ns()}:"
    model = Model()
    with (
        store_at(kind, valkey_fault_proxy.url(prefix), [User]) as store,
        store_at(kind, valkey.url(prefix), [User]) as direct,
    ):
        break_at_random(valkey_fault_proxy, rng)
        for version in range(1, 150):
            rows, versions = some_rows(rng, version)
            model.trying(rows, versions)
            left: set[int] = set()
            try:
                times = list(map(moment, versions))
                store.write(User, rows, observed_at=times, timeout=rng.choice((0.03, 0.3, 5)))
            except WriteFailed as error:
                left = set(error.failed)
            except RegistryUnavailable:
                left = set(range(len(rows)))
            done = [place for place in range(len(rows)) if place not in left]
            model.acknowledged([rows[i] for i in done], [versions[i] for i in done])
            if version % 10 == 0:
                model.check(store.read(User, range(KEYS), timeout=rng.choice((0.03, 5))))
                model.check(direct.read(User, range(KEYS)))
        assert model.check(direct.read(User, range(KEYS))) == 3 * KEYS
    assert len(valkey_fault_proxy.stats().faulted) == 4


def submissions(rng: random.Random) -> list[tuple[list[dict[str, Any]], list[int]]]:
    return [some_rows(rng, version) for version in range(1, 120)]


SETTINGS = Writing(max_batch_age="2ms", write_timeout="300ms")


def test_no_row_of_a_writer_is_lost(valkey: Valkey, valkey_fault_proxy: ValkeyFaultProxy) -> None:
    """What a writer says is written is there when it says so, and the newest in the end."""
    rng = random.Random(5)
    prefix = f"writer{time.monotonic_ns()}:"
    model = Model()
    with (
        OnlineStore.open(valkey_fault_proxy.url(prefix), [User]) as store,
        OnlineStore.open(valkey.url(prefix), [User]) as direct,
        PersistenceWriter(store, SETTINGS) as writer,
    ):
        break_at_random(valkey_fault_proxy, rng)
        for number, (rows, versions) in enumerate(submissions(rng)):
            model.trying(rows, versions)
            writer.submit(User, rows, list(map(moment, versions)))
            model.acknowledged(rows, versions)
            if number % 20 == 19:
                writer.flush(60)
                model.check(direct.read(User, range(KEYS)))
        writer.flush(60)
        assert writer.stats().dead == 0
        assert model.check(direct.read(User, range(KEYS))) == 3 * KEYS
    assert sum(valkey_fault_proxy.stats().faulted.values()) > 20


def test_no_row_of_an_async_writer_is_lost(
    valkey: Valkey, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """The same for asyncio."""
    rng = random.Random(6)
    prefix = f"async-writer{time.monotonic_ns()}:"
    model = Model()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            proxied, direct = [
                await stack.enter_async_context(AsyncOnlineStore.open(url, [User]))
                for url in (valkey_fault_proxy.url(prefix), valkey.url(prefix))
            ]
            writer = await stack.enter_async_context(AsyncPersistenceWriter(proxied, SETTINGS))
            break_at_random(valkey_fault_proxy, rng)
            for number, (rows, versions) in enumerate(submissions(rng)):
                model.trying(rows, versions)
                await writer.submit(User, rows, list(map(moment, versions)))
                model.acknowledged(rows, versions)
                if number % 20 == 19:
                    await writer.flush(60)
                    model.check(await direct.read(User, range(KEYS)))
            await writer.flush(60)
            assert writer.stats().dead == 0
            assert model.check(await direct.read(User, range(KEYS))) == 3 * KEYS

    asyncio.run(main())
    assert sum(valkey_fault_proxy.stats().faulted.values()) > 20
