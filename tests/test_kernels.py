"""Each compiled kernel returns what the Python code that defines it returns, or hands over to it.

`tests/test_decoder.py` tests decoding. `make sanitize` runs both under sanitizers.
"""

from __future__ import annotations

import base64
import contextlib
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalk_online_store.codec.decoding import described
from chalk_online_store.codec.keys import MAX_KEY_BYTES, keys_encoder
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.schema import PrimaryKey
from chalk_online_store.valkey import packing
from tests.decoder_answers import answers, bodies, columns_of
from tests.decoder_reference import KINDS, Column, Unsure, reference
from tests.helpers import stress
from tests.test_decoder import BODIES, REFUSED, exact
from tests.test_valkey_packing import LAYOUT, attributes

try:
    from chalk_online_store.codec import _kernels
except ImportError:
    _kernels = None  # type: ignore[assignment]

pytestmark = pytest.mark.skipif(_kernels is None, reason="the C extension is not built")
fuzz = settings(max_examples=stress(40), suppress_health_check=list(HealthCheck))


def decoder(columns: list[Column]) -> _kernels.Decoder:
    return _kernels.Decoder(described(columns, TableLayout()), len(columns))


def items_of(*items: str) -> bytes:
    """A response of Query with items of these attributes."""
    return b'{"Items":[%b]}' % ",".join(f"{{{item}}}" for item in items).encode()


def keyed(pk: str, sk: str = "s", *more: str) -> str:
    return ",".join([f'"pk":{{"S":"{pk}"}},"sk":{{"S":"{sk}"}}', *more])


# --- one decoder, many responses -----------------------------------------------------------


@fuzz
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.data())
def test_what_a_decoder_has_learnt_changes_nothing(kinds: list[str], data: st.DataObject) -> None:
    """A decoder that has read other responses reads each response as a new one does."""
    columns = columns_of(*kinds)
    kept = decoder(columns)
    for body in data.draw(st.lists(bodies(columns, damage=False), min_size=2, max_size=4)):
        try:
            expected = reference(columns, body)[0]
        except Unsure:
            with pytest.raises(ValueError, match="plain"):
                kept.decode(body)
        else:
            assert exact(list(kept.decode(body)[0])) == exact(expected)


def test_a_decoder_learns_the_order_of_each_response() -> None:
    """Attributes in another order than before, or more or fewer of them, find their columns."""
    columns = columns_of("int", "float", "S")
    kept = decoder(columns)
    parts = ['"a":{"N":"1"}', '"b7":{"N":"1.5"}', '"Zz":{"S":"x"}', '"@":{"N":"7"}']
    for seed in range(50):
        draw = random.Random(seed)
        some = draw.sample(parts, draw.randint(0, 4))
        body = items_of(*(keyed(str(i), "s", *some) for i in range(3)))
        assert exact(list(kept.decode(body)[0])) == exact(reference(columns, body)[0])


# --- frames by key -------------------------------------------------------------------------

texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=6
)


@fuzz
@given(
    st.lists(texts, unique=True, max_size=8),
    st.lists(st.tuples(texts, st.sampled_from(["s", "s", "s", "t"])), max_size=8),
    st.data(),
)
def test_place(pks: list[str], others: list[tuple[str, str]], data: st.DataObject) -> None:
    """Rows are in the order of the keys; an item of another key, or a second one, is refused."""
    some = data.draw(st.lists(st.sampled_from(pks), unique=True)) if pks else []
    found = [(pk, "s") for pk in some] + data.draw(st.sampled_from([[], [], [], others]))
    frame, *_ = decoder([]).decode(items_of(*(keyed(pk, sk) for pk, sk in found)))
    rows = list(frame)
    expected = len(set(found)) == len(found) and all(pk in pks and sk == "s" for pk, sk in found)
    assert frame.place(pks, "s") is expected
    if not expected:
        assert list(frame) == rows
        return
    by_pk = {row[0]: row for row in rows}
    assert list(frame) == [by_pk.get(pk) for pk in pks]
    assert frame.count(None) == len(pks) - len(found)
    assert (frame.present, len(frame)) == (len(found), len(pks))
    assert frame.has_times is (len(found) < len(pks))


