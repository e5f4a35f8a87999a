"""What can still be read of a damaged spool."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

IsSound: TypeAlias = Callable[[int, Any, Any], bool]
"""Whether a checksum and a body, which may be anything by now, are those of the record."""

_MOST_LOOKED_UP = 1_000_000
"""Ids that are looked up one by one, where the table cannot be read from end to end."""


def put_aside(path: Path) -> Path:
    """Give a damaged database, and its log, a name that is free; answers it."""
    aside = next(p for n in count(1) if not (p := Path(f"{path}.damaged-{n}")).exists())
    path.rename(aside)
    with suppress(FileNotFoundError):
        Path(f"{path}-wal").rename(f"{aside}-wal")
    return aside


def records_of(path: Path, is_sound: IsSound) -> tuple[list[tuple[int, bytes]], int]:
    """The sound records of a damaged database by id, and how many were found that are not.

    SQLite reads a table up to the first page that is damaged. So it is read from both ends, and
    then each id in between is looked up: that goes by another way through the tree.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        found: dict[int, tuple[Any, Any]] = {}
        for order in ("ASC", "DESC"):
            with suppress(sqlite3.DatabaseError):
                select = f"SELECT * FROM records ORDER BY id {order}"
                for record_id, checksum, body in connection.execute(select):
                    found[record_id] = (checksum, body)
        unreadable = 0
        for record_id in _between(set(found)):
            try:
                found |= _look_up(connection, record_id)
            except sqlite3.DatabaseError:
                unreadable += 1
    sound = [(i, body) for i, (check, body) in sorted(found.items()) if is_sound(i, check, body)]
    return sound, len(found) - len(sound) + unreadable


def _between(known: set[int]) -> Iterator[int]:
    """The ids between those that are known; there may be none."""
    if known:
        last = max(known)
        first = max(min(known), last - _MOST_LOOKED_UP)
        yield from (i for i in range(first, last) if i not in known)


def _look_up(connection: sqlite3.Connection, record_id: int) -> dict[int, tuple[Any, Any]]:
    select = "SELECT checksum, body FROM records WHERE id = ?"
    row = connection.execute(select, (record_id,)).fetchone()
    return {} if row is None else {record_id: tuple(row)}
