"""Namespaces, features and types: what a declaration means, and what is refused."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Optional, Union
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import (
    Feature,
    InvalidSchema,
    LRUCache,
    Namespace,
    OnlineStoreConfig,
    UnknownFeature,
    Vector,
    feature,
    features,
)
from chalk_online_store.schema import (
    ChoiceType,
    PrimaryKey,
    Scalar,
    VectorType,
    namespace_of,
    namespaces,
)
from tests.strategies import vector

DAY = 86_400_000_000


class Colour(enum.Enum):
    """An Enum of text."""

    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # noqa: PIE796 - an alias


@features(max_staleness="30d")
class User:
    """The class of the design's example, under deferred annotations."""

    id: int
    email: str | None
    txn_count_30d: int
    risk: float = feature(max_staleness="1h", group="realtime")
    colour: Colour = feature(max_staleness="infinity")
    embedding: Vector[32, "f4"]  # noqa: F821, UP037


def test_a_class_is_a_namespace() -> None:
    """A class under `@features` means the same as a namespace built by hand."""
    by_hand = Namespace(
        "user",
        int,
        (
            Feature("email", str | None, max_staleness="30d"),
            Feature("txn_count_30d", int, max_staleness="30d"),
            Feature("risk", float, max_staleness="1h", group="realtime"),
            Feature("colour", Colour),
            Feature("embedding", vector[32, "f4"], max_staleness="30d"),
        ),
    )
    assert namespace_of(User) == by_hand
    assert namespace_of(by_hand) is by_hand


def test_staleness_is_inherited_unless_stated() -> None:
    """A feature has its class's max staleness, or its own, also where that is longer."""
    found = {f.name: f.staleness for f in namespace_of(User).features}
    hour = 3_600_000_000
    expected = {"email": 30 * DAY, "txn_count_30d": 30 * DAY, "embedding": 30 * DAY}
    assert found == expected | {"risk": hour, "colour": None}


def test_groups_keep_the_order_of_the_schema() -> None:
    """Every feature is in one group, the default one unless it names another."""
    groups = namespace_of(User).groups
    assert {name: [f.name for f in group] for name, group in groups.items()} == {
        "default": ["email", "txn_count_30d", "colour", "embedding"],
        "realtime": ["risk"],
    }


def test_a_class_stays_what_it_was() -> None:
    """The decorator gives back the class itself, with or without brackets."""

    class Plain:
        id: int

    assert features(Plain) is Plain
    assert features()(Plain) is Plain
    assert namespace_of(Plain).name == "plain"
    assert namespace_of(Plain).features == ()


def test_a_config_is_kept() -> None:
    """Name and config of the decorator are the namespace's; the default config has no cache."""
    config = OnlineStoreConfig(lru_cache=LRUCache(10, "5m", store_cache_misses=True))

    @features(name="customer", online_store_config=config)
    class Renamed:
        id: int

    assert namespace_of(Renamed).name == "customer"
    assert namespace_of(Renamed).online_store_config is config
    assert namespace_of(User).online_store_config.lru_cache is None


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("User", "user"),
        ("UserProfile", "user_profile"),
        ("HTTPServer", "http_server"),
        ("User2", "user2"),
        ("User2Factor", "user2_factor"),
        ("userID", "user_id"),
        ("already_snake", "already_snake"),
        ("A", "a"),
    ],
)
def test_a_class_is_called_in_snake_case(class_name: str, name: str) -> None:
    """The namespace's name is the class's, split at its capitals."""
    cls = type(class_name, (), {"__annotations__": {"id": int}})
    assert namespace_of(features(cls)).name == name


