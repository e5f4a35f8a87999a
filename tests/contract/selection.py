"""The tests of the contract that are repeated on moto, whose requests take 5 to 50 ms of CPU.

The whole contract runs on moto server with the store for threads. An operation is written once for
both stores, and moto server and `mock_aws` are one engine, so a full repetition would prove little
for minutes of CPU. Drivers and transports can differ in how they carry a kind of request. So the
repetition has a test for each kind of request and each form of response that the library uses.
`make test-all` repeats the whole contract.
"""

from __future__ import annotations

from tests.helpers import STRESS

ENGINE_DEPENDENT = {
    "test_rows_have_the_order_and_the_duplicates_of_the_keys": "BatchGetItem",
    "test_any_number_of_keys_is_read": "GetItem, and several BatchGetItems at once",
    "test_groups_of_few_entities_read_alike_however_they_are_read": "Query",
    "test_a_strong_read_is_asked_for": "ConsistentRead",
    "test_a_late_older_value_never_overwrites_a_newer_one": "a refused condition returns the item",
    "test_one_row_can_be_newer_in_part": "nested if_not_exists, which moto refuses; merged update",
    "test_arrival_replaces_whatever_is_there": "BatchWriteItem",
    "test_a_late_delete_spares_what_is_newer": "UpdateItem with REMOVE, tombstones",
    "test_deleting_what_never_was_holds_against_older_writes": "an update that creates an item",
    "test_an_item_too_large_for_an_update_is_named": "ValidationException for the size of an item",
    "test_a_renamed_feature_keeps_its_values": "TransactWriteItems",
    "test_a_transaction_is_all_or_nothing": "TransactionCanceledException",
    "test_absent_entities_cost_nothing": "Query of a whole partition, binary values",
    "test_sets_that_engines_could_refuse": "sets",
    "test_fields_may_be_removed": "maps",
}
"""Names of tests, and the request or response that each one covers."""

REPEATED = {("moto", "async"), ("mock_aws", "sync"), ("mock_aws", "async"), ("mock_aws", None)}
LEFT_OUT = {("ministack", "async")}
WITHOUT_VECTOR_INDEXES = ("moto", "mock_aws")
"""Engines that refuse the API of vector indexes: `test_search.py` is not for them."""
SEARCHED_BY_ONE_STORE = ("shared_cache", "redis_server", "valkey_cluster")
"""Engines that search as another one does: `test_search.py` is not repeated by tasks there."""


def is_search_left_out(engine: object, kind: object) -> bool:
    """Return True if the tests of searches do not run for an engine and a kind of store."""
    if engine in WITHOUT_VECTOR_INDEXES:
        return True
    return STRESS <= 1 and kind == "async" and engine in SEARCHED_BY_ONE_STORE


def is_left_out(test: str, engine: object, kind: object) -> bool:
    """Return True if a test does not run for an engine and a kind of store (None for neither)."""
    if (engine, kind) in LEFT_OUT:
        return True
    is_repeated = (engine, kind) in REPEATED
    return is_repeated and STRESS <= 1 and test not in ENGINE_DEPENDENT
