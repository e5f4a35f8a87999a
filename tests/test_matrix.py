"""Matrices by the compiled kernel are those that `filled_by_answers` makes, value by value."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    DamagedValue,
    Feature,
    FeatureMatrix,
    InvalidValue,
    Namespace,
    UnknownFeature,
    Vector,
)
from chalk_online_store.codec.changes import render_fresh
from chalk_online_store.codec.compiled import Frame, compiled
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry, entries_of
from chalk_online_store.operations.matrix import MatrixPlan, filled_by_answers, matrix_form
from chalk_online_store.operations.read import plan_read
from chalk_online_store.operations.rows import Rows
from chalk_online_store.report import Report
from tests.helpers import stress

vector: Any = Vector
LAYOUT = TableLayout()
USER = Namespace(
    "user",
    int,
    [
        Feature("real", float | None),
        Feature("whole", int | None, default=-7),
        Feature("flag", bool | None),
        Feature("moment", datetime),
        Feature("day", date),
        Feature("span", timedelta),
        Feature("half", vector[3]),
        Feature("single", vector[2, "f4"] | None),
        Feature("double", vector[1, "f8"]),
        Feature("text", str),
    ],
)
CODEC = NamespaceCodec(
    USER, Registry(tuple(Registry().allocate(entries_of(USER), LAYOUT.reserved))), LAYOUT
)
NAMES = [name for name in USER.by_name if name != "text"]
NOW = 1_767_323_045_000_000
fuzz = settings(max_examples=stress(60), suppress_health_check=list(HealthCheck))

moments = st.datetimes(timezones=st.just(UTC))
spans = st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))
values: dict[str, st.SearchStrategy[Any]] = {
    "real": st.none() | st.floats(),
    "whole": st.none() | st.integers(-(10**20), 10**20) | st.integers(-9, 9),
    "flag": st.none() | st.booleans(),
    "moment": moments,
    "day": st.dates(),
    "span": spans,
    "half": st.lists(st.floats(width=16), min_size=3, max_size=3),
    "single": st.none() | st.lists(st.floats(width=32), min_size=2, max_size=2),
    "double": st.lists(st.floats(), min_size=1, max_size=1),
}
entities = st.lists(
    st.tuples(
        st.none() | st.fixed_dictionaries({}, optional=values), st.sampled_from([0, 10, 10**9])
    ),
    max_size=4,
)


def rows_of(
    found: list[tuple[dict[str, Any] | None, int]],
    as_frame: bool,
    names: list[str] = NAMES,
    defaults: bool = False,
    max_staleness: Any = None,
) -> Rows[Any]:
    """Rows as a read finds them: None for an absent item, else values and their age (us)."""
    plan = plan_read(CODEC, tuple(names), max_staleness or {}, True, defaults)
    ((sk, shape),) = [(group.sk, group.shape) for group in plan.groups]
    items = []
    for key, (row, age) in enumerate(found):
        changes = CODEC.changes({"id": key} | row, NOW - age) if row else []
        items += [render_fresh(LAYOUT, change) for change in changes]
    rows: Any = shape.decode_items(items)
    pks = CODEC.partition_keys(range(len(found)))
    if as_frame and shape.decoder.compiled is not None:
        frame, *_ = shape.decoder.compiled(b'{"Items":[%b]}' % b",".join(items))
        assert frame.place(pks, sk)
        rows = frame
    else:
        by_pk = {row[0]: row for row in rows}
        rows = [by_pk.get(pk) for pk in pks]
    return Rows(list(range(len(found))), plan.sources, None, [rows], NOW, Report())


@fuzz
@given(entities, st.sampled_from(["f4", "f8"]), st.booleans(), st.booleans())
@example([({"real": 1e300, "half": [1, 2, 3]}, 0)], "f4", True, False)
def test_the_kernel_agrees_with_the_answers(
    found: list[tuple[dict[str, Any] | None, int]], dtype: str, as_frame: bool, defaults: bool
) -> None:
    """Numbers and statuses of any values, stale and absent ones too, are the same to the bit."""
    stale = {"real": "1s", "moment": "1s", "single": "5m", "flag": 0}
    rows = rows_of(found, as_frame, defaults=defaults, max_staleness=stale)
    plan, form = rows._sources.matrix_plan(None), matrix_form(dtype, -5)
    expected, statuses = filled_by_answers(rows, plan, form)
    filled = plan.fill(rows._found, len(rows), NOW, form)
    if filled is not None:
        np.testing.assert_array_equal(filled[0], expected)
        np.testing.assert_array_equal(filled[1], statuses)
        assert filled[0].dtype == expected.dtype == dtype
    big = any(row and abs(row.get("whole") or 0) >= 2**63 for row, _ in found)
    nan = any(row and not math.isfinite(row.get("real") or 0.0) for row, _ in found)
    assert (filled is not None) or not compiled or big or nan
    np.testing.assert_array_equal(rows.matrix(dtype=dtype, missing=-5).values, expected)


@pytest.mark.parametrize("as_frame", [True, False])
def test_a_damaged_value(as_frame: bool) -> None:
    """A value that is out of its type's range fails the matrix, or has the status 4."""
    good = {"moment": datetime(2026, 1, 1, tzinfo=UTC), "real": 1.5}
    rows = rows_of([(good, 0), (good, 0)], as_frame)
    column = list(rows._sources).index("moment")
    found: list[Any] = list(rows._found[0])
    place = 4 + rows.source("moment").position
    found[1] = (*found[1][:place], 10**18, *found[1][place + 1 :])
    if as_frame and compiled:
        body = b'{"Items":[{"pk":{"S":"%b"},"sk":{"S":"%b"},"%b":{"N":"1%b"}}]}'
        shape = rows.source("moment").shape
        assert shape is not None
        name = shape.columns[rows.source("moment").position].id
        filled = body % (found[1][0].encode(), found[1][1].encode(), name.encode(), b"0" * 18)
        assert shape.decoder.compiled is not None
        frame, *_ = shape.decoder.compiled(filled)
        assert frame.place([found[0][0], found[1][0]], found[1][1])
        found = frame  # type: ignore[assignment]
    damaged = Rows([0, 1], rows._sources, None, [found], NOW, Report())
    with pytest.raises(DamagedValue, match="position 1"):
        damaged.matrix()
    matrix = damaged.matrix(skip_failed=True, missing=0)
    assert matrix.statuses[1, column] == 4
    assert matrix.values[1, column] == 0


