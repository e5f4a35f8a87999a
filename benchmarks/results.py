"""What the last run of each part found, as JSON and in the documents."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.server import ROOT

RESULTS = Path(__file__).parent / "results"
LATEST = "latest"
"""The file of client CPU; each other part has a file of its own name."""
SETTINGS = RESULTS / "settings.json"
"""What ran, when each part was last measured."""
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "caching.md",
    ROOT / "docs" / "choosing.md",
    ROOT / "docs" / "writing.md",
)


def save(part: str, results: Any, **setting: Any) -> None:
    """Keep what a part of the benchmarks found; other parts keep what they have."""
    settings = _read(SETTINGS, {})
    where = {"python": platform.python_version(), "machine": platform.machine()}
    RESULTS.mkdir(exist_ok=True)
    _write(SETTINGS, settings | {part: where | setting})
    _write(_file_of(part), results)


def load() -> dict[str, Any]:
    """Everything that was kept, by part: its setting, and its results as a list."""
    return {
        part: {"setting": setting, "results": _read(_file_of(part), [])}
        for part, setting in _read(SETTINGS, {}).items()
    }


def _file_of(part: str) -> Path:
    return RESULTS / f"{LATEST if part == 'cpu' else part}.json"


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else otherwise


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(rounded(content), indent=1) + "\n")


def rounded(content: Any) -> Any:
    """With floats to four digits: the rest is noise."""
    match content:
        case float():
            return float(f"{content:.4g}")
        case dict():
            return {name: rounded(value) for name, value in content.items()}
        case list():
            return [rounded(value) for value in content]
    return content


def insert(text: str, tables: Mapping[str, str]) -> str:
    """A document with each table between its two markers, `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, table in tables.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if start and end:
            text = f"{before}{start}\n{table}\n\n{end}{after}"
    return text


def update_documents(tables: Mapping[str, str]) -> None:
    """Put the tables into every document that has markers for them."""
    for path in DOCUMENTS:
        path.write_text(insert(path.read_text(), tables))
