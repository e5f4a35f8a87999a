"""The SQLite engine: performs `embedded.requests` on a database, each in one transaction.

Safe to share between threads (one lock) and between processes (SQLite's own, in WAL mode).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import starmap
from typing import Any

from chalk_online_store.backend import Applied
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    fresh_item,
    leaves_newer,
    merge,
    parse_item,
    read_number,
    render_item,
)
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.swaps import Swap
from chalk_online_store.embedded import requests
from chalk_online_store.errors import ConnectionFailed, RequestRefused, RequestTimeout

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    pk TEXT NOT NULL, sk TEXT NOT NULL, item BLOB NOT NULL, expires INTEGER,
    PRIMARY KEY (pk, sk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_expires ON items (expires) WHERE expires IS NOT NULL;
"""
_SELECT = "SELECT item FROM items WHERE pk = ? AND sk = ?"
_KEYS_A_SELECT = 400  # SQLite's older default allows 999 parameters, two a key.


class SqliteEngine:
    """A database file, or one in memory where `path` is empty.

    Items past their expiry are reaped when the database is opened, never while it is used:
    reads check staleness themselves.
    """

    def __init__(self, path: str) -> None:
        self._layout = TableLayout()
        self._lock = threading.Lock()
        self._path = path or ":memory:"
        try:
            self._connection = self._open()
        except sqlite3.Error as error:
            raise ConnectionFailed(f"sqlite:///{path} cannot be opened: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            connection.execute("DELETE FROM items WHERE expires < ?", (int(time.time()),))
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        with self._lock:
            self._connection.close()

    def size(self) -> tuple[int, int]:
        """How many items there are, and their bytes."""
        with self._lock:
            found = self._connection.execute("SELECT count(*), total(length(item)) FROM items")
            items, size = found.fetchone()
        return items, int(size)

    def warm(self, connections: int, timeout: float) -> int:
        """There is one connection, open already."""
        return 1

    def send(self, request: requests.Request, timeout: float) -> Any:
        """Perform one request, waiting at most `timeout` seconds for other writers."""
        if not self._lock.acquire(timeout=timeout):
            raise RequestTimeout("SQLite: other threads kept the database busy.")
        try:
            self._connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
            return self._perform(request)
        except sqlite3.OperationalError as error:
            raise RequestTimeout(f"SQLite: {error}.") from error
        except sqlite3.Error as error:
            raise RequestRefused(f"SQLite: {error}.") from error
        finally:
            self._lock.release()

    def _perform(self, request: requests.Request) -> Any:
        match request:
            case requests.Get(keys):
                return self._get(keys)
            case requests.Merge(changes):
                with self._transaction():
                    return [self._merge(change) for change in changes]
            case requests.Replace(changes):
                with self._transaction():
                    return [self._replace(change) for change in changes]
            case requests.ListPartition(pk, after):
                found = self._connection.execute(
                    "SELECT item FROM items WHERE pk = ? AND sk > ? ORDER BY sk", (pk, after)
                )
                return [item for (item,) in found]
            case requests.ScanKeys(after, limit):
                found = self._connection.execute(
                    "SELECT pk, sk FROM items WHERE (pk, sk) > (?, ?) ORDER BY pk, sk LIMIT ?",
                    (*after, limit),
                )
                return list(starmap(ItemKey, found))
            case requests.ScanItems(after, limit):
                found = self._connection.execute(
                    "SELECT pk, sk, item FROM items WHERE (pk, sk) > (?, ?) ORDER BY pk, sk "
                    "LIMIT ?",
                    (*after, limit),
                )
                return {ItemKey(pk, sk): item for pk, sk, item in found}
            case requests.Transact(swaps):
                with self._transaction():
                    return self._swap_all(swaps)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _get(self, keys: Sequence[ItemKey]) -> dict[ItemKey, bytes]:
        found: dict[ItemKey, bytes] = {}
        for start in range(0, len(keys), _KEYS_A_SELECT):
            some = keys[start : start + _KEYS_A_SELECT]
            places = ",".join(["(?,?)"] * len(some))
            rows = self._connection.execute(
                f"SELECT pk, sk, item FROM items WHERE (pk, sk) IN (VALUES {places})",
                [text for key in some for text in key],
            )
            found.update((ItemKey(pk, sk), item) for pk, sk, item in rows)
        return found

    def _merge(self, change: Change) -> Applied:
        row = self._connection.execute(_SELECT, change.key).fetchone()
        item = parse_item(row[0]) if row else None
        merged = merge(self._layout, item, change)
        if merged is item:
            return Applied.SUPERSEDED
        self._put(change.key, merged)
        if leaves_newer(self._layout, merged, change):
            return Applied.LEFT_NEWER
        wholly = item is None or merged == fresh_item(self._layout, change)
        return Applied.WHOLLY if wholly else Applied.PARTLY

    def _replace(self, change: Change) -> Applied:
        self._put(change.key, None if change.erases else fresh_item(self._layout, change))
        return Applied.WHOLLY

    def _swap_all(self, swaps: Sequence[Swap]) -> bool:
        keyed = {swap.key(self._layout): swap for swap in swaps}
        found = {key: parse_item(item) for key, item in self._get(list(keyed)).items()}
        if any(found.get(key) != swap.before for key, swap in keyed.items()):
            return False
        for key, swap in keyed.items():
            self._put(key, swap.after)
        return True

    def _put(self, key: ItemKey, item: Attributes | None) -> None:
        if item is None:
            self._connection.execute("DELETE FROM items WHERE pk = ? AND sk = ?", key)
            return
        expires = read_number(item.get(self._layout.ttl))
        self._connection.execute(
            "REPLACE INTO items (pk, sk, item, expires) VALUES (?, ?, ?, ?)",
            (*key, render_item(item), expires),
        )
