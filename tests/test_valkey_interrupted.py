"""Exceptions raised by signal handlers inside a call leave connections in step and slots free."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, features
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.testing import Valkey, ValkeyCluster
from chalk_online_store.valkey.resp import ReplyReader
from tests.contract.conftest import AnyStore

STRESS = int(os.environ.get("CHALK_STRESS", "1"))
INTERRUPTIONS = 200 * STRESS


@features
class User:
    id: int
    a: int


KEYS = range(40)
ROWS: list[dict[str, Any]] = [{"id": key, "a": 1000 + key} for key in KEYS]


class Interrupted(BaseException):
    """What the handler raises."""


@contextmanager
def interrupting() -> Iterator[list[int]]:
    """Have a handler for alarms that raises, and counts."""
    count = [0]

    def interrupt(number: int, frame: FrameType | None) -> None:
        count[0] += 1
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture(params=["valkey", "valkey_cluster"])
def url(request: pytest.FixtureRequest) -> str:
    server: Valkey | ValkeyCluster = request.getfixturevalue(request.param)
    return server.url(f"interrupted-{request.node.name}:")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_threads_leave_connections_in_step(url: str) -> None:
    """After interruptions at any moment, every read returns the values of its own keys."""
    rng = random.Random(1)
    with OnlineStore.open(url, [User], timeout=20) as store, interrupting() as count:
        store.write(User, ROWS)
        while count[0] < INTERRUPTIONS:
            keys = rng.sample(KEYS, 3)
            with suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00001, 0.0006))
                for _ in range(20):
                    assert store.read(User, keys).column("a") == [1000 + key for key in keys]
                    store.write(User, [ROWS[keys[0]]])
                signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for key in KEYS:
            assert store.read(User, [key])[0]["a"] == 1000 + key


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_connection_that_lost_bytes_is_not_used_again(
    valkey: Valkey, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception raised while a response is read closes its connection, and frees its slot."""
    url = valkey.url(f"lost-{error.__name__}:", max_pool_connections=1)
    feed = ReplyReader.feed
    failures = 1

    def fail_once(self: ReplyReader, data: bytes) -> bool:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        return feed(self, data)

    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        for kind in (OnlineStore, AsyncOnlineStore):
            failures = 0
            store = AnyStore(kind.open(url, [User], timeout=5), runner)
            store.write(User, ROWS)
            monkeypatch.setattr(ReplyReader, "feed", fail_once)
            failures = 1
            with suppress(error, OnlineStoreError):
                store.read(User, [1])
            for key in KEYS:
                assert store.read(User, [key])[0]["a"] == 1000 + key
            store.close()
            monkeypatch.undo()


def test_cancelled_tasks_leave_no_slot_taken(url: str) -> None:
    """After cancellations at any moment, all connections of the pool can be used at once."""

    async def main() -> None:
        rng = random.Random(3)
        async with AsyncOnlineStore.open(f"{url}&max_pool_connections=4", [User]) as store:
            await store.write(User, ROWS)
            for _ in range(INTERRUPTIONS // 10):
                tasks = [asyncio.create_task(store.read(User, [key])) for key in KEYS]
                await asyncio.sleep(rng.uniform(0, 0.003))
                for task in rng.sample(tasks, 30):
                    task.cancel()
                for key, rows in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                    if not isinstance(rows, asyncio.CancelledError):
                        assert not isinstance(rows, BaseException)
                        assert rows[0]["a"] == 1000 + key

    asyncio.run(main())
