"""Values to attributes and back: exact, inside DynamoDB's rules, and refused without a leak."""

from __future__ import annotations

import enum
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from chalk_online_store import InvalidValue
from chalk_online_store.codec.nested import codec_of, value_encoder
from chalk_online_store.codec.values import NULL
from chalk_online_store.schema.annotations import read_annotation
from tests.helpers import stress
from tests.strategies import (
    EDGE_DECIMALS,
    EDGE_FLOATS,
    MAX_INT,
    VALUES,
    Colour,
    Level,
    any_datetimes,
    decimals,
    exactly,
    finite_decimals,
    floats,
    in_utc_range,
    ints,
    vector,
)

NUMBERS = {bool, int, float, Decimal, datetime, date, time, timedelta}
quick = settings(max_examples=stress(25))
thorough = settings(max_examples=stress(40))

every_type = pytest.mark.parametrize("annotation", VALUES, ids=str)


def encode(annotation: Any, value: Any) -> bytes:
    element = read_annotation(annotation)
    return value_encoder("user.risk", element.type, element.nullable)(value)


def decode(annotation: Any, attribute: bytes) -> Any:
    codec = codec_of(read_annotation(annotation).type)
    return codec.decode(msgspec.json.decode(attribute, type=codec.attribute, strict=False))


def round_trip(annotation: Any, value: Any) -> Any:
    return decode(annotation, encode(annotation, value))


def plain(text: str) -> str:
    """A number as DynamoDB gives it back: no exponent, no zeros that say nothing."""
    text = format(Decimal(text), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- exactness -----------------------------------------------------------------------------


@every_type
@quick
@given(data=st.data())
def test_a_value_comes_back_exactly(annotation: Any, data: st.DataObject) -> None:
    """Whatever a type can hold is what is read, down to its last bit, digit and sign."""
    value = data.draw(VALUES[annotation])
    assert exactly(round_trip(annotation, value)) == exactly(value)


@thorough
@given(floats)
def test_a_float_keeps_its_64_bits(value: float) -> None:
    """Subnormals, infinities, NaN payloads and signed zeros are kept as every other float is."""
    assert exactly(round_trip(float, value)) == exactly(value)


@thorough
@given(decimals)
def test_a_decimal_keeps_sign_digits_and_exponent(value: Decimal) -> None:
    """Trailing zeros, exponents, NaN payloads, infinities and -0 are part of a Decimal."""
    assert round_trip(Decimal, value).as_tuple() == value.as_tuple()


@thorough
@given(ints)
def test_an_int_keeps_all_digits(value: int) -> None:
    """Ints of up to 38 digits never pass through a float."""
    assert round_trip(int, value) == value


@thorough
@given(any_datetimes)
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
@example(datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-1))))
def test_a_datetime_is_the_same_moment_or_is_refused(value: datetime) -> None:
    """A moment comes back in UTC; one whose year in UTC is no year of Python's is not stored."""
    if not in_utc_range(value):
        with pytest.raises(InvalidValue, match=r"user\.risk"):
            encode(datetime, value)
        return
    found = round_trip(datetime, value)
    assert found.utcoffset() == timedelta(0)
    assert exactly(found) == exactly(value)


@quick
@given(st.binary(max_size=100))
@example(b"5B\xcb")  # base64: NULL
@example(b"\x9e\xe9e")  # base64: null
def test_every_kind_of_bytes_is_taken(value: bytes) -> None:
    """bytes, bytearray and memoryview with the same content are stored alike, whatever it is."""
    for given_as in (value, bytearray(value), memoryview(value)):
        assert exactly(round_trip(bytes, given_as)) == exactly(value)


def test_a_strided_memoryview_is_taken_or_refused() -> None:
    """A memoryview with gaps gives its own content or an `InvalidValue`, nothing else."""
    view = memoryview(b"a-b-c-")[::2]
    try:
        assert round_trip(bytes, view) == b"abc"
    except InvalidValue as error:
        assert "user.risk" in str(error)  # noqa: PT017 - either answer is a right one


