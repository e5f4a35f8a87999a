"""Error responses: their codes in every form, their classes, and what botocore would retry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.retries import standard as _standard

from chalk_online_store import errors
from chalk_online_store.dynamodb.failures import failure
from chalk_online_store.dynamodb.messages import Response

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)


def refused(
    status: int = 400,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    **members: Any,
) -> Any:
    """The error of a response; its body is of `members`, unless it is given."""
    body = json.dumps(members).encode() if body is None else body
    return failure(Response(status, headers or {}, body), "GetItem on table 'features'", now=NOW_US)


# --- what is retried, by botocore's standard mode -------------------------------------------

standard: Any = _standard
MODEL: Any = botocore.session.Session().get_service_model("dynamodb")
THROTTLES = standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES
CODES = sorted(
    {
        *(shape.error_code for shape in MODEL.error_shapes),
        *THROTTLES,
        *standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES,
        "AccessDeniedException",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "ValidationException",
        "InternalServerError",
    }
)
OURS_ALONE = {
    # The same write may succeed once the other one has ended, and ours are idempotent.
    "TransactionConflictException",
}


def botocore_retries(code: str, status: int) -> bool:
    """Return True if botocore's standard mode sends a request again that is answered like this."""
    operations = map(MODEL.operation_model, MODEL.operation_names)
    operation = next(
        (o for o in operations if code in {e.error_code for e in o.error_shapes}), None
    )
    context = standard.RetryContext(
        attempt_number=1,
        operation_model=operation or MODEL.operation_model("GetItem"),
        parsed_response={"Error": {"Code": code, "Message": "no"}},
        http_response=AWSResponse("https://dynamodb", status, {}, None),  # type: ignore[arg-type]
        caught_exception=None,
    )
    return bool(standard.StandardRetryConditions(max_attempts=4).is_retryable(context))


@pytest.mark.parametrize("code", CODES)
def test_what_botocore_retries_is_retried(code: str) -> None:
    """Every error of botocore's model and retry tables is retried here if botocore retries it."""
    shape = next((each for each in MODEL.error_shapes if each.error_code == code), None)
    fault = bool(shape and shape.metadata.get("fault")) or code == "InternalServerError"
    status = 500 if fault else 400
    ours = refused(status, __type=f"com.amazonaws.dynamodb.v20120810#{code}", message="no")
    assert ours.retryable == (botocore_retries(code, status) or code in OURS_ALONE)
    assert ours.code == code


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_a_transient_status_without_a_code_is_retried(status: int) -> None:
    """A proxy's 5xx, 408 and 429 are retried, although their body is not JSON."""
    error = refused(status, body=b"<html>later</html>")
    assert error.retryable
    assert error.http_status == status


def test_throttles_are_proof_of_life() -> None:
    """Every code of a throttle counts as a throttle, not as a fault of the region."""
    for code in THROTTLES:
        error = refused(__type=code)
        if code != "TransactionInProgressException":
            assert (type(error), error.throttle, error.engine_fault) == (
                errors.Throttled,
                True,
                False,
            )


# --- forms of a code -------------------------------------------------------------------------

FORMS: dict[str, tuple[dict[str, str], bytes]] = {
    "type": ({}, b'{"__type":"ThrottlingException"}'),
    "type with a namespace": ({}, b'{"__type":"com.amazon.coral#ThrottlingException"}'),
    "type with a URI": ({}, b'{"__type":"ThrottlingException:http://internal.amazon.com/coral/"}'),
    "both": ({}, b'{"__type":"aws#ThrottlingException:http://internal.amazon.com/coral/"}'),
    "message null": ({}, b'{"__type":"ThrottlingException","message":null,"Message":null}'),
    "header": ({"x-amzn-errortype": "ThrottlingException"}, b"{}"),
    "header with a URI": ({"x-amzn-errortype": "ThrottlingException:http://internal/"}, b"{}"),
    "header of an empty body": ({"x-amzn-errortype": "ThrottlingException"}, b""),
    "header of a body of HTML": ({"x-amzn-errortype": "ThrottlingException"}, b"<html>"),
    "code": ({}, b'{"code":"ThrottlingException","message":"Slow down."}'),
    "Code": ({}, b'{"Code":"ThrottlingException"}'),
    "reasons null": ({}, b'{"__type":"ThrottlingException","ThrottlingReasons":null}'),
    "a reason null": (
        {},
        b'{"__type":"ThrottlingException","throttlingReasons":[{"reason":null}]}',
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_code_is_found_in_each_form(form: str) -> None:
    """The code is read from `__type`, `code` or the header, without namespace and URI."""
    headers, body = FORMS[form]
    error = refused(headers=headers, body=body)
    assert (type(error), error.code) == (errors.Throttled, "ThrottlingException")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b'{"__type":3}', b"[" * 10_000])
