"""DynamoDB's format for an import from S3, which makes a new table.

The developer guide, "DynamoDB data import from Amazon S3": files of lines, each an item in
DynamoDB's JSON under `Item`, here compressed by gzip. The registry of the ids is part of the
import. An import knows no order in time: of two items of one key, which one is left is not said.
So the file is read twice, and of each key only the newest row is written. That takes some 100 bytes
of memory a row.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import xxhash

from chalk_online_store.arguments import MAX_FUTURE_SKEW
from chalk_online_store.cli.loading.source import Rows, Source
from chalk_online_store.codec.changes import render_fresh, render_item
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.times import times_of
from chalk_online_store.operations.write import row_by_row
from chalk_online_store.planning.items import draft_codec
from chalk_online_store.schema import seconds

ITEMS_A_FILE = 500_000
"""DynamoDB imports files side by side; it takes 50,000 of them."""

_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. `refused` rows cannot be stored; `older` ones have a newer of their key."""

    files: int
    items: int
    bytes: int
    refused: int
    older: int


def export(
    source: Source, directory: Path, table: str, bucket: str, prefix: str, now: datetime, tell: Tell
) -> Exported:
    """Write the files of an import, and the input of `aws dynamodb import-table`.

    Raises `InvalidValue` where the directory has something already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise InvalidValue(f"{directory} is not empty: name another directory.")
    codec = draft_codec(source.namespace)
    files = _Files(directory / "data")
    for item in _registry(codec):
        files.write(item)
    latest = _times(Rows(0, [{}], None), now + timedelta(seconds=seconds(MAX_FUTURE_SKEW)))[0]
    newest = _newest(codec, source, latest)
    rows, refused = 0, 0
    for some in source.read():
        planned, bad = row_by_row(codec, some.rows, _times(some, now), latest=latest)
        refused += len(bad) + len(some.refused)
        for position, change in planned:
            if newest[_digest(change.key.pk)][1] == some.first + position:
                files.write(render_fresh(codec.layout, change))
        rows = some.first + some.total
        tell(rows)
    files.close()
    request = _request(codec, table, bucket, prefix)
    (directory / "import-table.json").write_text(json.dumps(request, indent=2) + "\n")
    older = max(0, rows - refused - len(newest))
    return Exported(files.count, files.items, files.bytes, refused, older)


def _newest(codec: NamespaceCodec, source: Source, latest: int) -> dict[int, tuple[int, int]]:
    """When the newest row of each key was true, and its place in the file."""
    newest: dict[int, tuple[int, int]] = {}
    for some in source.read():
        planned, _ = row_by_row(codec, some.rows, _times(some, _SOME_TIME), latest=latest)
        for position, change in planned:
            key, found = _digest(change.key.pk), (change.observed_at, some.first + position)
            newest[key] = max(newest.get(key, found), found)
    return newest


def _digest(pk: str) -> int:
    return xxhash.xxh3_64_intdigest(pk.encode())


def _times(rows: Rows, now: datetime) -> list[int]:
    given = now if rows.observed_at is None else rows.observed_at
    return times_of(given, len(rows.rows)) or []


def _registry(codec: NamespaceCodec) -> Iterator[bytes]:
    for entry in codec.registry.entries:
        for item in entry.items(codec.layout):
            yield render_item(item)


class _Files:
    """Compressed files of lines, each of so many items."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self._file: gzip.GzipFile | None = None
        self.count = 0
        self.items = 0
        self.bytes = 0

    def write(self, item: bytes) -> None:
        """Append an item."""
        if self._file is None or self.items % ITEMS_A_FILE == 0:
            self._next()
        assert self._file is not None
        line = b'{"Item":%b}\n' % item
        self._file.write(line)
        self.items += 1
        self.bytes += len(line)

    def _next(self) -> None:
        self.close()
        self.count += 1
        path = self._directory / f"part-{self.count:05}.json.gz"
        self._file = gzip.open(path, "wb", compresslevel=6)  # noqa: SIM115 - closed by `close`.

    def close(self) -> None:
        """End the last file."""
        if self._file is not None:
            self._file.close()


def _request(codec: NamespaceCodec, table: str, bucket: str, prefix: str) -> dict[str, Any]:
    pk, sk = codec.layout.pk, codec.layout.sk
    return {
        "S3BucketSource": {"S3Bucket": bucket, "S3KeyPrefix": prefix},
        "InputFormat": "DYNAMODB_JSON",
        "InputCompressionType": "GZIP",
        "TableCreationParameters": {
            "TableName": table,
            "AttributeDefinitions": [
                {"AttributeName": pk, "AttributeType": "S"},
                {"AttributeName": sk, "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": pk, "KeyType": "HASH"},
                {"AttributeName": sk, "KeyType": "RANGE"},
            ],
            "BillingMode": "PAY_PER_REQUEST",
        },
    }
