"""URLs of Valkey: what they name, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from chalk_online_store import InvalidURL, OnlineStore, features
from chalk_online_store.connect import connect, parse_url
from chalk_online_store.errors import MissingDependency
from chalk_online_store.valkey.urls import ValkeyTarget


@features
class User:
    id: int


HOME = (("localhost", 6379),)
V6 = (("::1", 7),)
FILES = (("ssl_ca_certs", "/ca"),)
SENTINELS = (("one", 26379), ("two", 5))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("valkey://localhost", {"nodes": HOME}),
        ("redis://localhost:6379/2", {"nodes": HOME, "db": 2}),
        ("valkey://localhost?db=3&prefix=dev%3A", {"nodes": HOME, "db": 3, "prefix": "dev:"}),
        ("valkey://me:p%40w@[::1]:7", {"nodes": V6, "username": "me", "password": "p@w"}),
        ("valkey://:secret@localhost", {"nodes": HOME, "password": "secret"}),
        ("rediss://localhost", {"nodes": HOME, "tls": True}),
        ("valkeys://localhost?ssl_ca_certs=/ca", {"nodes": HOME, "tls": True, "files": FILES}),
        ("valkey+unix:///run/valkey.sock?db=1", {"path": "/run/valkey.sock", "db": 1}),
        ("valkey+sentinel://one,two:5/main?db=1", {"nodes": SENTINELS, "service": "main", "db": 1}),
        (
            "valkey://localhost?read_timeout=0.5&max_pool_connections=4&keep_expired=0",
            {"nodes": HOME, "read_timeout": 0.5, "max_pool_connections": 4, "keep_expired": 0},
        ),
    ],
)  # fmt: skip
def test_what_a_url_names(url: str, expected: dict[str, Any]) -> None:
    """Each form of a URL says where the server is, who asks, and with which settings."""
    assert parse_url(url) == ValkeyTarget(**expected)


@pytest.mark.parametrize(
    "url",
    [
        "valkey://",
        "valkey://localhost:99999",
        "valkey://localhost:x",
        "valkey://localhost/name",
        "valkey://localhost/1?db=1",
        "valkey://localhost?db=-1",
        "valkey://localhost?nonsense=1",
        "valkey://localhost?prefix=",
        "valkey://localhost?prefix=a&prefix=b",
        "valkey://localhost?prefix=%7Ba%7D",
        "valkey://localhost?read_timeout=0",
        "valkey://localhost?max_pool_connections=0",
        "valkey://localhost?keep_expired=-1",
        "valkey://localhost?connect_timeout=inf",
        "valkey://localhost?ssl_ca_certs=/ca.pem",
        "valkey+unix://",
        "valkey+unix://localhost/path",
        "valkeys+unix:///path",
        "valkey+sentinel://one,two",
        "valkey+sentinel:///main",
        "valkey+smoke://localhost",
        "valkey://user:secret@/0",
    ],
)
def test_what_is_no_url(url: str) -> None:
    """What cannot be understood is refused, without what may be a secret."""
    with pytest.raises(InvalidURL) as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


def test_a_target_keeps_its_password_to_itself() -> None:
    """Neither what is printed of a target, nor what a table is called, has the password in it."""
    target = parse_url("valkey://me:secret@localhost/1?prefix=dev:")
    assert "secret" not in repr(target)
    backend, transports, _ = connect("valkey://me:secret@localhost/1?prefix=dev:", None)
    assert backend.identity == "valkey localhost:6379/1 dev:"
    transports[""].close()


def test_redis_py_is_needed_only_for_such_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a Valkey URL says what to install, and others open."""
    monkeypatch.setitem(sys.modules, "redis", None)
    OnlineStore.open("sqlite://", [User]).close()
    with pytest.raises(MissingDependency, match=r"chalk-online-store\[valkey\]"):
        OnlineStore.open("valkey://localhost", [User])
