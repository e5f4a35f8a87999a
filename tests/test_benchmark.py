"""The benchmark runs, and holds every client to the same values before it times any."""

from __future__ import annotations

from benchmarks.boto import Boto3Client, Boto3Resource
from benchmarks.data import CALLS
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
