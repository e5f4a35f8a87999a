"""The spool: what a writer has acknowledged as durable, on disk until it is in the table.

A SQLite database of opaque records, for one writer alone. SQLite brings the log, its recovery
and its locks: in WAL mode with synchronous=FULL, what a commit has acknowledged survives the
crash of the process and of the machine (https://www.sqlite.org/pragma.html#pragma_synchronous),
and a log that was cut off is read up to its last whole commit.

SQLite has no checksums of what is in the database itself, and does not notice if its file is
deleted. So each record has a checksum over its id and its body: records that are altered or
exchanged are found. The row `_TOTALS` of the table `about` has the number of all records and the
XOR of their checksums, changed with every commit: pages that are lost, swapped or replaced by older
ones are found when the spool is opened. Before each commit, the file is looked for by its name.

A transport, as drivers know them: operations reach it by `Send`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import xxhash

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.errors import SpoolDamaged, SpoolError, SpoolFull, SpoolInUse, StoreClosed
from chalk_online_store.logs import event
from chalk_online_store.writer.settings import LOG
from chalk_online_store.writer.signal import OwnerLock

# --- What can still be read of a damaged spool ---------------------------------------------


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


Record: TypeAlias = tuple[int, bytes]
"""The id of a record, and what it holds."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (id INTEGER PRIMARY KEY, checksum BLOB, "table" BLOB);
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY, checksum BLOB NOT NULL, body BLOB NOT NULL
);
"""
_TOTALS = 2
"""The id of the row of `about` that has the totals of all records."""

_LOG_BYTES = 4 << 20
"""The log is put into the database when it has grown to this, about."""

_CLOSE_SECONDS = 10.0
"""How long `close` waits for a commit."""

_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
_SURROUNDINGS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
)


@dataclass(slots=True)
class Commit:
    """Append some records and remove others, all or nothing; answered by the ids, ascending.

    On disk when it is answered, and `ids` is set then. Raises `SpoolFull`, with nothing of it done.
    """

    append: Sequence[bytes]
    remove: Sequence[int] = ()
    ids: list[int] | None = None
    is_given_up: bool = False

    def give_up(self) -> list[int] | None:
        """Do not perform it any more; the ids if it was performed already.

        A pool of threads performs what it was given before it failed to start a thread for it.
        """
        self.is_given_up = True
        return self.ids


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read records; answered by a dict of those that are there, and sound."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Left:
    """The first `limit` records after one, by id: as `Record`s, without damaged ones."""

    after: int
    limit: int


class _Totals(NamedTuple):
    """The number of records, the bytes of their bodies, and the XOR of their checksums."""

    records: int = 0
    size: int = 0
    checksum: int = 0

    def add(self, other: _Totals) -> _Totals:
        return _Totals(
            self.records + other.records, self.size + other.size, self.checksum ^ other.checksum
        )

    def remove(self, other: _Totals) -> _Totals:
        return _Totals(
            self.records - other.records, self.size - other.size, self.checksum ^ other.checksum
        )

    def row(self) -> tuple[int, bytes, bytes]:
        """As a row of the table `about`."""
        return _TOTALS, self.checksum.to_bytes(8), b"%d" % self.records


def _totals_of(record_id: int, body: bytes) -> _Totals:
    return _Totals(1, len(body), int.from_bytes(checksum_of(record_id, body)))


class Spool:
    """A spool for the table that `table` identifies: short ids mean nothing in another.

    It holds at most `max_bytes` of records; SQLite's file is somewhat larger, and does not
    shrink. `damaged` says how many records were found to be lost, one at least where the file
    was damaged; `newest` is the last record that was there when it was opened.

    A damaged file is put aside, as `<path>.damaged-1`, and what can be read of it is kept.

    Raises `SpoolInUse` where another writer, of this process or another, has it open;
    `SpoolError` where it cannot be opened or is another table's.
    """

    def __init__(self, path: str | Path, *, table: str, max_bytes: int = 1 << 30) -> None:
        self.path = Path(path)
        self._table = table
        self._max_bytes = max_bytes
        self._lock = OwnerLock()
        self._pid = os.getpid()
        self._closed = False
        self._records: dict[int, _Totals] = {}
        self._totals = _Totals()
        self._is_in_doubt = False
        self._last = 0
        self.newest = 0
        self.damaged = 0
        self._is_lost = False
        self._open()
        self._files = self._find_files()
        reset_after_fork(self)

    # --- opening ---------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._connection = self._connect()
            try:
                self._take_stock()
            except sqlite3.DatabaseError:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise self._unusable(error) from error
            said = event("spool.damaged", path=self.path, error=error)
            LOG.warning("The spool %s is damaged: %s.", self.path, error, extra=said)
            self._salvage()

    def _connect(self) -> sqlite3.Connection:
        """Open the database, which locks it; raises `SpoolInUse`, `SpoolError`."""
        self._create()
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            commits = commits_in_log(self.path)
            connection.execute("PRAGMA journal_mode = WAL")
            self._check_log(connection, commits)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // PAGE_BYTES}")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT OR IGNORE INTO about VALUES (?, ?, ?)", _Totals().row())
            self._check_table(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_log(self, connection: sqlite3.Connection, commits: Sequence[int]) -> None:
        """Say how many commits SQLite has left unread in a damaged log."""
        _, read, _ = connection.execute("PRAGMA wal_checkpoint").fetchone()
        unread = [frame for frame in commits if frame > read]
        if unread:
            self.damaged += len(unread)
            LOG.error(
                "The log of the spool %s is damaged: %d commits cannot be read. It is kept as %s.",
                self.path, len(unread), copy_log(self.path),
                extra=event("spool.commits_lost", path=self.path, commits=len(unread)),
            )  # fmt: skip

    def _create(self) -> None:
        """An empty file that only its owner may read, for it will hold values.

        One that exists is not opened: to close it would drop all POSIX locks that this process
        has on it, another spool's among them.
        """
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise SpoolError(f"The spool {self.path} cannot be made: {error.strerror}.") from None

    def _check_table(self, connection: sqlite3.Connection) -> None:
        ours = self._table.encode()
        add = "INSERT OR IGNORE INTO about VALUES (1, ?, ?)"
        connection.execute(add, (checksum_of(1, ours), ours))
        checksum, theirs = connection.execute(
            'SELECT checksum, "table" FROM about WHERE id = 1'
        ).fetchone()
        if not is_sound(1, checksum, theirs):
            raise _Unreadable("it does not say which table it is for")
        if theirs != ours:
            raise SpoolError(
                f"The spool {self.path} has rows for the table {theirs.decode()!r}, not for "
                f"{self._table!r}: give each table a spool of its own."
            )

    def _take_stock(self) -> None:
        """Read every record: what is damaged shows now, and nothing more is written beside it."""
        last = 0
        self._records, self._totals = {}, _Totals()
        for record_id, checksum, body in self._connection.execute("SELECT * FROM records"):
            if not is_sound(record_id, checksum, body):
                raise _Unreadable("a record is not what was written")
            if record_id <= last:
                raise _Unreadable("records are out of order")
            last = record_id
            self._add(record_id, body)
        if self._stored_totals() != self._totals.row():
            raise _Unreadable("records are missing")
        self.newest = self._last = last

    def _add(self, record_id: int, body: bytes) -> None:
        self._records[record_id] = _totals_of(record_id, body)
        self._totals = self._totals.add(self._records[record_id])

    def _stored_totals(self) -> tuple[Any, ...] | None:
        found = self._connection.execute("SELECT * FROM about WHERE id = ?", (_TOTALS,))
        row: tuple[Any, ...] | None = found.fetchone()
        return row

    def _salvage(self) -> None:
        """Keep what can be read of a damaged database, in a new one."""
        aside = put_aside(self.path)
        found, lost = records_of(aside, is_sound)
        self._records, self._totals = {}, _Totals()
        for record_id, body in found:
            self._add(record_id, body)
        self._connection = self._connect()
        with self._transaction():
            self._insert(found)
            self._store_totals(self._totals)
        self.newest = self._last = max(self._records, default=0)
        self.damaged += max(1, lost)  # What left no trace at all is not counted.
        LOG.error(
            "%d records of the spool were saved, and %d found that are lost. The damaged file is "
            "kept as %s.", len(found), lost, aside,
            extra=event("spool.salvaged", path=self.path, saved=len(found), lost=lost),
        )  # fmt: skip

    def _is_damaged(self, record_id: int) -> None:
        self.damaged += 1
        LOG.error(
            "Record %d of the spool %s is damaged, and lost.",
            record_id,
            self.path,
            extra=event("spool.record_lost", path=self.path, record=record_id),
        )

    def _unusable(self, error: sqlite3.Error) -> SpoolError:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SpoolInUse(
                f"The spool {self.path} is in use: give each writer of each process its own."
            )
        return SpoolError(f"The spool {self.path} cannot be used: {error}.")

    # --- requests --------------------------------------------------------------------------

    @property
    def records(self) -> int:
        """How many records it holds."""
        return len(self._records)

    @property
    def size(self) -> int:
        """How many bytes these have."""
        return self._totals.size

    def ids(self) -> list[int]:
        """The ids of all records, ascending."""
        return sorted(self._records)

    def send(self, request: Commit | Fetch | Left, timeout: float) -> Any:
        """Perform one request; raises `SpoolError`, of which `SpoolFull` is one."""
        self.check_process()
        if not self._lock.acquire_within(timeout):
            raise SpoolError(f"The spool {self.path} is busy.")
        try:
            if self._closed:
                raise StoreClosed("The spool is closed.")
            if self._is_in_doubt:
                self._look_up_records()
            return self._perform(request)
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        finally:
            self._lock.release()

    @property
    def foreign(self) -> bool:
        """Whether this is a fork of the process that opened it."""
        return self._pid != os.getpid()

    def check_process(self) -> None:
        """Raise `SpoolInUse` in a fork of the process that opened it."""
        if self.foreign:
            raise SpoolInUse(
                f"The spool {self.path} belongs to the process that opened it: open a writer with "
                "a spool of its own after the fork."
            )

    def _perform(self, request: Commit | Fetch | Left) -> Any:
        match request:
            case Commit():
                return self._commit(request)
            case Fetch(ids):
                places = ",".join("?" * len(ids))
                found = dict(self._read(f"WHERE id IN ({places})", ids))
                for record_id in ids:
                    if record_id in self._records and record_id not in found:
                        self._is_damaged(record_id)
                return found
            case Left(after, limit):
                return self._read("WHERE id > ? ORDER BY id LIMIT ?", (after, limit))

    def _commit(self, commit: Commit) -> list[int]:
        self._check_files()
        if commit.is_given_up:
            raise SpoolError("This commit was given up.")
        ids = range(self._last + 1, self._last + 1 + len(commit.append))
        new = dict(zip(ids, commit.append, strict=True))
        gone = {each for each in commit.remove if each in self._records}
        totals = self._totals
        for record_id in gone:
            totals = totals.remove(self._records[record_id])
        added = {record_id: _totals_of(record_id, body) for record_id, body in new.items()}
        for each in added.values():
            totals = totals.add(each)
        if new and totals.size > self._max_bytes:
            raise SpoolFull(f"The spool {self.path} is full: it takes {self._max_bytes:,} bytes.")
        self._last += len(ids)  # Also a commit that fails uses up its ids.
        self._is_in_doubt = True
        try:
            with self._transaction():
                delete = "DELETE FROM records WHERE id = ?"
                self._connection.executemany(delete, [(record_id,) for record_id in gone])
                self._insert(new.items())
                self._store_totals(totals)
        except sqlite3.Error:
            self._is_in_doubt = False  # It was rolled back.
            raise
        for record_id in gone:
            del self._records[record_id]
        self._records |= added
        self._totals = totals
        self._is_in_doubt = False
        commit.ids = list(ids)
        return commit.ids

    def _look_up_records(self) -> None:
        """After a commit whose end is unknown: see which records there are."""
        records, totals = {}, _Totals()
        select = "SELECT id, length(body), checksum FROM records"
        for record_id, size, checksum in self._connection.execute(select):
            records[record_id] = _Totals(1, size, int.from_bytes(checksum))
            totals = totals.add(records[record_id])
        self._records, self._totals = records, totals
        self._is_in_doubt = False

    def _store_totals(self, totals: _Totals) -> None:
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?, ?)", totals.row())

    # --- the files ---

    def _find_files(self) -> dict[str, tuple[int, int]]:
        """The database and its log, by name; each as the file that it is."""
        names = (str(self.path), f"{self.path}-wal")
        found = {name: _identity(name) for name in names}
        return {name: identity for name, identity in found.items() if identity is not None}

    @property
    def is_intact(self) -> bool:
        """Whether its files are where they were made: else nobody can open them again."""
        return all(_identity(name) == identity for name, identity in self._files.items())

    def _check_files(self) -> None:
        if self.is_intact:
            return
        if not self._is_lost:
            self._is_lost = True
            LOG.error(
                "The spool %s was deleted or replaced while it was in use. Rows are not durable "
                "until they are in the table.",
                self.path,
                extra=event("spool.deleted", path=self.path),
            )
        raise SpoolDamaged(
            f"The spool {self.path} was deleted or replaced while it was in use. Open a new writer."
        )

    def _insert(self, records: Iterable[Record]) -> None:
        self._connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?)",
            [(record_id, checksum_of(record_id, body), body) for record_id, body in records],
        )

    def _read(self, where: str, parameters: Sequence[int]) -> list[Record]:
        """The sound records."""
        found = self._connection.execute(f"SELECT * FROM records {where}", parameters)
        sound = []
        for record_id, checksum, body in found:
            if is_sound(record_id, checksum, body):
                sound.append((record_id, body))
            else:
                self._is_damaged(record_id)
        return sound

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._connection.in_transaction:  # An earlier rollback has failed.
            self._connection.execute("ROLLBACK")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _failure(self, error: sqlite3.Error) -> SpoolError:
        if _code(error) in _FULL:
            return SpoolFull(f"The disk of the spool {self.path} is full: {error}.")
        if _is_damage(error):
            return SpoolDamaged(f"The spool {self.path} is damaged: {error}. Open it anew.")
        return self._unusable(error)

    def warm(self, connections: int, timeout: float) -> int:
        """It is open already."""
        return 1

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        if self.foreign:
            return
        if not self._lock.acquire_within(_CLOSE_SECONDS):
            raise SpoolError(f"The spool {self.path} is busy, and cannot be closed.")
        try:
            self._closed = True
            self._connection.close()
        finally:
            self._lock.release()

    def reset(self) -> None:
        """In a fork, never touch the connection again, nor let it be closed.

        To close it would take what is in the log out of the parent's hands: SQLite's "How To
        Corrupt", section 2.6. Nor may it be collected, hence a reference that nobody has.
        """
        self._lock = OwnerLock()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))


def checksum_of(record_id: int, body: bytes) -> bytes:
    """What says that a record is whole, and is this one."""
    return xxhash.xxh3_64_digest(body, seed=record_id)


def is_sound(record_id: int, checksum: Any, body: Any) -> bool:
    """Whether a record is what was written: where there is damage, it may be anything."""
    return isinstance(body, bytes) and checksum == checksum_of(record_id, body)


def _identity(path: str) -> tuple[int, int] | None:
    """The file that a name stands for; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - several times cheaper, and before each commit.
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Unreadable(sqlite3.DatabaseError):
    """What SQLite takes for a sound database, but is not ours any more."""


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether an error is of the database itself, not of its surroundings."""
    return (_code(error) & 0xFF) not in _SURROUNDINGS


def _code(error: sqlite3.Error) -> int:
    """SQLite's; some errors are of Python's module, as for a text that is not UTF-8."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
