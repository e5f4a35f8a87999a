"""Loading the registry, and entering what a namespace needs in it."""

from __future__ import annotations

from collections.abc import Sequence

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import (
    NAMES_AFTER,
    PARTITION,
    Entry,
    Registry,
    read_entry,
)
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import RegistryUnavailable, RequestError
from chalk_online_store.schema import Namespace

REFRESH_SECONDS = 5.0
"""How long a reader may take to notice features that another process has registered."""

_ENTRIES_A_TRANSACTION = 50
"""AWS: TransactWriteItems takes 100 actions; an entry is two items."""


class RegistryKeeper:
    """This process's reading of the registry, and the namespaces encoded by it.

    Readings are immutable and replaced as a whole, so threads may share a keeper: at worst two
    of them load the same reading.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._registry = Registry()
        self._codecs: dict[str, NamespaceCodec] = {}
        self._loaded_at: float | None = None

    def draft(self, namespace: Namespace) -> NamespaceCodec:
        """The namespace with whatever ids would be next, to check keys and rows against.

        With it, bad input is refused before anything is sent. It is the real codec where that
        lacks nothing.
        """
        codec = self._codec(namespace)
        if not codec.missing:
            return codec
        entries = self._registry.allocate(codec.missing, self._backend.layout.reserved)
        drafted = Registry((*self._registry.entries, *entries))
        return NamespaceCodec(namespace, drafted, self._backend.layout)

    def for_read(self, namespace: Namespace, call: Call) -> Operation[NamespaceCodec]:
        """The namespace as the registry has it; features that it lacks were never written.

        Where it lacks some, it is read again, though not more often than `REFRESH_SECONDS`.
        Raises `TypeConflict` or `RegistryError` where registry and schema do not agree.
        """
        if self._codec(namespace).missing:
            now: Instant = yield NOW
            if self._loaded_at is None or now.monotonic - self._loaded_at > REFRESH_SECONDS:
                yield from self._load(call)
        return self._codec(namespace)

    def for_write(self, namespace: Namespace, call: Call) -> Operation[NamespaceCodec]:
        """The namespace with an id for every feature: those that lack one get it now.

        Raises `RegistryUnavailable` where that cannot be done, and as `for_read` does.
        """
        if self._loaded_at is None:
            yield from self._load(call)
        while missing := self._codec(namespace).missing:
            try:
                yield from self._register(missing, call)
                yield from self._load(call)
            except RequestError as error:
                raise RegistryUnavailable(
                    f"New features of {namespace.name!r} cannot be registered: {error}"
                ) from error
        return self._codec(namespace)

    def _codec(self, namespace: Namespace) -> NamespaceCodec:
        codec = self._codecs.get(namespace.name)
        if codec is None or codec.registry is not self._registry:
            codec = NamespaceCodec(namespace, self._registry, self._backend.layout)
            codec.missing  # noqa: B018 - refuses a schema that the registry contradicts.
            self._codecs[namespace.name] = codec
        return codec

    def _load(self, call: Call) -> Operation[None]:
        items = yield from self._backend.list_partition(PARTITION, NAMES_AFTER, call)
        now: Instant = yield NOW
        entries = tuple(map(read_entry, items))
        if entries != self._registry.entries:
            self._registry = Registry(entries)
        self._loaded_at = now.monotonic

    def _register(self, missing: Sequence[Entry], call: Call) -> Operation[None]:
        """Enter what is missing; stops where another process has just entered some of it."""
        layout = self._backend.layout
        entries = self._registry.allocate(missing, layout.reserved)
        for start in range(0, len(entries), _ENTRIES_A_TRANSACTION):
            some = entries[start : start + _ENTRIES_A_TRANSACTION]
            items = [item for entry in some for item in entry.items(layout)]
            if not (yield from self._backend.insert(items, call)):
                return
