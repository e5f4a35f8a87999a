"""What a write of a null, or of the default, does: Chalk's `cache_nulls` and `cache_defaults`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from chalk_online_store.schema import Feature
from chalk_online_store.schema.namespaces import NO_DEFAULT


class Action(Enum):
    """What to do with a value that is written."""

    STORE = "store"
    LEAVE = "leave"
    """Keep what is there."""
    REMOVE = "remove"


Policy: TypeAlias = Callable[[Any], Action]

_ACTIONS: dict[Any, Action] = {
    True: Action.STORE,
    False: Action.LEAVE,
    "evict_nulls": Action.REMOVE,
    "evict_defaults": Action.REMOVE,
}


def policy_of(feature: Feature) -> Policy | None:
    """What to do with each value of a feature; None where all are simply stored."""
    nulls, defaults = _ACTIONS[feature.cache_nulls], _ACTIONS[feature.cache_defaults]
    has_default = feature.default is not NO_DEFAULT and defaults is not Action.STORE
    if nulls is Action.STORE and not has_default:
        return None
    default = feature.default

    def policy(value: Any) -> Action:
        if value is None and nulls is not Action.STORE:
            return nulls
        is_default = has_default and type(value) is type(default) and _equal(value, default)
        return defaults if is_default else Action.STORE

    return policy


def _equal(value: Any, default: Any) -> bool:
    return bool(np.array_equal(value, default) if type(value) is np.ndarray else value == default)
