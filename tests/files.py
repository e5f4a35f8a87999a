"""Files of rows, in the formats of demands and traces, and how bad ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import InvalidValue

Rows = list[dict[str, Any]]
Write = Callable[[Rows], Path]


def write_rows(path: Path, rows: Rows) -> Path:
    """Write a file in the format that its name ends in; lines of JSON with empty ones between."""
    _WRITERS[path.suffix](path, rows)
    return path


def _write_csv(path: Path, rows: Rows) -> None:
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    path.write_text("\n".join(",".join(line) for line in ([*rows[0]], *cells)))


def _write_json(path: Path, rows: Rows) -> None:
    path.write_text("\n\n".join(map(json.dumps, rows)))


def _write_parquet(path: Path, rows: Rows) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.Table.from_pylist(rows), path)


_WRITERS = {".csv": _write_csv, ".jsonl": _write_json, ".parquet": _write_parquet}


def check_refused(read: Callable[[Path], object], path: Path, row: int, column: str) -> None:
    """The message names file, line and column, and what to do; never what stands there."""
    where = {".csv": f"line {row + 1}", ".jsonl": f"line {2 * row - 1}"}
    with pytest.raises(InvalidValue) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}, {where.get(path.suffix, f'row {row}')}, {column}")
    assert "secret" not in message
