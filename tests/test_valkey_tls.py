"""TLS to a Valkey server, through a terminator: not every build of a server has TLS itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.certificate import self_signed

from chalk_online_store import AsyncOnlineStore, OnlineStore, features
from chalk_online_store.errors import ConnectionFailed
from chalk_online_store.testing import Valkey
from tests.contract.conftest import AnyStore


@features
class User:
    id: int
    a: str


ROWS: list[dict[str, Any]] = [{"id": key, "a": f"{key}" * 2000} for key in range(100)]


@contextlib.contextmanager
def terminator(to: int, pem: Path) -> Iterator[int]:
    """The port of a TLS terminator that asks clients for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            here = context.wrap_socket(raw, server_side=True)
            there = socket.create_connection(("127.0.0.1", to))
            opened.extend((here, there))
            threading.Thread(target=pump, args=(here, there), daemon=True).start()
            pump(there, here)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                threading.Thread(target=serve, args=(raw,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for each in opened:
            each.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", [OnlineStore, AsyncOnlineStore])
def test_a_store_over_tls(kind: Any, valkey: Valkey, tmp_path: Path) -> None:
    """Certificates are checked on both sides, and large responses arrive whole."""
    pem = self_signed(tmp_path / "certificate.pem")
    with terminator(valkey.port or 0, Path(pem)) as port, asyncio.Runner() as runner:
        shown = f"ssl_certfile={pem}&ssl_keyfile={pem}"
        url = f"valkeys://127.0.0.1:{port}/0?prefix=tls-{kind.__name__}:"
        store = AnyStore(kind.open(f"{url}&ssl_ca_certs={pem}&{shown}", [User]), runner)
        store.write(User, ROWS)
        for _ in range(5):
            assert store.read(User, range(100)).column("a") == [row["a"] for row in ROWS]
        store.close()
        for stranger in (url, f"{url}&{shown}"):  # It trusts other authorities.
            store = AnyStore(kind.open(stranger, [User], timeout=5), runner)
            with pytest.raises(ConnectionFailed):
                store.run(_ping(store))
            store.close()


def _ping(store: AnyStore) -> Any:
    """One request, without retries."""
    from chalk_online_store.effects import Send
    from chalk_online_store.valkey.commands import Request

    return (yield Send(Request([("GET", "a")]), 5.0))
