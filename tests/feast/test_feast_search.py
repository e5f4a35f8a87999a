"""Vector search through Feast, on SQLite and on DynamoDB's wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Field
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Array, Float32, Int64, String

from chalk_online_store import InvalidValue
from chalk_online_store.integrations.feast import namespaces_of
from chalk_online_store.testing import Dynoxide, create_table
from tests.feast.world import NOW, STATS, Project, ago, view

DOCS = view(
    "docs",
    [
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=2,
            vector_search_metric="L2",
        ),
        Field(name="language", dtype=String, tags={"vector_filter": "true"}),
        Field(name="words", dtype=Int64),
    ],
    ttl=timedelta(days=1),
)


@pytest.fixture(params=["sqlite", "dynoxide"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project with four documents, one of them older than its view's ttl."""
    url = f"sqlite:///{tmp_path}/features.db"
    with asyncio.Runner() as runner:
        found = Project(url, tmp_path, runner, False, {"enforce_view_ttl": True})
        found.features.apply([DOCS])
        if request.param == "dynoxide":
            engine: Dynoxide = request.getfixturevalue("dynoxide")
            table = f"feast-{tmp_path.name}"
            create_table(engine.endpoint_url, table, schema=namespaces_of(found.features))
            found.close()
            options = {"enforce_view_ttl": True}
            found = Project(engine.url(table), tmp_path, runner, False, options)
            found.features.apply([DOCS])
        found.write(DOCS, [doc(1, [0, 0], "en", 10), doc(2, [3, 4], "en", 20)])
        found.write(DOCS, [doc(3, [0, 1], "de", 30)])
        found.write(DOCS, [doc(4, [0, 0], "en", 40)], at=ago(days=2))
        yield found
        found.close()


def doc(driver: int, at: list[float], language: str, words: int) -> Any:
    embedding = Value(float_list_val=FloatList(val=at))
    values = {"embedding": embedding, "words": Value(int64_val=words)}
    return {"driver_id": driver}, values | {"language": Value(string_val=language)}


def test_documents_are_retrieved(project: Project) -> None:
    """Feast's call answers the nearest documents and their distances, in the order of entities."""
    response = project.features.retrieve_online_documents_v2(
        features=["docs:words", "docs:language"], query=[0.0, 0.0], top_k=10
    ).to_dict()
    assert response["words"] == [10, 20, 30]
    assert response["language"] == ["en", "en", "de"]
    assert response["distance"] == [0.0, 5.0, 1.0]


def test_what_a_store_answers(project: Project) -> None:
    """Results have event times, entities of the declared type, and what was requested."""
    found = project.store.retrieve_online_documents_v2(
        project.config, DOCS, ["words"], [0.0, 0.9], 1, filters=equal("language", "de")
    )
    ((event_time, key, values),) = found
    assert event_time == NOW
    assert key is not None
    assert (key.join_keys, key.entity_values[0].int64_val) == (["driver_id"], 3)
    assert values is not None
    assert values["words"].int64_val == 30
    assert values["distance"].float_val == pytest.approx(0.1)
    both = CompoundFilter(type="and", filters=[equal("language", "en"), equal("language", "en")])
    found = project.store.retrieve_online_documents_v2(
        project.config, DOCS, [], [3.0, 4.0], 1, filters=both
    )
    assert [key.entity_values[0].int64_val for _, key, _ in found if key] == [2]


def test_the_older_call(project: Project) -> None:
    """Feast's first form of the call answers a feature, the vector and the distance."""
    found = project.store.retrieve_online_documents(
        project.config, DOCS, ["words"], [3.0, 4.0], 2, "L2"
    )
    _, keys, words, vectors, distances = zip(*found, strict=True)
    assert [key.entity_values[0].int64_val for key in keys if key] == [2, 3]
    assert [value.int64_val for value in words if value] == [20, 30]
    assert [list(value.float_list_val.val) for value in vectors if value] == [[3, 4], [0, 1]]
    assert [value.float_val for value in distances if value] == [0.0, pytest.approx(18**0.5)]


def equal(name: str, value: Any) -> ComparisonFilter:
    return ComparisonFilter(type="eq", key=name, value=value)


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_what_cannot_be_searched_is_refused(project: Project) -> None:
    """Words, other comparisons, other metrics and large k are refused, with the reason."""
    retrieve = project.store.retrieve_online_documents_v2
    at = [0.0, 0.0]
    with pytest.raises(InvalidValue, match="query_string"):
        retrieve(project.config, DOCS, [], None, 1, query_string="words")
    for wrong in (
        ComparisonFilter(type="gt", key="words", value=1),
        CompoundFilter(type="or", filters=[equal("language", "de")]),
    ):
        with pytest.raises(InvalidValue, match="equality"):
            retrieve(project.config, DOCS, [], at, 1, filters=wrong)
    with pytest.raises(InvalidValue, match="not a filter"):
        retrieve(project.config, DOCS, [], at, 1, filters=equal("words", 10))
    with pytest.raises(InvalidValue, match="distance_metric"):
        retrieve(project.config, DOCS, [], at, 1, "COSINE")
    with pytest.raises(InvalidValue, match="from 1 to 100"):
        retrieve(project.config, DOCS, [], at, 101)
    with pytest.raises(InvalidValue, match="0 fields to search"):
        retrieve(project.config, STATS, [], at, 1)
