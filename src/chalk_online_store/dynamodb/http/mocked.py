"""Requests under moto's in-process mock: they never reach AWS.

`moto.mock_aws` answers in place of AWS by a handler of botocore's event `before-send`. This library
has its own wire and sends no such event, so a test under the mock would read and write the real
table, with whatever credentials a profile provides. Therefore, if moto is imported when a store is
opened, each request first asks whether a mock is active. If one is, the request is handed to the
event's handlers, as botocore does, and no connection is opened and no credentials are loaded.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.errors import RequestRefused

if TYPE_CHECKING:
    from chalk_online_store.dynamodb.credentials import Endpoint
    from chalk_online_store.dynamodb.http.aio import AsyncHttpTransport
    from chalk_online_store.dynamodb.http.blocking import HttpTransport

_ENDED = (
    "the mock under which this store was opened has ended, so its requests would reach AWS. Open "
    "the store again, inside the mock or outside"
)
_NOT_MOCKED = (
    "a mock of moto is active and does not answer for this endpoint, and under a mock nothing is "
    "sent to another machine. Use an endpoint of AWS, sqlite:// or an engine of "
    "chalk_online_store.testing"
)


def is_moto_imported() -> bool:
    """Return True if this process can have an active mock."""
    return "moto" in sys.modules


def is_mock_active() -> bool:
    """Return True while `moto.mock_aws` is in force."""
    models = sys.modules.get("moto.core.models")
    if models is None:
        return False
    # A moto that keeps this elsewhere counts as active: refusing is safe, AWS is not.
    return bool(getattr(getattr(models, "botocore_stubber", None), "enabled", True))


class _Mock:
    """botocore's `before-send` handlers, asked for one endpoint. Thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = f"{endpoint.url.rstrip('/')}/"
        self._authorization = (
            f"AWS4-HMAC-SHA256 Credential=testing/20260101/{endpoint.region}/dynamodb/"
            "aws4_request, SignedHeaders=host, Signature=0"
        )  # moto reads the region from it, and checks no signature.
        self._opened_under_mock = is_mock_active()
        self._lock = threading.Lock()
        self._events: Any = None

    def answer(self, request: Request) -> Response | None:
        """The mock's response, or None if no mock is active. Raises `RequestRefused`."""
        if not is_mock_active():
            if self._opened_under_mock:
                raise RequestRefused(_ENDED)
            return None
        from botocore.awsrequest import AWSRequest

        made = AWSRequest(
            method="POST",
            url=self._url,
            data=request.body,
            headers={
                "Authorization": self._authorization,
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"DynamoDB_20120810.{request.operation}",
            },
        )
        event = f"before-send.dynamodb.{request.operation}"
        with self._lock:  # moto's tables are plain dictionaries.
            responses = self._emitter().emit(event, request=made.prepare())
        found = next((response for _, response in responses if response is not None), None)
        if found is None:
            raise RequestRefused(_NOT_MOCKED)
        headers = {name.lower(): str(value) for name, value in found.headers.items()}
        return Response(found.status_code, headers, found.content)

    def _emitter(self) -> Any:
        """The events of a new session: one made before moto was imported lacks moto's handler."""
        if self._events is None:
            from botocore.session import Session

            self._events = Session().get_component("event_emitter")
        return self._events


class MockedTransport:
    """A transport for threads that hands requests to an active mock, else to the real one."""

    def __init__(self, transport: HttpTransport, endpoint: Endpoint) -> None:
        self._transport = transport
        self.reuse = transport.reuse
        self._mock = _Mock(endpoint)

    def send(self, request: Request, timeout: float) -> Response:
        """Like `HttpTransport.send`. Raises `RequestRefused` if the mock has ended."""
        answer = self._mock.answer(request)
        return self._transport.send(request, timeout) if answer is None else answer

    def warm(self, connections: int, timeout: float) -> int:
        """Like `HttpTransport.warm`; a mock has no connections."""
        return 0 if is_mock_active() else self._transport.warm(connections, timeout)

    def close(self) -> None:
        """Close the real transport."""
        self._transport.close()


class AsyncMockedTransport:
    """Like `MockedTransport`, for asyncio. The mock answers within the event loop's thread."""

    def __init__(self, transport: AsyncHttpTransport, endpoint: Endpoint) -> None:
        self._transport = transport
        self.reuse = transport.reuse
        self._mock = _Mock(endpoint)

    async def send(self, request: Request, timeout: float) -> Response:
        """Like `MockedTransport.send`."""
        answer = self._mock.answer(request)
        return await self._transport.send(request, timeout) if answer is None else answer

    async def warm(self, connections: int, timeout: float) -> int:
        """Like `MockedTransport.warm`."""
        return 0 if is_mock_active() else await self._transport.warm(connections, timeout)

    async def close(self) -> None:
        """Close the real transport."""
        await self._transport.close()
