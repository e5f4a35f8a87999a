"""What the benchmark asks of every client that takes part."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from benchmarks.data import Dataset, Row
from benchmarks.items import KEY
from benchmarks.workloads import Workload

Call: TypeAlias = Callable[[], Any]
"""One call, ready to be made any number of times; of an async client, it gives an awaitable."""

REGION = os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
ACCESS_KEY = os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
SECRET_KEY = os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
"""Made up, unless the environment has some: local engines take any."""


class Client(ABC):
    """One way to reach tables that it made itself, whose names begin with `prefix`.

    Reads give rows, dictionaries of declared types in the order of the keys, or a dictionary of
    columns.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """The distributions whose versions matter."""
    keys: ClassVar[tuple[str, ...]] = (KEY,)
    """The key attributes of its tables, all strings."""
    tasks: ClassVar[bool] = False
    """Whether its calls are awaited."""
    reads_only: ClassVar[bool] = False
    """Whether its writes are those of another client, and need not be measured again."""
    decodes: ClassVar[bool] = True
    """Whether its reads give values that can be checked."""
    whole_seconds: ClassVar[bool] = False
    """Whether it keeps datetimes to the second only."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix

    def table(self, dataset: Dataset) -> str:
        """The name of the table of a dataset."""
        return f"{self.prefix}.features_{dataset.features}"

    def call(self, workload: Workload) -> Call | None:
        """The workload, ready to be called; None where the client cannot do it."""
        match workload.action:
            case "read":
                return self.reader(workload.dataset, workload.ids)
            case "cached":
                return self.cached_reader(workload.dataset, workload.ids)
            case "write":
                return self.writer(workload.dataset, workload.rows)
            case "stream":
                return self.streamer(workload.dataset, workload.rows)
        return self.updater(workload.dataset, workload.rows)

    @abstractmethod
    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """Read the rows with these keys."""

    def cached_reader(self, dataset: Dataset, ids: list[int]) -> Call | None:
        """Read them, all but the first time, from a cache in this process."""
        return None

    @abstractmethod
    def writer(self, dataset: Dataset, rows: list[Row]) -> Call | None:
        """Write rows whatever is there, with as few requests as can be."""

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call | None:
        """Write any number of rows, by what the client has for that."""
        return None

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call | None:
        """Write rows on condition that nothing newer is there."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds open."""


class AsyncClient(Client):
    """A client of asyncio, on one event loop."""

    tasks = True

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self.loop = asyncio.new_event_loop()

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what it holds open."""

    def close(self) -> None:
        """As `Client.close`."""
        self.loop.run_until_complete(self.aclose())
        self.loop.close()
