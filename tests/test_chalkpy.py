"""Feature classes of chalkpy as schemas: every type and setting, and rows through a store."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Optional, TypedDict
from uuid import UUID

import attrs
import numpy as np
import pydantic
import pytest
from chalk import JSON, DataFrame, Document, FeatureTime, Primary, Windowed, windowed
from chalk.features import Vector as ChalkVector
from chalk.features import feature, features, has_many, has_one
from chalk.stores import LRUCache, OnlineStoreConfig

from chalk_online_store import (
    AsyncOnlineStore,
    Feature,
    FutureTimestamp,
    InvalidSchema,
    InvalidValue,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    UnknownFeature,
)
from chalk_online_store import LRUCache as OurLRUCache
from chalk_online_store import OnlineStoreConfig as OurConfig
from chalk_online_store.integrations.chalkpy import namespace_of, namespaces_of
from chalk_online_store.schema.namespaces import NO_DEFAULT

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

# What chalkpy makes at runtime is more than type checkers know.
VECTOR: Any = ChalkVector
Half = VECTOR[4]
Single32 = VECTOR["fp32", 4]
Double = VECTOR["fp64", 4]


class Tier(enum.Enum):
    FREE = "free"
    PAID = "paid"


@dataclasses.dataclass
class Address:
    street: str
    kind: Literal["home", "work"]
    zip_code: int | None = None


@attrs.define
class Device:
    name: str
    seen_for: timedelta


class Profile(pydantic.BaseModel):
    nick: str
    scores: list[float]


class Limits(TypedDict):
    daily: Decimal


@features(name="chalk_typed", max_staleness="infinity")
class Typed:
    id: str
    whole: int
    ratio: float
    text: str
    flag: bool
    moment: datetime
    day: date
    clock: time
    raw: bytes
    price: Decimal
    uid: UUID
    tier: Tier
    maybe: Optional[str]  # noqa: UP045 - as many write it still
    maybe_too: int | None
    numbers: list[int]
    tags: set[str]
    frozen: frozenset[int]
    weights: dict[str, float]
    steps: tuple[int, ...]
    addresses: list[Address]
    address: Address
    device: Device
    profile: Profile
    limits: Limits
    document: Document[Profile]  # type: ignore[type-arg]
    anything: JSON
    half: Half  # type: ignore[valid-type]
    single: Single32  # type: ignore[valid-type]
    double: Double  # type: ignore[valid-type]


ROW: dict[str, Any] = {
    "id": "a",
    "whole": -5,
    "ratio": 0.1,
    "text": "é",
    "flag": True,
    "moment": NOON,
    "day": date(2026, 1, 2),
    "clock": time(1, 2, 3, 4),
    "raw": b"\x00",
    "price": Decimal("1.10"),
    "uid": UUID(int=7),
    "tier": Tier.PAID,
    "maybe": None,
    "maybe_too": 3,
    "numbers": [1, 2],
    "tags": {"a", "b"},
    "frozen": frozenset({1}),
    "weights": {"x": 0.5},
    "steps": (1, 2, 3),
    "addresses": [Address("x", "home", 1)],
    "address": Address("y", "work"),
    "device": Device("phone", timedelta(seconds=5)),
    "profile": Profile(nick="n", scores=[1.5]),
    "limits": {"daily": Decimal("5.00")},
    "document": Profile(nick="d", scores=[]),
    "anything": {"a": [1, None, "x"]},
    "half": np.array([1, 2, 3, 4], "f2"),
    "single": np.array([1, 2, 3, 0.1], "f4"),
    "double": np.array([1, 2, 3, 0.1], "f8"),
}


@features(
    name="chalk_settings",
    max_staleness="30d",
    cache_nulls=False,
    online_store_config=OnlineStoreConfig(lru_cache=LRUCache(7, "90s", store_cache_misses=True)),
)
class Settings:
    key: Primary[int]
    at: FeatureTime
    plain: int
    brief: int = feature(max_staleness="1h 10m")
    endless: int = feature(max_staleness="infinity")
    uncached: int = feature(max_staleness=None)
    offline: int = feature(store_online=False)
    evicting: int | None = feature(cache_nulls="evict_nulls")
    storing: int | None = feature(cache_nulls=True)
    count: int = 5
    other: int = feature(default=6, cache_nulls=True, cache_defaults="evict_defaults")
    skipping: int = feature(default=7, cache_defaults=False)
    renamed: int = feature(name="stored_name")
    model: float = feature(version=2)
    latest: float = feature(version=3, default_version=3)
    visits: Windowed[int] = windowed("1d", "7d", default=0)


@features(name="chalk_card")
class Card:
    id: str
    owner_id: Owner.id  # type: ignore[valid-type]


@features(name="chalk_owner", max_staleness="1d")
class Owner:
    id: int
    name: str
    card: Card = has_one(lambda: Card.owner_id == Owner.id)
    cards: DataFrame[Card] = has_many(  # type: ignore[type-arg]
        lambda: Card.owner_id == Owner.id
    )


@features(name="chalk_cached_join")
class CachedJoin:
    id: int
    name: str = feature(max_staleness="1d")
    cards: DataFrame[Card] = has_many(  # type: ignore[type-arg]
        lambda: Card.owner_id == CachedJoin.id, max_staleness="1d"
    )


@features(name="chalk_odd")
class Odd:
    id: int
    name: str
    by_number: dict[int, str]


@features(name="chalk_refused")
class Refused:
    id: int
    took: timedelta


@features(name="chalk_single", singleton=True)
class Single:
    limit: int


SETTINGS = {feature.name: feature for feature in namespace_of(Settings).features}


def test_rows_of_every_type_come_back_exactly() -> None:
    """A chalkpy class is a schema as it is, and every type of it is stored and read exactly."""
    with OnlineStore.open("sqlite://", schema=[Typed]) as store:
        store.write(Typed, [ROW])
        (row,) = store.read(Typed, ["a"])
        for name, expected in ROW.items():
            value = row.key if name == "id" else row[name]
            assert type(value) is type(expected), name
            np.testing.assert_array_equal(value, expected, name)
        assert row["half"].dtype == np.dtype("f2")
        assert row["single"].dtype == np.dtype("f4")


def test_whole_columns_are_written_as_single_rows_are() -> None:
    """The encoders of many rows take chalkpy's types as well."""
    with OnlineStore.open("sqlite://", schema=[Typed]) as store:
        store.write(Typed, [ROW | {"id": "a"}, ROW | {"id": "b"}])
        rows = store.read(Typed, ["a", "b"], ["address", "price"])
        assert rows.column("address") == [ROW["address"]] * 2
        assert rows.column("price") == [ROW["price"]] * 2


