"""The SQLite engine: performs `embedded.requests` on a database, each in one transaction.

Safe to share between threads, between processes, and with forks of a process.

Locks. Threads take turns on a connection. A file has two connections, so that reads do not wait
for the disk while a write is synced; SQLite's WAL lets them run beside each other. Between
processes SQLite's own write lock decides. SQLite's busy handler waits up to 100 ms between two
tries, and a process that writes in a loop takes the lock again within microseconds, so that
others starve. Therefore SQLite never waits: the request is tried again after a short random time,
and the connection is free for other threads meanwhile.

Interruptions. A signal handler can raise between any two steps of the main thread, for example
between `acquire` and the next statement. CPython runs handlers after a call, at the entry of a
function and when a loop jumps back, so a `finally` that begins with a call into C reaches it. An
`RLock` knows in C which thread has it; so `release` in a `finally` is right wherever the
interruption came. A transaction that was interrupted is rolled back before the lock is released.

Forks. SQLite forbids to use or to close a connection in a fork, and its bookkeeping of file locks
is global to a process. So connections to files are closed before a fork, and parent and child
open new ones when they need them. A database in memory cannot be opened again: the child
continues with a copy of its own.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import starmap
from typing import Any, TypeVar

from chalk_online_store._fork import pause_for_forks
from chalk_online_store.backend import WriteOutcome
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    fresh_item,
    leaves_newer,
    merge,
    parse_item,
    read_number,
    render_item,
)
from chalk_online_store.codec.layout import ItemKey, TableLayout, segment_of
from chalk_online_store.embedded import requests
from chalk_online_store.errors import ConnectionFailed, RequestRefused, RequestTimeout, StoreClosed

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    pk TEXT NOT NULL, sk TEXT NOT NULL, item BLOB NOT NULL, expires INTEGER,
    PRIMARY KEY (pk, sk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_expires ON items (expires) WHERE expires IS NOT NULL;
"""
_REAP = "DELETE FROM items WHERE expires < ?"
_SELECT = "SELECT item FROM items WHERE pk = ? AND sk = ?"
_SELECT_PARTITION = "SELECT item FROM items WHERE pk = ? AND sk > ? ORDER BY sk"
_SCAN_KEYS = "SELECT pk, sk FROM items WHERE (pk, sk) > (?, ?) ORDER BY pk, sk LIMIT ?"
_SCAN_ITEMS = "SELECT pk, sk, item FROM items WHERE (pk, sk) > (?, ?) ORDER BY pk, sk LIMIT ?"
_SCAN_SEGMENT = (
    "SELECT pk, sk, item FROM items WHERE (pk, sk) > (?, ?) AND segment_of(pk, ?) = ? "
    "ORDER BY pk, sk LIMIT ?"
)
_SELECT_GROUP = "SELECT pk, item FROM items WHERE pk > ? AND pk < ? AND sk = ? ORDER BY pk LIMIT ?"
_REPLACE = "REPLACE INTO items (pk, sk, item, expires) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM items WHERE pk = ? AND sk = ?"

_MAX_KEYS_PER_SELECT = 512  # SQLite's older default allows 999 parameters.

