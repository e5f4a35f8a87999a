"""What the transports are built on: how to log in, and which of our errors a failure is."""

from __future__ import annotations

import random
import re
import ssl
import time
from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from chalk_online_store._fork import forks_wait
from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidCredentials,
    InvalidURL,
    MalformedResponse,
    RequestError,
    RequestRefused,
    RequestTimeout,
    ServerError,
    StaleConnection,
    Throttled,
)
from chalk_online_store.valkey.commands import Reply, ScriptUnknown
from chalk_online_store.valkey.pipeline import SLOTS_OF_A_CLUSTER
from chalk_online_store.valkey.resp import Argument, BrokenReply, Command, ErrorReply, ReplyReader
from chalk_online_store.valkey.urls import ValkeyTarget

Address: TypeAlias = tuple[str, int]

REDIRECTS = 5
"""How often a command follows a key that moves within a cluster."""

ROLE: Command = ("ROLE",)
SLOTS: Command = ("CLUSTER", "SLOTS")
ASKING: Command = ("ASKING",)

FAILURES = (OSError, UnicodeError, BrokenReply)
"""What an exchange fails with; the second for a name that cannot be a host's."""

MAX_PORT = 65535

LOGIN_BYTES = 1 << 16
"""Bytes of the replies to a login."""

_FIRST = random.randrange(1 << 16)
"""Which of several replicas this process takes for the first."""

_AWAY_FLAGS = frozenset((b"s_down", b"o_down", b"disconnected"))
"""What a sentinel calls a replica that it cannot reach."""

_AWAY = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MISCONF")
_CODES: dict[str, type[RequestError]] = {
    **dict.fromkeys((*_AWAY, "NOREPLICAS", "UNKILLABLE"), ServerError),
    "OOM": Throttled,
    "NOPERM": AccessDenied,
    "DENIED": AccessDenied,
    "WRONGPASS": InvalidCredentials,
    "NOAUTH": InvalidCredentials,
    "NOSCRIPT": ScriptUnknown,
}
"""What the first word of an error says."""

_FULL = "max number of clients"
"""In an error without a code, after which the server closes the connection."""

_MOVED = re.compile(r"(?:MOVED|ASK) \d{1,5} (\S{0,255}):(\d{1,5})")

_SAYS: dict[type[RequestError], str] = {
    AccessDenied: "the user may not do this: see the rules of its ACL",
    InvalidCredentials: "the user or the password is wrong, or is missing in the URL",
    Throttled: "the server's memory is full: see maxmemory",
    RequestTimeout: "no answer in time",
    StaleConnection: "no answer in time on a reused connection",
    ConnectionFailed: "no connection, or it broke",
    RequestRefused: "the server refuses the command",
}


class ConnectionEnded(ConnectionError):
    """The server closed the connection, perhaps after an error that says why."""

    def __init__(self, reader: ReplyReader) -> None:
        super().__init__("the server closed the connection")
        last = reader.replies[-1] if reader.replies else None
        self.reply = last if isinstance(last, ErrorReply) else None


class Stale(TimeoutError):
    """A reused connection gave no response, and no time was left for a new one."""


class KeyMoved(RequestError):
    """Another node has the key; with `asking`, for this one command alone."""

    retryable = True
    address: Address
    asking: bool