def test_a_class_is_always_the_same_namespace() -> None:
    """What is opened with a class is read with it."""
    assert namespace_of(Owner) is namespace_of(Owner)
    assert namespaces_of(Owner, Card) == [namespace_of(Owner), namespace_of(Card)]


def test_names_are_those_that_chalk_stores() -> None:
    """Versions, windows and `name=` included; feature time, parents of windows, joins are none."""
    assert list(SETTINGS) == [
        "plain",
        "brief",
        "endless",
        "uncached",
        "evicting",
        "storing",
        "count",
        "other",
        "skipping",
        "stored_name",
        "model",
        "latest@3",
        "visits__86400__",
        "visits__604800__",
        "model@2",
        "latest",
        "latest@2",
    ]
    assert namespace_of(Settings).key_name == "key"
    assert namespace_of(Settings).name == "chalk_settings"
    assert [feature.name for feature in namespace_of(Owner).features] == ["name"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", timedelta(days=30)),
        ("brief", timedelta(hours=1, minutes=10)),
        ("endless", None),
        ("uncached", timedelta(0)),
        ("visits__86400__", timedelta(days=30)),
        ("model@2", timedelta(days=30)),
    ],
)
def test_max_staleness_is_the_features_or_the_classs(name: str, expected: timedelta | None) -> None:
    """A feature's own wins over its class's; "infinity" has no end; None is Chalk's 0."""
    microseconds = SETTINGS[name].staleness
    assert microseconds == (None if expected is None else expected // timedelta(microseconds=1))


def test_without_max_staleness_nothing_is_served_unless_a_read_says_so() -> None:
    """Chalk caches nothing by default; as there, a read may ask for older values."""
    with OnlineStore.open("sqlite://", schema=[Card]) as store:
        store.write(Card, [{"id": "c", "owner_id": 1}])
        assert store.read(Card, ["c"])[0].status("owner_id") == "stale"
        assert store.read(Card, ["c"], max_staleness={"owner_id": "1h"})[0]["owner_id"] == 1


@pytest.mark.parametrize(
    ("name", "nulls", "defaults", "default"),
    [
        ("plain", False, True, NO_DEFAULT),
        ("evicting", "evict_nulls", True, NO_DEFAULT),
        ("storing", True, True, NO_DEFAULT),
        ("count", False, True, 5),
        ("other", True, "evict_defaults", 6),
        ("skipping", False, False, 7),
        ("visits__604800__", False, True, 0),
    ],
)
def test_nulls_and_defaults_are_taken_over(
    name: str, nulls: object, defaults: object, default: object
) -> None:
    """`cache_nulls`, `cache_defaults` and defaults, of the feature or else of the class."""
    found = SETTINGS[name]
    assert (found.cache_nulls, found.cache_defaults) == (nulls, defaults)
    assert found.default == default


def test_evicted_values_are_gone() -> None:
    """The settings do in a store what they do in Chalk."""
    with OnlineStore.open("sqlite://", schema=[Settings]) as store:
        store.write(Settings, [{"key": 1, "evicting": 1, "storing": 1, "other": 1, "skipping": 1}])
        late = {"key": 1, "evicting": None, "storing": None, "other": 6, "skipping": 7}
        store.write(Settings, [late])
        (row,) = store.read(Settings, [1], ["evicting", "storing", "other", "skipping"])
        statuses = [row.status(name) for name in ("evicting", "storing", "other", "skipping")]
        assert statuses == ["missing", "null", "missing", "hit"]
        assert row["skipping"] == 1


def test_the_lru_cache_is_taken_over() -> None:
    """A class's cache is its namespace's; without one there is none."""
    expected = OurConfig(OurLRUCache(7, timedelta(seconds=90), store_cache_misses=True))
    assert namespace_of(Settings).online_store_config == expected
    assert namespace_of(Owner).online_store_config == OurConfig()


def test_a_reference_has_the_type_of_what_it_refers_to() -> None:
    """A foreign key such as `Owner.id` is the other's type."""
    never = timedelta(0)
    assert namespace_of(Card).features == (Feature("owner_id", int, max_staleness=never),)


def test_a_join_that_chalk_caches_is_refused() -> None:
    """Such a has-many is named with the way out, which works."""
    with pytest.raises(InvalidSchema, match=r"chalk_cached_join.cards .*leave_out=\['cards'\]"):
        namespace_of(CachedJoin)
    found = namespace_of(CachedJoin, leave_out=["cards"])
    assert list(found.by_name) == ["name"]


def test_a_type_without_a_form_is_refused() -> None:
    """Its feature is named with the way out, and the namespace without it is a schema."""
    with pytest.raises(InvalidSchema, match=r"chalk_odd.by_number: .*leave_out=\['by_number'\]"):
        OnlineStore.open("sqlite://", schema=[Odd])
    found = namespace_of(Odd, leave_out=["by_number"])
    with OnlineStore.open("sqlite://", schema=[found]) as store:
        store.write(found, [{"id": 1, "name": "x"}])
        with pytest.raises(UnknownFeature):
            store.read(found, [1], ["by_number"])


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Single, "Single has no primary key"),
        (Refused, "Refused: .*timedelta"),
        (int, "no feature class of chalkpy"),
    ],
)
def test_what_is_no_namespace_is_refused(cls: type, message: str) -> None:
    """A singleton has no key; what chalkpy itself refuses is told by its class."""
    with pytest.raises(InvalidSchema, match=message):
        namespace_of(cls)


