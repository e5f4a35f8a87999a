"""Every exception of this library.

All of them derive from `OnlineStoreError`. Three families lie below it:

- what the caller got wrong, found before anything is sent (`InvalidURL`, `InvalidSchema`,
  `InvalidValue`, `InvalidKey`, …);
- what an engine or the network answered (`RequestError` and below);
- what a call could not finish (`ReadFailed`, `WriteFailed`).

Messages name the feature, the key's type or the URL at fault and the way out. They never hold
a key, a value or a secret: those could end up in a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chalk_online_store.report import Report


class OnlineStoreError(Exception):
    """Base of every error that this library raises. It survives `pickle` and `copy`."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore an error without its constructor, which may take more than its message."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[OnlineStoreError], args: tuple[Any, ...], state: Any) -> OnlineStoreError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError, the base of TimeoutError, leaves them to its constructor.
    error.__dict__.update(state)
    return error


# --- what the caller got wrong -------------------------------------------------------------


class InvalidURL(OnlineStoreError, ValueError):
    """A store URL that cannot be understood."""


class InvalidSchema(OnlineStoreError, ValueError):
    """A namespace or feature that cannot be declared like this."""


class InvalidNetworkSettings(InvalidURL):
    """Raised if a proxy, a CA bundle or an endpoint mode of the environment cannot be used.

    They can also come from a profile, or from the `botocore.config.Config` of a session.
    """


class UnknownFeature(OnlineStoreError, KeyError):
    """A feature, or a namespace, that the store's schema does not have."""

    __str__ = Exception.__str__  # KeyError's would put the whole message in quotes.


class InvalidValue(OnlineStoreError, ValueError):
    """A value that its feature's declared type cannot hold exactly."""


class FutureTimestamp(InvalidValue):
    """Raised if an observed-at is further ahead of this process's clock than `max_future_skew`."""


class InvalidKey(OnlineStoreError, ValueError):
    """A primary key that is missing, of another type than declared, or too long."""


class ItemTooLarge(OnlineStoreError, ValueError):
    """An item above DynamoDB's 400 KB, attribute names included."""


class StoreClosed(OnlineStoreError, RuntimeError):
    """A store, or a writer, was used after `close`."""


class InvalidStore(OnlineStoreError, TypeError):
    """Raised if a persistence writer or a `DualStore` is given a store that it cannot use.

    `PersistenceWriter` takes an `OnlineStore`, `AsyncPersistenceWriter` an `AsyncOnlineStore`. A
    `FeastStore` raises it for deletes.
    """


class MissingDependency(OnlineStoreError, ImportError):
    """An optional part was asked for whose package is not installed."""


class UnsupportedPlatform(OnlineStoreError, OSError):
    """Raised if a store is opened on an operating system that the library does not support."""


# --- what is in the table ------------------------------------------------------------------


class DamagedItem(OnlineStoreError):
    """An item in the table does not have the form that its feature's type is stored in."""


class RegistryError(OnlineStoreError):
    """Raised if the registry is damaged, or does not agree with the schema."""


class TypeConflict(RegistryError):
    """Raised by calls that use a feature which is registered with another type than declared."""


class RegistryUnavailable(RegistryError):
    """New features cannot be registered now, since the registry cannot be reached."""


# --- what an engine or the network answered ------------------------------------------------


class RequestError(OnlineStoreError):
    """A request to an engine failed.

    `retryable` says whether the same request may succeed later. `throttle` says whether the
    engine is alive and asks for a slower pace. `engine_fault` says whether an engine that is
    well, and can be reached, does not answer so: only that counts against a region. `regional` says
    whether one region can refuse like this while others accept: if another region does accept, it
    counts against the one that refused.
    """

    retryable = False
    throttle = False
    engine_fault = False
    regional = False
    engine_message: str = ""
    """The engine's message. For some errors it quotes keys and values: do not log it."""
    code: str = ""
    """The engine's name of the error, such as `ThrottlingException`; empty without a response."""
    http_status: int | None = None
    """The HTTP status of the response; None without a response."""
    request_id: str = ""
    """AWS's id of the request, which its support asks for; empty without a response."""
    throttling_reasons: tuple[str, ...] = ()
    """AWS's reasons of a throttle, such as `TableReadKeyRangeThroughputExceeded`."""
    retry_after: float | None = None
    """Seconds that AWS asks to wait before a retry (`x-amz-retry-after`); None if it does not."""
    region: str = ""
    """The region that the request was sent to; empty for an engine that has none."""
    quota_used_up: bool = False
    """True if the retry quota of `region` allows no retry. A read then goes to another region."""
    attempt: int = 0
    """The number of the attempt that failed, from 1; a failover belongs to the same attempt."""


class ConnectionFailed(RequestError):
    """No connection, or the connection broke before the whole answer was there."""

    retryable = True
    engine_fault = True


class ProxyFailed(ConnectionFailed):
    """Raised if the HTTP proxy before an engine cannot be reached, or does not reach the engine."""


class ProxyRefused(RequestError):
    """Raised if the HTTP proxy before an engine refuses to connect to it, as without a password."""

    regional = True


class RequestTimeout(RequestError):
    """One attempt took longer than its share of the call's time."""

    retryable = True
    engine_fault = True


class StaleConnection(RequestTimeout):
    """Raised if a reused connection gives no response, and no time is left for a new connection.

    That says nothing about the engine: the network may have dropped the connection while it was
    idle.
    """

    engine_fault = False


class ServerError(RequestError):
    """The engine answered 5xx."""

    retryable = True
    engine_fault = True


