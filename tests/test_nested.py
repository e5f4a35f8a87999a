"""Lists, tuples, sets, dictionaries, structs and documents: exact, or refused without a leak."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import time
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, NotRequired, Required, TypedDict

import attrs
import msgpack
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalk_online_store import Document, InvalidSchema, InvalidValue, Vector
from chalk_online_store.codec.nested import codec_of, value_encoder
from chalk_online_store.schema.annotations import read_annotation
from tests.golden.generate import ids_of
from tests.helpers import stress
from tests.strategies import (
    ELEMENTS,
    STRUCTS,
    VALUES,
    Colour,
    Fields,
    Typed,
    any_types,
    document_leaves,
    documents,
    double,
    exactly,
    vector,
)

PATH = "user.x"
thorough = settings(max_examples=stress(25), suppress_health_check=list(HealthCheck))
quick = settings(max_examples=stress(30), suppress_health_check=list(HealthCheck))


def encode(annotation: Any, value: Any) -> bytes:
    element = read_annotation(annotation)
    return value_encoder(PATH, element.type, element.nullable, ids_of(annotation))(value)


def decode(annotation: Any, attribute: bytes) -> Any:
    codec = codec_of(read_annotation(annotation).type, PATH, ids_of(annotation))
    return codec.decode(msgspec.json.decode(attribute, type=codec.attribute, strict=False))


def round_trip(annotation: Any, value: Any) -> Any:
    return decode(annotation, encode(annotation, value))


def check(annotation: Any, value: Any) -> None:
    """What is read is what was written."""
    assert exactly(round_trip(annotation, value)) == exactly(value)


# --- exactness over made-up types ----------------------------------------------------------


@thorough
@given(st.data())
def test_a_value_of_any_type_comes_back_exactly(data: st.DataObject) -> None:
    """Whatever types are put into one another, type and value of every part are kept."""
    of = data.draw(any_types())
    check(of.annotation, data.draw(of.values))


@pytest.mark.parametrize("annotation", ELEMENTS, ids=str)
@quick
@given(data=st.data())
def test_a_set_of_every_scalar_comes_back_exactly(annotation: Any, data: st.DataObject) -> None:
    """Whichever form a set is stored in, it has the same elements, NaNs and -0.0 among them."""
    values = VALUES[annotation].filter(
        lambda value: not (isinstance(value, Decimal) and value.is_snan())
    )
    check(set[annotation], data.draw(st.lists(values, max_size=5).map(set)))


@thorough
@given(documents)
@example([double(0x7FF0000000000001), -0.0, {"a": {"b": [None, 2**64 - 1, -(2**63)]}}])
@example({1: "a", b"k": 2, None: 3, 1.5: 4, "": 5})
@example(b"\xd6\xff\x00\x00\x00\x00")
@example([datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_document_comes_back_exactly(value: Any) -> None:
    """What msgpack holds exactly is held exactly, keys of other types than str included."""
    check(Document, value)


@thorough
@given(st.data())
def test_an_engine_may_reorder_what_has_no_order(data: st.DataObject) -> None:
    """Maps and native sets are read the same in whatever order an engine gives them."""
    of = data.draw(any_types())
    value = data.draw(of.values)
    stored = json.dumps(_reversed(json.loads(encode(of.annotation, value)))).encode()
    assert exactly(decode(of.annotation, stored)) == exactly(value)


def _reversed(part: Any) -> Any:
    if isinstance(part, list):
        return [_reversed(p) for p in part]
    if not isinstance(part, dict):
        return part
    turned = reversed(part.items())
    return {k: v[::-1] if k in ("SS", "NS", "BS") else _reversed(v) for k, v in turned}


@thorough
@given(st.data())
def test_no_attribute_breaks_dynamodbs_rules(data: st.DataObject) -> None:
    """No native set is empty, holds one element twice or an empty one; no map key is empty."""
    of = data.draw(any_types())
    _check_rules(json.loads(encode(of.annotation, data.draw(of.values))))


def _check_rules(attribute: dict[str, Any]) -> None:
    ((kind, content),) = attribute.items()
    if kind in ("SS", "NS", "BS"):
        assert content
        assert len(set(content)) == len(content)
        assert "" not in content
    elif kind == "M":
        assert "" not in content
        for part in content.values():
            _check_rules(part)
    elif kind == "L":
        for part in content:
            _check_rules(part)


# --- one case each -------------------------------------------------------------------------


class Point(NamedTuple):
    x: float
    y: float | None = None


@dataclasses.dataclass
class Address:
    street: str
    tags: set[str] = dataclasses.field(default_factory=set)
    point: Point | None = None


@dataclasses.dataclass
class Embedded:
    vectors: list[Annotated[np.ndarray, Vector[2, np.float32]]]


NAN, SAME_NAN = double(0x7FF8000000000000), double(0x7FF8000000000000)
OTHER_NAN = double(0xFFF8000000000001)

EXAMPLES: list[tuple[Any, Any, dict[str, Any]]] = [
    (list[int], [], {"L": []}),
    (list[int | None], [1, None], {"L": [{"N": "1"}, {"NULL": True}]}),
    (list[str], ["null", ""], {"L": [{"S": "null"}, {"S": ""}]}),
    (tuple[int, ...], (), {"L": []}),
    (tuple[()], (), {"L": []}),
    (tuple[int, str | None], (1, None), {"L": [{"N": "1"}, {"NULL": True}]}),
    (set[str], set(), {"L": []}),
    (frozenset[int], frozenset({7}), {"NS": ["7"]}),
    (set[str], {"b", "a"}, {"SS": ["a", "b"]}),
    (set[str], {""}, {"L": [{"S": ""}]}),
    (set[str], {"", "a"}, {"L": [{"S": ""}, {"S": "a"}]}),
    (set[bytes], {b""}, {"L": [{"B": ""}]}),
    (set[bytes], {b"\0"}, {"BS": ["AA=="]}),
    (set[bool], {True}, {"L": [{"BOOL": True}]}),
    (set[float], {1.5}, {"NS": ["1.5"]}),
    (set[float], {-0.0}, {"BS": ["gAAAAAAAAAA="]}),
    (set[float], {-0.0, 1.5}, {"L": [{"B": "gAAAAAAAAAA="}, {"N": "1.5"}]}),
    (set[float], {NAN, OTHER_NAN}, {"BS": ["//gAAAAAAAE=", "f/gAAAAAAAA="]}),
    (
        set[float],
        {NAN, double(0x7FF8000000000000)},
        {"L": [{"B": "f/gAAAAAAAA="}, {"B": "f/gAAAAAAAA="}]},
    ),
    (set[Decimal], {Decimal("NaN"), Decimal("NaN")}, {"L": [{"S": "NaN"}, {"S": "NaN"}]}),
    (set[Decimal], {Decimal("1.5"), Decimal("1.10")}, {"L": [{"N": "1.5"}, {"S": "1.10"}]}),
    (set[Colour], {Colour.RED}, {"SS": ["r"]}),
    (dict[str, int], {}, {"M": {}}),
    (dict[str, int | None], {"a": None}, {"M": {"a": {"NULL": True}}}),
    (dict[str, list[None]], {'"ü. \\': [None]}, {"M": {'"ü. \\': {"L": [{"NULL": True}]}}}),
    (dict[str, Any], {"a": None, "b": []}, {"M": {"a": {"NULL": True}, "b": {"B": "kA=="}}}),
    (Address, Address("s"), {"M": {"a": {"S": "s"}, "b": {"L": []}, "c": {"NULL": True}}}),
    (Point, Point(1.0), {"M": {"a": {"N": "1.0"}, "b": {"NULL": True}}}),
    (Any, [1], {"B": "kQE="}),
    (Document | None, None, {"NULL": True}),
]


@pytest.mark.parametrize(("annotation", "value", "stored"), EXAMPLES)
def test_the_stored_form(annotation: Any, value: Any, stored: dict[str, Any]) -> None:
    """The forms that `docs/types.md` states, empty and special ones among them, and back."""
    found = json.loads(encode(annotation, value))
    assert found == stored
    check(annotation, value)


@pytest.mark.parametrize("make", STRUCTS)
def test_a_struct_of_every_kind(make: Callable[[Fields], Typed]) -> None:
    """Structs without fields, with nulls, and in one another, are all the same to the store."""
    empty, inner = make({}).annotation, _struct(make, n=int | None)
    by_key = dict[str, inner]  # type: ignore[valid-type]
    outer = _struct(make, e=empty, inner=inner, by_key=by_key, none=None)
    check(empty, _value(empty))
    few = {"by_key": {"k": _value(inner, n=2)}, "none": None}
    check(outer, _value(outer, e=_value(empty), inner=_value(inner, n=None), **few))


def _struct(make: Callable[[Fields], Typed], **hints: Any) -> Any:
    return make({name: Typed(hint, st.nothing()) for name, hint in hints.items()}).annotation


def _value(cls: Any, **fields: Any) -> Any:
    is_model = isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)
    return cls.model_construct(**fields) if is_model else cls(**fields)


def test_vectors_in_a_struct() -> None:
    """A vector within other types keeps its dtype and its bits."""
    value = Embedded([np.array([0.1, math.nan], "f4"), np.array([-0.0, math.inf], "f4")])
    check(Embedded, value)


def nested(levels: int) -> tuple[Any, Any]:
    annotation, value = int, 7
    for level in range(levels):
        if level % 3 == 0:
            annotation, value = list[annotation], [value]  # type: ignore[assignment,valid-type]
        elif level % 3 == 1:
            annotation, value = dict[str, annotation], {"k": value}  # type: ignore[assignment,valid-type]
        else:
            cls = dataclasses.make_dataclass("Level", [("x", annotation)])
            annotation, value = cls, cls(value)  # type: ignore[assignment]
    return annotation, value


@pytest.mark.parametrize("levels", [20, 31])
def test_deep_types_are_compiled_at_once(levels: int) -> None:
    """As deep as DynamoDB goes, codecs are made in the time that each level takes, not twice it."""
    started = time.process_time()
    check(*nested(levels))
    assert time.process_time() - started < 5


def test_types_too_deep_are_refused() -> None:
    """DynamoDB nests up to 32 levels, of which the item is the first."""
    with pytest.raises(InvalidSchema, match="32 levels"):
        read_annotation(nested(32)[0])


@dataclasses.dataclass
class Node:
    left: Node | None
    right: list[Node]


class Person(TypedDict):
    name: str
    friend: NotRequired[Person]


@pytest.mark.parametrize("annotation", [Node, list[Node], Person])
def test_recursion_is_refused(annotation: Any) -> None:
    """A type that holds itself has no end, so it is refused at once."""
    with pytest.raises(InvalidSchema, match="holds itself"):
        read_annotation(annotation)


UNSUPPORTED: list[Any] = [
    list,
    dict,
    set,
    tuple,
    dict[int, str],
    set[list[int]],
    set[int | None],
    set[Any],
]
UNSUPPORTED += [set[None], set[vector[2]], int | str, list[object], complex, list["int"]]


@pytest.mark.parametrize("annotation", UNSUPPORTED, ids=str)
def test_other_types_are_refused(annotation: Any) -> None:
    """What no row of the types page covers is refused when the schema is made."""
    with pytest.raises(InvalidSchema):
        read_annotation(annotation)


@pytest.mark.parametrize("annotation", [Annotated[list[int] | None, 1], list[int] | None])
def test_a_container_may_be_null(annotation: Any) -> None:
    """A null container is neither an empty one nor an absent one."""
    assert encode(annotation, None) == b'{"NULL":true}'
    assert round_trip(annotation, None) is None
    assert round_trip(annotation, []) == []


# --- structs: classes with ways of their own -----------------------------------------------


class Loose(TypedDict, total=False):
    here: Required[int]
    gone: str


class Tight(TypedDict):
    here: int
    gone: NotRequired[str | None]


@pytest.mark.parametrize("annotation", [Loose, Tight])
def test_a_key_need_not_be_there(annotation: Any) -> None:
    """What a TypedDict marks is known under deferred annotations, too; absent stays absent."""
    check(annotation, {"here": 1})
    check(annotation, {"here": 1, "gone": "x"})
    with pytest.raises(InvalidValue, match=r"^user\.x"):
        encode(annotation, {"gone": "x"})
    with pytest.raises(InvalidValue, match=r"^user\.x"):
        encode(annotation, {"here": 1, "other": 2})


def test_a_key_of_any_text() -> None:
    """A TypedDict's keys need not be identifiers."""
    odd = TypedDict("odd", {"a b": int, "class": int, "__x": int, "1": int, '"': int})
    check(odd, {"a b": 1, "class": 2, "__x": 3, "1": 4, '"': 5})


