"""The decoder in C says what an independent, simple reading of the same JSON says, or nothing.

`make sanitize` runs this under sanitizers, by a larger `CHALK_STRESS`.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib.util
import json
import operator
import random
import shutil
import struct
import sys
import sysconfig
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalk_online_store.codec.decoding import described
from chalk_online_store.codec.layout import TableLayout
from tests.decoder_answers import (
    answers,
    columns_of,
    damaged_answers,
    number_texts,
    odd_base64s,
)
from tests.decoder_reference import Column, Row, Unsure, column, parse, reference, refuse
from tests.helpers import stress

try:
    from chalk_online_store.codec import _kernels
except ImportError:
    _kernels = None  # type: ignore[assignment]

MODULE = "chalk_online_store.codec._kernels"
needs_decoder = pytest.mark.skipif(_kernels is None, reason="the C extension is not built")
EXAMPLES = stress(40)
fuzz = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


def test_there_is_an_extension_where_there_is_a_compiler() -> None:
    """A machine with a C compiler tests the decoder in C, instead of skipping it."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert importlib.util.find_spec(MODULE) or not shutil.which(compiler)


# --- comparing -----------------------------------------------------------------------------


Decoder = Callable[[bytes], tuple[list[Row], int, int]]


def decoder(columns: list[Column]) -> Decoder:
    made = _kernels.Decoder(described(columns, TableLayout()), len(columns))

    def decode(body: bytes) -> tuple[list[Row], int, int]:
        frame, cut, resume = made.decode(body)
        rows = list(frame)
        check_columns(frame, rows, len(columns))
        return rows, cut, resume

    return decode


def check_columns(frame: _kernels.Frame, rows: list[Row], width: int) -> None:
    """Columns, times and extremes are those of the rows."""
    assert len(frame) == frame.present == len(rows)
    times = [row[3] or (row[2],) * width for row in rows]
    for place in range(width):
        assert exact(frame.contents(place)) == exact([row[4 + place] for row in rows])
        assert frame.times(place) == [row[place] for row in times]
    known = [time for row in times for time in row if time is not None]
    assert frame.oldest == min(known + [row[2] for row in rows], default=None)
    assert frame.has_times == any(row[3] is not None for row in rows)


def exact(value: Any) -> Any:
    """What equals only what is the same to the bit and of the same type."""
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, tuple | list):
        return type(value), [exact(part) for part in value]
    return type(value), value


def agrees(columns: list[Column], body: bytes, *, may_refuse: bool = False) -> bool:
    """Whether there was an answer, after checking that it is the reference's."""
    try:
        rows, cut, resume = decoder(columns)(body)
    except ValueError as error:
        refused = (str(error), error.__context__)
    else:
        expected, left = reference(columns, body)
        assert exact(rows) == exact(expected)
        assert dict(parse(body[:cut] + body[resume:])) == left
        return True
    assert refused == ("not an answer that is plain to read", None)
    if not may_refuse:
        with pytest.raises(Unsure):
            reference(columns, body)
    return False


# --- what it reads -------------------------------------------------------------------------


@needs_decoder
@fuzz
@given(answers)
def test_sound_answers(answer: tuple[list[Column], bytes]) -> None:
    """Items of every kind, in any order and with gaps, are read as the contract says."""
    assert agrees(*answer)


@needs_decoder
@fuzz
@given(damaged_answers)
def test_damaged_answers(answer: tuple[list[Column], bytes]) -> None:
    """Where an attribute is not as its column, the decoder refuses where the contract does."""
    agrees(*answer)


@needs_decoder
@fuzz
@given(answers, st.data())
def test_answers_cut_short(answer: tuple[list[Column], bytes], data: st.DataObject) -> None:
    """No beginning of an answer is taken for an answer."""
    columns, body = answer
    assert not agrees(columns, body[: data.draw(st.integers(0, len(body) - 1))])


@needs_decoder
def test_every_beginning() -> None:
    """An answer can stop at any byte; under sanitizers, that none is read after the last."""
    columns = columns_of("S", "float", "other", "int", "BOOL")
    for body in (*BODIES[:2], one('"9":{"N":"-12"},"é":{"BOOL":false},"@":{"N":"5"}')):
        assert agrees(columns, body)
        for size in range(len(body)):
            assert not agrees(columns, body[:size])


@needs_decoder
@fuzz
@given(answers, st.data())
def test_answers_with_other_bytes(answer: tuple[list[Column], bytes], data: st.DataObject) -> None:
    """Whatever bytes are changed, put in or left out: refused, or read as what is then there."""
    columns, body = answer
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 3))
        put = data.draw(st.sampled_from(TOKENS) | st.binary(max_size=2))
        body = body[:start] + put + body[start + cut :]
    agrees(columns, body, may_refuse=True)


