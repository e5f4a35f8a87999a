"""Bytes of an item as AWS counts them.

The examples are those of the developer guide: "DynamoDB item sizes and formats", "Capacity unit
consumption"; and numbers that the suite nubo-db/dynamodb-conformance measured on DynamoDB.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.codec.sizes import item_size, number_size, value_size


def test_the_example_of_the_guide() -> None:
    """AWS counts 23 bytes for `shirt-color` = "R" and `shirt-size` = "M"."""
    assert item_size({"shirt-color": {"S": "R"}, "shirt-size": {"S": "M"}}) == 23


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": ""}, 0),
        ({"S": "é☃\U0001f600"}, 9),
        ({"B": ""}, 0),
        ({"B": base64.b64encode(bytes(64)).decode()}, 64),
        ({"BOOL": False}, 1),
        ({"NULL": True}, 1),
        ({"N": "0"}, 1),
        ({"L": []}, 3),
        ({"M": {}}, 3),
        ({"L": [{"S": "ab"}, {"NULL": True}]}, 3 + (1 + 2) + (1 + 1)),
        ({"M": {"é": {"S": "ab"}}}, 3 + 1 + 2 + 2),
        ({"L": [{"M": {"a": {"L": []}}}]}, 3 + 1 + (3 + 1 + 1 + 3)),
        ({"SS": ["a", "bcd"]}, 4),
        ({"NS": ["1", "-100"]}, 2 + 3),
        ({"BS": ["AAAA", "AA=="]}, 4),
    ],
)
def test_the_size_of_a_value(value: dict[str, Any], size: int) -> None:
    """Every kind of attribute has the guide's size: UTF-8, raw bytes, 3 + 1 an element."""
    assert value_size(value) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 1),
        ("-0", 1),
        ("7", 2),
        ("27", 2),
        ("-27", 3),
        ("-27000", 3),
        ("0.0027", 2),
        ("10.01", 3),
        ("1E-130", 2),
        ("-1.25e+10", 4),
        ("-" + "9" * 38, 21),
    ],
)
def test_the_size_of_a_number(text: str, size: int) -> None:
    """A byte per two significant digits, one more, one more if negative; idle zeros are free."""
    assert number_size(text) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 3),
        ("1234", 3),
        ("12345678901234567890123456789012345678", 20),
        ("0042", 2),
        ("100", 2),
        ("1010", 3),
        ("0.0000001", 2),
        ("1E125", 2),
        ("1E-100", 2),
        ("1.5", 3),
        ("15", 2),
        ("1.200", 3),
        ("1.234", 4),
        ("3.14159", 5),
        ("123456", 4),
        ("100.5", 4),
        ("0.15", 2),
        ("-42", 3),
    ],
)
def test_the_size_of_a_number_as_measured_on_dynamodb(text: str, size: int) -> None:
    """What DynamoDB was seen to count: digits around a decimal point are paired on each side."""
    assert number_size(text) == size


@given(st.integers(1, 10**30), st.integers(-100, 80), st.sampled_from(["", "-"]))
def test_the_notation_of_a_number_does_not_count(digits: int, exponent: int, sign: str) -> None:
    """One number has one size, with an exponent, without, or with zeros at its ends."""
    number = Decimal(f"{sign}{digits}E{exponent}")
    written = [f"{number:f}", f"{number:E}", f"{sign}00{digits}.00e{exponent}"]
    assert len({number_size(text) for text in written}) == 1


@given(st.integers(1, 10**30), st.integers(-100, 80))
def test_a_decimal_point_among_the_digits_costs_a_byte_at_most(digits: int, exponent: int) -> None:
    """The place of the point matters only by the pairs of digits that it splits."""
    assert number_size(f"{digits}E{exponent}") - number_size(str(digits)) in {0, 1}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5))
def test_an_item_is_the_sum_of_its_names_and_values(texts: dict[str, str]) -> None:
    """Attribute names are paid for in UTF-8, each time."""
    expected = sum(len((name + text).encode()) for name, text in texts.items())
    assert item_size({name: {"S": text} for name, text in texts.items()}) == expected