@quick
@given(st.text(max_size=20))
@example("null")
@example("\x00\u2028\U0001f600")
def test_numpy_text_is_text(value: str) -> None:
    """What a numpy array of text is made of is stored as the str that it is."""
    assume(not value.endswith("\x00"))  # numpy drops trailing zeros itself
    assert exactly(round_trip(str, np.array([value])[0])) == exactly(value)


NUMPY_SCALARS: list[tuple[Any, Any, Any]] = [
    (bool, np.True_, True),
    (int, np.int64(-(2**63)), -(2**63)),
    (int, np.uint64(2**64 - 1), 2**64 - 1),
    (float, np.float32(0.1), 0.10000000149011612),
    (float, np.float64(-0.0), -0.0),
    (float, np.float16(65504), 65504.0),
    (float, np.int32(7), 7.0),
    (float, 2**53, 2.0**53),
]


@pytest.mark.parametrize(("annotation", "given_as", "value"), NUMPY_SCALARS)
def test_numpy_scalars_are_taken(annotation: Any, given_as: Any, value: Any) -> None:
    """What comes out of numpy and pandas is stored as the Python value that it equals."""
    assert exactly(round_trip(annotation, given_as)) == exactly(value)


@every_type
def test_null_is_read_as_none(annotation: Any) -> None:
    """Every type reads a stored null as None."""
    assert decode(annotation, NULL) is None


@every_type
def test_optional_stores_null(annotation: Any) -> None:
    """`T | None` stores None as a null, and other values as T does."""
    kind = read_annotation(annotation).type
    assert value_encoder("user.risk", kind, nullable=True)(None) == NULL


# --- what lies in the table ----------------------------------------------------------------

FORMS: list[tuple[Any, Any, bytes]] = [
    (None, None, b'{"NULL":true}'),
    (bool, True, b'{"BOOL":true}'),
    (str, 'a"', b'{"S":"a\\""}'),
    (bytes, b"\x00", b'{"B":"AA=="}'),
    (int, -12, b'{"N":"-12"}'),
    (float, 0.1, b'{"N":"0.1"}'),
    (float, -0.0, b'{"B":"gAAAAAAAAAA="}'),
    (float, math.inf, b'{"B":"f/AAAAAAAAA="}'),
    (Decimal, Decimal("1.1"), b'{"N":"1.1"}'),
    (Decimal, Decimal("1.10"), b'{"S":"1.10"}'),
    (Decimal, Decimal("1E+2"), b'{"S":"1E+2"}'),
    (datetime, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), b'{"N":"1000000"}'),
    (date, date(1969, 12, 31), b'{"N":"-1"}'),
    (time, time(0, 0, 0, 7), b'{"N":"7"}'),
    (timedelta, timedelta(days=-1), b'{"N":"-86400000000"}'),
    (UUID, UUID(int=1), b'{"B":"AAAAAAAAAAAAAAAAAAAAAQ=="}'),
    (Colour, Colour.RED, b'{"S":"r"}'),
    (Level, Level.LOW, b'{"N":"-1"}'),
    (vector[2], [1.0, -2.0], b'{"B":"ADwAwA=="}'),
    (vector[1, "f4"], [1.0], b'{"B":"AACAPw=="}'),
]


@pytest.mark.parametrize(("annotation", "value", "stored"), FORMS)
def test_the_stored_form(annotation: Any, value: Any, stored: bytes) -> None:
    """The bytes in the table are those that every version agrees on."""
    assert encode(annotation, value) == stored


@thorough
@given(st.sampled_from([int, float, Decimal, datetime, date, time, timedelta]), st.data())
def test_numbers_obey_dynamodb(annotation: Any, data: st.DataObject) -> None:
    """A stored number has at most 38 digits and a magnitude of 0 or 1E-130 to 9.99…E+125."""
    stored = json.loads(encode(annotation, data.draw(VALUES[annotation])))
    assume("N" in stored)
    number = Decimal(stored["N"])
    assert len(number.normalize(Context(prec=400)).as_tuple().digits) <= 38
    assert number == 0 or -130 <= number.adjusted() <= 125


