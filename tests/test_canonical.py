"""Canonical bytes: the same for the same value everywhere, different for different ones."""

from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.codec.canonical import canonical
from chalk_online_store.codec.results import key_of
from chalk_online_store.errors import InvalidValue

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Color(enum.Enum):
    RED = "red"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """A value with its type at every level, which Python's == does not look at."""
    if isinstance(value, list):
        return ("list", *map(typed, value))
    if isinstance(value, dict):
        return ("dict", frozenset((key, typed(each)) for key, each in value.items()))
    if isinstance(value, float):
        return ("float", value + 0.0)
    return (type(value).__name__, str(value) if isinstance(value, Decimal) else value)


@given(values, values)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    """Two values have the same bytes just where they are the same, types included."""
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@given(st.dictionaries(st.text(max_size=5), scalars, max_size=5), st.randoms())
def test_the_order_of_a_dictionary_does_not_matter(value: dict[str, Any], rng: Any) -> None:
    """Names may come in any order."""
    names = list(value)
    rng.shuffle(names)
    assert canonical({name: value[name] for name in names}) == canonical(value)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (0.0, -0.0),
        (math.nan, float("-nan")),
        (NOON, NOON.astimezone(timezone(timedelta(hours=5)))),
        ([1, 2], (1, 2)),
        ({1, 2, 3}, frozenset((3, 2, 1))),
        (Color.RED, "red"),
        (7, np.int64(7)),
        (0.5, np.float32(0.5)),
        (True, np.bool_(True)),
        (np.array([1.0, 2.0], ">f4"), np.array([1.0, 2.0], "<f4")),
    ],
)
def test_what_is_one_value_has_one_form(one: Any, same: Any) -> None:
    """Zones, byte orders, numpy's scalars and members of an Enum make no difference."""
    assert canonical(one) == canonical(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        ("a", b"a"),
        (None, ""),
        (["a", "b"], ["ab"]),
        ([], {}),
        (date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
        (Decimal("1.10"), Decimal("1.1")),
        (np.array([1.0], "f4"), np.array([1.0], "f8")),
        (time(1), timedelta(hours=1)),
    ],
)
def test_types_count(one: Any, other: Any) -> None:
    """What Python may take for equal, but are not the same, differ."""
    assert canonical(one) != canonical(other)


GOLDEN = [
    (("q", "", {}), "b0DPdvkiw4UqCPa9x0Jk9vAqjR4"),
    (("fraud_score", "3", {"user.id": 1, "merchant": "m1"}), "qv9URAzhNAqs-7kjV9ww5Yj7jJ4"),
    (
        (
            "all",
            "1",
            {
                "none": None,
                "flag": True,
                "int": -(10**20),
                "float": 0.1,
                "text": "é",
                "bytes": b"\x00",
                "at": NOON,
                "on": date(2026, 1, 2),
                "price": Decimal("1.10"),
                "uuid": UUID(int=5),
                "tags": {"b", "a"},
                "nested": {"x": [1, {"y": None}]},
            },
        ),
        "gPziSuOhppcdtxhcbX3kUCwYLzI",
    ),
]


@pytest.mark.parametrize(("query", "key"), GOLDEN)
def test_keys_stay_what_they_are(query: tuple[str, str, dict[str, Any]], key: str) -> None:
    """Results that were written by this version are found by every later one."""
    assert key_of(*query) == key


def test_name_version_and_inputs_all_count() -> None:
    """A new version of a query does not find the results of the old one."""
    keys = {
        key_of("q", "1", {"a": 1}),
        key_of("q", "2", {"a": 1}),
        key_of("r", "1", {"a": 1}),
        key_of("q", "1", {"a": 2}),
        key_of("q", "1", {"b": 1}),
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    "inputs",
    [{"secret_input": object()}, {"secret_input": [datetime(2026, 1, 1)]}, {1: "secret"}],  # noqa: DTZ001
)
def test_inputs_without_a_form_are_named(inputs: dict[Any, Any]) -> None:
    """What has no canonical bytes is refused by the input's name; its value is not told."""
    with pytest.raises(InvalidValue) as caught:
        key_of("q", "", inputs)
    assert "object at" not in str(caught.value)


def test_a_query_has_a_name() -> None:
    """An empty one is refused."""
    with pytest.raises(InvalidValue):
        key_of("", "", {})
