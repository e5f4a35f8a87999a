"""The Redis serialization protocol, version 2: commands to bytes, and bytes to replies.

Problem. A reply may come in any pieces, and a peer that is not well, or not the server at all, may
send anything. A client must not let a declared length or count decide how much memory it takes.

Approach. One reader serves the replies to one request. It never reserves memory for what a header
declares: a bulk string takes memory as its bytes arrive, an array as its elements arrive. Bytes,
elements and depth have limits. Arrays of bulk strings, which reads consist of, have a short loop:
headers repeat, so `_SIZES` maps a whole header to its size without parsing it again.

Invariants.
- A reader that raised, or that is not `done`, has left its connection out of step.
- Bytes after the last reply raise: nothing asked for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Argument, ...]

MAX_ELEMENTS = 1 << 20
"""Elements of all arrays of a response."""

_MAX_DEPTH = 8
_MAX_LINE = 1 << 16
"""Bytes of a line: a header, a number, a status or an error."""
_MAX_DIGITS = 20

_SIZES: dict[bytes, int] = {b"$-1\r\n": -1}
_MAX_SIZES = 1 << 12

_BULK, _ARRAY, _INTEGER, _STATUS, _ERROR = b"$*:+-"


class BrokenReply(Exception):
    """The bytes are not the reply that was asked for. The text holds none of them."""


class ErrorReply(NamedTuple):
    """An error that the server replied, such as `LOADING Redis is loading the dataset`."""

    text: str

    @property
    def code(self) -> str:
        """Its first word."""
        return self.text.partition(" ")[0]


def pack(commands: Iterable[Command]) -> bytes:
    """Render commands as the server reads them."""
    return b"".join([_packed(command) for command in commands])


def _packed(command: Command) -> bytes:
    if {*map(type, command)} == {str}:
        text = "".join([f"${len(each)}\r\n{each}\r\n" for each in command])  # type: ignore[arg-type,str-bytes-safe]
        if text.isascii():  # Else a length in characters is not one in bytes.
            return f"*{len(command)}\r\n{text}".encode()
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        data = _bytes(argument)
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _bytes(argument: Argument) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return argument.encode() if isinstance(argument, str) else b"%d" % argument


class ReplyReader:
    """Reads the replies to one request; raises `BrokenReply`.

    `count` replies are read, of at most `max_bytes` bytes together. Bulk strings and statuses are
    bytes, a null is None, an error is an `ErrorReply`.
    """

    __slots__ = (
        "_arrays",
        "_bytes_left",
        "_elements_left",
        "_have",
        "_need",
        "_pieces",
        "has_begun",
        "replies",
    )

    def __init__(self, count: int, max_bytes: int) -> None:
        self.replies: list[Any] = []
        """The replies that have arrived whole."""
        self.has_begun = False
        """True if a byte has arrived."""
        self._arrays = [(self.replies, count)]
        """The arrays that lack elements, the innermost last: its elements, and how many it has."""
        self._bytes_left = max_bytes
        self._elements_left = MAX_ELEMENTS
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 1

    @property
    def done(self) -> bool:
        """True if every reply has arrived."""
        return not self._arrays

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return `done`."""
        self.has_begun = True
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise BrokenReply("the response is too large")
        self._have += len(data)
        self._pieces.append(data)
        if self._have < self._need and self._arrays:
            return False
        buffer = data if len(self._pieces) == 1 else b"".join(self._pieces)
        rest = buffer[self._read(buffer) :]
        self._pieces, self._have = ([rest] if rest else []), len(rest)
        if rest and not self._arrays:
            raise BrokenReply("more bytes arrived than replies were asked for")
        return not self._arrays

    def _read(self, buffer: bytes) -> int:
        """Read what is whole; return where the rest begins, of which `_need` bytes are needed."""
        at = 0
        self._need = 1
        while self._arrays:
            items, count = self._arrays[-1]
            at = self._read_bulks(buffer, at, items, count)
            if len(items) == count:
                self._arrays.pop()
            elif self._need > 1 or (end := self._end_of_line(buffer, at)) < 0:
                break
            else:
                self._read_line(buffer[at : end + 2], items)
                at = at if buffer[at] == _BULK else end + 2
        return at

    def _read_bulks(self, buffer: bytes, at: int, items: list[Any], count: int) -> int:
        """Read bulk strings whose headers are known; return where something else begins."""
        append, size_of, length = items.append, _SIZES.get, len(buffer)
        width = 6
        for _ in range(len(items), count):
            header = buffer[at : at + width]
            size = size_of(header)
            if size is None:  # Its header has another width, or is none that is known.
                width = buffer.find(b"\n", at) + 1 - at
                header = buffer[at : at + width] if width > 0 else b""
                size = size_of(header)
                if size is None:
                    break
            start = at + len(header)
            if size < 0:
                append(None)
                at = start
                continue
            end = start + size
            if end + 2 > length:
                self._need = end + 2 - at
                break
            append(buffer[start:end])
            at = end + 2
        if at and buffer[at - 2 : at] != b"\r\n":
            raise BrokenReply("a bulk string does not end where its header says")
        return at

    def _end_of_line(self, buffer: bytes, at: int) -> int:
        end = buffer.find(b"\r\n", at, at + _MAX_LINE)
        if end < 0:
            if len(buffer) - at >= _MAX_LINE:
                raise BrokenReply("a line does not end")
            self._need = len(buffer) - at + 1
        return end

    def _read_line(self, line: bytes, items: list[Any]) -> None:
        """Read a line that is not a known header of a bulk string."""
        kind, text = line[0], line[1:-2]
        if kind == _BULK:
            self._learn(line, _number(text))
        elif kind == _ARRAY:
            self._open(_number(text), items)
        elif kind == _INTEGER:
            items.append(_number(text))
        elif kind == _STATUS:
            items.append(text)
        elif kind == _ERROR:
            items.append(ErrorReply(text.decode(errors="replace")))
        else:
            raise BrokenReply("a reply has no known type")

    def _learn(self, header: bytes, size: int) -> None:
        if not 0 <= size <= self._bytes_left + self._have:
            raise BrokenReply("a bulk string declares a length that cannot be")
        if len(_SIZES) >= _MAX_SIZES:
            _SIZES.clear()
            _SIZES[b"$-1\r\n"] = -1
        _SIZES[header] = size

    def _open(self, count: int, items: list[Any]) -> None:
        if count < 0:
            items.append(None)
            return
        self._elements_left -= count
        if self._elements_left < 0 or len(self._arrays) > _MAX_DEPTH:
            raise BrokenReply("an array declares more than was asked for")
        array: list[Any] = []
        items.append(array)
        self._arrays.append((array, count))


def _number(text: bytes) -> int:
    if len(text) > _MAX_DIGITS or not text.removeprefix(b"-").isdigit():
        raise BrokenReply("a number is none")
    return int(text)
