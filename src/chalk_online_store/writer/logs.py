"""What writers log: never a key or a value."""

from __future__ import annotations

import logging
import traceback

from chalk_online_store.logs import event

LOG = logging.getLogger("chalk_online_store.writer")


def log_mistake(what: str, error: BaseException) -> None:
    """An exception that nothing here should raise: where it came from, not what it says."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    said = event("mistake", error=error)
    LOG.error("%s: %s\n%s", what, type(error).__name__, frames, extra=said)
