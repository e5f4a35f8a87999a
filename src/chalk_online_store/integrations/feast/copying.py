"""Copying the values of one Feast online store to another: for moving to this one.

Feast's DynamoDB store keeps a hash of each entity key, so nobody can list its entities: whoever
copies says which there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from feast import FeatureStore, FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values

from chalk_online_store.arguments import row_list, text_list
from chalk_online_store.errors import InvalidKey, UnknownFeature

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ_AT_ONCE = 500
_READ_AGAIN = 10
"""Keys of a second read: together they stay below the 16 MB that DynamoDB answers at once."""


@dataclass(slots=True)
class Copied:
    """What was copied of a view: entities that were asked for, and of these those not there."""

    view: str
    entities: int = 0
    missing: int = 0


def copy_online(
    source: FeatureStore,
    target: FeatureStore,
    entities: Iterable[Mapping[str, Any]],
    views: Sequence[str] | None = None,
    *,
    progress: Callable[[Copied], None] = lambda copied: None,
) -> list[Copied]:
    """Copy all values of these entities, with their event times, from one store to the other.

    `entities` are rows with the join keys of the views, and perhaps more. `views` are names;
    None for all that are online. The target's definitions have to be applied already. What the
    target has of a later event time stays, so a copy may be repeated, and may go on beside
    whoever writes to both.

    Fields that the target's view does not have are left out.

    Entities that the source answers nothing for are asked for again, a few at a time: Feast's
    DynamoDB store loses what does not fit into one answer. `progress` hears after each part.
    Raises `InvalidKey` for a row without a join key, `UnknownFeature` for a view that is not
    there, and what either store raises.
    """
    rows = row_list(entities, "entities")
    if views is not None:
        views = text_list(views, "views", "names of feature views")
    return [_copy(source, target, view, rows, progress) for view in _views(source, views)]


def _views(source: FeatureStore, names: Sequence[str] | None) -> list[FeatureView]:
    known = {view.name: view for view in source.list_batch_feature_views()}
    known |= {view.name: view for view in source.list_stream_feature_views()}
    for name in names or ():
        if name not in known:
            raise UnknownFeature(f"The source has no feature view {name!r}.")
    wanted = known if names is None else dict.fromkeys(names)
    return [known[name] for name in wanted if names is not None or known[name].online]


def _copy(
    source: FeatureStore,
    target: FeatureStore,
    view: FeatureView,
    rows: Sequence[Mapping[str, Any]],
    progress: Callable[[Copied], None],
) -> Copied:
    copied = Copied(view.name)
    store = target._get_provider().online_store
    into = target.get_feature_view(view.name)
    fields = {field.name for field in into.features}
    keys = iter(_keys(view, rows))
    while some := list(islice(keys, _READ_AT_ONCE)):
        data = [
            (key, {name: value for name, value in values.items() if name in fields}, when, None)
            for key, values, when in _read(source, view, some)
        ]
        if data:
            store.online_write_batch(target.config, into, data, None)
        copied.entities += len(some)
        copied.missing += len(some) - len(data)
        progress(copied)
    return copied


def _keys(view: FeatureView, rows: Sequence[Mapping[str, Any]]) -> Iterator[EntityKey]:
    """Each entity of a view once."""
    names = [column.name for column in view.entity_columns]
    for name in names:
        if any(name not in row for row in rows):
            raise InvalidKey(f"{view.name!r} is keyed by {name!r}, which a row does not have.")
    distinct = list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))
    yield from entity_keys(view, [dict(zip(names, key, strict=True)) for key in distinct])


def entity_keys(view: FeatureView, rows: Sequence[Mapping[str, Any]]) -> Iterator[EntityKey]:
    """The entity key of each row, which has all join keys of the view."""
    names = [column.name for column in view.entity_columns]
    columns = [
        python_values_to_proto_values(
            [row[column.name] for row in rows], column.dtype.to_value_type()
        )
        for column in view.entity_columns
    ]
    for values in zip(*columns, strict=True):
        yield EntityKey(join_keys=names, entity_values=values)


def _read(
    source: FeatureStore, view: FeatureView, keys: Sequence[EntityKey]
) -> Iterator[tuple[EntityKey, dict[str, Any], datetime]]:
    """What is there of some entities, and since when; perhaps also of fields from before."""
    left = list(keys)
    for at_once in (_READ_AT_ONCE, _READ_AGAIN):
        missed = []
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            found = source._get_provider().online_read(source.config, view, some)
            for key, (when, values) in zip(some, found, strict=True):
                moment = event_time(when)
                if values and moment is not None:
                    yield key, values, moment
                else:
                    missed.append(key)
        left = missed


def event_time(when: datetime | None) -> datetime | None:
    """An event time; None for none, which Feast's Redis store answers as 1970."""
    if when is None:
        return None
    aware = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return None if aware == _EPOCH else aware
