"""Bytes of an item as DynamoDB counts them.

The rules are AWS's: developer guide, "DynamoDB item sizes and formats". Of numbers the guide says
only "approximately"; their rule here is the one measured on DynamoDB to the byte (eu-west-2, at
the 400 KB limit) by the suite nubo-db/dynamodb-conformance, `src/item-size.ts`, and kept by
dynoxide.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

MAX_ITEM_BYTES = 400 * 1024
"""AWS: Quotas in Amazon DynamoDB, "Item size: 400 KB", attribute names included."""


def item_size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """The size in bytes of an item in DynamoDB's JSON, such as `{"a": {"N": "1.5"}}`."""
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def value_size(value: Mapping[str, Any]) -> int:
    """The size in bytes of one attribute value, such as `{"N": "1.5"}`."""
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return number_size(content)
        case "B":
            return len(base64.b64decode(content))
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + value_size(element) for element in content)
        case "M":
            return 3 + len(content) + item_size(content)
        case _:  # SS, NS, BS
            return sum(value_size({kind[0]: element}) for element in content)


def number_size(text: str) -> int:
    """The size in bytes of a number, given in any notation that DynamoDB takes.

    One byte, one more per two significant digits, one more where it is negative. Digits on both
    sides of the decimal point are paired on each side: 15 takes 2 bytes, 1.5 takes 3. Zeros at
    either end, and an exponent, take none.
    """
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    if not digits:
        return 1
    size = 1 + mantissa.startswith("-")
    if 0 < point < len(digits):
        return size + _pairs(point) + _pairs(len(digits) - point)
    return size + _pairs(len(digits))


def _pairs(digits: int) -> int:
    return (digits + 1) // 2
