"""How far a load has come, kept beside its file, so that it goes on after an interruption."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from chalk_online_store.cli.checkpoint import load_checkpoint
from chalk_online_store.errors import InvalidValue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(msgspec.Struct):
    """The first `rows` rows of a file are written, or dead, in a table.

    `observed_at` (UTC us) is that of all rows, unless a column has it: a load that goes on later
    keeps it.
    """

    source: dict[str, Any]
    target: str
    observed_at: int
    rows: int = 0
    dead: int = 0

    @property
    def moment(self) -> datetime:
        """`observed_at` as a datetime."""
        return _EPOCH + timedelta(microseconds=self.observed_at)


def take_up(path: Path, source: dict[str, Any], target: str, now: datetime) -> Progress:
    """What an interrupted load has left, or a new beginning.

    Raises `InvalidValue` where the file or the table was another one.
    """
    found = load_checkpoint(path, Progress, "load")
    if found is None:
        return Progress(source, target, (now - _EPOCH) // timedelta(microseconds=1))
    if (found.source, found.target) != (source, target):
        what = "table" if found.source == source else "file"
        raise InvalidValue(
            f"{path} is the progress of another load: the {what} is not the same. Remove it to "
            "begin anew, or name another one with --progress."
        )
    return found
