"""Steps: what the operations of a `DualStore` yield, so that they are written once.

The two stores have drivers of their own. So an operation here yields a call of one of them, and is
resumed with its result: `DualStore` performs it in the calling thread, and `AsyncDualStore`, whose
stores return coroutines, awaits it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar

from chalk_online_store.effects import Sleep
from chalk_online_store.operations.core import Core

T = TypeVar("T")

Step: TypeAlias = Callable[[], Any] | Sleep
"""A call of a store, or a wait; resumed with the result of the call, or None."""

Steps: TypeAlias = Generator[Step, Any, T]


class Store(Protocol):
    """One of the two stores: an `OnlineStore` or an `AsyncOnlineStore`, or what acts like one.

    Its methods have the parameters and results of those of `OnlineStore`. Those of a store for
    asyncio, except `prepare`, return coroutines.
    """

    @property
    def core(self) -> Core:
        """The operations, of which the schema is used."""
        ...

    def read(self, *args: Any, **options: Any) -> Any:
        """As `OnlineStore.read`."""
        ...

    def read_many(self, *args: Any, **options: Any) -> Any:
        """As `OnlineStore.read_many`."""
        ...

    def prepare(self, *args: Any, **options: Any) -> Any:
        """As `OnlineStore.prepare`: raises for arguments that `read` refuses."""
        ...

    def write(self, *args: Any, **options: Any) -> Any:
        """As `OnlineStore.write`."""
        ...

    def delete(self, *args: Any, **options: Any) -> Any:
        """As `OnlineStore.delete`."""
        ...

    def close(self) -> Any:
        """As `OnlineStore.close`."""
        ...