def test_a_body_that_is_no_error_has_the_class_of_its_status(body: bytes) -> None:
    """Bodies of another form give a refusal for 400 and a server error for 500."""
    assert type(refused(400, body=body)) is errors.RequestRefused
    assert type(refused(500, body=body)) is errors.ServerError


# --- what an error says ----------------------------------------------------------------------


def test_an_error_carries_what_support_asks_for() -> None:
    """Status, code, message and request id are attributes, and the id is in the text."""
    headers = {"x-amzn-requestid": "KQNSO5AEMVJF66Q9ASUAAJG"}
    error = refused(headers=headers, __type="aws#AccessDeniedException", message="No KMS access")
    assert (error.http_status, error.code) == (400, "AccessDeniedException")
    assert (error.engine_message, error.request_id) == ("No KMS access", "KQNSO5AEMVJF66Q9ASUAAJG")
    assert str(error) == (
        "GetItem on table 'features': AccessDeniedException: No KMS access. Grant the credentials "
        "this action on the table. Request id: KQNSO5AEMVJF66Q9ASUAAJG."
    )


def test_a_message_that_may_quote_values_stays_out_of_the_text() -> None:
    """The message of a validation error or a refused condition is an attribute only."""
    for code in ("ValidationException", "ConditionalCheckFailedException"):
        error = refused(__type=code, message="value 4711 is wrong")
        assert "4711" not in str(error)
        assert "4711" in error.engine_message


def test_a_session_token_stays_out_of_the_text() -> None:
    """Only the first line of AWS's message on a signature is quoted: the others repeat headers."""
    message = "The signature does not match.\n\nThe headers were\nx-amz-security-token:SECRET"
    error = refused(__type="InvalidSignatureException", message=message)
    assert "The signature does not match." in str(error)
    assert "SECRET" not in str(error)


@pytest.mark.parametrize("member", ["ThrottlingReasons", "throttlingReasons"])
def test_a_throttle_tells_its_reason_and_what_to_do(member: str) -> None:
    """AWS's throttling reason is in the attribute and the text, with advice that fits it."""
    reason = "TableReadKeyRangeThroughputExceeded"
    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/features"
    told = {"reason": reason, "resource": arn}
    members: dict[str, Any] = {member: [told, told]}
    error = refused(__type="ProvisionedThroughputExceededException", **members)
    assert error.throttling_reasons == (reason,)
    assert f"({reason})" in str(error)
    assert "One partition is hot" in str(error)


@pytest.mark.parametrize(
    ("seconds", "said"), [(900, "15 minutes behind AWS's"), (-900, "15 minutes ahead of AWS's")]
)
def test_a_wrong_clock_is_named(seconds: int, said: str) -> None:
    """A refused signature and a Date far from ours says that this machine's clock is wrong."""
    date = format_datetime(datetime.fromtimestamp(NOW.timestamp() + seconds, UTC), usegmt=True)
    error = refused(headers={"date": date}, __type="InvalidSignatureException")
    assert said in str(error)


@pytest.mark.parametrize("date", ["", "yesterday", format_datetime(NOW, usegmt=True)])
def test_a_right_clock_is_not_blamed(date: str) -> None:
    """Without a Date, or with one like ours, the advice is about the credentials."""
    error = refused(headers={"date": date}, __type="InvalidSignatureException")
    assert "clock" not in str(error)
    assert "AWS_*" in str(error)
