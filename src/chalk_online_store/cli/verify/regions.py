"""Checks between regions: replication lag, and conflicting writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from chalk_online_store.cli.verify.context import (
    Check,
    CheckContext,
    Client,
    Measured,
    Units,
    wait_until,
)
from chalk_online_store.codec.changes import is_same
from chalk_online_store.codec.layout import ItemKey

MAX_LAG_SECONDS = 5.0
PATIENT_SECONDS = 60.0
"""The longest wait for a replicated write."""


def _check_lag(context: CheckContext) -> Measured:
    shown, figures = [], {}
    for source, target in context.pairs():
        key = context.scratch.key()
        source.put(context.text(key))
        lag = wait_until(partial(_has_item, target, key), PATIENT_SECONDS)
        name = f"{source.region} to {target.region}"
        shown.append(f"{name} {f'{lag:.2f} s' if lag is not None else 'not replicated'}")
        figures[name] = float("inf") if lag is None else lag
    return Measured(", ".join(shown), max(figures.values()) <= MAX_LAG_SECONDS, figures)


def _has_item(client: Client, key: ItemKey) -> bool:
    return client.item(key) is not None


def _check_conflict(context: CheckContext) -> str:
    """Write one item in all regions at once."""
    list(context.pairs())  # Raises `NotApplicable` for one region.
    clients, key = context.clients, context.scratch.key()
    name = context.ids[0]
    changes = [context.text(key, client.region) for client in clients]
    with ThreadPoolExecutor(len(clients)) as pool:
        puts = [
            pool.submit(client.put, change) for client, change in zip(clients, changes, strict=True)
        ]
    for put in puts:
        put.result()
    if wait_until(partial(_agree, clients, key, name), PATIENT_SECONDS) is None:
        return "the regions differ"
    # A write that is still being replicated could change a region later.
    time.sleep(1.0)
    found = clients[0].item(key)
    value = None if found is None else found.get(name)
    stays = any(is_same(value, change.attributes[0]) for change in changes)
    return _ONE_WRITE if stays and _agree(clients, key, name) else "the regions differ"


def _agree(clients: Sequence[Client], key: ItemKey, name: str) -> bool:
    """Return True if all regions show one value of an attribute."""
    items = [client.item(key) for client in clients]
    values = [None if item is None else item.get(name) for item in items]
    return values[0] is not None and all(is_same(values[0], value) for value in values[1:])


_ONE_WRITE = "one of the writes, in every region"

REGION_CHECKS = [
    Check(
        "replication lag",
        f"at most {MAX_LAG_SECONDS:g} s",
        _check_lag,
        Units(100, 8),
    ),
    Check("writes in two regions at once", _ONE_WRITE, _check_conflict, Units(20, 8)),
]
