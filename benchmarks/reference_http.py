"""The same transports on urllib3 and aiohttp: what ours are measured and checked against.

They send the same requests, over kept connections, and read the same answers. Of the promises
of `chalk_online_store.dynamodb.http` they keep no others: no deadline for a whole answer, no
words of our own for failures.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import urllib3

from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.network.sockets import SOCKET_OPTIONS
from chalk_online_store.network.tls import tls_context

if TYPE_CHECKING:
    from chalk_online_store.dynamodb.credentials import Endpoint

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "chalk-online-store"}

READ_BUFFER = 2**20
"""Bytes that aiohttp reads ahead; with its default, answers of 60 KB cost a third more CPU."""

LARGE_BODY = 2**20
"""Bytes from which aiohttp wants a body in pieces, and warns of whole ones."""


class _Reference:
    def __init__(self, endpoint: Endpoint, credentials: Any) -> None:
        self._credentials = credentials
        self._signer = Signer(endpoint.region, endpoint.url)
        self._url = f"{endpoint.url.rstrip('/')}/"
        self._tls = tls_context() if endpoint.url.startswith("https") else None

    def _headers(self, request: Request, credentials: Credentials) -> dict[str, str]:
        signed = self._signer.sign(credentials, request.operation, request.body, time.time())
        lines = signed.removesuffix("\r\n").split("\r\n")
        return HEADERS | dict(line.split(": ", 1) for line in lines)


class Urllib3Transport(_Reference):
    """On urllib3, for threads."""

    def __init__(self, endpoint: Endpoint, credentials: Any) -> None:
        super().__init__(endpoint, credentials)
        url = urllib3.util.parse_url(self._url)
        host = url.host or ""
        options: dict[str, Any] = {"maxsize": 32, "socket_options": SOCKET_OPTIONS}
        self._pool: urllib3.HTTPConnectionPool
        if self._tls is None:
            self._pool = urllib3.HTTPConnectionPool(host, url.port, **options)
        else:
            options["ssl_context"] = self._tls
            self._pool = urllib3.HTTPSConnectionPool(host, url.port, **options)

    def send(self, request: Request, timeout: float) -> Response:
        """As `HttpTransport.send`."""
        answer = self._pool.urlopen(
            "POST",
            "/",
            body=request.body,
            headers=self._headers(request, self._credentials.current(timeout)),
            timeout=timeout,
            retries=False,
            assert_same_host=False,
            decode_content=False,
        )
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, headers, answer.data)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class AiohttpTransport(_Reference):
    """On aiohttp, for the tasks of one event loop."""

    _session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, timeout: float) -> Response:
        """As `AsyncHttpTransport.send`."""
        credentials = await self._credentials.current_async(timeout)
        body = request.body
        async with self._opened().post(
            self._url,
            data=body if len(body) <= LARGE_BODY else io.BytesIO(body),
            headers=self._headers(request, credentials),
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
        ) as answer:
            read = await answer.read()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, headers, read)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=32, ssl=self._tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BUFFER,
            )
        return self._session
