"""Where credentials and endpoints come from: botocore, which knows profiles, SSO, roles, IMDS.

Credentials are cached here, so that a request costs one comparison of times. They are renewed in
the background before they expire: callers wait for the first ones and for expired ones only, and
share one load. See docs/decisions/0037-credentials.md.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import BotoCoreError, NoRegionError

from chalk_online_store._fork import forks_wait, reset_after_fork
from chalk_online_store.dynamodb.signing import Credentials, host_header, url_path
from chalk_online_store.errors import (
    InvalidCredentials,
    InvalidNetworkSettings,
    InvalidURL,
    OnlineStoreError,
    RequestTimeout,
)
from chalk_online_store.network.settings import DIRECT, Network, is_local_host, resolve_network

REFRESH_AHEAD = 300.0
"""Seconds before their expiry at which credentials are renewed in the background."""

PAUSE = 5.0
"""Seconds between two attempts of which nobody waits for the second."""

_LOOP_CHECK_SECONDS = 1.0
"""Seconds between two checks whether the event loop that loads credentials still runs."""

_FOREVER = 2**33
"""Seconds, 272 years: credentials that are valid for longer never expire."""

Loop: TypeAlias = asyncio.AbstractEventLoop

NONE_YET = Credentials("", "", None, -math.inf)

NO_CREDENTIALS = (
    "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a "
    "profile with AWS_PROFILE, or hand in a session. Local engines take any"
)
_SSO_ERRORS = ("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError")
NO_REGION = "no AWS region is configured: put ?region= in the URL"


class Session(Protocol):
    """What is used of a `boto3.Session` or an `aioboto3.Session`."""

    @property
    def region_name(self) -> str | None:
        """The region that the environment or the profile names."""

    @property
    def client(self) -> Callable[..., Any]:
        """Make a client; aioboto3's is an asynchronous context manager."""

    def get_credentials(self) -> Any:
        """Find botocore's credentials, or None; with aioboto3 a coroutine that does so."""


class LocalSession:
    """A session for an engine on this machine: credentials are made up where there are none."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.region_name = session.region_name
        self.client = session.client

    def get_credentials(self) -> Any:
        """As the session's; local engines take any."""
        return self._session.get_credentials() or BotocoreCredentials("local", "local")


