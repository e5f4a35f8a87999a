"""Tests of the contract that an engine of DynamoDB's fails, and why.

Each of them has to fail: one that passes has to be taken off this list.
"""

from __future__ import annotations

import pytest

NESTED = "A partial write nests if_not_exists in if_not_exists, which moto does not parse."
ON_NESTED = [
    "test_a_cached_item_is_not_read_as_another_schema_has_it[sync-moto]",
    "test_a_delete_is_a_write_in_time[sync-moto]",
    "test_a_dropped_name_is_free_for_another_type[sync-moto]",
    "test_a_feature_can_be_added[sync-moto]",
    "test_a_late_delete_spares_what_is_newer[sync-moto]",
    "test_a_new_feature_can_be_filled_in_with_the_past[sync-moto]",
    "test_a_prepared_read_is_a_read[sync-moto]",
    "test_a_read_without_time_fails_and_says_so[sync-moto]",
    "test_a_reader_notices_what_another_process_registers[sync-moto]",
    "test_a_strong_read_is_asked_for[sync-moto]",
    "test_a_warm_store_needs_no_registry[sync-moto]",
    "test_a_whole_write_after_partial_ones_costs_no_own_times[sync-moto]",
    "test_a_whole_write_clears_away_what_was_dropped[sync-moto]",
    "test_absent_null_and_value_are_three_things[sync-moto]",
    "test_an_item_too_large_for_an_update_is_named[sync-moto]",
    "test_an_older_process_does_not_move_the_time_of_a_feature_registered_anew[sync-moto]",
    "test_an_older_process_writes_on_after_a_drop[sync-moto]",
    "test_arrival_replaces_whatever_is_there[sync-moto]",
    "test_deleting_what_never_was_holds_against_older_writes[sync-moto]",
    "test_groups_of_few_entities_read_alike_however_they_are_read[sync-moto]",
    "test_max_staleness_can_be_overridden_for_a_read[sync-moto]",
    "test_many_features_in_one_group[sync-moto]",
    "test_no_key_without_items[sync-moto]",
    "test_observed_at_is_what_was_written[sync-moto]",
    "test_of_equal_times_the_last_to_arrive_wins[sync-moto]",
    "test_one_feature_can_be_deleted[sync-moto]",
    "test_one_key_twice_in_one_write[sync-moto]",
    "test_one_row_can_be_newer_in_part[sync-moto]",
    "test_own_writes_are_never_hidden_by_the_cache[sync-moto]",
    "test_parts_that_are_there_already_are_not_written[sync-moto]",
    "test_rows_have_the_order_and_the_duplicates_of_the_keys[sync-moto]",
    "test_staleness_is_each_features_own[sync-moto]",
    "test_the_registry_is_gap_free[sync-moto]",
    "test_whole_writes_after_a_drop_take_one_request[sync-moto-True]",
]

COMPARED = "ministack compares and sets values by other bytes than were sent."
ON_COMPARED = [
    "test_a_feature_can_be_added[sync-ministack]",
    "test_a_new_feature_can_be_filled_in_with_the_past[sync-ministack]",
    "test_a_whole_write_after_partial_ones_costs_no_own_times[sync-ministack]",
    "test_a_whole_write_clears_away_what_was_dropped[sync-ministack]",
    "test_an_older_process_does_not_move_the_time_of_a_feature_registered_anew[sync-ministack]",
    "test_an_older_process_writes_on_after_a_drop[sync-ministack]",
    "test_many_features_in_one_group[sync-ministack]",
    "test_whole_writes_after_a_drop_take_one_request[sync-ministack-True]",
]

CAPACITY = "The engine's capacity figures and limits of a response are not those of DynamoDB."
ON_CAPACITY = [
    "test_a_hundred_large_items_lose_none[sync-ministack]",
    "test_an_erasure_is_not_made_twice[sync-ministack]",
    "test_an_erasure_is_not_made_twice[sync-moto]",
    "test_parts_that_are_there_already_are_not_written[sync-ministack]",
]

NOT_RUN = "Fails as others do, or by transactions that are not isolated, or by how slow moto is."
ON_NOT_RUN = [
    "test_any_row_of_any_schema_comes_back_exactly[moto]",
    "test_event_time_wins_whatever_order_writes_arrive_in[sync-ministack]",
    "test_event_time_wins_whatever_order_writes_arrive_in[sync-moto]",
    "test_many_stores_register_at_once[sync-ministack]",
    "test_a_filter_of_many_entities_and_several_chunks[sync-moto]",
    "test_many_stores_register_at_once[sync-moto]",
]

_REASONS = {
    name: reason
    for reason, names in (
        (NESTED, ON_NESTED),
        (COMPARED, ON_COMPARED),
        (CAPACITY, ON_CAPACITY),
        (NOT_RUN, ON_NOT_RUN),
    )
    for name in names
}


def mark_known_failure(item: pytest.Item) -> None:
    """Expect a test to fail if it is on the list."""
    if item.name in _REASONS:
        reason = _REASONS[item.name]
        item.add_marker(pytest.mark.xfail(reason=reason, strict=True, run=reason is not NOT_RUN))
