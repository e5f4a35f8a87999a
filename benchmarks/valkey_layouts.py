"""How an entity's group may lie in Valkey: bytes, and CPU of both sides, of each layout.

`python -m benchmarks.valkey_layouts` measures on a server of its own, in interleaved rounds, and
prints a table. Read the ratios.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks.data import ROWS
from benchmarks.entities import OBSERVED, entities, namespace
from benchmarks.items import microseconds
from benchmarks.layouts import codec_of
from chalk_online_store.codec.changes import Change, render_fresh
from chalk_online_store.codec.layout import LATEST, TableLayout, own
from chalk_online_store.testing import Valkey
from chalk_online_store.valkey import commands
from chalk_online_store.valkey.commands import Expiry, Keys, Request
from chalk_online_store.valkey.packing import packed_time, value_of
from chalk_online_store.valkey.resp import Command
from chalk_online_store.valkey.rows import RowReader
from chalk_online_store.valkey.transport import ValkeyTransport
from chalk_online_store.valkey.urls import ValkeyTarget

FEATURES = 20
ROUNDS = 15
_pack = msgspec.msgpack.encode


class Layout(ABC):
    """One way to keep the rows; `changes` are whole ones, `parts` those of one feature each."""

    name: str

    def __init__(self) -> None:
        codec = codec_of(namespace(FEATURES))
        (group,) = codec.groups.values()
        rows = entities(FEATURES)
        at = microseconds(OBSERVED)
        self.shape, self.sk = group.shape, group.sk
        self.changes = [change for row in rows for change in codec.changes(row, at)]
        self.pks = [change.key.pk for change in self.changes]
        column = self.shape.columns[0]
        self.parts = [change.partial({column.id: column.encode(1.5)}) for change in self.changes]
        self.keys = Keys(f"{type(self).__name__}:")
        self.places = [self.keys.item(*change.key) for change in self.changes]

    @abstractmethod
    def writes(self) -> list[Command]:
        """Put every row."""

    @abstractmethod
    def partial_writes(self) -> list[Command]:
        """Put one feature of every row."""

    @abstractmethod
    def reads(self) -> list[Command]:
        """Get every row."""

    @abstractmethod
    def rows(self, replies: Sequence[Any]) -> list[Any]:
        """What a read makes of the replies."""


class Packed(Layout):
    """What the backend does."""

    name = "packed in msgpack, MGET"
    expiry = Expiry(int(time.time()), 100_000)

    def __init__(self) -> None:
        super().__init__()
        self.reader = RowReader(self.shape)

    def writes(self) -> list[Command]:
        return [commands.replacing(self.keys, change, self.expiry) for change in self.changes]

    def partial_writes(self) -> list[Command]:
        return [commands.merge_command(self.keys, self.parts, self.expiry)]

    def reads(self) -> list[Command]:
        return [("MGET", *self.places)]

    def rows(self, replies: Sequence[Any]) -> list[Any]:
        return self.reader.rows(self.sk, list(zip(self.pks, replies[0], strict=True)))


class Json(Packed):
    """DynamoDB's JSON as it is, which the decoder in C reads."""

    name = "DynamoDB's JSON, MGET"

    def writes(self) -> list[Command]:
        layout = TableLayout()
        pairs = zip(self.places, self.changes, strict=True)
        return [("SET", place, render_fresh(layout, change)) for place, change in pairs]

    def partial_writes(self) -> list[Command]:
        return []  # No script of ours reads JSON.

    def rows(self, replies: Sequence[Any]) -> list[Any]:
        compiled = self.shape.decoder.compiled
        if compiled is None:
            return self.shape.decode_items(replies[0])
        found: list[Any] = list(compiled(b'{"Responses":{"t":[%b]}}' % b",".join(replies[0]))[0])
        return found


