"""The rows of a read: every asked feature of every asked key, with its status."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import (
    DamagedItem,
    DamagedValue,
    Feature,
    InvalidValue,
    ReadFailed,
    Report,
    RequestTimeout,
    Row,
    Rows,
    Status,
    UnknownFeature,
)
from chalk_online_store.codec.layout import LATEST, TableLayout
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.operations.rows import Answer, ColumnSource, ColumnSources

NOW = 1_000_000
LATE = RequestTimeout("The table did not answer.")
SHAPE = Shape(
    TableLayout(),
    (
        Column("a", Feature("risk", float), "user.risk"),
        Column("b", Feature("email", str | None), "user.email"),
    ),
)
SOURCES = {
    "risk": ColumnSource(0, SHAPE, 0, 100),
    "email": ColumnSource(0, SHAPE, 1, None),
    "unread": ColumnSource(0, None, 0, 0),
    "unregistered": ColumnSource(0, None, 0, None),
}


def item(observed_at: int, **attributes: dict[str, Any]) -> Any:
    """A decoded item of the shape."""
    keys = {"pk": {"S": "a:1"}, "sk": {"S": "a"}, LATEST: {"N": str(observed_at)}}
    return SHAPE.decode_items([json.dumps(keys | attributes).encode()])[0]


def rows_of(found: list[Any], positions: list[int] | None = None, **sources: ColumnSource) -> Rows:
    """Rows over what was found of distinct keys; `positions` says which of them was asked when."""
    asked = list(range(len(found))) if positions is None else positions
    keys = [f"key {position}" for position in asked]
    failed = sum(isinstance(row, RequestTimeout) for row in found)
    made = ColumnSources(sources or SOURCES, namespace="user")
    return Rows(keys, made, asked, [found], NOW, Report(failed=failed))


GOOD = item(NOW - 50, a={"N": "0.5"}, b={"S": "a@b.c"})
EMPTY = item(NOW)
NULLED = item(NOW, a={"N": "1"}, b={"NULL": True})
AGED = item(NOW - 101, a={"N": "0.5"}, b={"S": "old"})

CASES: list[tuple[Any, str, Answer]] = [
    (GOOD, "risk", Answer(Status.HIT, 0.5, NOW - 50)),
    (GOOD, "email", Answer(Status.HIT, "a@b.c", NOW - 50)),
    (NULLED, "email", Answer(Status.NULL, None, NOW)),
    (EMPTY, "risk", Answer(Status.MISSING)),
    (None, "risk", Answer(Status.MISSING)),
    (AGED, "risk", Answer(Status.STALE, None, NOW - 101)),
    (AGED, "email", Answer(Status.HIT, "old", NOW - 101)),
    (LATE, "risk", Answer(Status.FAILED)),
    (GOOD, "unread", Answer(Status.STALE)),
    (LATE, "unread", Answer(Status.STALE)),
    (GOOD, "unregistered", Answer(Status.MISSING)),
    (LATE, "unregistered", Answer(Status.MISSING)),
]


@pytest.mark.parametrize(("found", "name", "expected"), CASES)
def test_each_feature_has_a_status(found: Any, name: str, expected: Answer) -> None:
    """What was found of an item decides status, value and observed-at of each feature."""
    rows = rows_of([found])
    assert rows.answer(0, name) == expected
    assert rows[0].status(name) is expected.status
    assert rows.statuses(name) == [expected.status]


@pytest.mark.parametrize(("found", "name", "expected"), CASES)
def test_get_never_raises(found: Any, name: str, expected: Answer) -> None:
    """`get` gives a value or the default, whatever the reason that there is no value."""
    row = rows_of([found])[0]
    assert row.get(name, "default") == (expected.value or "default")
    assert row.get(name) == expected.value


@pytest.mark.parametrize(
    ("age", "status"), [(100, Status.HIT), (101, Status.STALE), (0, Status.HIT), (-9, Status.HIT)]
)
def test_a_value_is_stale_when_older_than_allowed(age: int, status: Status) -> None:
    """A value of exactly the max staleness is still served; so is one from a clock ahead."""
    assert rows_of([item(NOW - age, a={"N": "1"})]).statuses("risk") == [status]


def test_a_stale_null_is_stale() -> None:
    """A null ages as every other value does."""
    found = item(NOW - 101, b={"NULL": True})
    rows = rows_of([found], email=ColumnSource(0, SHAPE, 1, 100))
    assert rows.statuses("email") == [Status.STALE]


def test_rows_keep_order_and_duplicates() -> None:
    """There is a row for each asked key, in the order asked, however often a key was named."""
    other = item(NOW, a={"N": "2"})
    rows = rows_of([GOOD, other, None], positions=[1, 0, 1, 2, 0])
    assert [row.key for row in rows] == ["key 1", "key 0", "key 1", "key 2", "key 0"]
    assert [row["risk"] for row in rows] == rows.column("risk") == [2.0, 0.5, 2.0, None, 0.5]
    assert len(rows) == len(list(rows)) == 5


def test_rows_are_a_sequence() -> None:
    """Indexes count from both ends, slices and reversal give rows, and there is no row beyond."""
    rows = rows_of([GOOD, item(NOW, a={"N": "2"}), None])
    assert (rows[0].key, rows[-1].key, rows[-3].key) == ("key 0", "key 2", "key 0")
    assert [row.key for row in rows[1:]] == ["key 1", "key 2"]
    assert [row.key for row in rows[::-2]] == ["key 2", "key 0"]
    assert [row.key for row in reversed(rows)] == ["key 2", "key 1", "key 0"]
    assert all(isinstance(row, Row) for row in rows[:2])
    for index in (3, -4):
        with pytest.raises(IndexError):
            rows[index]


def test_no_keys_give_no_rows() -> None:
    """A read of no keys has no rows, but its columns all the same."""
    rows = rows_of([])
    assert (list(rows), rows.to_dict()) == ([], {name: [] for name in SOURCES})


@pytest.mark.parametrize("positions", [[0, 1, 2, 3, 4], [0, 1, 2, 1, 3, 4, 4, 0]])
@pytest.mark.parametrize("name", ["risk", "email", "unread", "unregistered"])
def test_a_column_says_what_its_rows_say(name: str, positions: list[int]) -> None:
    """A column's values are those of its rows one by one: nulls, gaps and stale values too."""
    rows = rows_of([GOOD, NULLED, EMPTY, None, AGED], positions)
    assert rows.column(name) == [row[name] for row in rows]


