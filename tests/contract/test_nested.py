"""Nested types through every engine, and what becomes of them as schemas change."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, Namespace, OnlineStore, Status, TypeConflict
from tests.contract.conftest import Open
from tests.helpers import stress
from tests.strategies import exactly, namespaces


@settings(max_examples=stress(6), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_row_of_any_schema_comes_back_exactly(url: str, data: st.DataObject) -> None:
    """Whatever a schema is made up of, every engine gives back each value that it was given."""
    namespace, rows = data.draw(namespaces())
    row = data.draw(rows)
    with OnlineStore.open(url, [namespace]) as store:
        store.write(namespace, [{"id": 1, **row}])
        store.write(namespace, [{"id": key, **row} for key in (2, 3)], ordering="arrival")
    with OnlineStore.open(url, [namespace]) as store:
        for found in store.read(namespace, [1, 2, 3]):
            for name in namespace.by_name:
                expected = Status.NULL if row.get(name) is None else Status.HIT
                assert found.status(name) is (expected if name in row else Status.MISSING)
                assert exactly(found[name]) == exactly(row.get(name))
        columns = store.read(namespace, [3, 1]).to_dict()
        assert all(len({exactly(v) for v in column}) == 1 for column in columns.values())


def struct(**fields: Any) -> Any:
    """A dataclass of these fields: an annotation each, or one and its default."""
    pairs = [(n, *f) if isinstance(f, tuple) else (n, f) for n, f in fields.items()]
    kind = [(n, f[0], dataclasses.field(default=f[1])) if f[1:] else (n, f[0]) for n, *f in pairs]
    return dataclasses.make_dataclass("Address", kind)


def user(address: Any, **more: Any) -> Namespace:
    """A namespace with a struct feature, and others by annotation."""
    annotations = {"address": address, **more}
    return Namespace("user", int, [Feature(n, a) for n, a in annotations.items()])


OLD = struct(street=str, number=int)
NEW = struct(number=int, street=str, country=(str, "CH"), floor=(int | None, None))


def written(open_store: Open, schema: Namespace, **row: Any) -> None:
    """Write one row by a store of its own, as another process would."""
    open_store([schema]).write(schema, [{"id": 1, **row}])


def read(open_store: Open, schema: Namespace) -> Any:
    """Read the row's address by a store of its own."""
    return open_store([schema]).read(schema, [1], consistent=True)[0]["address"]


def test_fields_may_be_added_and_reordered(open_store: Open) -> None:
    """Values of an older class are read with the defaults of the newer; ids stay with names."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    assert read(open_store, user(NEW)) == NEW(7, "Main St")
    written(open_store, user(NEW), address=NEW(8, "Rue", "FR", 9))
    assert read(open_store, user(NEW)) == NEW(8, "Rue", "FR", 9)
    reordered = struct(street=str, floor=int | None, number=int, country=str)
    assert read(open_store, user(reordered)) == reordered("Rue", 9, 8, "FR")


def test_fields_may_be_removed(open_store: Open) -> None:
    """A class that no longer has a field reads what has it, and the value outlives the class."""
    written(open_store, user(NEW), address=NEW(8, "Rue", "FR", 9))
    assert read(open_store, user(OLD)) == OLD("Rue", 8)
    few = struct(number=int)
    assert read(open_store, user(few)) == few(8)
    assert read(open_store, user(NEW)) == NEW(8, "Rue", "FR", 9)


def test_a_field_without_default_is_none(open_store: Open) -> None:
    """A new field for which the class has no default is None where it was never stored."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    wide = struct(street=str, number=int, city=str)
    assert read(open_store, user(wide)) == wide("Main St", 7, None)
    written(open_store, user(wide), address=wide("a", 1, "b"))
    assert read(open_store, user(wide)) == wide("a", 1, "b")


