"""Moving to our store: the values of Feast's own stores, copied."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from feast import FeatureStore, RepoConfig
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RegistryConfig
from typer.testing import CliRunner

from chalk_online_store import UnknownFeature
from chalk_online_store.cli.app import app
from chalk_online_store.errors import InvalidKey
from chalk_online_store.integrations.feast import Copied, copy_online
from chalk_online_store.testing import Dynoxide
from tests.feast.world import (
    CITY,
    DRIVER,
    NOW,
    PLACE,
    STATS,
    VISITS,
    WEATHER,
    Project,
    ago,
    key,
)

DRIVERS = [{"driver_id": number, "city": "Rome"} for number in range(1200)]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Project]:
    """A project on our store."""
    (tmp_path / "target").mkdir()
    with asyncio.Runner() as runner:
        project = Project(f"sqlite:///{tmp_path}/ours.db", tmp_path / "target", runner, False)
        yield project
        project.close()


def config(directory: Path, online_store: dict[str, Any]) -> RepoConfig:
    directory.mkdir()
    return RepoConfig(
        project="shop",
        provider="local",
        registry=RegistryConfig(path=str(directory / "registry.db")),
        online_store=online_store,
        offline_store="file",
        entity_key_serialization_version=3,
    )


def filled(found: RepoConfig) -> FeatureStore:
    """A project on one of Feast's own stores, with some values."""
    store = FeatureStore(config=found)
    store.apply([DRIVER, CITY, STATS, PLACE, WEATHER, VISITS])
    write(store, STATS, [({"driver_id": n}, {"trips": Value(int64_val=n)}) for n in range(1100)])
    write(store, VISITS, [({"driver_id": 5, "city": "Rome"}, {"count": Value(int64_val=5)})])
    return store


def write(store: FeatureStore, view: Any, rows: list[Any], at: datetime = NOW) -> None:
    data = [(key(entity), values, at, None) for entity, values in rows]
    store._get_provider().online_write_batch(store.config, view, data, None)


@pytest.fixture(params=["sqlite", "dynamodb"])
def source(request: pytest.FixtureRequest, dynoxide: Dynoxide, tmp_path: Path) -> FeatureStore:
    """A project on Feast's SQLite store, and on its DynamoDB store."""
    online = {"type": "sqlite", "path": str(tmp_path / "theirs.db")}
    if request.param == "dynamodb":
        online = {
            "type": "dynamodb",
            "region": "us-east-1",
            "endpoint_url": dynoxide.endpoint_url,
            "table_name_template": f"{tmp_path.name}.{{project}}.{{table_name}}",
        }
    return filled(config(tmp_path / "source", online))


def test_values_are_copied_with_their_times(source: FeatureStore, target: Project) -> None:
    """All views are copied, of several join keys as well; it is told what was not there."""
    told: list[int] = []
    copied = copy_online(
        source, target.features, DRIVERS, progress=lambda part: told.append(part.entities)
    )
    assert sorted(copied, key=lambda one: one.view) == [
        Copied("place", 1200, 1200),
        Copied("stats", 1200, 100),
        Copied("visits", 1200, 1199),
        Copied("weather", 1, 1),
    ]
    assert told.count(1200) == 3
    asked = [{"driver_id": 1099}, {"driver_id": 1100}]
    (when, values), nothing = target.read_rows(STATS, asked, ["trips"])
    assert abs((when - NOW).total_seconds()) < 1  # Feast keeps no more of it everywhere.
    assert values == {"trips": Value(int64_val=1099)}
    assert nothing == (None, None)


def test_a_copy_leaves_what_is_newer(source: FeatureStore, target: Project) -> None:
    """What was written to the target meanwhile stays, and a second copy changes nothing."""
    newer = [({"driver_id": 1}, {"trips": Value(int64_val=77)})]
    target.write(STATS, newer, at=ago(minutes=-2))
    for _ in range(2):
        copy_online(source, target.features, DRIVERS[:3], ["stats"])
    found = target.read_rows(STATS, [{"driver_id": number} for number in range(3)], ["trips"])
    assert [values["trips"].int64_val for _, values in found] == [0, 77, 2]


def test_entities_that_one_answer_loses_are_asked_for_again(
    source: FeatureStore, target: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a store answers nothing for among many is found among few."""
    provider = source._get_provider()
    read = provider.online_read

    def forgetful(config: Any, view: Any, keys: list[Any], *rest: Any) -> Any:
        found = read(config, view, keys, *rest)
        return [*found[:10], *((None, None) for _ in found[10:])]

    monkeypatch.setattr(provider, "online_read", forgetful)
    (copied,) = copy_online(source, target.features, DRIVERS[:50], ["stats"])
    assert copied == Copied("stats", 50, 0)


def test_what_redis_and_old_fields_answer_is_understood(
    source: FeatureStore, target: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's Redis store answers 1970 for nothing; others also what a view had in the past."""
    provider = source._get_provider()
    read = provider.online_read

    def redis(config: Any, view: Any, keys: list[Any], *rest: Any) -> Any:
        for when, values in read(config, view, keys, *rest):
            if when is None:
                yield datetime.fromtimestamp(0, UTC), {"trips": Value(), "rating": Value()}
            else:
                yield when, {**values, "gone": Value(int64_val=1)}

    monkeypatch.setattr(provider, "online_read", redis)
    rows = [{"driver_id": number} for number in (1, 5000)]
    assert copy_online(source, target.features, rows, ["stats"]) == [Copied("stats", 2, 1)]
    assert target.read_rows(STATS, rows, ["trips"])[1] == (None, None)


def test_what_cannot_be_copied_is_refused(source: FeatureStore, target: Project) -> None:
    """An unknown view, and rows without a join key, are refused by name."""
    with pytest.raises(UnknownFeature, match="'nothing'"):
        copy_online(source, target.features, DRIVERS, ["nothing"])
    with pytest.raises(InvalidKey, match="keyed by 'driver_id'"):
        copy_online(source, target.features, [{"city": "Rome"}], ["stats"])


def test_the_command_copies(tmp_path: Path, target: Project) -> None:
    """`copy-feast` reads two repositories and a Parquet file, and tells what it copied."""
    path = str(tmp_path / "theirs.db")
    source = filled(config(tmp_path / "source", {"type": "sqlite", "path": path}))
    for store, directory in ((source, tmp_path / "source"), (target.features, tmp_path / "target")):
        described = {
            "project": "shop",
            "provider": "local",
            "registry": str(directory / "registry.db"),
            "online_store": store.config.online_store.model_dump(mode="json"),
            "offline_store": {"type": "file"},
            "entity_key_serialization_version": 3,
        }
        (directory / "feature_store.yaml").write_text(json.dumps(described))  # which is YAML
    pa.parquet.write_table(pa.Table.from_pylist(DRIVERS[:3]), tmp_path / "drivers.parquet")
    paths = [str(tmp_path / name) for name in ("source", "target", "drivers.parquet")]
    result = CliRunner().invoke(app, ["copy-feast", *paths, "--view", "stats"])
    assert result.exit_code == 0, result.output
    assert result.output == "stats: 3 of 3 entities copied\n"
    assert target.read_rows(STATS, [{"driver_id": 0}], ["trips"])[0][1] == {
        "trips": Value(int64_val=0)
    }
