"""Where credentials and endpoints come from: botocore, which knows profiles, SSO, roles, IMDS.

Credentials are kept here, so that a request costs one comparison of times. They are renewed in
the background before they expire: nobody waits, but for the first ones and for expired ones.
Whoever has to wait joins the attempt that is under way instead of beginning another.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import BotoCoreError, NoRegionError

from chalk_online_store.cache.forks import begin_anew_in_forks, forks_wait
from chalk_online_store.drivers.networks import DIRECT, Network, is_local_host, resolve_network
from chalk_online_store.dynamodb.signing import Credentials, host_header, url_path
from chalk_online_store.errors import (
    InvalidCredentials,
    InvalidNetworkSettings,
    InvalidURL,
    OnlineStoreError,
    RequestTimeout,
)

REFRESH_AHEAD = 300.0
"""Seconds before their expiry at which credentials are renewed in the background."""

PAUSE = 5.0
"""Seconds between two attempts of which nobody waits for the second."""

NONE_YET = Credentials("", "", None, -math.inf)

NO_CREDENTIALS = (
    "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a "
    "profile with AWS_PROFILE, or hand in a session. Local engines take any"
)
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


class _Kept:
    """The credentials in hand and when the next ones are due: what both sources share."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.time) -> None:
        """Take credentials from `session`; `clock` tells seconds since 1970."""
        self._session = session
        self._clock = clock
        self._credentials = NONE_YET
        self._due = -math.inf  # Never after the expiry, so one comparison covers both.
        self._loaded_at = -math.inf

    def _expired(self) -> bool:
        expires_at = self._credentials.expires_at
        return expires_at is not None and self._clock() >= expires_at

    def _will_do(self, *, renew: bool) -> bool:
        """Whether nothing has to be loaded.

        Many requests fail at once when a token expires: they share one renewal.
        """
        if renew:
            return self._clock() - self._loaded_at < PAUSE and not self._expired()
        return self._clock() < self._due

    def _keep(self, credentials: Credentials) -> Credentials:
        self._credentials = credentials
        self._loaded_at = self._clock()
        return credentials

    def _schedule(self) -> None:
        expires_at = self._credentials.expires_at
        if expires_at is None:
            self._due = math.inf
        else:
            due = max(expires_at - REFRESH_AHEAD, self._clock() + PAUSE)
            self._due = min(due, expires_at)

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Turn whatever a provider, a plugin or a process raises into `InvalidCredentials`."""
        try:
            yield
        except OnlineStoreError:
            raise
        except Exception as error:
            what = type(error).__name__
            raise InvalidCredentials(f"AWS credentials could not be loaded: {what}") from error
        finally:
            self._schedule()


class CredentialSource(_Kept):
    """The credentials of a `boto3.Session`, for threads."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.time) -> None:
        """Take credentials from `session`; `clock` tells seconds since 1970."""
        super().__init__(session, clock)
        self.begin_anew()
        begin_anew_in_forks(self)

    def begin_anew(self) -> None:
        """Nobody is loading credentials."""
        self._lock = threading.Lock()
        self._flight: _Flight | None = None

    def current(self, timeout: float | None = None) -> Credentials:
        """Give credentials at once, or after at most `timeout` seconds when there are none good.

        Raises `InvalidCredentials` when there are none, `RequestTimeout` when time is up; the
        attempt then goes on in the background.
        """
        if self._clock() < self._due:
            return self._credentials
        flight = self._join(renew=False)
        return flight.outcome_within(timeout) if flight and self._expired() else self._credentials

    def refresh(self, timeout: float | None = None) -> Credentials:
        """Give new credentials, whatever the old ones' expiry; for use after `CredentialsExpired`.

        Those that somebody else got in the last seconds are new. Raises as `current` does.
        """
        flight = self._join(renew=True)
        return flight.outcome_within(timeout) if flight else self._credentials

    def _join(self, *, renew: bool) -> _Flight | None:
        with self._lock:
            if self._will_do(renew=renew):  # Somebody was faster.
                return None
            if self._flight is None or not self._flight.under_way():
                self._flight = _Flight(partial(self._load, renew=renew))
                self._flight.start()
            return self._flight

    def _load(self, *, renew: bool) -> Credentials:
        with self._attempt(), forks_wait():  # botocore imports, locks and opens TLS.
            return self._keep(fetch(self._session.get_credentials(), renew=renew))