@pytest.mark.parametrize("name", ["risk", "email", "unread", "unregistered"])
@pytest.mark.parametrize(
    "found",
    [[], [GOOD], [GOOD, NULLED], [GOOD, NULLED, AGED], [GOOD, EMPTY], [GOOD, None], [GOOD, LATE]],
    ids=["none", "whole", "whole with a null", "stale", "empty", "absent", "failed"],
)
def test_statuses_say_what_answers_say(found: list[Any], name: str) -> None:
    """A column's statuses are those of its rows one by one, also where all rows are whole."""
    for positions in ([*range(len(found))], [*range(len(found)), *range(len(found))]):
        rows = rows_of(found, positions)
        one_by_one = [rows.answer(index, name).status for index in range(len(rows))]
        assert rows.statuses(name) == one_by_one


@pytest.mark.parametrize("positions", [[0, 1, 2], [2, 0, 0, 1, 1]])
def test_a_column_names_the_position_that_failed(positions: list[int]) -> None:
    """A column with a failure raises for the first asked position that failed."""
    rows = rows_of([GOOD, LATE, None], positions)
    with pytest.raises(ReadFailed, match=f"position {positions.index(1)} .* did not answer"):
        rows.column("risk")


def test_a_failed_value_raises() -> None:
    """Asking for a value that could not be read raises, and says where and why."""
    rows = rows_of([GOOD, LATE])
    asks: list[Callable[[], Any]] = [lambda: rows[1]["risk"], lambda: rows.value(1, "risk")]
    for ask in asks:
        with pytest.raises(ReadFailed, match=r"'risk' .* position 1 .* did not answer") as caught:
            ask()
        assert caught.value.__cause__ is LATE
        assert "key 1" not in str(caught.value)


def test_a_failure_is_never_silent() -> None:
    """Whole columns and rows raise where one value failed; other features are not touched."""
    rows = rows_of([GOOD, LATE])
    for ask in (lambda: rows.column("risk"), rows.to_dict, rows[1].to_dict):
        with pytest.raises(ReadFailed):
            ask()
    assert rows[0].to_dict() == {
        "risk": 0.5,
        "email": "a@b.c",
        "unread": None,
        "unregistered": None,
    }
    assert rows.column("unread") == [None, None]
    assert rows.statuses("risk") == [Status.HIT, Status.FAILED]


def test_a_feature_that_was_not_asked_for() -> None:
    """A name outside the read raises `UnknownFeature` from every method, even in a failed row."""
    rows = rows_of([LATE], risk=SOURCES["risk"])
    row = rows[0]
    for ask in (row.__getitem__, row.get, row.status, row.observed_at, rows.column, rows.statuses):
        with pytest.raises(UnknownFeature, match="'email' was not asked for"):
            ask("email")


def test_features_come_from_their_groups() -> None:
    """Each feature is read from the item of its own group, and fails with that item alone."""
    sources = {"risk": ColumnSource(0, SHAPE, 0, None), "email": ColumnSource(1, SHAPE, 1, None)}
    rows = Rows([1], ColumnSources(sources), [0], [[LATE], [GOOD]], NOW, Report(failed=1))
    assert rows.column("email") == ["a@b.c"]
    assert (rows[0].status("risk"), rows[0]["email"]) == (Status.FAILED, "a@b.c")


