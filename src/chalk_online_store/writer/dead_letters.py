"""Dead letters: rows that can never be written, with the reason why."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.writer.locks import OwnerLock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that will never be written, and why.

    A row that lay in the spool when the process began is as its attributes say: its key is a
    text, and of what kind its values are is lost where DynamoDB's types do not say so.
    """

    namespace: str
    row: Mapping[str, Any]
    observed_at: datetime
    error: OnlineStoreError


DeadLetters: TypeAlias = Callable[[Sequence[DeadLetter]], None]
"""Takes letters, in the writer's thread; best soon. What it raises is logged."""


def moment(microseconds: int) -> datetime:
    """UTC microseconds as a datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


class DeadLetterFile:
    """A sink that appends each letter to a file, as a line of JSON.

    Its members are `namespace`, `observed_at` (ISO 8601), `error` (the class), `message`, and
    `row`. Values that JSON does not have are shown as text, bytes in base64. The file holds
    values: only its owner may read it. On disk before a letter counts as dead.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = OwnerLock()

    def __call__(self, letters: Sequence[DeadLetter]) -> None:
        """Append letters; raises `OSError`."""
        lines = "".join(_line(letter) for letter in letters)
        with self._lock:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())


def _line(letter: DeadLetter) -> str:
    found = {
        "namespace": letter.namespace,
        "observed_at": letter.observed_at.isoformat(),
        "error": type(letter.error).__name__,
        "message": str(letter.error),
        "row": {str(name): _plain(value) for name, value in letter.row.items()},
    }
    return json.dumps(found, default=_text) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: keys are texts, and there are no lone surrogates in UTF-8."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
        case np.ndarray():
            return value.tolist()
        case bytes():
            return base64.b64encode(value).decode()
    return value


def _text(value: Any) -> str:
    return str(value)
