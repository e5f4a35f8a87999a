"""The registry as a lock file: JSON with one entry a line, in the order of names.

It can be checked in, compared with a table or with a schema, and put into another table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from chalk_online_store.codec.layout import INDEXED
from chalk_online_store.codec.registry import (
    ACTIVE,
    ALIAS,
    RETIRED,
    RETIRED_MARK,
    Entry,
    Registry,
    check_name,
)
from chalk_online_store.errors import RegistryError

_VERSION = 1
_ID = re.compile(rf"({INDEXED})?[A-Za-z0-9]+")


class _LockFile(msgspec.Struct):
    version: int
    entries: list[Entry]


_decoder = msgspec.json.Decoder(_LockFile)


def render_lock(entries: Iterable[Entry]) -> str:
    """A lock file's text: the same for the same entries, whatever their order."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    lines = ",\n".join(f"    {msgspec.json.encode(entry).decode()}" for entry in ordered)
    return f'{{\n  "version": {_VERSION},\n  "entries": [\n{lines}\n  ]\n}}\n'


def parse_lock(text: str | bytes) -> tuple[Entry, ...]:
    """The entries of a lock file; raises `RegistryError` where they cannot be a registry's."""
    try:
        lock = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"This is no lock file of a registry: {error}.") from error
    if lock.version != _VERSION:
        raise RegistryError(f"The lock file has version {lock.version}, not {_VERSION}.")
    for entry in lock.entries:
        _check(entry)
    _check_together(lock.entries)
    return tuple(lock.entries)


def _check(entry: Entry) -> None:
    ending = f"{RETIRED_MARK}{entry.id}"
    check_name(entry.name.removesuffix(ending) if entry.state == RETIRED else entry.name)
    if entry.state not in (ACTIVE, ALIAS, RETIRED) or not _ID.fullmatch(entry.id):
        raise RegistryError(f"{entry.name} of the lock file has no such id or state.")


def _check_together(entries: Sequence[Entry]) -> None:
    """Each name stands once, and each id has one name, aliases apart."""
    names = Counter(entry.name for entry in entries)
    owners = Counter((e.scope, e.id) for e in entries if e.state != ALIAS)
    for entry in entries:
        if names[entry.name] != 1 or owners[entry.scope, entry.id] != 1:
            raise RegistryError(f"{entry.name} of the lock file shares its name or its id.")


@dataclass(frozen=True, slots=True)
class Difference:
    """What one name should be, and what it is."""

    name: str
    what: str
    wanted: str
    found: str


def differences(wanted: Iterable[Entry], found: Registry) -> list[Difference]:
    """Where a registry is not what it should be; that it has more is no difference.

    Of an entry without an id, which comes from a schema, only type and group are compared.
    """
    present = {entry.name: entry for entry in found.entries}
    return [d for entry in wanted for d in _compared(entry, present.get(entry.name))]


def _compared(wanted: Entry, found: Entry | None) -> list[Difference]:
    if found is None:
        return [Difference(wanted.name, "missing", wanted.type, "")]
    if wanted.id in ("", INDEXED):
        wanted = replace(wanted, id=found.id, state=found.state)
    pairs = ((what, getattr(wanted, what), getattr(found, what)) for what in _COMPARED)
    return [Difference(wanted.name, f"other {w}", a, b) for w, a, b in pairs if a != b]


_COMPARED = ("type", "group", "id", "state")
