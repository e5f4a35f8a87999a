"""Erasing an entity for good, and reading back that nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from chalk_online_store.backend import Backend, Call, fan_out
from chalk_online_store.codec.changes import features_of
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import RequestError
from chalk_online_store.report import Report

_POLL_SECONDS = 0.2

_BEFORE_GROUPS = " "
"""Less than every group id. DynamoDB refuses an empty key in a condition."""


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """The result of `OnlineStore.forget`.

    `regions` has, for each region of the table ("" if the engine has none), whether a strongly
    consistent read there found no value of the entity. `report` is the cost of all requests.
    """

    regions: Mapping[str, bool]
    report: Report

    @property
    def verified(self) -> bool:
        """True if no region has a value of the entity."""
        return all(self.regions.values())


def verify_erased(
    backend: Backend, pk: str, regions: Sequence[str], call: Call
) -> Operation[dict[str, bool]]:
    """Read all items of an entity in each region until none has a value, or the deadline."""
    tasks = [partial(_is_erased, backend, pk, region) for region in regions]
    found = yield from fan_out(call, tasks, len(tasks))
    return dict(zip(regions, found, strict=True))


def _is_erased(backend: Backend, pk: str, region: str, call: Call) -> Operation[bool]:
    while True:
        try:
            items = yield from backend.list_partition(pk, _BEFORE_GROUPS, call.within(region))
        except RequestError as error:
            if not error.retryable:
                raise
            return False  # The backend has tried until the deadline.
        # A tombstone has times, but no values.
        if not any(name in item for item in items for name in features_of(item, backend.layout)):
            return True
        now: Instant = yield NOW
        if now.monotonic + _POLL_SECONDS >= call.deadline:
            return False
        yield Sleep(_POLL_SECONDS)
