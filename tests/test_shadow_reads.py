"""Shadow reads of a `DualStore`: what counts as a difference, and that callers do not notice."""

from __future__ import annotations

import asyncio
import copy
import logging
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from chalk_online_store import Answer, ReadRequest, RequestTimeout, Status
from chalk_online_store.integrations.opentelemetry import observe_dual_store
from chalk_online_store.migration import DifferenceKind, DualSettings, FeatureComparison, same_value
from chalk_online_store.migration.comparing import difference_of
from tests.dual_stores import EAGER, City, Fault, Pair, User, opened
from tests.helpers import stress
from tests.strategies import any_types, exactly

NOW = datetime.now(UTC).replace(microsecond=7)
EARLIER = NOW - timedelta(minutes=5)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def pair(is_async: bool) -> Iterator[Pair]:
    """Two stores whose reads are all compared."""
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0) as made:
        yield made


def compared(pair: Pair) -> dict[str, FeatureComparison]:
    """The counts once everything is compared."""
    assert pair.wait_for_comparisons(60.0)
    return dict(pair.dual.report().features)


def user(number: int, name: str = "Ada", risk: float | None = 0.5) -> dict[str, Any]:
    return {"id": number, "name": name, "risk": risk}


# --- values --------------------------------------------------------------------------------


@settings(max_examples=stress(12))
@given(st.data())
def test_values_are_equal_if_all_their_bits_are(data: st.DataObject) -> None:
    """Two values of any type are equal exactly if their types, digits, signs and bits are."""
    kind = data.draw(any_types())
    one = data.draw(kind.values)
    other = data.draw(st.one_of(kind.values, st.just(copy.deepcopy(one))))
    assert same_value(one, copy.deepcopy(one))
    if "nan" not in f"{one!r}{other!r}".lower():
        assert same_value(one, other) == (exactly(one) == exactly(other))


class Point(NamedTuple):
    x: float
    tags: set[str]


@dataclass
class Address:
    street: str
    height: float


def nan(bits: int) -> float:
    found: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (nan(0x7FF8000000000000), nan(0xFFF8000000000001), True),
        ([float("nan")], [-float("nan")], True),
        ({float("nan")}, {-float("nan")}, True),
        (Address("a", float("nan")), Address("a", float("nan")), True),
        (0.0, -0.0, False),
        ([0.0], [-0.0], False),
        ({"a": 0.0}, {"a": -0.0}, False),
        ({0.0}, {-0.0}, False),
        (Point(0.0, {"a"}), Point(-0.0, {"a"}), False),
        (Point(0.0, {"b", "a"}), Point(0.0, {"a", "b"}), True),
        (Decimal("1.10"), Decimal("1.1"), False),
        ({Decimal("1.10")}, {Decimal("1.1")}, False),
        (Decimal("NaN"), Decimal("NaN"), True),
        (1, 1.0, False),
        (1, True, False),
        ([1], (1,), False),
        ([1, 2], [1], False),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
        (np.array([1, 2], "f4"), np.array([1, 2], "f4"), True),
        (np.array([1, 2], "f4"), np.array([1, 2], "f2"), False),
        (np.array([0.0], "f4"), np.array([-0.0], "f4"), False),
        (np.array([1, np.nan], "f8"), np.array([1, np.nan], "f8"), True),
    ],
)
def test_special_values_are_compared_exactly(one: Any, other: Any, same: bool) -> None:
    """NaN equals NaN; signs of zero, digits of Decimals and types of elements count."""
    assert same_value(one, other) is same
    assert same_value(other, one) is same


def test_a_tolerance_is_for_floats_alone() -> None:
    """Floats within the tolerance are equal, within structs too; vectors are compared exactly."""
    assert not same_value(1.0, 1.0 + 1e-9)
    assert same_value(1.0, 1.0 + 1e-9, tolerance=1e-6)
    assert same_value(1e9, 1e9 + 1, tolerance=1e-6)
    assert same_value([Address("a", 1.0)], [Address("a", 1.0 + 1e-9)], tolerance=1e-6)
    assert not same_value(1.0, 1.1, tolerance=1e-6)
    assert not same_value(float("inf"), 1e308, tolerance=1e-6)
    assert not same_value(np.array([1.0]), np.array([1.0 + 1e-9]), tolerance=1e-6)
    assert not same_value(Decimal("1.0"), Decimal("1.00"), tolerance=1e-6)