class Server:
    """How to reach what a target names, and what to call it.

    Raises `InvalidURL` if the files of its TLS cannot be read.
    """

    def __init__(self, target: ValkeyTarget) -> None:
        self.target = target
        self.tls = _tls_context(dict(target.files)) if target.tls else None

    @property
    def login(self) -> list[Command]:
        """The commands that a new connection begins with.

        They have a round trip of their own: were the database not selected, or the user not
        the right one, then what follows would go elsewhere.
        """
        target = self.target
        commands: list[Command] = []
        if target.username or target.password:
            user = (target.username,) if target.username else ()
            commands.append(("AUTH", *user, target.password))
        if target.db:
            commands.append(("SELECT", target.db))
        return commands

    def check_login(self, commands: Sequence[Command], replies: Sequence[Reply]) -> None:
        """Raise the error that a server replied to a login."""
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ErrorReply):
                raise self._login_error(command, reply)
            if reply != b"OK":
                raise BrokenReply("the reply to a login has another form")

    def _login_error(self, command: Command, reply: ErrorReply) -> RequestError:
        known = self.error(reply)
        if type(known) is RequestRefused and command[0] == "AUTH":
            return self._error(InvalidCredentials, reply.text)
        return known

    def replies(self, replies: Sequence[Reply]) -> list[Reply]:
        """The replies, of which errors are our own."""
        return [self.error(each) if type(each) is ErrorReply else each for each in replies]

    def error(self, reply: ErrorReply) -> RequestError:
        """The error that a server replied."""
        code = reply.code
        if code in ("MOVED", "ASK", "CROSSSLOT"):
            return self._cluster_error(reply)
        kind = _CODES.get(code) or (ConnectionFailed if _FULL in reply.text else RequestRefused)
        return self._error(kind, reply.text, code)

    def _cluster_error(self, reply: ErrorReply) -> RequestError:
        if not self.target.clustered:
            return RequestRefused(
                f"Valkey at {self.target.name} is a node of a cluster: open that by "
                "valkey+cluster://host:port."
            )
        place = _MOVED.fullmatch(reply.text)
        if place is None or int(place[2]) > MAX_PORT:
            return self._error(RequestRefused, reply.text)
        found = KeyMoved("A key lies on another node of the cluster.")
        found.address, found.asking = (place[1], int(place[2])), reply.code == "ASK"
        return found

    def failure(self, error: Exception) -> RequestError:
        """What to raise in place of one of `FAILURES`."""
        if isinstance(error, ConnectionEnded) and error.reply is not None:
            return self.error(error.reply)
        if isinstance(error, BrokenReply):
            return MalformedResponse(f"Valkey at {self.target.name}: {error}.")
        if isinstance(error, Stale):
            return self._error(StaleConnection, str(error))
        if isinstance(error, TimeoutError):
            return self._error(RequestTimeout, str(error))
        return self._error(ConnectionFailed, str(error))

    def _error(self, kind: type[RequestError], text: str, code: str = "") -> RequestError:
        found = kind(f"Valkey at {self.target.name}: {_SAYS.get(kind, code)}.")
        found.engine_message = text
        return found

    # --- sentinels ---

    @property
    def whereabouts(self) -> Command:
        """Asks a sentinel for the primary, or its replicas."""
        what = "REPLICAS" if self.target.replica else "GET-MASTER-ADDR-BY-NAME"
        return "SENTINEL", what, self.target.service

    def place(self, found: Reply) -> Address | None:
        """Where a sentinel says that what is meant is; None where it does not know."""
        if not found or isinstance(found, RequestError):
            return None
        if not self.target.replica:
            return found[0].decode(), int(found[1])
        replicas = _replicas(found)
        # Each process begins elsewhere, so that all replicas are read from.
        return replicas[(_FIRST + self.target.replica - 1) % len(replicas)]

    def nowhere(self) -> RequestError:
        """No sentinel knows of what is meant."""
        what = "replica" if self.target.replica else "primary"
        return ConnectionFailed(
            f"Valkey at {self.target.name}: no sentinel that answers knows of a {what}."
        )

    def check_primary(self, role: Reply) -> None:
        """Raise `ServerError` for a replica in the primary's place: a sentinel may be behind."""
        if isinstance(role, RequestError):
            raise role
        if role[0] != b"master" and not self.target.replica:
            raise ServerError(f"Valkey at {self.target.name}: the primary is a replica by now.")


def _tls_context(files: dict[str, str]) -> ssl.SSLContext:
    try:
        with forks_wait():
            context = ssl.create_default_context()
            if "ssl_ca_certs" in files:
                context.load_verify_locations(cafile=files["ssl_ca_certs"])
            if "ssl_certfile" in files:
                context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except OSError as error:
        names = ", ".join(files)
        why = error.strerror or type(error).__name__
        raise InvalidURL(f"A file of a Valkey URL cannot be used ({names}): {why}.") from None
    return context


def _replicas(found: Iterable[Sequence[bytes]]) -> list[Address]:
    """Those that have a link to the primary, else those that are up, else all that are named.

    While there is no primary none has a link. While one is promoted, sentinels have lost their own
    connections to it as well, and call it away: it is tried all the same.
    """
    ranks: dict[int, list[Address]] = {}
    for words in found:
        said = dict(zip(words[::2], words[1::2], strict=False))
        linked = said.get(b"master-link-status") == b"ok"
        away = not _AWAY_FLAGS.isdisjoint(said.get(b"flags", b"").split(b","))
        address = said[b"ip"].decode(), int(said[b"port"])
        ranks.setdefault(2 if away else 1 - linked, []).append(address)
    return sorted(ranks[min(ranks)])


def is_stale(error: Exception, reader: ReplyReader) -> bool:
    """Return True if a failed exchange on a reused connection says nothing about the server.

    Either no byte of the response has arrived, or the connection was out of step.
    """
    return isinstance(error, BrokenReply) or not reader.has_begun


def share_of_time(deadline: float, untried: int) -> float:
    """When to turn to the next of several addresses, of which `untried` are left after this."""
    now = time.monotonic()
    return now + (deadline - now) / (untried + 1)


def leads_astray(replies: Iterable[Reply]) -> bool:
    """Whether a connection leads to a server that should not be asked, or not any more."""
    return any(isinstance(reply, ServerError) for reply in replies)


class SlotMap:
    """Which node of a cluster has which keys."""

    def __init__(self, slots: Reply, asked: Address) -> None:
        """Take the answer to `SLOTS`, and the address of who gave it."""
        self._owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_ in slots:
            # A node that does not know its own name leaves it out.
            owner = (host.decode() if host and host != b"?" else asked[0], int(port))
            self._owners.update(dict.fromkeys(range(first, last + 1), owner))
        self.nodes = sorted(set(self._owners.values()))
        """Those that have keys."""

    def owner(self, key: Argument) -> Address:
        """The node that has a key; any one where none has it, which will say so."""
        text = key.encode() if isinstance(key, str) else bytes(key)
        return self._owners.get(slot_of(text)) or self.nodes[0]


def slot_of(key: bytes) -> int:
    """The slot of a key: of the part within its first braces, if there is one."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS_OF_A_CLUSTER