def test_features_of_a_base_class_are_inherited() -> None:
    """A subclass has its base's features, as every Python class has its base's attributes."""

    class Base:
        id: int
        risk: float = feature(max_staleness="1h")

    @features(max_staleness="1d")
    class Derived(Base):
        email: str

    found = {f.name: f.staleness for f in namespace_of(Derived).features}
    assert found == {"risk": DAY // 24, "email": DAY}


# --- primary keys --------------------------------------------------------------------------


def test_the_field_called_id_is_the_key() -> None:
    """Without a mark the field named `id` is the key, and is no feature."""
    namespace = namespace_of(User)
    assert (namespace.key_name, namespace.key.parts) == ("id", (int,))
    assert "id" not in namespace.by_name


def test_a_marked_field_is_the_key() -> None:
    """A field may be marked as the key; one named `id` is a feature then."""

    @features
    class Order:
        id: int
        number: UUID = feature(primary=True)

    assert namespace_of(Order).key == PrimaryKey("number", UUID)
    assert list(namespace_of(Order).by_name) == ["id"]


@pytest.mark.parametrize(
    ("annotation", "parts", "composite"),
    [
        (int, (int,), False),
        (str, (str,), False),
        (UUID, (UUID,), False),
        (tuple[int, str], (int, str), True),
        (tuple[UUID], (UUID,), True),
    ],
)
def test_what_can_be_a_key(annotation: Any, parts: tuple[type, ...], composite: bool) -> None:
    """A key is an int, a str, a UUID or a tuple of them."""
    key = PrimaryKey("id", annotation)
    assert (key.parts, key.composite) == (parts, composite)


NO_KEYS = [float, bool, bytes, None, int | None, tuple, tuple[()], tuple[int, ...], tuple[float]]


@pytest.mark.parametrize("annotation", [*NO_KEYS, Any, Colour, list[int], Literal[1]], ids=str)
def test_what_cannot_be_a_key(annotation: Any) -> None:
    """Any other type of key is refused, by its name and with the way out."""
    with pytest.raises(InvalidSchema, match=r"Primary key 'id' is .* must be int, str, UUID"):
        Namespace("user", annotation, ())


# --- types ---------------------------------------------------------------------------------

SCALAR_NAMES: list[tuple[Any, str]] = [
    (bool, "bool"),
    (str, "str"),
    (bytes, "bytes"),
    (int, "int"),
    (float, "float"),
    (Decimal, "decimal"),
    (datetime, "datetime"),
    (date, "date"),
    (time, "time"),
    (timedelta, "timedelta"),
    (UUID, "uuid"),
    (None, "none"),
    (type(None), "none"),
]


@pytest.mark.parametrize(("annotation", "name"), SCALAR_NAMES, ids=str)
def test_a_scalar_has_a_name_of_its_own(annotation: Any, name: str) -> None:
    """Each scalar is called in the registry what `docs/types.md` calls it."""
    assert Feature("x", annotation).type == Scalar(name)


OPTIONALS: list[Any] = [
    int | None,
    None | int,
    Optional[int],  # noqa: UP045 - this form is tested
    Union[int, None],  # noqa: UP007
    Union[None, int],  # noqa: UP007
]


@pytest.mark.parametrize("annotation", OPTIONALS)
def test_every_way_to_write_optional(annotation: Any) -> None:
    """All forms of `T | None` are T, and may be null."""
    found = Feature("x", annotation)
    assert (found.type, found.nullable) == (Scalar("int"), True)


@pytest.mark.parametrize(
    ("annotation", "nullable"),
    [(int, False), (None, True), (vector[2] | None, True), (Literal["a"] | None, True)],
)
def test_what_may_be_null(annotation: Any, nullable: bool) -> None:
    """None is a value of what says so, and of None itself."""
    assert Feature("x", annotation).nullable is nullable


def test_an_enum_is_its_values() -> None:
    """An Enum is stored as the type of its values; an alias is the member that it stands for."""
    assert Feature("x", Colour).type == ChoiceType(
        Scalar("str"), {"r": Colour.RED, "g": Colour.GREEN}
    )


@pytest.mark.parametrize(
    ("annotation", "member"),
    [
        (Literal["a", "b"], "str"),
        (Literal[1, 2], "int"),
        (Literal[True], "bool"),
        (Literal[b"a"], "bytes"),
        (enum.IntEnum("Level", "LOW HIGH"), "int"),
        (enum.StrEnum("Name", "LOW HIGH"), "str"),
        (enum.Flag("Bit", "ONE TWO"), "int"),
    ],
)
def test_choices_have_one_type(annotation: Any, member: str) -> None:
    """Each Enum and Literal is stored as the one type that its values have."""
    found = Feature("x", annotation).type
    assert isinstance(found, ChoiceType)
    assert (found.name, found.member) == (member, Scalar(member))


MIXED: list[Any] = [
    Literal[1, "a"],
    Literal["a", None],
    Literal[1, True],
    Literal[True, 1],
    Literal[0, False, 2],
    enum.Enum("Mixed", {"A": 1, "B": "b"}),
    enum.Enum("Floats", {"A": 1.5}),
    enum.Enum("Empty", {}),
]


@pytest.mark.parametrize("annotation", MIXED, ids=str)
def test_choices_of_several_types_are_refused(annotation: Any) -> None:
    """Values of different types, of other types, or none at all are no choice; True is no 1."""
    with pytest.raises(InvalidSchema, match="must all be str, all int"):
        Feature("x", annotation)


@pytest.mark.parametrize(
    ("annotation", "size", "dtype"),
    [(vector[32], 32, "f2"), (vector[1, "f4"], 1, "f4"), (vector[7, "f8"], 7, "f8")],
)
def test_a_vector_has_size_and_dtype(annotation: Any, size: int, dtype: str) -> None:
    """A vector is fp16 unless it says otherwise, and says all of it in its name."""
    found = Feature("x", annotation).type
    assert found == VectorType(size, dtype)
    assert found.name == f"vector[{size},{dtype}]"


VECTOR_AND_MORE: list[tuple[Any, Any, bool]] = [
    (Annotated[np.ndarray, vector[3]], VectorType(3, "f2"), False),
    (Annotated[np.ndarray, "doc", vector[3, np.float32]], VectorType(3, "f4"), False),
    (Annotated[np.ndarray, vector[3, np.float64]] | None, VectorType(3, "f8"), True),
    (Annotated[np.ndarray | None, vector[3]], VectorType(3, "f2"), True),
    (Annotated[int, "doc"], Scalar("int"), False),
    (Annotated[str | None, "doc"], Scalar("str"), True),
]


@pytest.mark.parametrize(("annotation", "kind", "nullable"), VECTOR_AND_MORE, ids=str)
def test_an_annotated_type(annotation: Any, kind: Any, nullable: bool) -> None:
    """`Annotated` says a vector in a form that type checkers take; other notes are ignored."""
    found = Feature("x", annotation)
    assert (found.type, found.nullable) == (kind, nullable)


def test_an_annotated_class() -> None:
    """In a class notes on the key are ignored as notes on features are."""

    @features
    class Noted:
        id: Annotated[int, "doc"]
        embedding: Annotated[np.ndarray, Vector[3, np.float32]]

    namespace = namespace_of(Noted)
    assert namespace.key.parts == (int,)
    assert namespace.feature("embedding").type == VectorType(3, "f4")


def test_vectors_of_one_kind_are_one_type() -> None:
    """Writing the same vector twice gives the same class, so schemas compare equal."""
    assert vector[5] is vector[5, "f2"]
    assert vector[5] is not vector[5, "f4"]
    assert issubclass(vector[5], Vector)


NO_VECTORS: list[Any] = [0, -1, "32", 1.5, (3, "f16"), (3, "i4"), (3, None), (3, "f4", 1), ()]


@pytest.mark.parametrize("arguments", NO_VECTORS, ids=str)
def test_a_vector_that_cannot_be(arguments: Any) -> None:
    """A vector's size is an int from 1 and its dtype a float's; all else is refused."""
    with pytest.raises(InvalidSchema, match="the size is an int from 1"):
        vector[arguments]


UNSUPPORTED = [int | str, int | str | None, list[object], object, complex, Vector, "int", 5]


@pytest.mark.parametrize("annotation", UNSUPPORTED, ids=str)
def test_an_annotation_that_no_type_covers(annotation: Any) -> None:
    """An annotation that nothing stores is refused, and the message says where the types are."""
    with pytest.raises(InvalidSchema, match=r"not a feature type; docs/types\.md lists them"):
        Feature("x", annotation)


# --- what is refused -----------------------------------------------------------------------


def test_a_class_without_a_key() -> None:
    """A class needs a key, and the message says how to name one."""
    with pytest.raises(InvalidSchema, match="Keyless has no primary key: name a field `id`"):

        @features
        class Keyless:
            email: str


def test_a_class_with_two_keys() -> None:
    """Two marked fields are refused: a key of two parts is a tuple."""
    with pytest.raises(InvalidSchema, match="Twice has two primary keys; use one tuple"):

        @features
        class Twice:
            a: int = feature(primary=True)
            b: int = feature(primary=True)


def test_a_default_value_is_that_of_the_feature() -> None:
    """A default of the class is the default of its instances and of the feature."""

    @features
    class Defaulted:
        id: int
        risk: float = 0.5

    assert Defaulted(1).risk == namespace_of(Defaulted).feature("risk").default == 0.5


def test_a_field_of_dataclasses_is_refused() -> None:
    """`dataclasses.field()` in a plain class is not taken for a default value."""
    with pytest.raises(InvalidSchema, match=r"Plain\.tags is a dataclasses\.field"):

        @features
        class Plain:
            id: int
            tags: list[str] = dataclasses.field(default_factory=list)


def test_a_class_variable_is_refused() -> None:
    """What is no feature has no place among the annotations."""
    with pytest.raises(InvalidSchema, match=r"Counted\.count is a ClassVar"):

        @features
        class Counted:
            id: int
            count: ClassVar[int] = 0


def test_a_bad_staleness_is_refused_at_once() -> None:
    """A duration that cannot be read fails where it is declared."""
    with pytest.raises(InvalidSchema, match="'soon' is not a duration"):

        @features(max_staleness="soon")
        class Aging:
            id: int
            risk: float


BAD_NAMES = ["", "1a", "a.b", "a/b", "a b", "é", "a:b", "a#", "@a", "-a", "x" * 256, "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_stored(name: str) -> None:
    """Namespaces, features and groups are named alike; marks of the registry are in no name."""
    with pytest.raises(InvalidSchema, match="cannot name a namespace"):
        Namespace(name, int, ())
    with pytest.raises(InvalidSchema, match="cannot name a feature"):
        Feature(name, int)
    with pytest.raises(InvalidSchema, match="cannot name a group"):
        Feature("x", int, group=name)


@pytest.mark.parametrize("name", ["a", "_", "Z9_@-", "x" * 255])
def test_a_name_that_can_be_stored(name: str) -> None:
    """Letters, digits, and a few marks after the first letter are fine."""
    namespace = Namespace(name, int, (Feature(name, int, group=name),))
    assert namespace.full_name(namespace.features[0]) == f"{name}.{name}"


def test_two_features_of_one_name() -> None:
    """A name is used once in a namespace, the key's included."""
    for features_ in ((Feature("x", int), Feature("x", str)), (Feature("id", int),)):
        with pytest.raises(InvalidSchema, match="two features of one name"):
            Namespace("user", int, features_)


def test_two_namespaces_of_one_name() -> None:
    """A schema may list a namespace twice, but not two namespaces of one name."""
    other = Namespace("user", int, ())
    assert list(namespaces([User, User])) == ["user"]
    with pytest.raises(InvalidSchema, match="Two namespaces are called 'user'"):
        namespaces([User, other])


@pytest.mark.parametrize(
    "schema", [int, object(), None, "user"], ids=["int", "object", "None", "user"]
)
def test_what_is_no_namespace(schema: Any) -> None:
    """Anything but a namespace or a class under `@features` is refused, with the way out."""
    with pytest.raises(
        InvalidSchema,
        match=r"is not a feature class: pass the class itself",
    ):
        namespace_of(schema)


def test_a_feature_by_its_name() -> None:
    """A feature is found by its short and by its full name; others are told what there is."""
    namespace = namespace_of(User)
    assert namespace.feature("risk") is namespace.feature("user.risk")
    for name in ("riks", "shop.risk", "id", "user."):
        with pytest.raises(UnknownFeature, match="It has: colour, email, embedding, risk"):
            namespace.feature(name)


def test_a_local_type_in_a_deferred_annotation() -> None:
    """An annotation that cannot be resolved is refused as every other bad declaration is."""

    class Local(enum.Enum):
        A = "a"

    with pytest.raises(InvalidSchema, match="Local"):

        @features
        class Deferred:
            id: int
            local: Local