TOKENS = [bytes([letter]) for letter in b'{}[]",:\\-+.eE019tfnNSB =\0\x80\xff']
TOKENS += [b"null", b"true", b"\\ud800", b"\\u0041", b'"a":', b'{"NULL":true}', b'{"N":"1"}']


@needs_decoder
@fuzz
@given(st.lists(number_texts, min_size=1, max_size=20))
@example(["9007199254740993", "-9007199254740993", "9007199254740992.9999999999999999999"])
@example(["0.1234567890123456789", "1844674407370955161.5", "9999999999999999999", "1e22", "1e23"])
@example(["5e-324", "2.2250738585072011e-308", "1.7976931348623159e308", "-1e-400", "0.000"])
def test_numbers(texts: list[str]) -> None:
    """A number becomes the nearest float, or the very int, or is refused."""
    for text in texts:
        for kind in ("float", "int"):
            agrees([column("a", kind)], one(f'"a":{{"N":{json.dumps(text)}}}'))


@needs_decoder
def test_floats_are_rounded_as_python_does() -> None:
    """Many decimals of every length, also those next to the middle between two floats.

    The decoder reads them itself: its reader would fail.
    """
    draw = random.Random(1)
    texts = [f"{draw.uniform(0, 10 ** draw.randint(-3, 20)):f}" for _ in range(3000)]
    texts += [repr(draw.uniform(0, 1000)) for _ in range(3000)]
    texts += [decimal(draw.getrandbits(64), draw.randint(0, 25)) for _ in range(3000)]
    for places in range(24):
        for _ in range(100):
            below = near_a_middle(draw.getrandbits(52) + 2**52, places)
            texts += [decimal(below + by, places) for by in (-1, 0, 1, 2)]
    items = ",".join(f'{{"pk":{{"S":""}},"sk":{{"S":""}},"a":{{"N":"{text}"}}}}' for text in texts)
    rows, *_ = decoder([("a", "float", refuse)])(b'{"Items":[%b]}' % items.encode())
    assert [exact(row[4]) for row in rows] == [exact(float(text)) for text in texts]


def decimal(number: int, places: int) -> str:
    """So many digits of the number after a point."""
    digits = str(number).zfill(places + 1)
    point = len(digits) - places
    return f"{digits[:point]}.{digits[point:]}".rstrip(".")


def near_a_middle(bits: int, places: int) -> int:
    """The digits, of 64 bits, that with so many places come next below the middle of two floats.

    The two have these 53 bits and the next, times some power of two.
    """
    scaled: int = (2 * bits + 1) * 10**places
    return scaled >> max(0, scaled.bit_length() - 63)


@needs_decoder
def test_base64() -> None:
    """Bytes of every length are read; base64 that no encoder writes is refused."""
    columns = columns_of("B")
    for size in range(200):
        text = base64.b64encode(random.Random(size).randbytes(size)).decode()
        assert agrees(columns, one(f'"a":{{"B":"{text}"}}'))
    for text in odd_base64s:
        assert not agrees(columns, one(f'"a":{{"B":"{text}"}}'))


def one(attributes: str) -> bytes:
    """An answer of GetItem."""
    return f'{{"Item":{{"pk":{{"S":"p"}},"sk":{{"S":"s"}},{attributes}}}}}'.encode()


@needs_decoder
def test_what_is_left_of_an_answer() -> None:
    """The envelope comes back byte for byte, with one empty item for all there are."""
    item = b'{"pk":{"S":"p"},"sk":{"S":"s"}}'
    for body, left in [
        (b'{"Items":[%b,%b],"x":1}', b'{"Items":[{}],"x":1}'),
        (b'{"x":[{}],"Responses":{"t":[%b,%b]}}', b'{"x":[{}],"Responses":{"t":[{}]}}'),
    ]:
        filled = body % (item, item)
        rows, cut, resume = decoder([])(filled)
        assert rows == [("p", "s", 0, None)] * 2
        assert filled[:cut] + filled[resume:] == left
    rows, cut, resume = decoder([])(b'{"Item":%b}' % item)
    assert (rows, cut, resume) == ([("p", "s", 0, None)], 9, 38)
    for body in (b"{}", b'{"Item":null}', b'{"Items":[]}'):
        assert decoder([])(body) == ([], len(body), len(body))