def test_keys_that_repeat() -> None:
    """A key that was asked for twice has the same numbers in both rows."""
    rows = rows_of([({"real": 1.5}, 0), ({"real": 2.5}, 0)], True)
    twice = Rows([1, 0, 1], rows._sources, [1, 0, 1], rows._found, NOW, Report())
    assert twice.matrix(["real"]).values[:, 0].tolist() == [2.5, 1.5, 2.5]
    assert twice.matrix(["real"]).statuses.tolist() == [[0], [0], [0]]


def test_some_features_in_any_order() -> None:
    """Features may be named by any of their names, and come in the order of the names."""
    rows = rows_of([({"real": 1.5, "whole": 2, "double": [3.0]}, 0)], True)
    matrix = rows.matrix(["double", "user.whole", "real"], dtype=np.float64)
    assert matrix.features == ("double", "whole", "real")
    assert matrix.values.tolist() == [[3.0, 2.0, 1.5]]
    assert repr(matrix) == "<FeatureMatrix of 1 keys, 3 features>"
    assert isinstance(matrix, FeatureMatrix)


@pytest.mark.parametrize(
    ("refused", "arguments"),
    [
        (UnknownFeature, {"features": ["other"]}),
        (InvalidValue, {"features": "real"}),
        (InvalidValue, {"features": ["real", "user.real"]}),
        (InvalidValue, {"features": ["text"]}),
        (InvalidValue, {"dtype": "i4"}),
        (InvalidValue, {"dtype": None}),
        (InvalidValue, {"dtype": "nonsense"}),
        (InvalidValue, {"missing": "x"}),
        (InvalidValue, {"missing": True}),
        (InvalidValue, {"missing": 1e300}),
        (InvalidValue, {"missing": 10**400}),
    ],
)
def test_bad_arguments(refused: type[Exception], arguments: dict[str, Any]) -> None:
    """What a matrix cannot hold is refused, naming the feature or argument."""
    rows = rows_of([({"real": 1.5}, 0)], True, names=[*NAMES, "text"])
    with pytest.raises(refused):
        rows.matrix(**({"features": ["real"]} | arguments))


def test_infinite_and_other_placeholders() -> None:
    """Infinities and numbers that the dtype holds may stand in place of absent values."""
    rows = rows_of([(None, 0)], True)
    placeholders: list[Any] = [math.inf, -math.inf, 0, 1e38, np.float32(2)]
    for missing in placeholders:
        assert rows.matrix(["real"], missing=missing).values[0, 0] == np.float32(missing)
    assert rows.matrix(["real"], dtype="f8", missing=1e300).values[0, 0] == 1e300


def test_pickled_rows_give_the_same_matrix() -> None:
    """Rows that were sent to another process give the same numbers there."""
    rows = rows_of([({"real": 1.5, "single": [1, 2]}, 0), (None, 0)], True)
    again = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again.matrix().values, rows.matrix().values)


@pytest.mark.skipif(not compiled, reason="the C extension is not built")
@pytest.mark.parametrize("change", ["short", "other size", "bytes"])
def test_the_kernel_checks_its_matrices(change: str) -> None:
    """Matrices of another shape are refused instead of written beyond their end."""
    rows = rows_of([({"real": 1.5}, 0)] * 3, True)
    plan: MatrixPlan = rows._sources.matrix_plan(["real", "single"])
    ((group, filler),) = plan._fillers
    width = 2 if change == "short" else 3
    numbers = np.zeros((3, width), "f2" if change == "other size" else "f4")
    given: Any = b"x" * 36 if change == "bytes" else numbers
    with pytest.raises((ValueError, TypeError, BufferError)):
        filler.fill(rows._found[group], NOW, given, np.zeros((3, 2), "u1"), 0.0)


BAD: list[Callable[[tuple[Any, ...]], Any]] = [
    lambda feature: feature[:-1],
    list,
    lambda feature: (9, *feature[1:]),
    lambda feature: (*feature[:1], -1, *feature[2:]),
    lambda feature: (*feature[:4], 0, *feature[5:]),
    lambda feature: (*feature[:4], 2, *feature[5:]),
    lambda feature: (*feature[:-1], "x"),
]


@pytest.mark.skipif(not compiled, reason="the C extension is not built")
@pytest.mark.parametrize("bad", range(len(BAD)))
def test_the_kernel_checks_its_features(bad: int) -> None:
    """A feature that no matrix has is refused when a filler is made."""
    from chalk_online_store.codec import _kernels

    good = (0, 0, 0, 0, 1, -1, -5, 5, 1, 1.0, None)
    assert _kernels.Filler((good,)).fill([], 0, np.zeros((0, 1)), np.zeros((0, 1), "u1"), 0.0)
    with pytest.raises((TypeError, ValueError)):
        _kernels.Filler((BAD[bad](good),))


def test_frames_are_used_if_the_kernel_is_there() -> None:
    """The tests above compare frames, and not only rows."""
    rows = rows_of([({"real": 1.5}, 0)], True)
    assert isinstance(rows._found[0], Frame) is compiled
