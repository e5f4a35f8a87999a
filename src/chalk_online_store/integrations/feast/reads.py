"""Reading feature views: all those of a request at once, and Feast's answer made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from chalk_online_store.effects import NOW, All, Instant, Operation
from chalk_online_store.integrations.feast.values import Kind
from chalk_online_store.integrations.feast.views import Catalogue, JoinKeys, View, informed, keys_of
from chalk_online_store.operations.rows import Rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONCURRENCY = 32
_PRESENT: int = FieldStatus.PRESENT
_NULL: int = FieldStatus.NULL_VALUE
_MISSING: int = FieldStatus.NOT_FOUND
_EXPIRED: int = FieldStatus.OUTSIDE_MAX_AGE

Times = Sequence[int | None]
"""When values were true, in UTC microseconds; None where there is none."""


class Ask(NamedTuple):
    """Some fields of a view, and the entities that they are wanted of."""

    view: View
    fields: Sequence[str]
    entities: Sequence[Mapping[str, Value]]


class Column(NamedTuple):
    """One field of a view: a feature's value and a `FieldStatus` for each entity."""

    field: str
    kind: Kind
    values: Sequence[Any]
    statuses: Sequence[int]
    times: Times


def read(
    catalogue: Catalogue, project: str, asked: Sequence[Ask], consistent: bool, timeout: float
) -> Operation[list[list[Column]]]:
    """The columns of each view that is asked for, in one trip.

    Raises `InvalidKey`, `InvalidSchema`, `ReadFailed` where an entity could not be read, and
    what `OnlineStore.read` raises.
    """
    attempt = partial(_read, catalogue, project, asked, consistent, timeout)
    return (yield from informed(catalogue, attempt, timeout))


def _read(
    catalogue: Catalogue, project: str, asked: Sequence[Ask], consistent: bool, timeout: float
) -> Operation[list[list[Column]]]:
    core, trips, operations = catalogue.core, _trips(asked), []
    for keys, ids, members in trips:
        namespace = catalogue.namespace(project, keys, [ask.view for ask in members])
        prepared = core.prepare(namespace, feature_names(members), None)
        operations.append(core.read(prepared, ids, consistent, timeout))
    found: list[Rows] = yield from _all(operations)
    now: Instant = yield NOW
    answers = {
        id(ask): columns_of(rows, ask, now.wall)
        for rows, (_, _, members) in zip(found, trips, strict=True)
        for ask in members
    }
    return [answers.get(id(ask), []) for ask in asked]


def _trips(asked: Sequence[Ask]) -> list[tuple[JoinKeys, list[Any], list[Ask]]]:
    """What is asked for of the same entities together."""
    trips: list[tuple[JoinKeys, list[Any], list[Ask]]] = []
    for ask in asked:
        if not ask.entities or not ask.fields:
            continue
        keys, ids = keys_of(ask.entities)
        for other_keys, other_ids, members in trips:
            if keys == other_keys and ids == other_ids:
                members.append(ask)
                break
        else:
            trips.append((keys, ids, [ask]))
    return trips


def feature_names(asked: Sequence[Ask]) -> tuple[str, ...]:
    """The features that are read for some views, expiries included."""
    names = [ask.view.names[field] for ask in asked for field in ask.fields]
    expiries = [ask.view.expires for ask in asked if ask.view.expires]
    return tuple(dict.fromkeys([*names, *expiries]))


def _all(operations: Sequence[Operation[Rows]]) -> Operation[list[Rows]]:
    if len(operations) == 1:
        return [(yield from operations[0])]
    rows: list[Rows] = (yield All(operations, _CONCURRENCY)) if operations else []
    return rows


def columns_of(rows: Rows, ask: Ask, now: int) -> list[Column]:
    """The columns of a view's fields in rows, at `now` (UTC us)."""
    view = ask.view
    expired = partial(_expired, *_expiries(rows, view), now)
    oldest = 0 if view.max_age is None else now - view.max_age
    columns = []
    for field in ask.fields:
        name = view.names[field]
        found: Sequence[Any] = rows.column(name)
        times = rows.times(name)
        if view.expires:
            found = expired(found, times)
        statuses = _statuses(found, times, oldest)
        if _EXPIRED in statuses:
            found = [None if value is _Gone else value for value in found]
        columns.append(Column(field, view.kinds[field], found, statuses, times))
    return columns