def test_observed_at_is_a_moment_in_utc() -> None:
    """Where the time of a value is known it is a datetime in UTC, of stale values too."""
    rows = rows_of([GOOD, AGED, None, LATE])
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [row.observed_at("risk") for row in rows]
    assert times[:2] == [epoch + timedelta(microseconds=NOW - age) for age in (50, 101)]
    assert times[2:] == [None, None]


def test_columns_by_name() -> None:
    """`to_dict` has a column for each asked feature, in the order asked."""
    rows = rows_of([GOOD, None], email=SOURCES["email"], risk=SOURCES["risk"])
    assert list(rows.to_dict().items()) == [("email", ["a@b.c", None]), ("risk", [0.5, None])]
    assert rows.features == ("email", "risk")


def test_a_damaged_value_is_failed() -> None:
    """A damaged value raises when it is asked for, with its position, and is failed else."""
    rows = rows_of([GOOD, item(NOW, a={"N": "1"}, b={"N": "1"}), GOOD], [2, 1, 0, 1])
    for ask in (rows[1].__getitem__, rows.column, lambda name: rows.to_dict()):
        with pytest.raises(DamagedValue, match=r"position 1 .*user\.email \(id 'b'\)") as caught:
            ask("email")
        assert isinstance(caught.value, ReadFailed)
        assert type(caught.value.__cause__) is DamagedItem
    assert rows.statuses("email") == [Status.HIT, Status.FAILED, Status.HIT, Status.FAILED]
    assert (rows[1].get("email", "?"), rows[1]["risk"], rows[0]["email"]) == ("?", 1.0, "a@b.c")
    assert rows.column("email", skip_failed=True) == ["a@b.c", None, "a@b.c", None]


def test_a_damaged_value_that_is_stale_is_stale() -> None:
    """A value too old to be served is not decoded, by itself and in a column alike."""
    rows = rows_of([item(NOW - 101, a={"S": "x"}), GOOD])
    assert rows.statuses("risk") == [Status.STALE, Status.HIT]
    assert rows.column("risk") == [None, 0.5]


def test_failed_values_can_be_skipped() -> None:
    """With `skip_failed` every form has None, or what stands for it, in place of a failure."""
    rows = rows_of([GOOD, LATE, item(NOW, a={"S": "x"}, b={"S": "b"})], risk=SOURCES["risk"])
    assert rows.column("risk", skip_failed=True) == [0.5, None, None]
    assert rows.to_dict(skip_failed=True) == {"risk": [0.5, None, None]}
    assert rows.to_pylist(skip_failed=True) == [{"risk": 0.5}, {"risk": None}, {"risk": None}]
    assert rows.to_numpy("risk", -1, skip_failed=True).tolist() == [0.5, -1, -1]
    table = rows.to_arrow(statuses=True, observed_at=True, skip_failed=True).to_pydict()
    assert table["risk"] == [0.5, None, None]
    assert table["risk.status"] == ["hit", "failed", "failed"]
    assert [time is None for time in table["risk.observed_at"]] == [False, True, False]
    for ask in (rows.to_dict, rows.to_pylist, rows.to_arrow, lambda: rows.to_numpy("risk")):
        with pytest.raises(ReadFailed, match="position 1"):
            ask()


def test_how_rows_print() -> None:
    """Rows print keys and statuses, never a value."""
    rows = rows_of([GOOD, LATE], risk=SOURCES["risk"], email=SOURCES["email"])
    assert repr(rows).splitlines() == [
        "<Rows of 'user': 2 keys, 2 features",
        "  'key 0': risk hit, email hit",
        "  'key 1': risk failed, email failed>",
    ]
    assert repr(rows[0]) == "<Row 'key 0': risk hit, email hit>"
    many = rows_of([GOOD] * 12, None, **{f"f{i}": SOURCES["risk"] for i in range(22)})
    assert repr(many).endswith("\n  and 2 more>")
    assert repr(many[0]).endswith(", f19 hit, and 2 more>")


def test_a_row_is_a_mapping() -> None:
    """A row has the features for keys: of a dictionary, a loop, `in`, `len` and unpacking."""
    rows = rows_of([GOOD, LATE], risk=SOURCES["risk"], email=SOURCES["email"])
    row = rows[0]
    expected = {"risk": 0.5, "email": "a@b.c"}
    assert dict(row) == {**row} == row.to_dict() == expected == row
    assert (list(row), len(row)) == (["risk", "email"], 2)
    assert (list(row.keys()), list(row.items())) == (["risk", "email"], [*expected.items()])
    assert list(row.values()) == [0.5, "a@b.c"]
    asked: list[Any] = ["risk", "user.risk", "unread", 0]
    assert [name in row for name in asked] == [True, True, False, False]
    assert "risk" in rows[1]
    with pytest.raises(ReadFailed):
        dict(rows[1])


