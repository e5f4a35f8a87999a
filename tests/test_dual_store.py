"""`DualStore` and `AsyncDualStore`: dual writes, outstanding entities, switching, faults."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    AsyncOnlineStore,
    ConnectionFailed,
    InvalidKey,
    InvalidStore,
    InvalidValue,
    OnlineStore,
    ReadRequest,
    RequestTimeout,
    StoreClosed,
    UnknownFeature,
    WriteFailed,
    WritesOutstanding,
    features,
)
from chalk_online_store.migration import AsyncDualStore, DualSettings, DualStore
from chalk_online_store.testing import FaultProxy, Refused
from tests.dual_stores import SCHEMA, City, Fault, Pair, User, opened
from tests.helpers import stress

NOW = datetime.now(UTC).replace(microsecond=7)
EARLIER = NOW - timedelta(minutes=5)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def pair(is_async: bool) -> Iterator[Pair]:
    with opened(is_async, "sqlite://", "sqlite://") as made:
        yield made


def user(number: int, name: str = "Ada", risk: float | None = 0.5) -> dict[str, Any]:
    return {"id": number, "name": name, "risk": risk}


# --- writes --------------------------------------------------------------------------------


def test_a_write_reaches_both_stores_with_one_observed_at(pair: Pair) -> None:
    """Rows without a time, with one, and with one each have equal times in both stores."""
    pair.write(User, (user(number) for number in range(3)))
    pair.write(User, [user(3)], observed_at=EARLIER)
    pair.write(User, [User(4, "Bob", None), user(5)], observed_at=[EARLIER, NOW])
    assert pair.seen(pair.new, range(6)) == pair.seen(pair.old, range(6))
    assert pair.dual.report().writes == 3
    assert [pair.get(User, number)["name"] for number in (0, 4)] == ["Ada", "Bob"]


def test_a_delete_reaches_both_stores(pair: Pair) -> None:
    """Deleted features and entities are missing in both stores, and older values stay deleted."""
    pair.write(User, [user(1), user(2)], observed_at=EARLIER)
    pair.delete(User, [1])
    pair.delete(User, [2], ["risk"], observed_at=NOW)
    pair.write(User, [user(1), user(2)], observed_at=EARLIER)
    pair.assert_same([1, 2])
    rows = pair.read(User, [1, 2])
    assert [row.status("risk") for row in rows] == ["missing", "missing"]
    assert [row.status("name") for row in rows] == ["missing", "hit"]


def test_a_row_that_is_refused_is_in_neither_store(pair: Pair) -> None:
    """Bad arguments raise before anything is sent, and leave nothing outstanding."""
    with pytest.raises(InvalidValue):
        pair.write(User, [user(1), {"id": 2, "name": 7}])
    with pytest.raises(InvalidKey):
        pair.write(User, [{"id": [1], "name": "x"}])
    with pytest.raises(UnknownFeature):
        pair.delete(User, [1], ["age"])
    with pytest.raises(InvalidValue, match="timeout"):
        pair.write(User, [user(1)], timeout=-1)
    assert pair.seen(pair.old, [1]) == pair.seen(pair.new, [1])
    assert pair.dual.outstanding() == []


def test_a_failure_of_the_serving_store_is_the_callers(pair: Pair) -> None:
    """If the serving store fails, the shadow store is not written and the entity is outstanding."""
    pair.old.fault, pair.new.fault = Fault(is_late=True), Fault(error=None)
    with pytest.raises(Exception, match="down"):
        pair.write(User, [user(1)])
    assert pair.new.fault.calls == []
    pair.old.fault = None
    assert [(each.store, each.key) for each in pair.dual.outstanding()] == [("new", 1)]
    assert pair.copy_outstanding() == 1
    pair.assert_same([1])


def test_rows_that_the_serving_store_could_not_write_are_not_in_the_shadow_store(
    pair: Pair,
) -> None:
    """After `WriteFailed`, the other rows are in both stores, and the failed ones outstanding."""
    pair.old.fault = Fault(error=WriteFailed("one row", {1: RequestTimeout("late")}))
    with pytest.raises(WriteFailed):
        pair.write(User, [user(number) for number in range(3)])
    pair.old.fault = None
    assert [rows[0][0] for rows in pair.seen(pair.new, range(3))] == ["hit", "missing", "hit"]
    assert [each.key for each in pair.dual.outstanding("new")] == [1]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_failure_of_the_shadow_store_is_counted(
    pair: Pair, is_late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Writes and deletes succeed without the shadow store, and are copied when it is back."""
    pair.write(User, [user(1), user(2), user(3)], observed_at=EARLIER)
    pair.new.fault = Fault(is_late=is_late)
    pair.write(User, [user(1, "secret")])
    pair.delete(User, [2], observed_at=NOW)
    pair.delete(User, [3], ["risk"], observed_at=NOW)
    found = {each.key: each for each in pair.dual.outstanding()}
    assert sorted(found) == [1, 2, 3]
    assert (dict(found[2].deletes), dict(found[3].deletes)) == ({None: NOW}, {("risk",): NOW})
    assert found[2].store == "new"
    report = pair.dual.report()
    assert (report.writes, report.writes_failed, report.writes_skipped) == (4, 3, 0)
    assert report.errors == {"ConnectionFailed": 3}
    assert report.outstanding == {"old": 0, "new": 3}
    with pytest.raises(Exception, match="down"):
        pair.copy_outstanding()
    assert len(pair.dual.outstanding()) == 3
    pair.new.fault = None
    assert (pair.copy_outstanding(), pair.copy_outstanding()) == (3, 0)
    pair.assert_same([1, 2, 3])
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert warning.__dict__["event.name"] == "chalk.online_store.migration.shadow_writes_failed"
    assert "secret" not in caplog.text


