"""The commands of one request as they are sent, and the check that the replies are theirs.

Problem. A reply of RESP does not say which command it answers. If a middlebox exchanges two
responses, or delivers one twice, another entity's values would be served as a hit.

Approach. Each request ends with an `ECHO` of a number that no other request of this process has,
and that another process has only by chance (2**-48). The server returns that number as the last
reply. A response that does not end with it belongs to another request. The count and the form of
the other replies are checked against the commands, so that the backend can rely on their types.

A middlebox may also exchange replies within one response, or single replies of two responses. So
each command of several keys is followed by an `ECHO` of its own, beside which the command costs
much more.

Limit. Of commands of one key, such as the `GET`s to a cluster, only the last is followed by a
number: one `ECHO` each would double the commands. Replies to such commands that are exchanged
within one request are not detected, nor are exchanged replies whose numbers stay where they are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import Any, TypeAlias

from chalk_online_store.valkey.resp import (
    BrokenReply,
    Command,
    ErrorReply,
    ReplyReader,
    pack,
)
from chalk_online_store.valkey.scripts import FILL, LEFT_NEWER, MERGE, REPLICAS, SWAP, UPDATE

SLOTS_OF_A_CLUSTER = 16384

_BASE_BYTES = 64 << 20
_LISTING_BYTES = 256 << 20
"""Bytes of a response, whatever is asked for. The second is for a listing of a partition."""
_ARGUMENT_BYTES = 512 << 10
"""Bytes of a response for each argument of a command. DynamoDB's largest item has 400 KB."""


class _Numbers:
    """The numbers of requests, from a random one on."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin at another number: a fork must not use those of its parent."""
        self._next = count(random.SystemRandom().getrandbits(48))

    def next(self) -> bytes:
        """A number, in text."""
        return b"%x" % next(self._next)


_numbers = _Numbers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.restart)


_INTRODUCTION = pack([("CLIENT", "SETINFO", "LIB-NAME", "chalk-online-store")])
"""CLIENT LIST shows the name."""


class Pipeline:
    """One request, and what its response has to be."""

    __slots__ = ("_introduces", "_numbers", "_parts", "data")

    def __init__(self, commands: Sequence[Command]) -> None:
        self._parts = _parts(commands)
        """The commands, in runs each of which is followed by a number."""
        self._introduces = False
        self._numbers = [_numbers.next() for _ in self._parts]
        # A sentinel knows PING alone. A server refuses PING while it cannot save to its disk.
        echo = b"PING" if commands[0][0] == "SENTINEL" else b"ECHO"
        self.data = b"".join(
            [
                b"%b*2\r\n$4\r\n%b\r\n$%d\r\n%b\r\n" % (pack(part), echo, len(number), number)
                for part, number in zip(self._parts, self._numbers, strict=True)
            ]
        )
        """The bytes to send."""

    def introduce(self) -> None:
        """Name the library at the end, as the first request on a connection does.

        Servers before 7.2 refuse that, and so may an ACL. It is of no consequence.
        """
        if not self._introduces:
            self._introduces = True
            self.data += _INTRODUCTION

    def reader(self) -> ReplyReader:
        """A reader for the response."""
        commands = list(chain.from_iterable(self._parts))
        allowed = _BASE_BYTES + _ARGUMENT_BYTES * sum(map(len, commands))
        if any(command[0] == "ZRANGEBYLEX" for command in commands):
            allowed += _LISTING_BYTES
        return ReplyReader(len(commands) + len(self._parts) + self._introduces, allowed)

    def check(self, replies: Sequence[Any]) -> list[Any]:
        """Return the replies to the commands; raises `BrokenReply` if they are not."""
        checked: list[Any] = []
        at = 0
        for part, number in zip(self._parts, self._numbers, strict=True):
            found, echoed = replies[at : at + len(part)], replies[at + len(part)]
            at += len(part) + 1
            if echoed != number:
                _check_unnumbered(found, echoed)
            for command, reply in zip(part, found, strict=True):
                if type(reply) is not ErrorReply and not _has_form(command, reply):
                    raise BrokenReply(f"the reply to {_name(command)} has another form")
            checked += found
        return checked


def _parts(commands: Sequence[Command]) -> list[Sequence[Command]]:
    """Cut commands behind each that has several keys."""
    if len(commands) == 1:
        return [commands]
    parts: list[Sequence[Command]] = []
    start = 0
    for end, command in enumerate(commands, start=1):
        if end == len(commands) or _has_several_keys(command):
            parts.append(commands[start:end])
            start = end
    return parts


def _has_several_keys(command: Command) -> bool:
    if command[0] in ("EVALSHA", "EVAL"):
        return command[2] != 1
    return command[0] == "MGET" and len(command) > 2


def _check_unnumbered(found: Sequence[Any], echoed: Any) -> None:
    """Accept a refused `ECHO` if all was refused, or if the user may not send it."""
    refused = type(echoed) is ErrorReply
    if refused and (echoed.code == "NOPERM" or all(type(f) is ErrorReply for f in found)):
        return
    raise BrokenReply("the response is that to another request")