def test_times_may_differ_by_their_tolerance() -> None:
    """Equal values whose times differ by more than the tolerance are a difference of their own."""
    one, other = Answer(Status.HIT, 1, 1_000_000), Answer(Status.HIT, 1, 1_400_000)
    assert difference_of(one, other) is DifferenceKind.OBSERVED_AT
    assert difference_of(one, other, observed_at_tolerance=0.3) is DifferenceKind.OBSERVED_AT
    assert difference_of(one, other, observed_at_tolerance=0.4) is None
    without = Answer(Status.MISSING, None, None)
    assert difference_of(without, without) is None
    assert difference_of(without, one) is DifferenceKind.STATUS
    assert difference_of(one, replaced(one, 2)) is DifferenceKind.VALUE


def replaced(answer: Answer, value: Any) -> Answer:
    return answer._replace(value=value)


# --- differences ---------------------------------------------------------------------------


def test_equal_stores_have_no_differences(pair: Pair) -> None:
    """Each feature of each compared key is counted once, in every kind of read."""
    pair.write(User, [user(1), user(2, risk=None)])
    pair.write(City, [{"name": "Rome", "degrees": float("nan")}])
    pair.read(User, [1, 2, 3, 1])
    pair.get(User, 1, ["name"])
    pair.read_many(ReadRequest(User, iter([1]), ["risk"]), ReadRequest(City, ["Rome"]))
    pair.run(pair.dual.prepare(User, ["name"], defaults=True).read([3]))
    assert compared(pair) == {
        "city.degrees": FeatureComparison(equal=1),
        "user.name": FeatureComparison(equal=6),
        "user.risk": FeatureComparison(equal=5),
    }
    report = pair.dual.report()
    assert (report.reads_sampled, report.reads_compared) == (5, 5)
    assert (report.differences, report.values_compared, report.samples) == (0, 12, ())
    assert [report.latency[side].reads for side in ("old", "new")] == [3, 3]
    assert 0 < report.latency["new"].p50 <= report.latency["new"].p99
    assert report.cost["old"].items_read == report.cost["new"].items_read > 0
    pair.dual.reset_report()
    assert pair.dual.report().values_compared == 0


def differing(pair: Pair) -> None:
    """Stores that differ in each way, in one user each."""
    pair.write(User, [user(number) for number in range(5)], observed_at=EARLIER)
    pair.run(pair.new.write(User, [{"id": 1, "name": "secret"}], observed_at=NOW))
    pair.run(pair.new.write(User, [{"id": 2, "risk": None}], observed_at=NOW))
    pair.run(pair.new.write(User, [{"id": 3, "name": "Ada"}], observed_at=NOW))
    pair.run(pair.new.delete(User, [4], observed_at=NOW))


def test_differences_are_counted_by_feature_and_kind(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Statuses, values and times that differ are reported, without keys or values."""
    differing(pair)
    for _ in range(2):
        pair.read(User, range(5))
    assert compared(pair) == {
        "user.name": FeatureComparison(equal=4, value=2, observed_at=2, status=2),
        "user.risk": FeatureComparison(equal=6, status=4),
    }
    report = pair.dual.report()
    assert (report.differences, report.values_compared, len(report.samples)) == (10, 20, 10)
    value = next(each for each in report.samples if each.kind is DifferenceKind.VALUE)
    assert (value.feature, value.serving, value.key) == ("user.name", "old", None)
    assert (value.serving_status, value.shadow_status) == ("hit", "hit")
    assert (value.serving_observed_at, value.shadow_observed_at) == (EARLIER, NOW)
    assert "secret" not in f"{caplog.text}{report!r}"
    names = [each.__dict__["chalk.feature"] for each in caplog.records]
    assert sorted(names) == ["user.name"] * 3 + ["user.risk"]  # Each kind once.


def test_keys_are_kept_only_if_asked_for(is_async: bool) -> None:
    """With `keep_keys`, samples have keys, which neither logs nor the report's text show."""
    kept = replace(EAGER, keep_keys=True, max_samples=2)
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0, settings=kept) as pair:
        pair.run(pair.old.write(User, [user(key) for key in (987_654, 987_655, 987_656)]))
        pair.read(User, [987_654, 987_655, 987_656], ["name"])
        assert compared(pair)["user.name"].differences == 3
        report = pair.dual.report()
        assert [each.key for each in report.samples] == [987_654, 987_655]
        assert "98765" not in repr(report)