def test_failures_are_logged_once_until_a_write_succeeds(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """A shadow store that refuses each write is logged once, and again after it has recovered."""
    caplog.set_level("INFO", "chalk_online_store")
    for fault in (Fault(error=InvalidValue("refused")), None, Fault(), None):
        pair.new.fault = fault
        for number in range(2):
            pair.write(User, [user(number)])
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"] * 2


def test_failed_writes_to_the_shadow_store_can_be_raised(is_async: bool) -> None:
    """With `raise_shadow_failures` the caller gets the error, after the serving store has it."""
    strict = DualSettings(raise_shadow_failures=True)
    with opened(is_async, "sqlite://", "sqlite://", settings=strict) as pair:
        pair.new.fault = Fault()
        with pytest.raises(Exception, match="down"):
            pair.write(User, [user(1)])
        assert pair.seen(pair.old, [1])[0][0][0] == "hit"
        assert len(pair.dual.outstanding("new")) == 1


def test_writes_skip_a_shadow_store_that_does_not_answer(is_async: bool) -> None:
    """After three failures, writes are not sent until `retry_after`, and none is lost."""
    for retry_after, sent in ((600.0, 3), (0.0, 6)):
        patient = DualSettings(retry_after=retry_after)
        with opened(is_async, "sqlite://", "sqlite://", settings=patient) as pair:
            pair.new.fault = fault = Fault()
            for number in range(6):
                pair.write(User, [user(number)])
            assert len(fault.calls) == sent
            assert pair.dual.report().writes_skipped == 6 - sent
            assert len(pair.dual.outstanding()) == 6
            pair.new.fault = None
            assert pair.copy_outstanding("new", limit=4) == 4
            assert pair.copy_outstanding() == 2
            pair.assert_same(range(6))


def test_outstanding_entities_are_bounded(is_async: bool) -> None:
    """Entities beyond `max_outstanding` are counted, and repeated failures of one count once."""
    small = DualSettings(max_outstanding=2)
    with opened(is_async, "sqlite://", "sqlite://", settings=small) as pair:
        pair.new.fault = Fault()
        for number in (1, 2, 2, 3, 4):
            pair.write(User, [user(number)])
        report = pair.dual.report()
        assert (report.outstanding["new"], report.outstanding_dropped) == (2, 2)


@pytest.mark.parametrize("side", ["old", "new"])
def test_entities_of_a_cancelled_write_are_outstanding(side: str) -> None:
    """A task that is cancelled in a write to either store leaves its entity outstanding."""
    with opened(True, "sqlite://", "sqlite://") as pair:
        fault = Fault(error=None, gate=threading.Event())
        getattr(pair, side).fault = fault

        async def cancel() -> None:
            task = asyncio.create_task(pair.dual.write(User, [user(1)]))
            while not fault.calls:  # noqa: ASYNC110 - the store counts its calls.
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        pair.run(cancel())
        assert [(each.store, each.key) for each in pair.dual.outstanding()] == [("new", 1)]
        pair.old.fault = pair.new.fault = None
        assert pair.copy_outstanding() == 1
        pair.assert_same([1])


def test_a_shadow_store_behind_a_broken_network(
    fault_proxy: FaultProxy, table: str, is_async: bool
) -> None:
    """A shadow store on DynamoDB that cannot be reached fails no call, and is equal afterwards."""
    impatient = DualSettings(shadow_timeout=0.2, retry_after=0.0, recheck_after=0.0)
    options = {"settings": impatient, "compare": 1.0}
    with opened(is_async, "sqlite://", fault_proxy.url(table), **options) as pair:
        pair.write(User, [user(number) for number in range(20)], observed_at=EARLIER)
        with fault_proxy.fault(Refused()):
            pair.write(User, [user(number, "new") for number in range(5)])
            pair.delete(User, [6])
            assert pair.get(User, 1)["name"] == "new"
            assert pair.wait_for_comparisons()
        report = pair.dual.report()
        assert (report.reads_sampled, report.reads_failed) == (1, 1)
        assert report.outstanding["new"] >= 6
        pair.copy_outstanding(timeout=30.0)
        pair.assert_same(range(20))


# --- copies, whatever fails ----------------------------------------------------------------

_times = st.integers(0, 6).map(lambda seconds: EARLIER + timedelta(seconds=seconds))
_keys = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)
_faults = st.sampled_from([None, *[(side, late) for side in ("old", "new") for late in (0, 1)]])
_values = st.fixed_dictionaries(
    {}, optional={"name": st.sampled_from("ab"), "risk": st.sampled_from([None, 0.5, -0.0])}
)
_writes = st.tuples(st.just("write"), _keys, _values, _times, _faults)
_deletes = st.tuples(
    st.just("delete"), _keys, st.sampled_from([None, ("risk",), ("name", "risk")]), _times, _faults
)
_others = st.tuples(st.sampled_from(["switch", "copy"]), *([st.none()] * 3), _faults)


