"""Classes under `@features` as users write them: their instances, and references to features."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from chalk_online_store import OnlineStore, UnknownFeature, Vector, feature, features
from chalk_online_store.schema import namespace_of


@features
class User:
    """A plain class."""

    id: int
    email: str | None
    risk: float = feature(max_staleness="1h")
    embedding: Vector[2]
    tags: list[str] = feature(default=[])


@features
@dataclasses.dataclass
class Data:
    """A dataclass."""

    id: int
    risk: float = 0.5


@features
@dataclasses.dataclass(slots=True)
class Slotted:
    """A dataclass with slots."""

    id: int
    risk: float = 0.5


@features
@attrs.define
class Attrs:
    """A class of attrs, which has slots."""

    id: int
    risk: float = 0.5


@features
class Model(pydantic.BaseModel):
    """A pydantic model."""

    id: int
    risk: float = 0.5


@features
class Struct(msgspec.Struct):
    """A struct of msgspec."""

    id: int
    risk: float = 0.5


CLASSES = [Data, Slotted, Attrs, Model, Struct]


def test_a_plain_class_has_instances() -> None:
    """An instance of a plain class is a row, and rows of a read become instances."""
    user = User(1, None, 0.5, np.array([1, 2], "f2"))
    assert (user.tags, User(2, "a", 0.5, [1.0, 2.0], ["x"]).tags) == ([], ["x"])
    assert user.tags is not User(2, "a", 0.5, [1.0, 2.0]).tags
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        store.write(User, [user])
        (found,) = store.read(User, [1]).to(User)
    assert (found.id, found.email, found.risk, found.tags) == (1, None, 0.5, [])
    assert found.embedding.tolist() == [1, 2]


def test_a_class_with_a_constructor_keeps_it() -> None:
    """A plain class that has an `__init__` does not become a dataclass."""

    @features
    class Own:
        id: int
        risk: float

        def __init__(self, key: int) -> None:
            self.id = key

    assert Own(3).id == 3
    assert not dataclasses.is_dataclass(Own)
    assert Own.risk == "own.risk"  # type: ignore[comparison-overlap]


def test_derived_classes_have_their_own_namespace() -> None:
    """A feature class that derives from another has all fields, under its own name."""

    @features
    class Base:
        id: int
        risk: float = feature(max_staleness="1h", default=0.5)

    @features
    class Derived(Base):
        visits: int  # type: ignore[misc]  # After a default: only by its name.

    derived = Derived(1, visits=2)
    assert (derived.id, derived.risk, derived.visits) == (1, 0.5, 2)
    assert (Derived.risk, Base.risk) == ("derived.risk", "base.risk")  # type: ignore[comparison-overlap]
    assert namespace_of(Derived).feature("risk") == namespace_of(Base).feature("risk")


def test_a_derived_dataclass_keeps_the_defaults_of_its_base() -> None:
    """A default factory of a dataclass is that of a feature class which derives from it."""

    @dataclasses.dataclass
    class Base:
        id: int
        tags: list[str] = dataclasses.field(default_factory=list)

    @features
    class Derived(Base):
        visits: int = 0

    assert (Derived(1).tags, Derived(1).visits) == ([], 0)
    assert namespace_of(Derived).feature("tags").default == []


@pytest.mark.parametrize("cls", CLASSES)
def test_a_reference_is_a_name(cls: Any) -> None:
    """A reference to a feature does what its name does, in every call that takes names."""
    with OnlineStore.open("sqlite://", schema=[cls]) as store:
        store.write(cls, [{"id": 1, "risk": 0.25}])
        rows = store.read(cls, [1], [cls.risk], max_staleness={cls.risk: "1h"})
        assert rows.features == ("risk",)
        assert rows.column(cls.risk) == [0.25]
        assert (rows[0][cls.risk], rows[0].get(cls.risk), rows[0].status(cls.risk)) == (
            0.25,
            0.25,
            "hit",
        )
        assert rows.to_numpy(cls.risk).tolist() == [0.25]
        store.write(cls, [{cls.id: 1, cls.risk: 0.75}])
        assert store.read(cls, [1])[0]["risk"] == 0.75
        store.delete(cls, [1], [cls.risk])
        assert store.read(cls, [1])[0].status("risk") == "missing"
        with pytest.raises(UnknownFeature):
            store.read(cls, [1], [User.risk])


@pytest.mark.parametrize("cls", CLASSES)
def test_references_leave_instances_alone(cls: Any) -> None:
    """Instances have their values and defaults, whatever their class."""
    assert (cls(id=1).risk, cls(id=1, risk=2.0).risk) == (0.5, 2.0)


def test_a_derived_class_does_not_take_a_reference_for_a_default() -> None:
    """A class that derives from a feature class has the defaults of its fields."""

    @dataclasses.dataclass
    class Restated(Data):
        risk: float

    class Extended(Model):
        visits: int

    with pytest.raises(TypeError, match="risk"):
        Restated(1)  # type: ignore[call-arg]
    assert Extended(id=1, visits=2).risk == 0.5


def test_a_misspelt_reference_is_an_error() -> None:
    """An attribute that is not a feature does not exist, on the class or on a derived one."""
    with pytest.raises(AttributeError):
        print(User.rsik)  # type: ignore[attr-defined]


def test_a_named_tuple_has_no_references() -> None:
    """The fields of a NamedTuple stay what they are."""

    @features
    class Pair(NamedTuple):  # type: ignore[misc]
        id: int
        risk: float

    assert Pair(1, 0.5).risk == 0.5


def test_a_reference_survives_pickle() -> None:
    """A reference that is pickled is the same name."""
    assert pickle.loads(pickle.dumps(User.risk)) == "user.risk"
