"""The writing part of the demo, and the deleting of what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from chalk_online_store.cli.demo.account import Phase
from chalk_online_store.cli.demo.data import Row
from chalk_online_store.cli.demo.stage import Keys, Stage, chunks
from chalk_online_store.cli.demo.workload import FINAL, LATE, LOADED, Workload
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.operations.write import Ordering
from chalk_online_store.store import OnlineStore

_AT_ONCE = 25
_DELETED_AT_ONCE = 100

Work = Sequence[tuple[Workload, list[Row]]]


def write_all(stage: Stage, store: OnlineStore) -> None:
    """Load in bulk, update in event time, and then write what comes too late."""
    workloads = stage.workloads
    _write(stage, store, "bulk load", [(w, w.loaded) for w in workloads], LOADED, "arrival")
    _write(stage, store, "update", [(w, w.updates) for w in workloads], FINAL, "event")
    late = _write(stage, store, "late update", [(w, w.late) for w in workloads], LATE, "event")
    stage.account.late_items = sum(workload.late_items() for workload in workloads)
    stage.account.superseded = late.report.superseded


def _write(
    stage: Stage, store: OnlineStore, kind: str, work: Work, moment: datetime, ordering: Ordering
) -> Phase:
    calls = [(w.schema, rows) for w, all_rows in work for rows in chunks(all_rows, _AT_ONCE)]
    phase, calls_made = stage.phase(f"{kind} {_AT_ONCE}", calls)
    for schema, rows in calls_made:
        stage.note_written(schema, rows)
        with phase.call(len(rows)):
            report = store.write(schema, rows, observed_at=moment, ordering=ordering)
        phase.report.add(report)
    return phase


@contextmanager
def removing(stage: Stage, store: OnlineStore) -> Iterator[None]:
    """Delete the demo's rows on leaving, however it ends, unless the engine goes anyway."""
    try:
        yield
    except BaseException:
        try:
            _remove(stage, store)
        except OnlineStoreError as error:  # What happened first counts more.
            left = f"Rows of the demo are left in the table: {error}"
            stage.progress.console.print(left)
        raise
    _remove(stage, store)


def _remove(stage: Stage, store: OnlineStore) -> None:
    if stage.place.temporary:
        return
    calls: list[Keys] = [
        (schema, keys)
        for schema, written in stage.written.items()
        for keys in chunks(written, _DELETED_AT_ONCE)
    ]
    phase, calls_made = stage.phase(f"delete {_DELETED_AT_ONCE}", calls)
    for schema, keys in calls_made:
        with phase.call(len(keys)):
            report = store.delete(schema, keys, ordering="arrival")
        phase.report.add(report)
