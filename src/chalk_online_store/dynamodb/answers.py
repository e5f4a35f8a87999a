"""DynamoDB's answers: typed decoding, and a class for every way to fail."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from chalk_online_store import errors
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.dynamodb.messages import Response

R = TypeVar("R")

_ABSENT = msgspec.Raw(b"")

RawItem: TypeAlias = dict[str, msgspec.Raw]
"""An item whose attributes are still JSON."""


class Capacity(msgspec.Struct, gc=False):
    """Consumed capacity units of one table."""

    CapacityUnits: float = 0.0


def capacity_units(answer: Any) -> float:
    """What an answer of any operation says was consumed."""
    consumed = answer.ConsumedCapacity
    if isinstance(consumed, list):
        return float(sum(table.CapacityUnits for table in consumed))
    return consumed.CapacityUnits if consumed else 0.0


class Written(msgspec.Struct):
    """PutItem, UpdateItem, DeleteItem."""

    ConsumedCapacity: Capacity | None = None


class Transacted(msgspec.Struct):
    """TransactWriteItems."""

    ConsumedCapacity: list[Capacity] = []


class Got(msgspec.Struct, Generic[R]):
    """GetItem."""

    Item: R | None = None
    ConsumedCapacity: Capacity | None = None


class Queried(msgspec.Struct):
    """Query."""

    Items: list[RawItem]
    LastEvaluatedKey: msgspec.Raw = _ABSENT
    ConsumedCapacity: Capacity | None = None


class LeftKeys(msgspec.Struct):
    """The keys of one table that BatchGetItem left."""

    Keys: list[RawItem]


class BatchGot(msgspec.Struct, Generic[R]):
    """BatchGetItem."""

    Responses: dict[str, list[R]] = {}
    UnprocessedKeys: dict[str, LeftKeys] = {}
    ConsumedCapacity: list[Capacity] = []

    def rows(self) -> Iterator[R]:
        """The rows of every table: there is one."""
        return itertools.chain.from_iterable(self.Responses.values())


class PutRequest(msgspec.Struct):
    """An unprocessed put."""

    Item: RawItem


class DeleteRequest(msgspec.Struct):
    """An unprocessed delete."""

    Key: RawItem


class WriteRequest(msgspec.Struct):
    """An unprocessed write: one field is set."""

    PutRequest: PutRequest | None = None
    DeleteRequest: DeleteRequest | None = None

    @property
    def key(self) -> RawItem:
        """The attributes that hold the key, perhaps among others."""
        if self.PutRequest:
            return self.PutRequest.Item
        if self.DeleteRequest:
            return self.DeleteRequest.Key
        raise errors.MalformedResponse("BatchWriteItem left a request that is none.")


class BatchWritten(msgspec.Struct):
    """BatchWriteItem."""

    UnprocessedItems: dict[str, list[WriteRequest]] = {}
    ConsumedCapacity: list[Capacity] = []


class CancellationReason(msgspec.Struct):
    """Why one action of a transaction failed; "None" where it did not."""

    Code: str | None = None


class Failure(msgspec.Struct, rename={"type": "__type"}):
    """Any answer that is not 200."""

    type: str = ""
    message: str = ""
    Message: str = ""
    Item: msgspec.Raw = _ABSENT
    CancellationReasons: list[CancellationReason] = []


written = msgspec.json.Decoder(Written, strict=False)
transacted = msgspec.json.Decoder(Transacted, strict=False)
queried = msgspec.json.Decoder(Queried, strict=False)
batch_written = msgspec.json.Decoder(BatchWritten, strict=False)
raw_item = msgspec.json.Decoder(Got[RawItem])
_failure = msgspec.json.Decoder(Failure)


@lru_cache(maxsize=1024)
def got(row_type: type[Any]) -> msgspec.json.Decoder[Got[Any]]:
    """GetItem's decoder for one type of rows."""
    return msgspec.json.Decoder(Got[row_type], strict=False)  # type: ignore[valid-type]


@lru_cache(maxsize=1024)
def batch_got(row_type: type[Any]) -> msgspec.json.Decoder[BatchGot[Any]]:
    """BatchGetItem's decoder for one type of rows."""
    return msgspec.json.Decoder(BatchGot[row_type], strict=False)  # type: ignore[valid-type]


def read(response: Response, decoder: msgspec.json.Decoder[R], what: str) -> R:
    """The answer in a response; `what` names operation and table for the error.

    Raises the class of `errors.RequestError` that fits, also for a body whose CRC32 is not the
    one that DynamoDB sent with it.
    """
    checksum = response.headers.get("x-amz-crc32")
    if checksum is not None and str(zlib.crc32(response.body)) != checksum.strip():
        raise errors.ChecksumMismatch(f"{what}: the answer was damaged on its way.")
    if response.status != 200:
        raise failure(response, what)
    try:
        return decoder.decode(response.body)
    except msgspec.ValidationError as error:
        raise errors.DamagedItem(f"{what}: an item is not as the schema says: {error}.") from error
    except UNREADABLE as error:
        raise errors.MalformedResponse(f"{what}: the answer is not JSON.") from error


_CLASSES: dict[str, type[errors.RequestError]] = {
    "ProvisionedThroughputExceededException": errors.Throttled,
    "ThrottlingException": errors.Throttled,
    "RequestLimitExceeded": errors.Throttled,
    "ConditionalCheckFailedException": errors.ConditionFailed,
    "TransactionConflictException": errors.WriteConflict,
    "TransactionInProgressException": errors.WriteConflict,
    "ReplicatedWriteConflictException": errors.WriteConflict,
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

_WAY_OUT: dict[type[errors.RequestError], str] = {
    errors.TableNotFound: "Create the table, or check its name and region in the URL.",
    errors.AccessDenied: "Grant the credentials this action on the table.",
    errors.InvalidCredentials: "Check the profile or the AWS_* variables that they come from.",
}


def failure(response: Response, what: str) -> errors.OnlineStoreError:
    """The error in a response that is not 200."""
    try:
        answer = _failure.decode(response.body)
    except UNREADABLE:
        answer = Failure()
    code = answer.type.rpartition("#")[2]
    kind = _class_of(code, response.status, answer)
    text = f"{what}: {code or f'HTTP {response.status}'}."
    way_out = _WAY_OUT.get(kind)
    error: errors.OnlineStoreError = kind(f"{text} {way_out}" if way_out else text)
    if isinstance(error, errors.RequestError):
        error.engine_message = answer.message or answer.Message
    if isinstance(error, errors.ConditionFailed):
        error.item = bytes(answer.Item) or None
    return error


def _class_of(code: str, status: int, answer: Failure) -> type[Any]:
    if code == "TransactionCanceledException":
        return _class_of_cancellation(answer)
    message = answer.message or answer.Message
    if code == "ValidationException" and "exceeded the maximum allowed size" in message:
        return errors.ItemTooLarge
    if code in _CLASSES:
        return _CLASSES[code]
    return errors.ServerError if status >= 500 else errors.RequestRefused


def _class_of_cancellation(answer: Failure) -> type[errors.RequestError]:
    codes = {reason.Code for reason in answer.CancellationReasons} - {None, "None"}
    if "ConditionalCheckFailed" in codes:
        return errors.ConditionFailed
    if codes & {"ThrottlingError", "ProvisionedThroughputExceeded"}:
        return errors.Throttled
    return errors.WriteConflict if "TransactionConflict" in codes else errors.RequestRefused
