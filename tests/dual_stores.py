"""Pairs of stores for tests of migrations, and faults of one of them."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chalk_online_store import AsyncOnlineStore, ConnectionFailed, OnlineStore, feature, features
from chalk_online_store.migration import AsyncDualStore, DualSettings, DualStore

EAGER = DualSettings(recheck_after=0.0, shadow_timeout=10.0)
"""Settings for tests in which nothing is written while reads are compared."""


@features(max_staleness="30d")
class User:
    id: int
    name: str
    risk: float | None = feature(group="realtime")


@features
class City:
    name: str = feature(primary=True)
    degrees: float


SCHEMA = [User, City]


@dataclass
class Fault:
    """A fault of a store: which of its methods fail, when, and how.

    A call of such a method first waits for `gate`, and then raises `error`, or fails after it
    was performed if `is_late` is set.
    """

    methods: frozenset[str] = frozenset(("read", "write", "delete"))
    error: BaseException | None = field(default_factory=lambda: ConnectionFailed("down"))
    is_late: bool = False
    gate: threading.Event | None = None
    calls: list[str] = field(default_factory=list)


class Faulty(OnlineStore):
    """A store that fails as `fault` says."""

    fault: Fault | None = None

    def read(self, *args: Any, **options: Any) -> Any:
        return self._faulty("read", super().read, args, options)

    def write(self, *args: Any, **options: Any) -> Any:
        return self._faulty("write", super().write, args, options)

    def delete(self, *args: Any, **options: Any) -> Any:
        return self._faulty("delete", super().delete, args, options)

    def _faulty(self, name: str, call: Callable[..., Any], args: Any, options: Any) -> Any:
        fault = self.fault
        if fault is None or name not in fault.methods:
            return call(*args, **options)
        fault.calls.append(name)
        if fault.gate is not None:
            assert fault.gate.wait(60)
        if fault.error is None or fault.is_late:
            result = call(*args, **options)
        if fault.error is not None:
            raise fault.error
        return result


class AsyncFaulty(AsyncOnlineStore):
    """As `Faulty`."""

    fault: Fault | None = None

    async def read(self, *args: Any, **options: Any) -> Any:
        return await self._faulty("read", super().read, args, options)

    async def write(self, *args: Any, **options: Any) -> Any:
        return await self._faulty("write", super().write, args, options)

    async def delete(self, *args: Any, **options: Any) -> Any:
        return await self._faulty("delete", super().delete, args, options)

    async def _faulty(self, name: str, call: Callable[..., Any], args: Any, options: Any) -> Any:
        fault = self.fault
        if fault is None or name not in fault.methods:
            return await call(*args, **options)
        fault.calls.append(name)
        while fault.gate is not None and not fault.gate.is_set():  # noqa: ASYNC110 - of threads.
            await asyncio.sleep(0.001)
        if fault.error is None or fault.is_late:
            result = await call(*args, **options)
        if fault.error is not None:
            raise fault.error
        return result


class Pair:
    """Two stores and a `DualStore` on them, for threads or for asyncio: calls are the same."""

    def __init__(self, runner: asyncio.Runner | None, old: str, new: str, **options: Any) -> None:
        self.runner = runner
        kind: Any = Faulty if runner is None else AsyncFaulty
        dual: Any = DualStore if runner is None else AsyncDualStore
        self.old, self.new = (kind.open(url, SCHEMA) for url in (old, new))
        self.dual = dual(self.old, self.new, **{"settings": EAGER, "compare": 0.0, **options})

    def run(self, result: Any) -> Any:
        """Return the result of a call, which is a coroutine for asyncio."""
        if inspect.iscoroutine(result):
            assert self.runner is not None
            return self.runner.run(result)
        return result

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.dual, name)
        return lambda *args, **options: self.run(method(*args, **options))

    def seen(self, store: Any, keys: Sequence[int]) -> list[Any]:
        """Return everything that a reader sees of some users in one of the stores."""
        fault, store.fault = store.fault, None
        rows = self.run(store.read(User, keys, consistent=True))
        store.fault = fault
        return [
            [(row.status(name), row.get(name), row.observed_at(name)) for name in ("name", "risk")]
            for row in rows
        ]

    def assert_same(self, keys: Sequence[int]) -> None:
        """Both stores have the same users, times included."""
        assert self.seen(self.new, keys) == self.seen(self.old, keys)


@contextmanager
def opened(is_async: bool, old: str, new: str, **options: Any) -> Iterator[Pair]:
    """A pair that is closed at the end."""
    runner = asyncio.Runner() if is_async else None
    pair = Pair(runner, old, new, **options)
    try:
        yield pair
    finally:
        pair.old.fault = pair.new.fault = None
        pair.close()
        if runner is not None:
            runner.close()
