"""Ours: the store for threads, and the store for asyncio with 16 calls under way."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from benchmarks.boto import SESSION
from benchmarks.client import Client
from benchmarks.data import (
    OBSERVED_AT,
    READ_MANY,
    READ_ONE,
    REGION,
    ROWS,
    TABLE,
    USER,
    WRITE,
    Call,
)
from chalk_online_store import AsyncOnlineStore, OnlineStore


def store_url(url: str) -> str:
    """The URL of the canned table in the server at `url`."""
    return f"dynamodb:///{TABLE}?{urlencode({'region': REGION, 'endpoint_url': url})}"


def is_read(call: Call) -> bool:
    return call in (READ_MANY, READ_ONE)


def keys_of(call: Call) -> list[int]:
    return [row["id"] for row in ROWS[: call.entities]]


def write_options(call: Call) -> dict[str, Any]:
    return {
        "observed_at": OBSERVED_AT,
        "ordering": "arrival" if call is WRITE else "event",
    }


class Store(Client):
    """`OnlineStore` in one thread."""

    name = "OnlineStore"

    def __init__(self, url: str) -> None:
        self._store = OnlineStore.open(store_url(url), [USER], session=SESSION)

    def repeat(self, call: Call, times: int) -> Any:
        """As `Client.repeat`."""
        return self._read(call, times) if is_read(call) else self._write(call, times)

    def _read(self, call: Call, times: int) -> Any:
        keys = keys_of(call)
        result: Any = None
        for _ in range(times):
            result = self._store.read(USER, keys).to_dict()
        return result

    def _write(self, call: Call, times: int) -> None:
        rows, options = ROWS[: call.entities], write_options(call)
        for _ in range(times):
            self._store.write(USER, rows, **options)

    def close(self) -> None:
        """As `Client.close`."""
        self._store.close()


class AsyncStore(Client):
    """`AsyncOnlineStore` with 16 tasks on one event loop."""

    name = "AsyncOnlineStore"
    at_once = 16

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._store = AsyncOnlineStore.open(store_url(url), [USER], session=SESSION)

    def repeat(self, call: Call, times: int) -> Any:
        """As `Client.repeat`."""
        return self._loop.run_until_complete(self._repeat(call, times))

    async def _repeat(self, call: Call, times: int) -> Any:
        work = self._read if is_read(call) else self._write
        share = times // self.at_once
        return (await asyncio.gather(*(work(call, share) for _ in range(self.at_once))))[-1]

    async def _read(self, call: Call, times: int) -> Any:
        keys = keys_of(call)
        result: Any = None
        for _ in range(times):
            result = (await self._store.read(USER, keys)).to_dict()
        return result

    async def _write(self, call: Call, times: int) -> None:
        rows, options = ROWS[: call.entities], write_options(call)
        for _ in range(times):
            await self._store.write(USER, rows, **options)

    def close(self) -> None:
        """As `Client.close`."""
        self._loop.run_until_complete(self._store.close())
        self._loop.close()
