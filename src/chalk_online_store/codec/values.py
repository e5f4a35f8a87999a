"""Values to native DynamoDB attributes and back, exactly.

Each type has a `ValueCodec`: an encoder to DynamoDB's JSON (`{"N":"1.5"}`, as bytes), a msgspec
struct that the JSON decodes into, and a function from that struct to the value. Encoders are
compiled once per feature and refuse what the type cannot hold exactly. Here are the types without
parts; `nested` has the others.
"""

from __future__ import annotations

import math
import operator
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import numpy as np

from chalk_online_store.errors import DamagedItem, InvalidSchema
from chalk_online_store.schema.types import ChoiceType, Scalar, VectorType

Encode = Callable[[Any], bytes]
"""A value to its attribute's JSON. Raises TypeError for a wrong type, else `ValueRefused`."""

Decode = Callable[[Any], Any]
"""An attribute's struct to its value."""

NULL = b'{"NULL":true}'
MAX_INT = 10**38 - 1
"""AWS: numbers have up to 38 digits of precision."""

FINER_THAN_MICROSECONDS = (
    "finer than whole microseconds; round it first, for example with pandas' .round('us')"
)
_BYTE_FORMATS = ("B", "b", "c")

_json = msgspec.json.encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LAST = datetime.max.replace(tzinfo=UTC) - _EPOCH
_DAY_ZERO = _EPOCH.toordinal()


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for what is not JSON, or not of the asked form."""


class ValueRefused(Exception):
    """Why a value of the right type still cannot be stored."""


# --- what an attribute decodes into --------------------------------------------------------


class Attribute(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """An attribute in DynamoDB's JSON. Exactly one field of a subclass is set.

    It is encoded without the other fields: rows are pickled so.
    """

    NULL: bool | None = None


class Text(Attribute, gc=False, frozen=True):
    """A string."""

    S: str | None = None


class Binary(Attribute, gc=False, frozen=True):
    """Bytes, in base64 on the wire."""

    # Not `bytes | None`: msgspec's lax mode takes base64 that spells "null" for None.
    B: bytes = None  # type: ignore[assignment]


class Boolean(Attribute, gc=False, frozen=True):
    """A boolean."""

    BOOL: bool | None = None


class Integer(Attribute, gc=False, frozen=True):
    """A number that is an int."""

    N: int | None = None


class Double(Attribute, gc=False, frozen=True):
    """A number that is a float, or the eight bytes of one that DynamoDB has no number for."""

    N: float | None = None
    B: bytes = None  # type: ignore[assignment]


class _Number(msgspec.Struct, gc=False, frozen=True):
    """An element of a list of numbers."""

    N: float


class HalfList(Attribute, gc=False, frozen=True):
    """A list of numbers that are the elements of a vector of float16."""

    dtype: ClassVar[str] = "<f2"

    L: list[_Number] | None = None

    @property
    def packed(self) -> bytes | None:
        """The vector's bytes, little-endian; None for a null."""
        if self.L is None:
            return None
        with np.errstate(over="ignore"):
            return np.array([each.N for each in self.L], "f8").astype(self.dtype).tobytes()


class SingleList(HalfList, gc=False, frozen=True):
    """The same of float32."""

    dtype = "<f4"


class DoubleList(HalfList, gc=False, frozen=True):
    """The same of float64."""

    dtype = "<f8"


class Exact(Attribute, gc=False, frozen=True):
    """A Decimal: a number, or the text of one that would not come back the same."""

    N: Decimal | None = None
    S: str | None = None


@dataclass(frozen=True, slots=True)
class ValueCodec:
    """How values of one type are stored.

    `decode` makes a value of an attribute, in every case. `plain` names the attribute's field
    that is nearly always set, where there is one; `convert` makes a value of its content, and
    is None where the content is the value itself.
    """

    encode: Encode
    attribute: type[Attribute]
    decode: Decode
    plain: str = ""
    convert: Decode | None = None

    def decode_all(self, attributes: Sequence[Any]) -> list[Any]:
        """The values of attributes; None for None."""
        decode = self.decode
        return [None if a is None else decode(a) for a in attributes]


# --- encoders ------------------------------------------------------------------------------


def expect(kind: type | tuple[type, ...], value: Any) -> None:
    """Raise TypeError for a value of another type."""
    if not isinstance(value, kind):
        raise TypeError


def _encode_none(value: Any) -> bytes:
    expect(type(None), value)
    return NULL


def _encode_bool(value: Any) -> bytes:
    expect((bool, np.bool_), value)
    return b'{"BOOL":true}' if value else b'{"BOOL":false}'


