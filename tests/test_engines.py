"""The local engines start, answer, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from chalk_online_store.errors import MissingDependency
from chalk_online_store.testing import (
    Dynoxide,
    Engine,
    EngineNotFound,
    EngineNotStarted,
    Ministack,
    Moto,
    create_table,
)

TABLE = "engine-tests"
ENGINES = [Dynoxide, Moto, Ministack]
ITEM: dict[str, Any] = {"pk": {"S": "user:1"}, "sk": {"S": "a"}, "b": {"N": "1.5"}}
KEY: dict[str, Any] = {"pk": ITEM["pk"], "sk": ITEM["sk"]}


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_keeps_an_item(kind: type[Engine]) -> None:
    """A started engine answers boto3, with a table made by `create_table`."""
    with kind() as engine:
        create_table(engine.endpoint_url, TABLE)
        put(engine)
        assert get(engine) == ITEM


@pytest.mark.parametrize("kind", ENGINES)
def test_a_created_table_has_the_layout_of_the_store(kind: type[Engine]) -> None:
    """`create_table` declares pk and sk, bills on demand, and lets items expire by `ttl`."""
    with kind() as engine:
        create_table(engine.endpoint_url, TABLE)
        table = call(engine, "describe_table", TableName=TABLE)["Table"]
        expiry = call(engine, "describe_time_to_live", TableName=TABLE)
    assert {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]} == {
        "pk": "HASH",
        "sk": "RANGE",
    }
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert expiry["TimeToLiveDescription"]["AttributeName"] == "ttl"


def test_create_table_refuses_one_that_exists(dynoxide: Dynoxide) -> None:
    """A test that meets the table of another test hears of it."""
    create_table(dynoxide.endpoint_url, "twice-created")
    with pytest.raises(ClientError, match="ResourceInUse"):
        create_table(dynoxide.endpoint_url, "twice-created")


def test_create_table_takes_a_session_and_a_region(dynoxide: Dynoxide) -> None:
    """A caller's own boto3 session and region are used."""
    session = boto3.Session(aws_access_key_id="mine", aws_secret_access_key="mine")
    create_table(dynoxide.endpoint_url, "table-by-session", region="eu-central-1", session=session)
    tables = call(dynoxide, "list_tables")["TableNames"]
    assert "table-by-session" in tables


@pytest.mark.parametrize("kind", ENGINES)
def test_a_url_names_table_region_and_endpoint(kind: type[Engine]) -> None:
    """`url` gives what `OnlineStore.open` takes."""
    with kind() as engine:
        url = engine.url("features", region="us-west-2")
        assert url == (
            f"dynamodb:///features?region=us-west-2&endpoint_url=http://127.0.0.1:{engine.port}"
        )


@pytest.mark.parametrize("kind", ENGINES)
def test_stop_leaves_nothing_behind(kind: type[Engine]) -> None:
    """After `stop`, which may come twice, nobody listens on the port."""
    engine = kind().start()
    engine.stop()
    engine.stop()
    assert not listens(engine)


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_before_its_first_start_has_no_endpoint(kind: type[Engine]) -> None:
    """Asking too early says so, instead of giving a URL that leads nowhere."""
    with pytest.raises(EngineNotStarted, match="before its first start"):
        _ = kind().endpoint_url


@pytest.mark.parametrize("kind", ENGINES)
def test_starting_twice_is_starting_once(kind: type[Engine]) -> None:
    """A second `start` finds the engine running, and keeps its tables."""
    with kind() as engine:
        create_table(engine.endpoint_url, TABLE)
        assert engine.start() is engine
        assert call(engine, "list_tables")["TableNames"] == [TABLE]


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is a free address on Linux only")
@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_listens_on_one_address_only(kind: type[Engine]) -> None:
    """Other machines cannot reach an engine: it is bound to 127.0.0.1, not to all addresses."""
    with kind() as engine:
        assert listens(engine, "127.0.0.1")
        assert not listens(engine, "127.0.0.2")


def test_two_engines_share_nothing() -> None:
    """Each dynoxide has its own port and its own tables, as two regions have."""
    with Dynoxide() as east, Dynoxide() as west:
        create_table(east.endpoint_url, TABLE)
        assert east.pid != west.pid
        assert call(west, "list_tables")["TableNames"] == []


def test_a_killed_engine_comes_back_with_its_file(tmp_path: Path) -> None:
    """After SIGKILL, an engine with a `path` starts on the same port with what it had kept."""
    with Dynoxide(tmp_path / "table.db") as engine:
        create_table(engine.endpoint_url, TABLE)
        put(engine)
        endpoint = engine.endpoint_url
        engine.kill()
        assert not listens(engine)
        engine.start()
        assert engine.endpoint_url == endpoint
        assert get(engine) == ITEM


