"""What can still be read of a damaged spool."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

PAGE_BYTES = 4096

IsSound: TypeAlias = Callable[[int, Any, Any], bool]
"""Whether a checksum and a body, which may be anything by now, are those of the record."""

_MOST_LOOKED_UP = 1_000_000
"""Ids that are looked up one by one, where the table cannot be read from end to end."""


def put_aside(path: Path) -> Path:
    """Give a damaged database, and its log, a name that is free; answers it."""
    aside = _free(path)
    path.rename(aside)
    with suppress(FileNotFoundError):
        Path(f"{path}-wal").rename(f"{aside}-wal")
    return aside


def _free(path: Path, suffix: str = "") -> Path:
    """A name for a damaged file that nothing has yet."""
    names = (Path(f"{path}.damaged-{number}{suffix}") for number in count(1))
    return next(name for name in names if not name.exists())


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


# --- the log -------------------------------------------------------------------------------


def commits_in_log(path: Path) -> list[int]:
    """The frames of a database's log that end a commit, from 1 on, read by SQLite or not.

    SQLite reads a log up to the first frame that is damaged, and takes the rest for never written.
    https://www.sqlite.org/fileformat2.html#the_write_ahead_log: a header of 32 bytes, then frames
    of 24 bytes and a page. Header and frames carry the same salts; frames of an older log, which
    are not overwritten yet, have others.
    """
    try:
        log = Path(f"{path}-wal").read_bytes()
    except FileNotFoundError:
        return []
    size = _FRAME.size + PAGE_BYTES
    frames = [_FRAME.unpack_from(log, at) for at in range(_HEADER.size, len(log) - size + 1, size)]
    if not frames:
        return []
    # Any of these may be damaged, but hardly most.
    salts = Counter([*_HEADER.unpack_from(log), *(own for _, own in frames[:2])]).most_common(1)[0][
        0
    ]
    found = enumerate(frames, start=1)
    return [number for number, (commits, own) in found if commits and own == salts]


def copy_log(path: Path) -> Path:
    """Keep a log beside its database, which goes on with another one; answers its name."""
    aside = _free(path, "-wal")
    shutil.copy(f"{path}-wal", aside)
    aside.chmod(0o600)
    return aside


_HEADER = struct.Struct(">16x8s8x")
_FRAME = struct.Struct(">4xI8s8x")
