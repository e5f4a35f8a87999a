"""What parts of a call cost, each measured by itself.

Parts run in tight loops, with all they need in the processor's caches. In a whole call they
follow a wait for the network, after which these are cold: so the rest is more than the layers in
between. What these cost by themselves is seen where the answer comes from memory.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import boto3

from benchmarks.canned import CODEC, LAYOUT, ROWS, TABLE, USER, answers, changes
from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY
from benchmarks.clients.ours import store_url
from benchmarks.data import OBSERVED_AT
from benchmarks.inprocess import a_core_for_servers
from benchmarks.server import CannedServer
from chalk_online_store import OnlineStore, Rows
from chalk_online_store.connect import connect
from chalk_online_store.dynamodb import responses as wire_answers
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer

SECONDS_A_SAMPLE = 0.02

Part = Callable[[], Any]


def cpu_of(part: Part, samples: int) -> float:
    """CPU microseconds, the median of so many samples."""
    part()
    started = time.process_time()
    part()
    times = max(5, int(SECONDS_A_SAMPLE / max(time.process_time() - started, 1e-6)))
    return statistics.median(_sample(part, times) for _ in range(samples))


def _sample(part: Part, times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        part()
    return (time.process_time() - started) / times * 1e6


def reads(url: str, count: int) -> Iterator[tuple[str, Part]]:
    """A read of so many entities, as columns, and its parts."""
    operation = "GetItem" if count == 1 else "BatchGetItem"
    group = CODEC.groups["default"]
    keys = [row["id"] for row in ROWS[:count]]
    pks = CODEC.partition_keys(keys)
    texts = Bodies(TABLE, LAYOUT).reads([group.sk], group.shape)

    def body() -> bytes:
        return texts.get(pks[0], False) if count == 1 else texts.batch_get(pks, False)

    found = answers()[operation].encode()
    kind = wire_answers.GetItemResponse if count == 1 else wire_answers.BatchGetItemResponse
    decoder = wire_answers.RowsDecoder(kind, group.shape)
    signed, signer = body(), Signer(REGION, url)
    credentials = Credentials(ACCESS_KEY, SECRET_KEY)
    with closing(_open(url)) as store, closing(_still()) as still:
        rows = store.read(USER, keys)
        yield "the whole call", lambda: store.read(USER, keys).to_dict()
        yield "the same without HTTP", lambda: still.read(USER, keys).to_dict()
        yield "keys and body", lambda: (CODEC.partition_keys(keys), body())
        yield "signature", lambda: signer.sign(credentials, operation, signed, time.time())
        yield from _exchange(url, Request(operation, signed))
        yield "CRC32", lambda: zlib.crc32(found)
        yield "decoding", lambda: decoder.decode(found)
        yield (
            "columns",
            lambda: Rows(keys, rows._sources, None, rows._found, rows._now, rows.report).to_dict(),
        )


def writes(url: str, count: int) -> Iterator[tuple[str, Part]]:
    """A BatchWriteItem, and its parts."""
    rows = ROWS[:count]
    written, bodies = changes(count), Bodies(TABLE, LAYOUT)
    body, signer = bodies.batch_write(written), Signer(REGION, url)
    credentials = Credentials(ACCESS_KEY, SECRET_KEY)
    options: dict[str, Any] = {"observed_at": OBSERVED_AT, "ordering": "arrival"}
    with closing(_open(url)) as store, closing(_still()) as still:
        yield "the whole call", lambda: store.write(USER, rows, **options)
        yield "the same without HTTP", lambda: still.write(USER, rows, **options)
        yield "keys and values", lambda: changes(count)
        yield "body", lambda: bodies.batch_write(written)
        yield "signature", lambda: signer.sign(credentials, "BatchWriteItem", body, time.time())
        yield from _exchange(url, Request("BatchWriteItem", body))


def _exchange(url: str, request: Request) -> Iterator[tuple[str, Part]]:
    _, transports, _ = connect(store_url(url, TABLE), boto3.Session(ACCESS_KEY, SECRET_KEY))
    with closing(transports[""]) as transport:
        yield "HTTP, signature included", lambda: transport.send(request, 10.0)


class Memory:
    """A transport without a network."""

    def __init__(self) -> None:
        self._answers = {
            name: Response(200, {"x-amz-crc32": str(zlib.crc32(body.encode()))}, body.encode())
            for name, body in answers().items()
        }

    def send(self, request: Request, timeout: float) -> Response:
        """The canned answer."""
        return self._answers[request.operation]

    def warm(self, connections: int, timeout: float) -> int:
        """There are none."""
        return 0

    def close(self) -> None:
        """Nothing to give back."""


def _still() -> OnlineStore:
    return OnlineStore(DynamoDBBackend(TABLE), {"": Memory()}, [USER])


def _open(url: str) -> OnlineStore:
    return OnlineStore.open(
        store_url(url, TABLE), [USER], session=boto3.Session(ACCESS_KEY, SECRET_KEY)
    )


def run(samples: int = 15) -> list[dict[str, Any]]:
    """Each call, and the microseconds of its parts."""
    with a_core_for_servers() as core, CannedServer(answers(), core) as server:
        calls = {
            "BatchGetItem 100 x 20": reads(server.url, 100),
            "GetItem 1 x 20": reads(server.url, 1),
            "BatchWriteItem 25 x 20": writes(server.url, 25),
        }
        return [
            {"call": title, "parts": {name: cpu_of(part, samples) for name, part in of}}
            for title, of in calls.items()
        ]
