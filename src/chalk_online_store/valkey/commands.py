"""What the server is asked: keys, commands, and what is made of its answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    parse_item,
    render_item,
)
from chalk_online_store.codec.layout import RESERVED, ItemKey, TableLayout
from chalk_online_store.errors import MalformedResponse, RequestError
from chalk_online_store.valkey.packing import packed_change
from chalk_online_store.valkey.resp import Argument, Command
from chalk_online_store.valkey.scripts import FILL, MERGE, REPLICAS, SWAP, UPDATE, Script

Reply: TypeAlias = Any
"""What the server answered; a `RequestError` where that, or no answer, is an error."""


@dataclass(frozen=True, slots=True)
class Request:
    """Commands that go out together; answered by a list of as many replies.

    `node` is the number of the node to ask, among those that have keys of their own; None leaves
    that to the keys.
    """

    commands: Sequence[Command]
    node: int | None = None


class ScriptUnknown(RequestError):
    """The server has not seen the script yet, or was restarted since."""

    retryable = True


SIZE: Sequence[Command] = [("DBSIZE",), ("INFO", "memory")]
"""Asks how many keys a database has, and how many bytes a server."""

SCRIPTS = {script.sha: script for script in (MERGE, SWAP, REPLICAS, UPDATE, FILL)}


def names_script(command: Command) -> bool:
    """Return True for a command that calls a script by its name, which a server may not know."""
    return command[0] == "EVALSHA"


def with_text(command: Command) -> Command:
    """The command that calls a script by its text: from then on the server knows it."""
    return ("EVAL", SCRIPTS[bytes(command[1])].text, *command[2:])  # type: ignore[arg-type]


def key_of_command(command: Command) -> Argument | None:
    """The key that says which node of a cluster a command goes to.

    None for one that concerns what was asked of that node just before.
    """
    if command[0] in ("WAIT", "WAITAOF"):
        return None
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]


def read_generation(reply: bytes | None) -> str:
    """Return the generation of the registry; raises `MalformedResponse` for what is none."""
    if reply is None:
        return ""
    if not _GENERATION.fullmatch(reply):
        raise MalformedResponse("Valkey: the generation of the registry cannot be read.")
    return reply.decode()


_GENERATION = re.compile(rb"[0-9A-Za-z]{1,16}/")


class Keys:
    """The keys of one environment.

    An item of an entity has the key `<prefix><generation><partition key>:<group id>`. A reserved
    partition is one key, `<prefix>{!}<partition key without its "!">`: in a cluster all of them
    lie in one slot, as what one script touches has to.

    The generation is that of the registry. A server may lose what it has, and its registry with
    it; a process that goes on with ids of the lost one must not meet what they stand for now.
    """

    def __init__(self, prefix: str, generation: str = "") -> None:
        self._prefix = prefix
        self.generation = generation
        self._start = prefix + generation

    def of(self, generation: str) -> Keys:
        """The same of another generation."""
        return Keys(self._prefix, generation)

    @property
    def place(self) -> str:
        """Where the server keeps the generation."""
        return f"{self._prefix}{{{RESERVED}}}@"

    def item(self, pk: str, sk: str) -> str:
        """The key of an entity's item."""
        return f"{self._start}{pk}:{sk}"

    def items(self, pks: Iterable[str], sk: str) -> list[str]:
        """As `item`, for many entities: reads are made of it."""
        start = self._start
        return [f"{start}{pk}:{sk}" for pk in pks]

    def partition(self, pk: str) -> str:
        """The key of a reserved partition."""
        return f"{self._prefix}{{{RESERVED}}}{pk[1:]}"

    def split(self, key: bytes) -> ItemKey:
        """The partition key and the sort key of an entity's item; no group id holds a ":"."""
        pk, _, sk = key.decode()[len(self._start) :].rpartition(":")
        return ItemKey(pk, sk)

    def pattern(self, pk: str = "") -> str:
        """Matches the keys of a partition's items, or of all entities'."""
        start = re.sub(r"([*?\[\]\\^])", r"\\\1", self._start + (f"{pk}:" if pk else ""))
        return f"{start}*"


# --- entities ------------------------------------------------------------------------------


