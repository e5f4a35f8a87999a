"""The examples, run as users run them: as processes, under load, killed, and cut short."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import re
import runpy
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from examples import persistence_writer
from examples.persistence_writer import LineLog, Message, persist
from examples.query_server import User

import chalk_online_store
from chalk_online_store import DeadLetterFile, OnlineStore, PersistenceWriter
from chalk_online_store.testing import (
    Blackhole,
    FaultProxy,
    Latency,
    Refused,
)
from tests.helpers import stress

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCE = Path(chalk_online_store.__file__).parents[1]
VARIABLE = "CHALK_ONLINE_STORE_URL"
START = datetime.now(UTC) - timedelta(minutes=10)
KEYS = 200
PATIENCE = 60.0
"""Seconds after which something will never come."""


def wait_until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(arguments: Sequence[str], url: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Python in a directory, which writes to `output` there; killed at the end."""
    paths = os.pathsep.join(map(str, (SOURCE, EXAMPLES)))
    variables = os.environ | {VARIABLE: url, "PYTHONPATH": paths}
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=home, env=variables, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


# --- the query server ----------------------------------------------------------------------


class Server:
    """The query server behind uvicorn."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path) -> None:
        self.process = process
        self._output = home / "output"
        wait_until(lambda: "running on" in self.output or process.poll() is not None)
        found = re.search(r"running on (http://\S+)", self.output)
        assert found, self.output
        self.url = found[1]

    @property
    def output(self) -> str:
        return self._output.read_text()


@contextmanager
def serving(url: str, home: Path) -> Iterator[Server]:
    arguments = ["-m", "uvicorn", "--port", "0", "--no-access-log", "query_server:app"]
    with running(arguments, url, home) as process:
        yield Server(process, home)


def fill(url: str) -> None:
    """Users of whom each value tells the key."""
    rows = [{"id": key, "email": f"{key}@b.c", "visits": key} for key in range(KEYS)]
    risks = [{"id": key, "risk": key / 8} for key in range(KEYS)]
    with OnlineStore.open(url, [User]) as store:
        store.write(User, rows)
        store.write(User, risks)


async def ask(client: httpx.AsyncClient, keys: list[int], features: list[str]) -> Any:
    answer = await client.post("/features", json={"keys": keys, "features": features})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
def test_the_server_answers_exactly_under_load(url: str, tmp_path: Path) -> None:
    """Of 600 requests, 40 at once, each gets the values of its own keys and no others'."""
    fill(url)
    rng = random.Random(1)

    async def clients(server: Server) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            await asyncio.gather(*(work(client) for _ in range(40)))

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(15):
            keys = [*rng.choices(range(KEYS), k=10), KEYS + 1]
            answer = await ask(client, keys, ["visits", "risk"])
            statuses = ["hit"] * 10 + ["missing"]
            assert answer == {
                "visits": {"values": [*keys[:-1], None], "statuses": statuses},
                "risk": {"values": [*(k / 8 for k in keys[:-1]), None], "statuses": statuses},
            }

    with serving(url, tmp_path) as server:
        asyncio.run(clients(server))


def test_the_server_tells_what_was_asked_wrongly(tmp_path: Path) -> None:
    """Unknown features and keys that cannot be are 422, with the reason; NaN is null."""
    url = f"sqlite:///{tmp_path}/features.db"
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 1, "risk": float("nan")}])
    with serving(url, tmp_path) as server, httpx.Client(base_url=server.url) as client:
        unknown = client.post("/features", json={"keys": [1], "features": ["riks"]})
        assert (unknown.status_code, "riks" in unknown.text) == (422, True)
        assert client.post("/features", json={"keys": [10**2500]}).status_code == 422
        found = client.post("/features", json={"keys": [1], "features": ["risk"]}).json()
        assert found == {"risk": {"values": [None], "statuses": ["hit"]}}


