"""Errors that leave their process: by pickle, as from a worker of a pool, and by copy."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from chalk_online_store import errors
from chalk_online_store.errors import (
    ConditionFailed,
    IncompleteRow,
    InvalidValue,
    LoadIncomplete,
    OnlineStoreError,
    RowsAbandoned,
    RowsPending,
    WriteFailed,
)
from chalk_online_store.report import Report

SPECIAL: dict[type, tuple[Any, ...]] = {
    IncompleteRow: ("message", {3: {"risk": "missing"}}),
    LoadIncomplete: ("message", (5, 4)),
    RowsPending: ("message", 7),
    RowsAbandoned: ("message", 7),
    WriteFailed: ("message", {2: InvalidValue("bad")}, Report(requests=3)),
}
"""The arguments of errors that take more than a message."""


def error_classes() -> Iterator[type[OnlineStoreError]]:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, OnlineStoreError):
            yield cls


def as_told(error: OnlineStoreError) -> tuple[Any, ...]:
    """What a reader of an error can see."""
    facts = {name: repr(fact) for name, fact in vars(error).items()}
    return type(error), error.args, str(error), facts


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickle_and_copy(cls: type[OnlineStoreError]) -> None:
    """A pickled or copied error keeps its class, message, attributes and notes."""
    error = cls(*SPECIAL.get(cls, ("message",)))
    error.add_note("In the row at position 3.")
    if isinstance(error, ConditionFailed):
        error.item = b"{}"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert as_told(pickle.loads(pickle.dumps(error, protocol))) == as_told(error)
    assert as_told(copy.copy(error)) == as_told(error)
    assert as_told(copy.deepcopy(error)) == as_told(error)


def test_errors_in_an_error_keep_their_types() -> None:
    """The causes in `WriteFailed.failed` are errors again after pickle."""
    error = WriteFailed("message", {2: RowsPending("late", 4)})
    restored = pickle.loads(pickle.dumps(error)).failed[2]
    assert (type(restored), restored.pending, str(restored)) == (RowsPending, 4, "late")
