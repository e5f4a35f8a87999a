"""Dead-letter destinations for messages that can never be written, with their original bytes."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.writer.service.bus import Message
from chalk_online_store.writer.signal import OwnerLock


class DeadMessage(NamedTuple):
    """A message of which at least one row can never be written, and the first reason."""

    message: Message
    error: OnlineStoreError


DeadMessages: TypeAlias = Callable[[Sequence[DeadMessage]], None]
"""Delivers dead messages. When it returns, they are stored; if they are not, it raises."""


class DeadMessageFile:
    """A dead-letter destination that appends each message to a file, as a line of JSON.

    Its members are `topic`, `partition`, `offset`, `timestamp` (UTC microseconds), `error` (the
    class), `reason`, and `key`, `value` and `headers` in base64. The file holds values: only its
    owner may read it. A call returns when the lines are on disk.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = OwnerLock()

    def __call__(self, letters: Sequence[DeadMessage]) -> None:
        """Append messages. Raises `OSError`."""
        lines = b"".join(_line(letter) for letter in letters)
        with self._lock:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())


def _line(letter: DeadMessage) -> bytes:
    message, error = letter
    found = {
        "topic": message.topic,
        "partition": message.partition.id,
        "offset": message.offset,
        "timestamp": message.timestamp,
        "error": type(error).__name__,
        "reason": str(error),
        "key": _text(message.key),
        "value": _text(message.value),
        "headers": [[name, _text(value)] for name, value in message.headers],
    }
    return msgspec.json.encode(found) + b"\n"


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
