"""Two changes of one item as one, or as less, before any of them is sent.

What remains does to an item what both would have done one after the other: `changes.merge` is
the truth of that, and the tests hold this module to it.
"""

from __future__ import annotations

from chalk_online_store.codec.changes import Change


def subtract_newer(older: Change, newer: Change) -> Change | None:
    """What is left to say of a change once one that is as new or newer is said; None for nothing.

    A whole change is left whole, for it also says that it is: only all of it can be left out.
    """
    if newer.erases:
        return None
    if older.erases:  # It also speaks of features that neither of them knows.
        return older
    spoken = {*newer.form.kept, *newer.form.gone}
    values = older.values
    if values.keys() <= spoken and (newer.form.whole or not older.form.whole):
        return None
    if older.form.whole or values.keys().isdisjoint(spoken):
        return older
    return older.partial({name: value for name, value in values.items() if name not in spoken})


def merge_changes(earlier: Change, later: Change) -> Change | None:
    """Two changes of one observed-at as one, of which the later to arrive wins; None if two."""
    if earlier.erases or later.form.whole:  # A later whole one leaves nothing of the earlier.
        return None
    values = {**earlier.values, **later.values}
    whole = earlier.form.whole
    if whole and (None in values.values() or len(values) > len(earlier.form.kept)):
        return None
    form = earlier.form
    width = max(form.width, later.form.width)
    expires_at = later.expires_at
    return Change.of(
        earlier.key, earlier.observed_at, values, whole, width, expires_at, form.dropped
    )
