"""Messages to rows: JSON, Avro, Protobuf, or a function of the user's.

A topic has rows of one namespace, or query results. Bytes are decoded by a library (the standard
library's `json`, `fastavro`, `protobuf`) to an object, whose members become features by the rules
of `chalk-online-store put`. The observed-at is a member, a header, or the message's timestamp. It
is never the current time: a message that is delivered again must have the same observed-at.

Errors name members and types, never values: they are logged and sent to dead-letter topics.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from chalk_online_store.arguments import kind_of
from chalk_online_store.errors import InvalidSchema, InvalidValue, MissingDependency
from chalk_online_store.integrations.json_rows import JsonRows
from chalk_online_store.integrations.text_values import (
    CONVERSION_ERRORS,
    Unexact,
    json_converter,
    read_json,
)
from chalk_online_store.integrations.time_zones import in_zone, zone_of
from chalk_online_store.operations.times import time_of
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.service import DecodedRow, Message

if TYPE_CHECKING:
    from chalk_online_store.integrations.persistence.config import TopicConfig
    from chalk_online_store.operations.core import Core

Unit: TypeAlias = Literal["s", "ms", "us"]
"""The unit of an integer observed-at, since 1970 in UTC."""

ReadObject: TypeAlias = Callable[[bytes], dict[str, Any]]
"""Decodes the bytes of a message to an object. Raises `InvalidValue`."""

DecodeFunction: TypeAlias = Callable[[Message], Any]
"""A user's decoder: returns a mapping, or an iterable of mappings and `DecodedRow`s, or None."""

_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_LAST_MOMENT = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""

_FRAME_HEADER_BYTES = 5
"""A zero byte and the id of the schema, as serializers of a schema registry write them."""

_RESULT_MEMBERS = {"query", "inputs", "features", "version", "max_staleness", "observed_at"}


# --- observed-at -----------------------------------------------------------------------------