@thorough
@given(st.sampled_from([int, float, Decimal, datetime, date, time, timedelta]), st.data())
def test_dynamodb_may_write_a_number_its_own_way(annotation: Any, data: st.DataObject) -> None:
    """A number is read the same after the engine has dropped its exponent and idle zeros."""
    value = data.draw(VALUES[annotation])
    stored = json.loads(encode(annotation, value))
    assume("N" in stored)
    rewritten = json.dumps({"N": plain(stored["N"])}).encode()
    assert exactly(decode(annotation, rewritten)) == exactly(value)


@thorough
@given(st.sampled_from([float, Decimal]), st.data())
def test_an_engine_may_write_an_exponent(annotation: Any, data: st.DataObject) -> None:
    """A float or Decimal is read the same from a number with an exponent."""
    value = data.draw(VALUES[annotation])
    stored = json.loads(encode(annotation, value))
    assume("N" in stored)
    rewritten = Decimal(stored["N"]).normalize(Context(prec=400))
    attribute = json.dumps({"N": f"{rewritten:E}"}).encode()
    assert exactly(decode(annotation, attribute)) == exactly(value)


@pytest.mark.parametrize("text", EDGE_DECIMALS)
def test_a_decimal_on_the_edge(text: str) -> None:
    """Decimals at the limits of 38 digits and of magnitude are kept, and obey DynamoDB."""
    stored = json.loads(encode(Decimal, Decimal(text)))
    assert round_trip(Decimal, Decimal(text)).as_tuple() == Decimal(text).as_tuple()
    assert "S" in stored or len(Decimal(stored["N"]).as_tuple().digits) <= 38


@quick
@given(st.sampled_from([f for f in EDGE_FLOATS if f]) | floats)
def test_an_ordinary_float_is_a_number(value: float) -> None:
    """Floats are native numbers wherever DynamoDB has them, and 8 bytes only elsewhere."""
    native = (value == 0 and math.copysign(1, value) > 0) or 1e-130 <= abs(value) < 1e126
    assert ("N" in json.loads(encode(float, value))) is native


