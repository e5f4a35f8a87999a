"""A copy page by page: what is under way, kept on disk, and paced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import xxhash

from chalk_online_store.cli.checkpoint import load_checkpoint, save_checkpoint
from chalk_online_store.cli.stores import OpenedStore
from chalk_online_store.codec.registry import Registry
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.copying import (
    Comparison,
    Fingerprint,
    Page,
    compare,
    read_page,
    write_items,
)
from chalk_online_store.operations.registry import RegistryKeeper

KEEP_EVERY = 1.0
"""Seconds between two times that a copy's progress is put on disk."""

_TIMEOUT = 60.0


def pages(store: OpenedStore, start: bytes = b"") -> Iterator[Page]:
    """All pages of a store, from one on."""
    while True:
        page = store.run(read_page(store.backend, start))
        yield page
        start = page.next
        if not start:
            return


class Progress(msgspec.Struct):
    """How far a copy is: `next` begins its next page.

    `stores` is a hash of the two URLs, which may hold passwords.
    """

    stores: str
    next: bytes = b""
    items: int = 0
    expired: int = 0
    rcu: float = 0.0
    wcu: float = 0.0


def take_up(path: Path, source: str, target: str) -> Progress:
    """What an interrupted copy has left, or a new beginning.

    Raises `InvalidValue` for the progress of another one.
    """
    stores = xxhash.xxh3_128_hexdigest(msgspec.json.encode((source, target)))
    found = load_checkpoint(path, Progress, "copy")
    if found is None:
        return Progress(stores)
    if found.stores != stores:
        raise InvalidValue(
            f"{path} is the progress of another copy: remove it, or name another one with "
            "--progress."
        )
    return found


def copy_registry(source: OpenedStore, target: OpenedStore) -> Registry:
    """Put what short ids stand for under the same ids into the target.

    Raises `RegistryError` where they stand for something else there.
    """
    registry = source.run(RegistryKeeper(source.backend).load(source.call(_TIMEOUT)))
    registry.check()
    keeper = RegistryKeeper(target.backend)
    target.run(keeper.adopt(registry.entries, target.call(_TIMEOUT)))
    return registry


def copy_items(
    source: OpenedStore,
    target: OpenedStore,
    progress: Progress,
    path: Path,
    per_second: float,
    tell: Callable[[Progress], None],
) -> None:
    """Copy all items from where `progress` is on; each page is told, and kept on disk."""
    began, before, kept_at = time.monotonic(), progress.items, -KEEP_EVERY
    for page in pages(source, progress.next):
        layout = source.backend.layout
        progress.wcu += target.run(write_items(target.backend, layout, page.items))
        progress.rcu += page.rcu
        progress.items += len(page.items)
        progress.expired += page.expired
        progress.next = page.next
        tell(progress)
        if time.monotonic() - kept_at > KEEP_EVERY:
            save_checkpoint(path, progress)
            kept_at = time.monotonic()
        ahead = (progress.items - before) / per_second - (time.monotonic() - began)
        time.sleep(max(0.0, ahead))


def compare_stores(
    source: OpenedStore, target: OpenedStore, tell: Callable[[int], None]
) -> Comparison:
    """Read both wholly, and compare what each item says."""
    found = []
    read = 0
    for table in (source, target):
        seen = Fingerprint()
        for page in pages(table):
            seen.add(table.backend.layout, page.items)
            read += len(page.items)
            tell(read)
        found.append(seen)
    return compare(*found)
