"""DynamoDB's condition and update expressions, as far as the store speaks them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

Item = dict[str, Any]

_COMPARED = re.compile(r"(#\w+)(<=|<|>|=)(:\w+)")
_CALL = re.compile(r"(\w+)\((.*)\)")


class Expressions:
    """One request's expressions, over the item that it is for."""

    def __init__(self, body: dict[str, Any], item: Item | None) -> None:
        self._names = body.get("ExpressionAttributeNames", {})
        self._values = body.get("ExpressionAttributeValues", {})
        self._condition = body.get("ConditionExpression", "")
        self._update = body.get("UpdateExpression", "")
        self._item = item or {}

    def hold(self) -> bool:
        """Whether the condition does."""
        return not self._condition or self._holds(self._condition)

    def _holds(self, text: str) -> bool:
        for word, all_or_any in ((" AND ", all), (" OR ", any)):
            parts = _split(text, word)
            if len(parts) > 1:
                return all_or_any(self._holds(part) for part in parts)
        if text.startswith("("):
            return self._holds(text[1:-1])
        if text.startswith("attribute_not_exists"):
            return self._names[text[21:-1]] not in self._item
        found = _COMPARED.fullmatch(text)
        assert found, text
        name, operator, value = found.groups()
        mine, given = self._item.get(self._names[name]), self._values[value]
        if mine is None:
            return False
        if operator == "=":
            return bool(_comparable(mine) == _comparable(given))
        if "N" not in mine:  # A number is neither less nor greater than a value of another type.
            return False
        if operator == ">":
            return Decimal(mine["N"]) > Decimal(given["N"])
        less = Decimal(mine["N"]) < Decimal(given["N"])
        return less or (operator == "<=" and bool(_comparable(mine) == _comparable(given)))

    def updated(self, key: Item) -> Item:
        """The item after the update."""
        item = {**key, **self._item}
        found = re.fullmatch(r"(?:SET (.*?))?(?: ?REMOVE (.*))?", self._update)
        assert found, self._update
        for assignment in _split(found[1] or "", ","):
            name, _, operand = assignment.partition("=")
            item[self._names[name]] = self._operand(operand)
        for name in _split(found[2] or "", ","):
            item.pop(self._names[name], None)
        return item

    def _operand(self, text: str) -> Any:
        if text.startswith(":"):
            return self._values[text]
        if text.startswith("#"):
            return self._item[self._names[text]]
        found = _CALL.fullmatch(text)
        assert found, text
        name, otherwise = _split(found[2], ",")
        if self._names[name] in self._item:
            return self._item[self._names[name]]
        return self._operand(otherwise)


def _split(text: str, by: str) -> list[str]:
    """The parts between separators that are in no parentheses; none of no text."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0 and text.startswith(by, at):
            parts.append(text[start:at])
            at = start = at + len(by)
        else:
            at += 1
    return [*parts, text[start:]] if text else []


def _comparable(value: Any) -> Any:
    return Decimal(value["N"]) if "N" in value else value
