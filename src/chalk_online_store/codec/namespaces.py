"""A namespace with its ids: what turns keys into partition keys and rows into changes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from chalk_online_store.codec.bulk import EncodeAll, encoder_of_all, encoder_of_stored
from chalk_online_store.codec.changes import Change, ChangeTemplate
from chalk_online_store.codec.columns import ColumnBatch, Row, Stored
from chalk_online_store.codec.keys import keys_decoder, keys_encoder
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.policies import Action, Policy, policy_of
from chalk_online_store.codec.registry import ACTIVE, RETIRED, Comparison, Entry, Registry
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.codec.values import Encode
from chalk_online_store.errors import InvalidKey, UnknownFeature
from chalk_online_store.schema import Feature, Namespace
from chalk_online_store.schema.types import struct_fields

T = TypeVar("T")

Planned = tuple[int, Change]
"""The position of a row among others, and a change that it makes."""

_PLANS_KEPT = 1024

_MOST_CLEARED = 100
"""Dropped features that a whole write clears away: an expression of DynamoDB's holds 4 KB."""


class TypeRun(NamedTuple):
    """Features of one type: their values, of many rows, are encoded together."""

    names: tuple[str, ...]
    values_of: Callable[[Iterable[Row]], Sequence[Any]]
    encode_all: EncodeAll
    encode_stored: EncodeAll

    def encode(self, rows: Iterable[Row]) -> Iterator[Sequence[bytes]]:
        """A column of attributes for each feature."""
        encoded, width = self.encode_all(self.values_of(rows)), len(self.names)
        return (encoded[place::width] for place in range(width))

    def encode_columns(self, columns: Mapping[str, Sequence[Any]]) -> Iterator[Sequence[bytes]]:
        """The same of values that come as columns."""
        for column in map(columns.__getitem__, self.names):
            encode = self.encode_stored if isinstance(column, Stored) else self.encode_all
            yield encode(column)


class GroupEncodePlan(NamedTuple):
    """How rows of the same names are written to one group.

    Where features have policies, the rows' values decide on the form as well: then it is None.
    """

    ids: tuple[str, ...]
    form: ChangeTemplate | None
    runs: tuple[TypeRun, ...]


