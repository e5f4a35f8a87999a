"""What the last run of each part found, as JSON and in the documents."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.server import ROOT

LATEST = Path(__file__).parent / "results" / "latest.json"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "performance.md",
)


def save(part: str, results: Any, **setting: Any) -> None:
    """Keep what a part of the benchmarks found; other parts keep what they have."""
    kept = load()
    where = {"python": platform.python_version(), "machine": platform.machine()}
    kept[part] = {"setting": where | setting, "results": results}
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(rounded(kept), indent=1) + "\n")


def load() -> dict[str, Any]:
    """Everything that was kept, by part."""
    kept: dict[str, Any] = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    return kept


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