class _Flight(threading.Thread):
    """One attempt to load credentials; any number of threads may wait for its outcome."""

    def __init__(self, load: Callable[[], Credentials]) -> None:
        super().__init__(name="chalk-online-store-credentials", daemon=True)
        self._load = load
        self._outcome: Future[Credentials] = Future()

    def run(self) -> None:
        try:
            self._outcome.set_result(self._load())
        except OnlineStoreError as error:
            self._outcome.set_exception(error)

    def under_way(self) -> bool:
        """Whether an outcome is still to come."""
        return self.is_alive() and not self._outcome.done()

    def outcome_within(self, timeout: float | None) -> Credentials:
        try:
            return self._outcome.result(timeout)
        except TimeoutError:
            raise _too_slow() from None


class AsyncCredentialSource(_Kept):
    """The credentials of an `aioboto3.Session`, or of a `boto3.Session`, for tasks.

    It may be used on one event loop after another.
    """

    def __init__(self, session: Session, clock: Callable[[], float] = time.time) -> None:
        """Take credentials from `session`; `clock` tells seconds since 1970."""
        super().__init__(session, clock)
        self._flight: asyncio.Task[Credentials] | None = None

    async def current(self, timeout: float | None = None) -> Credentials:
        """As `CredentialSource.current`."""
        if self._clock() < self._due:
            return self._credentials
        flight = self._join(renew=False)
        return await _outcome_within(flight, timeout) if self._expired() else self._credentials

    async def refresh(self, timeout: float | None = None) -> Credentials:
        """As `CredentialSource.refresh`."""
        if self._will_do(renew=True):
            return self._credentials
        return await _outcome_within(self._join(renew=True), timeout)

    def _join(self, *, renew: bool) -> asyncio.Task[Credentials]:
        loop = asyncio.get_running_loop()
        flight = self._flight
        if flight is None or flight.done() or flight.get_loop() is not loop:
            flight = self._flight = loop.create_task(self._load(renew=renew))
            flight.add_done_callback(_take_notice)
        return flight

    async def _load(self, *, renew: bool) -> Credentials:
        with self._attempt():
            return self._keep(await fetch_async(self._session, renew=renew))


async def _outcome_within(flight: asyncio.Task[Credentials], seconds: float | None) -> Credentials:
    """Wait without cancelling: others wait too."""
    done, _ = await asyncio.wait((flight,), timeout=seconds)
    if not done:
        raise _too_slow()
    return flight.result()


def _take_notice(flight: asyncio.Task[Credentials]) -> None:
    """Look at the exception, so that asyncio does not report it: botocore has logged it."""
    if not flight.cancelled():
        flight.exception()


def _too_slow() -> RequestTimeout:
    return RequestTimeout("AWS credentials could not be loaded in time")


# --- botocore's credentials ----------------------------------------------------------------
#
# Public in botocore: `get_frozen_credentials`, which renews them where botocore finds that due
# (10 to 15 minutes before their expiry). Not public, and held fast by tests: `_expiry_time`, and
# `_protected_refresh` under `_refresh_lock`, which renews them at once.


def fetch(source: Any, *, renew: bool) -> Credentials:
    """Read botocore's credentials, where `renew` says so after making new ones.

    Blocks while botocore asks STS, IMDS and the like, and raises what it raises; raises
    `InvalidCredentials` when `source` is None.
    """
    if source is None:
        raise InvalidCredentials(NO_CREDENTIALS)
    if renew and hasattr(source, "_protected_refresh"):
        with source._refresh_lock:
            source._protected_refresh(is_mandatory=True)
    source.get_frozen_credentials()
    # The expiry first: should they change now, it is too early rather than too late.
    expires_at = _expires_at(source)
    return _ours(source.get_frozen_credentials(), expires_at)


async def fetch_async(session: Session, *, renew: bool) -> Credentials:
    """As `fetch`, for either kind of session; what blocks runs in a thread."""
    found = await asyncio.to_thread(_uninterrupted, session.get_credentials)
    source = await found if inspect.isawaitable(found) else found
    if not inspect.iscoroutinefunction(getattr(source, "get_frozen_credentials", None)):
        return await asyncio.to_thread(_uninterrupted, partial(fetch, source, renew=renew))
    if renew and hasattr(source, "_protected_refresh"):
        async with source._refresh_lock:
            await source._protected_refresh(is_mandatory=True)
    await source.get_frozen_credentials()
    expires_at = _expires_at(source)
    return _ours(await source.get_frozen_credentials(), expires_at)


def _uninterrupted(ask: Callable[[], Any]) -> Any:
    with forks_wait():
        return ask()


def _expires_at(source: Any) -> float | None:
    expiry = getattr(source, "_expiry_time", None)
    return None if expiry is None else expiry.timestamp()


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
