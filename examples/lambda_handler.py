"""A handler for AWS Lambda: one store for each container, and no read beyond the invocation.

Its event is `{"keys": [1, 2], "features": ["email", "risk"]}`, and the variable
CHALK_ONLINE_STORE_URL of the function names its table. Set the handler to
`lambda_handler.handler`.
"""

from __future__ import annotations

import os
from typing import Any, NotRequired, Protocol, TypedDict

from chalk_online_store import OnlineStore, feature, features


@features(max_staleness="30d")
class User:
    """What is known of a user."""

    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h", group="realtime")


# Outside of the handler: opened as the container starts, and kept for all of its invocations.
store = OnlineStore.open(os.environ["CHALK_ONLINE_STORE_URL"], schema=[User])
store.warm(connections=1)  # A container serves one invocation at a time.

MARGIN = 0.25
"""Seconds that are kept back of an invocation, to answer in."""


class Event(TypedDict):
    """What is asked for."""

    keys: list[int]
    features: NotRequired[list[str]]


class Context(Protocol):
    """What is used here of the context that Lambda hands over."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""


def handler(event: Event, context: Context) -> list[dict[str, Any]]:
    """The features of each key, with a status each.

    What cannot be read before Lambda would end the invocation is "failed": so that the caller
    gets what there is, and not an error.
    """
    seconds = context.get_remaining_time_in_millis() / 1000 - MARGIN
    rows = store.read(User, event["keys"], event.get("features"), timeout=max(seconds, 0.0))
    return [
        {name: {"value": row.get(name), "status": str(row.status(name))} for name in rows.features}
        for row in rows
    ]