def _encode_str(value: Any) -> bytes:
    expect(str, value)
    try:
        return b'{"S":%b}' % _json(str.__str__(value))
    except UnicodeEncodeError:
        raise ValueRefused("lone surrogates, which UTF-8 cannot hold") from None


def _encode_bytes(value: Any) -> bytes:
    expect((bytes, bytearray, memoryview), value)
    if isinstance(value, memoryview) and (value.ndim != 1 or value.format not in _BYTE_FORMATS):
        raise ValueRefused("a memoryview of other elements than bytes; use .tobytes()")
    return b'{"B":%b}' % _json(bytes(value))


def _encode_int(value: Any) -> bytes:
    if isinstance(value, bool | np.bool_):
        raise TypeError
    exact = operator.index(value)
    if not -MAX_INT <= exact <= MAX_INT:
        raise ValueRefused("more than 38 digits, DynamoDB's limit; declare it as str or bytes")
    return b'{"N":"%d"}' % exact


def _encode_float(value: Any) -> bytes:
    number = _as_double(value)
    magnitude = abs(number)
    # AWS: numbers reach from 1E-130 to 9.99…E+125; there is no NaN, infinity or negative zero.
    if 1e-130 <= magnitude < 1e126 or (magnitude == 0 and math.copysign(1, number) > 0):
        return b'{"N":"%b"}' % _json(number)
    return b'{"B":%b}' % _json(struct.pack(">d", number))


def _as_double(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_):
        raise TypeError
    if isinstance(value, float | np.floating):
        number = float(value)
        if number != value and not math.isnan(number):
            raise ValueRefused("more digits than a float has")
        return number
    whole = operator.index(value)
    try:
        number = float(whole)
    except OverflowError:
        number = math.inf
    if number != whole:
        raise ValueRefused("an int that no float holds exactly")
    return number


def _encode_decimal(value: Any) -> bytes:
    if not isinstance(value, Decimal):
        if isinstance(value, bool | np.bool_):
            raise TypeError
        value = Decimal(operator.index(value))  # Exact, however many digits there are.
    if _survives_as_number(value):
        return b'{"N":"%b"}' % format(value, "f").encode()
    return b'{"S":%b}' % _json(str(value))


def _survives_as_number(value: Decimal) -> bool:
    """Whether DynamoDB's canonical form (no trailing zeros, no exponent) is this very Decimal."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent > 0 or len(digits) > 38:
        return False
    if exponent == 0:
        return not (sign and digits == (0,))
    return digits[-1] != 0 and value.adjusted() >= -130


def _encode_datetime(value: Any) -> bytes:
    return b'{"N":"%d"}' % microseconds_utc(value)


def microseconds_utc(value: Any) -> int:
    """A datetime as microseconds since 1970."""
    expect(datetime, value)
    if value.tzinfo is None:
        if value != value:  # noqa: PLR0124 - pandas.NaT is a datetime that equals nothing.
            raise ValueRefused("NaT, which is not a time; use None for a null")
        raise ValueRefused("no time zone; use datetime.now(UTC) or .replace(tzinfo=...)")
    since_epoch = value - _EPOCH
    if not _FIRST <= since_epoch <= _LAST:
        raise ValueRefused("a year in UTC outside 1 to 9999")
    exact = int(since_epoch // _MICROSECOND)
    if type(value) is not datetime:
        _check_whole(value, moment(exact))
    return exact


def _check_whole(value: Any, stored: Any) -> None:
    """Refuse a value of a subclass that is finer than the microseconds which are stored.

    `pandas.Timestamp`, `pandas.Timedelta` and Google's `DatetimeWithNanoseconds` are subclasses
    of Python's types and keep nanoseconds in an attribute of their own, which only the first two
    compare.
    """
    if value != stored or nanoseconds_of(value):
        raise ValueRefused(FINER_THAN_MICROSECONDS)


def nanoseconds_of(value: Any) -> int:
    """The nanoseconds of a datetime, time or timedelta beyond its whole microseconds."""
    found: int = getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0)
    return found % 1000


def _encode_date(value: Any) -> bytes:
    if isinstance(value, datetime):
        raise TypeError
    expect(date, value)
    return b'{"N":"%d"}' % (value.toordinal() - _DAY_ZERO)


def _encode_time(value: Any) -> bytes:
    expect(time, value)
    if value.tzinfo is not None:
        raise ValueRefused("a time zone, which a time of day is stored without")
    since_midnight = timedelta(
        hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
    )
    if type(value) is not time:
        _check_whole(value, _time_of_day(since_midnight))
    return b'{"N":"%d"}' % (since_midnight // _MICROSECOND)


def _encode_timedelta(value: Any) -> bytes:
    return b'{"N":"%d"}' % whole_microseconds(value)


def whole_microseconds(value: Any) -> int:
    """A timedelta in microseconds."""
    if type(value).__name__ == "NaTType":
        raise ValueRefused("NaT, which is not a duration; use None for a null")
    expect(timedelta, value)
    exact = int(value // _MICROSECOND)
    if type(value) is not timedelta:
        _check_whole(value, timedelta(microseconds=exact))
    return exact


def _encode_uuid(value: Any) -> bytes:
    expect(UUID, value)
    return b'{"B":%b}' % _json(value.bytes)


# --- decoders ------------------------------------------------------------------------------


def read_null(attribute: Attribute) -> Any:
    """None for a null; anything else here is not a form that this type is stored in."""
    if not attribute.NULL:
        raise DamagedItem("another attribute type")
    return None


def _plain(
    encode: Encode, attribute: type[Attribute], name: str, convert: Decode | None = None
) -> ValueCodec:
    """A codec of values that one field of their attribute says."""

    def decode(attribute: Any) -> Any:
        content = getattr(attribute, name)
        if content is None:
            return read_null(attribute)
        return content if convert is None else convert(content)

    return ValueCodec(encode, attribute, decode, name, convert)


def _decode_float(attribute: Any) -> Any:
    if attribute.N is not None:
        return attribute.N
    if attribute.B is not None:
        return float(struct.unpack(">d", attribute.B)[0])
    return read_null(attribute)


def _decode_decimal(attribute: Exact) -> Any:
    if attribute.S is not None:
        return Decimal(attribute.S)
    if attribute.N is None:
        return read_null(attribute)
    exponent = attribute.N.as_tuple().exponent
    if not isinstance(exponent, int) or exponent > 125:  # AWS: numbers end at 9.99…E+125.
        raise DamagedItem("no number that DynamoDB has")
    # Only Decimals without a positive exponent are stored as N, however an engine writes them.
    return Decimal(int(attribute.N)) if exponent > 0 else attribute.N


def moment(microseconds: int) -> datetime:
    """The datetime that is so many microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(0, 0, microseconds)


