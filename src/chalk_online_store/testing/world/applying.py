"""How a version is put into a region: on the condition that the item is still what it was."""

from __future__ import annotations

import json
from typing import Any

MOST_NAMES = 100
"""Attributes that a condition names at most: DynamoDB takes 4 KB of an expression."""


def request(
    table: str, key: dict[str, Any], old: str | None, new: str | None
) -> tuple[str, dict[str, Any]]:
    """The operation that makes `new` of an item that is `old`, and its body.

    `old` and `new` are the item as JSON, or None where there is none.
    """
    before: dict[str, Any] = json.loads(old) if old else {}
    after: dict[str, Any] = json.loads(new) if new else {}
    body = {"TableName": table, **(_unchanged(key, before, after) if old else _absent(key))}
    if new is None:
        return "DeleteItem", {**body, "Key": key}
    return "PutItem", {**body, "Item": after}


def _absent(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "ConditionExpression": "attribute_not_exists(#0)",
        "ExpressionAttributeNames": {"#0": next(iter(key))},
    }


def _unchanged(key: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> Any:
    # The key too: on an item that has nothing else, and so as to refuse one that is gone.
    same = sorted(before, key=lambda name: name not in key)[:MOST_NAMES]
    fresh = [name for name in after if name not in before][:MOST_NAMES]
    names = {f"#{number}": name for number, name in enumerate([*same, *fresh])}
    tests = [f"#{n} = :{n}" for n in range(len(same))]
    tests += [f"attribute_not_exists(#{len(same) + n})" for n in range(len(fresh))]
    return {
        "ConditionExpression": " AND ".join(tests),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {f":{n}": before[name] for n, name in enumerate(same)},
    }
