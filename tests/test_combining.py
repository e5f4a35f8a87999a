"""Two changes of one item as less: what remains does what both would have done."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    merge_changes,
    number,
    subtract_newer,
)
from tests.helpers import stress
from tests.test_changes import NEW, OLD, after, erase, part, seen, whole

thorough = settings(max_examples=stress(60))

TIMES = st.integers(1, 4)
VALUES = st.integers(0, 9)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """A whole write by the schema of today or of yesterday, a partial one, or an erasure."""
    time, kind = draw(TIMES), draw(st.sampled_from(["whole", "old", "part", "part", "erase"]))
    if kind == "erase":
        return erase(time)
    if kind == "part":
        names = draw(st.lists(st.sampled_from(NEW), min_size=1, unique=True))
        return part(time, **{name: draw(st.none() | VALUES) for name in names})
    group = NEW if kind == "whole" else OLD
    return whole(time, group, **{name: draw(VALUES) for name in group})


def items() -> SearchStrategy[Attributes | None]:
    """Items as some changes have left them; None for none."""
    return st.lists(changes(), max_size=3).map(lambda found: after(found) if found else None)


@given(items(), changes(), changes(), changes())
@thorough
def test_what_is_left_and_the_newer_do_what_both_do(
    item: Attributes | None, one: Change, other: Change, next_one: Change
) -> None:
    """To leave out of the older change what the newer one says makes no difference, ever after."""
    older, newer = sorted((one, other), key=lambda change: change.observed_at)
    left = subtract_newer(older, newer)
    fewer = [change for change in (left, newer) if change is not None]
    assert seen(after([*fewer, next_one], item)) == seen(after([older, newer, next_one], item))
    assert seen(after(fewer, item)) == seen(after([older, newer], item))


@given(items(), changes(), changes(), changes())
@thorough
def test_two_changes_of_one_time_are_one(
    item: Attributes | None, one: Change, other: Change, next_one: Change
) -> None:
    """What two changes of one observed-at are joined to does what they do, one after the other."""
    later = Change(other.key, one.observed_at, other.form, other.attributes, other.expires_at)
    both = merge_changes(one, later)
    if both is not None:
        assert seen(after([both, next_one], item)) == seen(after([one, later, next_one], item))


def test_a_newer_whole_write_leaves_nothing_of_an_older_one() -> None:
    """The common case, an entity that is written again, needs one request."""
    older = whole(1, a=1, b=2, c=3, d=4)
    assert subtract_newer(older, whole(2, a=5, b=6, c=7, d=8)) is None
    assert subtract_newer(older, erase(2)) is None
    assert subtract_newer(part(1, a=1), part(2, a=5)) is None


def test_what_the_newer_does_not_speak_of_is_left() -> None:
    """Partial writes of different features are both kept, less what is said again."""
    left = subtract_newer(part(1, a=1, b=2), part(2, b=5))
    assert left is not None
    assert left.values == {"a": number(1)}
    assert left.observed_at == 1
    untouched = part(1, a=1)
    assert subtract_newer(untouched, part(2, b=5)) is untouched


def test_an_erasure_is_left_before_a_write() -> None:
    """It also removed features that the write, by an older schema, does not know of."""
    older = erase(1)
    assert subtract_newer(older, whole(2, OLD, a=1, b=2)) is older


def test_parts_of_one_moment_are_joined() -> None:
    """Features that were handed over apart but observed together take one request."""
    both = merge_changes(part(1, a=1), part(1, b=2, a=3))
    assert both is not None
    assert both.values == {"a": number(3), "b": number(2)}