def test_a_stopped_engine_has_no_pid() -> None:
    """`pid` names a running process, never one that is gone."""
    with Dynoxide() as engine:
        os.kill(engine.pid, 0)
    with pytest.raises(EngineNotStarted, match="not running"):
        _ = engine.pid


def test_the_interpreter_takes_a_forgotten_engine_with_it() -> None:
    """A program that ends without `stop` leaves no engine running."""
    script = (
        "from chalk_online_store.testing import Dynoxide\n"
        "engine = Dynoxide().start()\n"
        "print(engine.pid)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    with pytest.raises(ProcessLookupError):
        os.kill(int(printed), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_ends_with_a_process_that_is_killed(number: int) -> None:
    """Where no line of Python runs at the end, the engine does not stay behind either."""
    script = (
        "from chalk_online_store.testing import Dynoxide\n"
        "engine = Dynoxide().start()\n"
        "print(engine.port, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        port = int(parent.stdout.readline())
        assert accepts(port)
        parent.send_signal(number)
    deadline = time.monotonic() + 120
    while accepts(port):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_fork_does_not_stop_the_engine_of_its_parent() -> None:
    """A child process that inherits the object and exits leaves the engine alone."""
    script = (
        "import os, sys\n"
        "from chalk_online_store.testing import Dynoxide\n"
        "engine = Dynoxide().start()\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "os.kill(engine.pid, 0)\n"
        "assert engine._process.poll() is None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_taken_port_is_refused(dynoxide: Dynoxide) -> None:
    """An engine never passes off another one on its port as itself."""
    with pytest.raises(EngineNotStarted, match=f"port {dynoxide.port} of 127.0.0.1 is taken"):
        Dynoxide(port=dynoxide.port).start()


def test_a_missing_binary_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the engine, the error holds the command that installs it."""
    monkeypatch.delenv("CHALK_DYNOXIDE", raising=False)
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineNotFound, match=r"npm install .*@dynoxide/linux-x64"):
        Dynoxide().start()


def test_a_missing_ministack_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the engine, the error says what to install, and why apart from everything else."""
    monkeypatch.delenv("CHALK_MINISTACK", raising=False)
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineNotFound, match=r"pip install ministack.*environment of its own"):
        Ministack().start()


def test_a_binary_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`CHALK_DYNOXIDE` names the binary, and what it prints before it fails is in the error."""
    monkeypatch.setenv("CHALK_DYNOXIDE", script(tmp_path, "echo no such luck; exit 3"))
    with pytest.raises(EngineNotStarted, match=r"exit status 3.*no such luck"):
        Dynoxide().start()


def test_a_binary_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine that does not answer in time is not left running."""
    monkeypatch.setenv("CHALK_DYNOXIDE", script(tmp_path, "exec sleep 60"))
    with pytest.raises(EngineNotStarted, match="exit status -15"):
        Dynoxide(timeout=0.1).start()


def test_an_interrupted_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while an engine comes up does not leave it running."""
    engine = Dynoxide()
    answers = engine._answers

    def interrupt() -> bool:
        while not answers():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_answers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.start()
    assert not listens(engine)


def test_moto_forgets_at_the_end() -> None:
    """The tables of one moto engine do not reach the next, though both share a process."""
    with Moto() as engine:
        create_table(engine.endpoint_url, TABLE)
    with Moto() as engine:
        assert call(engine, "list_tables")["TableNames"] == []


def test_moto_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without moto, the error names what to install."""
    monkeypatch.setitem(sys.modules, "moto.server", None)
    with pytest.raises(MissingDependency, match=r"pip install 'moto\[dynamodb,server\]'"):
        Moto().start()


def call(engine: Engine, operation: str, **arguments: Any) -> Any:
    session = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local")
    client = session.client("dynamodb", endpoint_url=engine.endpoint_url, region_name="us-east-1")
    try:
        return getattr(client, operation)(**arguments)
    finally:
        client.close()


def put(engine: Engine) -> None:
    call(engine, "put_item", TableName=TABLE, Item=ITEM)


def get(engine: Engine) -> Any:
    return call(engine, "get_item", TableName=TABLE, Key=KEY)["Item"]


def listens(engine: Engine, address: str = "127.0.0.1") -> bool:
    assert engine.port
    return accepts(engine.port, address)


def accepts(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def script(directory: Path, body: str) -> str:
    path = directory / "dynoxide"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)
