"""Correctness first: every read must give the very rows of the dataset, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from benchmarks.data import ROWS, Row
from benchmarks.workloads import Workload


class WrongResult(AssertionError):
    """A client read something else than was written."""


def check(result: Any, workload: Workload, whole_seconds: bool) -> None:
    """Compare what a call of a read gave, rows or columns, with the source.

    Raises `WrongResult`. `whole_seconds` is for clients that keep no more of a datetime.
    """
    columns = result if isinstance(result, Mapping) else to_columns(result)
    rows = [workload.dataset.rows[number % ROWS] for number in workload.ids]
    if set(columns) != set(workload.dataset.kinds):
        raise WrongResult(f"the features are {sorted(columns)}")
    for name, values in columns.items():
        wanted = [_wanted(row[name], whole_seconds) for row in rows]
        if not _all_same(values, wanted):
            raise WrongResult(f"{workload.title}: {name} has other values")


def to_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows that all have the same features, column by column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _wanted(value: Any, whole_seconds: bool) -> Any:
    if whole_seconds and isinstance(value, datetime):
        return value.replace(microsecond=0)
    return value


def _all_same(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return len(found) == len(wanted) and all(map(_same, found, wanted))


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray):
        return found.dtype == wanted.dtype and np.array_equal(found, wanted)
    return type(found) is type(wanted) and bool(found == wanted)
