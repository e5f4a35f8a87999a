"""The feature classes that the service writes."""

from __future__ import annotations

from chalk_online_store import feature, features


@features(max_staleness="30d")
class User:
    """What is known of a user."""

    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h", group="realtime")
