"""What log records say beside their text: an event's name, and its facts as fields.

They are attributes of the record, so that a formatter for JSON, or OpenTelemetry's handler, takes
them up. Never a key, a value or a secret.
"""

from __future__ import annotations

import logging
import os

# Nothing is printed where nobody has configured logging: else warnings would go to stderr.
logging.getLogger("chalk_online_store").addHandler(logging.NullHandler())

_NAMES = {"error": "error.type", "region": "cloud.region", "path": "file.path"}
"""As OpenTelemetry's semantic conventions call them; what is ours begins with `chalk.`."""


def event(name: str, **facts: object) -> dict[str, object]:
    """The `extra` of a log record. Of an exception its class is told, of a path its text."""
    said: dict[str, object] = {"event.name": f"chalk.online_store.{name}"}
    for key, fact in facts.items():
        said[_NAMES.get(key, f"chalk.{key}")] = _plain(fact)
    return said


def _plain(fact: object) -> object:
    if isinstance(fact, BaseException):
        return type(fact).__name__
    return os.fspath(fact) if isinstance(fact, os.PathLike) else fact