@fuzz
@given(answers, st.data())
def test_columns_of_placed_frames(answer: tuple[list[Column], bytes], data: st.DataObject) -> None:
    """After `place`, columns are those of the rows, None for an absent item."""
    columns, body = answer
    try:
        frame, *_ = decoder(columns).decode(body)
    except ValueError:
        return
    pks = list(dict.fromkeys([row[0] for row in frame] + ["absent", "too"]))
    wanted = data.draw(st.permutations(pks))
    sk = frame[0][1] if len(frame) else "s"
    if not frame.place(wanted, sk):
        return
    rows = list(frame)
    for place in range(len(columns)):
        expected = [None if row is None else row[4 + place] for row in rows]
        assert exact(frame.contents(place)) == exact(expected)
        times = [row and (row[2] if row[3] is None else row[3][place]) for row in rows]
        assert frame.times(place) == times


@pytest.mark.parametrize("arguments", [((1,), "s"), (None, "s"), (["a"], None), (["\ud800"], "s")])
def test_place_takes_texts(arguments: Any) -> None:
    """Keys that are no texts raise an error, and change nothing."""
    frame, *_ = decoder([]).decode(items_of(keyed("a")))
    with pytest.raises((TypeError, UnicodeEncodeError)):
        frame.place(*arguments)
    assert len(frame) == 1


def test_columns_and_positions_out_of_range() -> None:
    """A column or row that a frame does not have is an IndexError."""
    frame, *_ = decoder(columns_of("int")).decode(items_of(keyed("a")))
    for get in (frame.contents, frame.times, frame.moments):
        for column in (-1, 1):
            with pytest.raises(IndexError):
                get(column)
    with pytest.raises(IndexError):
        frame.block(1, 4)
    with pytest.raises(IndexError):
        frame[1]
    assert frame[-1] == frame[0]


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (
    (end - EPOCH) // timedelta(microseconds=1)
    for end in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
)


@fuzz
@given(st.lists(st.integers(FIRST, LAST) | st.sampled_from([FIRST, LAST, 0, -1])))
def test_moments(values: list[int]) -> None:
    """Microseconds become the datetimes of Python's own arithmetic."""
    items = [keyed(str(i), "s", f'"a":{{"N":"{value}"}}') for i, value in enumerate(values)]
    frame, *_ = decoder(columns_of("int")).decode(items_of(*items))
    found: Any = frame.moments(0)
    assert found == [EPOCH + timedelta(microseconds=value) for value in values]
    assert all(moment.tzinfo is UTC for moment in found)


def test_every_day_of_four_centuries() -> None:
    """Each day has its date, those of leap years and at the ends of the range too."""
    day = 86_400_000_000
    for first in (FIRST, -200 * 366 * day, LAST - 150_000 * day + 1):
        times = [first + number * day for number in range(0, 150_000, 1 if first < FIRST else 37)]
        items = [keyed("p", "s", f'"a":{{"N":"{time}"}}') for time in times]
        found = decoder(columns_of("int")).decode(items_of(*items))[0].moments(0)
        assert found == [EPOCH + timedelta(microseconds=time) for time in times]


@pytest.mark.parametrize("value", [FIRST - 1, LAST + 1, -(2**63) + 1, 2**63 - 1, 2**70])
def test_moments_out_of_range(value: int) -> None:
    """A number that is no datetime leaves the column to Python, which reports the damage."""
    body = items_of(keyed("p", "s", f'"a":{{"N":"{value}"}}'))
    assert decoder([("a", "int", lambda _: value)]).decode(body)[0].moments(0) is None


def test_blocks() -> None:
    """The bytes of a column are joined if each value is there and of the size."""
    values = [bytes([i]) * 8 for i in range(3)]
    parts = [f'"a":{{"B":"{base64.b64encode(value).decode()}"}}' for value in values]
    items = [keyed(str(i), "s", part) for i, part in enumerate(parts)]
    frame, *_ = decoder(columns_of("B")).decode(items_of(*items))
    assert frame.block(0, 8) == b"".join(values)
    assert frame.block(0, 4) is None
    assert frame.place(["2", "0", "1"], "s")
    assert frame.block(0, 8) == values[2] + values[0] + values[1]
    assert frame.place(["2", "0", "1", "3"], "s")
    assert frame.block(0, 8) is None


def test_rows_hold_what_readers_made() -> None:
    """A frame keeps the objects of readers, and is collected with them if they form a cycle."""
    made: list[Any] = []

    def read(_: bytes) -> Any:
        made.append([])
        return made[-1]

    frame, *_ = decoder([("a", "other", read)]).decode(items_of(keyed("p", "s", '"a":{"L":[]}')))
    assert frame[0][4] is frame.contents(0)[0] is made[0]
    made[0].append(frame)


# --- numbers -------------------------------------------------------------------------------


