"""Error responses of DynamoDB, and of proxies before it, as exceptions.

The code of an error can be in the body (`__type`, `code`) or in the header `x-amzn-errortype`,
with a namespace before "#" or a URI after ":": Smithy's AWS JSON protocols allow all of these.
Which codes are worth a retry follows botocore's standard retry mode, to which a test compares this
table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import msgspec

from chalk_online_store import errors
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.dynamodb.messages import Response

# --- An engine's error messages, without the keys and values of the request ----------------
#
# AWS's messages name the rule that was broken, and some quote the key or the value that broke it:
# "The parameter cannot be converted to a numeric value: 12x". Errors and logs need the rule and
# must not have the value. The values are known, since the request was sent from here: each one is
# replaced by an ellipsis, and so is everything in quotation marks.


HIDDEN = "…"

_SCALARS = frozenset(("S", "N", "B"))
_QUOTED_TEXT = re.compile(r"""(?<![^\s(:=\[])(["'`]).*?\1(?!\w)""")
_NUMBER = re.compile(r"-?\d[\d.]*(?:[eE][+-]?\d+)?")
_SHORT = 4
"""Shorter values are replaced only as whole words: "a" is part of most words."""


def hide_values(text: str, sent: bytes) -> str:
    """Return an engine's message without the values of the request body `sent`.

    Returns an empty text if the body cannot be read, since its values are not known then.
    """
    try:
        values = set(_values(msgspec.json.decode(sent)))
    except (msgspec.DecodeError, RecursionError):
        return ""
    numbers = {number for value in values if (number := _as_number(value)) is not None}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORT:
            text = text.replace(value, HIDDEN)
        elif value:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    text = _QUOTED_TEXT.sub(HIDDEN, text)
    return _NUMBER.sub(lambda found: _hide_number(found[0], numbers), text)


def _values(node: Any) -> Iterator[str]:
    """Yield the scalars of the attribute values in a request, and the names within maps."""
    if isinstance(node, list):
        for each in node:
            yield from _values(each)
        return
    if not isinstance(node, dict):
        return
    for name, child in node.items():
        if name in _SCALARS and isinstance(child, str):
            yield child
        elif name in ("SS", "NS", "BS") and isinstance(child, list):
            yield from (each for each in child if isinstance(each, str))
        else:
            if name == "M" and isinstance(child, dict):
                yield from child
            yield from _values(child)


def _as_number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None  # A signaling NaN cannot be in a set.


def _hide_number(text: str, numbers: set[Decimal]) -> str:
    return HIDDEN if _as_number(text.rstrip(".")) in numbers else text


_ABSENT = msgspec.Raw()
_MAX_SKEW_SECONDS = 240.0
"""AWS refuses a signature that is more than 5 minutes old."""


class CancellationReason(msgspec.Struct):
    """Why one action of a transaction failed; "None" if it did not."""

    Code: str | None = None


class ThrottlingReason(msgspec.Struct):
    """Why AWS throttled, for one table or index."""

    reason: str | None = None


_RENAMED = {"type": "__type", "upper_code": "Code", "reasons": "throttlingReasons"}


class Failure(msgspec.Struct, rename=_RENAMED):
    """The members of a response that is not 200."""

    type: str | None = None
    code: str | None = None
    upper_code: str | None = None
    message: str | None = None
    Message: str | None = None
    Item: msgspec.Raw = _ABSENT
    CancellationReasons: list[CancellationReason] | None = None
    ThrottlingReasons: list[ThrottlingReason] | None = None
    reasons: list[ThrottlingReason] | None = None

    @property
    def text(self) -> str:
        """What the engine says; it may quote keys and values."""
        return self.message or self.Message or ""

    @property
    def throttling_reasons(self) -> tuple[str, ...]:
        """The distinct reasons of a throttle. The member's name differs between error classes."""
        given = self.ThrottlingReasons or self.reasons or ()
        return tuple(dict.fromkeys(each.reason for each in given if each.reason))


CheckFailure: TypeAlias = Callable[[str, Failure], None]
"""Raises for a failure, of this code, that is of another request."""

_failure = msgspec.json.Decoder(Failure)

_CLASSES: dict[str, type[errors.RequestError]] = {
    # Throttles of botocore's standard mode.
    "BandwidthLimitExceeded": errors.Throttled,
    "EC2ThrottledException": errors.Throttled,
    "LimitExceededException": errors.Throttled,
    "PriorRequestNotComplete": errors.Throttled,
    "ProvisionedThroughputExceededException": errors.Throttled,
    "RequestLimitExceeded": errors.Throttled,
    "RequestThrottled": errors.Throttled,
    "RequestThrottledException": errors.Throttled,
    "SlowDown": errors.Throttled,
    "ThrottledException": errors.Throttled,
    "Throttling": errors.Throttled,
    "ThrottlingException": errors.Throttled,
    "TooManyRequestsException": errors.Throttled,
    # Its transient errors.
    "RequestTimeout": errors.ServerError,
    "RequestTimeoutException": errors.ServerError,
    "InternalServerError": errors.ServerError,
    # Conditional and concurrent writes.
    "ConditionalCheckFailedException": errors.ConditionFailed,
    "TransactionConflictException": errors.WriteConflict,
    "TransactionInProgressException": errors.WriteConflict,
    "ReplicatedWriteConflictException": errors.WriteConflict,
    # Refusals that no retry mends.
    "ResourceNotFoundException": errors.TableNotFound,
    "AccessDeniedException": errors.AccessDenied,
    "ExpiredTokenException": errors.CredentialsExpired,
    "ExpiredToken": errors.CredentialsExpired,
    "UnrecognizedClientException": errors.InvalidCredentials,
    "InvalidSignatureException": errors.InvalidCredentials,
    "IncompleteSignatureException": errors.InvalidCredentials,
    "MissingAuthenticationTokenException": errors.InvalidCredentials,
    "MissingAuthenticationToken": errors.InvalidCredentials,
    "InvalidClientTokenId": errors.InvalidCredentials,
}

_CLASSES_BY_STATUS: dict[int, type[errors.RequestError]] = {
    407: errors.ProxyRefused,  # Proxy Authentication Required
    408: errors.ServerError,  # Request Timeout
    429: errors.Throttled,  # Too Many Requests
}
"""For responses without a code that is known, such as those of a proxy."""

_REMEDIES: dict[type[errors.RequestError], str] = {
    errors.TableNotFound: "Create the table, or check its name and region in the URL.",
    errors.VectorIndexUnavailable: (
        "Create the index with `provision`, or wait until it is built; `doctor` shows its state."
    ),
    errors.AccessDenied: "Grant the credentials this action on the table.",
    errors.InvalidCredentials: "Check the profile or the AWS_* variables that they come from.",
    errors.ProxyRefused: "Set user and password in the proxy's URL: http://USER:PASSWORD@HOST:PORT.",
}

_NOT_AWS = "The response is not AWS's: a proxy or a load balancer sent it."

_THROTTLE_REMEDIES = {
    "KeyRangeThroughputExceeded": "One partition is hot: cache its keys, or spread them.",
    "ProvisionedThroughputExceeded": "Raise the table's provisioned capacity.",
    "MaxOnDemandThroughputExceeded": "Raise the table's maximum on-demand throughput.",
    "AccountLimitExceeded": "Ask AWS for a higher account quota.",
}
"""By the end of AWS's throttling reason; the start names the table or an index, read or write."""

_QUOTED = (
    errors.AccessDenied,
    errors.InvalidCredentials,
    errors.TableNotFound,
    errors.VectorIndexUnavailable,
    errors.ServerError,
)
"""Errors whose message by AWS names principals and resources, and never keys or values. The
message of any other error is quoted without the values of its request."""

_UNINFORMATIVE = (errors.ConditionFailed,)
"""Errors whose message repeats their code. Late writes are answered so, and need no search."""

_MAX_QUOTED = 300

_MAX_RETRY_AFTER_MS = 2**53
"""More than that is not a time, and larger integers do not fit a float."""


def code_of(answer: Failure, response: Response) -> str:
    """The error's name without namespace and URI; empty if there is none."""
    header = response.headers.get("x-amzn-errortype")
    code = answer.type or header or answer.code or answer.upper_code or ""
    return code.partition(":")[0].rpartition("#")[2].strip()


def failure(
    response: Response,
    what: str,
    check: CheckFailure | None = None,
    now: int | None = None,
    sent: bytes = b"",
) -> errors.OnlineStoreError:
    """The error in a response that is not 200; `what` names operation and table.

    `now` is this machine's clock, in UTC microseconds, to recognise that it is wrong. `sent` is the
    body of the request, so that its values can be left out of AWS's message. Raises what `check`
    does.
    """
    try:
        answer = _failure.decode(response.body)
    except UNREADABLE:
        answer = Failure()
    code = code_of(answer, response)
    if check is not None:
        check(code, answer)
    kind = _class_of(code, response.status, answer)
    reason = _reason(kind, answer.text, sent)
    error: errors.OnlineStoreError = kind(_text(kind, code, reason, answer, response, what, now))
    if isinstance(error, errors.RequestError):
        error.engine_message = answer.text
        error.code = code
        identify(error, response)
        error.throttling_reasons = answer.throttling_reasons
        error.retry_after = _retry_after(response)
    if isinstance(error, errors.ConditionFailed):
        error.item = bytes(answer.Item) or None
    return error


def identify(error: errors.RequestError, response: Response) -> None:
    """Note on an error which response it is about."""
    error.http_status = response.status
    error.request_id = response.headers.get("x-amzn-requestid", "")


def _reason(kind: type[Any], message: str, sent: bytes) -> str:
    """AWS's reason for the error's text, without values; empty if that cannot be had."""
    # Further lines of a refused signature repeat the headers, the session token among them.
    message = message.partition("\n")[0]
    if issubclass(kind, _UNINFORMATIVE):
        return ""
    if not issubclass(kind, _QUOTED):
        message = hide_values(message, sent)
    return message[:_MAX_QUOTED].rstrip(".")


def _retry_after(response: Response) -> float | None:
    """The seconds in `x-amz-retry-after`, which has milliseconds; None if they cannot be read."""
    try:
        milliseconds = int(response.headers.get("x-amz-retry-after", ""))
    except ValueError:
        return None
    return milliseconds / 1000 if 0 <= milliseconds <= _MAX_RETRY_AFTER_MS else None


_NO_INDEX = re.compile(r"does not have the specified index|Cannot search backfilling vector index")
"""AWS's reasons for a search of an index that does not exist, or is being built. The endpoint for
searches can lag behind DescribeTable."""

_ITEM_TOO_LARGE = re.compile(r"Item size.* exceeded the maximum allowed size")
"""DynamoDB says the same of an expression, which is a bug here and not the caller's."""


def _class_of(code: str, status: int, answer: Failure) -> type[Any]:
    if code == "TransactionCanceledException":
        return _class_of_cancellation(answer)
    if code == "ValidationException" and _ITEM_TOO_LARGE.search(answer.text):
        return errors.ItemTooLarge
    if code == "ValidationException" and _NO_INDEX.search(answer.text):
        return errors.VectorIndexUnavailable
    if code in _CLASSES:
        return _CLASSES[code]
    if status in _CLASSES_BY_STATUS:
        return _CLASSES_BY_STATUS[status]
    return errors.ServerError if status >= 500 else errors.RequestRefused


def _class_of_cancellation(answer: Failure) -> type[errors.RequestError]:
    reasons = answer.CancellationReasons or ()
    codes = {reason.Code for reason in reasons} - {None, "None"}
    if "ConditionalCheckFailed" in codes:
        return errors.ConditionFailed
    if codes & {"ThrottlingError", "ProvisionedThroughputExceeded"}:
        return errors.Throttled
    return errors.WriteConflict if "TransactionConflict" in codes else errors.RequestRefused


def _text(
    kind: type[Any],
    code: str,
    reason: str,
    answer: Failure,
    response: Response,
    what: str,
    now: int | None,
) -> str:
    sentences = [f"{what}: {code or f'HTTP {response.status}'}"]
    if reason:
        sentences[0] += f": {reason}"
    if answer.throttling_reasons:
        sentences[0] += f" ({', '.join(answer.throttling_reasons)})"
    remedy = None
    if now is not None and issubclass(kind, errors.InvalidCredentials):
        remedy = _skew(response, now)
    for throttled in answer.throttling_reasons:
        ends = (text for end, text in _THROTTLE_REMEDIES.items() if throttled.endswith(end))
        remedy = remedy or next(ends, None)
    remedy = remedy or _REMEDIES.get(kind) or (None if code or answer.text else _NOT_AWS)
    if remedy:
        sentences.append(remedy)
    if request_id := response.headers.get("x-amzn-requestid"):
        sentences.append(f"Request id: {request_id}")
    return ". ".join(sentence.rstrip(".") for sentence in sentences) + "."


def _skew(response: Response, now: int) -> str | None:
    """The remedy if this machine's clock is why a signature was refused."""
    try:
        theirs = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return None
    ahead = now / 1e6 - theirs
    if abs(ahead) < _MAX_SKEW_SECONDS:
        return None
    where = "ahead of" if ahead > 0 else "behind"
    minutes = round(abs(ahead) / 60)
    return f"The clock of this machine is {minutes} minutes {where} AWS's: set it, as with NTP."
