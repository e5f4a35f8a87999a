"""Retries in virtual time: `x-amz-retry-after`, the retry quota, reports and log records."""

from __future__ import annotations

import json
import logging
import random
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.retries import standard as _standard

from chalk_online_store import RequestError, ServerError, Throttled, WriteFailed, features
from chalk_online_store import errors as library_errors
from chalk_online_store.backend import Call
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.failures import failure
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.retry import (
    QUOTA_TOKENS,
    SUCCESS_REFUND,
    THROTTLE_COST,
    TRANSIENT_COST,
    Backoff,
    RetryPolicy,
    RetryQuota,
    pause,
)
from tests.fakes import SimulatedStore, refusal

standard: Any = _standard
REASON = "TableReadKeyRangeThroughputExceeded"


@features
class User:
    id: int
    a: int


class Engine:
    """Answers GetItem with an error as often as it is told, and then like a table."""

    def __init__(self) -> None:
        self.store = SimulatedStore([User])
        self.store.write(User, [{"id": 1, "a": 10}])
        self.store.read(User, [1])
        self.store.driver.sent.clear()
        self.failures = 0
        self.error = refusal("InternalServerError", 500)
        self.store.table.fault = self._fault

    def _fault(self, operation: str, body: dict[str, Any], now: float) -> Reply | None:
        if operation != "GetItem" or not self.failures:
            return None
        self.failures -= 1
        return self.error

    def read(self, timeout: float = 10) -> Any:
        """Read one feature; its row."""
        return self.store.read(User, [1], timeout=timeout)

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self.store.sent("GetItem"))

    @property
    def spent(self) -> int:
        """Tokens that the quota lacks."""
        return self.store.backend._wire._quota("").spent


@pytest.fixture
def engine() -> Engine:
    return Engine()


def with_headers(reply: Reply, **headers: str) -> Reply:
    """The reply, with more headers."""
    response = reply.response
    assert isinstance(response, Response)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(Response(response.status, named, response.body), after=reply.after)


# --- x-amz-retry-after ----------------------------------------------------------------------


def test_a_retry_waits_as_long_as_aws_asks(engine: Engine) -> None:
    """`x-amz-retry-after` is in milliseconds, and raises the delay to it."""
    engine.failures = 1
    engine.error = with_headers(engine.error, x_amz_retry_after="1500")
    assert engine.read()[0]["a"] == 10
    (first, _), (second, _) = engine.store.sent("GetItem")
    assert 1.5 <= second - first < 1.6


def test_a_wait_is_bounded_by_the_deadline(engine: Engine) -> None:
    """A wish to wait beyond the deadline fails the read at once, without a retry."""
    engine.failures = 1
    engine.error = with_headers(engine.error, x_amz_retry_after="3000")
    began = engine.store.driver.now
    rows = engine.read(timeout=2)
    assert rows[0].status("a") == "failed"
    assert (engine.requests, engine.store.driver.now - began < 0.1) == (1, True)


@pytest.mark.parametrize(
    "header", [None, "", "0", "1", "40", "1500", "99999", "-1", "1.5", "soon", "9" * 400]
)
@pytest.mark.parametrize("throttle", [True, False])
def test_delays_are_raised_as_botocore_raises_them(header: str | None, throttle: bool) -> None:
    """For each value of the header, the delay is what botocore makes of the same computed delay."""
    if not hasattr(standard.ExponentialBackoff, "_RETRY_AFTER_HEADER"):
        pytest.skip("botocore reads the header since 1.44")
    headers = {} if header is None else {"x-amz-retry-after": header}
    code = "ThrottlingException" if throttle else "InternalServerError"
    body = json.dumps({"__type": code}).encode()
    error = failure(Response(400 if throttle else 500, headers, body), "GetItem")
    policy = RetryPolicy(base=0.025, throttle_base=1.0, cap=20)
    fixed: Any = SimpleNamespace(uniform=lambda low, high: 0.5 * high)
    ours = Backoff(policy, fixed).delay(error)  # type: ignore[arg-type] # it is a RequestError
    context = standard.RetryContext(
        attempt_number=1,
        http_response=AWSResponse("https://dynamodb", 400, HeadersDict(headers), None),  # type: ignore[arg-type]
        parsed_response={"Error": {"Code": code}},
    )
    detector = standard.ThrottlingErrorDetector(standard.RetryEventAdapter())
    theirs = standard.ExponentialBackoff(
        random=lambda: 0.5, service_name="dynamodb", throttling_detector=detector
    )
    assert ours == pytest.approx(theirs.delay_amount(context))


# --- the retry quota ------------------------------------------------------------------------


def test_the_quota_is_that_of_botocore() -> None:
    """Capacity, costs and refund equal those of botocore's standard mode."""
    if standard.RetryQuotaChecker._RETRY_COST == 5:
        pytest.skip("botocore has these costs since 1.44")
    checker = standard.RetryQuotaChecker
    assert standard.quota.RetryQuota.INITIAL_CAPACITY == QUOTA_TOKENS
    assert checker._RETRY_COST == TRANSIENT_COST
    assert checker._THROTTLING_RETRY_COST == THROTTLE_COST
    assert checker._NO_RETRY_INCREMENT == SUCCESS_REFUND


