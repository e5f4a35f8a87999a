"""Feature classes of chalkpy as schemas: every type and setting, and rows through a store."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
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

from chalk_online_store import InvalidSchema, OnlineStore, UnknownFeature
from chalk_online_store import LRUCache as OurLRUCache
from chalk_online_store import OnlineStoreConfig as OurConfig
from chalk_online_store.integrations.chalkpy import namespace_of, namespaces_of
from chalk_online_store.schema.namespaces import NO_DEFAULT, Feature

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


def test_chalkpy_is_not_imported_by_the_library() -> None:
    """Neither the package nor the integration imports it: a user's class has done so."""
    code = (
        "import chalk_online_store, chalk_online_store.integrations.chalkpy, sys;"
        "sys.exit('chalk' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
