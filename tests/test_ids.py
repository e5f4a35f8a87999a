"""Short ids: the shortest that are free, in an order that never changes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.codec.layout import ALPHABET, all_ids, free_ids

first_ids = st.sets(st.sampled_from(list(itertools.islice(all_ids(), 200))))


def test_the_order_of_ids() -> None:
    """Lower case, upper case, digits; then two letters: part of the stored form."""
    found = list(itertools.islice(all_ids(), 62 + 62 * 62 + 1))
    assert found[:2] == ["a", "b"]
    assert found[25:27] == ["z", "A"]
    assert found[51:53] == ["Z", "0"]
    assert found[61:64] == ["9", "aa", "ab"]
    assert found[-2:] == ["99", "aaa"]


def test_no_id_comes_twice() -> None:
    """The first thousands of ids are all different, and made of letters and digits alone."""
    found = list(itertools.islice(all_ids(), 5000))
    assert len(set(found)) == len(found)
    assert set("".join(found)) == set(ALPHABET)
    assert "".join(sorted(ALPHABET)).isalnum()


@given(first_ids)
def test_the_shortest_free_ids_come_first(taken: set[str]) -> None:
    """What is taken is skipped, and nothing else."""
    found = list(itertools.islice(free_ids(taken), 100))
    expected = [name for name in itertools.islice(all_ids(), 300) if name not in taken]
    assert found == expected[:100]