@dataclass(frozen=True)
class GroupCodec:
    """One group: the features that live in one item.

    `active` is how many features of the group the registry has; `columns` may be fewer, where
    the schema leaves some out. `retired` are the ids of those that were dropped.
    """

    name: str
    sk: str
    columns: tuple[Column, ...]
    active: int
    retired: tuple[str, ...]
    shape: Shape

    @property
    def width(self) -> int:
        """How many features the group ever had: it never shrinks."""
        return self.active + len(self.retired)

    @cached_property
    def _by_type(self) -> list[list[Column]]:
        """Columns that are encoded alike lie together: the order in which items are written."""
        kinds: dict[Any, list[Column]] = {}
        for column in self.columns:
            kinds.setdefault((column.codec, column.feature.nullable), []).append(column)
        return list(kinds.values())

    @cached_property
    def _encoders(self) -> list[tuple[str, str, Encode]]:
        """Name, id and encoder of each feature."""
        columns = chain.from_iterable(self._by_type)
        return [(column.feature.name, column.id, column.encode) for column in columns]

    @cached_property
    def _policies(self) -> list[tuple[str, str, Policy]]:
        """Name, id and policy of each feature that does not simply store what it is given."""
        policies = [(c.feature.name, c.id, policy_of(c.feature, c.encode)) for c in self.columns]
        return [(name, name_id, policy) for name, name_id, policy in policies if policy]

    @cached_property
    def staleness(self) -> int | None:
        """The longest that any feature can be served, in microseconds; None for ever.

        None as well where the schema leaves features out: it cannot know for how long those are.
        """
        if len(self.columns) < self.active:
            return None
        ages = [column.feature.staleness for column in self.columns]
        return None if None in ages else max(age for age in ages if age is not None)

    def expires_at(self, observed_at: int) -> int | None:
        """When nothing written at `observed_at` (UTC us) can be served any more, in UTC s."""
        if self.staleness is None:
            return None
        return -(-(observed_at + self.staleness) // 1_000_000)

    def change(self, pk: str, row: Row, observed_at: int) -> Change | None:
        """What a row says of this group; None where it says nothing. Raises `InvalidValue`."""
        values: dict[str, bytes | None] = {
            name_id: encode(row[name]) for name, name_id, encode in self._encoders if name in row
        }
        return self._change(pk, row, values, observed_at)

    def _change(
        self, pk: str, row: Row, values: dict[str, bytes | None], observed_at: int
    ) -> Change | None:
        for name, name_id, policy in self._policies:
            if name in row:
                _apply(policy(row[name], values[name_id] or b""), name_id, values)
        return self.change_of(pk, values, observed_at) if values else None

    def change_of(self, pk: str, values: Mapping[str, bytes | None], observed_at: int) -> Change:
        """A change of some features by id; None as a value removes the feature."""
        return Change.of(
            ItemKey(pk, self.sk),
            observed_at,
            values,
            whole=len(values) == self.active and None not in values.values(),
            width=self.width,
            expires_at=self.expires_at(observed_at),
            dropped=self._cleared,
        )

    @property
    def _cleared(self) -> tuple[str, ...]:
        return self.retired[:_MOST_CLEARED]

    def plan(self, names: Container[str]) -> GroupEncodePlan | None:
        """For rows of these names; None where they say nothing of this group."""
        found = [[c for c in columns if c.feature.name in names] for columns in self._by_type]
        runs = tuple(_run(columns) for columns in found if columns)
        ids = tuple(column.id for columns in found for column in columns)
        form = ChangeTemplate(ids, (), len(ids) == self.active, self.width, self._cleared)
        decided = not any(name in names for name, _, _ in self._policies)
        return GroupEncodePlan(ids, form if decided else None, runs) if runs else None

    def changes(
        self, plan: GroupEncodePlan, pks: Sequence[str], rows: Sequence[Row], times: Sequence[int]
    ) -> list[Change | None]:
        """As `change` says of each row. Raises anything for a bad value: `change` says what."""
        if isinstance(rows, ColumnBatch):
            columns = (run.encode_columns(rows.columns) for run in plan.runs)
        else:
            columns = (run.encode(rows) for run in plan.runs)
        encoded = zip(*chain.from_iterable(columns), strict=True)
        form, sk = plan.form, self.sk
        if form is None:
            values = (dict(zip(plan.ids, attributes, strict=True)) for attributes in encoded)
            return list(map(self._change, pks, rows, values, times))
        expiries = {time: self.expires_at(time) for time in set(times)}
        return [
            Change(ItemKey(pk, sk), time, form, attributes, expiries[time])
            for pk, time, attributes in zip(pks, times, encoded, strict=True)
        ]


def _run(columns: Sequence[Column]) -> TypeRun:
    feature, encode = columns[0].feature, columns[0].codec.encode
    names = tuple(column.feature.name for column in columns)
    get = itemgetter(*names)

    def values_of(rows: Iterable[Row]) -> Sequence[Any]:
        values = map(get, rows)
        return list(values if len(columns) == 1 else chain.from_iterable(values))

    encode_all = encoder_of_all(feature.type, encode, feature.nullable)
    return TypeRun(names, values_of, encode_all, encoder_of_stored(feature.nullable))


def _at(positions: Sequence[int], of: Sequence[T]) -> Sequence[T]:
    return of if len(positions) == len(of) else [of[position] for position in positions]


def _apply(action: Action, name_id: str, values: dict[str, bytes | None]) -> None:
    if action is Action.LEAVE:
        del values[name_id]
    elif action is Action.REMOVE:
        values[name_id] = None


@dataclass(frozen=True)
class NamespaceCodec:
    """A namespace as one reading of the registry encodes it."""

    namespace: Namespace
    registry: Registry
    layout: TableLayout

    @cached_property
    def prefix(self) -> str | None:
        """What every partition key begins with; None where nothing was ever written."""
        entry = self.registry.by_name.get(self.namespace.name)
        return f"{entry.id}:" if entry else None

    @cached_property
    def compared(self) -> Comparison:
        """How the schema and the registry agree."""
        return self.registry.compare(self.namespace)

    @property
    def missing(self) -> list[Entry]:
        """What the registry lacks of the schema."""
        return self.compared.missing

    @cached_property
    def agrees(self) -> bool:
        """Whether the registry has all of the schema, and as the schema has it."""
        missing, conflicts, damage = self.compared
        return not missing and not conflicts and damage is None

    def check(self) -> None:
        """Raise `TypeConflict` or `RegistryError` if the namespace cannot be used at all."""
        if self.compared.damage is not None:
            raise self.compared.damage.error()

    def check_features(self, names: Iterable[str]) -> None:
        """Raise `TypeConflict` or `RegistryError` if a feature is registered otherwise."""
        conflicts = self.compared.conflicts
        for name in names if conflicts else ():
            if name in conflicts:
                raise conflicts[name].error()

    @cached_property
    def _encode_keys(self) -> Callable[[str, Sequence[Any]], list[str]]:
        return keys_encoder(self.namespace.name, self.namespace.key)

    def partition_keys(self, keys: Sequence[Any]) -> list[str]:
        """The partition key of each primary key; raises `InvalidKey`."""
        return self._encode_keys(self.prefix or "", keys)

    def primary_keys(self, pks: Sequence[str]) -> list[Any]:
        """The primary key of each partition key; raises `DamagedItem`."""
        return keys_decoder(self.namespace.key)(self.prefix or "", pks)

    @cached_property
    def groups(self) -> dict[str, GroupCodec]:
        """The groups that have an id."""
        return {
            name: self._group(name, features)
            for name, features in self.namespace.groups.items()
            if f"{self.namespace.name}/{name}" in self.registry.by_name
        }

    def _group(self, name: str, features: tuple[Feature, ...]) -> GroupCodec:
        entries = self.registry.by_name
        columns = tuple(
            Column(entries[full_name].id, feature, full_name, self._field_ids(feature))
            for feature in features
            if (full_name := self.namespace.full_name(feature)) in entries
            and feature.name not in self.compared.conflicts
        )
        return GroupCodec(
            name,
            entries[f"{self.namespace.name}/{name}"].id,
            columns,
            len(self.registry.ids_of_group(self.namespace.name, name, ACTIVE)),
            self.registry.ids_of_group(self.namespace.name, name, RETIRED),
            Shape(self.layout, columns),
        )

    def _field_ids(self, feature: Feature) -> dict[str, str]:
        """The ids of the fields of every struct in a feature, by path."""
        paths = (path for path, _ in struct_fields(feature.type, self.namespace.full_name(feature)))
        entries = self.registry.by_name
        return {path: entries[path].id for path in paths if path in entries}

    @cached_property
    def _plans(self) -> Callable[[tuple[str, ...]], list[tuple[GroupCodec, GroupEncodePlan]]]:
        return lru_cache(maxsize=_PLANS_KEPT)(self._compile)

    def _compile(self, names: tuple[str, ...]) -> list[tuple[GroupCodec, GroupEncodePlan]]:
        """How rows of these names are written, group by group; raises `UnknownFeature`."""
        plans = [(group, plan) for group in self.groups.values() if (plan := group.plan(names))]
        if sum(len(plan.ids) for _, plan in plans) + 1 != len(names):
            self._refuse_unknown(names)
        return plans

    def changes_of_rows(self, rows: Sequence[Row], times: Sequence[int]) -> list[Planned]:
        """What rows write, each observed at its time (UTC us): the changes of each row, in order.

        Raises anything for what `changes` refuses: call that to learn what is wrong.
        """
        if isinstance(rows, ColumnBatch):
            return self._of_columns(rows, times)
        alike: dict[tuple[str, ...], list[int]] = {}
        for position, row in enumerate(rows):
            alike.setdefault(tuple(row), []).append(position)
        planned: list[Planned] = []
        for names, positions in alike.items():
            some, moments = _at(positions, rows), _at(positions, times)
            if len(some) == 1:  # Too few to encode together, and perhaps of names of its own.
                changes = self.changes(some[0], moments[0])
                planned += [(positions[0], change) for change in changes]
            else:
                planned += self._together(names, positions, some, moments)
        planned.sort(key=itemgetter(0))
        return planned

    def _of_columns(self, batch: ColumnBatch, times: Sequence[int]) -> list[Planned]:
        planned = self._together(tuple(batch.columns), range(len(batch)), batch, times)
        return sorted(planned, key=itemgetter(0))

    def _together(
        self,
        names: tuple[str, ...],
        positions: Sequence[int],
        rows: Sequence[Row],
        times: Sequence[int],
    ) -> Iterator[Planned]:
        """The changes of rows of the same names, group by group."""
        if isinstance(rows, ColumnBatch):
            keys = rows.columns[self.namespace.key_name]
        else:
            keys = list(map(itemgetter(self.namespace.key_name), rows))
        pks = self.partition_keys(keys)
        for group, plan in self._plans(names):
            changes = group.changes(plan, pks, rows, times)
            yield from ((p, c) for p, c in zip(positions, changes, strict=True) if c is not None)

    def changes(self, row: Row, observed_at: int) -> list[Change]:
        """What a row writes, one change per group that it touches.

        Raises `InvalidKey`, `InvalidValue`, and `UnknownFeature` for a name that is no feature.
        """
        name = self.namespace.key_name
        if name not in row:
            raise InvalidKey(f"A row of {self.namespace.name!r} has no primary key {name!r}.")
        (pk,) = self.partition_keys([row[name]])
        changes = [group.change(pk, row, observed_at) for group in self.groups.values()]
        found = [change for change in changes if change is not None]
        if sum(len(change.values) for change in found) + 1 != len(row):
            self._refuse_unknown(row)
        return found

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        self.check_features(names)
        for name in names:
            if name != self.namespace.key_name and name not in self.namespace.by_name:
                self.namespace.feature(name)
                raise UnknownFeature(f"A row calls features by their short name, not {name!r}.")
            if f"{self.namespace.name}.{name}" in self.registry.dropped:
                raise UnknownFeature(f"{self.namespace.name}.{name} was dropped.")