def test_what_to_leave_out_must_be_there() -> None:
    """A misspelt name is not left out in silence."""
    with pytest.raises(InvalidSchema, match="no feature 'nmae'"):
        namespace_of(Owner, leave_out=["nmae"])


# --- instances: their feature time, and what of them is stored -----------------------------


@features(name="chalk_person", max_staleness="infinity")
class Person:
    id: int
    email: str
    risk: float = feature(max_staleness="infinity", version=2)
    renamed: int = feature(name="stored_name")
    offline: int = feature(store_online=False)
    updated_at: FeatureTime
    card: Card = has_one(lambda: Card.owner_id == Person.id)
    cards: DataFrame[Card] = has_many(  # type: ignore[type-arg]
        lambda: Card.owner_id == Person.id
    )
    logins: Windowed[int] = windowed("1d", "7d", default=0)


@features(name="chalk_windows", max_staleness="infinity")
class Windows:
    id: int
    spent: Windowed[float] = windowed("1h", "all")


PERSON: Any = Person
CARD: Any = Card
LATE, EARLY = datetime(2026, 6, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC)


@pytest.fixture
def people() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=[Person, Card]) as store:
        yield store


def _person(key: int, **given: Any) -> Any:
    return PERSON(id=key, **given)


FORMS: list[Callable[[int, str, datetime], Any]] = [
    lambda key, email, at: PERSON(id=key, email=email, updated_at=at),
    lambda key, email, at: {"id": key, "email": email, "updated_at": at},
    lambda key, email, at: {PERSON.id: key, PERSON.email: email, PERSON.updated_at: at},
    lambda key, email, at: {"id": key, "email": email, "chalk_person.updated_at": at},
]


