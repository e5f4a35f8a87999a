"""Who watches a store's calls: nobody, unless an integration asks to."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from chalk_online_store.effects import Operation

T = TypeVar("T")
P = ParamSpec("P")


class CallHook(Protocol):
    """Sees every call of a store."""

    def watch(self, name: str, subject: object, operation: Operation[T]) -> Operation[T]:
        """The operation of a call, or one that does the same.

        `name` is that of the call, `subject` what it was asked for first: a schema, a prepared
        read, a query.
        """
        ...


class Hookable(Protocol):
    """What may have a watcher."""

    watcher: CallHook | None


W = TypeVar("W", bound=Hookable)


def hooked(
    call: Callable[Concatenate[W, P], Operation[T]],
) -> Callable[Concatenate[W, P], Operation[T]]:
    """Lets the watcher of what has a method see its calls, if there is one."""
    name = call.__name__

    def begin(self: W, /, *args: P.args, **options: P.kwargs) -> Operation[T]:
        operation = call(self, *args, **options)
        if self.watcher is None:
            return operation
        return self.watcher.watch(name, args[0] if args else None, operation)

    update_wrapper(begin, call)
    return begin
