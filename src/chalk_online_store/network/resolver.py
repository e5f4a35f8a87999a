"""Name resolution with a bound, and the order in which addresses are tried.

Problem. `getaddrinfo` blocks for as long as the system's resolver likes: 30 seconds and more if a
name server does not answer. No caller can stop it. asyncio runs it in the loop's default executor,
which other code can fill, and which the interpreter joins when it exits.

Approach. Each lookup runs in a daemon thread, and every caller waits for it with the caller's own
deadline. All callers of a name share one lookup. If it hangs, another one may start beside it after
`LOOKUP_SECONDS`, at most `MAX_LOOKUPS` at once, so a dead resolver costs a few threads and not one
per call.

The addresses of the last successful lookup are remembered. They are used if a later lookup takes
longer than `PATIENCE_SECONDS`, or fails for a reason that may pass. With TLS, an address that
belongs to another host by now cannot be mistaken for the engine.

A forked child has none of the threads. It keeps the remembered addresses and forgets the lookups.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - a fork while another thread imports it would never finish it.
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from chalk_online_store._fork import reset_after_fork

Address = tuple[int, int, int, str, Any]
"""The form of an address that `socket.getaddrinfo` returns."""

NEXT_ADDRESS_SECONDS = 0.25
"""Time that an address has before the next one is tried beside it: RFC 8305 recommends 250 ms."""

FRESH_SECONDS = 1.0
"""Connections opened within this time share one lookup. DynamoDB's names have a TTL of seconds."""

PATIENCE_SECONDS = 0.1
"""How long a lookup may take before the remembered addresses of the name are used instead."""

LOOKUP_SECONDS = 5.0
"""After this time a lookup counts as hung: 5 seconds are the timeout of resolv.conf(5)."""

MAX_LOOKUPS = 3
"""Lookups of one name at once, if all of them hang."""

_PERMANENT = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)

Wake = Callable[[], object]
_Name = tuple[str, int]


def in_turns(found: Sequence[Address]) -> list[Address]:
    """Order addresses so that the families alternate, beginning with the family of the first."""
    families = dict.fromkeys(address[0] for address in found)
    by_family = ([each for each in found if each[0] == family] for family in families)
    return [each for each in chain(*zip_longest(*by_family)) if each is not None]


def stagger_for(count: int, remaining: float) -> float:
    """Seconds between the attempts at `count` addresses, so that each gets its time."""
    return min(NEXT_ADDRESS_SECONDS, remaining / (count + 1))


class _Lookup:
    """One lookup in its own thread. It wakes every caller that waits for it."""

    def __init__(self, name: _Name, finish: Callable[[_Lookup], None]) -> None:
        self.name = name
        self.began_at = time.monotonic()
        self.addresses: list[Address] = []
        self.error: Exception | None = None
        self.done = False
        self._finish = finish
        self._wakes: set[Wake] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._run, name="chalk-online-store-dns", daemon=True).start()

    def _run(self) -> None:
        try:
            found: Any = socket.getaddrinfo(*self.name, type=socket.SOCK_STREAM)
            self.addresses = in_turns(found)
        except Exception as error:
            self.error = error
        except BaseException as error:  # Only this thread can tell those who wait.
            self.error = OSError(f"the lookup was ended by {type(error).__name__}")
        with self._lock:
            self.done = True
            # Under the lock, so that after `unwatch` a function is not called any more.
            for wake in self._wakes:
                with suppress(Exception):  # An event loop may be closed by now.
                    wake()
        self._finish(self)

    def watch(self, wake: Wake) -> None:
        with self._lock:
            if not self.done:
                self._wakes.add(wake)
                return
        wake()

    def unwatch(self, wake: Wake) -> None:
        with self._lock:
            self._wakes.discard(wake)


class _Known(NamedTuple):
    addresses: list[Address]
    at: float


class Resolution:
    """One caller's wait for the addresses of a name."""

    def __init__(self, lookup: _Lookup, known: _Known | None) -> None:
        self._lookup = lookup
        self._known = known
        self._patience_ends = math.inf if known is None else time.monotonic() + PATIENCE_SECONDS
        self.watch = lookup.watch
        """Have a function called when the lookup ends, in any thread; it must not block."""
        self.unwatch = lookup.unwatch
        """End that. When this returns, the function is not called any more."""

    @property
    def wake_at(self) -> float:
        """When to ask for `addresses` again at the latest, on the monotonic clock."""
        return self._patience_ends

    def addresses(self) -> list[Address] | None:
        """Return the addresses in the order to try them, or None while the lookup runs.

        Raises what the lookup raised: `OSError`, or `UnicodeError` for an impossible host name.
        """
        lookup, known = self._lookup, self._known
        if not lookup.done:
            patient = time.monotonic() < self._patience_ends
            return None if known is None or patient else known.addresses
        if lookup.error is None:
            return lookup.addresses
        if known is not None and _may_pass(lookup.error):
            return known.addresses
        raise lookup.error


class Resolver:
    """Looks names up for the threads and event loops of one process. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[_Name, _Known] = {}
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Forget the lookups of the parent, whose threads are not in this fork."""
        self._lock = threading.Lock()
        self._lookups: dict[_Name, list[_Lookup]] = {}

    def resolve(self, host: str, port: int) -> list[Address] | Resolution:
        """Return the addresses if they are known, else the lookup to wait for.

        Raises `OSError` if no thread can be started.
        """
        with suppress(socket.gaierror):  # A literal address needs no lookup.
            literal: Any = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            return in_turns(literal)
        name = (host, port)
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.at < FRESH_SECONDS:
            return known.addresses
        try:
            return Resolution(self._join(name), known)
        except (RuntimeError, MemoryError):
            if known is not None:
                return known.addresses
            raise OSError("no thread could be started to resolve the host name") from None

    def _join(self, name: _Name) -> _Lookup:
        with self._lock:
            running = self._lookups.setdefault(name, [])
            if running:
                hung = time.monotonic() - running[-1].began_at >= LOOKUP_SECONDS
                if not hung or len(running) >= MAX_LOOKUPS:
                    return running[-1]
            lookup = _Lookup(name, self._finished)
            lookup.start()  # Registered only if it runs, since only its thread removes it.
            running.append(lookup)
            return lookup

    def _finished(self, lookup: _Lookup) -> None:
        if lookup.addresses:
            self._known[lookup.name] = _Known(lookup.addresses, time.monotonic())
        with self._lock:
            running = self._lookups.get(lookup.name, [])
            if lookup in running:
                running.remove(lookup)


def _may_pass(error: Exception) -> bool:
    """Return True unless the resolver says that the name does not exist."""
    return not isinstance(error, UnicodeError) and getattr(error, "errno", None) not in _PERMANENT


RESOLVER = Resolver()
"""The process's resolver: a name is looked up once for all stores."""