@settings(max_examples=stress(25))
@given(st.lists(st.one_of(_writes, _deletes, _others), max_size=12), st.booleans())
def test_stores_are_equal_once_everything_outstanding_is_copied(
    steps: list[Any], is_async: bool
) -> None:
    """For any order of writes, deletes, switches and failures, copying makes both stores equal."""
    with opened(is_async, "sqlite://", "sqlite://") as pair:
        for name, keys, what, at, fault in steps:
            pair.old.fault = pair.new.fault = None
            if fault is not None:
                getattr(pair, fault[0]).fault = Fault(is_late=bool(fault[1]))
            with suppress(ConnectionFailed, WritesOutstanding):
                perform(pair, name, keys, what, at)
        pair.old.fault = pair.new.fault = None
        pair.copy_outstanding()
        assert pair.dual.outstanding() == []
        pair.assert_same(range(4))


def perform(pair: Pair, name: str, keys: Any, what: Any, at: Any) -> None:
    if name == "write":
        pair.write(User, [{"id": key, **what} for key in keys], observed_at=at)
    elif name == "delete":
        pair.delete(User, keys, what, observed_at=at)
    elif name == "copy":
        pair.copy_outstanding()
    else:
        pair.switch_to("new" if pair.dual.read_from == "old" else "old")


# --- the serving store ---------------------------------------------------------------------