def test_a_name_in_brackets_is_a_column() -> None:
    """`rows[name]` is the column, `rows[position]` the row, and anything else an error."""
    rows = rows_of([GOOD, None], risk=SOURCES["risk"])
    assert rows["risk"] == rows["user.risk"] == [0.5, None]
    assert [row["risk"] for row in rows[0:1]] == [0.5]
    assert rows[-1].key == "key 1"
    with pytest.raises(UnknownFeature, match="'rsik' was not asked for"):
        rows["rsik"]
    with pytest.raises(IndexError):
        rows[2]


def test_dictionaries_with_the_key() -> None:
    """`to_pylist(with_key=True)` begins each dictionary with the primary key."""
    rows = rows_of([GOOD, None], risk=SOURCES["risk"])
    assert rows.to_pylist(with_key=True) == [
        {"id": "key 0", "risk": 0.5},
        {"id": "key 1", "risk": None},
    ]


def test_a_notebook_shows_a_table() -> None:
    """The table for notebooks has values, or statuses in their place, and no markup of theirs."""
    marked = item(NOW, a={"N": "1"}, b={"S": "<b>&"})
    rows = rows_of([marked, None, LATE], email=SOURCES["email"])
    html = rows._repr_html_()
    assert "<th>key 0</th><td>&lt;b&gt;&amp;</td>" in html
    assert "<th>key 1</th><td><i>missing</i></td>" in html
    assert "<th>key 2</th><td><i>failed</i></td>" in html
    assert "and 5 more rows" in rows_of([GOOD] * 25)._repr_html_()


def test_pickled_rows_have_statuses_failures_and_times() -> None:
    """Rows that were pickled have the same statuses, times, values and errors; so has one row."""
    damaged = item(NOW, a={"S": "x"}, b={"S": "b"})
    rows = rows_of([GOOD, None, LATE, AGED, damaged, NULLED], [5, 4, 3, 2, 1, 0, 0])
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy.keys, copy.features, copy.report) == (rows.keys, rows.features, rows.report)
    for name in rows.features:
        assert copy.statuses(name) == rows.statuses(name)
        assert copy.times(name, skip_failed=True) == rows.times(name, skip_failed=True)
        assert copy.column(name, skip_failed=True) == rows.column(name, skip_failed=True)
    with pytest.raises(DamagedValue, match=r"position 1 .*user\.risk"):
        copy.value(1, "risk")
    row = pickle.loads(pickle.dumps(rows[6]))
    assert (row.key, row["risk"], row.status("unread")) == ("key 0", 0.5, "stale")
    assert len(pickle.dumps(rows_of([GOOD] * 1000)[0])) < 5_000


def test_a_default_does_not_hide_a_failure() -> None:
    """A failed value raises, or is None if it is skipped, although its feature has a default."""
    column = Column("a", Feature("risk", float, default=0.25), "user.risk")
    made = ColumnSources({"risk": SOURCES["risk"]}, namespace="user")
    made.add_default("risk", column)
    damaged = item(NOW, a={"S": "x"})
    rows = Rows([1, 2, 3, 4], made, None, [[GOOD, None, LATE, damaged]], NOW, Report(failed=2))
    assert rows.column("risk", skip_failed=True) == [0.5, 0.25, None, None]
    assert rows.statuses("risk") == ["hit", "missing", "failed", "failed"]
    assert [rows[0]["risk"], rows[1]["risk"], rows[2].get("risk", 9)] == [0.5, 0.25, 9]
    for ask in (rows[2].__getitem__, rows[3].__getitem__, rows.column):
        with pytest.raises(ReadFailed):
            ask("risk")


def test_a_default_must_be_a_value_of_its_feature() -> None:
    """A default that its feature cannot hold is refused when it is to be served."""
    made = ColumnSources({"risk": SOURCES["risk"]}, namespace="user")
    with pytest.raises(InvalidValue, match=r"user\.risk is float, not str"):
        made.add_default("risk", Column("a", Feature("risk", float, default="x"), "user.risk"))


def test_failures_can_be_raised_at_once() -> None:
    """`raise_failed` raises the first failure of a feature that was asked for, if there is one."""
    rows = rows_of([GOOD, LATE], risk=SOURCES["risk"])
    with pytest.raises(ReadFailed, match="'risk' of the key at position 1"):
        rows.raise_failed()
    rows_of([GOOD, None]).raise_failed()
    unasked = rows_of([GOOD, item(NOW, a={"N": "1"}, b={"N": "1"})], risk=SOURCES["risk"])
    unasked.report.failed = 1
    unasked.raise_failed()
