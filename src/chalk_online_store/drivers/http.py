"""Carries signed requests to a DynamoDB endpoint: on urllib3 for threads, on aiohttp for tasks.

Both do the same: sign, send once, read the whole answer, all within one timeout. Neither
retries, follows redirects, uses a proxy or unpacks anything. Whatever goes wrong on the way
becomes `ConnectionFailed` or `RequestTimeout`; every HTTP status is an answer.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.httpsession import get_cert_path
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import DEFAULT_PORTS, Credentials, Signer
from chalk_online_store.errors import (
    ConnectionFailed,
    MissingDependency,
    RequestTimeout,
    StoreClosed,
)

if TYPE_CHECKING:
    from aiohttp import AddrInfoType, ClientSession

    from chalk_online_store.drivers.credentials import (
        AsyncCredentialSource,
        CredentialSource,
        Endpoint,
    )

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "chalk-online-store"}

IDLE_SECONDS = 60.0
"""How long aiohttp keeps an unused connection; urllib3 keeps it until the server closes it."""

CLOSE_SECONDS = 5.0
"""How long `close` waits for an event loop in another thread."""

READ_BUFFER = 2**20
"""Bytes that aiohttp reads ahead; with its default, answers of 60 KB cost a third more CPU."""

LARGE_BODY = 2**20
"""Bytes from which aiohttp wants a body in pieces, so that the event loop breathes."""

SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A peer that vanished is noticed within a minute, where the system can be told so.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


class _Transport:
    """What both transports share: the signature, the time left, and the words for failures."""

    def __init__(self, endpoint: Endpoint, connect_timeout: float, pool_size: int) -> None:
        self._url = urlsplit(endpoint.url)
        self._signer = Signer(endpoint.region, endpoint.url)
        self._connect_timeout = connect_timeout
        self._pool_size = pool_size
        self._tls = tls_context() if self._url.scheme == "https" else None
        self._closed = False

    def _headers(self, request: Request, credentials: Credentials) -> dict[str, str]:
        signed = self._signer.sign(credentials, request.operation, request.body, time.time())
        return HEADERS | signed

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store was closed: open another one")

    def _left(self, deadline: float) -> float:
        """Seconds until `deadline`. No HTTP client takes zero for what it is."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._too_late()
        return left

    def _whole(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """Accept an answer that tells its length: else one cut short would pass for whole."""
        lower = {name.lower(): value for name, value in headers.items()}
        if lower.keys().isdisjoint(("content-length", "transfer-encoding")):
            raise self._broken("the answer has no length")
        return Response(status, lower, body)

    def _too_late(self) -> RequestTimeout:
        return RequestTimeout(f"{self._signer.host} did not answer in time")

    def _broken(self, why: str) -> ConnectionFailed:
        return ConnectionFailed(f"the connection to {self._signer.host} failed: {why}")


class Urllib3Transport(_Transport):
    """Sends requests over a pool of kept connections. Safe for threads, and after a fork.

    More than `pool_size` threads do not wait for each other: they open connections that are
    closed after use. Time passes unbounded in name resolution alone, which Python cannot stop.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: CredentialSource,
        *,
        connect_timeout: float = 1.0,
        pool_size: int = 32,
    ) -> None:
        """Connect to `endpoint` when first needed.

        `connect_timeout`, in seconds, bounds connecting, and the sending of a request. Raises
        `InvalidURL`, or `ConnectionFailed` when the certificate bundle cannot be read.
        """
        super().__init__(endpoint, connect_timeout, pool_size)
        self._credentials = credentials
        self._open()

    def send(self, request: Request, timeout: float) -> Response:
        """Send once and give the whole answer, within `timeout` seconds.

        Raises `ConnectionFailed`, `RequestTimeout`, `InvalidCredentials`, or `StoreClosed`.
        """
        self._check_open()
        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = source.refresh(timeout) if request.renew else source.current(timeout)
        headers = self._headers(request, credentials)
        left = self._left(deadline)
        try:
            answer = self._pool().urlopen(
                "POST",
                "/",
                body=request.body,
                headers=headers,
                timeout=Timeout(total=left, connect=self._connect_timeout),
                retries=_NO_RETRIES,
                assert_same_host=False,
                decode_content=False,
            )
        except (HTTPError, HTTPException, OSError, MemoryError) as error:
            # Out of memory: http.client reserves what a nonsense Content-Length says.
            late = is_timeout(error)
            raise (self._too_late() if late else self._broken(reason(error))) from None
        return self._whole(answer.status, answer.headers, answer.data)

    def close(self) -> None:
        """Close the pool; requests under way fail or come to their end."""
        self._closed = True
        self._connections.close()

    def _pool(self) -> HTTPConnectionPool:
        if self._pid != os.getpid():  # The parent's connections are not ours to speak on.
            self._open()
        return self._connections

    def _open(self) -> None:
        pool: Callable[..., HTTPConnectionPool] = _Pool
        if self._tls is not None:
            pool = partial(_TLSPool, ssl_context=self._tls)
        self._connections = pool(
            self._url.hostname,
            self._url.port or DEFAULT_PORTS[self._url.scheme],  # Else an IPv6 address is cut.
            maxsize=self._pool_size,
            socket_options=SOCKET_OPTIONS,
        )
        self._pid = os.getpid()  # Last, so that no thread takes the old pool for the new one.


class AiohttpTransport(_Transport):
    """Sends requests over kept connections, one pool for each event loop that it is used on.

    Requests beyond `pool_size` wait for a connection, within their timeout.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: AsyncCredentialSource,
        *,
        connect_timeout: float = 1.0,
        pool_size: int = 32,
    ) -> None:
        """Connect to `endpoint` when first needed; no event loop is needed yet.

        `connect_timeout`, in seconds, bounds connecting. Raises `MissingDependency` without
        aiohttp, else as `Urllib3Transport`.
        """
        _import_aiohttp()
        super().__init__(endpoint, connect_timeout, pool_size)
        self._credentials = credentials
        self._target = f"{endpoint.url.rstrip('/')}/"
        self._sessions: dict[asyncio.AbstractEventLoop, ClientSession] = {}

    async def send(self, request: Request, timeout: float) -> Response:
        """As `Urllib3Transport.send`."""
        import aiohttp

        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = await (source.refresh if request.renew else source.current)(timeout)
        headers = self._headers(request, credentials)
        session = await self._session()
        try:
            async with session.post(
                self._target,
                data=body_of(request),
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=self._left(deadline),
                    sock_connect=self._connect_timeout,
                    ceil_threshold=math.inf,  # Or seconds are rounded up.
                ),
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except TimeoutError:
            raise self._too_late() from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(reason(error)) from None
        except asyncio.CancelledError:
            if self._closed and not is_cancelled():  # So aiohttp tells those who queue up.
                raise self._broken("the store was closed") from None
            raise
        return self._whole(answer.status, answer.headers, body)

    async def close(self) -> None:
        """Close the connections; requests under way fail."""
        self._closed = True
        while self._sessions:
            await close_session(*self._sessions.popitem())

    async def _session(self) -> ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            await self._forget_closed_loops()
        self._check_open()  # Also whether it was closed while this task waited.
        if loop not in self._sessions:
            self._sessions[loop] = self._open()
        return self._sessions[loop]

    async def _forget_closed_loops(self) -> None:
        for loop, session in list(self._sessions.items()):
            if loop.is_closed() and self._sessions.pop(loop, None) is not None:
                await session.close()

    def _open(self) -> ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._pool_size,
                ssl=self._tls or True,
                keepalive_timeout=IDLE_SECONDS,
                socket_factory=_new_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )


def _import_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingDependency(
            "the async store needs aiohttp: pip install 'chalk-online-store[async]'"
        ) from None


async def close_session(loop: asyncio.AbstractEventLoop, session: ClientSession) -> None:
    """Close a session on the event loop that it belongs to."""
    if loop is asyncio.get_running_loop() or loop.is_closed():
        await session.close()
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    if loop.is_running():
        await asyncio.wait((asyncio.wrap_future(closing),), timeout=CLOSE_SECONDS)


def body_of(request: Request) -> bytes | io.BytesIO:
    """Give the body in the form that aiohttp sends without a warning."""
    return request.body if len(request.body) <= LARGE_BODY else io.BytesIO(request.body)


def is_cancelled() -> bool:
    """Whether somebody asked the running task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def tls_context() -> ssl.SSLContext:
    """Make a context that trusts what botocore would trust.

    `AWS_CA_BUNDLE`, else `REQUESTS_CA_BUNDLE`, else certifi's, else botocore's own. Raises
    `ConnectionFailed` when the file cannot be read.
    """
    named = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    path = Path(named or str(get_cert_path(True)))
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ConnectionFailed(f"the CA bundle {path} cannot be read: {reason(error)}") from None


# --- failures ------------------------------------------------------------------------------


def is_timeout(error: BaseException) -> bool:
    """Whether an exception of urllib3 stands for time that ran out."""
    return any(isinstance(cause, TimeoutError | ReadTimeoutError) for cause in causes(error))


def reason(error: BaseException) -> str:
    """What the system or TLS says, else the exception's name.

    The texts of HTTP libraries quote what they read, and that could hold a key or a value.
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it wraps, as its cause or among its arguments.

    Not its context: that could be an exception that the caller was handling.
    """
    while error is not None:
        yield error
        wrapped = (part for part in error.args if isinstance(part, BaseException))
        error = error.__cause__ or next(wrapped, None)


# --- sockets -------------------------------------------------------------------------------


def _new_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for option in SOCKET_OPTIONS:
        made.setsockopt(*option)
    return made


class _PunctualReader(io.RawIOBase):
    """Reads a socket until a deadline.

    A socket's own timeout begins anew with every piece that arrives, so a server that sends
    byte by byte would never be late.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PunctualResponse(HTTPResponse):
    """An answer that has to be there, to its last byte, within the socket's timeout."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_PunctualReader(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _PunctualResponse


class _TLSConnection(HTTPSConnection):
    response_class = _PunctualResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_NO_RETRIES = Retry.from_int(False)