@quick
@given(finite_decimals)
def test_a_short_plain_decimal_is_a_number(value: Decimal) -> None:
    """A Decimal is text only where its digits would not come back from a number."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    idle_zeros = exponent > 0 or (exponent < 0 and digits[-1] == 0)
    native = not idle_zeros and len(digits) <= 38 and value.adjusted() >= -130
    native = native and not (value == 0 and value.is_signed())
    assert ("N" in json.loads(encode(Decimal, value))) is native


# --- refusals ------------------------------------------------------------------------------


class Nowhere(tzinfo):
    """A time zone that knows nothing about itself."""

    def utcoffset(self, _: datetime | None) -> None:
        """No offset: Python calls such a datetime naive."""

    def dst(self, _: datetime | None) -> None:
        """No daylight saving time."""

    def tzname(self, _: datetime | None) -> None:
        """No name."""


SECRET = "correct horse"
WRONG: list[tuple[Any, Any, str]] = [
    (int, MAX_INT + 1, "38 digits"),
    (int, -MAX_INT - 1, "38 digits"),
    (int, True, "int, not bool"),
    (int, np.False_, "int, not bool"),
    (int, 12345.0, "int, not float"),
    (int, SECRET, "int, not str"),
    (bool, 1, "bool, not int"),
    (float, True, "float, not bool"),
    (float, 2**53 + 1, "no float holds"),
    (float, 10**400, "no float holds"),
    (float, Decimal("12345.5"), "float, not Decimal"),
    (float, SECRET, "float, not str"),
    (Decimal, 12345.5, "decimal, not float"),
    (str, b"correct horse", "str, not bytes"),
    (str, SECRET + "\ud800", "surrogates"),
    (bytes, SECRET, "bytes, not str"),
    (datetime, datetime(2026, 1, 2), "time zone"),  # noqa: DTZ001
    (datetime, datetime(2026, 1, 2, tzinfo=Nowhere()), "user.risk"),
    (datetime, date(2026, 1, 2), "datetime, not date"),
    (date, datetime(2026, 1, 2, tzinfo=UTC), "date, not datetime"),
    (time, time(1, 2, tzinfo=UTC), "time zone"),
    (time, 3723, "time, not int"),
    (timedelta, 3723.5, "timedelta, not float"),
    (UUID, "12345678-1234-5678-1234-567812345678", "uuid, not str"),
    (Colour, SECRET, "choices"),
    (Colour, "r", "choices"),
    (Literal["x"], SECRET, "choices"),
    (Literal["x"], [SECRET], "not list"),
    (None, 12345, "none, not int"),
    (str, None, r"declare it `\| None`"),
    (vector[2], [1.0, 2.0, 12345.0], "not list"),
    (vector[2], [[1.0, 12345.0]], "not list"),
    (vector[2], [[1.0], [1.0, 12345.0]], "not list"),
    (vector[2], [SECRET, SECRET], "not list"),
    (vector[2], [True, False], "not list"),
    (vector[1], [65520.0], "too large for f2"),
    (vector[1, "f4"], [1e39], "too large for f4"),
    (vector[1], 12345.0, "not float"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), WRONG)
def test_a_wrong_value_is_refused(annotation: Any, value: Any, message: str) -> None:
    """What a type cannot hold exactly is refused by a message that says why."""
    with pytest.raises(InvalidValue, match=message):
        encode(annotation, value)


@pytest.mark.parametrize(("annotation", "value", "message"), WRONG)
def test_a_refusal_names_the_feature_and_hides_the_value(
    annotation: Any, value: Any, message: str
) -> None:
    """Neither the message nor a cause that a log would print tells what the value was."""
    with pytest.raises(InvalidValue, match=r"^user\.risk") as caught:
        encode(annotation, value)
    for secret in ("correct horse", "12345", "65520", "1e39", "10000", "2026"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(Literal[1, 2], True), (Literal[1, 2], 1.0), (Literal[True], 1), (Literal[0], False)],
)
def test_a_choice_is_of_its_own_type(annotation: Any, value: Any) -> None:
    """Python takes True for 1 and 1 for 1.0; a Literal does not."""
    with pytest.raises(InvalidValue, match=r"user\.risk"):
        encode(annotation, value)


class Huge(enum.Enum):
    """A choice that no table can hold."""

    WHOLE = 10**40


@pytest.mark.parametrize("annotation", [Huge, Literal["\ud800"]], ids=["huge", "surrogate"])
def test_a_choice_that_cannot_be_stored_is_refused(annotation: Any) -> None:
    """An Enum or Literal whose value no attribute holds raises one of this library's errors."""
    value = annotation.WHOLE if annotation is Huge else "\ud800"
    with pytest.raises(ValueError, match=r"38 digits|surrogates"):
        encode(annotation, value)


def test_a_longdouble_that_no_float_holds_is_refused() -> None:
    """The extended precision of numpy is not rounded away in silence."""
    third = np.longdouble(1) / 3
    if float(third) == third:
        pytest.skip("longdouble is a double on this platform")
    with pytest.raises(InvalidValue, match=r"user\.risk"):
        encode(float, third)


def test_a_vector_is_rounded_to_its_dtype() -> None:
    """Numbers of a wider type are rounded to the nearest of the vector's, as numpy rounds."""
    found = round_trip(vector[3], np.array([0.1, 1e-300, 65504]))
    assert found.tolist() == np.array([0.1, 0.0, 65504], "f2").tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_vector_of_any_layout_is_taken(order: str, step: int) -> None:
    """Byte order and strides of the array that is given do not show in what is stored."""
    array = np.arange(6, dtype=f"{order}f4")[::step][:3]
    assert round_trip(vector[3, "f4"], array).tolist() == array.tolist()


def test_a_signalling_nan_is_rounded_without_a_warning() -> None:
    """A NaN of any bits becomes a NaN of the vector's dtype."""
    signalling = np.array([0x7FF0000000000001], dtype="u8").view("f8")
    assert np.isnan(round_trip(vector[1, "f4"], signalling)).all()