@pytest.mark.parametrize("name", ["a.b", "a/b", "a!", ""])
def test_a_key_that_would_blur_a_path_is_refused(name: str) -> None:
    """The registry knows fields by their path, in which some signs have a meaning."""
    odd = types.new_class(
        "odd", (TypedDict,), {}, lambda ns: ns.update(__annotations__={name: int})
    )
    with pytest.raises(InvalidSchema, match="dot"):
        read_annotation(odd)


@attrs.define
class Account:
    _secret: int
    shown: int = attrs.field(alias="display")
    tags: list[str] = attrs.Factory(list)
    twice: int = attrs.field(default=attrs.Factory(lambda self: self.shown * 2, takes_self=True))


def test_attrs_private_and_aliased_fields() -> None:
    """The constructor's names for fields are not those of the attributes."""
    check(Account, Account(1, display=2, tags=["x"], twice=5))


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    first: int = pydantic.Field(alias="second")
    second: int = pydantic.Field(alias="first")
    third: Decimal = pydantic.Field(default=Decimal("1.10"), validation_alias="3")
    fourth: list[int] = pydantic.Field(default_factory=list, serialization_alias="4")
    _private: int = 3


def test_pydantic_aliases() -> None:
    """Aliases, even crossed, do not mix up the fields of a model."""
    value = Model.model_validate({"first": 1, "second": 2, "3": "2.50"})
    check(Model, value)
    assert round_trip(Model, value) == value


