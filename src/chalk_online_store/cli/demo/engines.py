"""Where the demo runs: a temporary engine, or a store that the user names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalk_online_store.errors import InvalidURL
from chalk_online_store.urls import SqliteTarget, parse_url
from chalk_online_store.valkey.urls import ValkeyTarget

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True)
class Place:
    """An engine that is ready: what to call it, and how to open a store there.

    From one that is not `temporary`, the demo's rows have to be deleted again.
    """

    title: str
    url: str
    temporary: bool = False
    session: boto3.Session | None = None

    @property
    def counts_capacity(self) -> bool:
        """Whether it has read and write capacity units at all."""
        return not isinstance(parse_url(self.url), SqliteTarget)


@contextmanager
def open_engine(name: str) -> Iterator[Place]:
    """Have an engine ready: "sqlite", "dynoxide", or a store URL; gone on leaving."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="chalk-online-store-") as folder:
            yield Place("SQLite, in a temporary file", f"sqlite:///{folder}/demo.db", True)
    elif name == "dynoxide":
        yield from _dynoxide()
    else:
        yield Place(_title(name), name)


def _dynoxide() -> Iterator[Place]:
    from chalk_online_store.testing import Dynoxide, create_table

    with Dynoxide() as engine:
        create_table(engine.endpoint_url, "chalk-demo")
        yield Place("dynoxide, in memory", engine.url("chalk-demo"), True, engine.session())


def _title(url: str) -> str:
    if "://" not in url:
        raise InvalidURL("--engine takes sqlite, dynoxide, or a store URL.")
    target = parse_url(url)
    if isinstance(target, ValkeyTarget):
        return f"the Valkey database {target.name}"
    if not isinstance(target, SqliteTarget):
        return f"the DynamoDB table {target.table}"
    if not target.path:
        raise InvalidURL("sqlite:// in memory ends with its first store; use --engine sqlite.")
    return f"SQLite, {target.path}"