class Throttled(RequestError):
    """The engine refused for want of capacity, or left keys unprocessed."""

    retryable = True
    throttle = True


class WriteConflict(RequestError):
    """Another write to the same items was under way at that moment."""

    retryable = True


class ChecksumMismatch(RequestError):
    """The body does not match the CRC32 that the engine sent with it."""

    retryable = True
    engine_fault = True


class MalformedResponse(RequestError):
    """The engine answered 200 with a body that cannot be read."""

    retryable = True
    engine_fault = True


class ResponseMismatch(MalformedResponse):
    """A response has the form, the table or the keys of another request.

    Raised if a proxy between this process and the engine swaps, delays or repeats responses. The
    connections to the region are closed, and the request is sent again on a new one.
    """


class CredentialsExpired(RequestError):
    """The engine says that the session token has expired."""


class InvalidCredentials(RequestError):
    """Credentials are missing, unknown to the engine, or sign wrongly."""

    regional = True


class AccessDenied(RequestError):
    """The credentials are good but may not do this."""

    regional = True


class TableNotFound(RequestError):
    """The table does not exist in this region, or is not active yet."""

    regional = True


class RequestRefused(RequestError):
    """The engine refused the request as invalid: a bug here, or a foreign table layout."""


class RegionUnavailable(RequestError):
    """No region may be asked: all are evacuated, or too far behind for `max_lag`."""


class VectorIndexUnavailable(RequestError):
    """Raised by a search if the table has no such vector index in a region, or is building it."""

    regional = True


class SearchTooLarge(RequestError):
    """Raised by an exact search of more items than its `max_scanned`."""


class ConditionFailed(RequestError):
    """A conditional write found another state than it asked for."""

    item: bytes | None = None
    """The item that was found, in DynamoDB's JSON, where the engine brought it."""


# --- what a call could not finish ----------------------------------------------------------


class IncompleteRow(OnlineStoreError):
    """A row lacks what an instance of a class needs, and the class has no default for it.

    `lacking` maps the positions of such rows to the features that they lack and why: "missing",
    "stale" or "null".
    """

    def __init__(self, message: str, lacking: Mapping[int, Mapping[str, str]]) -> None:
        super().__init__(message)
        self.lacking = lacking


class ReadFailed(OnlineStoreError):
    """Raised on access to a value whose status is `failed`. The cause is in `__cause__`."""


class DamagedValue(ReadFailed, DamagedItem):
    """Raised on access to a value that is stored in another form than its feature's type has."""


class RowsPending(OnlineStoreError, TimeoutError):
    """Rows that a persistence writer has accepted are not where they are awaited yet.

    They go on: this is no failure of theirs. `pending` says how many.
    """

    def __init__(self, message: str, pending: int) -> None:
        super().__init__(message)
        self.pending = pending


class RowsAbandoned(OnlineStoreError):
    """Raised by `close` of a persistence writer for rows that are neither written nor in a spool.

    They were handed to the dead-letter sink, or the sink has failed. `rows` is their number.
    """

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


class WriterFailed(OnlineStoreError, RuntimeError):
    """Raised if a persistence writer cannot start the thread that writes."""


class BusFailed(OnlineStoreError):
    """Raised if a message bus refuses a consumer or producer, and retries cannot help."""


class SpoolError(OnlineStoreError):
    """The spool of a persistence writer cannot be used."""


class SpoolInUse(SpoolError):
    """A spool is for one writer, and another one has it open."""


class SpoolFull(SpoolError):
    """A spool, or the disk that it lies on, has no room for more."""


class SpoolDamaged(SpoolError):
    """A spool was damaged while it was in use: what can be read is kept when it is opened again."""


class QueueFull(OnlineStoreError):
    """A persistence writer has as many rows under way as it may, or had to let old ones go."""


class WritesOutstanding(OnlineStoreError):
    """Raised by `DualStore.switch_to` if the store to switch to lacks writes of this process.

    `entities` is the number of entities to copy again.
    """

    def __init__(self, message: str, entities: int = 0) -> None:
        super().__init__(message)
        self.entities = entities


class LoadIncomplete(OnlineStoreError):
    """Raised if a load in several tasks, or one of its tasks, has not written all of its rows.

    Either more rows can never be written than the load allows, or the write region was lost, and
    the task has to run again. `written` are the counts: see `integrations.bulk.Written`.
    """

    def __init__(self, message: str, written: Any = None) -> None:
        super().__init__(message)
        self.written = written


class WriteFailed(OnlineStoreError):
    """Some rows were not written before the call's deadline.

    `failed` maps the position of each such row in the call to its cause; every other row is
    written. Writing the failed rows again is safe, and helps if their cause is `retryable`.
    `report` is what the call cost all the same.
    """

    def __init__(
        self,
        message: str,
        failed: Mapping[int, OnlineStoreError],
        report: Report | None = None,
    ) -> None:
        super().__init__(message)
        self.failed = failed
        self.report = Report() if report is None else report


def write_advice(causes: Iterable[OnlineStoreError]) -> str:
    """Return what to do about rows that failed for these causes, as a sentence."""
    may_pass = {getattr(cause, "retryable", False) for cause in causes}
    if may_pass == {True}:
        return "Their positions are in .failed; writing them again is safe."
    if True in may_pass:
        return (
            "Their positions and causes are in .failed. Write those again whose cause is "
            "retryable, and correct the others first: they would be refused again."
        )
    return (
        "Their positions and causes are in .failed. Correct them first: they would be refused "
        "again."
    )