class _Gone:
    """Stands for a value past its `key_ttl_seconds`."""


def _expiries(rows: Rows, view: View) -> tuple[Sequence[Any], Times]:
    return (rows.column(view.expires), rows.times(view.expires)) if view.expires else ((), ())


def _expired(
    expiries: Sequence[Any], written: Times, now: int, found: Sequence[Any], times: Times
) -> Sequence[Any]:
    """The values, `_Gone` in place of expired ones.

    An expiry is that of the values that were written with it, not of later ones.
    """
    return [
        _Gone if _is_past(expiry, at, time, now) else value
        for value, time, expiry, at in zip(found, times, expiries, written, strict=True)
    ]


def _is_past(expiry: int | None, at: int | None, time: int | None, now: int) -> bool:
    if expiry is None or at is None or time is None:
        return False
    return time <= at and expiry <= now


def _statuses(found: Sequence[Any], times: Times, oldest: int) -> list[int]:
    if any(value is None or value is _Gone for value in found):
        return [_status(*pair, oldest) for pair in zip(found, times, strict=True)]
    return [_PRESENT] * len(found)


def _status(value: Any, time: int | None, oldest: int) -> int:
    if time is None:
        return _MISSING
    if value is None:
        return _EXPIRED if time < oldest else _NULL
    return _EXPIRED if value is _Gone else _PRESENT


def is_present(status: int) -> bool:
    """Return True for a value that is served and no null."""
    return status == _PRESENT


# --- as Feast's stores answer --------------------------------------------------------------

OnlineRow = tuple[datetime | None, dict[str, Value] | None]
"""What `online_read` answers for an entity: when, and each feature; two Nones for neither."""


def online_rows(columns: Sequence[Column], count: int) -> list[OnlineRow]:
    """What `online_read` answers for `count` entities: without what is missing or expired."""
    rows: list[dict[str, Value]] = [{} for _ in range(count)]
    for field, kind, values, statuses, _ in columns:
        for row, value, status in zip(rows, values, statuses, strict=True):
            if status in (_PRESENT, _NULL):
                row[field] = kind.dump(value)
    times = _event_times(columns) or [None] * count
    return [
        (_EPOCH + timedelta(microseconds=time), row) if row and time is not None else (None, None)
        for row, time in zip(rows, times, strict=True)
    ]


def _event_times(columns: Sequence[Column]) -> Times:
    """The newest time of each entity's values."""
    every = [columns[0].times] if columns else []
    for column in columns[1:]:
        if column.times is not every[-1] and column.times not in every:
            every.append(column.times)
    if len(every) < 2:
        return every[0] if every else []
    return [max((t for t in times if t is not None), default=None) for times in zip(*every)]  # noqa: B905


def respond(
    response: GetOnlineFeaturesResponse,
    columns: Sequence[Column],
    places: Sequence[int],
    prefix: str,
) -> int:
    """Put columns into a response, and tell how many values were found.

    `places` is the entity of each row that is answered.
    """
    response.metadata.feature_names.val.extend(f"{prefix}{column.field}" for column in columns)
    moments = [_timestamp(time) for time in _event_times(columns)]
    in_order = list(places) == list(range(len(moments)))

    def at_places(found: Sequence[Any]) -> Sequence[Any]:
        return found if in_order else [found[place] for place in places]

    event_timestamps, found = at_places(moments), 0
    for _, kind, values, of_entities, _ in columns:
        statuses = at_places(of_entities)
        found += statuses.count(_PRESENT) + statuses.count(_NULL)
        result = response.results.add(statuses=statuses, event_timestamps=event_timestamps)
        kind.dump_all(at_places(values), result.values)
    return found


def absent(ask: Ask) -> list[Column]:
    """The columns of no entities."""
    return [Column(field, ask.view.kinds[field], (), (), ()) for field in ask.fields]


def _timestamp(time: int | None) -> Timestamp:
    if time is None:
        return Timestamp()
    seconds, microseconds = divmod(time, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)
