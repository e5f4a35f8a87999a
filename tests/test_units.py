"""Capacity units by AWS's rules. The examples are those of the developer guide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.planning.units import (
    batch_read_units,
    batch_write_units,
    query_units,
    read_units,
    write_units,
)

sizes = st.integers(1, 400 * 1024)


@pytest.mark.parametrize(
    ("size", "units"), [(0, 1), (1, 1), (500, 1), (1024, 1), (1025, 2), (1536, 2), (409600, 400)]
)
def test_a_write_costs_a_unit_a_kilobyte(size: int, units: int) -> None:
    """A KB is 1,024 bytes, a begun one counts, and nothing is free."""
    assert write_units(size) == units


@pytest.mark.parametrize(
    ("size", "units"), [(0, 0.5), (3584, 0.5), (4096, 0.5), (4097, 1), (8192, 1), (409600, 50)]
)
def test_a_read_costs_half_a_unit_for_four_kilobytes(size: int, units: float) -> None:
    """Half a unit for each 4 KB begun; twice as much consistent, four times in a transaction."""
    assert read_units(size) == units
    assert read_units(size, consistent=True) == 2 * units
    assert read_units(size, transactional=True) == 4 * units


@given(sizes, sizes)
def test_an_update_costs_the_larger_of_before_and_after(before: int, after: int) -> None:
    """To shrink an item costs what it was, to let it grow what it becomes."""
    assert write_units(after, before) == max(write_units(before), write_units(after))


@given(sizes)
def test_a_delete_costs_what_it_deletes(size: int) -> None:
    """A delete writes nothing, and is paid by the item that was there."""
    assert write_units(0, size) == write_units(size)


@given(sizes, sizes)
def test_a_transaction_costs_twice(before: int, after: int) -> None:
    """Every write of a transaction is done twice: prepared and committed."""
    assert write_units(after, before, transactional=True) == 2 * write_units(after, before)


def test_a_batch_rounds_each_item_up_and_a_query_their_sum() -> None:
    """Ten items of 400 bytes are one read of 4 KB for a Query, and ten for a BatchGetItem."""
    ten = [400] * 10
    assert (batch_read_units(ten), batch_read_units(ten, consistent=True)) == (5, 10)
    assert batch_read_units(ten, transactional=True) == 20
    assert (query_units(ten), query_units(ten, consistent=True)) == (0.5, 1)
    assert batch_write_units(ten) == 10


def test_finding_nothing_costs_as_well() -> None:
    """A missing item and an empty partition cost the least read, an empty batch is not sent."""
    assert (read_units(0), query_units([]), batch_read_units([0, 0])) == (0.5, 0.5, 1)
    assert (batch_read_units([]), batch_write_units([])) == (0, 0)
