"""Add to the golden files what `cases` has and they lack.

    python -m tests.golden.generate

What is there is never touched: stored bytes of one version are read by every later one. If
`tests/test_golden.py` fails, the code is wrong, not the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from chalk_online_store.codec.changes import Attributes, parse_item
from chalk_online_store.codec.layout import all_ids
from chalk_online_store.codec.nested import Ids, value_encoder
from chalk_online_store.schema.annotations import read_annotation
from chalk_online_store.schema.types import struct_fields
from tests.golden.cases import HISTORIES, LAYOUT, REGISTRY, TYPES, item_of
from tests.golden.filter_cases import PARTS

HERE = Path(__file__).parent
PATH = "user.x"

Golden = dict[str, Any]


def ids_of(annotation: Any) -> Ids:
    """An id for each field of every struct in a type, in the order of the registry's paths."""
    paths = dict.fromkeys(path for path, _ in struct_fields(read_annotation(annotation).type, PATH))
    return dict(zip(paths, all_ids(), strict=False))


def encoded(annotation: Any, value: Any) -> bytes:
    """The attribute of a value."""
    element = read_annotation(annotation)
    return value_encoder(PATH, element.type, element.nullable, ids_of(annotation))(value)


def load(name: str) -> Golden:
    """A golden file: what is stored, by name; empty where there is no file yet."""
    file = HERE / f"{name}.json"
    found: Golden = json.loads(file.read_text()) if file.exists() else {}
    return found


def item_json(item: Attributes) -> Golden:
    """An item as JSON."""
    return {name: msgspec.json.decode(value) for name, value in item.items()}


def item_bytes(item: Golden) -> Attributes:
    """The item that such JSON stands for."""
    return parse_item(json.dumps(item).encode())


def types() -> Golden:
    """The type's name, and the attribute of the value."""
    return {
        name: {
            "type": read_annotation(annotation).type.name,
            "value": repr(value) if not isinstance(value, set | frozenset) else repr(sorted(value)),
            "stored": json.loads(encoded(annotation, value)),
        }
        for name, (annotation, value) in TYPES.items()
    }


def items() -> Golden:
    """The items that the histories come to."""
    return {name: item_json(item_of(name)) for name in HISTORIES}


def registry() -> Golden:
    """The items of each entry of the registry."""
    return {e.name: [item_json(item) for item in e.items(LAYOUT)] for e in REGISTRY.entries}


def bloom() -> Golden:
    """The parts of a Bloom filter."""
    return {name: item_json(part.seal()) for name, part in PARTS.items()}


FILES: Mapping[str, Any] = {"types": types, "items": items, "registry": registry, "filter": bloom}


def main() -> None:
    """Add what is missing."""
    for name, produce in FILES.items():
        golden = {**produce(), **load(name)}
        text = json.dumps(golden, indent=2, ensure_ascii=True)
        (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
