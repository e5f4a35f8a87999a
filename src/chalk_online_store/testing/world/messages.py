"""HTTP/1.1 messages, and their reading from a connection; the parser is llhttp, by httptools."""

from __future__ import annotations

import http
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from httptools import HttpRequestParser, HttpResponseParser

Headers = list[tuple[bytes, bytes]]

_FRAMING = (b"content-length", b"transfer-encoding")


@dataclass(slots=True)
class Message:
    """What requests and answers have in common."""

    start: bytes
    headers: Headers
    body: bytes
    keep_alive: bool = True

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its name in lower case."""
        for found, value in self.headers:
            if found.lower() == name:
                return value
        return None

    def head(self) -> bytes:
        """The first line and the headers; the length is the body's."""
        lines = [
            name + b": " + value for name, value in self.headers if name.lower() not in _FRAMING
        ]
        lines.append(b"Content-Length: %d\r\n\r\n" % len(self.body))
        return b"\r\n".join([self.start, *lines])

    def encode(self) -> bytes:
        """The whole message."""
        return self.head() + self.body

    def with_header(self, name: bytes, value: bytes) -> Headers:
        """The headers, with one of them set."""
        others = [header for header in self.headers if header[0].lower() != name]
        return [*others, (name, value)]


@dataclass(slots=True)
class Request(Message):
    """What a client asks."""

    operation: str = ""
    """The API operation, such as `GetItem`; empty for what is none."""


@dataclass(slots=True)
class Answer(Message):
    """What an engine answers."""

    status: int = 200
    raw: bytes = b""
    """The message as it came, as long as nothing is changed in it."""

    def encode(self) -> bytes:
        """The message as it came, if it came."""
        return self.raw or Message.encode(self)

    def but(self, **changes: Any) -> Answer:
        """A copy with changes."""
        return replace(self, raw=b"", **changes)


def make_answer(status: int, body: bytes, headers: Headers) -> Answer:
    """An answer of our own."""
    start = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()
    return Answer(start, headers, body, status=status)


class _Reader:
    """Collects what the parser calls out."""

    def __init__(self) -> None:
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: Headers = []
        self._pieces: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)


class RequestReader(_Reader):
    """Reads the requests of one connection, and gives each to `take`."""

    def __init__(self, take: Callable[[Request], None]) -> None:
        super().__init__()
        self._parser = HttpRequestParser(self)
        self._take = take

    def feed(self, data: bytes) -> None:
        """Take what has come; raises httptools' `HttpParserError`."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A request is whole."""
        start = b"%b %b HTTP/1.1" % (self._parser.get_method(), self._url)
        keep_alive = self._parser.should_keep_alive()
        request = Request(start, self._headers, b"".join(self._pieces), keep_alive)
        target = request.header(b"x-amz-target") or b""
        request.operation = target.rpartition(b".")[2].decode("latin-1")
        self._take(request)


class ResponseReader(_Reader):
    """Reads the answers of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = HttpResponseParser(self)
        self._came: list[bytes] = []
        self._reason = b""
        self._answer: Answer | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Take what has come, and give the answer once it is whole."""
        self._came.append(data)
        self._parser.feed_data(data)
        answer, self._answer = self._answer, None
        return answer

    def on_status(self, reason: bytes) -> None:
        """The words after the status."""
        self._reason = reason

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        start = b"HTTP/1.1 %d %b" % (status, self._reason)
        raw, self._came = b"".join(self._came), []
        self._answer = Answer(
            start,
            self._headers,
            b"".join(self._pieces),
            self._parser.should_keep_alive(),
            status,
            raw,
        )
