"""What each tip of `docs/performance.md` is worth: CPU of two ways to do the same, turn by turn."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import boto3

from benchmarks.canned import ROWS, TABLE, USER
from benchmarks.clients.base import ACCESS_KEY, SECRET_KEY
from benchmarks.clients.ours import CACHE, store_url
from benchmarks.data import OBSERVED_AT
from benchmarks.inprocess import a_core_for_servers
from benchmarks.server import CannedServer
from chalk_online_store import AsyncOnlineStore, OnlineStore

SECONDS_A_SAMPLE = 0.03
KEYS = [row["id"] for row in ROWS]
FEW = ["amount_mean_7d", "fraud_score", "txn_count_1h", "country", "is_verified"]
SESSION = boto3.Session(ACCESS_KEY, SECRET_KEY)

Way = Callable[[], Any]


class Tip(NamedTuple):
    """Two ways to do the same for `each` of `what`."""

    title: str
    what: str
    each: int
    plain: Way
    better: Way


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """CPU microseconds of each way, for one of what it is about."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        server = stack.enter_context(CannedServer(core=core))
        loop = stack.enter_context(closing(asyncio.new_event_loop()))
        return [_measured(tip, rounds) for tip in tips(server.url, stack, loop)]


def _measured(tip: Tip, rounds: int) -> dict[str, Any]:
    times = [max(1, int(SECONDS_A_SAMPLE / cpu_of(way, 1))) for way in (tip.plain, tip.better)]
    plain, better = [], []
    for _ in range(rounds):
        plain.append(cpu_of(tip.plain, times[0]))
        better.append(cpu_of(tip.better, times[1]))
    return {
        "tip": tip.title,
        "of": tip.what,
        "plain_us": statistics.median(plain) / tip.each * 1e6,
        "better_us": statistics.median(better) / tip.each * 1e6,
        "ratio": statistics.median(a / b for a, b in zip(plain, better, strict=True)),
    }


def cpu_of(way: Way, times: int) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    for _ in range(times):
        way()
    return (time.process_time() - started) / times


def tips(url: str, stack: ExitStack, loop: asyncio.AbstractEventLoop) -> Iterator[Tip]:
    """In the order of the page."""

    def opened(**options: Any) -> OnlineStore:
        store = OnlineStore.open(store_url(url, TABLE), [USER], session=SESSION, **options)
        return stack.enter_context(store)

    store = opened()
    write = {"observed_at": OBSERVED_AT, "ordering": "arrival"}
    store.write(USER, ROWS, **write)  # type: ignore[arg-type]
    yield Tip(
        "one read of 100 keys, not 100 reads",
        "key",
        100,
        lambda: [store.read(USER, [key]).to_dict() for key in KEYS],
        lambda: store.read(USER, KEYS).to_dict(),
    )
    yield Tip(
        "one write of 25 rows, not 25 writes",
        "row",
        25,
        lambda: [store.write(USER, [row], **write) for row in ROWS[:25]],  # type: ignore[arg-type]
        lambda: store.write(USER, ROWS[:25], **write),  # type: ignore[arg-type]
    )
    yield Tip(
        "5 features, not all 20",
        "read of 100 keys",
        1,
        lambda: store.read(USER, KEYS).to_dict(),
        lambda: store.read(USER, KEYS, FEW).to_dict(),
    )
    cached = opened(lru_cache=CACHE)
    yield Tip(
        "from the cache",
        "read of 100 keys",
        1,
        lambda: store.read(USER, KEYS).to_dict(),
        lambda: cached.read(USER, KEYS).to_dict(),
    )
    yield from _forms(store)
    yield from _at_once(url, loop)
    prepared = store.prepare(USER, FEW)
    yield Tip(
        "a prepared read",
        "read of 1 key",
        1,
        lambda: store.read(USER, [7], FEW),
        lambda: prepared.read([7]),
    )
    yield Tip(
        "the garbage collector at rest",
        "read of 100 keys",
        1,
        lambda: store.read(USER, KEYS).to_pylist(),
        lambda: _without_collector(lambda: store.read(USER, KEYS).to_pylist()),
    )


def _forms(store: OnlineStore) -> Iterator[Tip]:
    rows = store.read(USER, KEYS)
    names = rows.features
    yield Tip(
        "`to_pylist()`, not each `row[name]`",
        "read of 100 keys",
        1,
        lambda: [{name: row[name] for name in names} for row in store.read(USER, KEYS)],
        lambda: store.read(USER, KEYS).to_pylist(),
    )
    yield Tip(
        "`to_dict()`, not `to_pylist()`",
        "read of 100 keys",
        1,
        lambda: store.read(USER, KEYS).to_pylist(),
        lambda: store.read(USER, KEYS).to_dict(),
    )
    import numpy as np

    yield Tip(
        "`to_numpy(vector)`, not `np.stack(column(vector))`",
        "vector",
        100,
        lambda: np.stack(rows.column("embedding")),
        lambda: rows.to_numpy("embedding"),
    )


def _at_once(url: str, loop: asyncio.AbstractEventLoop) -> Iterator[Tip]:
    """64 tasks that read one key each, alone and joined."""

    def reading(store: AsyncOnlineStore, keys: Sequence[int]) -> Way:
        async def read_all() -> None:
            await asyncio.gather(*(store.read(USER, [key], FEW) for key in keys))

        return lambda: loop.run_until_complete(read_all())

    alone, joined = (
        AsyncOnlineStore.open(store_url(url, TABLE), [USER], session=SESSION, coalesce=window)
        for window in (None, "1ms")
    )
    yield Tip(
        '`coalesce="1ms"` for 64 tasks that read one key each',
        "read",
        64,
        reading(alone, KEYS[:64]),
        reading(joined, KEYS[:64]),
    )
    for store in (alone, joined):
        loop.run_until_complete(store.close())


def _without_collector(way: Way) -> Any:
    gc.disable()
    try:
        return way()
    finally:
        gc.enable()
