"""Stored bytes are a promise: what any version wrote is read, and nothing is written otherwise."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from chalk_online_store.codec.changes import render_item
from chalk_online_store.codec.nested import codec_of
from chalk_online_store.codec.registry import read_entry
from chalk_online_store.schema.annotations import read_annotation
from tests.golden.cases import (
    HISTORIES,
    LAYOUT,
    REGISTRY,
    SERVED,
    STAY,
    TYPES,
    USER,
    T,
    item_of,
    microseconds,
)
from tests.golden.cases import codec_of as namespace_codec
from tests.golden.filter_cases import PARTS
from tests.golden.generate import FILES, PATH, encoded, ids_of, item_bytes, item_json, load
from tests.strategies import exactly

GOLDEN = {name: load(name) for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_every_case_has_its_bytes(name: str) -> None:
    """What is stored is kept for every case, and no case has ever been taken away."""
    assert GOLDEN[name].keys() == FILES[name]().keys()


@pytest.mark.parametrize("name", GOLDEN["types"])
def test_a_golden_value_is_read(name: str) -> None:
    """Every stored form is read as exactly the value that was written."""
    annotation, value = TYPES[name]
    codec = codec_of(read_annotation(annotation).type, PATH, ids_of(annotation))
    stored = json.dumps(GOLDEN["types"][name]["stored"])
    found = codec.decode(msgspec.json.decode(stored, type=codec.attribute, strict=False))
    assert exactly(found) == exactly(value)


@pytest.mark.parametrize("name", GOLDEN["types"])
def test_a_golden_value_is_written(name: str) -> None:
    """Every value is stored as ever: older versions may read what newer ones write."""
    annotation, value = TYPES[name]
    golden = GOLDEN["types"][name]
    assert json.loads(encoded(annotation, value)) == golden["stored"]
    assert read_annotation(annotation).type.name == golden["type"]


@pytest.mark.parametrize("name", GOLDEN["items"])
def test_a_golden_item_is_read(name: str) -> None:
    """Every form of an item is read: each feature's value, its time, and what is absent."""
    codec = namespace_codec(STAY if name == "of a composite key" else USER)
    (group,) = (g for g in codec.groups.values() if SERVED[name].keys() <= g.shape.positions.keys())
    (row,) = group.shape.decode_items([render_item(item_bytes(GOLDEN["items"][name]))])
    found: dict[str, Any] = {}
    for feature, position in group.shape.positions.items():
        cell = group.shape.cell(row, position)
        found[feature] = None if cell is None else (exactly(cell.value), cell.observed_at)
    expected = {
        feature: None if seen is None else (exactly(seen[0]), microseconds(T[seen[1]]))
        for feature, seen in SERVED[name].items()
    }
    assert found == expected


@pytest.mark.parametrize("name", HISTORIES)
def test_a_golden_item_is_written(name: str) -> None:
    """Every history of writes comes to the very item that it always came to."""
    assert item_json(item_of(name)) == GOLDEN["items"][name]


@pytest.mark.parametrize("entry", REGISTRY.entries, ids=lambda entry: entry.name)
def test_a_golden_entry(entry: Any) -> None:
    """Entries of the registry, those of struct fields among them, are read and written as ever."""
    golden = GOLDEN["registry"][entry.name]
    assert [item_json(item) for item in entry.items(LAYOUT)] == golden
    assert read_entry(item_bytes(golden[0])) == entry


@pytest.mark.parametrize("name", PARTS)
def test_a_golden_part_of_a_filter(name: str) -> None:
    """Heads, segments and chunks of a Bloom filter are read and written as ever."""
    part, golden = PARTS[name], GOLDEN["filter"][name]
    assert item_json(part.seal()) == golden
    assert part.unseal(item_bytes(golden)) == part.says
