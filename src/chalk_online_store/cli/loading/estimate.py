"""What a load takes, from a sample of its rows, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chalk_online_store.cli.loading.source import Source
from chalk_online_store.codec.changes import render_fresh
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.operations.write import row_by_row
from chalk_online_store.planning.items import draft_codec
from chalk_online_store.planning.units import write_units

_GB = 1e9
_SAMPLE = 500
_NOW = 1_800_000_123_456_789
"""UTC microseconds with 16 digits: DynamoDB does not count trailing zeros."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a load takes; WCU and bytes of all its items, by the mean of `sample` rows.

    An update takes what the item was before, where that was larger: nothing is known of that.
    """

    rows: int
    sample: int
    items: float
    wcu: float
    bytes: float

    def price_of_writes(self, a_million: float) -> float:
        """Dollars, on demand; `a_million` is the price of so many write request units."""
        return self.wcu / 1e6 * a_million

    def price_of_import(self, a_gigabyte: float) -> float:
        """Dollars for an import from S3; `a_gigabyte` is the price of one, uncompressed."""
        return self.bytes / _GB * a_gigabyte


def estimate(source: Source) -> Estimate:
    """What loading a file takes."""
    sample = next(iter(source.read(rows_per_batch=_SAMPLE)), None)
    rows: Sequence[Mapping[str, Any]] = sample.rows if sample else []
    sizes = _sizes(draft_codec(source.namespace), rows)
    count = max(1, len(rows))
    return Estimate(
        source.count,
        len(rows),
        len(sizes) / count * source.count,
        sum(map(write_units, sizes)) / count * source.count,
        sum(sizes) / count * source.count,
    )


def _sizes(codec: NamespaceCodec, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    planned, _ = row_by_row(codec, rows, [_NOW] * len(rows))
    decode = msgspec.json.decode
    return [item_size(decode(render_fresh(codec.layout, change))) for _, change in planned]
