"""Changes as records of the spool, and back.

A record names every feature that it has an id of: an id means something only by the registry
that gave it, and a spool may outlive what that says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from chalk_online_store.codec.changes import Change, ChangeTemplate
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.codec.registry import Registry
from chalk_online_store.errors import DamagedItem, UnknownFeature

_VERSION = 1


class Kind(msgspec.Struct, array_like=True, frozen=True):
    """What changes have in common: the group, its form, and the full name of each id in it."""

    group: str
    sk: str
    form: ChangeTemplate
    names: tuple[str, ...]


class EncodedChange(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One change; `row` is the position of its row, `kind` that of its kind."""

    row: int
    kind: int
    pk: str
    observed_at: int
    attributes: tuple[bytes, ...]
    expires_at: int | None


class Record(msgspec.Struct, array_like=True, frozen=True):
    """Changes of rows of one namespace, which had the id that `prefix` begins with."""

    version: int
    namespace: str
    prefix: str
    kinds: tuple[Kind, ...]
    changes: tuple[EncodedChange, ...]


_decoder = msgspec.msgpack.Decoder(Record)
_encode = msgspec.msgpack.Encoder().encode


def encode(codec: NamespaceCodec, planned: Sequence[Planned]) -> bytes:
    """A record of what some rows change."""
    kinds: dict[tuple[str, ChangeTemplate], int] = {}
    changes = [
        (
            row,
            kinds.setdefault((change.key.sk, change.form), len(kinds)),
            change.key.pk,
            change.observed_at,
            change.attributes,
            change.expires_at,
        )
        for row, change in planned
    ]
    named = tuple(_kind(codec, sk, form) for sk, form in kinds)
    return _encode((_VERSION, codec.namespace.name, codec.prefix, named, changes))


def _kind(codec: NamespaceCodec, sk: str, form: ChangeTemplate) -> Kind:
    group = next(group for group in codec.groups.values() if group.sk == sk)
    by_id = {column.id: column.full_name for column in group.columns}
    names = tuple(by_id[name] for name in form.kept + form.gone)
    return Kind(f"{codec.namespace.name}/{group.name}", sk, form, names)


def decode(body: bytes) -> Record:
    """Raises `DamagedItem` for what is no record."""
    try:
        record = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedItem("A record of the spool cannot be read.") from error
    if record.version != _VERSION:
        raise DamagedItem(f"A record of the spool has the unknown version {record.version}.")
    return record


def changes_of(record: Record) -> Iterator[Planned]:
    """The changes of a record, each with the position of its row."""
    for made in record.changes:
        kind = record.kinds[made.kind]
        key = ItemKey(made.pk, kind.sk)
        yield (
            made.row,
            Change(key, made.observed_at, kind.form, made.attributes, made.expires_at),
        )


def check(record: Record, registry: Registry) -> None:
    """Raise `UnknownFeature` where a name stands for another id by now, or for none."""
    expected = [(record.namespace, record.prefix.removesuffix(":"))]
    for kind in record.kinds:
        expected.append((kind.group, kind.sk))
        expected += zip(kind.names, kind.form.kept + kind.form.gone, strict=True)
    for name, name_id in expected:
        entry = registry.by_name.get(name)
        if entry is None or entry.id != name_id:
            raise UnknownFeature(
                f"{name} does not have the id that it was spooled with: it was dropped since, "
                "or this is another table."
            )


def key_text(pk: str) -> str:
    """The primary key in a partition key, as text."""
    return pk.partition(":")[2]


def contents(change: Change, names: Sequence[str]) -> dict[str, Any]:
    """What the attributes of a change hold, as JSON has it; `names` are those of its ids."""
    kept = [next(iter(msgspec.json.decode(each).values())) for each in change.attributes]
    nothing = [None] * len(change.form.gone)
    return dict(zip(names, kept + nothing, strict=True))


def rows_of(record: Record) -> dict[int, dict[str, Any]]:
    """The rows that a record was made of, as far as it tells, by their position."""
    rows: dict[int, dict[str, Any]] = {}
    made = zip(changes_of(record), record.changes, strict=True)
    for (row, change), each in made:
        names = [name.partition(".")[2] for name in record.kinds[each.kind].names]
        found = rows.setdefault(row, {"key": key_text(change.key.pk)})
        found.update(contents(change, names))
    return rows
