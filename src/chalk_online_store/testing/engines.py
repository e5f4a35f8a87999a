"""Engines that speak DynamoDB's wire on a port of this machine.

Each is a context manager, listens on 127.0.0.1 only, stops by its own process id or thread, and
leaves nothing behind: also when nobody calls `stop`, or nobody is left to call it.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urlsplit

import boto3
from botocore.exceptions import ClientError

from chalk_online_store.codec.vector_indexes import index_specs
from chalk_online_store.errors import MissingDependency, OnlineStoreError
from chalk_online_store.provisioning import vector_indexes
from chalk_online_store.provisioning.older_botocore import teach_vector_indexes
from chalk_online_store.schema import Namespace, namespaces

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import StreamSpecificationTypeDef

HOST = "127.0.0.1"
REGION = "us-east-1"

_GUARD = 'read -r _; kill -9 "$0"'
"""For sh: end a process when stdin ends, which it does with whoever holds the other side."""


class EngineNotFound(OnlineStoreError, FileNotFoundError):
    """The engine's binary is not on this machine."""

    __str__ = Exception.__str__


class EngineNotStarted(OnlineStoreError, RuntimeError):
    """The engine did not begin to answer; the message holds what it printed."""


class Engine(ABC):
    """A local engine: started on entering `with`, stopped on leaving it."""

    port: int | None = None
    """The port it listens on: chosen by the first start, kept by later ones."""

    @abstractmethod
    def start(self) -> Self:
        """Start, and return once it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop, and return once it is gone. Harmless when it does not run."""

    @property
    def endpoint_url(self) -> str:
        """Where it answers, such as `http://127.0.0.1:49152`.

        Raises `EngineNotStarted` before the first start.
        """
        if self.port is None:
            raise EngineNotStarted(f"{type(self).__name__} has no endpoint before its first start")
        return f"http://{HOST}:{self.port}"

    def url(self, table: str, *, region: str = REGION) -> str:
        """The store URL of a table in this engine, for `OnlineStore.open`."""
        query = urlencode({"region": region, "endpoint_url": self.endpoint_url}, safe=":/,")
        return f"dynamodb:///{table}?{query}"

    def session(self) -> boto3.Session:
        """A session with made-up credentials, which local engines take, for `open(session=...)`."""
        return local_session()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class LocalProcess(ABC):
    """A server that is a process of its own.

    `port` is a free one unless given. The server ends with this process, even one that is killed:
    a shell of 2 MB waits for that. `start` waits `timeout` seconds for the first answer. It raises
    `EngineNotFound` when the engine is not installed and `EngineNotStarted` when it does not come
    up.
    """

    port: int | None

    def __init__(self, *, port: int | None = None, timeout: float = 10.0) -> None:
        self.port = port
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running engine; `EngineNotStarted` when it does not run."""
        if self._process is None:
            raise EngineNotStarted(f"{type(self).__name__.lower()} is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start, and return once it answers. After `kill` or `stop`, it is on the same port."""
        if self._process is None:
            self.port = free_port(self.port or 0)
            command, environment = self._command(), {**os.environ, **self._environment()}
            self._process, ending = _spawn(command, environment, self._answers, self.timeout)
            # Runs also when this object is forgotten and when the interpreter exits.
            self._stopper = weakref.finalize(self, _close, ending, os.getpid())
        return self

    def stop(self) -> None:
        """Ask the process to end (SIGTERM), and wait until it has. Harmless when it has."""
        if self._process is not None:
            self._process = None
            self._stopper()

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    @abstractmethod
    def _command(self) -> list[str]:
        """What to run."""

    def _environment(self) -> dict[str, str]:
        """Variables that it takes its settings from."""
        return {}

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it is up."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class ProcessEngine(LocalProcess, Engine):
    """A DynamoDB engine that is a process of its own: see `LocalProcess`."""