def test_the_health_endpoint_follows_the_table(
    table: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """It is 200 while the table answers, without a redirect, and 503 once it does not."""
    with (
        serving(fault_proxy.url(table), tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        well = client.get("/healthz")
        assert (well.status_code, well.json()["status"]) == (200, "ok")
        with fault_proxy.fault(Refused()):
            wait_until(lambda: client.get("/healthz").status_code == 503)
        wait_until(lambda: client.get("/healthz").status_code == 200)


def test_a_shutdown_cuts_no_request(table: str, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    """30 requests wait for the table as SIGTERM comes: all are answered, then the store closes."""
    url = fault_proxy.url(table)
    fill(url)

    def asked() -> int:
        return fault_proxy.stats().requests.get("GetItem", 0)

    async def shut_down(server: Server) -> list[Any]:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            before = asked()
            tasks = [asyncio.create_task(ask(client, [key], ["visits"])) for key in range(30)]
            await asyncio.to_thread(wait_until, lambda: asked() >= before + 30)
            assert not any(task.done() for task in tasks)
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    with serving(url, tmp_path) as server:
        fault_proxy.inject(Latency(0.8), operations={"GetItem"})
        answers = asyncio.run(shut_down(server))
        server.process.wait(PATIENCE)
        assert [found["visits"]["values"] for found in answers] == [[key] for key in range(30)]
        assert "Application shutdown complete" in server.output
        assert "Traceback" not in server.output


# --- the persistence writer ----------------------------------------------------------------


class FakeConsumer:
    """A log in memory. `on_commit` is called with how many messages were polled by then."""

    def __init__(self, messages: Sequence[Message], on_end: Callable[[], None]) -> None:
        self._messages = messages
        self._polled = 0
        self._on_end = on_end
        self.committed = 0

    def poll(self, timeout: float) -> Sequence[Message]:
        found = self._messages[self._polled : self._polled + 7]
        self._polled += len(found)
        if not found:
            self._on_end()
        return found

    def commit(self) -> None:
        self.committed = self._polled


def message(key: int, visits: int = 1) -> Message:
    row = {"id": key, "email": None, "visits": visits}
    return Message(json.dumps(row).encode(), START + timedelta(milliseconds=key))


def visits_of(url: str, keys: int) -> list[int]:
    with OnlineStore.open(url, [User]) as store:
        rows = store.read(User, range(keys), ["visits"], consistent=True, timeout=120)
        assert rows.report.failed == 0
        return rows.column("visits")


def test_messages_that_nobody_can_read_do_not_hold_up_others(tmp_path: Path, url: str) -> None:
    """Rows are written; what is no JSON, no object or no row is a dead letter; all is committed."""
    letters = tmp_path / "letters.jsonl"
    bad = [b"{", b"[1]", b'{"id": 1, "visits": "seven"}', b'{"id": 1, "unheard of": 1}', b"{}"]
    messages = [message(key) for key in range(20)] + [Message(value, START) for value in bad]
    sink, stop = DeadLetterFile(letters), threading.Event()
    consumer = FakeConsumer(messages, stop.set)
    with (
        OnlineStore.open(url, [persistence_writer.User]) as store,
        PersistenceWriter(store, spool=tmp_path / "spool", dead_letters=sink) as writer,
    ):
        persist(consumer, writer, sink, stop)
    assert consumer.committed == len(messages)
    assert len(letters.read_text().splitlines()) == len(bad)
    assert visits_of(url, 20) == [1] * 20


def test_nothing_is_committed_that_is_not_durable(
    table: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Without a spool, and with a table that takes nothing, no offset is committed."""
    sink, stop = DeadLetterFile(tmp_path / "letters.jsonl"), threading.Event()
    consumer = FakeConsumer([message(key) for key in range(20)], stop.set)
    with (
        OnlineStore.open(fault_proxy.url(table), [persistence_writer.User]) as store,
        PersistenceWriter(store) as writer,
    ):
        with fault_proxy.fault(Blackhole(), operations={"UpdateItem"}):
            thread = threading.Thread(target=persist, args=(consumer, writer, sink, stop))
            thread.start()
            wait_until(lambda: fault_proxy.stats().faulted.get("Blackhole", 0) > 0)
            assert consumer.committed == 0
        thread.join(PATIENCE)
    assert consumer.committed == 20
    assert visits_of(fault_proxy.url(table), 20) == [1] * 20


class Log:
    """A file of lines that the example consumes, and what it has committed of it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "events.log"
        self.path.touch()
        self._offset = home / "events.offset"

    def append(self, keys: Sequence[int]) -> None:
        with self.path.open("ab") as file:
            for each in map(message, keys):
                file.write(each.timestamp.isoformat().encode() + b" " + each.value + b"\n")

    @property
    def committed(self) -> int:
        return int(self._offset.read_text()) if self._offset.exists() else 0

    def is_committed(self) -> bool:
        return self.committed == self.path.stat().st_size


COMMAND = [str(EXAMPLES / "persistence_writer.py"), "events.log", "writer.spool"]

KILLED_BEFORE_COMMIT = """
import os, persistence_writer, signal
persistence_writer.LineLog.commit = lambda log: os.kill(os.getpid(), signal.SIGKILL)
persistence_writer.main("events.log", "writer.spool")
"""


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop it as operators do; it writes what is pending first."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_what_was_committed_survives_the_process(
    table: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Committed but not in the table, then killed: the next process writes it, unasked."""
    url, log = fault_proxy.url(table), Log(tmp_path)
    fill(url)  # So that ids are registered.
    log.append(range(KEYS, KEYS + 100))
    with fault_proxy.fault(Blackhole(), operations={"UpdateItem"}):
        with running(COMMAND, url, tmp_path) as process:
            wait_until(log.is_committed)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert visits_of(url, KEYS + 100)[KEYS:] == [None] * 100
    with running(COMMAND, url, tmp_path) as process:
        wait_until(lambda: visits_of(url, KEYS + 100)[KEYS:] == [1] * 100)
        end(process)


def test_what_was_not_committed_is_consumed_again(url: str, tmp_path: Path) -> None:
    """Killed between durable and committed: the same messages come again, and change nothing."""
    log = Log(tmp_path)
    log.append(range(100))
    with running(["-c", KILLED_BEFORE_COMMIT], url, tmp_path) as process:
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert log.committed == 0
    with running(COMMAND, url, tmp_path) as process:
        wait_until(log.is_committed)
        end(process)
    assert visits_of(url, 100) == [1] * 100


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing(url: str, tmp_path: Path) -> None:
    """Killed again and again while lines come in, at random moments: every line is in the table."""
    rng, log, keys = random.Random(3), Log(tmp_path), 0
    for _ in range(stress(3)):
        with running(COMMAND, url, tmp_path) as process:
            before = log.committed
            log.append(range(keys, keys := keys + 1500))
            wait_until(lambda before=before: log.committed > before)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
    for _ in range(20):  # A writer that is closed leaves in its spool what it has no time for.
        with running(COMMAND, url, tmp_path) as process:
            log.append([keys])
            keys += 1
            wait_until(log.is_committed)
            end(process)
        if not records_in(tmp_path / "writer.spool"):
            break
    assert visits_of(url, keys) == [1] * keys


def records_in(spool: Path) -> int:
    """The number of records that the next writer would continue with."""
    with closing(sqlite3.connect(spool)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM records").fetchone()
        return int(count)


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    """Half a line is no message until its end has come."""
    path = tmp_path / "events.log"
    path.write_bytes(b'2026-01-01T00:00:00Z {"id": 1}\n2026-01-01T00:00:01Z {"id"')
    with closing(LineLog(path)) as log:
        assert [each.value for each in log.poll(0.0)] == [b'{"id": 1}\n']
        log.commit()
        assert log.poll(0.0) == []
    with path.open("ab") as file:
        file.write(b": 2}\n")
    with closing(LineLog(path)) as log:
        assert [each.value for each in log.poll(0.0)] == [b'{"id": 2}\n']


# --- the Lambda handler --------------------------------------------------------------------


class FakeContext:
    """Of an invocation that ends so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Starts a container: imports the handler's module for a store."""
    loaded: list[ModuleType] = []

    def start(url: str) -> ModuleType:
        monkeypatch.setenv(VARIABLE, url)
        monkeypatch.delitem(sys.modules, "examples.lambda_handler", raising=False)
        loaded.append(importlib.import_module("examples.lambda_handler"))
        return loaded[-1]

    yield start
    for module in loaded:
        module.store.close()
        sys.modules.pop("examples.lambda_handler", None)


def test_the_handler_answers_what_json_holds(load: Load, url: str) -> None:
    """Each key has values and statuses, as Lambda turns them into JSON."""
    fill(url)
    event = {"keys": [3, KEYS + 1], "features": ["email", "risk"]}
    answer = load(url).handler(event, FakeContext(30))
    assert json.loads(json.dumps(answer)) == [
        {
            "email": {"value": "3@b.c", "status": "hit"},
            "risk": {"value": 0.375, "status": "hit"},
        },
        {
            "email": {"value": None, "status": "missing"},
            "risk": {"value": None, "status": "missing"},
        },
    ]


def test_a_container_opens_its_store_once(load: Load, table: str, fault_proxy: FaultProxy) -> None:
    """A second invocation asks the table for its rows and for nothing else, on the same socket."""
    fill(fault_proxy.url(table))
    wait_until(lambda: fault_proxy.stats().connections == 0)
    module = load(fault_proxy.url(table))
    event = {"keys": [3], "features": ["email"]}
    module.handler(event, FakeContext(30))
    before = fault_proxy.stats()
    assert module.handler(event, FakeContext(30))[0]["email"]["value"] == "3@b.c"
    after = fault_proxy.stats()
    assert sum(after.requests.values()) == sum(before.requests.values()) + 1
    assert after.connections == before.connections == 1


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_the_handler_answers_before_lambda_ends_it(
    load: Load, table: str, fault_proxy: FaultProxy, seconds: float
) -> None:
    """With a table that does not answer, the rows are failed while there is time to say so."""
    fill(fault_proxy.url(table))
    module = load(fault_proxy.url(table))
    context = FakeContext(seconds)
    with fault_proxy.fault(Blackhole(), operations={"GetItem", "Query", "BatchGetItem"}):
        (row,) = module.handler({"keys": [3], "features": ["visits"]}, context)
    assert row == {"visits": {"value": None, "status": "failed"}}
    assert context.get_remaining_time_in_millis() > 0


# --- similar users -------------------------------------------------------------------------


def test_users_like_one_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest user is the one that was asked for; the others are further and of its country."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "argv", ["similar_users.py", "8"])
    runpy.run_path(str(EXAMPLES / "similar_users.py"), run_name="__main__")
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "user 8 in de: 0.000"
    distances = [float(line.rpartition(" ")[2]) for line in others]
    assert len(others) == 5
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert all(" in de: " in line for line in others)


# --- the tour ------------------------------------------------------------------------------


def test_the_tour_shows_what_it_says(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell runs, in memory as on either engine, and prints what its text promises."""
    for place in ("sqlite://", url):
        monkeypatch.setenv(VARIABLE, place)
        runpy.run_path(str(EXAMPLES / "tour.py"))
        shown = capsys.readouterr().out
        for line in (
            "1 {'email': 'hit', 'visits': 'hit', 'embedding': 'hit', 'risk': 'stale'}",
            "2 {'email': 'null', 'visits': 'missing', 'embedding': 'missing', 'risk': 'missing'}",
            "[3 0 0]",
            "1 superseded; 3 visits",
            "user.visits is int, not str.",
            "99",
            "1 of 1 from the cache",
            "[<Status.MISSING: 'missing'>, <Status.MISSING: 'missing'>]",
        ):
            assert line in shown.splitlines()