def test_the_serving_store_is_compared_with_the_other_one(pair: Pair) -> None:
    """After a switch, the new store serves and the old one is its shadow."""
    pair.run(pair.old.write(User, [user(1)]))
    pair.dual.switch_to("new")
    pair.read(User, [1], ["name"])
    assert compared(pair)["user.name"].status == 1
    (sample,) = pair.dual.report().samples
    assert (sample.serving, sample.serving_status, sample.shadow_status) == (
        "new",
        "missing",
        "hit",
    )


def test_a_write_between_the_two_reads_is_no_difference(pair: Pair) -> None:
    """A value that was written after the serving store was read is equal when it is read again."""
    pair.write(User, [user(1)], observed_at=EARLIER)
    gate = threading.Event()
    pair.new.fault = Fault(frozenset(["read"]), error=None, gate=gate)
    pair.read(User, [1])
    pair.write(User, [user(1, "new")], observed_at=NOW)
    gate.set()
    assert compared(pair)["user.name"] == FeatureComparison(equal=1)


def test_values_that_change_all_the_time_are_unsettled(is_async: bool) -> None:
    """A value that differs in another way each time it is read is no confirmed difference."""
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0) as pair:
        moving = Moving(pair)
        pair.read(User, [1], ["name"])
        assert compared(pair)["user.name"] == FeatureComparison(unsettled=1)
        assert moving.reads == 4


class Moving:
    """Writes a newer value to the new store before each of its reads."""

    def __init__(self, pair: Pair) -> None:
        self.reads = 0
        self._read, self._new = pair.new.read, pair.new
        pair.new.read = self._read_async if pair.runner else self._read_sync

    def _row(self) -> list[dict[str, Any]]:
        self.reads += 1
        return [user(1, f"name {self.reads}")]

    def _read_sync(self, *args: Any, **options: Any) -> Any:
        self._new.write(User, self._row())
        return self._read(*args, **options)

    async def _read_async(self, *args: Any, **options: Any) -> Any:
        await self._new.write(User, self._row())
        return await self._read(*args, **options)


def test_differences_are_looked_at_again_after_a_while(is_async: bool) -> None:
    """A difference counts no sooner than `recheck_after`, and does not hold up other reads."""
    later = replace(EAGER, recheck_after=0.3)
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0, settings=later) as pair:
        pair.write(User, [user(2)])
        pair.run(pair.old.write(User, [user(1)]))
        began = time.monotonic()
        pair.read(User, [1])
        pair.read(User, [2])
        found = compared(pair)
        assert time.monotonic() - began >= 0.3
        assert found["user.name"] == FeatureComparison(equal=1, status=1)


# --- callers -------------------------------------------------------------------------------


def test_a_share_of_the_reads_is_compared(is_async: bool) -> None:
    """With `compare=0` no read is sampled, and with 0.2 about a fifth."""
    for share, least, most in ((0.0, 0, 0), (0.2, 30, 110)):
        with opened(is_async, "sqlite://", "sqlite://", compare=share) as pair:
            for _ in range(350):
                pair.get(City, "Rome")
            assert pair.wait_for_comparisons(60.0)
            assert least <= pair.dual.report().reads_sampled <= most