@fuzz
@given(st.integers(0, 2**64 - 1), st.integers(0, 19))
def test_quotients(value: int, places: int) -> None:
    """A quotient is the float that Python reads from the decimal text."""
    assert exact(_kernels.quotient(value, places)) == exact(float(f"{value}e-{places}"))


def test_quotients_next_to_a_middle() -> None:
    """Integers next to the middle between two floats are rounded to the nearer one."""
    draw = random.Random(3)
    for places in range(20):
        for _ in range(200):
            scaled = (2 * (draw.getrandbits(52) + 2**52) + 1) * 10**places
            value = scaled >> max(0, scaled.bit_length() - 64)
            for near in (value - 1, value, value + 1):
                if near < 2**64:
                    expected = float(f"{near}e-{places}")
                    assert exact(_kernels.quotient(near, places)) == exact(expected)
    with pytest.raises(ValueError, match="places"):
        _kernels.quotient(1, 20)


# --- keys and bodies -----------------------------------------------------------------------

keys = st.one_of(
    st.lists(st.integers()),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.text(st.characters(codec="ascii"))),
    st.lists(st.integers() | st.text() | st.booleans() | st.none()),
    st.lists(st.sampled_from(["x" * 2044, "x" * 2048, "x" * 2049])),
)


@fuzz
@given(keys, st.sampled_from(["u:", "", "é:"]))
def test_partition_keys(values: list[Any], prefix: str) -> None:
    """Partition keys are those of the encoder in Python, or are left to it."""
    kind = str if values and isinstance(values[0], str) else int
    found = _kernels.partition_keys(prefix, values, kind)
    if found is not None:
        encode = python_keys_encoder(PrimaryKey("id", kind))
        assert found == encode(prefix, values)
        assert max(map(len, found), default=0) <= MAX_KEY_BYTES
    plain = (int, {int}), (str, {str})
    common = {*map(type, values)}
    if prefix == "u:" and any(common == kinds for _, kinds in plain):
        short = all(len(prefix) + len(str(value)) <= MAX_KEY_BYTES for value in values)
        simple = all(isinstance(v, str) or -(2**63) <= v < 2**63 for v in values)
        assert (found is not None) == (short and simple and all(str(v).isascii() for v in values))


def python_keys_encoder(key: PrimaryKey) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHALK_ONLINE_STORE_PURE", "1")
        return keys_encoder("user", key)


# --- dicts ---------------------------------------------------------------------------------


@fuzz
@given(st.dictionaries(texts, st.lists(st.integers(), min_size=3, max_size=3)))
def test_dicts(columns: dict[str, list[int]]) -> None:
    """Rows have the values of the columns in their order."""
    found = _kernels.dicts(tuple(columns), tuple(columns.values()), 3)
    expected = [{name: values[i] for name, values in columns.items()} for i in range(3)]
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]


@pytest.mark.parametrize(
    "arguments",
    [(("a",), (), 0), (("a",), ([1],), 2), (("a",), ((1,),), 1), (("a",), ([1],), -1)],
)
def test_dicts_of_other_columns(arguments: Any) -> None:
    """Columns of another number or length are refused."""
    with pytest.raises(ValueError, match="for each name"):
        _kernels.dicts(*arguments)


# --- failing allocations -------------------------------------------------------------------


@contextlib.contextmanager
def no_memory_after(allocations: int) -> Iterator[None]:
    capi = pytest.importorskip("_testcapi")
    capi.set_nomemory(allocations)
    try:
        yield
    finally:
        capi.remove_mem_hooks()


def use_all(body: bytes, kept: _kernels.Decoder) -> None:
    frame, *_ = kept.decode(body)
    frame.place(["p", "q"], "s")
    list(frame)
    for column in range(4):
        frame.contents(column)
        frame.times(column)
    frame.moments(0)
    frame.block(3, 3)
    _kernels.partition_keys("u:", [1, 2], int)
    _kernels.key_list(b"", b"<", b">", b"", ["a", "b"])
    _kernels.dicts(("a",), ([1, 2],), 2)
    encode(3, [1, 2])
    encode(7, [np.zeros(2, "f4")])
    _kernels.cut(b"[1,2]")
    _kernels.render((b"", b"", b""), "p", "s", (), ())
    _kernels.pack({"a": b'{"N":"0.30000000000000004"}', "b": b'{"S":"x"}'}, LAYOUT.reserved)