@pytest.mark.parametrize("form", FORMS, ids=["instance", "short", "reference", "full"])
def test_the_feature_time_is_the_observed_at(people: OnlineStore, form: Any) -> None:
    """A row's FeatureTime decides whether it is newer, whatever the form of the row."""
    people.write(Person, [form(1, "new", LATE)])
    people.write(Person, [form(1, "old", EARLY)])
    row = people.read(Person, [1], ["email"])[0]
    assert (row["email"], row.observed_at("email")) == ("new", LATE)


def test_rows_without_a_feature_time_are_observed_now(people: OnlineStore) -> None:
    """In one write, rows that state a FeatureTime keep it, and the others are observed now."""
    before = datetime.now(UTC)
    rows = [_person(1, email="a"), _person(2, email="b", updated_at=EARLY), {"id": 3, "email": "c"}]
    people.write(Person, rows)
    times = [row.observed_at("email") for row in people.read(Person, [1, 2, 3], ["email"])]
    assert times[1] == EARLY
    assert all(time is not None and time >= before for time in (times[0], times[2]))


def test_writers_and_async_stores_heed_the_feature_time(people: OnlineStore) -> None:
    """The persistence writer and the async store observe an instance at its FeatureTime."""
    with PersistenceWriter(people) as writer:
        writer.submit(Person, [_person(1, email="new", updated_at=LATE)]).wait(timeout=60)
        writer.submit(Person, [_person(1, email="old", updated_at=EARLY)]).wait(timeout=60)
    row = people.read(Person, [1], ["email"])[0]
    assert (row["email"], row.observed_at("email")) == ("new", LATE)

    async def use() -> datetime | None:
        async with AsyncOnlineStore.open("sqlite://", schema=[Person]) as store:
            await store.write(Person, [_person(1, email="a", updated_at=EARLY)])
            return (await store.read(Person, [1], [PERSON.email]))[0].observed_at(PERSON.email)

    assert asyncio.run(use()) == EARLY