class Dynoxide(ProcessEngine):
    """The native engine dynoxide, one process each: starts in 20 ms, takes 5 MB.

    `path` names the SQLite file that keeps its tables; without it they are in memory. Otherwise
    as `ProcessEngine`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        port: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(port=port, timeout=timeout)
        self.path = path

    def _command(self) -> list[str]:
        command = [find_dynoxide(), "serve", "--host", HOST, "--port", str(self.port)]
        return command if self.path is None else [*command, "--db-path", os.fspath(self.path)]

    def _answers(self) -> bool:
        try:
            return "x-dynoxide-version" in _request("GET", self.endpoint_url)
        except (OSError, http.client.HTTPException):
            return False


class Ministack(ProcessEngine):
    """The engine ministack, in memory, one process each: starts in a second, takes 50 MB.

    It serves the control plane that dynoxide has not: point-in-time recovery, encryption, and the
    replicas of a Global Table, all regions in one process. It copies writes to replicas at once.
    Its capacity figures are wrong. Otherwise as `ProcessEngine`.
    """

    def __init__(self, *, port: int | None = None, timeout: float = 30.0) -> None:
        super().__init__(port=port, timeout=timeout)

    def _command(self) -> list[str]:
        return [find_ministack()]

    def _environment(self) -> dict[str, str]:
        return {"GATEWAY_PORT": str(self.port), "BIND_HOST": HOST, "LOG_LEVEL": "ERROR"}

    def _answers(self) -> bool:
        try:
            headers = _request("GET", f"{self.endpoint_url}/_ministack/health")
        except (OSError, http.client.HTTPException):
            return False
        return headers.get_content_type() == "application/json"


class Moto(Engine):
    """The moto server, in a thread of this process.

    It serves the control plane that dynoxide has not, such as application autoscaling. Its
    capacity figures are wrong. All of moto in a process shares one state, which `stop` clears.

    `start` raises `MissingDependency` when moto is not installed.
    """

    def __init__(self) -> None:
        self._server: ThreadedMotoServer | None = None

    def start(self) -> Self:
        """Start on a free port, and return once it answers."""
        if self._server is None:
            self._server = _moto_server(self.port or 0)
            self._server.start()
            self.port = self._server.get_host_and_port()[1]
        return self

    def stop(self) -> None:
        """Clear the state, stop, and return once the thread has ended."""
        if self._server is not None:
            server, self._server = self._server, None
            _request("POST", f"{self.endpoint_url}/moto-api/reset", timeout=10.0)
            server.stop()


def find_dynoxide() -> str:
    """The path of the dynoxide binary.

    The environment variable `CHALK_DYNOXIDE` wins; then comes the virtual environment's
    `engines` directory, then PATH. Raises `EngineNotFound` when none has it.
    """
    installed = Path(sys.prefix).glob("engines/node_modules/@dynoxide/*/dynoxide")
    found = os.environ.get("CHALK_DYNOXIDE") or next(map(str, installed), shutil.which("dynoxide"))
    if found is None or not os.access(found, os.X_OK):
        raise EngineNotFound(
            "dynoxide was not found. Install it with `npm install --prefix "
            f"{sys.prefix}/engines @dynoxide/linux-x64` (or linux-arm64, darwin-arm64, …), or set "
            "CHALK_DYNOXIDE to its binary"
        )
    return found


def find_ministack() -> str:
    """The path of ministack's command.

    The environment variable `CHALK_MINISTACK` wins; then comes the virtual environment's
    `engines/ministack`, then PATH. Raises `EngineNotFound` when none has it.
    """
    installed = Path(sys.prefix).glob("engines/ministack/*/ministack")
    found = os.environ.get("CHALK_MINISTACK") or next(
        map(str, installed), shutil.which("ministack")
    )
    if found is None or not os.access(found, os.X_OK):
        raise EngineNotFound(
            "ministack was not found. Install it with `pip install ministack` in a virtual "
            "environment of its own, since it wants a botocore of its own, and set "
            "CHALK_MINISTACK to its command"
        )
    return found


def create_table(
    endpoint_url: str,
    table: str,
    *,
    region: str = REGION,
    session: boto3.Session | None = None,
    stream: bool = False,
    schema: Iterable[Namespace | type] = (),
) -> None:
    """Create a table as the store needs it, and return once it is active.

    Keys `pk` and `sk`, on-demand billing, and expiry by `ttl` where the engine has it; with
    `stream`, a stream of new and old images; with a `schema`, the vector indexes that it declares.
    Without a `session`, the credentials are made up: local engines take any. Raises botocore's
    `ClientError`, for one when the table exists.
    """
    streams: StreamSpecificationTypeDef = {"StreamEnabled": stream}
    if stream:
        streams["StreamViewType"] = "NEW_AND_OLD_IMAGES"
    indexes = [*index_specs(namespaces(schema).values())]
    client = _client(session, endpoint_url, region)
    teach_vector_indexes(client)
    definitions: list[Any] = vector_indexes.definitions(indexes)
    options: dict[str, Any] = vector_indexes.at_creation(indexes)
    try:
        client.create_table(
            TableName=table,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
                *definitions,
            ],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification=streams,
            **options,
        )
        client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})
        _enable_expiry(client, table)
    finally:
        client.close()


def _client(session: boto3.Session | None, endpoint_url: str, region: str) -> DynamoDBClient:
    if session is not None:
        return session.client("dynamodb", endpoint_url=endpoint_url, region_name=region)
    # A new session reads botocore's model of DynamoDB, which takes ten times as long as to create a
    # table. A session makes one client at a time.
    with _SHARED_SESSION_LOCK:
        return _client(_shared_session(), endpoint_url, region)


_SHARED_SESSION_LOCK = threading.Lock()


@cache
def _shared_session() -> boto3.Session:
    return local_session()


def _enable_expiry(client: DynamoDBClient, table: str) -> None:
    try:
        client.update_time_to_live(
            TableName=table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "UnknownOperationException":
            raise


def local_session() -> boto3.Session:
    """A session with made-up credentials."""
    return boto3.Session(aws_access_key_id="local", aws_secret_access_key="local")


# Below the ports that systems give to outgoing connections (Linux from 32768 on, macOS 49152): no
# client of any process takes the port of an engine that is about to start, or to start again.
_PORTS = range(20_000, 32_000)


def free_port(port: int = 0) -> int:
    """`port` itself if nobody listens on it; any free one for 0."""
    if port:
        return _check_port(port)
    for chosen in random.sample(_PORTS, 20):
        with suppress(EngineNotStarted):
            return _check_port(chosen)
    return _check_port(0)


def _check_port(port: int) -> int:
    with socket.socket() as probe:
        # Connections of an earlier engine that are still winding down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EngineNotStarted(f"port {port} of {HOST} is taken") from error
        chosen: int = probe.getsockname()[1]
        return chosen


def _spawn(
    command: list[str],
    environment: dict[str, str],
    answers: Callable[[], bool],
    timeout: float,
) -> tuple[subprocess.Popen[bytes], ExitStack]:
    """Start a process that is to answer within `timeout` seconds; with what ends it."""
    with tempfile.TemporaryFile() as output, ExitStack() as ending:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        ending.callback(_end, process)
        # The guard goes first: it is not to meet another process with the id of one that is gone.
        ending.callback(_dismiss, _guard(process))
        if _comes_up(process, answers, timeout):
            return process, ending.pop_all()
        ending.close()
        raise EngineNotStarted(_why(command, process, output))


def _guard(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Have a process ended when this one is, even by SIGKILL, after which nothing of ours runs."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C, or the end of a terminal, is not for it.
    )


def _comes_up(
    process: subprocess.Popen[bytes], answers: Callable[[], bool], timeout: float
) -> bool:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if answers():
            return True
        time.sleep(0.005)
    return False


def _why(command: list[str], process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
    output.seek(0)
    printed = output.read().decode(errors="replace").strip() or "nothing"
    return f"{command[0]} did not answer (exit status {process.returncode}); it printed: {printed}"


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    with guard:
        guard.kill()


def _close(ending: ExitStack, owner: int) -> None:
    if os.getpid() == owner:  # A fork of the process that started the engine does not own it.
        ending.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, by force after a while, and reap it."""
    process.terminate()
    reap(process)


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; by force after 5 seconds."""
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _request(method: str, url: str, timeout: float = 1.0) -> http.client.HTTPMessage:
    """Send a request without a body, past any proxy; the headers of the answer."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=timeout)) as connection:
        connection.request(method, parts.path or "/")
        return connection.getresponse().headers


def _moto_server(port: int) -> ThreadedMotoServer:
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise MissingDependency(
            "Moto needs the package moto: pip install 'moto[dynamodb,server]'"
        ) from error
    requests = logging.getLogger("werkzeug")
    if requests.level == logging.NOTSET:  # Else werkzeug prints a line for every request.
        requests.setLevel(logging.WARNING)
    return ThreadedMotoServer(HOST, port, verbose=False)
