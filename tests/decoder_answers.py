"""Answers of read operations to try the decoder on, sound and damaged, however they are written."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from hypothesis import strategies as st

from tests.decoder_reference import KINDS, Column, column

NAMES = ["a", "b7", "Zz", "9", "é", "名", "a name of many bytes", "a name of many bytez"]


class Key(str):
    """A string that is written without escapes."""

    __slots__ = ()


def columns_of(*kinds: str) -> list[Column]:
    return [column(name, kind) for name, kind in zip(NAMES, kinds, strict=False)]


doubles = st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack(">d", raw)[0])
finite = st.floats(allow_nan=False, allow_infinity=False)
digits = st.text("0123456789", min_size=1, max_size=25)
number_texts = st.one_of(
    st.integers().map(str),
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.floats().map(repr),
    doubles.map(repr),
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), digits, digits),
    st.builds("{}e{}".format, digits, st.integers(-330, 330)),
    st.builds("{}.{}E{:+}".format, st.integers(0, 9), digits, st.integers(-40, 40)),
    st.sampled_from(["-0", "1.", ".5", "+1", "01", "1e", "1_0", " 1", "0x1", "", "-", "9" * 39]),
    st.sampled_from(["NaN", "Infinity", "1e400", "1e-400", "1e99999", "1e00001", "0.0", "0e5"]),
)
texts = st.text(max_size=12) | st.sampled_from(['"\\/\b\f\n\r\t', "é", "\U0001f600", "a" * 99])
plain = st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters='"\\')
keys = st.text(plain, max_size=12).map(Key)
raws = st.binary(max_size=10) | st.binary(min_size=125, max_size=132)
odd_base64s = [
    "A",
    "AA",
    "AAA",
    "AB==",
    "AAB=",
    "A===",
    "====",
    "AA=A",
    "=AAA",
    "AAAA=",
    "A A=",
    "-_==",
]
odd_base64s += ["AAAé", "AA==AAAA"]
base64s = raws.map(lambda raw: base64.b64encode(raw).decode()) | st.sampled_from(odd_base64s)
eights = doubles.map(lambda value: base64.b64encode(struct.pack(">d", value)).decode())
nests = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(texts, parts, max_size=3),
    max_leaves=6,
)
null = st.just({"NULL": True})
sound: dict[str, st.SearchStrategy[Any]] = {
    "S": texts.map(lambda text: {"S": text}) | null,
    "B": raws.map(lambda raw: {"B": base64.b64encode(raw).decode()}) | null,
    "BOOL": st.booleans().map(lambda value: {"BOOL": value}) | null,
    "int": st.integers(-(10**38) + 1, 10**38 - 1).map(lambda value: {"N": str(value)}) | null,
    "float": finite.map(lambda x: {"N": repr(x + 0.0)}) | eights.map(lambda text: {"B": text}),
    "other": st.builds(lambda nest: {"L": [nest]}, nests) | null,
}
unsound = st.one_of(
    number_texts.map(lambda text: {"N": text}),
    base64s.map(lambda text: {"B": text}),
    st.sampled_from([{}, {"NULL": False}, {"S": "a", "N": "1"}, {"SS": ["a"]}, {"BOOL": "true"}]),
    nests,
)
times = st.integers(-(2**63) + 1, 2**63 - 1).map(lambda time: {"N": str(time)})


@st.composite
def items(draw: st.DrawFn, columns: list[Column], damage: bool) -> list[tuple[str, Any]]:
    """An item's attributes in any order, perhaps one of them broken, missing or there twice."""
    pairs: list[tuple[str, Any]] = [("pk", {"S": draw(keys)}), ("sk", {"S": draw(keys)})]
    for name, kind, _ in columns:
        pairs += [(name, draw(sound[kind]))] if draw(st.integers(0, 5)) else []
        pairs += [] if draw(st.integers(0, 5)) else [("@" + name, draw(times))]
    pairs += [("@", draw(times))] if draw(st.integers(0, 5)) else []
    pairs += [] if draw(st.integers(0, 3)) else [("~", draw(times))]
    pairs += draw(
        st.lists(
            st.tuples(st.sampled_from(["%", "ttl", "ã", "", "a name of many byte"]), nests),
            max_size=2,
        )
    )
    if damage:
        place = draw(st.integers(0, len(pairs) - 1))
        pairs[place] = (draw(st.sampled_from(pairs))[0], draw(unsound))
    return draw(st.permutations(pairs))


def dumps(draw: st.DrawFn, value: Any) -> str:
    """JSON with escapes at will; a list of pairs is an object."""
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value) and value:
        names = [json.dumps(name, ensure_ascii=False) for name, _ in value]
        parts = [f"{n}:{dumps(draw, v)}" for n, (_, v) in zip(names, value, strict=True)]
        return "{" + ",".join(parts) + "}"
    if isinstance(value, dict):
        return dumps(draw, list(value.items())) if value else "{}"
    if isinstance(value, list):
        return "[" + ",".join(dumps(draw, part) for part in value) + "]"
    return json.dumps(value, ensure_ascii=not isinstance(value, Key) and draw(st.booleans()))


@st.composite
def bodies(draw: st.DrawFn, columns: list[Column], damage: bool) -> bytes:
    """An answer of any of the three operations."""
    found = draw(st.lists(items(columns, damage), max_size=3))
    answer: list[tuple[str, Any]] = draw(
        st.sampled_from(
            [
                [("Responses", [("table", found)]), ("UnprocessedKeys", {})],
                [("Items", found), ("Count", len(found)), ("LastEvaluatedKey", {"pk": {"S": "é"}})],
                [("Item", found[0])] if found else [],
                [("Item", None)],
                [("Responses", {})],
            ]
        )
    )
    answer = draw(st.permutations([*answer, ("ConsumedCapacity", {"CapacityUnits": 1.5})]))
    return dumps(draw, answer).encode()


column_lists = st.lists(st.sampled_from(KINDS), max_size=len(NAMES)).map(lambda k: columns_of(*k))
answers = column_lists.flatmap(lambda c: st.tuples(st.just(c), bodies(c, False)))
damaged_answers = column_lists.flatmap(lambda c: st.tuples(st.just(c), bodies(c, True)))
