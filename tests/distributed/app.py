"""The feature class that workers of an engine import by name."""

from __future__ import annotations

from chalk_online_store import Vector, feature, features

SCHEMA = f"{__name__}:User"


@features
class User:
    """A namespace of two groups."""

    id: int
    name: str | None
    visits: int
    risk: float | None = feature(group="realtime")
    embedding: Vector[4] | None
