"""One whole run: servers, clients, checks, rounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from benchmarks.boto import Boto3Client, Boto3Resource
from benchmarks.canned import boto3_table, store_table
from benchmarks.check import check
from benchmarks.client import Client
from benchmarks.data import CALLS
from benchmarks.measure import Contender, measure
from benchmarks.report import Line, lines
from benchmarks.server import CannedServer
from benchmarks.stores import AsyncStore, Store


def run(rounds: int, seed: int = 0) -> list[Line]:
    """Check every client, then measure them all."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        clients: list[Client] = []
        for table, kinds in (
            (store_table(), (Store, AsyncStore)),
            (boto3_table(), (Boto3Resource, Boto3Client)),
        ):
            server = stack.enter_context(CannedServer(table.answers(), core))
            for kind in kinds:
                client = stack.enter_context(closing(kind(server.url)))
                check(client, table, server)
                clients.append(client)
        contenders = [Contender(call, client) for call in CALLS for client in clients]
        return lines(measure(contenders, rounds, seed))


@contextmanager
def a_core_for_servers() -> Iterator[int | None]:
    """Keep this process off one core, where there are two and the system can do it."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        yield None
        return
    core = max(cores)
    os.sched_setaffinity(0, cores - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, cores)
