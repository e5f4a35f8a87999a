"""`get`, `put` and `scan` on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import Document, Namespace, OnlineStore, Vector, feature, features
from chalk_online_store.cli import main
from chalk_online_store.cli.rows.plain import to_plain
from chalk_online_store.cli.rows.registered import registered_namespace
from chalk_online_store.codec.keys import parse_key
from chalk_online_store.codec.registry import Registry
from chalk_online_store.integrations.json_rows import JsonRows
from chalk_online_store.planning.items import typical_rows
from chalk_online_store.schema import namespace_of
from chalk_online_store.testing import Dynoxide, create_table
from tests.helpers import exit_status


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    number: int | None = None


@features
class Everything:
    id: tuple[int, str]
    flag: bool
    text: str | None
    blob: bytes
    count: int
    ratio: float
    price: Decimal
    at: datetime
    day: date
    hour: time
    span: timedelta
    uid: UUID
    colour: Colour
    vector: Annotated[np.ndarray, Vector[4]]
    wide: Annotated[np.ndarray, Vector[3, np.float32]] = feature(group="vectors")
    names: list[str]
    pair: tuple[int, Address]
    tags: set[str]
    scores: dict[str, float]
    home: Address
    homes: list[Address]
    anything: Document


@features
class User:
    id: int
    name: str
    risk: float = feature(max_staleness="1h", group="realtime")


EVERYTHING = f"{__name__}:Everything"
USER = f"{__name__}:User"


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    with Dynoxide() as engine:
        create_table(engine.endpoint_url, "rows")
        yield engine.url("rows")


def run(*arguments: str) -> int:
    return exit_status(*arguments)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_is_put_is_got(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A row as JSON comes back as JSON, with its status and observed-at, missing ones told."""
    row = '{"id": 7, "name": "Ada", "risk": 0.5}'
    at = "2026-01-02T03:04:05+00:00"
    assert run("put", row, "--schema", USER, "--url", url, "--observed-at", at) == 0
    capsys.readouterr()
    assert run("get", "user", "7", "8", "--url", url, "--json") == 0
    seven, eight = printed(capsys)
    assert seven["features"]["name"] == {"status": "hit", "value": "Ada", "observed_at": at}
    assert eight["features"]["risk"]["status"] == "missing"
    assert run("get", "user", "7", "--url", url, "--feature", "risk", "--schema", USER) == 0
    # The schema knows its max staleness, the registry does not; SQLite has reaped it.
    assert re.search("risk\t(stale|missing)\t\t", capsys.readouterr().out)