# --- forms ---------------------------------------------------------------------------------

_Form: TypeAlias = Callable[[Command, Any], bool]


def _name(command: Command) -> str:
    name = command[0]
    return name.decode() if isinstance(name, bytes) else str(name)


def _has_form(command: Command, reply: Any) -> bool:
    form = _FORMS.get(command[0])
    return form is None or form(command, reply)


def _are(kinds: set[type], reply: Any) -> bool:
    """Return True for an array whose elements are of these types."""
    return isinstance(reply, list) and {*map(type, reply)} <= kinds


def _is_value(command: Command, reply: Any) -> bool:
    return reply is None or type(reply) is bytes


def _is_text(command: Command, reply: Any) -> bool:
    return type(reply) is bytes


def _is_ok(command: Command, reply: Any) -> bool:
    return bool(reply == b"OK")


def _is_count(command: Command, reply: Any) -> bool:
    return type(reply) is int


def _are_values(command: Command, reply: Any) -> bool:
    return _are({bytes, type(None)}, reply) and len(reply) == len(command) - 1


def _are_members(command: Command, reply: Any) -> bool:
    return _are({bytes}, reply)


def _are_two_counts(command: Command, reply: Any) -> bool:
    return _are({int}, reply) and len(reply) == 2


def _is_page(command: Command, reply: Any) -> bool:
    if type(reply) is not list or len(reply) != 2:
        return False
    cursor, keys = reply
    return type(cursor) is bytes and cursor.isdigit() and _are({bytes}, keys)


def _is_role(command: Command, reply: Any) -> bool:
    return type(reply) is list and bool(reply) and type(reply[0]) is bytes


def _are_slots(command: Command, reply: Any) -> bool:
    if type(reply) is not list or not all(map(_is_range_of_slots, reply)):
        return False
    slots = sum(last + 1 - first for first, last, *_ in reply)
    return bool(slots <= SLOTS_OF_A_CLUSTER)


def _is_range_of_slots(reply: Any) -> bool:
    if type(reply) is not list or len(reply) < 3 or not _are({int}, reply[:2]):
        return False
    first, last, owner = reply[:3]
    if not 0 <= first <= last < SLOTS_OF_A_CLUSTER or type(owner) is not list or len(owner) < 2:
        return False
    host, port = owner[:2]
    return (host is None or _is_host(host)) and type(port) is int and 0 <= port < 65536


def _is_host(text: Any) -> bool:
    return type(text) is bytes and text.isascii()


def _is_place(command: Command, reply: Any) -> bool:
    """Return True for what a sentinel replies: an address, or a description of each replica."""
    if reply is None:
        return True
    if command[1] == "REPLICAS":
        return type(reply) is list and all(map(_is_replica, reply))
    return type(reply) is list and len(reply) == 2 and _is_host(reply[0]) and _is_port(reply[1])


def _is_port(text: Any) -> bool:
    return type(text) is bytes and text.isdigit() and len(text) < 6 and int(text) < 65536


def _is_replica(reply: Any) -> bool:
    if not _are({bytes}, reply):
        return False
    told = dict(zip(reply[::2], reply[1::2], strict=False))
    return _is_host(told.get(b"ip")) and _is_port(told.get(b"port"))


def _is_of_script(command: Command, reply: Any) -> bool:
    """Return True for what the script of this text or name returns."""
    form = _SCRIPT_FORMS.get(command[1])
    return form is None or form(command, reply)


def _are_outcomes(command: Command, reply: Any) -> bool:
    return (
        _are({int}, reply)
        and len(reply) == command[2]
        and all(0 <= outcome <= LEFT_NEWER for outcome in reply)
    )


def _is_number_of_keys(command: Command, reply: Any) -> bool:
    return type(reply) is int and 0 <= reply <= int(command[2])


_FORMS: dict[Any, _Form] = {
    "MGET": _are_values,
    "GET": _is_value,
    "SET": _is_ok,
    "DEL": _is_count,
    "EXPIRETIME": _is_count,
    "SCAN": _is_page,
    "ZRANGEBYLEX": _are_members,
    "EVALSHA": _is_of_script,
    "EVAL": _is_of_script,
    "WAIT": _is_count,
    "WAITAOF": _are_two_counts,
    "DBSIZE": _is_count,
    "INFO": _is_text,
    "ROLE": _is_role,
    "ASKING": _is_ok,
    "CLUSTER": _are_slots,
    "SENTINEL": _is_place,
}
"""By the name of a command. The replies to other commands are not checked."""

_SCRIPT_FORMS: dict[Any, _Form] = {
    name: form
    for script, form in (
        (MERGE, _are_outcomes),
        (UPDATE, _is_number_of_keys),
        (FILL, _is_number_of_keys),
        (SWAP, _is_count),
        (REPLICAS, _is_count),
    )
    for name in (script.sha, script.text)
}