def test_failing_allocations() -> None:
    """Wherever memory runs out, a kernel raises MemoryError, and works afterwards."""
    values = '"a":{"N":"12345"},"b7":{"N":"1.5"},"Zz":{"S":"xyz"},"9":{"B":"AAAA"}'
    body = items_of(
        keyed("p", "s", values, '"@a":{"N":"5"}'), keyed("q", "s", values, '"@":{"N":"7"}')
    )
    kept = decoder(columns_of("int", "float", "S", "B"))
    failed = 0
    for allocations in range(200):
        try:
            with no_memory_after(allocations):
                use_all(body, kept)
        except MemoryError:
            failed += 1
        else:
            break
    assert 20 < failed < 199
    use_all(body, kept)
    use_all(body, decoder(columns_of("int", "float", "S", "B")))


def test_arguments_of_a_decoder() -> None:
    """A decoder is made of a dict and a number, and decodes bytes."""
    refused: list[Any] = [(), ([], 0), ({}, "1")]
    for arguments in refused:
        with pytest.raises(TypeError):
            _kernels.Decoder(*arguments)
    for body in (*BODIES, *REFUSED):
        with contextlib.suppress(ValueError):
            decoder(columns_of(*KINDS)).decode(body)


# --- attributes and items ------------------------------------------------------------------

json_numbers = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(lambda number: msgspec.json.encode(number).decode()),
    st.sampled_from(["-0.0", "0.0", "1e-7", "1e+22", "1e100", "-1e-100", "1e99", "null", "", "x"]),
)


@fuzz
@given(st.lists(json_numbers))
def test_cut(texts: list[str]) -> None:
    """Each number of an array becomes its attribute, unless one has no such attribute."""
    odd = {"-0.0", "null", "", "x"}.intersection(texts)
    far = any(re.search(r"e[-+]?[0-9]{3}", text) for text in texts)
    found = _kernels.cut(f"[{','.join(texts)}]".encode())
    if odd or far:
        assert found is None or (texts == [""] and found == [])
    else:
        assert found == [b'{"N":"%b"}' % text.encode() for text in texts]


@pytest.mark.parametrize("texts", [b"", b"[", b"1,2", b"[1,2", b"1]"])
def test_cut_takes_arrays(texts: bytes) -> None:
    """What is not an array is left to Python."""
    assert _kernels.cut(texts) is None


TRUE, FALSE, NULL = b'{"BOOL":true}', b'{"BOOL":false}', b'{"NULL":true}'


def encode(kind: int, values: Any, null: bytes | None = None, letter: str = "f") -> Any:
    return _kernels.encode(kind, values, null, TRUE, FALSE, np.ndarray, letter, 2)


@pytest.mark.parametrize(
    ("kind", "value", "attribute"),
    [
        (0, "é,x", '{"S":"é,x"}'.encode()),
        (0, "", b'{"S":""}'),
        (1, b"", b'{"B":""}'),
        (1, b"a", b'{"B":"YQ=="}'),
        (1, b"ab", b'{"B":"YWI="}'),
        (1, b"abc", b'{"B":"YWJj"}'),
        (2, True, TRUE),
        (2, False, FALSE),
        (3, -(2**63), b'{"N":"-9223372036854775808"}'),
        (3, 0, b'{"N":"0"}'),
        (6, EPOCH - timedelta(microseconds=1), b'{"N":"-1"}'),
        (7, np.array([1, -2], "f4"), b'{"B":"AACAPwAAAMA="}'),
    ],
)
def test_attributes(kind: int, value: Any, attribute: bytes) -> None:
    """A value of exactly the class becomes its attribute, and None the given one."""
    assert encode(kind, [value]) == [attribute]
    assert encode(kind, (value, None), NULL) == [attribute, NULL]
    assert encode(kind, [value, None]) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (0, "\ud800"),
        (0, 'a"'),
        (0, "\\"),
        (0, "\n"),
        (0, np.str_("a")),
        (0, b"a"),
        (1, bytearray(b"a")),
        (2, 1),
        (2, np.bool_(True)),
        (3, True),
        (3, 2**63),
        (3, 1.0),
        (4, 1.0),
        (6, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        (6, datetime(2026, 1, 1)),  # noqa: DTZ001 - refused by Python
        (7, np.array([1, 2], "f8")),
        (7, np.array([1, 2], ">f4")),
        (7, np.array([1, 2, 3], "f4")),
        (7, np.array([[1, 2]], "f4")),
        (7, np.zeros(4, "f4")[::2]),
        (7, np.ma.masked_array(np.zeros(2, "f4"), [True, False])),
        (7, np.zeros(2, "f4").data),
        (7, [1.0, 2.0]),
    ],
)
def test_values_that_are_left_to_python(kind: int, value: Any) -> None:
    """A value of another class, or with anything special about it, is not encoded here."""
    assert encode(kind, [value]) is None