class Renamed(msgspec.Struct, rename="camel", kw_only=True, tag=True):
    first_name: str
    last_names: list[str] = []
    points: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})


def test_a_msgspec_struct_with_names_of_its_own() -> None:
    """How a Struct would be written by msgspec itself has no bearing on how it is stored."""
    check(Renamed, Renamed(first_name="x", last_names=["y"]))


DEFAULTS: list[tuple[Any, Any]] = [
    (Account, Account(1, display=2, twice=3)),
    (Address, Address("s")),
    (Model, Model.model_validate({"first": 1, "second": 2})),
    (Renamed, Renamed(first_name="x")),
    (Point, Point(1.0)),
]


@pytest.mark.parametrize(("cls", "value"), DEFAULTS)
def test_a_field_that_was_not_stored_has_its_default(cls: Any, value: Any) -> None:
    """Constants and factories give the fields that a value of an older schema lacks; else None."""
    stored = json.loads(encode(cls, value))
    kept = ("first", "second", "_secret", "shown", "street", "first_name", "x")
    ids = {ids_of(cls)[f"{PATH}.{n}"] for n in kept if f"{PATH}.{n}" in ids_of(cls)}
    old = {"M": {name: part for name, part in stored["M"].items() if name in ids}}
    expected = attrs.evolve(value, twice=None) if cls is Account else value
    found = decode(cls, json.dumps(old).encode())
    assert exactly(found) == exactly(expected)


