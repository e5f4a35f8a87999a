"""The few calls of DynamoDB and its streams that replication takes, on an engine's own port."""

from __future__ import annotations

import json
from typing import Any

from .forms import encode
from .messages import Request
from .upstream import EngineGone, Upstream

TABLES = "DynamoDB_20120810"
STREAMS = "DynamoDBStreams_20120810"

LIMIT = 1000
"""AWS: records that GetRecords gives at most."""

# Local engines ask for a signature's form alone.
_SIGNATURE = (
    b"AWS4-HMAC-SHA256 Credential=local/20250101/local/dynamodb/aws4_request, "
    b"SignedHeaders=host, Signature=local"
)


class EngineRefused(Exception):
    """The engine answered with an error, whose code this holds."""


class Engine:
    """A local engine."""

    def __init__(self, port: int) -> None:
        self._upstream = Upstream("127.0.0.1", port)

    async def call(self, api: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request; raises `EngineGone` or `EngineRefused`."""
        headers = [
            (b"Host", b"127.0.0.1"),
            (b"X-Amz-Target", f"{api}.{operation}".encode()),
            (b"X-Amz-Date", b"20250101T000000Z"),
            (b"Content-Type", b"application/x-amz-json-1.0"),
            (b"Authorization", _SIGNATURE),
        ]
        request = Request(b"POST / HTTP/1.1", headers, encode(body))
        answer = await self._upstream.ask(request.encode())
        told: dict[str, Any] = json.loads(answer.body)
        if answer.status != 200:
            raise EngineRefused(str(told.get("__type", "")).rpartition("#")[2])
        return told


class Stream:
    """The stream of a table, of one shard as local engines have it, read from its beginning.

    An iterator holds its position, and so outlives the process of the engine.
    """

    def __init__(self, engine: Engine, table: str) -> None:
        self._engine = engine
        self._table = table
        self._iterator = ""

    async def read(self) -> list[dict[str, Any]]:
        """The records since the last call, `LIMIT` at most; raises as `Engine.call`."""
        self._iterator = self._iterator or await self._begin()
        told = await self._call("GetRecords", ShardIterator=self._iterator)
        self._iterator = told["NextShardIterator"]
        records: list[dict[str, Any]] = told["Records"]
        return records

    async def _begin(self) -> str:
        told = await self._call("ListStreams", TableName=self._table)
        if not told["Streams"]:
            raise EngineGone(f"the table {self._table} has no stream")
        arn = told["Streams"][0]["StreamArn"]
        described = await self._call("DescribeStream", StreamArn=arn)
        told = await self._call(
            "GetShardIterator",
            StreamArn=arn,
            ShardId=described["StreamDescription"]["Shards"][0]["ShardId"],
            ShardIteratorType="TRIM_HORIZON",
        )
        iterator: str = told["ShardIterator"]
        return iterator

    async def _call(self, operation: str, **body: str) -> dict[str, Any]:
        return await self._engine.call(STREAMS, operation, body)