class CredentialSource:
    """The credentials of a session, for threads and for tasks.

    `session` is a `boto3.Session` or an `aioboto3.Session`. One load runs at a time, in a dedicated
    thread; every caller that needs its result waits for it, up to the caller's timeout. While the
    present credentials are valid, no caller waits, and a failed load is not an error.

    `reopen` makes a session like the first one. It is called if the engine calls credentials
    expired that have not expired for botocore, so that a rotated file of credentials is read again.
    `clock` returns the time in seconds since 1970.
    """

    def __init__(
        self,
        session: Session,
        clock: Callable[[], float] = time.time,
        *,
        reopen: Callable[[], Session] | None = None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._reopen = reopen
        self._credentials = NONE_YET
        self._due = -math.inf  # Never after the expiry, so one comparison covers both.
        self._loaded_at = -math.inf
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Nobody is loading credentials."""
        self._lock = threading.Lock()
        self._load: _Load | None = None

    # --- for threads ---------------------------------------------------------------------------

    def current(self, timeout: float | None = None) -> Credentials:
        """Return credentials at once, or after at most `timeout` seconds if none are valid.

        Raises `InvalidCredentials` if there are none, and `RequestTimeout` if loading takes longer
        than `timeout`. The load then continues in the background.
        """
        if self._clock() < self._due:
            return self._credentials
        return self._wait(timeout, renew=False)

    def refresh(self, timeout: float | None = None) -> Credentials:
        """Return new credentials, for use after `CredentialsExpired`.

        The expiry of the old ones does not matter. Credentials that another caller loaded within
        the last seconds count as new. Raises the errors of `current`.
        """
        return self._wait(timeout, renew=True)

    def _wait(self, timeout: float | None, *, renew: bool) -> Credentials:
        deadline = _deadline(timeout)
        while True:
            load = self._join(renew=renew)
            if load is None or not (renew or self._is_expired()):
                return self._credentials
            try:
                return load.wait(_seconds_until(deadline))
            except _EventLoopEnded:
                continue  # It was another caller's. The next load runs without it.

    # --- for tasks -----------------------------------------------------------------------------

    async def current_async(self, timeout: float | None = None) -> Credentials:
        """Like `current`, without blocking the event loop."""
        if self._clock() < self._due:
            return self._credentials
        return await self._wait_async(timeout, renew=False)

    async def refresh_async(self, timeout: float | None = None) -> Credentials:
        """Like `refresh`, without blocking the event loop."""
        return await self._wait_async(timeout, renew=True)

    async def _wait_async(self, timeout: float | None, *, renew: bool) -> Credentials:
        deadline = _deadline(timeout)
        loop = asyncio.get_running_loop()
        while True:
            load = self._join(renew=renew, loop=loop)
            if load is None or not (renew or self._is_expired()):
                return self._credentials
            try:
                return await load.wait_async(_seconds_until(deadline))
            except _EventLoopEnded:
                if load.loop is loop:
                    raise

    # --- loading -------------------------------------------------------------------------------

    def _join(self, *, renew: bool, loop: Loop | None = None) -> _Load | None:
        """Return the load in flight, starting one if necessary. None if no load is needed."""
        with self._lock:
            if not self._is_load_needed(renew=renew):  # Another caller was faster.
                return None
            if self._load is None or not self._load.is_in_flight():
                self._load = _Load(partial(self._load_now, renew=renew, loop=loop), loop)
                self._load.start()
            return self._load

    def _is_load_needed(self, *, renew: bool) -> bool:
        # Many requests fail at once when a token expires: they share one renewal.
        if renew:
            return self._clock() - self._loaded_at >= PAUSE or self._is_expired()
        return self._clock() >= self._due

    def _is_expired(self) -> bool:
        expires_at = self._credentials.expires_at
        return expires_at is not None and self._clock() >= expires_at

    def _load_now(self, *, renew: bool, loop: Loop | None) -> Credentials:
        try:
            if renew and self._reopen is not None:
                self._session, renew = self._reopen(), False
            fetched = _fetch(self._session, renew=renew, loop=loop)
            left = fetched.seconds_left
            expires_at = None if left is None else self._clock() + left
            self._credentials = _ours(fetched.frozen, expires_at)
            self._loaded_at = self._clock()
            return self._credentials
        finally:
            self._schedule()

    def _schedule(self) -> None:
        expires_at = self._credentials.expires_at
        if expires_at is None:
            self._due = math.inf
        else:
            due = max(expires_at - REFRESH_AHEAD, self._clock() + PAUSE)
            self._due = min(due, expires_at)


class _Load:
    """One attempt to load credentials. Any number of threads and tasks may wait for its result.

    Any exception sets the result, also a `BaseException` that is not an `Exception`: without it, a
    caller that has no timeout would wait forever.
    """

    def __init__(self, load: Callable[[], Credentials], loop: Loop | None) -> None:
        self.loop = loop
        self._load = load
        self._result: Future[Credentials] = Future()
        self._result.set_running_or_notify_cancel()  # A waiter that gives up does not cancel it.
        self._thread = threading.Thread(
            target=self._run, name="chalk-online-store-credentials", daemon=True
        )

    def start(self) -> None:
        """Start the thread; if the system refuses it, that is the result."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._result.set_exception(_load_error(error))

    def is_in_flight(self) -> bool:
        return self._thread.is_alive() and not self._result.done()

    def wait(self, timeout: float | None) -> Credentials:
        try:
            return self._result.result(timeout)
        except TimeoutError:
            raise _timeout_error() from None

    async def wait_async(self, timeout: float | None) -> Credentials:
        result = asyncio.wrap_future(self._result)
        try:
            done, _ = await asyncio.wait((result,), timeout=timeout)
            if not done:
                raise _timeout_error()
            return result.result()
        finally:
            # A result that came later would be set on an event loop that may be closed.
            result.cancel()

    def _run(self) -> None:
        try:
            credentials = self._load()
        except OnlineStoreError as error:
            self._result.set_exception(error)
        except BaseException as error:
            self._result.set_exception(_load_error(error))
        else:
            self._result.set_result(credentials)


def _load_error(error: BaseException) -> InvalidCredentials:
    # State only the error's class: the text of a provider, a plugin or a process may hold secrets.
    name = type(error).__name__
    remedy = ". Run `aws sso login` for the profile" if name in _SSO_ERRORS else ""
    found = InvalidCredentials(f"AWS credentials could not be loaded: {name}{remedy}")
    found.__cause__ = error
    return found


def _timeout_error() -> RequestTimeout:
    return RequestTimeout("AWS credentials could not be loaded in time")


class _EventLoopEnded(InvalidCredentials):
    """The event loop that a load ran on has ended, which says nothing about the credentials."""

    def __init__(self) -> None:
        super().__init__("AWS credentials could not be loaded: their event loop has ended")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


# --- botocore's credentials ----------------------------------------------------------------
#
# Public in botocore, and enough for everything but one case: `get_frozen_credentials`, which renews
# them if botocore finds that due (10 to 15 minutes before they expire), and `refresh_needed`. Not
# public: `_protected_refresh` under `_refresh_lock`, which renews them at once. It is used after an
# engine called credentials expired that botocore believes to be valid, and only if it has the known
# form. Without it, botocore decides. tests/test_credential_providers.py passes on the oldest and on
# the newest botocore.


class _Fetched(NamedTuple):
    frozen: Any
    seconds_left: float | None
    """Seconds until they expire, rounded down; None if they never do."""


def _fetch(session: Session, *, renew: bool, loop: Loop | None) -> _Fetched:
    """Read a session's credentials; if `renew`, after making new ones.

    Blocks while botocore queries STS, IMDS and the like. Errors of botocore pass. Coroutines of
    aioboto3 run on `loop`, since they share locks with the caller's own clients there. Raises
    `InvalidCredentials` if there are no credentials.
    """
    with forks_wait():  # botocore imports, locks and opens TLS.
        found = session.get_credentials()
        is_async = inspect.isawaitable(found) or inspect.iscoroutinefunction(
            getattr(found, "get_frozen_credentials", None)
        )
        if not is_async:
            return _read(found, renew=renew)
        if loop is None:
            return asyncio.run(_read_async(found, renew=renew))
    # The gate for forks is open again: a fork made by the loop's thread must not wait for the loop.
    return _run_on(loop, _read_async(found, renew=renew))


def _read(source: Any, *, renew: bool) -> _Fetched:
    if source is None:
        raise InvalidCredentials(NO_CREDENTIALS)
    if renew and _can_renew(source):
        with source._refresh_lock:
            source._protected_refresh(is_mandatory=True)
    source.get_frozen_credentials()
    # The expiry first: if the credentials change now, it is too early rather than too late.
    left = _seconds_left(source)
    return _Fetched(source.get_frozen_credentials(), left)


async def _read_async(found: Any, *, renew: bool) -> _Fetched:
    source = await found if inspect.isawaitable(found) else found
    if source is None:
        raise InvalidCredentials(NO_CREDENTIALS)
    if renew and _can_renew(source):
        async with source._refresh_lock:
            await source._protected_refresh(is_mandatory=True)
    await source.get_frozen_credentials()
    left = _seconds_left(source)
    return _Fetched(await source.get_frozen_credentials(), left)


def _run_on(loop: Loop, reading: Coroutine[Any, Any, _Fetched]) -> _Fetched:
    """Run a coroutine on another thread's event loop, for as long as that loop runs.

    Raises `_EventLoopEnded` if the loop is closed, stops, or cancels the coroutine as it ends.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(reading, loop)
    except RuntimeError:  # The loop was closed.
        reading.close()
        raise _EventLoopEnded from None
    while True:
        try:
            return future.result(_LOOP_CHECK_SECONDS)
        except CancelledError:
            raise _EventLoopEnded from None
        except TimeoutError:
            if future.done():
                raise  # It was the coroutine's own.
            if not loop.is_running():
                raise _EventLoopEnded from None


def _can_renew(source: Any) -> bool:
    try:
        inspect.signature(source._protected_refresh).bind(is_mandatory=True)
    except (AttributeError, TypeError, ValueError):
        return False
    return hasattr(source, "_refresh_lock")


def _seconds_left(source: Any) -> float | None:
    """Return how long credentials are valid, in whole seconds; None if they never expire.

    botocore has no public attribute for it. `refresh_needed(n)` says whether fewer than `n`
    seconds are left, so a search by halves finds the number in about 33 steps.
    """
    is_left_less_than = getattr(source, "refresh_needed", None)
    if is_left_less_than is None or not is_left_less_than(refresh_in=_FOREVER):
        return None
    low, high = 0, _FOREVER
    while high - low > 1:
        middle = (low + high) // 2
        if is_left_less_than(refresh_in=middle):
            high = middle
        else:
            low = middle
    return float(low)


def _ours(frozen: Any, expires_at: float | None) -> Credentials:
    credentials = Credentials(
        frozen.access_key, frozen.secret_key, frozen.token or None, expires_at
    )
    for part in (credentials.access_key, credentials.secret_key, credentials.token or "-"):
        if not re.fullmatch("[!-~]+", part):  # An HTTP client would quote it in its complaint.
            raise InvalidCredentials(
                "an AWS key or token is empty, or holds white space or other characters that "
                "AWS never uses: a line end in an environment variable is the usual cause"
            )
    return credentials


# --- endpoints -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where DynamoDB answers."""

    region: str
    """The region to sign for."""
    url: str
    """Scheme, host, and perhaps port and path."""
    network: Network = DIRECT
    """The proxy and the certificates on the way."""


def resolve_endpoint(session: Session, region: str | None, endpoint_url: str | None) -> Endpoint:
    """Give `endpoint_url` if there is one, else what botocore resolves for the region.

    botocore heeds `AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL`, the profile, and the settings
    for FIPS and dual-stack. Without `region`, the session's counts. It is always the regional
    endpoint, never one of an account (`ACCOUNT.ddb.REGION.amazonaws.com`): the account is known
    only once credentials are loaded. Blocks for about 0.1 s while botocore reads its model, and
    uses no network. Raises `InvalidURL`, or `InvalidNetworkSettings` for the proxy and the
    certificates, and if `account_id_endpoint_mode` is `required`.
    """
    try:
        if endpoint_url:
            endpoint = Endpoint(region or session.region_name or "", endpoint_url)
        else:
            endpoint = _ask_botocore(session, region or None)
    except NoRegionError:
        raise InvalidURL(NO_REGION) from None
    except (BotoCoreError, ValueError) as error:
        if "AccountIdEndpointMode" in str(error):
            raise InvalidNetworkSettings(_ACCOUNT_REQUIRED) from None
        raise InvalidURL(f"no DynamoDB endpoint for region {region!r}: {error}") from None
    if not endpoint.region:
        raise InvalidURL(NO_REGION)
    _check_url(endpoint.url)
    return replace(endpoint, network=resolve_network(session, endpoint.url))


_ANY_OPERATION = "list_tables"

_ACCOUNT_REQUIRED = (
    "account_id_endpoint_mode is required, and the store's endpoint is the regional one. Set "
    "AWS_ACCOUNT_ID_ENDPOINT_MODE to preferred or disabled, or name the account's endpoint in the "
    "URL: endpoint_url=https://ACCOUNT.ddb.REGION.amazonaws.com"
)


def _ask_botocore(session: Session, region: str | None) -> Endpoint:
    # Made-up keys: without any, botocore would go and look for them, as far as IMDS.
    client = session.client(
        "dynamodb", region_name=region, aws_access_key_id="-", aws_secret_access_key="-"
    )
    if hasattr(client, "__aenter__"):
        with ThreadPoolExecutor(1) as pool:  # There may be an event loop in this thread.
            return pool.submit(asyncio.run, _endpoint_of_async(client)).result()
    with closing(client):
        return _endpoint_of(client, client.generate_presigned_url(_ANY_OPERATION))


async def _endpoint_of_async(client: Any) -> Endpoint:
    async with client as opened:
        return _endpoint_of(opened, await opened.generate_presigned_url(_ANY_OPERATION))


def _endpoint_of(client: Any, presigned: str) -> Endpoint:
    """Take the endpoint from a presigned URL.

    Only a request has the endpoint that botocore's rules give. `client.meta.endpoint_url` is
    another one for FIPS in GovCloud, and for dual-stack in isolated partitions.
    """
    parts = urlsplit(presigned)
    path = "" if parts.path == "/" else parts.path
    return Endpoint(client.meta.region_name, f"{parts.scheme}://{parts.netloc}{path}")


def is_local(url: str) -> bool:
    """Return True if an endpoint is on this machine."""
    return is_local_host(urlsplit(url).hostname)


def _check_url(url: str) -> None:
    host = host_header(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise InvalidURL(f"the endpoint at {host} must begin with http:// or https://")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidURL(f"the endpoint at {host} must be scheme, host, port and path alone")
    url_path(url)