def test_an_outage_does_not_multiply_the_load(engine: Engine) -> None:
    """Once the quota is used up, each call sends its first request and no retry."""
    engine.failures = 10_000
    for _ in range(30):
        engine.read(timeout=1)
    allowed = QUOTA_TOKENS // TRANSIENT_COST
    assert engine.requests == 30 + allowed
    rows = engine.read(timeout=1)
    assert (rows.report.retries, rows.report.retries_refused) == (0, 1)
    with pytest.raises(library_errors.ReadFailed) as failed:
        _ = rows[0]["a"]
    assert isinstance(failed.value.__cause__, ServerError)
    assert "retry quota" in failed.value.__cause__.__notes__[0]


def test_successes_refill_the_quota(engine: Engine) -> None:
    """A success returns one token, and a retry that succeeds returns its cost."""
    engine.failures = 10_000
    for _ in range(30):
        engine.read(timeout=1)
    engine.failures, before = 0, engine.spent
    engine.read()
    assert engine.spent == before - SUCCESS_REFUND
    for _ in range(20):
        engine.read()
    engine.failures, before = 1, engine.spent
    assert engine.read()[0]["a"] == 10
    assert engine.spent == before


@pytest.mark.parametrize(("code", "cost"), [("InternalServerError", 14), ("Throttling", 5)])
def test_throttles_cost_less_than_faults(engine: Engine, code: str, cost: int) -> None:
    """After two retries, the second of which succeeds, the quota lacks the cost of the first."""
    engine.error = refusal(code, 500 if cost == 14 else 400)
    engine.failures = 2
    engine.read()
    assert engine.spent == cost


def test_unprocessed_keys_do_not_use_up_the_quota(engine: Engine) -> None:
    """Unprocessed keys are sent again until the deadline, without using the quota."""
    store = engine.store
    store.write(User, [{"id": i, "a": i} for i in range(100)])
    store.table.read_at_most = 1
    rows = store.read(User, range(100), timeout=1000)
    assert rows.column("a") == list(range(100))
    assert (rows.report.unprocessed > 100, engine.spent) == (True, 0)


def test_each_region_has_a_quota(engine: Engine) -> None:
    """A region whose quota is used up does not affect the quota of another region."""
    wire = engine.store.backend._wire
    spent = wire._quota("us-east-1")
    while spent.take(ServerError()):
        pass
    assert not spent.allows(ServerError())
    assert wire._quota("us-west-2").allows(ServerError())


def test_the_quota_is_never_overdrawn_or_overfull() -> None:
    """Any sequence of retries and successes keeps the tokens between none and all."""
    rng, quota = random.Random(3), RetryQuota()
    for _ in range(2000):
        error = rng.choice([ServerError(), Throttled()])
        if rng.random() < 0.5:
            taken = quota.take(error)
            assert taken in (0, THROTTLE_COST, TRANSIENT_COST)
        else:
            quota.give_back(rng.choice([SUCCESS_REFUND, THROTTLE_COST, TRANSIENT_COST]))
        assert 0 <= quota.spent <= QUOTA_TOKENS


def test_a_caller_that_retries_by_itself_takes_nothing() -> None:
    """The writer's requests, which it repeats at its own pace, do not touch the quota."""
    quota, backoff = RetryQuota(), Backoff(RetryPolicy(), random.Random(1))
    waiting = pause(ServerError("no"), Call(10.0, retries=False), backoff, quota)
    with pytest.raises(ServerError):
        SimulatedDriver(lambda send, now: Reply(ServerError())).run(waiting)
    assert quota.spent == 0


# --- what is told ---------------------------------------------------------------------------


def test_throttling_reasons_are_counted(engine: Engine) -> None:
    """The report counts throttles by AWS's reason."""
    engine.error = refusal("ThrottlingException", throttlingReasons=[{"reason": REASON}])
    engine.failures = 2
    report = engine.read().report
    assert (report.throttles, report.throttling_reasons) == (2, {REASON: 2})


def test_an_error_says_which_attempt_failed(engine: Engine) -> None:
    """The last error of a call has the number of its attempt."""
    engine.failures = 10_000
    rows = engine.read(timeout=0.5)
    with pytest.raises(library_errors.ReadFailed) as failed:
        _ = rows[0]["a"]
    cause = failed.value.__cause__
    assert isinstance(cause, RequestError)
    assert cause.attempt == rows.report.requests > 2


def test_a_retry_is_logged_with_what_identifies_it(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Status, code, request id, attempt and delay are fields of a debug record."""
    caplog.set_level(logging.DEBUG, "chalk_online_store.requests")
    engine.failures = 1
    engine.error = with_headers(engine.error, x_amzn_requestid="KQNSO5")
    engine.read()
    (record,) = caplog.records
    said = record.__dict__
    assert said["event.name"] == "chalk.online_store.request.retry"
    assert (said["http.response.status_code"], said["chalk.error_code"]) == (
        500,
        "InternalServerError",
    )
    assert (said["aws.request_id"], said["chalk.attempt"]) == ("KQNSO5", 1)
    assert said["chalk.delay_seconds"] >= 0


# --- advice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("ValidationException", 400, "would be refused again"),
        ("InternalServerError", 500, "writing them again is safe"),
    ],
)
def test_the_advice_of_a_write_fits_the_error(code: str, status: int, said: str) -> None:
    """A permanent refusal does not suggest to write again, and an error that may pass does."""
    store = SimulatedStore([User])
    store.write(User, [{"id": 0, "a": 1}])
    store.table.fault = lambda operation, body, now: (
        refusal(code, status) if operation == "UpdateItem" else None
    )
    with pytest.raises(WriteFailed) as failed:
        store.write(User, [{"id": i, "a": 1} for i in range(2)], ordering="event", timeout=0.5)
    assert said in str(failed.value)
    assert ("writing them again is safe" in str(failed.value)) == (status == 500)
