"""Ids of a damaged registry: one that two names have, or that was never allocated, is refused."""

from __future__ import annotations

import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.registry import ACTIVE, ALIAS, RETIRED, Entry, Registry, read_entry
from chalk_online_store.errors import RegistryError

LAYOUT = TableLayout()
THING = Namespace("t", int, [Feature("x", int)])
SOUND = (
    Entry("t", "a", "int"),
    Entry("t/default", "a", "group"),
    Entry("t.x", "a", "int", "default"),
)


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        (Entry("u", "a", "int"), True),
        (Entry("t/other", "a", "group"), True),
        (Entry("t.w", "a", "str", "default"), True),
        (Entry("t.w", "b", "str", "default", ACTIVE), False),
        (Entry("t.old", "a", "int", "default", ALIAS), False),
        (Entry("t.old!a", "a", "int", "default", RETIRED), False),
        (Entry("u.z", "a", "int", "default"), False),
    ],
)
def test_an_id_of_two_names_in_use_is_refused(other: Entry, refused: bool) -> None:
    """A namespace whose ids collide raises `RegistryError`, and names both."""
    registry = Registry((*SOUND, other))
    if not refused:
        assert registry.missing(THING) == []
        return
    with pytest.raises(RegistryError, match="have one id"):
        registry.missing(THING)


@pytest.mark.parametrize("bad", ["", "@", "a:b", "~", "a" * 17, "é"])
def test_an_id_that_was_never_allocated_is_refused(bad: str) -> None:
    """An id of other characters, which would meet the names of the layout, raises."""
    item = Entry("t.x", bad, "int", "default").name_item(LAYOUT)
    with pytest.raises(RegistryError, match="never allocated"):
        read_entry(item)
