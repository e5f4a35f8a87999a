"""One HTTP/1.1 exchange without a socket: a request's bytes, an answer read piece by piece.

The parser is llhttp, by httptools; here is what we ask of an answer beyond HTTP's rules.
"""

from __future__ import annotations

import time
from functools import lru_cache

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.network.settings import Proxy
from chalk_online_store.network.sockets import LARGEST_HEAD, USER_AGENT, BrokenResponse

LARGEST_BODY = 40 * 2**20
"""Memory that a body may take. DynamoDB sends at most 16 MB of items, and their JSON, with base64
and `{"N":"1"}` for a number, is up to about 2.5 times as long."""

_FRAMING_SHARE = 8
"""Of a body, chunk sizes and trailers may be one part in so many, beside `LARGEST_HEAD`."""

_PIECE_SIZE = 64
"""Memory that a piece of a body takes beside its bytes."""

_NOT_HTTP = "the answer is not HTTP"
_NO_LENGTH = "the answer has no length"
_TOO_LONG = "the answer is too long"
_REPEATED = "the answer was sent before"


class RequestWriter:
    """Makes requests to one endpoint, signed, as bytes."""

    def __init__(self, signer: Signer, forwarding: Proxy | None = None) -> None:
        """Write requests to the signer's endpoint, or to a proxy that forwards them."""
        self._signer = signer
        target, more = signer.path, ""
        if forwarding is not None:
            target = f"http://{signer.host}{signer.path}"
            if forwarding.authorization:
                more = f"Proxy-Authorization: {forwarding.authorization}\r\n"
        self._start = (
            f"POST {target} HTTP/1.1\r\nHost: {signer.host}\r\n{more}"
            f"Accept-Encoding: identity\r\nUser-Agent: {USER_AGENT}\r\n"
        )

    def write(self, request: Request, credentials: Credentials) -> bytes:
        """A whole request, signed now."""
        body = request.body
        signed = self._signer.sign(credentials, request.operation, body, time.time())
        head = f"{self._start}{signed}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


class RequestIds:
    """Whether an endpoint gives each answer an id of its own, as DynamoDB does.

    Only then a repeated id shows an answer that came twice: fakes may give all the same one.
    """

    __slots__ = ("differ",)

    def __init__(self) -> None:
        self.differ = False


class ResponseReader:
    """Reads the answers of one connection, one after the other."""

    def __init__(self, request_ids: RequestIds | None = None) -> None:
        """`request_ids` is shared by the connections to an endpoint."""
        self.reusable = True
        """Whether the connection may carry another request: known once an answer is whole."""
        self._raw: dict[bytes, bytes] = {}
        self.on_header = self._raw.__setitem__  # A call of Python's for each would add up.
        self._parser = HttpResponseParser(self)
        self._answer: Response | None = None
        self._refusal = ""
        self._fed = 0
        """Bytes that have come of this answer, interim ones included."""
        self._request_ids = request_ids or RequestIds()
        self._request_id = ""
        """The id of the last answer."""
        self._begin()

    def _begin(self) -> None:
        self._in_head = True
        self._raw.clear()
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        """Bytes of the body."""

    def feed(self, data: bytes | memoryview) -> Response | None:
        """Take what has come; give the answer when it is whole.

        Raises `BrokenResponse` for what is not HTTP, tells no length, or is too long. Nothing can
        be read after that.
        """
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._refuse(_NOT_HTTP)
        answer, self._answer = self._answer, None
        if answer is None:
            self._check(len(data))
        return answer

    def _check(self, size: int) -> None:
        """Bound what an answer takes that has not ended, whatever it consists of."""
        self._fed += size
        framing = self._fed - self._size
        if framing > LARGEST_HEAD + self._size // _FRAMING_SHARE:
            self._refuse(_TOO_LONG)
        if not self._in_head:
            self._raw.clear()  # Trailers are of no use, and may be many.
        if self._refusal:
            raise BrokenResponse(self._refusal)

    def _refuse(self, why: str) -> None:
        self.reusable = False
        self._refusal = self._refusal or why
        self._pieces = []  # An exception's traceback may keep this reader for a while.

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        """Another message; nobody asked for one that follows a whole answer."""
        if self._answer is not None:
            self._refuse(_NOT_HTTP)
        self._begin()

    def on_headers_complete(self) -> None:
        """Accept an answer that tells its length: else one cut short would pass for whole."""
        self._in_head = False
        headers = self._headers = {
            _lower(name): value.decode("latin-1").strip() for name, value in self._raw.items()
        }
        request_id = headers.get("x-amzn-requestid", "")
        if request_id:
            if request_id != self._request_id:
                if self._request_id:
                    self._request_ids.differ = True
                self._request_id = request_id
            elif self._request_ids.differ:  # It would pass for the answer to a later request.
                self._refuse(_REPEATED)
        length = headers.get("content-length")
        if length is not None:
            if int(length) > LARGEST_BODY:
                self._refuse(_TOO_LONG)
        elif not self._is_interim() and not _is_chunked(headers):
            self._refuse(_NO_LENGTH)

    def on_body(self, data: bytes) -> None:
        """A piece of the body, out of its chunk."""
        if self._refusal:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size + len(self._pieces) * _PIECE_SIZE > LARGEST_BODY:
            self._refuse(_TOO_LONG)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was only an interim one."""
        if self._is_interim():
            self._in_head = True
        elif self._answer is None and not self._refusal:
            self._fed = 0
            self.reusable = self._parser.should_keep_alive()
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._answer = Response(self._parser.get_status_code(), self._headers, body)

    def _is_interim(self) -> bool:
        return self._parser.get_status_code() < 200


@lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _is_chunked(headers: dict[str, str]) -> bool:
    return headers.get("transfer-encoding", "").lower().endswith("chunked")