@fuzz
@given(st.lists(st.datetimes(timezones=st.just(UTC))))
def test_datetimes(values: list[datetime]) -> None:
    """Datetimes become the microseconds of Python's own arithmetic."""
    expected = [(value - EPOCH) // timedelta(microseconds=1) for value in values]
    assert encode(6, values) == [b'{"N":"%d"}' % number for number in expected]


@pytest.mark.parametrize(
    "arguments",
    [
        ((b"",), "a", "b", (), ()),
        ((b"", b"", b"", b""), "a", "b", (), ()),
        ((b"", b"", "x"), "a", "b", (), ()),
        ((b"", b"", b"", b""), "a", "b", (), ("x",)),
    ],
)
def test_render_checks_the_number_of_values(arguments: Any) -> None:
    """Values that do not fit between the parts are refused."""
    with pytest.raises(ValueError, match="fit the parts"):
        _kernels.render(*arguments)


def test_render() -> None:
    """Keys, times and attributes are put between the parts; odd keys are left to Python."""
    parts = (b"<", b"|", b"|", b"|", b">")
    assert _kernels.render(parts, "p", "s", (-5,), (b"x",)) == b'<"p"|"s"|-5|x>'
    for odd in ("é", 'a"', "\\", "\n", "\x7f"):
        assert _kernels.render(parts, odd, "s", (5,), (b"x",)) is None
    assert _kernels.render(parts, "p", "s", (2**63,), (b"x",)) is None


# --- items in msgpack ----------------------------------------------------------------------

names = st.sampled_from(["a", "b7", "é", "@", "~", "!", "@a", "%", "pk", "sk", "ttl", "x" * 32, ""])
odd_attributes = st.sampled_from(
    [
        b'{"N":"0.1"}',
        b'{"N":"-0.25"}',
        b'{"N":"123.456789012345678"}',
        b'{"N":"0.30000000000000004"}',
        b'{"N":"0.300000000000000040"}',
        b'{"N":"1.0"}',
        b'{"N":"-0.0"}',
        b'{"N":".5"}',
        b'{"N":"01.5"}',
        b'{"N":"1.2.3"}',
        b'{"N":"0.00001"}',
        b'{"N":""}',
        b'{"N":"-"}',
        b'{"N":"5',
        b'{"N":5}',
        b'{"S":"a"b"}',
        b'{"S":"\xff"}',
        b'{"S":"\x01"}',
        b'{"S": "a"}',
        b'{"B":"AB=="}',
        b'{"B":"AAAAAAAAAAA="}',
        b'{"BOOL":null}',
        b'{"SS":["a"]}',
        b'{"L":[]}',
        b'{"M":{}}',
        b"{}",
        b"",
    ]
)


@fuzz
@given(st.dictionaries(names, attributes | odd_attributes, max_size=20))
def test_pack(item: dict[str, bytes]) -> None:
    """A packed item is the one that Python packs, or is left to it."""
    found = _kernels.pack(item, LAYOUT.reserved)
    if found is not None:
        assert found == packed_in_python(item)


def packed_in_python(item: dict[str, bytes]) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_kernels", lambda: None)
        return packing.packed_item(LAYOUT, item)


def test_what_stores_write_is_packed_here() -> None:
    """Numbers of any size and digits, texts, bytes, bools, nulls and lists are plain."""
    draw = random.Random(5)
    sizes = [0, 1, 7, 8, 9, 31, 32, 255, 256, 65_535, 65_536]
    edges = [2**power + by for power in (5, 7, 8, 15, 16, 31, 32, 63) for by in (-1, 0)]
    values = [b'{"N":"%d"}' % (sign * edge) for edge in edges for sign in (1, -1)]
    values += [b'{"N":"%b"}' % repr(draw.uniform(0.001, 1000)).encode() for _ in range(200)]
    values += [b'{"S":"%b"}' % (b"x" * size) for size in sizes]
    values += [b'{"B":"%b"}' % base64.b64encode(bytes(size)) for size in sizes]
    values += [TRUE, FALSE, NULL, b'{"L":[]}', b'{"L":[%b1]}' % (b"1," * 200)]
    for value in values:
        item = {"pk": b"", "a": value, "@": b'{"N":"1780000000000000"}', "@a": b'{"N":"5"}'}
        packed = _kernels.pack(item, LAYOUT.reserved)
        assert packed == packed_in_python(item) or value == b'{"N":"-%d"}' % 2**64
    many = {f"f{number}": values[number] for number in range(20)}
    assert _kernels.pack(many, LAYOUT.reserved) == packed_in_python(many)
