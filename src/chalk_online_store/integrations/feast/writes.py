"""Writing rows of a feature view, and registering and dropping its features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from chalk_online_store.backend import Call
from chalk_online_store.codec.registry import ACTIVE, Entry
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import (
    InvalidValue,
    OnlineStoreError,
    UnknownFeature,
    WriteFailed,
)
from chalk_online_store.integrations.feast.views import (
    KEY,
    Catalogue,
    JoinKeys,
    View,
    entity_of,
    escaped,
    informed,
    join_keys_of,
    keys_of,
)
from chalk_online_store.operations.times import check_not_ahead, time_of
from chalk_online_store.operations.write import Ordering

FeastRow = tuple[EntityKey, Mapping[str, Value], datetime, datetime | None]
"""What Feast has a store write: the entity, its values, when they were true, when made."""


class Batch(NamedTuple):
    """Rows of one namespace, and the time of each."""

    keys: JoinKeys
    rows: Sequence[Mapping[str, Any]]
    times: Sequence[datetime]


def split_by_event_time(
    data: Sequence[FeastRow], latest: int | None
) -> tuple[list[FeastRow], dict[int, OnlineStoreError]]:
    """Return the rows that have a valid event time, and why each other row has not, by position.

    An event time is valid if it is from 1970 on, not after `latest` (UTC us), and not null, NaT, or
    finer than a microsecond.
    """
    valid: list[FeastRow] = []
    refused: dict[int, OnlineStoreError] = {}
    for position, row in enumerate(data):
        event_time: Any = row[2]  # pandas gives null as None or NaT.
        try:
            time = time_of(_aware(event_time) if isinstance(event_time, datetime) else event_time)
            check_not_ahead([time], latest)
        except InvalidValue as error:
            refused[position] = error
        else:
            valid.append(row)
    return valid, refused


def raise_refused(view: View, refused: Mapping[int, OnlineStoreError]) -> None:
    """Raise `WriteFailed` if rows were refused for their event times; the others are written."""
    if refused:
        position, error = next(iter(refused.items()))
        raise WriteFailed(
            f"{len(refused)} rows of the feature view {view.group!r} were not written, because of "
            f"their event timestamps. The first is at position {position}: {error} All other rows "
            "are written. The positions are in .failed; correct these rows and write them again.",
            refused,
        ) from error


def batch_of(view: View, data: Sequence[FeastRow]) -> Batch:
    """Feast's rows as ours, in the order of their times; of one entity's only those that count.

    Raises `InvalidKey`, `InvalidValue`, `UnknownFeature`.
    """
    keys, ids = keys_of([entity_of(key) for key, *_ in data])
    ordered = sorted(
        (_aware(when), _aware(_created(made, when)), place)
        for place, (*_, when, made) in enumerate(data)
    )
    latest: dict[Any, list[tuple[datetime, dict[str, Any]]]] = {}
    for when, _, place in ordered:
        row = {KEY: ids[place], **_encoded(view, keys, data[place][1])}
        of_entity = latest.setdefault(ids[place], [])
        if of_entity and of_entity[-1][1].keys() <= row.keys():
            of_entity.pop()
        of_entity.append((when, row))
    kept = [pair for pairs in latest.values() for pair in pairs]
    return Batch(keys, [row for _, row in kept], [when for when, _ in kept])


def _aware(moment: datetime) -> datetime:
    """Feast has times without a zone mean UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _created(created: datetime | None, event_time: datetime) -> datetime:
    """Return when a row was created, or its event time if that is null or NaT."""
    return created if created is not None and created == created else event_time  # noqa: PLR0124


def _encoded(view: View, keys: JoinKeys, values: Mapping[str, Value]) -> dict[str, Any]:
    kinds, names = view.kinds, view.names
    row = {}
    for field, value in values.items():
        if field in kinds:
            row[names[field]] = kinds[field].encode(value, field)
        elif field not in keys.names:  # On-demand views hand over those of their sources, too.
            raise UnknownFeature(f"The feature view {view.group!r} has no field {field!r}.")
    return row


def write(
    catalogue: Catalogue,
    project: str,
    view: View,
    data: Sequence[FeastRow],
    *,
    ordering: Ordering,
    key_ttl: int | None,
    timeout: float,
) -> Operation[None]:
    """Write rows, by event time: late, older ones change nothing.

    `key_ttl` is in seconds from now. Raises as `batch_of` does, and `WriteFailed`.
    """
    batch = batch_of(view, data)
    attempt = partial(_write, catalogue, project, view, batch, ordering, key_ttl, timeout)
    yield from informed(catalogue, attempt, timeout)


def _write(
    catalogue: Catalogue,
    project: str,
    view: View,
    batch: Batch,
    ordering: Ordering,
    key_ttl: int | None,
    timeout: float,
) -> Operation[None]:
    keys, rows, times = batch
    namespace = catalogue.namespace(project, keys, [view])
    expires_at = None
    if view.expires and key_ttl:
        now: Instant = yield NOW
        expiry = now.wall + key_ttl * 1_000_000
        rows = [{**row, view.expires: expiry} for row in rows]
        expires_at = -(-expiry // 1_000_000)
    yield from catalogue.core.write(
        namespace,
        rows,
        observed_at=times,
        ordering=ordering,
        timeout=timeout,
        expires_at=expires_at,
    )


def update(
    catalogue: Catalogue,
    project: str,
    kept: Sequence[tuple[View, FeatureView]],
    deleted: Collection[str],
    timeout: float,
) -> Operation[None]:
    """Register the features of views that are kept; drop those of fields and views that are not.

    `deleted` are groups. What is of another type now is dropped and registered anew.
    """
    core = catalogue.core
    now: Instant = yield NOW
    call = Call(now.monotonic + timeout)
    registry = yield from core.registry.load(call)
    by_group = {view.group: view for view, _ in kept}
    doomed = [
        entry.name
        for entry in registry.entries
        if _is_feature_of(entry, project) and _is_gone(entry, by_group, deleted)
    ]
    if doomed:
        catalogue.forget({*deleted, *by_group})
        yield from core.registry.drop(doomed, call)
    for keys, views in _by_keys(kept).items():
        namespace = catalogue.namespace(project, keys, views)
        codec = yield from core.registry.for_write(namespace, call)
        codec.check_features(namespace.by_name)


def _is_feature_of(entry: Entry, project: str) -> bool:
    in_project = entry.name.startswith(f"feast@{escaped(project)}@")
    return in_project and entry.state == ACTIVE and bool(entry.group)


def _is_gone(entry: Entry, kept: Mapping[str, View], deleted: Collection[str]) -> bool:
    if entry.group in deleted:
        return True
    view = kept.get(entry.group)
    if view is None:
        return False
    types = {feature.name: feature.type.name for feature in view.features}
    return types.get(entry.name.partition(".")[2]) != entry.type


def _by_keys(kept: Sequence[tuple[View, FeatureView]]) -> dict[JoinKeys, list[View]]:
    found: dict[JoinKeys, list[View]] = {}
    for view, table in kept:
        keys = join_keys_of(table)
        if keys is not None:
            found.setdefault(keys, []).append(view)
    return found