class ObservedAtReader:
    """Reads the observed-at of a message: "timestamp", "header:NAME", or the path of a member.

    A path such as "after.ts" names a member of an inner object.
    """

    def __init__(self, source: str, unit: Unit | None, zone: str | None) -> None:
        self._zone = zone_of(zone)
        self._scale = None if unit is None else _MICROSECONDS[unit]
        self._header = source.removeprefix("header:") if source.startswith("header:") else None
        self._path = [] if self._header or source == "timestamp" else source.split(".")
        self._what = f"The observed-at ({source})"

    def read(self, message: Message, members: dict[str, Any]) -> int:
        """Return UTC microseconds, and remove the member. Raises `InvalidValue`."""
        if self._path:
            *outer, last = self._path
            for name in outer:
                members = _object(members.get(name), name)
            return self._convert(members.pop(last, None))
        if self._header is not None:
            value = message.header(self._header)
            return self._convert(None if value is None else _utf8(value, self._what))
        if message.timestamp is None:
            raise InvalidValue(
                "The message has no timestamp. Name the member or header of its observed-at."
            )
        return self._checked(message.timestamp)

    def _convert(self, value: Any) -> int:
        if value is None:
            raise InvalidValue(f"{self._what} is missing or null.")
        if isinstance(value, str):
            return self._of_text(value.strip())
        if isinstance(value, datetime):
            return self._of_datetime(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue(
                f"{self._what} must be ISO 8601 or a whole number; got {kind_of(value)}."
            )
        if self._scale is None:
            raise InvalidValue(
                f'{self._what} is a number. Set observed_at_unit to "s", "ms", "us".'
            )
        return self._checked(value * self._scale)

    def _of_text(self, text: str) -> int:
        if text.isdecimal():
            return self._convert(int(text)) if len(text) <= 20 else self._checked(-1)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidValue(f"{self._what} is not ISO 8601.") from None
        return self._of_datetime(found)

    def _of_datetime(self, value: datetime) -> int:
        try:
            return time_of(in_zone(value, self._zone))
        except InvalidValue:
            raise InvalidValue(f"{self._what} has no time zone, or is before 1970.") from None
        except ValueError:
            raise InvalidValue(f"{self._what} does not exist in its time zone.") from None

    def _checked(self, microseconds: int) -> int:
        if not 0 <= microseconds <= _LAST_MOMENT:
            raise InvalidValue(f"{self._what} is before 1970 or after 9999. Check its unit.")
        return microseconds


def _utf8(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidValue(f"{what} is not UTF-8.") from None


# --- bytes to objects ------------------------------------------------------------------------


def read_json_object(value: bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises `InvalidValue`."""
    try:
        return _object(read_json(_utf8(value, "The message")))
    except Unexact as error:
        raise InvalidValue(f"The message cannot be read: {error}.") from None


def avro_reader(schema: Any, *, framed: bool) -> ReadObject:
    """Return a decoder of Avro records without a file header, of one schema.

    `framed` messages begin with the five bytes of a schema registry; they must have this schema.
    Raises `MissingDependency`, `InvalidSchema`.
    """
    try:
        import fastavro
    except ImportError:
        raise MissingDependency(
            "Avro needs fastavro: pip install 'chalk-online-store[avro]'."
        ) from None
    try:
        parsed = fastavro.parse_schema(schema)
    except Exception as error:  # noqa: BLE001 - fastavro raises its own and built-in errors.
        raise InvalidSchema(f"The Avro schema is not valid: {type(error).__name__}.") from None

    def read(value: bytes) -> dict[str, Any]:
        data = io.BytesIO(unframed(value) if framed else value)
        try:
            found = fastavro.schemaless_reader(data, parsed, None)
        except Exception as error:  # noqa: BLE001 - bad bytes raise errors of any kind.
            raise InvalidValue(
                f"The message is not Avro of this schema ({type(error).__name__})."
            ) from None
        if data.read(1):
            raise InvalidValue("The message is longer than one Avro record of this schema.")
        return _object(found)

    return read


def protobuf_reader(message_class: Any, *, framed: bool) -> ReadObject:
    """Return a decoder of Protobuf messages of a generated class.

    Members have their names in the `.proto` file. Fields with presence that are not set are
    absent; others have their default. Timestamps and durations become Python's, enums names.
    Raises `InvalidSchema`.
    """
    if not hasattr(message_class, "DESCRIPTOR") or not hasattr(message_class, "FromString"):
        raise InvalidSchema(
            f"message: expected a generated Protobuf class; got {kind_of(message_class)}."
        )

    def read(value: bytes) -> dict[str, Any]:
        data = _without_message_indexes(unframed(value)) if framed else value
        try:
            message = message_class.FromString(data)
        except Exception as error:  # noqa: BLE001 - DecodeError is another class in each runtime.
            raise InvalidValue(
                f"The message is not Protobuf of this class ({type(error).__name__})."
            ) from None
        return _protobuf_members(message)

    return read


def unframed(value: bytes) -> bytes:
    """Return a message without the header of a schema registry. Raises `InvalidValue`."""
    if len(value) < _FRAME_HEADER_BYTES or value[0] != 0:
        raise InvalidValue("The message does not begin with a schema id of a schema registry.")
    return value[_FRAME_HEADER_BYTES:]


def _without_message_indexes(value: bytes) -> bytes:
    """Skip the path of the message in its `.proto` file: a count and numbers, as zigzag varints."""
    position = 0

    def number() -> int:
        nonlocal position
        found = shift = 0
        while True:
            if position >= len(value) or shift > 28:
                raise InvalidValue("The message has no valid Protobuf frame.")
            byte = value[position]
            position += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (found >> 1) ^ -(found & 1)
            shift += 7

    for _ in range(number()):
        number()
    return value[position:]


def _protobuf_members(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of = field.message_type.fields_by_name["value"]
            found[field.name] = {str(k): _protobuf_value(of, v) for k, v in value.items()}
        elif _is_repeated(field):
            found[field.name] = [_protobuf_value(field, each) for each in value]
        else:
            found[field.name] = _protobuf_value(field, value)
    return found


def _is_repeated(field: Any) -> bool:
    """Return True for a repeated field; the old attribute is deprecated in new runtimes."""
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _protobuf_value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if field.message_type is None:
        return value
    name = field.message_type.full_name
    if name == "google.protobuf.Timestamp":
        if value.nanos % 1000:
            raise InvalidValue(f"{field.name!r} is finer than whole microseconds.")
        return value.ToDatetime(tzinfo=UTC)
    if name == "google.protobuf.Duration":
        return value.ToTimedelta()
    if name.startswith("google.protobuf.") and name.endswith("Value") and _is_wrapper(field):
        return value.value
    return _protobuf_members(value)


def _is_wrapper(field: Any) -> bool:
    return [each.name for each in field.message_type.fields] == ["value"]


def _object(found: Any, name: str = "") -> dict[str, Any]:
    """Return an object that may be changed: JSON and Avro have dicts already."""
    if isinstance(found, dict):
        return found
    what = f"Member {name!r}" if name else "The message"
    raise InvalidValue(f"{what} must be an object; got {kind_of(found)}.")


# --- objects to rows -------------------------------------------------------------------------


class TopicDecoder:
    """Decodes the messages of one topic to rows of a namespace.

    Raises `InvalidValue` for a message that can never be decoded.
    """

    def __init__(self, config: TopicConfig, namespace: Namespace, read: ReadObject) -> None:
        self._namespace = namespace
        self._read = read
        self._rows = JsonRows(
            namespace, config.key or None, zone=config.time_zone, native_values=True
        )
        self._observed_at = _observed_at_reader(config)
        self._record = [part for part in config.record.split(".") if part]
        self._rename = config.rename
        self._known = None
        if config.unknown_members == "ignore":
            self._known = {*namespace.by_name, *(config.key or [namespace.key_name])}
        self._skips_tombstones = config.tombstones == "skip"

    def __call__(self, message: Message) -> list[DecodedRow]:
        """Decode one message."""
        if message.value is None:
            return _of_tombstone(self._skips_tombstones)
        whole = self._read(message.value)
        observed_at = self._observed_at.read(message, whole)
        members = self._members_of(whole)
        row = self._rows.convert_object(members)
        return [DecodedRow(self._namespace, row, observed_at)]

    def _members_of(self, members: dict[str, Any]) -> dict[str, Any]:
        for part in self._record:
            members = _object(members.get(part), part)
        if self._rename:
            members = {self._rename.get(name, name): value for name, value in members.items()}
        if self._known is not None:
            known = self._known
            members = {name: value for name, value in members.items() if name in known}
        return members


class FunctionDecoder:
    """Decodes the messages of one topic by a function of the user's.

    It returns a mapping, an iterable of mappings, or None for a message without rows. Mappings are
    rows of the topic's namespace; their observed-at is read like that of other formats. A
    `DecodedRow` names another namespace and an observed-at, a datetime or UTC microseconds.
    """

    def __init__(
        self,
        config: TopicConfig,
        namespace: Namespace,
        function: DecodeFunction,
    ) -> None:
        self._namespace = namespace
        self._function = function
        self._observed_at = _observed_at_reader(config)
        self._skips_tombstones = config.tombstones == "skip"

    def __call__(self, message: Message) -> list[DecodedRow]:
        """Decode one message. Raises what the function raises."""
        if message.value is None and self._skips_tombstones:
            return []
        found = self._function(message)
        return [self._row(message, each) for each in _rows_of(found)]

    def _row(self, message: Message, row: Any) -> DecodedRow:
        if isinstance(row, DecodedRow):
            return DecodedRow(row.schema, _row_of(row.row), _moment_of(row.observed_at))
        members = _row_of(row)
        observed_at = self._observed_at.read(message, members)
        return DecodedRow(self._namespace, members, observed_at)


def _rows_of(found: Any) -> Iterable[Any]:
    if found is None:
        return ()
    if isinstance(found, Mapping | DecodedRow):
        return (found,)
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise InvalidValue(f"The function must return rows; got {kind_of(found)}.")
    return found


def _row_of(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InvalidValue(f"The function must return dicts or DecodedRows; got {kind_of(row)}.")
    return dict(row)


def _moment_of(value: Any) -> int:
    if isinstance(value, datetime):
        return time_of(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST_MOMENT:
        raise InvalidValue(
            "The function must return an observed-at as a datetime or in UTC microseconds."
        )
    return value


def _of_tombstone(skipped: bool) -> list[DecodedRow]:
    if skipped:
        return []
    raise InvalidValue('The message has no value. Set tombstones = "skip" to ignore such messages.')


def _observed_at_reader(config: TopicConfig) -> ObservedAtReader:
    return ObservedAtReader(config.observed_at, config.observed_at_unit, config.time_zone)


# --- query results ---------------------------------------------------------------------------


def encode_result(
    query: str,
    inputs: Mapping[str, Any],
    features: Mapping[str, Any],
    *,
    version: str = "",
    max_staleness: str = "infinity",
    observed_at: datetime,
) -> bytes:
    """Return the message of a query result, for a topic with `results = true`.

    All values must be what JSON has, since the inputs are compared with those of `read_result`:
    pass ISO 8601 texts for datetimes, here and there. Raises `InvalidValue`.
    """
    time_of(observed_at)
    for name, values in (("inputs", inputs), ("features", features)):
        _check_json(values, name)
    found = {
        "query": query,
        "inputs": dict(inputs),
        "features": dict(features),
        "version": version,
        "max_staleness": max_staleness,
        "observed_at": observed_at.isoformat(),
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def _check_json(value: Any, where: str) -> None:
    match value:
        case None | bool() | str():
            return
        case int() | float():
            if math.isfinite(value):
                return
            raise InvalidValue(f"{where}: JSON has no NaN and no infinity. Pass None instead.")
        case Mapping():
            for name, each in value.items():
                if not isinstance(name, str):
                    raise InvalidValue(f"{where}: names must be str; got {kind_of(name)}.")
                _check_json(each, where)
        case list() | tuple():
            for each in value:
                _check_json(each, where)
        case _:
            raise InvalidValue(f"{where}: expected values of JSON; got {kind_of(value)}.")


class ResultDecoder:
    """Decodes messages of `encode_result`: query results instead of rows."""

    def __init__(self, config: TopicConfig, core: Core) -> None:
        self._core = core
        self._observed_at = ObservedAtReader("observed_at", config.observed_at_unit, None)
        self._skips_tombstones = config.tombstones == "skip"
        self._converters: dict[str, Callable[[Any], Any] | None] = {}

    def __call__(self, message: Message) -> list[DecodedRow]:
        """Decode one message. Raises `InvalidValue`, `RegistryUnavailable`."""
        if message.value is None:
            return _of_tombstone(self._skips_tombstones)
        found = _plain_json(message.value)
        unknown = found.keys() - _RESULT_MEMBERS
        if unknown:
            raise InvalidValue(f"A query result has no member {min(unknown)!r}.")
        observed_at = self._observed_at.read(message, found)
        query, version = found.get("query"), found.get("version", "")
        staleness = found.get("max_staleness", "infinity")
        if not all(isinstance(each, str) for each in (query, version, staleness)):
            raise InvalidValue("query, version and max_staleness must be strings.")
        features = _object(found.get("features"), "features")
        features = {name: self._value(name, each) for name, each in features.items()}
        row = self._core.results.row(
            str(query), _object(found.get("inputs"), "inputs"), features, version, staleness
        )
        return [DecodedRow(self._core.of_results(), row, observed_at)]

    def _value(self, name: str, value: Any) -> Any:
        if name not in self._converters:
            self._converters[name] = self._converter(name)
        convert = self._converters[name]
        if convert is None or value is None:
            return value
        try:
            return convert(value)
        except CONVERSION_ERRORS:
            raise InvalidValue(f"{name} has a value that its feature's type does not.") from None

    def _converter(self, name: str) -> Callable[[Any], Any] | None:
        prefix, _, feature = name.partition(".")
        namespace = self._core.schema.get(prefix)
        if namespace is None or feature not in namespace.by_name:
            return None
        return json_converter(namespace.feature(name).type, None)


def _plain_json(value: bytes) -> dict[str, Any]:
    """Decode JSON with floats: the inputs of a query are compared by their types."""
    try:
        return _object(json.loads(value, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue("The message is not JSON.") from None


def _refuse_constant(_name: str) -> float:
    raise ValueError


# --- a decoder for each topic ----------------------------------------------------------------


class Decoder:
    """Decodes the messages of all topics."""

    def __init__(self, topics: Mapping[str, Callable[[Message], Iterable[DecodedRow]]]) -> None:
        self._topics = topics

    def __call__(self, message: Message) -> Iterable[DecodedRow]:
        """Decode a message by the rules of its topic. Raises `InvalidValue`."""
        decode = self._topics.get(message.topic)
        if decode is None:
            raise InvalidValue(f"Topic {message.topic!r} is not in the configuration.")
        return decode(message)