@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (list[OLD], lambda a: [a, a]),  # type: ignore[valid-type]
        (dict[str, OLD], lambda a: {"k": a}),  # type: ignore[valid-type]
        (tuple[int, OLD], lambda a: (1, a)),  # type: ignore[valid-type]
    ],
    ids=["list", "dict", "tuple"],
)
def test_fields_may_be_added_inside_containers(
    open_store: Open, annotation: Any, wrap: Any
) -> None:
    """What holds for a struct's fields holds wherever the struct lies."""
    written(open_store, user(annotation), address=wrap(OLD("Main St", 7)))
    origin = annotation.__origin__
    newer = origin[tuple(NEW if a is OLD else a for a in annotation.__args__)]
    assert read(open_store, user(newer)) == wrap(NEW(7, "Main St"))


def test_another_type_of_a_field_is_refused(open_store: Open) -> None:
    """A field keeps its type for good; the conflict names the path of the field."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    other = struct(street=int, number=int)
    changed = user(other)
    conflict = r"user\.address\.street is int .* but str"
    with pytest.raises(TypeConflict, match=conflict):
        open_store([changed]).read(changed, [1])
    with pytest.raises(TypeConflict, match=conflict):
        open_store([changed]).write(changed, [{"id": 1, "address": other(1, 7)}])
    assert read(open_store, user(OLD)) == OLD("Main St", 7)


@pytest.mark.parametrize("annotation", [list[OLD], dict[str, Any], Any, str], ids=str)  # type: ignore[valid-type]
def test_a_struct_stays_a_struct(open_store: Open, annotation: Any) -> None:
    """A struct cannot become a list of structs, a dictionary, a document or text."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    with pytest.raises(TypeConflict, match=r"user\.address is .* but struct"):
        read(open_store, user(annotation))


class Row(TypedDict):
    street: str
    number: int


def test_a_struct_may_be_of_another_kind(open_store: Open) -> None:
    """The kind of class and its name are not stored: fields are what is kept."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    assert read(open_store, user(Row)) == Row(street="Main St", number=7)
    assert read(open_store, user(Row | None)) == Row(street="Main St", number=7)


def test_a_feature_beside_a_struct_may_be_added(open_store: Open) -> None:
    """Fields of structs and features share one set of ids, and none is given twice."""
    written(open_store, user(OLD), address=OLD("Main St", 7))
    wide = user(NEW, visits=int, tags=set[str])
    written(open_store, wide, address=NEW(8, "Rue", "FR", 9), visits=3, tags={"x"})
    row = open_store([wide]).read(wide, [1])[0]
    assert row.to_dict() == {"address": NEW(8, "Rue", "FR", 9), "visits": 3, "tags": {"x"}}
    assert read(open_store, user(OLD)) == OLD("Rue", 8)


def test_many_fields_in_one_struct(open_store: Open) -> None:
    """More fields than one transaction of the registry holds are entered all the same."""
    large = struct(**{f"field_{i}": int for i in range(130)})
    value = large(*range(130))
    written(open_store, user(large), address=value)
    assert read(open_store, user(large)) == value


NAN = float("nan")
SETS: list[Any] = [
    (set[float], [{NAN, float("nan")}, {1.0, NAN, -0.0}, {1e126, 5e-324}, {1e22, 0.1}, set()]),
    (set[str], [{"", "a"}, {""}, {"null"}, {"x" * 1000, "é"}]),
    (set[bytes], [{b"", b"a"}, {b"5B\xcb", b"\x9e\xe9e"}]),
    (set[bool], [{True, False}, {False}]),
]


@pytest.mark.parametrize(("annotation", "values"), SETS, ids=[str(kind) for kind, _ in SETS])
def test_sets_that_engines_could_refuse(
    open_store: Open, annotation: Any, values: list[Any]
) -> None:
    """Equal bits, empty and special elements are written by update and by batch alike."""
    schema = user(annotation)
    store = open_store([schema])
    rows = [{"id": i, "address": value} for i, value in enumerate(values)]
    for ordering in ("event", "arrival"):
        store.write(schema, rows, ordering=ordering)
        found = store.read(schema, range(len(values)), consistent=True).column("address")
        assert list(map(exactly, found)) == list(map(exactly, values))
