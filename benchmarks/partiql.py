"""`python -m benchmarks.partiql`: conditional writes as 25 UpdateItems, or as one PartiQL batch.

What `docs/decisions/0005-conditional-writes.md` rests on. The library does not send PartiQL: here
are the statements that it would send for whole groups, and the time that both ways take.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import boto3
import msgspec

from benchmarks.canned import LAYOUT, TABLE, answers, changes
from benchmarks.clients.base import ACCESS_KEY, SECRET_KEY
from benchmarks.clients.ours import store_url
from benchmarks.inprocess import a_core_for_servers
from benchmarks.server import CannedServer
from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.changes import Change, number
from chalk_online_store.codec.layout import BASE, LATEST, WIDTH
from chalk_online_store.connect import connect
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.dynamodb.matching import Expected
from chalk_online_store.dynamodb.responses import Tables
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.effects import Operation
from chalk_online_store.retry import RetryPolicy
from chalk_online_store.testing import Dynoxide, create_table

ITEMS = 25
"""AWS: BatchExecuteStatement takes 25 statements of 8,192 characters each."""

ROUNDS = 25
CALLS = 4
_json = msgspec.json.encode


class Answer(Tables):
    """BatchExecuteStatement's answer: an error for each statement that was refused."""

    Responses: list[dict[str, Any]] = []  # type: ignore[assignment] # noqa: RUF012 - msgspec copies


_decoder = msgspec.json.Decoder(Answer)


def statement(change: Change) -> str:
    """An UPDATE of a whole group on the condition that nothing in the item is newer."""
    names = [*change.form.kept, LATEST, WIDTH, LAYOUT.ttl]
    assignments = ", ".join(f'"{name}"=?' for name in names)
    return (
        f'UPDATE "{TABLE}" SET {assignments} '
        f'WHERE "{LAYOUT.pk}"=? AND "{LAYOUT.sk}"=? '
        f'AND ("{LATEST}" IS MISSING OR "{LATEST}"<=?) '
        f'AND "{BASE}" IS MISSING AND ("{WIDTH}" IS MISSING OR "{WIDTH}"<=?)'
    )


def body(changes: Sequence[Change]) -> bytes:
    """A BatchExecuteStatement of changes of one form."""
    text = _json(statement(changes[0]))
    return b'{"Statements":[%b],"ReturnConsumedCapacity":"TOTAL"}' % b",".join(
        b'{"Statement":%b,"Parameters":[%b],"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
        % (text, b",".join(_parameters(change)))
        for change in changes
    )


def _parameters(change: Change) -> Iterator[bytes]:
    time, width = number(change.observed_at), number(change.form.width)
    yield from change.attributes
    yield from (time, width, number(change.expires_at or 0))
    yield from (b'{"S":%b}' % _json(text) for text in change.key)
    yield from (time, width)


def batch(wire: Wire, changes: Sequence[Change], call: Call) -> Operation[int]:
    """Send one batch; how many statements were refused."""
    expected: Expected[Answer] = Expected(_decoder, lambda found: found, lambda *_: None)
    answer = yield from wire.ask("BatchExecuteStatement", body(changes), expected, call)
    return sum("Error" in response for response in answer.Responses)


class Client(NamedTuple):
    """The library's own backend and transport, at one server."""

    backend: Backend
    driver: SyncDriver
    wire: Wire

    def updates(self, changes: Sequence[Change]) -> None:
        """What the library does."""
        self.driver.run(self.backend.change(changes, self._call()))

    def statements(self, changes: Sequence[Change]) -> int:
        """The other way."""
        return self.driver.run(batch(self.wire, changes, self._call()))

    def _call(self) -> Call:
        return Call(time.monotonic() + 30)


@contextmanager
def client(url: str) -> Iterator[Client]:
    backend, transports, _ = connect(store_url(url, TABLE), boto3.Session(ACCESS_KEY, SECRET_KEY))
    driver = SyncDriver(transports)
    try:
        yield Client(backend, driver, Wire(TABLE, RetryPolicy(), 10.0, random.Random(0)))
    finally:
        driver.close()


class Sample(NamedTuple):
    """Microseconds a call."""

    cpu: float
    wall: float


def sample(write: Callable[[], Any]) -> Sample:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(CALLS):
        write()
    each = 1e6 / CALLS
    return Sample((time.process_time() - cpu) * each, (time.perf_counter() - wall) * each)


def compare(url: str) -> str:
    """Both ways at items that exist, turn by turn."""
    written = changes(ITEMS)
    with client(url) as ours:
        refused = [ours.statements(written)]
        ours.updates(written)
        refused.append(ours.statements(written))
        samples = _sampled(ours, written)
    lines = [f"  refused: {refused[0]} of {ITEMS} new items, {refused[1]} of known ones"]
    for name, taken in samples.items():
        cpu, wall = (statistics.median(values) for values in zip(*taken, strict=True))
        lines.append(f"  {name:24} CPU {cpu:8,.0f} us   wall {wall:8,.0f} us")
    return "\n".join(lines)


def _sampled(client: Client, changes: Sequence[Change]) -> dict[str, list[Sample]]:
    ways = {"25 UpdateItems": client.updates, "1 BatchExecuteStatement": client.statements}
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, write in ways.items():
            samples[name].append(sample(partial(write, changes)))
    return samples


def main() -> None:
    written = changes(ITEMS)
    print(f"statement {len(statement(written[0]))} characters, batch {len(body(written)):,} bytes")
    canned = answers()
    answered = {"Responses": [{"TableName": TABLE}] * ITEMS, "ConsumedCapacity": []}
    canned["BatchExecuteStatement"] = json.dumps(answered)
    with a_core_for_servers() as core, CannedServer(canned, core) as server:
        print(f"canned\n{compare(server.url)}")
    with Dynoxide() as engine:
        create_table(engine.endpoint_url, TABLE)
        print(f"dynoxide\n{compare(engine.endpoint_url)}")


if __name__ == "__main__":
    main()