@pytest.mark.parametrize("observed_at", [LATE, [LATE]])
def test_an_observed_at_that_contradicts_a_feature_time_is_refused(
    people: OnlineStore, observed_at: Any
) -> None:
    """`observed_at=` may repeat a row's FeatureTime, and is refused if it differs from it."""
    people.write(Person, [_person(1, email="a", updated_at=LATE)], observed_at=observed_at)
    with pytest.raises(InvalidValue, match=r"observed_at \(row 0\) differs"):
        people.write(Person, [_person(2, email="a", updated_at=EARLY)], observed_at=observed_at)
    assert people.read(Person, [1, 2], ["email"]).statuses("email") == ["hit", "missing"]


@pytest.mark.parametrize(
    ("time", "error"),
    [
        (None, InvalidValue),
        ("2026-01-01", InvalidValue),
        (datetime(2026, 1, 1), InvalidValue),  # noqa: DTZ001 - refused for that.
        (datetime(1969, 1, 1, tzinfo=UTC), InvalidValue),
        (datetime(9999, 1, 1, tzinfo=UTC), FutureTimestamp),
    ],
)
def test_a_feature_time_that_is_not_an_observed_at_is_refused(
    people: OnlineStore, time: Any, error: Any
) -> None:
    """A FeatureTime has to be a possible observed-at; the error names the row."""
    with pytest.raises(error, match=r"row 1|position 1"):
        people.write(Person, [_person(1, email="a"), _person(2, email="b", updated_at=time)])
    assert people.read(Person, [1], ["email"]).statuses("email") == ["missing"]


def test_the_undeclared_feature_time_is_the_observed_at_too(people: OnlineStore) -> None:
    """Classes without a FeatureTime of their own have chalkpy's, which is heeded as well."""
    time = CARD.__chalk_ts__.attribute_name
    people.write(Card, [CARD(id="a", owner_id=1, **{time: EARLY})])
    assert (
        people.read(Card, ["a"], max_staleness={"owner_id": "infinity"})[0].observed_at("owner_id")
        == EARLY
    )


@pytest.mark.parametrize("key", ["1d", 86400, "24h"])
def test_windows_of_an_instance_are_written(people: OnlineStore, key: Any) -> None:
    """A windowed feature that is set by its windows is written to the features of these."""
    people.write(Person, [_person(1, logins={key: 3, "7d": 5})])
    row = people.read(Person, [1])[0]
    assert (row["logins__86400__"], row[PERSON.logins["7d"]]) == (3, 5)


def test_aliases_of_an_instance_are_written_once(people: OnlineStore) -> None:
    """What chalkpy stores under several attributes is one feature."""
    person = _person(1, risk=0.5)
    person.logins_1d = 4
    person.logins__604800__ = 9
    people.write(Person, [person])
    row = people.read(Person, [1])[0]
    assert (row["risk"], row["logins__86400__"], row["logins__604800__"]) == (0.5, 4, 9)


def _extra() -> Any:
    person = _person(2, email="x")
    person.extra = 1
    return person


