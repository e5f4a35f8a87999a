"""What every part of the demo works with: the engine, the data, and the account of it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from rich.progress import Progress

from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.cli.demo.account import Account, Phase
from chalk_online_store.cli.demo.data import Row
from chalk_online_store.cli.demo.engines import Place
from chalk_online_store.cli.demo.features import SCHEMA, key_name
from chalk_online_store.cli.demo.workload import Truth, Workload
from chalk_online_store.operations.rows import Rows
from chalk_online_store.schema import LRUCache
from chalk_online_store.store import OnlineStore

T = TypeVar("T")

Keys: TypeAlias = tuple[type, list[Any]]
"""A namespace and some keys of it."""


@dataclass
class Stage:
    """One run on one engine."""

    place: Place
    workloads: Sequence[Workload]
    account: Account
    progress: Progress
    written: dict[type, dict[Any, None]] = field(default_factory=dict)
    """The keys that may have been written: none twice, in order."""

    def note_written(self, schema: type, rows: Iterable[Row]) -> None:
        """Remember which rows are to be deleted in the end, before they are written."""
        name = key_name(schema)
        self.written.setdefault(schema, {}).update((row[name], None) for row in rows)

    @cached_property
    def truth(self) -> dict[type, dict[Any, dict[str, Truth]]]:
        """What every feature has to be in the end."""
        return {workload.schema: workload.truth() for workload in self.workloads}

    def open(self, lru_cache: LRUCache | None = None) -> OnlineStore:
        """Another store on the engine."""
        place = self.place
        return OnlineStore.open(place.url, SCHEMA, session=place.session, lru_cache=lru_cache)

    def open_async(self) -> AsyncOnlineStore:
        """Another store on the engine, for asyncio."""
        return AsyncOnlineStore.open(self.place.url, SCHEMA, session=self.place.session)

    def phase(self, title: str, calls: Sequence[T]) -> tuple[Phase, Iterable[T]]:
        """Begin a phase of these calls: its account, and the calls under a progress bar."""
        phase = self.account.phase(title)
        return phase, self.progress.track(calls, description=title)

    def batches(self, size: int) -> list[Keys]:
        """The keys of every entity, so many at a time."""
        return [
            (schema, keys) for schema, truth in self.truth.items() for keys in chunks(truth, size)
        ]

    def check(self, schema: type, rows: Rows) -> None:
        """Hold rows to their source."""
        self.account.verdict.check(rows, self.truth[schema])


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values, so many at a time."""
    rest = list(values)
    while rest:
        yield rest[:size]
        rest = rest[size:]
