"""The persistence writer with real processes and engines: nothing durable is ever lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from itertools import count
from pathlib import Path
from typing import IO, Any

import pytest

from chalk_online_store import (
    DeadLetterFile,
    OnlineStore,
    PersistenceWriter,
    QueueFull,
    RowsAbandoned,
    RowsPending,
    Writing,
)
from chalk_online_store.testing import Dynoxide, FaultProxy, Latency, Throttling, create_table
from tests.crashing import KEYS, User, moment, row
from tests.helpers import stress

_names = count()


@pytest.fixture
def url(dynoxide: Dynoxide) -> str:
    """A store URL whose table exists."""
    table = f"writer-crashes-{next(_names)}"
    create_table(dynoxide.endpoint_url, table)
    return dynoxide.url(table)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "writer.spool"


def versions(url: str) -> dict[int, int]:
    """The version of each row in the table; no row is of two."""
    with OnlineStore.open(url, [User]) as store:
        rows = store.read(User, range(KEYS), consistent=True)
        found = {key: each for key, each in enumerate(rows) if each.status("version") == "hit"}
        for key, each in found.items():
            values = {name: each[name] for name in ("version", "text", "blob")}
            assert {"id": key, **values} == row(key, each["version"])
        return {key: each["version"] for key, each in found.items()}


def take_up(url: str, spool: Path) -> None:
    """What the next process does: go on with what lies in the spool."""
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):
        writer.flush(60)


# --- kill -9 -------------------------------------------------------------------------------


class Victims:
    """Processes that write, and are killed."""

    def __init__(self, url: str, spool: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashing", url, str(spool)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.durable: dict[int, int] = {}
        self._version = 1

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin
        assert self._process.stdout
        return self._process.stdin, self._process.stdout

    def kill_one(self, rng: random.Random) -> None:
        """Let one write for a moment, from its beginning on, and kill it."""
        orders, answers = self._pipes
        orders.write(f"{rng.randrange(10**6)} {self._version} {rng.choice([0, 0, 100])}\n")
        pid = int(answers.readline().split()[1])
        # One in ten may still begin. Half of them have made rows durable, however slow it goes.
        heard = [answers.readline() for _ in range(rng.choices([0, 1, 2], [1, 4, 5])[0])]
        time.sleep(rng.uniform(0, 0.08))
        signal.pidfd_send_signal(_pidfd(pid), signal.SIGKILL)
        while not heard or not heard[-1].startswith("end"):
            heard.append(answers.readline())
        assert heard[-1] == f"end {signal.SIGKILL.value}\n"
        for word in " ".join(heard[:-1]).split():
            key, _, version = word.partition(":")
            if version:
                self.durable[int(key)] = max(self.durable.get(int(key), 0), int(version))
        self._version += 10_000_000

    def close(self) -> None:
        self._pipes[0].close()
        self._process.wait(60)
        self._pipes[1].close()


def _pidfd(pid: int) -> int:
    import os

    return os.pidfd_open(pid)


@pytest.mark.slow
def test_nothing_durable_is_lost_when_writers_are_killed(url: str, spool: Path) -> None:
    """Killed at any moment, time and again: what was durable is there, whole, and newest wins."""
    check_kills(url, spool, stress(24))


def check_kills(url: str, spool: Path, times: int) -> None:
    """Kill `times` writers or more, and compare what was durable with the store."""
    rng = random.Random(7)
    victims = Victims(url, spool)
    try:
        # A slow machine needs more kills until every key was durable once.
        for number in count(1):
            victims.kill_one(rng)
            if number % 20 == 0:
                take_up(url, spool)
                found = versions(url)
                lost = {k: v for k, v in victims.durable.items() if found.get(k, 0) < v}
                assert not lost
                if number >= times and len(victims.durable) == KEYS:
                    break
    finally:
        victims.close()


# --- engines that are away or slow ---------------------------------------------------------


def test_an_engine_that_was_down_gets_everything(tmp_path: Path, spool: Path) -> None:
    """Rows that are handed over while the engine is gone are in the table once it is back."""
    engine = Dynoxide(tmp_path / "engine.db", port=None)
    with engine:
        create_table(engine.endpoint_url, "writer-outage")
        url = engine.url("writer-outage")
        port = int(engine.endpoint_url.rpartition(":")[2])
        with (
            OnlineStore.open(url, [User]) as store,
            PersistenceWriter(store, spool=spool) as writer,
        ):
            writer.submit(User, [row(0, 1)], moment(1))
            writer.flush(10)
            engine.kill()
            tickets = [
                writer.submit(User, [row(key, version)], moment(version))
                for version in range(2, 20)
                for key in range(KEYS)
            ]
            tickets[-1].wait("durable", timeout=60)
            with pytest.raises(RowsPending):
                writer.flush(3)
            again = Dynoxide(tmp_path / "engine.db", port=port)
            with again:
                writer.flush(60)
                assert all(ticket.written == 1 for ticket in tickets)
                assert versions(url) == dict.fromkeys(range(KEYS), 19)
                stats = writer.stats()
                assert stats.changes < 18 * KEYS  # Of each entity, the last was sent.
                assert stats.accepted == stats.written


def test_a_table_throttled_to_a_tenth_slows_writers_down(
    url: str, fault_proxy: FaultProxy, dynoxide: Dynoxide
) -> None:
    """Most requests are throttled for a while: the pace falls, and everything is written."""
    throttled = url.replace(dynoxide.endpoint_url, fault_proxy.endpoint_url)
    with (
        OnlineStore.open(throttled, [User]) as store,
        PersistenceWriter(store, Writing(wcu_per_second=500)) as writer,
    ):
        with fault_proxy.fault(Throttling(), share=0.9, operations={"UpdateItem"}):
            for version in range(1, 8):
                rows = [row(key, version) for key in range(KEYS)]
                writer.submit(User, rows, moment(version))
                time.sleep(0.3)
            paced = writer.stats()
            assert paced.throttles > 10
            assert paced.wcu_per_second < 500
        writer.flush(60)
        stats = writer.stats()
    assert (stats.written, stats.dead, stats.pending) == (7 * KEYS, 0, 0)
    assert versions(url) == dict.fromkeys(range(KEYS), 7)


@pytest.mark.parametrize("when_full", ["block", "raise", "shed_oldest"])
def test_a_slow_consumer_under_each_policy(
    url: str, fault_proxy: FaultProxy, dynoxide: Dynoxide, when_full: Any, tmp_path: Path
) -> None:
    """A queue that fills faster than it empties blocks, refuses or sheds; the account is right."""
    slow = url.replace(dynoxide.endpoint_url, fault_proxy.endpoint_url)
    letters = tmp_path / "letters.jsonl"
    settings = Writing(max_rows=50, when_full=when_full, max_concurrency=2)
    refused = 0
    with (
        fault_proxy.fault(Latency(0.05)),
        OnlineStore.open(slow, [User]) as store,
        PersistenceWriter(store, settings, dead_letters=DeadLetterFile(letters)) as writer,
    ):
        for version in range(1, 200):
            try:
                writer.submit(User, [row(version % KEYS, version)], moment(version))
            except QueueFull:
                refused += 1
            assert writer.stats().pending <= 50
        writer.flush(60)
        stats = writer.stats()
    assert stats.accepted == stats.written + stats.dead == 199 - refused
    lines = letters.read_text().splitlines() if letters.exists() else []
    assert len(lines) == stats.dead
    assert (refused > 0) == (when_full == "raise")
    assert (stats.dead > 0) == (when_full == "shed_oldest")
    assert (
        max(versions(url).values()) == (199 if when_full != "raise" else stats.accepted) or refused
    )


# --- forks and ends ------------------------------------------------------------------------


def run(code: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run code in another process."""
    whole = textwrap.dedent(
        """
        import os, sys, time
        from chalk_online_store import *
        from chalk_online_store.errors import SpoolInUse
        from tests.crashing import User, row, moment
        url, spool = sys.argv[1:]
        """
    ) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", whole, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_fork_has_a_writer_of_its_own(url: str, spool: Path) -> None:
    """A server that forks writes from every process, and what the parent has pending once."""
    done = run(
        """
        store = OnlineStore.open(url, [User])
        writer = PersistenceWriter(store)
        writer.submit(User, [row(0, 1)], moment(1))
        child = os.fork()
        writer.submit(User, [row(1 if child else 2, 5)], moment(5))
        writer.flush(30)
        os.write(1, b"%d\\n" % writer.stats().accepted)  # In one piece.
        if child:
            assert os.waitpid(child, 0)[1] == 0
        writer.close()
        store.close()
        """,
        url,
        str(spool),
    )
    assert sorted(done.stdout.split()) == ["1", "2"], done.stderr
    assert versions(url) == {0: 1, 1: 5, 2: 5}