class Hashes(Layout):
    """A field for each feature; observed-ats are fields as well."""

    name = "a hash, HMGET"

    def __init__(self) -> None:
        super().__init__()
        self.ids = [column.id for column in self.shape.columns]
        self.names = [LATEST, *self.ids]
        self.decode = msgspec.msgpack.Decoder(list[Any]).decode
        self.head = b"\xdc" + len(self.names).to_bytes(2, "big")

    def writes(self) -> list[Command]:
        return [
            ("HSET", place, *self._fields(change))
            for place, change in zip(self.places, self.changes, strict=True)
        ]

    def _fields(self, change: Change) -> list[bytes | str]:
        fields: list[bytes | str] = [LATEST, packed_time(change.observed_at)]
        for name, attribute in zip(change.form.kept, change.attributes, strict=True):
            fields += [name, _pack(value_of(attribute))]
        return fields

    def partial_writes(self) -> list[Command]:
        """Without the order of event time, which a script would have to keep here too."""
        return [
            (
                "HSET",
                place,
                part.form.kept[0],
                _pack(value_of(part.attributes[0])),
                own(part.form.kept[0]),
                packed_time(part.observed_at),
            )
            for place, part in zip(self.places, self.parts, strict=True)
        ]

    def reads(self) -> list[Command]:
        return [("HMGET", place, *self.names) for place in self.places]

    def rows(self, replies: Sequence[Any]) -> list[Any]:
        decode, head = self.decode, self.head
        return [
            (pk, self.sk, *decode(head + b"".join(fields)))
            for pk, fields in zip(self.pks, replies, strict=True)
        ]


class Measured(NamedTuple):
    """Of one layout: bytes of an entity, and microseconds of CPU for all entities."""

    layout: str
    bytes: float
    read_client: float
    read_server: float
    part_client: float
    part_server: float


class Bench:
    """One server, and what it is asked."""

    def __init__(self, server: Valkey) -> None:
        assert server.port is not None
        self.transport = ValkeyTransport(ValkeyTarget((("127.0.0.1", server.port),)))

    def ask(self, asked: Sequence[Command]) -> list[Any]:
        return self.transport.send(Request(asked), 10)

    def server_cpu(self) -> float:
        (text,) = self.ask([("INFO", "cpu")])
        lines = dict(line.split(b":") for line in text.split(b"\r\n") if b":" in line)
        return 1e6 * sum(float(lines[b"used_cpu_%b" % kind]) for kind in (b"user", b"sys"))

    def time(self, act: Callable[[], object], times: int) -> tuple[float, float]:
        """CPU of the client and of the server, in microseconds a call."""
        server, client = self.server_cpu(), time.process_time()
        for _ in range(times):
            act()
        client = (time.process_time() - client) * 1e6
        return client / times, (self.server_cpu() - server) / times

    def read(self, layout: Layout) -> list[Any]:
        return layout.rows(self.ask(layout.reads()))

    def bytes_of(self, layout: Layout) -> float:
        sizes = self.ask([("MEMORY", "USAGE", place, "SAMPLES", 0) for place in layout.places])
        return statistics.fmean(sizes)


def run(rounds: int = ROUNDS, times: int = 40) -> list[Measured]:
    """Measure every layout."""
    with Valkey() as server:
        bench, layouts = Bench(server), [Packed(), Json(), Hashes()]
        sizes = []
        for layout in layouts:
            bench.ask(layout.writes())
            sizes.append(bench.bytes_of(layout))
            assert len(bench.read(layout)) == ROWS
        reads: list[list[tuple[float, float]]] = [[] for _ in layouts]
        parts: list[list[tuple[float, float]]] = [[] for _ in layouts]
        for _ in range(rounds):
            for place, layout in enumerate(layouts):
                reads[place].append(bench.time(lambda each=layout: bench.read(each), times))  # type: ignore[misc]
        (merging,) = layouts[0].partial_writes()
        bench.ask([commands.with_text(merging)])
        for _ in range(rounds):
            for place, layout in enumerate(layouts):
                act = lambda each=layout: bench.ask(each.partial_writes())  # noqa: E731
                if layout.partial_writes():
                    parts[place].append(bench.time(act, times))
        bench.transport.close()
    return [
        Measured(layout.name, size, *medians(read), *medians(part))
        for layout, size, read, part in zip(layouts, sizes, reads, parts, strict=True)
    ]


def medians(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if not samples:
        return float("nan"), float("nan")
    client, server = zip(*samples, strict=True)
    return statistics.median(client), statistics.median(server)


def report(found: Sequence[Measured]) -> str:
    """The table, in Markdown."""
    titles = ("bytes an entity", "read: client", "server", "one feature: client", "server")
    lines = [f"| layout | {' | '.join(titles)} |", "|---|--:|--:|--:|--:|--:|"]
    lines += [f"| {m.layout} | " + " | ".join(f"{v:,.0f}" for v in m[1:]) + " |" for m in found]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(run()))
