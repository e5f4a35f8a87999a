"""Read and write capacity units by AWS's rules, from the bytes of items.

The rules are those of the developer guide, "DynamoDB read and write operations", each named at
its function. On-demand tables count request units alike. A KB is 1,024 bytes. `codec.sizes`
counts an item's bytes; 0 bytes stand for an item that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable

READ_BYTES = 4 * 1024
WRITE_BYTES = 1024


def write_units(after: int, before: int = 0, *, transactional: bool = False) -> int:
    """WCU of a put, an update or a delete that leaves `after` bytes where `before` bytes were.

    The guide, "Capacity unit consumption for write operations": a unit for each KB, begun or
    full, of the larger of the item before and after, however little of it an UpdateItem touches;
    a DeleteItem (`after` 0) costs what it deletes, one unit where there is nothing; in a
    transaction twice that, for to prepare and to commit, and for a condition check as well.
    "Condition expressions": a write whose condition fails costs what it would have cost.
    """
    return _blocks(max(after, before), WRITE_BYTES) * (2 if transactional else 1)


def batch_write_units(sizes: Iterable[int]) -> int:
    """WCU of a BatchWriteItem that puts items of these sizes where nothing was.

    The guide, BatchWriteItem: each item is rounded up to the next KB by itself. A batch saves
    requests, not units.
    """
    return sum(write_units(size) for size in sizes)


def read_units(size: int, *, consistent: bool = False, transactional: bool = False) -> float:
    """RCU of a GetItem.

    The guide, "Capacity unit consumption for read operations": for each 4 KB, begun or full,
    half a unit; one if consistent, two in a transaction. A projection saves none. An item that
    does not exist costs the least there is.
    """
    rate = 2.0 if transactional else 1.0 if consistent else 0.5
    return _blocks(size, READ_BYTES) * rate


def batch_read_units(
    sizes: Iterable[int], *, consistent: bool = False, transactional: bool = False
) -> float:
    """RCU of a BatchGetItem, or of a TransactGetItems.

    The guide, BatchGetItem: each item is rounded up to the next 4 KB by itself.
    """
    how = {"consistent": consistent, "transactional": transactional}
    return sum((read_units(size, **how) for size in sizes), start=0.0)


def query_units(sizes: Iterable[int], *, consistent: bool = False) -> float:
    """RCU of one page of a Query that reads items of these sizes.

    The guide, Query: all items count as one read; their sizes are added, then rounded up to the
    next 4 KB. Items that a filter leaves out count as well.
    """
    return read_units(sum(sizes), consistent=consistent)


def _blocks(size: int, block: int) -> int:
    """How many blocks hold so many bytes; one at least."""
    return max(1, -(-size // block))