def test_a_fork_does_not_use_its_parents_spool(url: str, spool: Path) -> None:
    """In the child a writer with a spool refuses rows; the parent's goes on, and ends well."""
    done = run(
        """
        store = OnlineStore.open(url, [User])
        writer = PersistenceWriter(store, spool=spool)
        writer.submit(User, [row(0, 1)], moment(1)).wait("durable", timeout=60)
        child = os.fork()
        if not child:
            try:
                writer.submit(User, [row(1, 1)], moment(1))
            except SpoolInUse as error:
                print(error, flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        writer.submit(User, [row(2, 1)], moment(1)).wait("durable", timeout=60)
        os.kill(os.getpid(), 9)
        """,
        url,
        str(spool),
    )
    assert "belongs to the process" in done.stdout, done.stderr
    take_up(url, spool)
    assert versions(url) == {0: 1, 2: 1}


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise KeyError('x')"])
def test_an_interpreter_that_ends_without_close_writes_what_is_pending(
    url: str, spool: Path, end: str
) -> None:
    """Whoever forgets `close` loses nothing, if the engine is there."""
    code = """
    store = OnlineStore.open(url, [User])
    writer = PersistenceWriter(store)
    for version in range(1, 200):
        writer.submit(User, [row(version % 40, version)], moment(version))
    """
    done = run(textwrap.dedent(code) + end, url, str(spool))
    assert len(versions(url)) == KEYS, done.stderr
    assert max(versions(url).values()) == 199


