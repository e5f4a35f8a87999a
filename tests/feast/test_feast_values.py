"""Feast's types: what is written is what is read, bit for bit."""

from __future__ import annotations

import asyncio
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from feast import Field
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    ScalarMap,
    Set,
    String,
    Struct,
    TimeUuid,
    UnixTimestamp,
    Uuid,
    ZonedTimestamp,
)
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidSchema, InvalidValue
from chalk_online_store.integrations.feast.values import kind_of
from chalk_online_store.integrations.feast.views import escaped
from chalk_online_store.testing import Dynoxide, create_table
from tests.feast.world import NOW, Project, view

UUIDS = ["00000000-0000-1000-8000-00805f9b34fb", "ffffffff-ffff-4fff-bfff-ffffffffffff"]
FLOATS = [0.0, -0.0, 0.1, 1e-300, 1.7976931348623157e308, math.inf, -math.inf]
SINGLES = [0.0, -0.0, 0.10000000149011612, 3.4028234663852886e38, 1.401298464324817e-45, math.inf]
BIG, SMALL = 2**63 - 1, 2**31 - 1
MAPPED = {"a": Value(int32_val=1), "": Value(), "é": Value(float_val=0.5)}


def of(field: str, *contents: Any) -> list[Value]:
    return [Value(**{field: content}) for content in contents]


def many(field: str, *contents: Sequence[Any]) -> list[Value]:
    return [Value(**{field: {"val": content}}) for content in contents]


TYPES: dict[str, tuple[FeastType, list[Value]]] = {
    "bool": (Bool, of("bool_val", True, False)),
    "int32": (Int32, of("int32_val", 0, SMALL, -SMALL - 1)),
    "int64": (Int64, of("int64_val", 0, BIG, -BIG - 1)),
    "float32": (Float32, of("float_val", *SINGLES, math.nan)),
    "float64": (Float64, of("double_val", *FLOATS, math.nan)),
    "string": (String, of("string_val", "", "naïve 🐍", "NULL")),
    "bytes": (Bytes, of("bytes_val", b"", b"\x00\xff")),
    "timestamp": (UnixTimestamp, of("unix_timestamp_val", 0, -1, 1_700_000_000, BIG)),
    "json": (Json, of("json_val", "{}", '{"a": [1, null]}')),
    "uuid": (Uuid, of("uuid_val", *UUIDS)),
    "time_uuid": (TimeUuid, of("time_uuid_val", *UUIDS)),
    "decimal": (
        Decimal,
        of("decimal_val", "1.10", "-0", "12345678901234567890.5", "1E+5"),
    ),
    "bools": (Array(Bool), many("bool_list_val", [], [True, False])),
    "int32s": (Array(Int32), many("int32_list_val", [], [1, 1, -SMALL])),
    "int64s": (Array(Int64), many("int64_list_val", [], [BIG, 0])),
    "float32s": (Array(Float32), many("float_list_val", [], [*SINGLES, math.nan])),
    "float64s": (Array(Float64), many("double_list_val", [], [*FLOATS, math.nan])),
    "strings": (Array(String), many("string_list_val", [], ["", "b", "b"])),
    "bytes_list": (Array(Bytes), many("bytes_list_val", [], [b"", b"\xff"])),
    "timestamps": (Array(UnixTimestamp), many("unix_timestamp_list_val", [], [0, 5])),
    "jsons": (Array(Json), many("json_list_val", [], ["1"])),
    "uuids": (Array(Uuid), many("uuid_list_val", [], UUIDS)),
    "decimals": (Array(Decimal), many("decimal_list_val", [], ["1.0", "1.00"])),
    "bool_set": (Set(Bool), many("bool_set_val", [], [True])),
    "int32_set": (Set(Int32), many("int32_set_val", [], [3])),
    "int64_set": (Set(Int64), many("int64_set_val", [], [BIG])),
    "float32_set": (Set(Float32), many("float_set_val", [], [SINGLES[2]])),
    "float64_set": (Set(Float64), many("double_set_val", [], [0.1])),
    "string_set": (Set(String), many("string_set_val", [], [""], ["a"])),
    "bytes_set": (Set(Bytes), many("bytes_set_val", [], [b"\xff"])),
    "uuid_set": (Set(Uuid), many("uuid_set_val", [], UUIDS[:1])),
    "map": (Map, [Value(map_val={"val": MAPPED}), Value(map_val={})]),
    "maps": (Array(Map), many("map_list_val", [], [{"val": MAPPED}, {}])),
    "struct": (Struct({"a": Int32}), [Value(struct_val={"val": MAPPED})]),
    "structs": (Array(Struct({"a": Int32})), many("struct_list_val", [], [{"val": MAPPED}])),
    "lists": (Array(Array(Int32)), many("list_val", [], many("int32_list_val", [], [1]))),
    "sets": (Set(Array(Int32)), many("set_val", [], many("int32_list_val", [1]))),
    "scalar_map": (
        ScalarMap,
        many("scalar_map_val", [], [{"key": {"int64_key": 5}, "value": Value(bool_val=True)}]),
    ),
    "zoned": (
        ZonedTimestamp,
        of("zoned_timestamp_val", {"unix_timestamp": -5, "zone": "Europe/Rome"}),
    ),
}
FIELDS = [Field(name=name, dtype=dtype) for name, (dtype, _) in TYPES.items()]
VECTORS = [
    Field(name="near", dtype=Array(Float32), vector_length=3),
    Field(name="far", dtype=Array(Float64), vector_length=2),
]
EVERYTHING = view("everything", [*FIELDS, *VECTORS])


