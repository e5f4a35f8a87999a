"""The benchmarks run, hold every client to the same values, and keep what the layout promises."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from benchmarks import bytes as weighing
from benchmarks import ideas, transports
from benchmarks.boto import Boto3Client, Boto3Resource
from benchmarks.data import CALLS
from benchmarks.entities import COUNTS, ENTITIES, entities
from benchmarks.layouts import feast_value
from benchmarks.report import OURS, as_text
from benchmarks.run import run


def test_one_round_measures_every_call_by_every_client() -> None:
    """One round yields a line for each client at each call; the run's own checks passed."""
    results = run(rounds=1)
    clients = (*OURS, Boto3Resource.name, Boto3Client.name)
    assert {(line.call, line.client) for line in results} == {
        (call.title, client) for call in CALLS for client in clients
    }
    assert all(line.microseconds > 0 for line in results)
    table = as_text(results)
    assert all(client in table for client in clients)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_one_round_measures_every_transport(tls: bool) -> None:
    """One round yields a line for each; that all gave the same answers, the run itself checked."""
    sampled = transports.run(rounds=1, tls=tls)
    names = {line.client for line in sampled}
    assert len(sampled) == len(names) * len(transports.CALLS)
    assert {"HttpTransport", "urllib3", "AsyncHttpTransport x 16", "aiohttp x 16"} <= names
    table = transports.as_text(sampled)
    assert all(name in table for name in names)


def test_ours_is_as_much_smaller_as_was_promised() -> None:
    """At 20 features 2.3 times fewer bytes than Feast, 4.8 than JSON; at 100 half Feast's WCU."""
    lines = {(line.features, line.layout): line for line in weighing.run()}
    assert len(lines) == len(COUNTS) * 4
    assert lines[20, "Feast: protobuf"].times_bytes > 2.3
    assert lines[20, "JSON, full names"].times_bytes > 4.8
    assert lines[100, "Feast: protobuf"].times_wcu >= 2
    assert "| ours" in weighing.as_text(list(lines.values()))


def test_the_entities_are_the_same_each_time() -> None:
    """So results of two versions can be compared; keys are distinct, counts as announced."""
    first, second = entities(20), entities(20)
    assert repr(first) == repr(second)
    assert len({row["id"] for row in first}) == ENTITIES
    assert {len(row) - 1 for row in first} == {20}


def test_what_ideas_save_is_told() -> None:
    """Every idea is weighed at every number of features, and has a line in the table."""
    saved = ideas.savings()
    assert {(s.idea, s.features) for s in saved} == {(i, n) for i in ideas.IDEAS for n in COUNTS}
    assert all(idea in ideas.as_text(saved) for idea in ideas.IDEAS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (150, "209601"),
        (-1, "20ffffffffffffffffff01"),
        (True, "3801"),
        (False, "3800"),
        ("testing", "120774657374696e67"),
        (1.0, "29000000000000f03f"),
        (datetime(1970, 1, 1, 0, 2, 30, tzinfo=UTC), "409601"),
        (np.array([1.0], "f4"), "0a040000803f"),
    ],
)
def test_values_of_feast_are_encoded_as_protobuf_does(value: Any, message: str) -> None:
    """The hand-made messages are those of protobuf's wire format for `feast.types.Value`."""
    assert feast_value(value).hex() == message
