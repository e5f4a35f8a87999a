"""What a write of a null, or of the default, does: Chalk's `cache_nulls` and `cache_defaults`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from chalk_online_store.codec.values import Encode
from chalk_online_store.schema import Feature
from chalk_online_store.schema.namespaces import NO_DEFAULT


class Action(Enum):
    """What to do with a value that is written."""

    STORE = "store"
    LEAVE = "leave"
    """Keep what is there."""
    REMOVE = "remove"


Policy: TypeAlias = Callable[[Any, bytes], Action]
"""Of a value and its attribute."""

_ACTIONS: dict[Any, Action] = {
    True: Action.STORE,
    False: Action.LEAVE,
    "evict_nulls": Action.REMOVE,
    "evict_defaults": Action.REMOVE,
}


def policy_of(feature: Feature, encode: Encode) -> Policy | None:
    """What to do with each value of a feature; None where all are simply stored.

    The default is whatever is stored as the default is. Raises `InvalidValue` for a default that
    is none of the feature's values.
    """
    nulls, defaults = _ACTIONS[feature.cache_nulls], _ACTIONS[feature.cache_defaults]
    has_default = feature.default is not NO_DEFAULT and defaults is not Action.STORE
    if nulls is Action.STORE and not has_default:
        return None
    default = encode(feature.default) if has_default else b""

    def policy(value: Any, attribute: bytes) -> Action:
        if value is None and nulls is not Action.STORE:
            return nulls
        return defaults if has_default and _alike(attribute, default) else Action.STORE

    return policy


def _alike(attribute: bytes, other: bytes) -> bool:
    """Whether two attributes say the same; the entries of dictionaries may come in any order."""
    if len(attribute) != len(other):
        return False
    read = msgspec.json.decode
    return attribute == other or bool(read(attribute) == read(other))
