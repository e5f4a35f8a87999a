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
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import errors
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.failures import failure, hide_values
from chalk_online_store.dynamodb.messages import Response
from tests.helpers import stress

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)


def refused(
    status: int = 400,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    sent: bytes = b"",
    **members: Any,
) -> Any:
    """The error of a response; its body is of `members`, unless it is given."""
    body = json.dumps(members).encode() if body is None else body
    what = "GetItem on table 'features'"
    return failure(Response(status, headers or {}, body), what, now=NOW_US, sent=sent)


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


SENT = json.dumps(
    {
        "TableName": "features",
        "Item": {
            "pk": {"S": "user:alice@example.com"},
            "a": {"N": "12345.50"},
            "b": {"M": {"street name": {"S": "x"}}},
            "c": {"SS": ["red", "green"]},
            "d": {"B": "AAECAw=="},
        },
    }
).encode()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "The provided key element does not match the schema",
            "The provided key element does not match the schema",
        ),
        (
            "Parameters were invalid: Type mismatch for key pk expected: S actual: N",
            "Parameters were invalid: Type mismatch for key pk expected: S actual: N",
        ),
        ("Bad key user:alice@example.com here", "Bad key … here"),
        ("Not a number: 12345.50", "Not a number: …"),
        ("Not a number: 1.23455e4, or 12345.5", "Not a number: …, or …"),
        ("No member street name in x, red or green", "No member … in …, … or …"),
        ("Bytes AAECAw== at 'any quoted text'", "Bytes … at …"),
        ('Syntax error; token: "abc", near: "a.b"', "Syntax error; token: …, near: …"),
        ("The item doesn't fit, it can't", "The item doesn't fit, it can't"),
    ],
)
def test_aws_reason_is_in_the_text_without_values(message: str, said: str) -> None:
    """The text of a refusal has AWS's message, with values of the request and quotes left out."""
    error = refused(sent=SENT, __type="ValidationException", message=message)
    assert str(error) == f"GetItem on table 'features': ValidationException: {said}."
    assert error.engine_message == message


@given(
    values=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4),
    numbers=st.lists(st.decimals(-(10**30), 10**30, allow_nan=False), max_size=3),
    data=st.data(),
)
@settings(max_examples=stress(40))
def test_no_value_of_a_request_gets_into_the_text(
    values: list[str], numbers: list[Any], data: st.DataObject
) -> None:
    """A text has an ellipsis in place of each value of the request that a message repeats."""
    item = {f"a{i}": {"S": value} for i, value in enumerate(values)}
    item |= {f"n{i}": {"N": str(value)} for i, value in enumerate(numbers)}
    quoted = [*values, *map(str, numbers)]
    words = data.draw(st.lists(st.sampled_from(quoted), min_size=1, max_size=5))
    said = hide_values("| " + " | ".join(words) + " |", json.dumps({"Item": item}).encode())
    assert [word for word in said.strip("| \n").split(" | ") if word.strip(" …|")] == []


@pytest.mark.parametrize("value", ["sNaN", "NaN", "Infinity", "1E+999999", "", " ", "(", "…"])
def test_odd_values_are_hidden_too(value: str) -> None:
    """Texts that are special to Decimal or to regular expressions are values like others."""
    sent = json.dumps({"Item": {"pk": {"S": value}, "M": {"M": {value: {"N": "1"}}}}}).encode()
    said = hide_values(f"Bad value: {value} ", sent)
    assert said.replace("…", "").strip() == "Bad value:"


def test_a_request_that_cannot_be_read_hides_the_whole_message() -> None:
    """Without the request's values, nothing of a message that may quote them is shown."""
    assert hide_values("value 4711 is wrong", b"{") == ""


def test_a_damaged_answer_is_identified_as_well() -> None:
    """A checksum that does not match, or a body of another form, keeps status and request id."""
    headers = {"x-amzn-requestid": "KQNSO5"}
    for more, body in (({"x-amz-crc32": "1"}, b"{}"), ({}, b"[]"), ({}, b"{")):
        with pytest.raises(errors.RequestError) as raised:
            answers.read(Response(200, headers | more, body), answers.written, "PutItem")
        assert (raised.value.http_status, raised.value.request_id) == (200, "KQNSO5")


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
