"""An engine's error messages, without the keys and values of the request.

AWS's messages name the rule that was broken, and some quote the key or the value that broke it:
"The parameter cannot be converted to a numeric value: 12x". Errors and logs need the rule and must
not have the value. The values are known, since the request was sent from here: each one is replaced
by an ellipsis, and so is everything in quotation marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

HIDDEN = "…"

_SCALARS = frozenset(("S", "N", "B"))
_QUOTED = re.compile(r"""(?<![^\s(:=\[])(["'`]).*?\1(?!\w)""")
_NUMBER = re.compile(r"-?\d[\d.]*(?:[eE][+-]?\d+)?")
_SHORT = 4
"""Shorter values are replaced only as whole words: "a" is part of most words."""


def hide_values(text: str, sent: bytes) -> str:
    """Return an engine's message without the values of the request body `sent`.

    Returns an empty text if the body cannot be read, since its values are not known then.
    """
    try:
        values = set(_values(msgspec.json.decode(sent)))
    except (msgspec.DecodeError, RecursionError):
        return ""
    numbers = {number for value in values if (number := _as_number(value)) is not None}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORT:
            text = text.replace(value, HIDDEN)
        elif value:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    text = _QUOTED.sub(HIDDEN, text)
    return _NUMBER.sub(lambda found: _hide_number(found[0], numbers), text)


def _values(node: Any) -> Iterator[str]:
    """Yield the scalars of the attribute values in a request, and the names within maps."""
    if isinstance(node, list):
        for each in node:
            yield from _values(each)
        return
    if not isinstance(node, dict):
        return
    for name, child in node.items():
        if name in _SCALARS and isinstance(child, str):
            yield child
        elif name in ("SS", "NS", "BS") and isinstance(child, list):
            yield from (each for each in child if isinstance(each, str))
        else:
            if name == "M" and isinstance(child, dict):
                yield from child
            yield from _values(child)


def _as_number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None  # A signaling NaN cannot be in a set.


def _hide_number(text: str, numbers: set[Decimal]) -> str:
    return HIDDEN if _as_number(text.rstrip(".")) in numbers else text