def test_rows_come_from_standard_input(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a line, and a scan finds them all, or as many as are asked for."""
    lines = "\n".join(json.dumps({"id": key, "name": f"n{key}", "risk": 0.5}) for key in range(250))
    monkeypatch.setattr("sys.stdin", StringIO(lines))
    assert run("put", "-", "--schema", USER, "--url", url) == 0
    assert "250 rows" in capsys.readouterr().out
    assert run("scan", "user", "--url", url, "--limit", "0", "--keys") == 0
    assert sorted(map(int, capsys.readouterr().out.split())) == list(range(250))
    assert run("scan", "user", "--url", url, "--limit", "3", "--json") == 0
    assert len(printed(capsys)) == 3


def test_every_type_is_read_without_its_schema(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the registry knows is enough to show each value as the schema would."""
    rows = typical_rows(namespace_of(Everything), 3)
    with OnlineStore.open(url, [Everything]) as store:
        store.write(Everything, rows)
    keys = [f"{row['id'][0]}:{row['id'][1]}" for row in rows]
    assert run("get", "everything", *keys, "--url", url, "--json") == 0
    blind = printed(capsys)
    assert run("get", "everything", *keys, "--url", url, "--json", "--schema", EVERYTHING) == 0
    assert printed(capsys) == blind
    assert {told["status"] for row in blind for told in row["features"].values()} == {"hit"}
    assert run("scan", "everything", "--url", url, "--json") == 0
    assert sorted(map(json.dumps, printed(capsys))) == sorted(map(json.dumps, blind))


def test_json_is_exact() -> None:
    """Each value as JSON and back is the same value, of the same type."""
    namespace = namespace_of(Everything)
    for row in typical_rows(namespace, 20):
        wanted = {**row, "vector": np.float16(row["vector"]), "wide": np.float32(row["wide"])}
        back, _ = JsonRows(namespace).convert(json.dumps(to_plain(wanted)), 0)
        for name, value in wanted.items():
            assert np.array_equal(back[name], value), name
    assert to_plain([float("nan"), float("inf")]) == ["nan", "inf"]


class Mark(Enum):
    FIRST = b"a"
    SECOND = b"b"


def test_sets_without_an_order_become_lists() -> None:
    """Enums, of bytes too, and NaN of Decimal are shown from a set as they are alone."""
    assert to_plain(Mark.FIRST) == "YQ=="
    assert sorted(to_plain(set(Mark))) == ["YQ==", "Yg=="]
    assert sorted(to_plain(set(Colour))) == ["blue", "red"]
    assert sorted(to_plain({Decimal("NaN"), Decimal(1), Decimal(2)})) == ["1", "2", "NaN"]


class Rate(Enum):
    LOW = 1
    HIGH = 2


@features
class Offer:
    id: tuple[int, str]
    mark: Mark | None
    rate: Rate
    marks: dict[str, Mark]
    prices: set[Decimal]
    took: timedelta | None


def test_put_takes_what_load_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`put` and `load` read the same JSON: enums of any type, durations and keys of parts."""
    values = {
        "mark": "YQ==",
        "rate": 1,
        "marks": {"x": "Yg=="},
        "prices": [1.10, "2.0"],
        "took": "PT2S",
    }
    prices = {Decimal("1.1"), Decimal("2.0")}
    expected = [Mark.FIRST, Rate.LOW, {"x": Mark.SECOND}, prices, timedelta(seconds=2)]
    url, schema = f"sqlite:///{tmp_path / 'store.db'}", f"{__name__}:Offer"
    assert run("put", json.dumps({"id": [1, "a"]} | values), "--schema", schema, "--url", url) == 0
    path = tmp_path / "offers.jsonl"
    path.write_text(json.dumps({"number": 2, "code": "b"} | values))
    keys = ["--key", "number", "--key", "code"]
    command = ["load", str(path), "--schema", schema, *keys, "--url", url, "--yes"]
    assert run(*command) == 0
    with OnlineStore.open(url, [Offer]) as store:
        for row in store.read(Offer, [(1, "a"), (2, "b")], list(values)):
            assert [row[name] for name in values] == expected
    capsys.readouterr()
    bad = [
        ({"id": [1]}, "The primary key 'id' has 2 parts"),
        ({"id": [1, "a"], "rate": 7}, "it is not among the declared values"),
        ({"id": [1, "a"], "rate": None}, "'rate' is null or missing"),
    ]
    for wrong, message in bad:
        assert run("put", json.dumps(wrong), "--schema", schema, "--url", url) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "nobody", "1"), "no namespace 'nobody'"),
        (("get", "user", "x"), "A primary key of 'user' is written as int"),
        (("put", "{", "--schema", USER), "not JSON"),
        (("put", '{"name": "x"}', "--schema", USER), "primary key 'id'"),
        (("put", '{"id": 1, "risk": "x"}', "--schema", USER), "'risk' is no float"),
        (("put", '{"id": 1, "nope": 1}', "--schema", USER), "nope"),
        (("put", '{"id": 1}', "--schema", USER, "--observed-at", "2026-01-02"), "no time zone"),
    ],
)
def test_a_mistake_has_no_traceback(
    url: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said in one line, and nothing is written."""
    run("put", '{"id": 1, "name": "a", "risk": 0.5}', "--schema", USER, "--url", url)
    capsys.readouterr()
    assert run(*arguments, "--url", url) == (2 if "--observed-at" in arguments else 1)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_key_of_several_parts_may_hold_anything() -> None:
    """Colons and backslashes within a part are written with a backslash."""
    namespace = Namespace("n", tuple[int, str, UUID], [])
    uid = UUID(int=7)
    assert parse_key(rf"1:a\:b\\:{uid.hex}", namespace) == (1, "a:b\\", uid)
    assert parse_key(f"1::{uid.hex}", namespace) == (1, "", uid)
    assert parse_key("a:b", Namespace("n", str, [])) == "a:b"


def test_an_empty_registry_names_nothing() -> None:
    """The message says what there is instead."""
    with pytest.raises(Exception, match="it has: none"):
        registered_namespace(Registry(), "user")


@features
class Depth:
    id: int
    n: int


def test_a_negative_number_is_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one in its place among others; other words that begin with a dash are options."""
    url = f"sqlite:///{tmp_path / 'features.db'}"
    with OnlineStore.open(url, schema=[Depth]) as store:
        store.write(Depth, [{"id": -5, "n": 1}, {"id": 3, "n": 2}])
    for keys in (["-5", "3"], ["3", "-5"], ["--", "-5", "3"]):
        with pytest.raises(SystemExit) as caught:
            main(["get", "depth", "--url", url, "--json", *keys])
        assert not caught.value.code
        lines = [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]
        assert lines == [int(key) for key in keys if key != "--"]
    with pytest.raises(SystemExit) as caught:
        main(["get", "depth", "-5", "--consistnt", "--url", url])
    assert caught.value.code == 2
