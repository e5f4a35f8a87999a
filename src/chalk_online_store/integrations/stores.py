"""Open stores that the tasks of one process share.

Problem. An engine such as Spark, Ray or Dask runs many short tasks in a process, and each task has
its own copy of what to do. A store that is opened for each task reads the registry and opens
connections for each task.

Approach. A process keeps one open object per configuration. Tasks get it by an equal
configuration, not by the same object, because what a task has was pickled.

Forks. A child uses the objects of its parent: stores can be used on both sides of a fork. Only the
lock is replaced, since another thread may have held it.

End. Objects are closed at the exit of the interpreter. A process that ends by `os._exit`, as
workers of Spark do, closes its sockets by ending.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.schema import Namespace
from chalk_online_store.store import OnlineStore


class Closable(Protocol):
    """An object that is closed once nobody needs it."""

    def close(self) -> None:
        """Close it."""
        ...


T = TypeVar("T", bound=Closable)


class SharedObjects(Generic[T]):
    """Open objects by configuration. Thread-safe."""

    def __init__(self) -> None:
        self._open: dict[Hashable, T] = {}
        self._users: dict[Hashable, int] = {}
        self.reset()
        reset_after_fork(self)
        atexit.register(self.close)

    def reset(self) -> None:
        """Make a new lock."""
        self._lock = threading.RLock()

    def acquire(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the open object of a configuration; make it if there is none."""
        with self._lock:
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = make()
            self._users[key] = self._users.get(key, 0) + 1
            return found

    def release(self, key: Hashable) -> None:
        """Close an object, unless it was acquired more often than it was released."""
        with self._lock:
            self._users[key] = self._users.get(key, 1) - 1
            unused = self._open.pop(key, None) if self._users[key] <= 0 else None
            if self._users[key] <= 0:
                del self._users[key]
        if unused is not None:
            unused.close()

    def close(self) -> None:
        """Close every object. They are opened again if they are needed."""
        with self._lock:
            opened, self._open, self._users = list(self._open.values()), {}, {}
        for each in opened:
            with suppress(OnlineStoreError, OSError):
                each.close()


class SharedStore:
    """An open store, and the namespaces that it was given."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.store = OnlineStore.open(url, [], **options)
        self._namespaces: list[Namespace] = []
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Make a new lock."""
        self._lock = threading.Lock()

    def declare(self, namespace: Namespace) -> Namespace:
        """Return the namespace of the store that equals this one.

        A namespace that was pickled is another object in each task. The store keeps one of them.
        """
        with self._lock:
            for known in self._namespaces:
                if known is namespace or known == namespace:
                    return known
            self.store.core.declare(namespace)
            self._namespaces.append(namespace)
            return namespace

    def close(self) -> None:
        """Close the store."""
        self.store.close()


_stores: SharedObjects[SharedStore] = SharedObjects()


def shared_store(
    url: str, namespace: Namespace, **options: Hashable
) -> tuple[OnlineStore, Namespace]:
    """Return this process's open store for a URL, and the namespace to use it with.

    `options` are those of `OnlineStore.open`. The store stays open until the process exits, or
    `close_shared_stores` is called. Raises as `OnlineStore.open` does.
    """
    key = (url, *sorted(options.items()))
    shared = _stores.acquire(key, lambda: SharedStore(url, dict(options)))
    return shared.store, shared.declare(namespace)


def close_shared_stores() -> None:
    """Close the stores that sinks, scans and lookups of this process have opened.

    Needed only in a process that goes on for other work. A later task opens them again.
    """
    _stores.close()