@needs_decoder
@pytest.mark.parametrize(
    "skipped", [b'"\xff\\x\\"\\u1"', b"tru", b"1.2.3", b'[-,{"\xff":e,"a":{}}]']
)
def test_what_is_skipped(skipped: bytes) -> None:
    """In a value that nobody asked for, only brackets, separators and quotes have to be right."""
    assert agrees(
        [], b'{"x":%b,"Item":{"x":%b,"pk":{"S":"p"},"sk":{"S":"s"}}}' % (skipped, skipped)
    )
    for wrong in (skipped[:-1] + b"\0", skipped + b"}", skipped + b" ", skipped + b'"'):
        assert not agrees([], b'{"x":%b}' % wrong, may_refuse=True)


@needs_decoder
def test_what_is_not_plain() -> None:
    """What its column does not have so is for the reader, which gets the JSON of the attribute."""
    column: list[Column] = [("a", "S", bytes), ("b", "float", bytes)]
    column += [("c", "int", bytes), ("d", "other", bytes), ("e", "BOOL", bytes), ("f", "B", bytes)]
    for name, attribute in [
        ("a", b'{"S":"\\n"}'),
        ("a", b'{"N":"1"}'),
        ("b", b'{"N":"1e5"}'),
        ("b", b'{"N":"-0"}'),
        ("b", b'{"B":"AAAAAAAAAAA="}'),
        ("c", b'{"N":"9223372036854775808"}'),
        ("c", b'{"N":"1.0"}'),
        ("d", b'{"L":[{"NULL":true}]}'),
        ("e", b'{"BOOL":null}'),
        ("f", b'{"B":"AB=="}'),
        ("f", b'{"B":"AAAA","N":"1"}'),
    ]:
        (row,), *_ = decoder(column)(one(f'"{name}":{attribute.decode()}'))
        assert [value for value in row[4:] if value is not None] == [attribute]


@needs_decoder
def test_times() -> None:
    """Times are None where the latest is that of every value, else each has its own."""
    columns = columns_of("S", "int")
    value = '"a":{"S":"x"},"b7":{"NULL":true}'
    for attributes, latest, times in [
        (value, 0, None),
        (value + ',"@":{"N":"5"}', 5, None),
        (value + ',"@":{"N":"5"},"~":{"N":"3"}', 5, (3, 3)),
        (value + ',"@":{"N":"5"},"@a":{"N":"2"}', 5, (2, 5)),
        ('"a":{"S":"x"},"@":{"N":"5"}', 5, (5, None)),
        ('"a":{"S":"x"},"@":{"N":"5"},"~":{"N":"3"},"@b7":{"N":"5"}', 5, (3, None)),
    ]:
        (row,), *_ = decoder(columns)(one(attributes))
        assert row[2:4] == (latest, times)
        assert agrees(columns, one(attributes))


REFUSED = [
    b"",
    b"null",
    b"{}x",
    b" {}",
    b"{} ",
    b'{"Items": []}',
    b'{"Items":[],"x":[1, 2]}',
    b"{}\0",
    b"[]",
    b'{"Items":null}',
    b'{"Items":[],}',
    b'{"Items":[],"Items":[]}',
    b'{"Item":null,"Item":null}',
    b'{"Items":[],"Responses":{}}',
    b'{"Responses":[]}',
    b'{"Responses":{"a":[],"b":[]}}',
    b'{"It\\u0065ms":[]}',
    b'{"Items":[{}]}',
    b'{"Items":[null]}',
    b'{"x":"\n"}',
    b'{"x":%b' % (b"[" * 100_000),
    one('"\\u0061":{"S":"x"}'),
    one('"a":{"S":"\\ud800"}'),
    one('"a":{"S":"x"},"a":{"S":"x"}'),
    one('"a":null'),
    one('"@":{"NULL":true}'),
    one('"@a":{"NULL":true}'),
    one('"@":{"N":"1.0"}'),
    one('"@":{"N":"1"},"@":{"N":"1"}'),
    one('"pk":{"S":"p"}'),
    b'{"Item":{"pk":{"S":"p"}}}',
    b'{"Item":{"sk":{"S":"s"}}}',
    b'{"Item":{"pk":{"NULL":true},"sk":{"S":"s"}}}',
]


@needs_decoder
@pytest.mark.parametrize("body", REFUSED)
def test_refusals(body: bytes) -> None:
    """What is not plain is left to the decoder in Python, without a word about its content."""
    assert not agrees(columns_of("S"), body, may_refuse=True)


@needs_decoder
def test_an_item_of_many_features() -> None:
    """A thousand features in any order each find their column."""
    names = [f"{first}{second}" for first in "abcdefghijklmnopqrstuvwxyz" for second in range(40)]
    columns = [column(name, "int") for name in names]
    parts = [f'"{name}":{{"N":"{i}"}}' for i, name in enumerate(names)]
    random.Random(1).shuffle(parts)
    assert agrees(columns, one(",".join(parts)))
    assert agrees(columns, one(",".join(parts[::2])))


