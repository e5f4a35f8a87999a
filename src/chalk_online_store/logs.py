"""What log records say beside their text: an event's name, and its facts as fields.

They are attributes of the record, so that a formatter for JSON, or OpenTelemetry's handler, takes
them up. Never a key, a value or a secret.
"""

from __future__ import annotations

import logging
import os

from chalk_online_store.errors import RequestError


class LastResort(logging.Handler):
    """Prints errors to stderr if logging is not configured: lost rows must be noticed.

    Less severe records are not printed then: any handler on this logger, and this is one, stops
    Python's own `logging.lastResort`, which would print warnings as well.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless another handler of its logger or of a parent takes it."""
        last_resort = logging.lastResort
        if last_resort is not None and not _has_other_handlers(logging.getLogger(record.name)):
            last_resort.handle(record)


def _has_other_handlers(logger: logging.Logger | None) -> bool:
    while logger is not None:
        if any(not isinstance(handler, LastResort) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


logging.getLogger("chalk_online_store").addHandler(LastResort(logging.ERROR))

_NAMES = {"error": "error.type", "region": "cloud.region", "path": "file.path"}
"""As OpenTelemetry's semantic conventions call them; what is ours begins with `chalk.`."""

_REQUEST_NAMES = {
    "http_status": "http.response.status_code",
    "request_id": "aws.request_id",
    "region": "cloud.region",
    "code": "chalk.error_code",
    "attempt": "chalk.attempt",
}
"""Fields of a log record for the attributes of a `RequestError` that are set."""


def event(name: str, **facts: object) -> dict[str, object]:
    """The `extra` of a log record. Of an exception its class is told, of a path its text.

    Of an error that a request caused, the status, AWS's code, the request id, the region and the
    attempt are told as well.
    """
    said: dict[str, object] = {"event.name": f"chalk.online_store.{name}"}
    for key, fact in facts.items():
        said[_NAMES.get(key, f"chalk.{key}")] = _plain(fact)
        if isinstance(fact, BaseException):
            said |= _request_facts(fact)
    return said


def _request_facts(error: BaseException) -> dict[str, object]:
    """What is known of the request that failed, perhaps as the cause of `error`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RequestError):
        cause = cause.__cause__
    found = {field: getattr(cause, name, None) for name, field in _REQUEST_NAMES.items()}
    return {field: fact for field, fact in found.items() if fact}


def _plain(fact: object) -> object:
    if isinstance(fact, BaseException):
        return type(fact).__name__
    return os.fspath(fact) if isinstance(fact, os.PathLike) else fact