class Expiry(NamedTuple):
    """When keys expire: so many seconds after their item does, and after they are written.

    `now` is in UTC seconds.
    """

    now: int
    kept: int

    def of(self, change: Change) -> str:
        """When the key of a change's item expires, in UTC seconds; "" for never."""
        if change.expires_at is None:
            return ""
        return str(max(change.expires_at, self.now) + self.kept)


def merge_command(keys: Keys, changes: Sequence[Change], expiry: Expiry) -> Command:
    """Apply changes in event time."""
    places = [keys.item(*change.key) for change in changes]
    texts = [text for change in changes for text in _merged(change, expiry)]
    return _call(MERGE, places, texts)


def _merged(change: Change, expiry: Expiry | None) -> tuple[Argument, ...]:
    form = change.form
    kind = "e" if change.erases else "w" if form.whole else "p"
    names = f"{' '.join(form.gone)}|{' '.join(form.dropped)}"
    expires = expiry.of(change) if expiry else ""
    return f"{kind}{expires}", names, packed_change(change)


def updating(keys: Keys, changes: Sequence[Change | ItemKey], hold: int) -> Command:
    """Have a shared cache hear of changes, and of items that nothing is known of."""
    places = [keys.item(*invalidated_key(change)) for change in changes]
    texts = [text for change in changes for text in _invalidation(change)]
    return _call(UPDATE, places, [hold, *texts])


def invalidated_key(change: Change | ItemKey) -> ItemKey:
    """The key of what a shared cache is to hear of."""
    return change.key if isinstance(change, Change) else change


def _invalidation(change: Change | ItemKey) -> tuple[Argument, ...]:
    return _merged(change, None) if isinstance(change, Change) else ("b", "", "")


def fill_command(keys: Keys, items: Sequence[tuple[ItemKey, bytes]], ttl: int) -> Command:
    """Have a shared cache keep packed items."""
    return _call(FILL, [keys.item(*key) for key, _ in items], [ttl, *(item for _, item in items)])


def replacing(keys: Keys, change: Change, expiry: Expiry) -> Command:
    """Put what a change leaves where nothing was, or remove what it erases."""
    key = keys.item(*change.key)
    if change.erases:
        return "DEL", key
    expires = expiry.of(change)
    return ("SET", key, packed_change(change), *(("EXAT", expires) if expires else ()))


# --- reserved partitions -------------------------------------------------------------------


def transact_command(
    keys: Keys, layout: TableLayout, swaps: Sequence[ConditionalWrite], generation: str = ""
) -> Command:
    """Perform all swaps or none; with a generation, the registry gets that unless it has one."""
    places = [swap.key(layout) for swap in swaps]
    texts: list[Argument] = []
    for key, swap in zip(places, swaps, strict=True):
        texts += key.sk, _member(key.sk, swap.before), _member(key.sk, swap.after)
    partitions = [keys.partition(key.pk) for key in places]
    if generation:
        return _call(SWAP, [*partitions, keys.place], [*texts, generation])
    return _call(SWAP, partitions, texts)


def counting_replicas(keys: Keys) -> Command:
    """How many replicas there are of the registry."""
    return _call(REPLICAS, [keys.place], [])


def overwriting(keys: Keys, key: ItemKey, item: Attributes | None) -> Command:
    """Put an item, or remove it where that is None, whatever is there."""
    return _call(SWAP, [keys.partition(key.pk)], [key.sk, b"*", _member(key.sk, item)])


def listing(keys: Keys, pk: str, after: str) -> Command:
    """The members of a reserved partition past a sort key."""
    return "ZRANGEBYLEX", keys.partition(pk), b"(%b\x01" % after.encode(), b"+"


def item_of(member: bytes) -> Attributes:
    """The item in a member of a reserved partition."""
    return parse_item(member.partition(b"\0")[2])


def _member(sk: str, item: Attributes | None) -> bytes:
    """One text for one item, so that the server can tell whether it is as it was read."""
    return b"" if item is None else sk.encode() + b"\0" + render_item(dict(sorted(item.items())))


def _call(script: Script, keys: Sequence[str], texts: Sequence[Argument]) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *texts)