def _decode_time(since_midnight: int) -> time:
    if not 0 <= since_midnight < 86_400_000_000:
        raise DamagedItem("no time of day")
    return _time_of_day(timedelta(microseconds=since_midnight))


def _time_of_day(since_midnight: timedelta) -> time:
    return (_EPOCH + since_midnight).time()


_CODECS: dict[str, ValueCodec] = {
    "none": ValueCodec(_encode_none, Attribute, read_null),
    "bool": _plain(_encode_bool, Boolean, "BOOL"),
    "str": _plain(_encode_str, Text, "S"),
    "bytes": _plain(_encode_bytes, Binary, "B"),
    "int": _plain(_encode_int, Integer, "N"),
    "float": ValueCodec(_encode_float, Double, _decode_float, plain="N"),
    "decimal": ValueCodec(_encode_decimal, Exact, _decode_decimal),
    "datetime": _plain(_encode_datetime, Integer, "N", moment),
    "date": _plain(_encode_date, Integer, "N", lambda days: date.fromordinal(days + _DAY_ZERO)),
    "time": _plain(_encode_time, Integer, "N", _decode_time),
    "timedelta": _plain(_encode_timedelta, Integer, "N", lambda us: timedelta(0, 0, us)),
    "uuid": _plain(_encode_uuid, Binary, "B", lambda raw: UUID(bytes=raw)),
}


def is_masked(value: Any) -> bool:
    """Return True for a numpy array with masked elements, without importing `numpy.ma`."""
    return "numpy.ma" in sys.modules and bool(np.ma.is_masked(value))


def _vector_codec(vector: VectorType) -> ValueCodec:
    stored = np.dtype(f"<{vector.dtype}")
    shape = (vector.size,)
    write = _number_list if vector.listed else _vector_bytes

    def encode(value: Any) -> bytes:
        if type(value) is np.ndarray and value.dtype == stored and value.shape == shape:
            return write(value)
        if is_masked(value):
            raise ValueRefused("a masked element, which a vector cannot hold")
        given = np.asarray(value)
        if given.shape != shape or given.dtype.kind not in "fiu":
            raise TypeError
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = given.astype(stored)
        if not np.array_equal(np.isfinite(given), np.isfinite(rounded)):
            raise ValueRefused(f"an element too large for {vector.dtype}; declare a wider dtype")
        return write(rounded)

    def decode(raw: bytes) -> Any:
        if len(raw) != vector.size * stored.itemsize:
            raise DamagedItem("another size")
        return np.frombuffer(raw, stored)

    if vector.listed:
        return _plain(encode, _LISTS[vector.dtype], "packed", decode)
    return _plain(encode, Binary, "B", decode)