def _twice() -> Any:
    person = _person(2, logins={"1d": 3})
    person.logins__86400__ = 4
    return person


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _person(2, card=CARD(id="c", owner_id=2)), UnknownFeature, "'card': it is a join"),
    (lambda: _person(2, card=None), UnknownFeature, "'card'"),
    (lambda: _person(2, cards=DataFrame([CARD(id="c", owner_id=2)])), UnknownFeature, "'cards'"),
    (lambda: _person(2, offline=1), UnknownFeature, "'offline': .*store_online=False"),
    (lambda: _person(2, logins=3), UnknownFeature, "'logins': it is windowed.*logins__86400__"),
    (lambda: _person(2, logins={"3d": 3}), UnknownFeature, "logins__259200__"),
    (lambda: _person(2, logins={"soon": 3}), InvalidValue, "logins: a window must be"),
    (_extra, UnknownFeature, "'extra'"),
    (_twice, InvalidValue, "logins__86400__ twice"),
    (lambda: {"id": 2, "card": CARD(id="c", owner_id=2)}, UnknownFeature, "'card'"),
    (lambda: {PERSON.id: 2, PERSON.card: None}, UnknownFeature, "'card'"),
    (lambda: {PERSON.id: 2, PERSON.card.owner_id: 1}, UnknownFeature, "'card.owner_id'"),
    (
        lambda: {"id": 2, Card.owner_id: 1},
        UnknownFeature,
        "no feature 'chalk_card.owner_id'",
    ),
    (lambda: {"id": 2, "email": "a", PERSON.email: "b"}, InvalidValue, "names a feature twice"),
    (lambda: {"id": 2, "email": "a", "chalk_person.email": "b"}, InvalidValue, "twice"),
    (lambda: {"id": 2, "logins__86400__": 1, PERSON.logins["1d"]: 2}, InvalidValue, "twice"),
    (lambda: {"id": 2, PERSON.email + PERSON.email: "a"}, UnknownFeature, "not a feature"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
@pytest.mark.parametrize("by_writer", [False, True], ids=["store", "writer"])
def test_what_is_not_stored_is_refused(
    people: OnlineStore, make: Any, error: Any, message: str, by_writer: bool
) -> None:
    """What a row has and the schema does not store is refused by its name; no row is written."""
    rows = [_person(1, email="a"), make()]
    with PersistenceWriter(people) as writer:
        write = writer.submit if by_writer else people.write
        with pytest.raises(error, match=message) as caught:
            write(Person, rows)
    assert "position 1" in "".join(caught.value.__notes__)
    assert people.read(Person, [1, 2], ["email"]).statuses("email") == ["missing", "missing"]


# --- references as names -------------------------------------------------------------------


NAMES: list[tuple[Callable[[], Any], str]] = [
    (lambda: PERSON.email, "email"),
    (lambda: "chalk_person.email", "email"),
    (lambda: "email", "email"),
    (lambda: PERSON.renamed, "stored_name"),
    (lambda: PERSON.risk, "risk"),
    (lambda: PERSON.risk @ 2, "risk@2"),
    (lambda: PERSON.logins["1d"], "logins__86400__"),
    (lambda: PERSON.logins("7d"), "logins__604800__"),
    (lambda: next(f for f in PERSON.features if f.name == "email"), "email"),
]
VALUES: dict[str, Any] = {
    "email": "x",
    "stored_name": 1,
    "risk": 0.5,
    "risk@2": 0.25,
    "logins__86400__": 2,
    "logins__604800__": 3,
}
every_name = pytest.mark.parametrize(("make", "short"), NAMES)


@every_name
def test_references_are_names_everywhere(people: OnlineStore, make: Any, short: str) -> None:
    """A reference, a full name and a short name are one feature in rows, reads and results."""
    name, value = make(), VALUES[short]
    people.write(Person, [{PERSON.id: 1, name: value}])
    for rows in (
        people.read(Person, [1], [name], max_staleness={name: "1h"}),
        people.prepare(Person, (name,), max_staleness={name: "1h"}).read([1]),
    ):
        assert rows.features == (short,)
        assert rows[0][name] == rows[0].get(name) == value
        assert rows.column(name) == [value]
        assert rows.statuses(name) == [rows[0].status(name)] == ["hit"]
        assert rows[0].observed_at(name) == rows[0].observed_at(short)
        assert rows.to_numpy(name).shape == (1,)
    assert people.read(Person, [1], [name], max_staleness={name: "0s"}).statuses(name) == ["stale"]
    people.delete(Person, [1], features=[name])
    assert people.read(Person, [1], [short]).statuses(name) == ["missing"]
    people.drop(Person, [name])
    with pytest.raises(UnknownFeature):
        people.drop(Card, [name])


def test_rename_takes_references(tmp_path: Path) -> None:
    """A feature is renamed to a reference of chalkpy, and a reference to another class refused."""
    url = f"sqlite:///{tmp_path / 'people.db'}"
    old = Namespace("chalk_person", int, [Feature("mail", str)])
    with OnlineStore.open(url, schema=[old]) as store:
        store.write(old, [{"id": 1, "mail": "x"}])
        store.rename(old, "mail", PERSON.email)
        with pytest.raises(UnknownFeature):
            store.rename(old, PERSON.email, PERSON.card.owner_id)
    with OnlineStore.open(url, schema=[Person]) as store:
        assert store.read(Person, [1], [PERSON.email]).column(PERSON.email) == ["x"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (Card.owner_id, "'chalk_person' has no feature 'chalk_card.owner_id'"),
        (PERSON.card.owner_id, "'chalk_person' does not store 'card.owner_id': it is a join"),
        (PERSON.card, "'card': it is a join"),
        (PERSON.logins, "'logins': it is windowed. Name one of its windows: logins__86400__"),
        (PERSON.updated_at, "'updated_at' is the observed-at"),
        (PERSON.email + PERSON.email, "is not a feature"),
        (PERSON.email.nothing, "is not a feature"),
        (PERSON.logins["3d"], "is not a feature"),
        (PERSON, "must be names of features"),
        (PERSON.id == 3, "must be names of features"),
    ],
)
def test_references_that_are_no_feature_of_the_class_are_refused(
    people: OnlineStore, name: Any, message: str
) -> None:
    """References to other classes, to joins and to expressions are refused by errors of ours."""
    with pytest.raises(UnknownFeature, match=message):
        people.read(Person, [1], [name])
    with pytest.raises(UnknownFeature, match=message):
        people.delete(Person, [1], features=[name])
    rows = people.read(Person, [1], ["email"])
    with pytest.raises(UnknownFeature):
        rows[0][name]
    with pytest.raises(UnknownFeature):
        rows.column(name)