@needs_decoder
def test_rows_of_atoms_are_no_work_for_the_collector() -> None:
    """Rows that cannot lie in a cycle are not tracked; rows with other values are."""
    (row,), *_ = decoder(columns_of("S", "int"))(one('"a":{"S":"x"}'))
    assert row[3] is not None
    assert not gc.is_tracked(row)
    assert not gc.is_tracked(row[3])
    (row,), *_ = decoder(columns_of("other"))(one('"a":{"L":[]}'))
    assert gc.is_tracked(row)


# --- calls ---------------------------------------------------------------------------------


@needs_decoder
@pytest.mark.parametrize("body", [None, "{}", bytearray(b"{}")])
def test_a_body_is_bytes(body: Any) -> None:
    """What is not bytes is a TypeError: no fallback would read it either."""
    with pytest.raises(TypeError):
        decoder([])(body)


@needs_decoder
def test_reading_again_while_reading() -> None:
    """`read` may use the very decoder that calls it."""

    def read(raw: bytes) -> object:
        inner = raw.replace(b'{"L":[', b"", 1)[:-2]
        return again(one(f'"a":{inner.decode()}'))[0] if inner else "innermost"

    again = decoder([("a", "other", read), ("b", "S", read)])
    body = one('"a":{"L":[{"L":[{"L":[]}]}]},"b":{"S":"outermost"}')
    (row,), *_ = again(body)
    assert row[5] == "outermost"
    assert row[4][0][4][0][4] == "innermost"


@needs_decoder
def test_errors_of_read() -> None:
    """An error of `read` is one more reason to be unsure; an interrupt is none."""

    def fail(error: BaseException) -> object:
        def read(_: bytes) -> object:
            raise error

        return decoder([("a", "other", read)])(one('"a":{"L":[]}'))

    with pytest.raises(ValueError, match="plain to read"):
        fail(KeyError("secret"))
    for passed in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(passed)):
            fail(passed)


@needs_decoder
def test_threads_share_a_decoder() -> None:
    """Decoding in many threads at once, with a `read` that lets others go on, mixes nothing up."""

    def read(raw: bytes) -> object:
        turn.wait(0.0001)
        return raw

    turn = threading.Event()
    shared = decoder([("a", "other", read), ("b", "S", read)])
    wrong: list[Row] = []

    def work(number: int) -> None:
        body = one(f'"b":{{"S":"{number}"}},"a":{{"L":[{number}]}}')
        for _ in range(50):
            (row,), *_ = shared(body)
            if row[4:] != (b'{"L":[%d]}' % number, str(number)):
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


BODIES = [
    one(
        '"a":{"S":"\\u00e9\\n"},"b7":{"N":"1.5"},"Zz":{"L":[1]},"@a":{"N":"99999999999"},"ttl":"é"'
    ),
    one('"a":{"S":"ééé"},"b7":{"B":"AAAAAAAAAAA="},"Zz":{"NULL":true},"~":{"N":"99999999999"}'),
    one('"a":{"S":"xyz"},"b7":{"B":"AAAAAAAA"},"@Zz":{"N":"99999999999"}'),
    one('"a":{"S":"xyz"},"@a":{"N":"99999999999"},"Zz":{"L":[]},"Zz":{"L":[]}'),
    one('"a":{"S":"\\ud800"}'),
    *REFUSED,
]


@needs_decoder
def test_nothing_leaks() -> None:
    """Neither sound nor refused answers leave memory or references behind."""

    def read(raw: bytes) -> object:
        return shown if raw != b'{"L":[]}' else 1 / 0

    shown = object()
    tracemalloc.start()
    try:
        go_over(read, 300)
        held, used = references(shown, read), [tracemalloc.get_traced_memory()[0]]
        for _ in range(4):
            go_over(read, 300)
            used.append(tracemalloc.get_traced_memory()[0])
        assert references(shown, read) == held
        # The interpreter's free lists fill up now and then; a leak grows every time.
        assert min(map(operator.sub, used[1:], used)) < 300 * 16  # bytes of the smallest object
    finally:
        tracemalloc.stop()


def go_over(read: Callable[[bytes], object], times: int) -> None:
    for _ in range(times):
        made = decoder([("a", "S", read), ("b7", "float", read), ("Zz", "other", read)])
        for body in BODIES:
            with contextlib.suppress(ValueError):
                made(body)
    gc.collect()


def references(*others: object) -> list[int]:
    singles: list[object] = [None, True, *others]
    return [sys.getrefcount(single) for single in singles]