def test_a_default_factory_is_called_each_time() -> None:
    """Two values do not share what a factory made."""
    first, second = (decode(Address, b'{"M":{}}') for _ in range(2))
    first.tags.add("x")
    assert (second.street, second.tags) == (None, set())


class Nothing(enum.Enum):
    NOTHING = 0


@attrs.define
class Tricky:
    choice: Nothing = Nothing.NOTHING


def test_a_default_that_looks_like_none_at_all() -> None:
    """Attrs' mark for "no default" is known by what it is, not by its name."""
    assert decode(Tricky, b'{"M":{}}') == Tricky()


def _without_init() -> list[Any]:
    @dataclasses.dataclass
    class Derived:
        a: int
        b: int = dataclasses.field(init=False, default=0)

    @dataclasses.dataclass
    class Once:
        a: int
        seed: dataclasses.InitVar[int]

    @attrs.define
    class Late:
        a: int
        b: int = attrs.field(init=False, default=0)

    class Open(pydantic.BaseModel, extra="allow"):
        a: int

    for cls in (Derived, Once, Late, Open):
        cls.__annotations__ = {"a": int} | {n: int for n in ("b",) if hasattr(cls, n)}
    Once.__annotations__["seed"] = dataclasses.InitVar[int]
    Late.__annotations__["b"] = int
    untyped: Any = namedtuple("untyped", "a b")
    return [Derived, Once, Late, Open, untyped]


@pytest.mark.parametrize("cls", _without_init(), ids=lambda cls: cls.__name__)
def test_a_class_that_could_not_be_read_back_is_refused(cls: Any) -> None:
    """Fields that no constructor takes, that have no type, or that no schema tells of."""
    with pytest.raises(InvalidSchema, match=cls.__name__):
        read_annotation(cls)


