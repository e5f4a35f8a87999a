"""Durations: what may be written, and what it is in microseconds."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidSchema, LRUCache
from chalk_online_store.schema import Duration, microseconds

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("1w", 604_800 * SECOND),
        ("2d", 172_800 * SECOND),
        ("1h 10m", 4_200 * SECOND),
        ("1h10m5s", 4_205 * SECOND),
        (" 3 h  4m ", 11_040 * SECOND),
        ("90s", 90 * SECOND),
        ("5ms", 5_000),
        ("5m 5ms", 300_005_000),
        ("0s", 0),
        ("1m 1h", 3_660 * SECOND),
        ("infinity", None),
        ("all", None),
        (timedelta(days=1, microseconds=1), 86_400 * SECOND + 1),
        (timedelta(0), 0),
        (timedelta.max, 86_399_999_999_999_999_999),
        (10, 10 * SECOND),
        (0.5, 500_000),
        (1e-6, 1),
    ],
)
def test_a_duration_in_microseconds(duration: Duration, expected: int | None) -> None:
    """Text as Chalk writes it, a timedelta and seconds all mean an exact count."""
    assert microseconds(duration) == expected


@given(st.dictionaries(st.sampled_from(["w", "d", "h", "m", "s", "ms"]), st.integers(0, 10**6)))
def test_text_is_the_sum_of_its_parts(counts: dict[str, int]) -> None:
    """Parts in any order, with and without spaces, add up."""
    parts = [f"{count}{unit}" for unit, count in counts.items()] or ["0s"]
    expected = sum(microseconds(part) or 0 for part in parts)
    assert microseconds(" ".join(parts)) == microseconds("".join(parts)) == expected


@pytest.mark.parametrize(
    "duration",
    ["", " ", "1", "h", "1y", "1.5h", "-1h", "1h-", "1 2h", "1h 10", "1h, 2m", "Infinity", "1H"],
)
def test_text_that_is_no_duration(duration: str) -> None:
    """Text that cannot be read whole is refused, and the message tells how to write it."""
    with pytest.raises(InvalidSchema, match="not a duration: write it as") as caught:
        microseconds(duration)
    assert repr(duration) in str(caught.value)


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), None, [], b"1h"])
def test_what_is_no_duration(duration: Any) -> None:
    """Other types, and floats that count nothing, are refused."""
    with pytest.raises(InvalidSchema, match="not a duration: write it as"):
        microseconds(duration)


@pytest.mark.parametrize("duration", [-1, -0.5, timedelta(microseconds=-1), Decimal(-1)])
def test_a_negative_duration(duration: Any) -> None:
    """Time does not run backwards."""
    with pytest.raises(InvalidSchema, match="negative"):
        microseconds(duration)


def test_the_ttl_of_a_cache() -> None:
    """A cache takes durations too, and one without a ttl never ages."""
    assert LRUCache(1, "1m 5ms").ttl_seconds == 60.005
    assert LRUCache(1, timedelta(seconds=2)).ttl_seconds == 2.0
    assert LRUCache(1).ttl_seconds == float("inf")


@pytest.mark.parametrize(
    ("size", "ttl", "message"),
    [(0, "1s", "max_size.* got 0"), (-1, "1s", "max_size.* got -1"), (1, "soon", "not a duration")],
)
def test_a_cache_that_cannot_be(size: int, ttl: str, message: str) -> None:
    """A cache holds one item at least, for a duration."""
    with pytest.raises(InvalidSchema, match=message):
        LRUCache(size, ttl)
