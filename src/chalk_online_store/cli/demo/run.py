"""Does the demo, from having an engine to having left nothing behind."""

from __future__ import annotations

import time

from rich.console import Console

from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.demo.account import Account
from chalk_online_store.cli.demo.data import Tables, read_tables
from chalk_online_store.cli.demo.engines import Place, open_engine
from chalk_online_store.cli.demo.features import Aircraft
from chalk_online_store.cli.demo.reads import read_all, read_concurrently, read_hot
from chalk_online_store.cli.demo.stage import Stage
from chalk_online_store.cli.demo.weighing import weigh_all
from chalk_online_store.cli.demo.workload import plan
from chalk_online_store.cli.demo.writes import removing, write_all


def run_demo(engine: str, entities: int | None, console: Console) -> Account:
    """Run it all on this engine; what was wrong is in the account.

    `entities` is how many aircraft, and how many routes, there are at most.
    """
    start = time.perf_counter()
    with open_engine(engine) as place:
        with console.status("Computing the features of real flights"):
            tables = read_tables()
            workloads = plan(tables, entities)
        account = _account_of(place, tables)
        with bars(console=console) as progress:
            _perform(Stage(place, workloads, account, progress))
    account.seconds = time.perf_counter() - start
    return account


def _account_of(place: Place, tables: Tables) -> Account:
    return Account(place.title, place.temporary, place.counts_capacity, len(tables.flights))


def _perform(stage: Stage) -> None:
    with stage.open() as store:
        store.read(Aircraft, [])  # Tells at once if there is no such table.
        with removing(stage, store):
            write_all(stage, store)
            read_all(stage, store)
            read_concurrently(stage)
            read_hot(stage)
            weigh_all(stage)