def test_a_shadow_store_that_hangs_delays_no_read(is_async: bool) -> None:
    """Reads return while a shadow read hangs; beyond `max_queued_keys` they are not compared."""
    small = replace(EAGER, max_queued_keys=10)
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0, settings=small) as pair:
        pair.new.fault = Fault(frozenset(["read"]), error=None, gate=threading.Event())
        for _ in range(5):
            assert len(pair.read(User, [1, 2, 3])) == 3
        report = pair.dual.report()
        assert (report.reads_sampled, report.reads_dropped) == (5, 2)
        assert not pair.wait_for_comparisons(0.05)
        pair.new.fault.gate.set()
        compared(pair)
        assert pair.dual.report().reads_compared == 3
        pair.read(User, [1, 2, 3])
        assert pair.wait_for_comparisons(60.0)
        assert pair.dual.report().reads_compared == 4  # There is room again.


def test_failed_shadow_reads_are_counted(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A shadow store that fails fails no read, is logged once, and is compared when it is back."""
    pair.write(User, [user(1)])
    pair.new.fault = Fault(error=RequestTimeout("late"))
    for _ in range(3):
        assert pair.get(User, 1)["name"] == "Ada"
    compared(pair)
    report = pair.dual.report()
    assert (report.reads_compared, report.reads_failed) == (0, 3)
    assert report.errors == {"RequestTimeout": 3}
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    pair.new.fault = None
    pair.get(User, 1)
    assert compared(pair)["user.name"] == FeatureComparison(equal=1)


def test_a_failure_of_the_serving_store_is_not_compared(pair: Pair) -> None:
    """A read that fails raises for the caller, and is not sampled."""
    pair.old.fault = Fault()
    with pytest.raises(Exception, match="down"):
        pair.get(User, 1)
    assert pair.dual.report().reads_sampled == 0


def test_a_serving_store_that_fails_meanwhile_is_no_difference(pair: Pair) -> None:
    """Values that cannot be read again are counted as failed."""
    pair.run(pair.old.write(User, [user(1)]))
    gate = threading.Event()
    pair.new.fault = Fault(frozenset(["read"]), error=None, gate=gate)
    pair.read(User, [1])
    pair.old.fault = Fault()
    gate.set()
    assert compared(pair)["user.name"] == FeatureComparison(failed=1)


def test_close_with_a_full_queue_drops_it(is_async: bool) -> None:
    """Reads that wait for comparison when the store is closed are counted as dropped."""
    with opened(is_async, "sqlite://", "sqlite://", compare=1.0) as pair:
        gate = threading.Event()
        pair.new.fault = Fault(frozenset(["read"]), error=None, gate=gate)
        for number in range(3):
            pair.read(User, [number])
        if not is_async:
            while not pair.new.fault.calls:  # One of them is being compared.
                time.sleep(0.001)
            threading.Timer(0.05, gate.set).start()
        pair.close()
        report = pair.dual.report()
        lost = report.reads_dropped + report.reads_failed
        assert (report.reads_sampled, lost + report.reads_compared) == (3, 3)
        assert report.reads_dropped >= 2
        pair.close()


def test_a_cancelled_reader_leaves_the_comparison_of_others() -> None:
    """Cancelling a task that reads neither ends the worker nor loses reads of other tasks."""
    with opened(True, "sqlite://", "sqlite://", compare=1.0) as pair:

        async def read() -> None:
            await pair.dual.write(User, [user(1)])
            pair.old.fault = Fault(frozenset(["read"]), error=None, gate=threading.Event())
            task = asyncio.create_task(pair.dual.read(User, [1]))
            while not pair.old.fault.calls:  # noqa: ASYNC110 - the store counts its calls.
                await asyncio.sleep(0)
            task.cancel()
            pair.old.fault = None
            await pair.dual.read(User, [1])
            with pytest.raises(asyncio.CancelledError):
                await task

        pair.run(read())
        assert compared(pair)["user.name"] == FeatureComparison(equal=1)


def test_reads_of_an_ended_event_loop_are_compared_by_the_next_one() -> None:
    """A task that ends with its event loop leaves the queue to the next sampled read."""
    with opened(True, "sqlite://", "sqlite://", compare=1.0) as pair:
        pair.write(User, [user(1)])
        other = asyncio.Runner()
        pair.new.fault = Fault(frozenset(["read"]), error=None, gate=threading.Event())
        for _ in range(2):
            other.run(pair.dual.read(User, [1]))
        other.close()
        pair.new.fault = None
        pair.read(User, [1])
        compared(pair)
        report = pair.dual.report()
        assert (report.reads_sampled, report.reads_dropped, report.reads_compared) == (3, 1, 2)


@pytest.mark.filterwarnings("ignore:.*never awaited:RuntimeWarning")
def test_a_worker_that_is_lost_with_its_event_loop_is_replaced() -> None:
    """A loop that is closed in the middle of a comparison does not end all comparisons."""
    with opened(True, "sqlite://", "sqlite://", compare=1.0) as pair:
        pair.write(User, [user(1)])
        loop = asyncio.new_event_loop()
        pair.new.fault = Fault(frozenset(["read"]), error=None, gate=threading.Event())
        loop.run_until_complete(pair.dual.read(User, [1]))
        lost = pair.dual._task
        loop.close()
        pair.new.fault = None
        pair.read(User, [1])
        assert compared(pair)["user.name"].equal >= 1
        assert pair.dual._task is not lost
        lost._log_destroy_pending = False


def test_a_long_read_is_compared_in_part(pair: Pair) -> None:
    """Of a read of more than 1,000 keys, 1,000 are compared, each with its own result."""
    pair.write(User, [user(number, f"name {number}") for number in range(1500)])
    pair.read(User, range(1500), ["name"])
    assert compared(pair)["user.name"] == FeatureComparison(equal=1000)


def test_a_worker_that_cannot_start_fails_no_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a thread for shadow reads the read returns, and the next one tries again."""
    with opened(False, "sqlite://", "sqlite://", compare=1.0) as pair:
        pair.write(User, [user(1)])
        submit = pair.dual._workers.submit

        def refuse(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(pair.dual._workers, "submit", refuse)
        assert pair.get(User, 1)["name"] == "Ada"
        assert "no worker" in caplog.text
        monkeypatch.setattr(pair.dual._workers, "submit", submit)
        pair.get(User, 1)
        assert compared(pair)["user.name"] == FeatureComparison(equal=2)


def test_settings_are_frozen() -> None:
    """Settings are a value: equal ones compare equal, and none can be changed."""
    assert DualSettings() == DualSettings(shadow_timeout=1.0)
    with pytest.raises(AttributeError):
        DualSettings().tolerance = 1.0  # type: ignore[misc]


def test_the_report_is_collected_as_metrics(pair: Pair) -> None:
    """`observe_dual_store` exports counts of reads and writes, and values by feature and result."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe_dual_store(pair.dual, provider.get_meter("test"))
    pair.run(pair.old.write(User, [user(1)]))
    pair.read(User, [1])
    pair.new.fault = Fault(frozenset(["write"]))
    pair.write(User, [user(2)])
    compared(pair)
    found = collected(reader)
    prefix = "chalk.online_store.migration"
    for name, value in (("reads_compared", 1), ("writes", 1), ("writes_failed", 1)):
        (point,) = found[f"{prefix}.{name}"]
        assert (point.value, dict(point.attributes)) == (value, {})
    outstanding = {p.attributes["chalk.store"]: p.value for p in found[f"{prefix}.outstanding"]}
    assert outstanding == {"old": 0, "new": 1}
    values = {tuple(p.attributes.values()): p.value for p in found[f"{prefix}.values"]}
    assert values[("user.name", "status")] == values[("user.risk", "status")] == 1
    assert values[("user.name", "equal")] == 0
    provider.shutdown()


def collected(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return {metric.name: list(metric.data.data_points) for metric in metrics}
