"""Changes as DynamoDB's expressions.

The short cut: one UpdateItem under the condition that nothing in the item is newer, which needs
no knowledge of the item. The exact way, for when that condition was refused: the engine brings
the item back with its refusal (`ReturnValuesOnConditionCheckFailure`), `codec.changes.merge`
says what becomes of it, and one UpdateItem makes just that difference, under the condition that
the observed-at that it was reckoned from are still the same.

AWS limits an expression to 4 KB, which `MAX_WHOLE` and `MAX_PARTIAL` features stay below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    Form,
    Times,
    features_of,
    number,
    template_of,
)
from chalk_online_store.codec.layout import BASE, ERASED, LATEST, WIDTH, TableLayout, own

MAX_WHOLE = 300
"""Features that one whole change may have; above it is sent as partial ones."""

MAX_PARTIAL = 100
"""Features that one partial change may have."""

_json = msgspec.json.encode
_NOTHING_NEWER = "(attribute_not_exists(#__l) OR #__l<=:_t)"
_ALL_OLDER = "(attribute_not_exists(#__l) OR #__l<:_t)"


def sendable(change: Change) -> Iterator[Change]:
    """The changes, each small enough for one request, that do together what `change` does."""
    form = change.form
    limit = MAX_WHOLE if form.whole else MAX_PARTIAL
    if len(form.kept) + len(form.gone) <= limit:
        yield change
    else:
        yield from change.split(MAX_PARTIAL)


def late(layout: TableLayout, item: Attributes, change: Change) -> Iterator[Change]:
    """`sendable`, for a change that met an item with something newer in it."""
    if not change.form.whole or not is_late(item, change):
        yield change
    elif change.erases:
        yield from _late_erasure(layout, item, change)
    else:
        yield from change.split(MAX_PARTIAL)


def is_late(item: Attributes, change: Change) -> bool:
    """Whether something in the item is newer than the change."""
    return Times(item).latest > change.observed_at


def _late_erasure(layout: TableLayout, item: Attributes, change: Change) -> Iterator[Change]:
    """Removals, where there are more than one request can hold, and the erasure itself."""
    older = Times(item).erasable(layout, change.observed_at)
    if len(older) > MAX_PARTIAL:
        yield from change.partial(dict.fromkeys(older)).split(MAX_PARTIAL)
    yield change


def erase(change: Change, again: bool) -> bytes:
    """The members of a PutItem that let a tombstone replace the item unless something is newer.

    `again` refuses also what is as new, for it may be the same: the exact way finds out.
    """
    condition = _ALL_OLDER if again else _NOTHING_NEWER
    return (
        b'"ConditionExpression":%b,"ExpressionAttributeNames":{"#__l":%b},'
        b'"ExpressionAttributeValues":{":_t":%b}'
    ) % (_json(condition), _json(LATEST), number(change.observed_at))


def short_cut(layout: TableLayout, change: Change, again: bool) -> bytes:
    """The members of an UpdateItem that applies a change unless something is newer.

    `again` is as for `erase`.
    """
    template = _short_cut_template(layout, change.form, change.expires_at is not None, again)
    return template % (*change.times, *change.attributes)


@lru_cache(maxsize=4096)
def _short_cut_template(layout: TableLayout, form: Form, expires: bool, again: bool) -> bytes:
    """A short cut with a place for each time and value: the rest is the same for every entity."""
    kept, gone = form.kept, form.gone
    values = {":_t": b'{"N":"%d"}'}
    if expires:
        values[":_x"] = b'{"N":"%d"}'
    values |= {f":{name}": b"%b" for name in kept}
    names = {f"#{name}": name for name in kept + gone}
    names |= {"#__l": LATEST, "#__b": BASE, "#__x": layout.ttl}
    assignments = [f"#{name}=:{name}" for name in kept] + ["#__l=:_t"]
    removals = [f"#{name}" for name in gone]
    if expires:
        assignments.append("#__x=:_x")
    else:
        removals.append("#__x")
    condition = _ALL_OLDER if again else _NOTHING_NEWER
    if form.whole:  # Without `BASE`, on which it insists, there are no own times to remove.
        removals += [f"#{name}" for name in form.dropped]
        names |= {f"#{name}": name for name in form.dropped}
        names["#__w"] = WIDTH
        values[":_w"] = number(form.width)
        assignments.append("#__w=:_w")
        condition += " AND attribute_not_exists(#__b) AND (attribute_not_exists(#__w) OR #__w<=:_w)"
    else:
        names |= {f"#_{name}": own(name) for name in kept + gone}
        values[":_z"] = number(0)
        assignments += [f"#_{name}=:_t" for name in kept + gone]
        assignments.append("#__b=if_not_exists(#__b,if_not_exists(#__l,:_z))")
    members = _members(_expression(assignments, removals), condition, names)
    return b'%b,"ExpressionAttributeValues":%b' % (
        members.replace(b"%", b"%%"),
        template_of(values),
    )


def difference(layout: TableLayout, item: Attributes, merged: Attributes, change: Change) -> bytes:
    """The members of an UpdateItem that makes `merged` of `item` if its times are unchanged.

    A whole change that is newer than all need not watch each feature's own observed-at: it
    removes them, whatever they have become since.
    """
    alias = _Aliases()
    gone = item.keys() - merged.keys()
    watched = [LATEST, BASE, WIDTH, ERASED]
    changed = {name: value for name, value in merged.items() if item.get(name) != value}
    if change.form.whole and not is_late(item, change):
        gone |= {own(name) for name in change.values} - merged.keys()
    else:
        watched += _own_times(layout, changed.keys() | gone)
    assignments = [f"{alias.name(n)}={alias.value(v)}" for n, v in changed.items()]
    removals = [alias.name(name) for name in sorted(gone)]
    condition = " AND ".join(alias.unchanged(n, item.get(n)) for n in watched)
    members = _members(_expression(assignments, removals), condition, alias.names)
    return b'%b,"ExpressionAttributeValues":{%b}' % (members, b",".join(alias.values))


def _own_times(layout: TableLayout, names: Iterable[str]) -> list[str]:
    """The own observed-at of each feature that an attribute of these names belongs to."""
    return [own(name) for name in features_of(dict.fromkeys(names, b""), layout)]


def _expression(assignments: list[str], removals: list[str]) -> str:
    clauses = (("SET", assignments), ("REMOVE", removals))
    return " ".join(f"{verb} {','.join(parts)}" for verb, parts in clauses if parts)


def _members(update: str, condition: str, names: dict[str, str]) -> bytes:
    return b'"UpdateExpression":%b,"ConditionExpression":%b,"ExpressionAttributeNames":%b' % (
        _json(update),
        _json(condition),
        _json(names),
    )


class _Aliases:
    """Placeholders, handed out as they are needed."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: list[bytes] = []
        self._known: dict[str, str] = {}

    def name(self, attribute: str) -> str:
        if attribute not in self._known:
            self._known[attribute] = f"#{len(self._known):x}"
            self.names[self._known[attribute]] = attribute
        return self._known[attribute]

    def value(self, attribute: bytes) -> str:
        placeholder = f":{len(self.values):x}"
        self.values.append(b'"%b":%b' % (placeholder.encode(), attribute))
        return placeholder

    def unchanged(self, attribute: str, value: bytes | None) -> str:
        if value is None:
            return f"attribute_not_exists({self.name(attribute)})"
        return f"{self.name(attribute)}={self.value(value)}"
