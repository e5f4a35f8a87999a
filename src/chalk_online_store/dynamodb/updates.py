"""Changes as DynamoDB's expressions, each small enough for the engine.

The short cut: one request under the condition that nothing in the item is newer, which needs no
knowledge of the item. It is an UpdateItem, or for a whole change whose expression would be too
long a PutItem: that names no attributes. The exact way, for when that condition was refused: the
engine returns the item with its refusal (`ReturnValuesOnConditionCheckFailure`),
`codec.changes.merge` says what becomes of it, and one UpdateItem makes just that difference,
under the condition that the observed-at that it was computed from are still the same.

A refused request is billed like the write itself, so the short cut comes in three forms, and
`dynamodb.expectations` chooses one by what earlier requests found:

- `Expected.PLAIN`: nothing is newer, and for a whole change no feature has its own observed-at.
- `Expected.OWN_TIMES`, whole changes: features may have their own observed-at, which the request
  removes. `BASE` is set and not removed: an unknown feature of a newer schema may have its own
  observed-at, and an item without `BASE` promises that there is none.
- `Expected.NEWER`, partial changes: another feature of the item is newer, none of the change is.
  The request leaves the item's newest observed-at and its expiry as they are.

AWS limits an expression to 4 KB and 300 operators. Expressions are measured as they are rendered:
their length depends on the number of features, on the length of ids, on how many features were
dropped, and on what the item holds. A change that does not fit is sent in parts, which `sendable`
and `smaller` make: applied one after the other, they have the effect of the whole.

The PutItem replaces the whole item, so its condition is stricter: no part of the group was
written apart, no newer schema wrote the group, and the entity was never erased. Then the item has
nothing that the change does not replace. For this, the mark of parts that were written apart
(`BASE`) stays once it is there: a newer schema can write a feature between the read and the write
of the exact way, and this process cannot name that feature in a condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ChangeTemplate,
    Difference,
    Times,
    features_of,
    is_same,
    number,
    template_of,
)
from chalk_online_store.codec.layout import BASE, ERASED, LATEST, WIDTH, TableLayout, own

MAX_EXPRESSION_BYTES = 4096
"""AWS: the length of one expression, in bytes of UTF-8."""

MAX_OPERATORS = 300
"""AWS: the operators and functions of one expression."""

_json = msgspec.json.encode
_NESTED = b"if_not_exists(#__b,if_not_exists("
_OPERATORS = re.compile(r"\b(?:AND|OR|NOT|attribute_not_exists|if_not_exists)\b|<=|<|>|(?<![<])=")
_NOTHING_NEWER = "(attribute_not_exists(#__l) OR #__l<=:_t)"
_ALL_OLDER = "(attribute_not_exists(#__l) OR #__l<:_t)"
_NO_NEWER_SCHEMA = "(attribute_not_exists(#__w) OR #__w<=:_w)"
_WHOLE = f"attribute_not_exists(#__b) AND {_NO_NEWER_SCHEMA}"
_NEVER_ERASED = "attribute_not_exists(#__e)"


class Expected(Enum):
    """What a short cut expects to find in the item."""

    PLAIN = "plain"
    OWN_TIMES = "own times"
    NEWER = "newer"


class ShortCut(NamedTuple):
    """An operation, and the members of its request: expressions, or the condition of a put."""

    operation: str
    members: bytes
    expected: Expected = Expected.PLAIN

    @property
    def is_nested(self) -> bool:
        """True if its expression has an `if_not_exists` within another."""
        return self.operation == "UpdateItem" and _NESTED in self.members


Sendable: TypeAlias = tuple[Change, ShortCut]


def fits(update: str, condition: str) -> bool:
    """Return True if AWS takes these expressions."""
    return (
        len(update.encode()) <= MAX_EXPRESSION_BYTES
        and len(condition.encode()) <= MAX_EXPRESSION_BYTES
        and len(_OPERATORS.findall(condition)) <= MAX_OPERATORS
    )


def sendable(
    layout: TableLayout, change: Change, again: bool, expect: Callable[[ChangeTemplate], Expected]
) -> Iterator[Sendable]:
    """The changes, with a short cut each, that do together what `change` does.

    `again` is as for `short_cut`; `expect` returns what to expect for changes of a form.
    """
    found = short_cut(layout, change, again, expect(change.form))
    if found is not None:
        yield change, found
    else:
        for half in halves(change):
            yield from sendable(layout, half, again, expect)


def halves(change: Change) -> Iterator[Change]:
    """Split a change of at least two features into two partial ones."""
    return change.split(-(-len(change.values) // 2))


def smaller(layout: TableLayout, item: Attributes, change: Change) -> list[Change]:
    """Replace a change that does not fit by several, to be applied one after the other."""
    if change.erases:  # With the older features gone, nothing is left to name.
        older = Times(item).erasable(layout, change.observed_at)
        return [change.partial(dict.fromkeys(older)), change]
    if change.form.whole and not is_late(item, change):
        differing = {n: v for n, v in change.values.items() if not is_same(item.get(n), v)}
        if differing:  # The rest then fits, and removes the own times of all features.
            half = list(differing.items())[: -(-len(differing) // 2)]
            return [change.partial(dict(half)), change]
    return list(halves(change))


def is_late(item: Attributes, change: Change) -> bool:
    """Whether something in the item is newer than the change."""
    return Times(item).latest > change.observed_at


def short_cut(
    layout: TableLayout, change: Change, again: bool, expected: Expected = Expected.PLAIN
) -> ShortCut | None:
    """A request that applies a change unless something is newer; None if it does not fit.

    `again` refuses also what is as new, for it may be the same: the exact way finds out. If the
    form for what is expected does not fit, the plain one is returned.
    """
    if change.erases:
        return ShortCut("PutItem", _put_condition(change, again))
    if expected is Expected.NEWER and not change.form.whole:
        template = _beside_newer_template(change.form, again)
        if template is not None:
            members = template % (change.observed_at, *change.attributes)
            return ShortCut("UpdateItem", members, expected)
    expires = change.expires_at is not None
    if expected is Expected.OWN_TIMES and change.form.whole:
        template = _short_cut_template(layout, change.form, expires, again, own_times=True)
        if template is not None:
            members = template % (*change.times, *change.attributes)
            return ShortCut("UpdateItem", members, expected)
    template = _short_cut_template(layout, change.form, expires, again)
    if template is not None:
        return ShortCut("UpdateItem", template % (*change.times, *change.attributes))
    if change.form.whole:
        return ShortCut("PutItem", _put_condition(change, again))
    return None


def _put_condition(change: Change, again: bool) -> bytes:
    """Render the condition under which a fresh item may replace the stored one."""
    condition = _ALL_OLDER if again else _NOTHING_NEWER
    names, values = {"#__l": LATEST}, {":_t": number(change.observed_at)}
    if not change.erases:
        condition += f" AND {_WHOLE} AND {_NEVER_ERASED}"
        names |= {"#__b": BASE, "#__w": WIDTH, "#__e": ERASED}
        values[":_w"] = number(change.form.width)
    return b'"ConditionExpression":%b,"ExpressionAttributeNames":%b,%b' % (
        _json(condition),
        _json(names),
        b'"ExpressionAttributeValues":{%b}'
        % b",".join(b'"%b":%b' % (n.encode(), v) for n, v in values.items()),
    )


@lru_cache(maxsize=4096)
def _short_cut_template(
    layout: TableLayout, form: ChangeTemplate, expires: bool, again: bool, own_times: bool = False
) -> bytes | None:
    """An UpdateItem with a place for each time and value: the rest is the same for every entity.

    None if it does not fit. That does not depend on the values. `own_times` makes a whole
    change remove each feature's own observed-at.
    """
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
    if form.whole:
        removals += [f"#{name}" for name in form.dropped]
        names |= {f"#{name}": name for name in form.dropped}
        names["#__w"] = WIDTH
        values[":_w"] = number(form.width)
        assignments.append("#__w=:_w")
        if own_times:
            known = kept + gone + form.dropped
            names |= {f"#_{name}": own(name) for name in known}
            removals += [f"#_{name}" for name in known]
            assignments.append("#__b=:_t")
            condition += f" AND {_NO_NEWER_SCHEMA}"
        else:  # Without `BASE`, on which it insists, there are no own times to remove.
            condition += f" AND {_WHOLE}"
    else:
        names |= {f"#_{name}": own(name) for name in kept + gone}
        values[":_z"] = number(0)
        assignments += [f"#_{name}=:_t" for name in kept + gone]
        assignments.append("#__b=if_not_exists(#__b,if_not_exists(#__l,:_z))")
    update = _expression(assignments, removals)
    if not fits(update, condition):
        return None
    return b'%b,"ExpressionAttributeValues":%b' % (
        _members(update, condition, names).replace(b"%", b"%%"),
        template_of(values),
    )


@lru_cache(maxsize=4096)
def _beside_newer_template(form: ChangeTemplate, again: bool) -> bytes | None:
    """An UpdateItem of a partial change to an item of which another feature is newer.

    None if it does not fit. A feature without its own observed-at is as old as `BASE`. If the
    entity was ever erased, that does not hold for an absent feature, so the exact way has to
    find out.
    """
    kept, gone = form.kept, form.gone
    less = "<" if again else "<="
    names = {f"#{name}": name for name in kept + gone}
    names |= {f"#_{name}": own(name) for name in kept + gone}
    names |= {"#__l": LATEST, "#__b": BASE, "#__e": ERASED}
    values = {":_t": b'{"N":"%d"}'} | {f":{name}": b"%b" for name in kept}
    assignments = [f"#{name}=:{name}" for name in kept]
    assignments += [f"#_{name}=:_t" for name in kept + gone]
    condition = " AND ".join(
        [
            "#__l>:_t",
            f"#__b{less}:_t",
            _NEVER_ERASED,
            *(f"(attribute_not_exists(#_{n}) OR #_{n}{less}:_t)" for n in kept + gone),
        ]
    )
    update = _expression(assignments, [f"#{name}" for name in gone])
    if not fits(update, condition):
        return None
    return b'%b,"ExpressionAttributeValues":%b' % (
        _members(update, condition, names).replace(b"%", b"%%"),
        template_of(values),
    )


def exact(
    layout: TableLayout, item: Attributes, difference: Difference, change: Change
) -> bytes | None:
    """The members of an UpdateItem that makes a difference to an item if its times are unchanged.

    None if it does not fit. A whole change that is newer than all need not watch each feature's
    own observed-at: it removes them, whatever they have become since.
    """
    alias = _Aliases()
    values, removed = difference
    watched = [LATEST, BASE, WIDTH, ERASED]
    if change.form.whole and not is_late(item, change):
        removed = removed | ({own(name) for name in change.values} - values.keys())
        if BASE in removed and not _has_short_update(layout, change):
            # A newer schema may have written a feature apart since the item was read. Without
            # `BASE`, the next whole change would replace that feature by a PutItem.
            removed, values = removed - {BASE}, values | {BASE: number(change.observed_at)}
    else:
        watched += _own_times(layout, values.keys() | removed)
    assignments = [f"{alias.name(n)}={alias.value(v)}" for n, v in values.items()]
    removals = [alias.name(name) for name in sorted(removed)]
    condition = " AND ".join(alias.unchanged(n, item.get(n)) for n in watched)
    update = _expression(assignments, removals)
    if not fits(update, condition):
        return None
    members = _members(update, condition, alias.names)
    return b'%b,"ExpressionAttributeValues":{%b}' % (members, b",".join(alias.values))


def _has_short_update(layout: TableLayout, change: Change) -> bool:
    """Return True if the short cut of a change is an UpdateItem."""
    expires = change.expires_at is not None
    return _short_cut_template(layout, change.form, expires, False) is not None


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