@pytest.fixture(params=["sqlite", "dynoxide"])
def project(request: pytest.FixtureRequest, dynoxide: Dynoxide, tmp_path: Path) -> Any:
    """A project with a view that has a field of every type."""
    url = f"sqlite:///{tmp_path}/features.db"
    if request.param == "dynoxide":
        table = f"feast-{tmp_path.name}"
        create_table(dynoxide.endpoint_url, table)
        url = dynoxide.url(table)
    with asyncio.Runner() as runner:
        found = Project(url, tmp_path, runner, False)
        found.features.apply([EVERYTHING])
        yield found
        found.close()


def test_every_type_comes_back_bit_for_bit(project: Project) -> None:
    """Each value of each type, and a null, is answered by the very same message."""
    wholes = {name: [*values, Value()] for name, (_, values) in TYPES.items()}
    wholes["near"] = [*many("float_list_val", SINGLES[:3]), Value()]
    wholes["far"] = [*many("double_list_val", [math.nan, -0.0]), Value()]
    count = max(map(len, wholes.values()))
    rows = [
        {name: values[place % len(values)] for name, values in wholes.items()}
        for place in range(count)
    ]
    project.write(EVERYTHING, [({"driver_id": place}, row) for place, row in enumerate(rows)])
    found = project.read_rows(EVERYTHING, [{"driver_id": place} for place in range(count)])
    assert [time for time, _ in found] == [NOW] * count
    for row, (_, answer) in zip(rows, found, strict=True):
        for name, value in row.items():
            assert bits(answer[name]) == bits(value), name


def test_sets_keep_their_members(project: Project) -> None:
    """A set of several comes back with the same members, in some order."""
    members = ["c", "a", "b"]
    (value,) = many("string_set_val", members)
    project.write(EVERYTHING, [({"driver_id": 1}, {"string_set": value})])
    ((_, answer),) = project.read_rows(EVERYTHING, [{"driver_id": 1}], ["string_set"])
    assert sorted(answer["string_set"].string_set_val.val) == sorted(members)


def test_what_feast_makes_of_them(project: Project) -> None:
    """`get_online_features` hands out what Feast makes of each type; nothing is in its way."""
    row = {name: values[0] for name, (_, values) in TYPES.items()}
    project.write(EVERYTHING, [({"driver_id": 1}, row)])
    names = [f"everything:{name}" for name in ("uuid", "int64", "map", "zoned")]
    found = project.respond(names, [{"driver_id": 1}]).to_dict()
    assert str(found["uuid"][0]) == UUIDS[0]
    assert found["int64"] == [0]
    assert found["map"][0]["a"] == 1
    assert found["zoned"][0].timestamp() == -5


def bits(value: Value) -> bytes:
    return bytes(value.SerializeToString(deterministic=True))


@given(st.floats(width=32))
def test_a_float32_is_the_shortest_double_that_is_it(number: float) -> None:
    """What is kept becomes the same four bytes again, and is never longer than what Feast has."""
    kind = kind_of(Field(name="f", dtype=Float32))
    kept = kind.load(number)
    assert struct.pack("<f", kept) == struct.pack("<f", number)
    assert len(repr(kept)) <= len(repr(number))


@pytest.mark.parametrize(
    ("dtype", "given", "kept"),
    [
        (Int64, Value(int32_val=5), 5),
        (Int32, Value(int64_val=5), 5),
        (Float64, Value(float_val=0.5), 0.5),
        (Float32, Value(double_val=0.5), 0.5),
        (UnixTimestamp, Value(int64_val=5), 5),
        (Array(Int64), Value(int32_list_val={"val": [5]}), [5]),
        (Int64, Value(null_val=0), None),
    ],
)
def test_another_field_will_do_if_it_is_the_same_value(
    dtype: FeastType, given: Value, kept: Any
) -> None:
    """A value in the field of another type is taken where nothing of it is lost."""
    assert kind_of(Field(name="f", dtype=dtype)).encode(given, "f") == kept


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (Int32, Value(int64_val=2**31)),
        (Float32, Value(double_val=0.1)),
        (Int64, Value(double_val=5.5)),
        (Bool, Value(string_val="true")),
        (String, Value(int64_val=1)),
        (Map, Value(string_val="{}")),
        (Map, Value(bytes_val=b"\xff")),
        (Uuid, Value(uuid_val="no uuid")),
        (Uuid, Value(uuid_val=UUIDS[0].upper().replace("8", "A"))),
        (Decimal, Value(decimal_val="ten")),
        (Decimal, Value(decimal_val="+1")),
    ],
)
def test_a_value_that_would_be_changed_is_refused(dtype: FeastType, given: Value) -> None:
    """What the declared type cannot hold exactly is refused, and the feature is named."""
    with pytest.raises(InvalidValue, match="'f' is declared"):
        kind_of(Field(name="f", dtype=dtype)).encode(given, "f")


def test_a_vector_of_another_length_is_refused(project: Project) -> None:
    """A field of a stated vector length takes no others."""
    row = {"near": many("float_list_val", [1.0])[0]}
    with pytest.raises(InvalidValue, match="near"):
        project.write(EVERYTHING, [({"driver_id": 1}, row)])


def test_an_unknown_type_is_refused() -> None:
    """A field without a type is refused by name."""
    from feast.types import Invalid

    with pytest.raises(InvalidSchema, match="'f' is Invalid"):
        kind_of(Field(name="f", dtype=Invalid))


NAMES = st.text(max_size=9) | st.text(alphabet="_-1aé9e", max_size=5)


@given(NAMES, NAMES)
def test_names_stay_different_and_possible(one: str, other: str) -> None:
    """No two names of Feast's become one, and each can be a part of a name of ours."""
    assert (escaped(one) == escaped(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", escaped(one))