_LISTS: dict[str, type[HalfList]] = {"f2": HalfList, "f4": SingleList, "f8": DoubleList}


def _vector_bytes(vector: Any) -> bytes:
    return b'{"B":%b}' % _json(vector.tobytes())


def _number_list(vector: Any) -> bytes:
    """A vector as a list of numbers, with as few digits as make the same vector again.

    A negative zero becomes zero, as DynamoDB has none.
    """
    # AWS: a vector index holds 32-bit floats, and a number outside of their range is refused.
    finite = np.isfinite(vector)
    if not finite.all() or (vector.dtype.itemsize == 8 and np.abs(vector).max() > _MAX_SINGLE):
        raise ValueRefused("NaN, an infinity, or an element beyond 3.4E38, which cannot be indexed")
    return b'{"L":[{"N":"%b"}]}' % b'"},{"N":"'.join(_digits(vector + 0.0))


def list_of_vector(dtype: str, raw: bytes) -> bytes:
    """The list of numbers that a vector is stored as, from its little-endian bytes."""
    return _number_list(np.frombuffer(raw, f"<{dtype}"))


def vector_of_list(attribute: bytes) -> tuple[str, bytes] | None:
    """The dtype and the bytes of the vector that is stored as just this list of numbers.

    None for any other attribute, also for the same numbers in other digits.
    """
    try:
        numbers = _list_decoder.decode(attribute).L
    except UNREADABLE:
        return None
    if not numbers:
        return None
    exact = np.array([number.N for number in numbers], "f8")
    for dtype in _LISTS:
        with np.errstate(over="ignore"):
            vector = exact.astype(f"<{dtype}")
        if not np.isfinite(vector).all():
            continue
        # Few elements are enough to find most that are of a wider dtype.
        start = _number_list(vector[:_ENOUGH])[: -len(b"]}")]
        if attribute.startswith(start) and _number_list(vector) == attribute:
            return dtype, vector.tobytes()
    return None


_ENOUGH = 8
_list_decoder = msgspec.json.Decoder(HalfList, strict=False)
_MAX_SINGLE = float(np.finfo("f4").max)


def _digits(vector: Any) -> list[bytes]:
    """The shortest decimal digits of each element; `vector` has no negative zero."""
    if vector.dtype.itemsize == 2:  # There are few enough to keep all texts.
        return list(map(_half_digits().__getitem__, vector.view("u2").tolist()))
    numbers = _shortened(vector) if vector.dtype.itemsize == 4 else vector.tolist()
    return _json(numbers)[1:-1].split(b",")


def _shortened(vector: Any) -> list[float]:
    """The float64 with the fewest digits, from 6 to 9, that is rounded to each float32."""
    exact = vector.astype("f8")
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        exponents = np.floor(np.log10(np.abs(exact)))
        found = exact.copy()
        for digits in (9, 8, 7, 6):
            scale = np.power(10.0, digits - 1 - exponents)
            shorter = np.rint(exact * scale) / scale
            found = np.where(shorter.astype("f4") == vector, shorter, found)
    numbers: list[float] = found.tolist()
    return numbers


@cache
def _half_digits() -> list[bytes]:
    """The digits of every float16, by its 16 bits."""
    halves = np.arange(1 << 16, dtype="u2").view("f2")
    texts: list[bytes] = np.char.encode(halves.astype("U"), "ascii").tolist()
    for place, text in enumerate(texts):
        if b"e" in text:  # With an exponent, which has more bytes and is read more slowly.
            positional = np.format_float_positional(halves[place], unique=True, trim="-")
            texts[place] = positional.encode()
    return texts


def _choice_codec(choice: ChoiceType) -> ValueCodec:
    member = scalar_codec(choice.member)
    try:
        encoded = {
            (type(shown), shown): member.encode(stored) for stored, shown in choice.choices.items()
        }
    except ValueRefused as refused:
        raise InvalidSchema(f"A choice cannot be stored: {refused}.") from None

    def encode(value: Any) -> bytes:
        try:
            return encoded[type(value), value]
        except KeyError:
            raise ValueRefused("none of its choices") from None

    def chosen(stored: Any) -> Any:
        try:
            return choice.choices[stored]
        except KeyError:
            raise DamagedItem("a value that is none of its choices") from None

    return _plain(encode, member.attribute, member.plain, chosen)


def scalar_codec(kind: Scalar | VectorType | ChoiceType) -> ValueCodec:
    """How values of a type without parts are stored."""
    if isinstance(kind, VectorType):
        return _vector_codec(kind)
    if isinstance(kind, ChoiceType):
        return _choice_codec(kind)
    return _CODECS[kind.name]
