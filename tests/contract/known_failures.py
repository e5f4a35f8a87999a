"""Tests of the contract that an engine of DynamoDB's fails, and why.

Each of them has to fail: one that passes has to be taken off this list.
"""

from __future__ import annotations

import pytest

# moto runs with stores of both kinds, and as `mock_aws`, only in `make test-all`: see `selection`.
MOTO = ["sync-moto", "async-moto", "sync-mock_aws", "async-mock_aws"]

MANY = "An update of hundreds of attributes takes moto minutes; ministack refuses it with HTTP 500."
ON_MANY = [
    *(
        f"test_a_delete_in_several_requests_is_reported_as_one[{engine}-{count}]"
        for engine in ("sync-ministack", *MOTO)
        for count in (10, 240)
    ),
    *(f"test_many_features_in_one_group[{engine}]" for engine in ("sync-ministack", *MOTO)),
]

CAPACITY = "ministack does not limit a response to 16 MB, so it leaves no keys unprocessed."
ON_CAPACITY = ["test_a_hundred_large_items_lose_none[sync-ministack]"]

ISOLATION = "Transactions at the same time are not isolated from each other there."
ON_ISOLATION = [
    f"test_many_stores_register_at_once[{engine}]" for engine in ("sync-ministack", *MOTO)
]

CONNECTIONS = "The mock answers within the process, so no connections are opened."
ON_CONNECTIONS = [
    f"test_a_warm_store_needs_no_registry[{kind}-mock_aws]" for kind in ("sync", "async")
]

_REASONS = {
    name: reason
    for reason, names in (
        (MANY, ON_MANY),
        (CAPACITY, ON_CAPACITY),
        (ISOLATION, ON_ISOLATION),
        (CONNECTIONS, ON_CONNECTIONS),
    )
    for name in names
}
_NOT_RUN = (MANY, ISOLATION)
"""Reasons whose tests take long, or fail only now and then."""


def mark_known_failure(item: pytest.Item) -> None:
    """Expect a test to fail if it is on the list."""
    if item.name in _REASONS:
        reason = _REASONS[item.name]
        item.add_marker(pytest.mark.xfail(reason=reason, strict=True, run=reason not in _NOT_RUN))
