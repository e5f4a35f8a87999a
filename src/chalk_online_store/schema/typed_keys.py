"""Feature classes by the type of their primary key, for the signatures of reads.

A class whose `id` is an int, a str or a UUID matches one of these protocols. Where the key has
another name, or is a tuple, a type checker cannot see which field it is, and takes any keys.
"""

from __future__ import annotations

from typing import Protocol, TypeVar
from uuid import UUID


class HasIntKey(Protocol):
    """An instance of a class with an `id: int`."""

    @property
    def id(self) -> int:
        """The primary key."""
        ...


class HasStrKey(Protocol):
    """An instance of a class with an `id: str`."""

    @property
    def id(self) -> str:
        """The primary key."""
        ...


class HasUUIDKey(Protocol):
    """An instance of a class with an `id: UUID`."""

    @property
    def id(self) -> UUID:
        """The primary key."""
        ...


ByInt = TypeVar("ByInt", bound=HasIntKey)
ByStr = TypeVar("ByStr", bound=HasStrKey)
ByUUID = TypeVar("ByUUID", bound=HasUUIDKey)


class PrimaryKeyTypeMismatch:
    """The type of a read whose keys are not of the primary key's type: it has no attributes.

    At run time such a read raises `InvalidKey`.
    """
