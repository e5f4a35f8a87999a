"""Weighs what the demo has written: reads every item as it is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

from chalk_online_store.backend import Backend, Call, fan_out
from chalk_online_store.cli.demo.sizes import as_json
from chalk_online_store.cli.demo.stage import Stage
from chalk_online_store.codec.changes import Attributes
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.connect import connect
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.schema import Namespace, namespace_of

_ENTITIES = 100
_AT_ONCE = 16
_SECONDS = 30.0


def weigh_all(stage: Stage) -> None:
    """Account for the size of every item, and of the same rows as JSON."""
    backend, transports, _ = connect(stage.place.url, stage.place.session)
    phase, calls = stage.phase(f"query {_ENTITIES}", stage.batches(_ENTITIES))
    keeper = RegistryKeeper(backend)
    with closing(SyncDriver(transports)) as driver:
        for schema, keys in calls:
            namespace, call = namespace_of(schema), Call(time.monotonic() + _SECONDS)
            with phase.call(len(keys)):
                items = driver.run(_items(backend, keeper, namespace, keys, call))
            phase.report.add(call.report)
            texts = [as_json(namespace, stage.truth[schema][key]) for key in keys]
            stage.account.sizes[schema].add(items, texts)


def _items(
    backend: Backend, keeper: RegistryKeeper, namespace: Namespace, keys: Sequence[Any], call: Call
) -> Operation[list[Attributes]]:
    """Every item of these entities, of whatever group."""
    codec: NamespaceCodec = yield from keeper.for_read(namespace, call)
    reads = [partial(backend.list_partition, pk, "") for pk in codec.partition_keys(keys)]
    found = yield from fan_out(call, reads, _AT_ONCE)
    return [item for items in found for item in items]
