"""Items of a table, kept on Valkey for all processes, and coherent by event time.

What is read of the table is kept for `ttl` seconds. What is written is told once the table has it,
and merged into what is kept, as `codec.changes.merge` has it: the newer observed-at wins, whoever
comes first. A key holds

- a packed item: what the table has, but for writes that were not told;
- "?" and a packed item: what was told of an item that nobody has read. It answers no read; what
  is read of the table meanwhile is joined with it;
- "!": nothing. It was written in order of arrival, or nobody knows whether it was.

The last two stay for `HOLD` seconds. A read that began before a write was told, or that found the
table as it was before, is over by then: so it cannot bring back what the write has replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import xxhash

from chalk_online_store.backend import GroupKeys, chunks
from chalk_online_store.codec.changes import Change
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.effects import Operation, Send
from chalk_online_store.errors import RequestError
from chalk_online_store.valkey import commands
from chalk_online_store.valkey.commands import Keys, Reply, Request
from chalk_online_store.valkey.resp import Command

T = TypeVar("T")

HOLD = 10
"""Seconds. AWS: an eventually consistent read is usually behind by less than one."""

ABSENT = b"\x81\xa1@\xd3" + bytes(8)
"""What is kept of an item that the table does not have: nothing, as of the beginning of time."""

_MAX_KEYS_PER_GET = 1000
_MAX_ITEMS_PER_SCRIPT = 64
_DIGITS = 8
_FIRST_OF_A_MAP = 0x80
"""The least byte that a packed item begins with."""


class SharedItems:
    """Items of one table, by key.

    `table` is what tells it from others on the server. A request goes where the transport named
    `to` leads, and may take `timeout` seconds, if so many are `left`. Every operation asks once,
    and raises `RequestError` where there is no answer.
    """

    def __init__(
        self, prefix: str, table: str, to: str, *, ttl: int, timeout: float, clustered: bool
    ) -> None:
        self._keys = Keys(prefix, f"{xxhash.xxh3_64_hexdigest(table.encode())[:_DIGITS]}/")
        self._to = to
        self._ttl = ttl
        self.timeout = timeout
        self._clustered = clustered

    def get(self, wanted: Sequence[GroupKeys], left: float) -> Operation[list[bytes | None]]:
        """The packed item of each key, which may be `ABSENT`; None where the table has to say."""
        places = [key for want in wanted for key in self._keys.items(want.pks, want.sk)]
        size = 1 if self._clustered else _MAX_KEYS_PER_GET
        gets: list[Command] = [("MGET", *some) for some in chunks(places, size)]
        replies = yield from self._ask(gets, left)
        return [_item(value) for reply in replies for value in reply]

    def fill(self, items: Sequence[tuple[ItemKey, bytes]], left: float) -> Operation[int]:
        """Keep packed items as the table has them; how many were."""
        fills = [
            commands.fill_command(self._keys, some, self._ttl) for some in self._batches(items)
        ]
        return sum((yield from self._ask(fills, left)))

    def update(self, told: Sequence[Change | ItemKey], left: float) -> Operation[int]:
        """Hear of changes that the table has, no key twice; how many.

        What is only a key was written, but what it is now has to be asked of the table.
        """
        updates = [commands.updating(self._keys, some, HOLD) for some in self._batches(told)]
        return sum((yield from self._ask(updates, left)))

    def _batches(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        return chunks(items, 1 if self._clustered else _MAX_ITEMS_PER_SCRIPT)

    def _ask(self, asked: Sequence[Command], left: float) -> Operation[list[Reply]]:
        timeout = min(self.timeout, left)
        replies: list[Reply] = yield Send(Request(asked), timeout, self._to)
        unknown = [i for i, r in enumerate(replies) if isinstance(r, commands.ScriptUnknown)]
        if unknown:
            by_text = Request([commands.with_text(asked[i]) for i in unknown])
            again: list[Reply] = yield Send(by_text, timeout, self._to)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, RequestError):
                raise reply
        return replies


def _item(value: bytes | None) -> bytes | None:
    return value if value and value[0] >= _FIRST_OF_A_MAP else None