_OPEN_TIMEOUT_SECONDS = 5.0
_CLOSE_TIMEOUT_SECONDS = 5.0
_MIN_BUSY_WAIT_SECONDS = 0.0005
_MAX_BUSY_WAIT_SECONDS = 0.008

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process. They are never closed here, not by garbage collection either."""


class _Database:
    """One connection to a database, which threads share. It is opened when it is first used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._lost = False
        self._is_paused = False
        self._make_locks()
        pause_for_forks(self)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._is_busy = False

    def run(self, action: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """Perform an action; again, within `timeout` seconds, while other processes write."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._run_once(action, min(timeout, threading.TIMEOUT_MAX))
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                wait = random.uniform(_MIN_BUSY_WAIT_SECONDS, _MAX_BUSY_WAIT_SECONDS)
                timeout = deadline - time.monotonic() - wait
                if timeout <= 0:
                    raise RequestTimeout(
                        "SQLite: other processes kept the database busy."
                    ) from error
            time.sleep(wait)

    def _run_once(self, action: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """Perform an action under the lock. The module says how it stands interruptions."""
        lock, entered = self._lock, False
        try:
            if not lock.acquire(timeout=timeout):
                raise RequestTimeout("SQLite: other threads kept the database busy.")
            if self._is_busy:
                raise RequestTimeout("SQLite: called from within another call of this thread.")
            entered = self._is_busy = True
            return action(self._connection or self._open())
        finally:
            try:
                if entered:
                    self._is_busy = False
                    if self._connection is not None and self._connection.in_transaction:
                        self._connection.rollback()
            finally:
                try:  # noqa: SIM105 - entering `suppress` can be interrupted.
                    lock.release()
                except RuntimeError:  # This thread does not have it.
                    pass

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreClosed("This store is closed; open another.")
        if self._lost:
            raise ConnectionFailed(
                "SQLite: the process was forked while another thread used this database in "
                "memory. Open a store in the child."
            )
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=0, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit returns once it is on the disk. macOS needs the second for that; elsewhere
            # it changes nothing.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.create_function("segment_of", 2, segment_of, deterministic=True)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def close(self) -> None:
        """Close the connection, once the request that is in progress has ended."""
        self._closed = True
        try:
            if self._lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS) and not self._is_busy:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()
        finally:
            try:  # noqa: SIM105 - as in `_run_once`.
                self._lock.release()
            except RuntimeError:
                pass

    # --- forks -----------------------------------------------------------------------------

    def pause(self, timeout: float) -> None:
        """Keep the lock during a fork, without a connection to a file."""
        if not self._lock.acquire(timeout=timeout) or self._is_busy:
            return  # Also if this thread forks in the middle of a request.
        self._is_paused = True
        if self._path and self._connection is not None:
            self._connection.close()
            self._connection = None

    def resume(self) -> None:
        """Continue in the parent."""
        self._is_paused = False
        try:  # noqa: SIM105 - as in `_run_once`.
            self._lock.release()
        except RuntimeError:
            pass

    def reset(self) -> None:
        """Continue in the child, which must not use a connection that was busy at the fork."""
        if self._connection is not None and not self._is_paused:
            _inherited.append(self._connection)
            self._connection = None
            self._lost = not self._path
        self._is_paused = False
        self._make_locks()


class SqliteEngine:
    """A database file, or one in memory where `path` is empty.

    Items past their expiry are reaped when the database is opened, never while it is used:
    reads check staleness themselves. Raises `ConnectionFailed` if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._layout = TableLayout()
        self._writing = _Database(path)
        self._reading = _Database(path) if path else self._writing
        try:
            self._writing.run(_prepare, _OPEN_TIMEOUT_SECONDS)
        except (sqlite3.Error, RequestTimeout) as error:
            self.close()
            raise ConnectionFailed(f"sqlite:///{path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        try:
            self._reading.close()
        finally:  # The last connection that is closed moves the WAL into the file.
            self._writing.close()

    def size(self) -> tuple[int, int]:
        """How many items there are, and their bytes."""
        items, size = self._run(self._reading, _measure, _OPEN_TIMEOUT_SECONDS)
        return items, int(size)

    def warm(self, connections: int, timeout: float) -> int:
        """Open the connection for reads; there is no more than one."""
        self._run(self._reading, lambda connection: None, timeout)
        return 1

    def send(self, request: requests.Request, timeout: float) -> Any:
        """Perform one request within `timeout` seconds.

        Raises `RequestTimeout`, `RequestRefused`, `ConnectionFailed`, `StoreClosed`.
        """
        writes = isinstance(request, requests.Merge | requests.Replace | requests.Transact)
        database = self._writing if writes else self._reading
        answer = self._run(database, partial(self._perform, request), timeout)
        if isinstance(request, requests.SearchGroup):  # Other threads use the database meanwhile.
            return _search(request, answer)
        return answer

    def _run(
        self, database: _Database, action: Callable[[sqlite3.Connection], T], timeout: float
    ) -> T:
        try:
            return database.run(action, timeout)
        except sqlite3.OperationalError as error:
            raise RequestTimeout(f"SQLite: {error}.") from error
        except sqlite3.Error as error:
            raise RequestRefused(f"SQLite: {error}.") from error

    def _perform(self, request: requests.Request, connection: sqlite3.Connection) -> Any:
        """Perform a request.

        Each SELECT is fetched in the statement that executes it: a cursor that an interruption
        left half read, and that a traceback keeps, would hold its snapshot for later reads.
        """
        match request:
            case requests.Get(keys):
                return _get(connection, keys)
            case requests.Merge(changes):
                return _transact(connection, lambda: [self._merge(connection, c) for c in changes])
            case requests.Replace(changes):
                return _transact(
                    connection, lambda: [self._replace(connection, c) for c in changes]
                )
            case requests.ListPartition(pk, after):
                found = connection.execute(_SELECT_PARTITION, (pk, after)).fetchall()
                return [item for (item,) in found]
            case requests.ScanKeys(after, limit):
                found = connection.execute(_SCAN_KEYS, (*after, limit)).fetchall()
                return list(starmap(ItemKey, found))
            case requests.ScanItems(after, limit, segment, segments):
                if segments == 1:
                    found = connection.execute(_SCAN_ITEMS, (*after, limit)).fetchall()
                else:
                    asked = (*after, segments, segment, limit)
                    found = connection.execute(_SCAN_SEGMENT, asked).fetchall()
                return {ItemKey(pk, sk): item for pk, sk, item in found}
            case requests.SearchGroup():
                bounds = (request.after, request.last, request.sk, request.limit)
                return connection.execute(_SELECT_GROUP, bounds).fetchall()
            case requests.Transact(swaps):
                return _transact(connection, lambda: self._swap_all(connection, swaps))

    def _merge(self, connection: sqlite3.Connection, change: Change) -> WriteOutcome:
        rows = connection.execute(_SELECT, change.key).fetchall()
        item = parse_item(rows[0][0]) if rows else None
        merged = merge(self._layout, item, change)
        if merged is item:
            return WriteOutcome.SUPERSEDED
        self._put(connection, change.key, merged)
        if leaves_newer(self._layout, merged, change):
            return WriteOutcome.LEFT_NEWER
        wholly = item is None or merged == fresh_item(self._layout, change)
        return WriteOutcome.APPLIED if wholly else WriteOutcome.PARTIALLY_APPLIED

    def _replace(self, connection: sqlite3.Connection, change: Change) -> WriteOutcome:
        self._put(
            connection, change.key, None if change.erases else fresh_item(self._layout, change)
        )
        return WriteOutcome.APPLIED

    def _swap_all(self, connection: sqlite3.Connection, swaps: Sequence[ConditionalWrite]) -> bool:
        keyed = {swap.key(self._layout): swap for swap in swaps}
        found = {key: parse_item(item) for key, item in _get(connection, list(keyed)).items()}
        if any(found.get(key) != swap.before for key, swap in keyed.items()):
            return False
        for key, swap in keyed.items():
            self._put(connection, key, swap.after)
        return True

    def _put(self, connection: sqlite3.Connection, key: ItemKey, item: Attributes | None) -> None:
        if item is None:
            connection.execute(_DELETE, key)
            return
        expires = read_number(item.get(self._layout.ttl))
        connection.execute(_REPLACE, (*key, render_item(item), expires))


def _search(request: requests.SearchGroup, found: Sequence[tuple[str, bytes]]) -> str | None:
    """Add items to a search; the last key, or None if there are no more."""
    request.search.add(request.decode([item for _, item in found]))
    return found[-1][0] if len(found) == request.limit else None


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)
    connection.execute(_REAP, (int(time.time()),))


def _measure(connection: sqlite3.Connection) -> tuple[int, float]:
    (found,) = connection.execute("SELECT count(*), total(length(item)) FROM items").fetchall()
    return found  # type: ignore[no-any-return] # of two columns


def _transact(connection: sqlite3.Connection, write: Callable[[], T]) -> T:
    """Write in a transaction; `_Database` rolls it back if it does not come to its end."""
    connection.execute("BEGIN IMMEDIATE")
    result = write()
    connection.execute("COMMIT")
    return result


def _get(connection: sqlite3.Connection, keys: Sequence[ItemKey]) -> dict[ItemKey, bytes]:
    """Read items by their keys.

    The keys of one sort key are looked up by `pk IN (...)`, which searches the primary key in
    every version of SQLite. `(pk, sk) IN (VALUES ...)` scans the whole table before 3.46.
    """
    by_sk: dict[str, list[str]] = {}
    for pk, sk in keys:
        by_sk.setdefault(sk, []).append(pk)
    found: dict[ItemKey, bytes] = {}
    for sk, pks in by_sk.items():
        for start in range(0, len(pks), _MAX_KEYS_PER_SELECT):
            some = pks[start : start + _MAX_KEYS_PER_SELECT]
            places = 1 << (len(some) - 1).bit_length()
            padding = some[-1:] * (places - len(some))
            rows = connection.execute(_select_keys(places), (sk, *some, *padding)).fetchall()
            found.update((ItemKey(pk, sk), item) for pk, item in rows)
    return found


@cache
def _select_keys(places: int) -> str:
    """Return the statement that looks up so many keys.

    Callers round up to a power of two, so that few texts have to be prepared and stay cached.
    """
    return f"SELECT pk, item FROM items WHERE sk = ? AND pk IN ({','.join('?' * places)})"
