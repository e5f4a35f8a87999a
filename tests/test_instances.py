"""Rows as instances of the user's own classes: in, and out again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from chalk.features import Vector as ChalkVector
from chalk.features import feature as chalk_feature
from chalk.features import features as chalk_features

from chalk_online_store import (
    AsyncOnlineStore,
    Feature,
    IncompleteRow,
    InvalidSchema,
    InvalidValue,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    ReadFailed,
    Report,
    Rows,
    Status,
    UnknownFeature,
    Vector,
    feature,
    features,
)
from chalk_online_store.integrations.chalkpy import namespace_of as chalk_namespace_of
from chalk_online_store.operations.rows import ColumnSources
from chalk_online_store.schema import namespace_of
from chalk_online_store.schema.namespaces import NO_DEFAULT
from tests.test_rows import GOOD, LATE, NOW, SOURCES

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
Hourly = Annotated[float, feature(max_staleness="1h", group="fast")]


@features
@dataclasses.dataclass
class Data:
    id: int
    name: str | None
    risk: Hourly
    visits: int = 7
    tags: list[str] = dataclasses.field(default_factory=list)


@features
@attrs.define
class Attrs:
    id: int
    name: str | None
    risk: Hourly
    visits: int = 7
    tags: list[str] = attrs.Factory(list)


@features
class Model(pydantic.BaseModel):
    id: int
    name: str | None
    risk: Hourly
    visits: int = 7
    tags: list[str] = pydantic.Field(default_factory=list)


@features
class Struct(msgspec.Struct):
    id: int
    name: str | None
    risk: Hourly
    visits: int = 7
    tags: list[str] = msgspec.field(default_factory=list)


@features
class Named(NamedTuple):  # type: ignore[misc]
    id: int
    name: str | None
    risk: Hourly
    visits: int = 7
    tags: list[str] = []  # noqa: RUF012 - never changed


CLASSES: list[Any] = [Data, Attrs, Model, Struct, Named]
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@pytest.fixture
def store() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=CLASSES) as store:
        yield store


@every_class
def test_instances_are_written_and_read(store: OnlineStore, cls: Any) -> None:
    """A class of any kind is a schema, its instances are rows, and rows are its instances."""
    given = [
        cls(id=1, name="a", risk=0.5, visits=3, tags=["x"]),
        cls(id=2, name=None, risk=1.5),
    ]
    store.write(cls, given)
    rows = store.read(cls, [2, 1, 2])
    assert rows.to(cls) == [given[1], given[0], given[1]]
    assert rows.statuses("name") == [Status.NULL, Status.HIT, Status.NULL]
    assert rows.column("visits") == [7, 3, 7]


@every_class
def test_declarations_are_read_from_annotations(cls: Any) -> None:
    """What `feature` says stands in the annotation, and a class's defaults are its features'."""
    found = namespace_of(cls)
    assert found.name == cls.__name__.lower()
    risk, visits = found.feature("risk"), found.feature("visits")
    assert (risk.max_staleness, risk.group, risk.default) == ("1h", "fast", NO_DEFAULT)
    assert (visits.max_staleness, visits.default) == ("infinity", 7)
    assert found.feature("tags").default == []
    assert found.key_name == "id"


@every_class
def test_what_is_not_there_is_the_classs_default(store: OnlineStore, cls: Any) -> None:
    """A missing feature is left to the default, and is None where that is all the field may be."""
    store.write(cls, [{"id": 1, "risk": 0.5}])
    assert store.read(cls, [1]).to(cls) == [cls(id=1, name=None, risk=0.5, visits=7, tags=[])]


@every_class
def test_what_lacks_is_named(store: OnlineStore, cls: Any) -> None:
    """Nothing is made up for a field without a default that may not be None."""
    old = NOON - timedelta(days=1)
    store.write(cls, [{"id": 1, "name": "a", "risk": 0.5}])
    store.write(cls, [{"id": 2, "name": "b", "risk": 0.5}], observed_at=old)
    rows = store.read(cls, [1, 2, 3])
    with pytest.raises(IncompleteRow, match=r"2 rows lack .* position 1: risk \(stale\)") as caught:
        rows.to(cls)
    assert caught.value.lacking == {1: {"risk": "stale"}, 2: {"risk": "missing"}}
    first = cls(id=1, name="a", risk=0.5)
    assert rows.to(cls, None) == [first, None, None]
    assert rows.to(cls, "?") == [first, "?", "?"]


def test_a_null_is_not_left_to_a_default(store: OnlineStore) -> None:
    """What was written as None is None, and lacks where a field may not be."""

    @dataclasses.dataclass
    class Strict:
        name: str = "none"

    @dataclasses.dataclass
    class Loose:
        name: str | None = "none"

    store.write(Data, [{"id": 1, "name": None}])
    rows = store.read(Data, [1, 2], ["name"])
    assert rows.to(Loose) == [Loose(None), Loose("none")]
    with pytest.raises(IncompleteRow) as caught:
        rows.to(Strict)
    assert caught.value.lacking == {0: {"name": "null"}}


def test_a_failed_read_is_no_missing_value() -> None:
    """A default does not stand for what could not be read."""

    @dataclasses.dataclass
    class View:
        risk: float = 0.0

    sources = ColumnSources({"risk": SOURCES["risk"]})
    sources.features["risk"] = Feature("risk", float)
    rows = Rows([1, 2], sources, [0, 1], [[GOOD, LATE]], NOW, Report(failed=1))
    with pytest.raises(ReadFailed, match="position 1"):
        rows.to(View)


def test_a_class_of_some_features(store: OnlineStore) -> None:
    """Rows become instances of any class whose fields were read; the key is one if it has it."""

    @dataclasses.dataclass
    class View:
        risk: float
        name: str | None

    class Keyed(NamedTuple):
        id: int
        risk: float

    store.write(Data, [Data(1, "a", 0.5)])
    rows = store.read(Data, [1], ["name", "risk"])
    assert rows.to(View) == [View(0.5, "a")]
    assert rows.to(Keyed) == [Keyed(1, 0.5)]
    with pytest.raises(InvalidSchema, match="View needs name, which was not read"):
        store.read(Data, [1], ["risk"]).to(View)


def test_a_field_of_another_type_is_refused(store: OnlineStore) -> None:
    """Values are not validated again, so types have to be the same."""

    @dataclasses.dataclass
    class View:
        risk: str

    @dataclasses.dataclass
    class Anything:
        risk: Any

    store.write(Data, [Data(1, "a", 0.5)])
    with pytest.raises(InvalidSchema, match=r"View.risk is .*another type .float"):
        store.read(Data, [1], ["risk"]).to(View)
    assert store.read(Data, [1], ["risk"]).to(Anything) == [Anything(0.5)]


@pytest.mark.parametrize("cls", [int, dict, object])
def test_a_class_without_fields_is_refused(store: OnlineStore, cls: Any) -> None:
    """It is neither a row nor made of one."""
    with pytest.raises(InvalidSchema, match="has no fields"):
        store.read(Data, [1]).to(cls)


def test_rows_that_are_none_are_refused(store: OnlineStore) -> None:
    """A row is a mapping or an instance; its class is named, not its value."""
    with pytest.raises(InvalidValue, match=r"'data' is a mapping, or .*: str has no fields"):
        store.write(Data, ["secret"])


def test_instances_of_other_classes_are_rows_too(store: OnlineStore) -> None:
    """Their fields are features, beside dictionaries; one that is none is named."""

    @dataclasses.dataclass
    class Part:
        id: int
        risk: float

    @dataclasses.dataclass
    class Odd:
        id: int
        nope: int

    rows: list[Any] = [Part(1, 0.5), {"id": 2, "risk": 0.25}, Data(3, "c", 0.75)]
    store.write(Data, rows)
    assert store.read(Data, [1, 2, 3]).column("risk") == [0.5, 0.25, 0.75]
    with pytest.raises(UnknownFeature, match="nope"):
        store.write(Data, [Odd(1, 1)])


def test_vectors_and_a_named_key() -> None:
    """Arrays go in and come out; the key is the field that says so."""

    @features
    @dataclasses.dataclass
    class Item:
        embedding: Annotated[np.ndarray, Vector[2], feature(group="vectors")]
        sku: Annotated[str, feature(primary=True)]

    with OnlineStore.open("sqlite://", schema=[Item]) as store:
        store.write(Item, [Item(np.array([0.5, 1], "f2"), "a")])
        (found,) = store.read(Item, ["a"]).to(Item)
        assert found.sku == "a"
        assert found.embedding.tolist() == [0.5, 1]
        assert namespace_of(Item).feature("embedding").group == "vectors"


def test_declarations_where_instances_would_take_them_are_refused() -> None:
    """`feature(...)` for a value would end up in instances; so does the order of decorators."""
    with pytest.raises(InvalidSchema, match=r"Wrong.risk: .*Annotated\[float, feature"):

        @features
        @dataclasses.dataclass
        class Wrong:
            id: int
            risk: float = feature(max_staleness="1h")

    @dataclasses.dataclass
    @features
    class Upside:
        id: int
        risk: float

    with pytest.raises(InvalidSchema, match="Put @features above @dataclass"):
        OnlineStore.open("sqlite://", schema=[Upside])


def test_annotations_say_it_in_plain_classes_too() -> None:
    """A class without instances may use either form."""

    @features
    class Plain:
        key: Annotated[int, feature(primary=True)]
        risk: Hourly

    assert namespace_of(Plain).key_name == "key"
    assert namespace_of(Plain).feature("risk").max_staleness == "1h"


def test_a_namespace_by_hand_takes_instances() -> None:
    """The class need not be the schema."""
    namespace = Namespace("data", int, [Feature("name", str | None), Feature("risk", float)])

    @dataclasses.dataclass
    class Part:
        id: int
        risk: float

    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        store.write(namespace, [Part(1, 0.5)])
        assert store.read(namespace, [1], ["risk"]).to(Part) == [Part(1, 0.5)]


def test_writers_and_async_stores_take_instances(store: OnlineStore) -> None:
    """Every door takes the same rows."""
    with PersistenceWriter(store) as writer:
        writer.submit(Data, [Data(1, "a", 0.5)]).wait(timeout=60)
    assert store.read(Data, [1]).to(Data) == [Data(1, "a", 0.5)]

    async def use() -> list[Data]:
        async with AsyncOnlineStore.open("sqlite://", schema=[Data]) as other:
            await other.write(Data, [Data(2, None, 0.25)])
            return (await other.read(Data, [2])).to(Data)

    assert asyncio.run(use()) == [Data(2, None, 0.25)]


@chalk_features(name="chalk_instances", max_staleness="1d")
class Chalk:
    id: int
    name: str | None
    risk: float = chalk_feature(name="stored_risk")
    offline: int = chalk_feature(store_online=False)
    embedding: ChalkVector[2]  # type: ignore[valid-type, type-arg]


def test_instances_of_chalkpy() -> None:
    """What is set on an instance is written, under its stored name."""
    make: Any = Chalk
    vector = ChalkVector(np.array([0.5, 1], "f2"))
    with OnlineStore.open("sqlite://", schema=[Chalk]) as store:
        store.write(Chalk, [make(id=1, risk=0.5, embedding=vector), make(id=2, name="b")])
        rows = store.read(Chalk, [1, 2, 3])
        assert rows.statuses("name") == ["missing", "hit", "missing"]
        assert rows.column("stored_risk") == [0.5, None, None]
        found = rows.to(make)
        assert found[0].risk == 0.5
        assert found[0].embedding.tolist() == [0.5, 1]
        assert vars(found[1]) == {"id": 2, "name": "b"}
        assert vars(found[2]) == {"id": 3}


def test_instances_of_chalkpy_with_features_left_out() -> None:
    """They are rows of the smaller namespace, unless a feature that it leaves out is set."""
    make: Any = Chalk
    namespace = chalk_namespace_of(Chalk, leave_out=["stored_risk"])
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        store.write(namespace, [make(id=1, name="a")])
        with pytest.raises(UnknownFeature, match="does not store 'stored_risk': this schema"):
            store.write(namespace, [make(id=2, name="b", risk=0.5)])
        assert store.read(namespace, [2], ["name"]).statuses("name") == ["missing"]
        assert store.read(namespace, [1], ["name"]).column("name") == ["a"]


@every_class
def test_attributes_that_are_not_fields_are_refused(store: OnlineStore, cls: Any) -> None:
    """An attribute that was set beside the fields of a row is refused, and nothing is written."""

    class Wider(cls):  # type: ignore[misc]
        extra: Any = 0

    row = Wider(id=1, name="a", risk=0.5)
    try:
        object.__setattr__(row, "extra", 1)
    except (AttributeError, TypeError):
        pytest.skip("Its instances take no other attributes.")
    with pytest.raises(UnknownFeature, match="extra"):
        store.write(cls, [cls(id=2, name="b", risk=0.5), row])
    assert store.read(cls, [1, 2], ["name"]).statuses("name") == ["missing", "missing"]


def test_attributes_that_a_class_keeps_for_itself_are_not_data(store: OnlineStore) -> None:
    """Private attributes and cached properties of a row are not taken for features."""

    class Wider(Data):
        @cached_property
        def label(self) -> str:
            return f"{self.name}!"

    row = Wider(1, "a", 0.5)
    row._seen = True  # type: ignore[attr-defined]
    assert row.label == "a!"
    store.write(Data, [row])
    assert store.read(Data, [1], ["name"]).column("name") == ["a"]


def test_models_with_extra_fields_are_refused(store: OnlineStore) -> None:
    """A pydantic model whose instances hold more than its fields cannot be a row."""

    class Open(pydantic.BaseModel, extra="allow"):
        id: int
        name: str

    with pytest.raises(InvalidValue, match="Open allows extra fields"):
        store.write(Data, [Open(id=1, name="a", more=3)])  # type: ignore[call-arg]


@every_class
def test_fields_that_the_schema_does_not_have_are_refused(store: OnlineStore, cls: Any) -> None:
    """A row class with more fields than the schema is refused by the name of such a field."""
    narrow = Namespace("narrow", int, [Feature("name", str)])
    with (
        OnlineStore.open("sqlite://", schema=[narrow]) as other,
        pytest.raises(UnknownFeature, match="'risk'"),
    ):
        other.write(narrow, [cls(id=1, name="a", risk=0.5)])