def test_one_instance_is_not_a_list_of_rows(people: OnlineStore) -> None:
    """An instance in the place of a list is refused: chalkpy would iterate its values."""
    with pytest.raises(InvalidValue, match=r"Did you mean \[row\]"):
        people.write(Person, _person(1, email="a"))


def test_every_window_is_suggested() -> None:
    """The reason against a windowed feature names all its windows, "all" included."""
    assert namespace_of(Windows).excluded == {
        "spent": "it is windowed. Name one of its windows: spent__3600__, spent__all__."
    }


def test_one_reference_is_not_a_list_of_features(people: OnlineStore) -> None:
    """A reference in the place of a list is refused: chalkpy would iterate it."""
    with pytest.raises(InvalidValue, match="features must be a list of feature names"):
        people.read(Person, [1], PERSON.email)
    with pytest.raises(InvalidValue, match="features must be a list of feature names"):
        people.delete(Person, [1], PERSON.email)


@pytest.mark.parametrize(
    "ages",
    [
        {"email": "1h", PERSON.email: "2h"},
        {"email": "1h", "chalk_person.email": "2h"},
        {"logins__86400__": "1h", PERSON.logins["1d"]: "2h"},
    ],
)
def test_max_staleness_names_a_feature_once(people: OnlineStore, ages: Any) -> None:
    """Two max stalenesses for one feature are refused."""
    with pytest.raises(InvalidValue, match=r"max_staleness .*one of them"):
        people.read(Person, [1], max_staleness=ages)


def test_results_of_queries_take_references(people: OnlineStore) -> None:
    """Inputs and features of a query result may be references, as full names may."""
    people.write_result("q", {PERSON.id: 1}, {PERSON.email: "x"})
    found = people.read_result("q", {"chalk_person.id": 1})
    assert found.features == {"chalk_person.email": "x"}
    assert found[PERSON.email] == "x"


def test_references_are_left_out() -> None:
    """`namespace_of` leaves out features by reference and by full name."""
    found = namespace_of(Person, leave_out=[PERSON.logins["1d"], "chalk_person.email"])
    assert not {"email", "logins__86400__"} & found.row_names


def test_chalkpy_is_not_imported_by_the_library() -> None:
    """Neither the package nor the integration imports it: a user's class has done so."""
    code = (
        "import chalk_online_store, chalk_online_store.integrations.chalkpy, sys;"
        "sys.exit('chalk' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