def test_reads_are_served_by_the_store_that_was_chosen(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """`switch_to` moves reads, prepared ones included, and the caller's failures."""
    caplog.set_level("INFO", "chalk_online_store")
    pair.run(pair.old.write(User, [user(1, "old")]))
    pair.run(pair.new.write(User, [user(1, "new")]))
    prepared = pair.dual.prepare(User, ["name"])
    request = ReadRequest(User, [1], ["name"])

    def found() -> list[Any]:
        (many,) = pair.read_many(request)
        rows = [pair.read(User, [1])[0], pair.get(User, 1), many[0], pair.run(prepared.get(1))]
        return [row["name"] for row in [*rows, pair.run(prepared.read([1]))[0]]]

    assert found() == ["old"] * 5
    pair.dual.switch_to("new")
    assert (found(), pair.dual.read_from) == (["new"] * 5, "new")
    assert pair.dual.report().serving == "new"
    pair.new.fault = Fault()
    with pytest.raises(Exception, match="down"):
        pair.write(User, [user(2)])
    assert [each.store for each in pair.dual.outstanding()] == ["old"]
    assert [each.levelname for each in caplog.records] == ["INFO"]


def test_a_store_that_lacks_writes_does_not_serve_reads(pair: Pair) -> None:
    """`switch_to` refuses a store with outstanding entities, unless it is forced."""
    pair.new.fault = Fault()
    pair.write(User, [user(1)])
    with pytest.raises(WritesOutstanding, match="1 entities") as raised:
        pair.dual.switch_to("new")
    assert (raised.value.entities, pair.dual.read_from) == (1, "old")
    pair.dual.switch_to("new", force=True)
    assert pair.dual.read_from == "new"
    pair.new.fault = None
    assert pair.copy_outstanding() == 1
    pair.assert_same([1])


def test_a_backfill_copies_entities_with_their_times(pair: Pair) -> None:
    """Values of different times, stale ones and nulls are copied, and newer ones are left."""
    old = datetime.now(UTC) - timedelta(days=60)
    pair.run(pair.old.write(User, [user(key) for key in range(250)], observed_at=old))
    pair.run(pair.old.write(User, [{"id": 1, "risk": None}], observed_at=EARLIER))
    pair.run(pair.new.write(User, [{"id": 2, "name": "newer"}], observed_at=NOW))
    assert pair.backfill(User, range(251), timeout=60.0) == 251
    assert pair.seen(pair.new, [0, 1, 3, 250]) == pair.seen(pair.old, [0, 1, 3, 250])
    assert pair.seen(pair.new, [0])[0][0] == ("stale", None, old)
    assert pair.seen(pair.new, [2])[0][0] == ("hit", "newer", NOW)


# --- what stores there are -----------------------------------------------------------------


def test_open_opens_both_stores(is_async: bool, tmp_path: Path) -> None:
    """`open` takes two URLs and the options of a store, and `close` closes both."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new")]
    kind: Any = AsyncDualStore if is_async else DualStore
    dual = kind.open(*urls, SCHEMA, read_from="new", timeout=5.0)

    async def used() -> None:
        await dual.write(City, [{"name": "Rome", "degrees": -0.0}])
        assert (await dual.get(City, "Rome"))["degrees"] == 0.0
        await dual.close()
        with pytest.raises(StoreClosed):
            await dual.get(City, "Rome")

    if is_async:
        asyncio.run(used())
    else:
        dual.write(City, [{"name": "Rome", "degrees": -0.0}])
        dual.close()
        with pytest.raises(StoreClosed):
            dual.write(City, [])
    for url in urls:
        with OnlineStore.open(url, SCHEMA) as store:
            assert store.get(City, "Rome").status("degrees") == "hit"


def test_bad_arguments_are_refused() -> None:
    """The wrong kind of store, of side or of setting is refused with its name."""

    @features(name="city")
    class Other:
        id: int

    def stores(**options: Any) -> Callable[[], Any]:
        return lambda: DualStore(old, new, **options)

    with OnlineStore.open("sqlite://", SCHEMA) as old, OnlineStore.open("sqlite://", SCHEMA) as new:
        other = OnlineStore.open("sqlite://", [User, Other])
        for made, error, words in (
            (stores(read_from="both"), InvalidValue, "read_from"),
            (stores(compare=1.5), InvalidValue, "compare"),
            (stores(compare="all"), InvalidValue, "compare"),
            (stores(settings={}), InvalidValue, "settings"),
            (lambda: DualStore(old, old), InvalidStore, "same store"),
            (lambda: DualStore(old, other), InvalidStore, "'city'"),
            (lambda: DualStore("sqlite://", new), InvalidStore, "old must be"),  # type: ignore[arg-type]
            (lambda: AsyncDualStore(old, new), InvalidStore, "old must be"),
            (lambda: DualStore.open("sqlite://", "file.db", SCHEMA), ValueError, "URL"),
            (lambda: DualSettings(tolerance=-1), InvalidValue, "tolerance"),
            (lambda: DualSettings(max_samples=0), InvalidValue, "max_samples"),
            (lambda: DualSettings(keep_keys="no"), InvalidValue, "keep_keys"),  # type: ignore[arg-type]
        ):
            with pytest.raises(error, match=words):
                made()
        dual = DualStore(old, new)
        with pytest.raises(InvalidValue, match="store"):
            dual.switch_to("newer")  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="store"):
            dual.outstanding("newer")  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="store"):
            dual.backfill(User, [1], store="newer")  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="limit"):
            dual.copy_outstanding(limit=0)
        with pytest.raises(UnknownFeature):
            dual.prepare(User, ["age"])
        other.close()
    kept = AsyncOnlineStore.open("sqlite://", SCHEMA)
    with pytest.raises(InvalidStore, match="AsyncDualStore"):
        DualStore(kept, kept)
    asyncio.run(kept.close())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_begins_with_an_empty_report(tmp_path: Path) -> None:
    """A child compares its own reads; the parent keeps its queue and outstanding entities."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new")]
    with opened(False, *urls, compare=1.0) as pair:
        pair.new.fault = Fault()
        pair.write(User, [user(1)])
        pair.new.fault = Fault(frozenset(["read"]), error=None, gate=threading.Event())
        pair.read(User, [1])
        while not pair.new.fault.calls:  # The worker is in the middle of a comparison.
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            os._exit(0 if child_works(pair) else 1)
        assert os.waitpid(child, 0)[1] == 0
        pair.new.fault.gate.set()
        assert pair.wait_for_comparisons(60.0)
        assert pair.dual.report().reads_compared == 1
        assert len(pair.dual.outstanding("new")) == 1


def child_works(pair: Pair) -> bool:
    pair.new.fault = None
    empty = pair.dual.report().reads_sampled == 0 and pair.dual.outstanding() == []
    pair.write(User, [user(2)])
    pair.read(User, [2])
    compared: bool = pair.wait_for_comparisons(60.0)
    return empty and compared and pair.dual.report().values_compared == 2
