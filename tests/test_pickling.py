"""What a process hands to another: namespaces, rows, and classes of vectors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from chalk_online_store import (
    Feature,
    LRUCache,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    Vector,
    feature,
    features,
)
from chalk_online_store.schema import namespace_of


@features(
    max_staleness="30d", online_store_config=OnlineStoreConfig(lru_cache=LRUCache(max_size=10))
)
class User:
    """A class with options of every kind."""

    id: tuple[int, str]
    email: str | None
    noted: Annotated[float, feature(max_staleness=timedelta(hours=1))]
    matrix: Annotated[np.ndarray, Vector[3, "f4"]]
    embedding: Vector[2]
    defaulted: int = feature(default=0, cache_defaults=False, group="other")


@pytest.mark.parametrize(
    "namespace",
    [namespace_of(User), Namespace("hand", int, [Feature("tags", list[str], default=[])])],
    ids=["class", "hand"],
)
def test_an_unpickled_namespace_is_equal(namespace: Namespace) -> None:
    """A namespace is equal to its copy, features and all, before and after it was used."""
    copy = pickle.loads(pickle.dumps(namespace))
    assert copy == namespace
    for found in namespace.features:
        assert (copy.feature(found.name).type.name, copy.feature(found.name).default) == (
            found.type.name,
            found.default,
        )
    assert pickle.loads(pickle.dumps(copy)) == namespace


def test_a_class_of_vectors_is_the_same_after_pickling() -> None:
    """`Vector` and `Vector[n]` are pickled as what they are."""
    for cls in (Vector, Vector[3], Vector[3, "f8"]):
        assert pickle.loads(pickle.dumps(cls)) is cls


READ = """
import pickle, sys
rows, row = pickle.load(sys.stdin.buffer)
print(rows.to_pylist(with_key=True), row.key, row["email"], [*map(str, rows.statuses("noted"))])
"""


def test_another_process_reads_pickled_rows() -> None:
    """A process that has no store has the keys, values and statuses of rows that it is handed."""
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        store.write(User, [{"id": (1, "a"), "email": "x"}])
        rows = store.read(User, [(1, "a"), (2, "b")], ["email", "noted"])
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps((rows, rows[0])),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.decode().strip() == (
        "[{'id': (1, 'a'), 'email': 'x', 'noted': None}, {'id': (2, 'b'), 'email': None, "
        "'noted': None}] (1, 'a') x ['missing', 'missing']"
    )


def test_a_row_can_be_taken_for_a_mapping() -> None:
    """A row counts as a mapping, so a copy of it with the key can be written."""
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        store.write(User, [{"id": (1, "a"), "email": "x"}])
        row: Any = store.read(User, [(1, "a")], ["email"])[0]
        assert isinstance(row, Mapping)
        store.write(User, [{"id": (2, "b"), **row}])
        assert store.read(User, [(2, "b")])[0]["email"] == "x"