def test_an_interpreter_that_ends_while_nothing_can_be_written_leaves_it_in_the_spool(
    url: str, spool: Path, fault_proxy: FaultProxy, dynoxide: Dynoxide
) -> None:
    """The end does not wait for ever, and what was accepted is written by the next process."""
    cut = url.replace(dynoxide.endpoint_url, fault_proxy.endpoint_url)
    take_up(url, spool)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [row(0, 1)], observed_at=moment(1))
    with fault_proxy.fault(Throttling(), operations={"UpdateItem"}):
        began = time.monotonic()
        done = run(
            """
            store = OnlineStore.open(url, [User])
            writer = PersistenceWriter(store, spool=spool)
            for version in range(1, 200):
                writer.submit(User, [row(version % 40, version)], moment(version))
            """,
            cut,
            str(spool),
        )
        assert done.returncode == 0
        assert 9 < time.monotonic() - began < 120
    assert "Traceback" not in done.stderr
    take_up(url, spool)
    assert max(versions(url).values()) == 199


def test_a_disk_that_is_full_costs_durability_only(url: str, spool: Path) -> None:
    """Rows that the spool has no room for are written all the same, and durable once they are."""
    done = run(
        """
        import logging, resource, signal
        logging.basicConfig()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = OnlineStore.open(url, [User])
        writer = PersistenceWriter(store, spool=spool)
        writer.submit(User, [row(0, 1)], moment(1))
        writer.flush(10)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        tickets = []
        for version in range(1, 400):
            tickets.append(writer.submit(User, [row(version % 40, version)], moment(version)))
        writer.flush(30)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert all(ticket.durable and ticket.written for ticket in tickets)
        stats = writer.stats()
        print(stats.accepted, stats.written)
        writer.close()
        store.close()
        """,
        url,
        str(spool),
    )
    assert done.stdout.split() == ["400", "400"], done.stderr
    assert "The spool takes nothing" in done.stderr
    assert max(versions(url).values()) == 399


@pytest.mark.slow
def test_a_damaged_spool_gives_what_can_be_read(url: str, spool: Path) -> None:
    """Random bytes in the spool of a killed process: no row is torn, and the writer goes on."""
    rng = random.Random(3)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [row(0, 1)], observed_at=moment(1))
    for number in range(5):
        done = run(
            """
            import threading
            store = OnlineStore.open(url, [User])
            writer = PersistenceWriter(store, Writing(wcu_per_second=1), spool=spool)
            for version in range(1, 200):
                ticket = writer.submit(User, [row(version % 40, version)], moment(version))
            ticket.wait("durable", timeout=60)
            os.kill(os.getpid(), 9)
            """,
            url,
            str(spool),
        )
        assert done.returncode == -9, done.stderr
        victim = Path(f"{spool}-wal")
        data = bytearray(victim.read_bytes())
        start = rng.randrange(len(data))
        data[start : start + 100] = rng.randbytes(100)
        victim.write_bytes(data)
        take_up(url, spool)
        assert all(version < 200 for version in versions(url).values()), number


def test_a_writer_that_cannot_write_says_so_when_it_is_closed(
    url: str, fault_proxy: FaultProxy, dynoxide: Dynoxide, tmp_path: Path
) -> None:
    """Without a spool, rows that are left are raised about, and are dead letters."""
    cut = url.replace(dynoxide.endpoint_url, fault_proxy.endpoint_url)
    letters = tmp_path / "letters.jsonl"
    with OnlineStore.open(cut, [User]) as store:
        writer = PersistenceWriter(store, dead_letters=DeadLetterFile(letters))
        with fault_proxy.fault(Throttling()):
            writer.submit(User, [row(0, 1), row(1, 1)], moment(1))
            with pytest.raises(RowsAbandoned) as caught:
                writer.close(timeout=0.5)
        assert caught.value.rows == 2
        assert len(letters.read_text().splitlines()) == 2
        assert oct(letters.stat().st_mode & 0o777) == "0o600"
        stats = writer.stats()
        assert (stats.accepted, stats.dead, stats.pending) == (2, 2, 0)
