"""DynamoDB's answers in the forms that AWS gives them: errors, batches that leave a part."""

from __future__ import annotations

import json
import math
import random
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from .messages import Answer, Headers, Request, make_answer

API = "com.amazonaws.dynamodb.v20120810"
TOLERANCE = timedelta(minutes=5)
"""AWS: how far the date of a signature may be off."""

_DATE = "%Y%m%dT%H%M%SZ"
_BATCHES = {
    "BatchGetItem": ("UnprocessedKeys", "Responses"),
    "BatchWriteItem": ("UnprocessedItems", ""),
}


def refusal(status: int, code: str, message: str) -> Answer:
    """An error, as `__type` and a message."""
    return make_answer(status, encode({"__type": code, "message": message}), [])


def server_fault(status: int) -> Answer:
    """500 and 503 have names of their own."""
    code = "ServiceUnavailable" if status == 503 else "InternalServerError"
    return refusal(status, f"{API}#{code}", "The request processing has failed.")


def throttle() -> Answer:
    """What a table says whose units are used up."""
    return refusal(
        400,
        f"{API}#ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider "
        "increasing your provisioning level with the UpdateTable API.",
    )


def skewed(request: Request, now: datetime) -> Answer | None:
    """What AWS says at `now` of a signature that is too old or too new; None if it is neither."""
    text = (request.header(b"x-amz-date") or b"").decode("latin-1")
    try:
        signed = datetime.strptime(text, _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None
    if abs(signed - now) <= TOLERANCE:
        return None
    verdict, edge, sign = (
        ("expired: {} is now earlier than", now - TOLERANCE, "-")
        if signed < now
        else ("not yet current: {} is still later than", now + TOLERANCE, "+")
    )
    message = f"Signature {verdict.format(text)} {edge:{_DATE}} ({now:{_DATE}} {sign} 5 min.)"
    return refusal(400, "com.amazon.coral.service#InvalidSignatureException", message)


def dated(answer: Answer, now: datetime) -> Answer:
    """An answer whose `Date` shows `now`."""
    date = format_datetime(now, usegmt=True).encode()
    return answer.but(headers=answer.with_header(b"date", date))


def signed_by_crc(answer: Answer) -> Answer:
    """An answer whose `x-amz-crc32` fits its body, with the other headers that DynamoDB sends."""
    crc = b"%d" % zlib.crc32(answer.body)
    headers: Headers = [(b"content-type", b"application/x-amz-json-1.0")]
    missing = [header for header in headers if answer.header(header[0]) is None]
    return answer.but(headers=[*answer.with_header(b"x-amz-crc32", crc), *missing])


def damaged(answer: Answer) -> Answer:
    """An answer with a flipped bit in its body, and a CRC of what the body was."""
    if answer.header(b"x-amz-crc32") is None:
        answer = signed_by_crc(answer)
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    return answer.but(body=bytes(body))


class LeftBatch:
    """A batch of which a part is not even sent to the engine."""

    def __init__(self, request: Request, share: float, rng: random.Random) -> None:
        self._left_name = _BATCHES[request.operation][0]
        self._answers_by = _BATCHES[request.operation][1]
        self._asked = json.loads(request.body)
        self._left = self._draw(share, rng)

    @staticmethod
    def concerns(request: Request) -> bool:
        """Whether a request is a batch."""
        return request.operation in _BATCHES

    def _draw(self, share: float, rng: random.Random) -> dict[str, list[Any]]:
        entries = [(table, e) for table, some in self._tables() for e in _entries(some)]
        count = math.ceil(share * len(entries))
        if share < 1:
            count = min(count, len(entries) - 1)
        left: dict[str, list[Any]] = {}
        for table, entry in rng.sample(entries, max(count, 0)):
            left.setdefault(table, []).append(entry)
        return left

    def _tables(self) -> list[tuple[str, Any]]:
        return list(self._asked.get("RequestItems", {}).items())

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to send."""
        return not any(self._sent().values())

    def _sent(self) -> dict[str, list[Any]]:
        return {
            table: [entry for entry in _entries(some) if entry not in self._left.get(table, ())]
            for table, some in self._tables()
        }

    def body(self) -> bytes:
        """The batch without what is left."""
        sent = {
            table: _with_entries(self._asked["RequestItems"][table], entries)
            for table, entries in self._sent().items()
            if entries
        }
        return encode({**self._asked, "RequestItems": sent})

    def report(self, answer: Answer) -> Answer:
        """The engine's answer, with what was left added to what it left itself."""
        if answer.status != 200:
            return answer
        told = json.loads(answer.body)
        unprocessed = told.setdefault(self._left_name, {})
        for table, entries in self._left.items():
            of_engine = _entries(unprocessed[table]) if table in unprocessed else []
            asked = self._asked["RequestItems"][table]
            unprocessed[table] = _with_entries(asked, [*of_engine, *entries])
            if self._answers_by:
                told.setdefault(self._answers_by, {}).setdefault(table, [])
        return signed_by_crc(answer.but(body=encode(told)))


def _entries(some: Any) -> list[Any]:
    """The keys of a table in BatchGetItem; its write requests in BatchWriteItem."""
    entries: list[Any] = some["Keys"] if isinstance(some, dict) else some
    return entries


def _with_entries(some: Any, entries: list[Any]) -> Any:
    return {**some, "Keys": entries} if isinstance(some, dict) else entries


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
