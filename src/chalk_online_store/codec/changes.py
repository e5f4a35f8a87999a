"""Event time: what a write does to an item, whatever order writes arrive in.

`merge` is the one truth of it. Backends that hold the item apply it as it stands; DynamoDB's
expressions take the short cut where nothing in the item is newer than the write, and fall back
on it where something is.

Between two writes of one feature the newer observed-at wins; of two equal ones, the later to
arrive. A removal is a write in time too: the feature's own observed-at stays behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from chalk_online_store.codec.compiled import kernels
from chalk_online_store.codec.layout import BASE, ERASED, LATEST, WIDTH, ItemKey, TableLayout, own
from chalk_online_store.codec.values import UNREADABLE, Integer, Text
from chalk_online_store.errors import DamagedItem

T = TypeVar("T")

Attributes: TypeAlias = Mapping[str, bytes]
"""An item: attribute names to values in DynamoDB's JSON."""

_BOOKKEEPING = frozenset((LATEST, BASE, WIDTH, ERASED))
_number = msgspec.json.Decoder(Integer, strict=False)
_text = msgspec.json.Decoder(Text)
_attributes = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ChangeTemplate(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What all changes that speak of the same features have in common: requests are made of it.

    `kept` are the ids of features that get a value, `gone` of those that are removed. A `whole`
    change speaks of every feature of the group, of which `width` are known. `dropped` are ids
    that stand for nothing any more: a whole change clears them away.
    """

    kept: tuple[str, ...]
    gone: tuple[str, ...]
    whole: bool
    width: int
    dropped: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True, gc=False):
    """What one write does to one item.

    `attributes` are the values of the features that its form keeps, in that order. A whole
    change without any erases the entity. `expires_at`, in UTC seconds, is when the last of the
    item's features can no longer be served; None for never.
    """

    key: ItemKey
    observed_at: int
    form: ChangeTemplate
    attributes: tuple[bytes, ...]
    expires_at: int | None

    @classmethod
    def of(
        cls,
        key: ItemKey,
        observed_at: int,
        values: Mapping[str, bytes | None],
        whole: bool,
        width: int,
        expires_at: int | None,
        dropped: tuple[str, ...] = (),
    ) -> Change:
        """A change from feature ids to attributes; None removes the feature."""
        kept = tuple(name for name, value in values.items() if value is not None)
        gone = tuple(name for name, value in values.items() if value is None)
        attributes = tuple(value for value in values.values() if value is not None)
        form = ChangeTemplate(kept, gone, whole, width, dropped)
        return cls(key, observed_at, form, attributes, expires_at)

    @property
    def values(self) -> dict[str, bytes | None]:
        """Attributes by feature id; None for a feature that is removed."""
        kept: dict[str, bytes | None] = dict(zip(self.form.kept, self.attributes, strict=True))
        return kept | dict.fromkeys(self.form.gone)

    @property
    def times(self) -> tuple[int, ...]:
        """When it was observed and, if ever, when it expires: for templates."""
        if self.expires_at is None:
            return (self.observed_at,)
        return self.observed_at, self.expires_at

    @property
    def erases(self) -> bool:
        """Whether it leaves nothing but a tombstone."""
        return self.form.whole and not self.attributes

    @property
    def deletes(self) -> bool:
        """Whether it removes features, or the entity, and writes nothing."""
        return not self.attributes

    def partial(self, values: Mapping[str, bytes | None]) -> Change:
        """The same of these values alone."""
        width, expires_at = self.form.width, self.expires_at
        return Change.of(self.key, self.observed_at, values, False, width, expires_at)

    def split(self, size: int) -> Iterator[Change]:
        """Partial changes of at most `size` features that do the same, in any order."""
        pairs = list(self.values.items())
        for start in range(0, len(pairs), size):
            yield self.partial(dict(pairs[start : start + size]))


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise DamagedItem("An item's key or times cannot be read.") from error


def number(value: int) -> bytes:
    """An int as an attribute."""
    return b'{"N":"%d"}' % value


def read_number(attribute: bytes | None) -> int | None:
    """The int in an attribute; None where there is no attribute."""
    return None if attribute is None else _decoded(_number, attribute).N


def parse_item(body: bytes) -> dict[str, bytes]:
    """An item in DynamoDB's JSON to its attributes."""
    return {name: bytes(value) for name, value in _decoded(_attributes, body).items()}


def render_item(item: Attributes) -> bytes:
    """Attributes to an item in DynamoDB's JSON."""
    encode = msgspec.json.encode
    return b"{%b}" % b",".join(b"%b:%b" % (encode(name), value) for name, value in item.items())


def is_same(one: bytes | None, other: bytes | None) -> bool:
    """Return True if two attributes have the same value, in any form of JSON.

    Engines and proxies write one value in many forms: with white space, with other escapes, a
    number with an exponent, a set or a map in another order.
    """
    if one == other or one is None or other is None:
        return one == other
    try:
        return bool(
            _comparable(msgspec.json.decode(one)) == _comparable(msgspec.json.decode(other))
        )
    except (*UNREADABLE, AttributeError, ArithmeticError, TypeError):
        return False


def _comparable(attribute: Any) -> Any:
    """Return the value of an attribute, with its type, in a form that Python can compare."""
    ((kind, content),) = attribute.items()
    match kind:
        case "N":
            content = Decimal(content)
        case "NS":
            content = frozenset(map(Decimal, content))
        case "SS" | "BS":
            content = frozenset(content)
        case "L":
            content = [_comparable(part) for part in content]
        case "M":
            content = {name: _comparable(part) for name, part in content.items()}
    return kind, content


class Difference(NamedTuple):
    """The attributes of an item that change: new values, and removed names."""

    values: dict[str, bytes]
    removed: set[str]


def difference(layout: TableLayout, item: Attributes, merged: Attributes) -> Difference:
    """Return the attributes to set and to remove in `item` to get `merged`.

    Key attributes are never included: they identify the item, and DynamoDB refuses to set them.
    """
    keys = {layout.pk, layout.sk}
    values = {
        name: value
        for name, value in merged.items()
        if name not in keys and not is_same(item.get(name), value)
    }
    return Difference(values, item.keys() - merged.keys() - keys)


def key_attributes(layout: TableLayout, key: ItemKey) -> dict[str, bytes]:
    """The two attributes that identify an item."""
    encode = msgspec.json.encode
    return {layout.pk: b'{"S":%b}' % encode(key.pk), layout.sk: b'{"S":%b}' % encode(key.sk)}


def key_of(layout: TableLayout, item: Mapping[str, bytes | msgspec.Raw]) -> ItemKey:
    """The key of an item."""
    if layout.pk not in item or layout.sk not in item:
        raise DamagedItem("An item has no key.")
    pk, sk = (_decoded(_text, item[name]).S for name in (layout.pk, layout.sk))
    return ItemKey(str(pk), str(sk))


def fresh_item(layout: TableLayout, change: Change) -> dict[str, bytes]:
    """The item that a whole change leaves when nothing was there, or all of it is replaced."""
    item = key_attributes(layout, change.key)
    item[LATEST] = number(change.observed_at)
    item[WIDTH] = number(change.form.width)
    if change.erases:
        item[ERASED] = number(change.observed_at)
    if change.expires_at is not None:
        item[layout.ttl] = number(change.expires_at)
    item.update(zip(change.form.kept, change.attributes, strict=True))
    return item


def render_fresh(layout: TableLayout, change: Change) -> bytes:
    """`render_item(fresh_item(layout, change))`, by a template for all changes of the form."""
    if change.erases:
        return render_item(fresh_item(layout, change))
    expires = change.expires_at is not None
    render = _fresh_renderer(layout, change.form, expires)
    if render is not None:
        made = render(*change.key, change.times, change.attributes)
        if made is not None:
            return made
    template = _fresh_template(layout, change.form, expires)
    pk, sk = map(msgspec.json.encode, change.key)
    return template % (pk, sk, *change.times, *change.attributes)


@lru_cache(maxsize=4096)
def _fresh_template(layout: TableLayout, form: ChangeTemplate, expires: bool) -> bytes:
    """A fresh item with a place for each value."""
    text, time = b'{"S":%b}', b'{"N":"%d"}'
    item = {layout.pk: text, layout.sk: text, LATEST: time, WIDTH: number(form.width)}
    if expires:
        item[layout.ttl] = time
    return template_of(item | dict.fromkeys(form.kept, b"%b"))


@lru_cache(maxsize=4096)
def _fresh_renderer(
    layout: TableLayout, form: ChangeTemplate, expires: bool
) -> Callable[[str, str, tuple[int, ...], tuple[bytes, ...]], bytes | None] | None:
    """Return the compiled form of a template: the parts between its values, and what joins them."""
    compiled = kernels()
    if compiled is None:
        return None
    template = _fresh_template(layout, form, expires)
    # JSON holds no NUL.
    marked = re.sub(rb"%(.)", lambda found: b"%" if found[1] == b"%" else b"\0", template)
    return partial(compiled.render, tuple(marked.split(b"\0")))


def template_of(members: Mapping[str, bytes]) -> bytes:
    """A JSON object with places for values: no name is taken for a place."""
    encode = msgspec.json.encode
    named = ((encode(name).replace(b"%", b"%%"), value) for name, value in members.items())
    return b"{%b}" % b",".join(b"%b:%b" % pair for pair in named)


class Times:
    """The observed-at of all that is in an item."""

    def __init__(self, item: Attributes) -> None:
        self._item = item
        self.latest = read_number(item.get(LATEST)) or 0
        """The newest of all; 0 where nothing was ever known."""
        self.base = read_number(item.get(BASE) or item.get(LATEST)) or 0
        """That of each value without one of its own."""
        self.erased = read_number(item.get(ERASED)) or 0
        """When all of it was last erased; 0 for never."""

    def of(self, feature_id: str) -> int:
        """When a feature's value, or its absence, was true; 0 where nothing was ever known."""
        own_time = read_number(self._item.get(own(feature_id)))
        if own_time is not None:
            return own_time
        return self.base if feature_id in self._item else self.erased

    def erasable(self, layout: TableLayout, time: int) -> list[str]:
        """The features in the item of which an erasure at `time` says something new."""
        names = features_of(self._item, layout)
        return [n for n in names if self.of(n) < time or (self.of(n) == time and n in self._item)]


def features_of(item: Attributes, layout: TableLayout) -> list[str]:
    """The ids of the features that an item holds a value or an own observed-at of."""
    names = item.keys() - _BOOKKEEPING - layout.reserved
    return sorted({name.removeprefix(LATEST) for name in names})


def merge(layout: TableLayout, item: Attributes | None, change: Change) -> Attributes:
    """The item after a change: the very object that was given where the change came too late.

    `item` is None where there is none.
    """
    if item is None:
        return fresh_item(layout, change) if change.form.whole else _set({}, layout, change)
    times = Times(item)
    if change.form.whole and change.observed_at >= times.latest:
        return _rebase(item, times, layout, change)
    if change.erases:
        return _erase_late(item, times, layout, change)
    values = {
        name: value for name, value in change.values.items() if times.of(name) <= change.observed_at
    }
    return _set(item, layout, change.partial(values)) if values else item


def leaves_newer(layout: TableLayout, merged: Attributes, change: Change) -> bool:
    """Return True if `merged`, the item after a delete, still has values that it was to remove."""
    if not change.deletes:
        return False
    names = features_of(merged, layout) if change.erases else change.form.gone
    return any(name in merged for name in names)


def _set(item: Attributes, layout: TableLayout, change: Change) -> Attributes:
    """Apply every value of a change, each under its own observed-at."""
    merged = {**key_attributes(layout, change.key), **item}
    merged.setdefault(BASE, merged.get(LATEST, number(0)))
    for name, value in change.values.items():
        merged[own(name)] = number(change.observed_at)
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    if change.observed_at >= (read_number(merged.get(LATEST)) or 0):
        merged[LATEST] = number(change.observed_at)
        _set_expiry(merged, layout, change.expires_at)
    return merged


def _rebase(item: Attributes, times: Times, layout: TableLayout, change: Change) -> Attributes:
    """A whole change that is newer than all: features it does not know keep their own times."""
    merged = fresh_item(layout, change)
    if change.erases:
        return merged
    known = {*change.form.kept, *change.form.gone, *change.form.dropped}
    for name in features_of(item, layout):
        if name in known:
            continue
        merged[BASE] = merged[LATEST]
        merged[own(name)] = number(times.of(name))
        if name in item:
            merged[name] = item[name]
    if ERASED in item:
        merged[ERASED] = item[ERASED]
    return merged


def _erase_late(item: Attributes, times: Times, layout: TableLayout, change: Change) -> Attributes:
    """Erase what is older than the change, and remember it of all that is absent."""
    time = change.observed_at
    older = times.erasable(layout, time)
    if not older and time <= times.erased:
        return item
    gone = {attribute for name in older for attribute in (name, own(name))}
    kept = {name: value for name, value in item.items() if name not in gone}
    return {**kept, ERASED: number(max(time, times.erased))}


def _set_expiry(item: dict[str, bytes], layout: TableLayout, expires_at: int | None) -> None:
    if expires_at is None:
        item.pop(layout.ttl, None)
    else:
        item[layout.ttl] = number(expires_at)


# --- Two changes of one item as one, or as less, before any of them is sent ----------------
#
# What remains does to an item what both would have done one after the other: `changes.merge` is
# the truth of that, and the tests hold this module to it.


def subtract_newer(older: Change, newer: Change) -> Change | None:
    """What is left to say of a change once one that is as new or newer is said; None for nothing.

    A whole change is left whole, for it also says that it is: only all of it can be left out.
    """
    if newer.erases:
        return None
    if older.erases:  # It also speaks of features that neither of them knows.
        return older
    spoken = {*newer.form.kept, *newer.form.gone}
    values = older.values
    if values.keys() <= spoken and (newer.form.whole or not older.form.whole):
        return None
    if older.form.whole or values.keys().isdisjoint(spoken):
        return older
    return older.partial({name: value for name, value in values.items() if name not in spoken})


def merge_changes(earlier: Change, later: Change) -> Change | None:
    """Two changes of one observed-at as one, of which the later to arrive wins; None if two."""
    if earlier.erases or later.form.whole:  # A later whole one leaves nothing of the earlier.
        return None
    values = {**earlier.values, **later.values}
    whole = earlier.form.whole
    if whole and (None in values.values() or len(values) > len(earlier.form.kept)):
        return None
    form = earlier.form
    width = max(form.width, later.form.width)
    expires_at = later.expires_at
    return Change.of(
        earlier.key, earlier.observed_at, values, whole, width, expires_at, form.dropped
    )


# --- Swaps: items that become others on the condition that they are as they were read ------
#
# A transaction of swaps is all or nothing, which is what keeps the registry consistent.


MAX_TRANSACT_ITEMS = 100
"""AWS: TransactWriteItems takes 100 actions."""


@dataclass(frozen=True, slots=True)
class ConditionalWrite:
    """What an item has to be, and what it becomes.

    None as `before` says that there must be no such item, None as `after` removes it; one of
    them is given.
    """

    before: Attributes | None
    after: Attributes | None

    def key(self, layout: TableLayout) -> ItemKey:
        """The key of the item."""
        return key_of(layout, self.after or self.before or {})