# --- refused -------------------------------------------------------------------------------


class Elsewhere(Address):
    pass


class Place(pydantic.BaseModel):
    street: str


SECRET = "correct horse"
AT = r"^user\.x"
WRONG: list[tuple[Any, Any, str]] = [
    (list[int], (12345,), rf"{AT} is list\[int\], not tuple"),
    (tuple[int, ...], [12345], rf"{AT} is list\[int\], not list"),
    (list[int], [1, SECRET], rf"{AT} is int, not str"),
    (list[int], [None], rf"{AT} is int, not NoneType; declare it `\| None`"),
    (tuple[int, str], (1, 12345), rf"{AT}\.1 is str, not int"),
    (tuple[int, str], (1,), rf"{AT} \(tuple\[int,str\]\): 1 places instead of 2"),
    (set[int], frozenset({12345}), rf"{AT} is set\[int\], not frozenset"),
    (frozenset[int], {12345}, rf"{AT} is set\[int\], not set"),
    (set[str], {12345}, rf"{AT} is str, not int"),
    (dict[str, int], {"": 12345}, rf"{AT} \(dict\[int\]\): an empty key"),
    (dict[str, int], {12345: 1}, rf"{AT} \(dict\[int\]\): a key that is no str"),
    (dict[str, int], {SECRET + "\ud800": 1}, "lone surrogates in a key"),
    (dict[str, int], {"a": SECRET}, rf"{AT} is int, not str"),
    (dict[str, int], [(SECRET, 1)], rf"{AT} is dict\[int\], not list"),
    (Address, Elsewhere(SECRET), rf"{AT} is struct, not Elsewhere"),
    (Address, Address(12345), rf"{AT}\.street is str, not int"),  # type: ignore[arg-type]
    (list[Address], [Address(SECRET, point=Point(True))], rf"{AT}\.point\.x is float, not bool"),
    (dict[str, tuple[Address]], {SECRET: (Address("", {12345}),)}, rf"{AT}\.0\.tags is str"),  # type: ignore[arg-type]
    (Address, {"street": SECRET}, rf"{AT} is struct, not dict"),
    (Point, (12345.0, None), rf"{AT} is struct, not tuple"),
    (Place, Place.model_construct(), rf"{AT} is struct, not Place"),
    (Tight, {"here": 1, SECRET: 2}, "keys that its TypedDict does not have"),
    (Tight, types.MappingProxyType({"here": 12345}), rf"{AT} is struct, not mappingproxy"),
    (Any, (12345,), rf"{AT} is document, not tuple"),
    (Any, [{12345}], rf"{AT} is document, not list"),
    (Any, 2**64, rf"{AT} is document, not int"),
    (Any, -(2**63) - 1, rf"{AT} is document, not int"),
    (Any, Decimal("12345.5"), rf"{AT} is document, not Decimal"),
    (Any, [Colour.RED], AT),
    (Any, np.float64(12345.5), AT),
    (Any, {"a": datetime(2026, 1, 2)}, AT),  # noqa: DTZ001
    (Any, [datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))], AT),
    (Any, {datetime.min.replace(tzinfo=timezone(timedelta(hours=1))): 1}, AT),
    (Any, [msgpack.Timestamp(12345, 5)], AT),
    (Any, SECRET + "\ud800", AT),
    (Any, OrderedDict(a=12345), AT),
]


@pytest.mark.parametrize(("annotation", "value", "message"), WRONG)
def test_a_wrong_part_is_named_by_its_path(annotation: Any, value: Any, message: str) -> None:
    """The message says which part is wrong, and neither it nor a cause tells any value or key."""
    with pytest.raises(InvalidValue, match=message) as caught:
        encode(annotation, value)
    for secret in ("correct horse", "12345", "2026", "Timestamp(", "18446744073709551616"):
        assert secret not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@quick
@given(st.recursive(document_leaves, lambda parts: st.lists(parts, max_size=2), max_leaves=3))
def test_a_document_too_deep_is_refused(value: Any) -> None:
    """What msgpack cannot nest is refused when it is written, not when it is read."""
    for _ in range(400):
        value = [value]
    check(Any, value)
    for _ in range(800):
        value = [value]
    with pytest.raises(InvalidValue, match=AT):
        encode(Any, value)
