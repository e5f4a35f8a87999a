"""The Valkey backend: the contract of `backend.Backend` in commands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from chalk_online_store.backend import (
    Call,
    GroupKeys,
    ItemPage,
    KeyPage,
    Outcome,
    Route,
    RowOrError,
    Searched,
    WriteOutcome,
    chunks,
)
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    fresh_item,
    key_attributes,
    number,
)
from chalk_online_store.codec.layout import ALPHABET, RESERVED, ItemKey, TableLayout, segment_of
from chalk_online_store.codec.nearest import ExactSearch, VectorQuery, search_too_large
from chalk_online_store.codec.registry import PARTITION as REGISTRY
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import DamagedItem, RequestError, RequestTimeout
from chalk_online_store.retry import Backoff, RetryPolicy, item_error_or_raise, pause
from chalk_online_store.valkey import commands, scripts
from chalk_online_store.valkey.commands import Expiry, Keys, Reply, Request, read_generation
from chalk_online_store.valkey.nodes import Nodes
from chalk_online_store.valkey.packing import attributes_of
from chalk_online_store.valkey.resp import Command
from chalk_online_store.valkey.rows import RowReader

T = TypeVar("T")

KEYS_A_GET = 1000
"""Keys of one MGET: the server does nothing else meanwhile."""

CHANGES_A_SCRIPT = 64
"""Changes that one script applies: the same."""

_LIGHT, _HEAVY = 1000, 16
"""Commands of one request, so that each attempt has its time: of one key, or of many."""

_SCANNED = 1000
"""Keys that the server looks at in one step of a SCAN for one entity."""

_PATIENCE = 1.0
"""Seconds in which the disk, and then a replica, are to have what was entered in the registry."""

Scanned: TypeAlias = tuple[int, str]
"""How far a SCAN has come: the number of the node, and its cursor."""

_START: Scanned = (0, "0")

_APPLIED = {
    scripts.SUPERSEDED: WriteOutcome.SUPERSEDED,
    scripts.PARTIALLY_APPLIED: WriteOutcome.PARTIALLY_APPLIED,
    scripts.APPLIED: WriteOutcome.APPLIED,
    scripts.LEFT_NEWER: WriteOutcome.LEFT_NEWER,
}


class ValkeyBackend:
    """The keys of one environment on a server, or on a cluster. It counts no capacity units.

    `server` names it, without secrets. `prefix` goes before every key. `attempt_timeout`, in
    seconds, bounds each request. An item is kept `keep_expired` seconds past its expiry: a read
    may ask for older values than the schema serves. In a cluster each key is asked for by a
    command of its own, as the keys of one command have to lie in one slot. `route` decides between
    the primary, which is its home, and replicas, for reads of entities that are not consistent:
    all else is asked of the primary.
    """

    def __init__(
        self,
        server: str,
        prefix: str = "",
        *,
        attempt_timeout: float = 3.0,
        keep_expired: int = 300,
        clustered: bool = False,
        retry: RetryPolicy | None = None,
        rng: random.Random | None = None,
        route: Route | None = None,
    ) -> None:
        self.layout = TableLayout()
        self.scans_in_order = False
        self.home = self.origin = ""
        self.identity = f"valkey {server} {prefix}"
        self._keys = Keys(prefix)
        self._attempt_timeout = attempt_timeout
        self._nodes = Nodes(route, attempt_timeout)
        self._keep_expired = keep_expired
        self._clustered = clustered
        self._retry = retry or RetryPolicy()
        self._rng = rng or random.Random()
        self._readers: WeakKeyDictionary[Shape, RowReader] = WeakKeyDictionary()

    # --- entities ---

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """One request of MGETs; in a cluster, of a GET for each key."""
        here = yield from self._here(call)
        keys = [key for want in wanted for key in here.items(want.pks, want.sk)]
        found = iter((yield from self._values(keys, call, strong=False)))
        return [self._rows(want, [*islice(found, len(want.pks))]) for want in wanted]

    def _values(
        self, keys: Sequence[str], call: Call, strong: bool = True
    ) -> Operation[list[Reply]]:
        """The value of each key: None where there is none, or the error that kept it."""
        if self._clustered:
            replies = yield from self._ask_all([("GET", key) for key in keys], _LIGHT, call)
            return list(map(_tolerated, replies))
        batches = list(chunks(keys, KEYS_A_GET))
        gets: list[Command] = [("MGET", *batch) for batch in batches]
        replies = yield from self._ask_all(gets, _HEAVY, call, strong)
        return _spread(batches, replies, lambda reply, batch: reply)

    def _rows(self, want: GroupKeys, values: Sequence[Reply]) -> list[RowOrError]:
        if {*map(type, values)} == {bytes}:  # All are there, as is usual.
            pairs = [*zip(want.pks, values, strict=True)]
            return [*self._reader(want.shape).rows(want.sk, pairs)]
        found: list[RowOrError] = list(values)
        places = [i for i, value in enumerate(values) if type(value) is bytes]
        items = [(want.pks[i], values[i]) for i in places]
        for i, row in zip(places, self._reader(want.shape).rows(want.sk, items), strict=True):
            found[i] = row
        return found

    def _reader(self, shape: Shape) -> RowReader:
        reader = self._readers.get(shape)
        if reader is None:
            reader = self._readers[shape] = RowReader(shape)
        return reader

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """One request of scripts, each of which applies some changes one after the other."""
        here, expiry = (yield from self._here(call)), (yield from self._expiry())
        batches = list(chunks(changes, 1 if self._clustered else CHANGES_A_SCRIPT))
        merges = [commands.merge_command(here, batch, expiry) for batch in batches]
        replies = yield from self._ask_all(merges, _LIGHT if self._clustered else _HEAVY, call)
        return _spread(batches, replies, lambda reply, batch: map(_outcome, reply))

    def replace(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """One request of a SET or DEL for each change."""
        here, expiry = (yield from self._here(call)), (yield from self._expiry())
        puts = [self._replacing(here, change, expiry) for change in changes]
        replies = yield from self._ask_all(puts, _LIGHT, call)
        return [
            item_error_or_raise(reply) if isinstance(reply, RequestError) else WriteOutcome.APPLIED
            for reply in replies
        ]

    def _expiry(self) -> Operation[Expiry]:
        now: Instant = yield NOW
        return Expiry(now.wall // 1_000_000, self._keep_expired)

    def _replacing(self, here: Keys, change: Change, expiry: Expiry) -> Command:
        if not change.key.pk.startswith(RESERVED):
            return commands.replacing(here, change, expiry)
        item = None if change.erases else fresh_item(self.layout, change)
        return commands.overwriting(here, change.key, item)

    # --- partitions ---

    def list_partition(self, pk: str, after: str, call: Call) -> Operation[list[Attributes]]:
        """One range of a sorted set for a reserved partition.

        An entity's items are in no index: to find them, a SCAN goes through all keys.
        """
        if pk == REGISTRY:
            return (yield from self._list_registry(after, call))
        if pk.startswith(RESERVED):
            members = yield from self._only(commands.listing(self._keys, pk, after), call)
            return list(map(commands.item_of, members))
        here = yield from self._here(call)
        keys = yield from self._scan_partition(here, pk, call)
        values = yield from self._values(keys, call)
        found: list[tuple[str, Attributes]] = []
        for key, value in zip(keys, values, strict=True):
            if isinstance(value, RequestError):
                raise value
            place = here.split(key.encode())
            if value is not None and place.sk.encode() > after.encode():
                found.append((place.sk, key_attributes(self.layout, place) | attributes_of(value)))
        return [item for _, item in sorted(found, key=lambda pair: pair[0].encode())]

    def _scan_partition(self, here: Keys, pk: str, call: Call) -> Operation[list[str]]:
        keys = set[bytes]()
        scanned: Scanned | None = _START
        while scanned is not None:
            scanned, some = yield from self._scan(scanned, here.pattern(pk), _SCANNED, call)
            keys.update(some)
        return [key.decode() for key in keys if here.split(key).pk == pk]

    def _scan(
        self, scanned: Scanned, pattern: str, count: int, call: Call
    ) -> Operation[tuple[Scanned | None, list[bytes]]]:
        """Some keys, and where to go on; None at the end."""
        node, cursor = scanned
        command = ("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string")
        reply = yield from self._only(command, call, node if self._clustered else None)
        if reply is None:  # There are no more nodes.
            return None, []
        found, keys = reply
        keys = list(filter(_is_ours, keys))
        if found != b"0":
            return (node, found.decode()), keys
        return ((node + 1, "0") if self._clustered else None), keys

    def transact(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """One script; for the registry, as durable as the server can make it."""
        if any(swap.key(self.layout).pk == REGISTRY for swap in swaps):
            return (yield from self._transact_durably(swaps, call))
        command = commands.transact_command(self._keys, self.layout, swaps)
        return bool((yield from self._only(command, call)))

    def scan_keys(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[KeyPage]:
        """One SCAN; the first segment has everything. A key may come twice, as SCAN has it."""
        if segment:
            return KeyPage([], b"", 0.0)
        here = yield from self._here(call)
        keys, more = yield from self._page(here, start, limit, call)
        return KeyPage([here.split(key.encode()).pk for key in keys], more, 0.0)

    def scan_items(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[ItemPage]:
        """One SCAN, then requests for values, and for when they expire.

        Every segment scans all keys, and asks for the values of those that are in it by the hash
        of their partition key. A server has no cursors that begin in the middle.
        """
        here = yield from self._here(call)
        keys, more = yield from self._page(here, start, limit, call)
        if segments > 1:
            keys = [
                key for key in keys if segment_of(here.split(key.encode()).pk, segments) == segment
            ]
        values = yield from self._values(keys, call)
        asked: list[Command] = [("EXPIRETIME", key) for key in keys]
        expiries = yield from self._ask_all(asked, _LIGHT, call)
        found = []
        for key, value, expiry in zip(keys, values, expiries, strict=True):
            for reply in (value, expiry):
                if isinstance(reply, RequestError):
                    raise reply
            if value is not None:
                found.append(self._whole(here.split(key.encode()), value, expiry))
        return ItemPage(found, more, 0.0)

    def _whole(self, place: ItemKey, value: bytes, expiry: int) -> Attributes:
        """An item with its key and its expiry, which the server keeps."""
        item = key_attributes(self.layout, place) | attributes_of(value)
        return item if expiry < 0 else item | {self.layout.ttl: number(expiry - self._keep_expired)}

    def _page(
        self, here: Keys, start: bytes, limit: int, call: Call
    ) -> Operation[tuple[list[str], bytes]]:
        """Some keys, and where the next ones begin."""
        scanned: Scanned | None
        scanned, keys = msgspec.json.decode(start) if start else (_START, [])
        if len(keys) < limit and scanned is not None:
            left = limit - len(keys)
            scanned, found = yield from self._scan(scanned, here.pattern(), left, call)
            keys += [key.decode() for key in found]
        page, rest = keys[:limit], keys[limit:]
        return page, msgspec.json.encode((scanned, rest)) if scanned or rest else b""

    # --- searches ---

    def check_search(self, call: Call) -> Operation[None]:
        """Nothing: searches are reads."""
        yield from ()

    def search(self, query: VectorQuery, call: Call) -> Operation[Searched]:
        """An exact search: a SCAN for the keys of the group, and requests for their values."""
        here = yield from self._here(call)
        now: Instant = yield NOW
        search = ExactSearch(query, now.wall)
        pattern = here.pattern(query.prefix.removesuffix(":"))
        seen = set[bytes]()
        scanned: Scanned | None = _START
        while scanned is not None:
            scanned, found = yield from self._scan(scanned, pattern, _SCANNED, call)
            keys = [key for key in found if key not in seen and here.split(key).sk == query.sk]
            seen.update(keys)
            if len(seen) > query.max_scanned:
                raise search_too_large(query, "Valkey")
            values = yield from self._values([key.decode() for key in keys], call)
            for value in values:
                if isinstance(value, RequestError):
                    raise value
            items = [(here.split(k).pk, v) for k, v in zip(keys, values, strict=True) if v]
            search.add(self._reader(query.shape).rows(query.sk, items) if items else ())
        return Searched(search.result(), exact=True)

    # --- the registry ---

    def _here(self, call: Call) -> Operation[Keys]:
        """The keys of the registry's generation: that which was there when it was read last."""
        if not self._keys.generation:
            found = yield from self._only(("GET", self._keys.place), call)
            self._keys = self._keys.of(read_generation(found))
        return self._keys

    def _list_registry(self, after: str, call: Call) -> Operation[list[Attributes]]:
        """The registry, and the generation that goes with it."""
        listing = commands.listing(self._keys, REGISTRY, after)
        replies = yield from self._ask([("GET", self._keys.place), listing], call)
        for reply in replies:
            if isinstance(reply, RequestError):
                raise reply
        generation, members = replies
        if self._nodes.is_primary(call.region):
            self._keys = self._keys.of(read_generation(generation))
        return list(map(commands.item_of, members))

    def _transact_durably(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """Swap, and wait until a replica has it, and the disk, where there are such.

        An id that is lost would be given a second time, while whoever got it first goes on.
        """
        replicas = yield from self._only(commands.counting_replicas(self._keys), call)
        generation = "".join(self._rng.choices(ALPHABET, k=4)) + "/"
        # By its text: were it sent again for that, nothing would wait for it.
        swap = commands.with_text(
            commands.transact_command(self._keys, self.layout, swaps, generation)
        )
        now: Instant = yield NOW
        patience = min(_PATIENCE, (call.deadline - now.monotonic) / 3, self._attempt_timeout / 3)
        milliseconds = max(1, int(patience * 1000))  # 0 would be for ever.
        waits: list[Command] = [("WAITAOF", 1, 0, milliseconds)]
        if replicas:
            waits.append(("WAIT", 1, milliseconds))
        done, *confirmed = yield from self._ask([swap, *waits], call)
        if isinstance(done, RequestError):
            raise done
        if done and replicas and confirmed[-1] == 0:
            raise RequestTimeout("Valkey: no replica has confirmed the registry's new entries.")
        return bool(done)

    # --- requests ---

    def _only(self, command: Command, call: Call, node: int | None = None) -> Operation[Any]:
        """The reply to one command; raises `RequestError`."""
        (reply,) = yield from self._ask([command], call, node)
        if isinstance(reply, RequestError):
            raise reply
        return reply

    def _ask_all(
        self, asked: Sequence[Command], at_once: int, call: Call, strong: bool = True
    ) -> Operation[list[Reply]]:
        """As `_ask`, in as many requests as it takes."""
        replies: list[Reply] = []
        for some in chunks(asked, at_once):
            replies += yield from self._ask(some, call, strong=strong)
        return replies

    def _ask(
        self, asked: Sequence[Command], call: Call, node: int | None = None, strong: bool = True
    ) -> Operation[list[Reply]]:
        """The reply to each command; those that fail are sent again until time is up."""
        left, replies = dict(enumerate(asked)), dict[int, Reply]()
        backoff = Backoff(self._retry, self._rng)
        while left:
            answers = yield from self._attempt(Request(list(left.values()), node), call, strong)
            for i, answer in zip(left, answers, strict=True):
                if _says_more(answer, replies.get(i)):
                    replies[i] = answer
            failed = {i: replies[i] for i in left if isinstance(replies[i], RequestError)}
            by_text = {i for i, error in failed.items() if _is_to_be_sent(left[i], error)}
            left = {
                i: commands.with_text(left[i]) if i in by_text else left[i]
                for i, error in failed.items()
                if error.retryable
            }
            causes = [failed[i] for i in left if i not in by_text]
            if not causes:
                continue
            try:
                yield from pause(causes[0], call, backoff)
            except RequestError:
                break
        return [replies[i] for i in range(len(asked))]

    def _attempt(self, request: Request, call: Call, strong: bool) -> Operation[list[Reply]]:
        try:
            return (yield from self._nodes.attempt(request, self._keys, strong, call))
        except RequestError as error:
            return [error] * len(request.commands)


def _says_more(answer: Reply, before: Reply) -> bool:
    """Return False for an attempt that had no time left after one that says why it failed."""
    return (
        not isinstance(answer, RequestTimeout)
        or not isinstance(before, RequestError)
        or isinstance(before, commands.ScriptUnknown)
    )


def _is_to_be_sent(command: Command, error: RequestError) -> bool:
    """Return True if the server lacks the script, which was not sent along yet."""
    return isinstance(error, commands.ScriptUnknown) and commands.names_script(command)


def _is_ours(key: bytes) -> bool:
    """Return False for a key of another application: ours are text."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _spread(
    batches: Sequence[Sequence[Any]],
    replies: Sequence[Reply],
    parts: Callable[[Reply, Sequence[Any]], Any],
) -> list[Any]:
    """What came of each part of each batch: the batch's error where it failed."""
    found: list[Any] = []
    for batch, reply in zip(batches, replies, strict=True):
        failed = isinstance(reply, RequestError)
        found += [item_error_or_raise(reply)] * len(batch) if failed else parts(reply, batch)
    return found


def _tolerated(reply: Reply) -> Reply:
    return item_error_or_raise(reply) if isinstance(reply, RequestError) else reply


def _outcome(code: int) -> Outcome:
    return _APPLIED.get(code) or DamagedItem("An item cannot be read, and so not be changed.")
