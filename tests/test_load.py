"""`chalk-online-store load`: files into tables, and into DynamoDB's import format."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, provisioned_wcu
from chalk_online_store.cli import main
from chalk_online_store.cli.checkpoint import save_checkpoint
from chalk_online_store.cli.loading import run as loading
from chalk_online_store.cli.loading.formats import input_files
from chalk_online_store.cli.loading.run import Progress
from chalk_online_store.cli.loading.source import Source
from chalk_online_store.integrations.arrow import namespace_of
from chalk_online_store.testing import Dynoxide, FaultProxy, Latency, create_table
from chalk_online_store.testing.engines import local_session
from chalk_online_store.writer.bulk import BulkWriter
from tests.helpers import exit_status

ROWS = 3000
_names = count()


def table(rows: int = ROWS, first: int = 0) -> pa.Table:
    numbers = range(first, first + rows)
    moments = [datetime(2026, 1, 1, 0, 0, n % 60, tzinfo=UTC) for n in numbers]
    return pa.table(
        {
            "id": list(numbers),
            "score": [n / 7 for n in numbers],
            "name": [f"n{n}" for n in numbers],
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.parquet"
    pyarrow.parquet.write_table(table(), path, row_group_size=500)
    return path


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'features.db'}"


def run(*arguments: str | Path) -> int:
    """The exit status of a load that asks nothing."""
    return exit_status("load", *map(str, arguments), "--yes")


def user(*names: str) -> list[str]:
    return ["--namespace", "user", "--key", "id", *names]


def check(url: str, rows: int = ROWS, *, at: bool = True) -> None:
    """Every value of the file is in the table."""
    expected = table(rows)
    namespace = namespace_of("user", expected.schema, ["id"], leave_out=[] if at else ["at"])
    names = ["score", "name"] + ["at"] * at
    with OnlineStore.open(url, [namespace]) as store:
        found = store.read(namespace, list(range(rows)), names)
        assert found.to_dict() == {n: expected.column(n).to_pylist() for n in names}


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_a_file_is_loaded(
    file: Path, store_url: str, ordering: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows are in the table, the price was shown before, and a summary is printed."""
    assert run(file, "--url", store_url, *user("--ordering", ordering)) == 0
    check(store_url)
    output = capsys.readouterr()
    assert "3,000 rows, by the first 500 of them 3,000 items:" in output.err
    assert "writing\t3,000 WCU\t$0.0019 at $0.625 a million" in output.err
    assert "importing from S3\t0.1 MB\t$0.0000 at $0.15 a GB" in output.err
    assert "rows\t3,000\nwritten\t3,000\ndead letters\t0\n" in output.out
    assert [path.name for path in file.parent.glob("*.json*")] == []


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "csv": lambda data, path: pyarrow.csv.write_csv(data.drop_columns(["at"]), path),
    "feather": lambda data, path: _write_arrow(data, path, pa.ipc.new_file),
    "arrow": lambda data, path: _write_arrow(data, path, pa.ipc.new_stream),
}


def _write_arrow(data: pa.Table, path: Path, opened: Any) -> None:
    with pa.OSFile(str(path), "wb") as sink, opened(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=700)


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_of_other_formats_are_loaded(tmp_path: Path, store_url: str, suffix: str) -> None:
    """CSV, and Arrow's file and stream."""
    path = tmp_path / f"users.{suffix}"
    WRITERS[suffix](table(), path)
    assert run(path, "--url", store_url, *user()) == 0
    check(store_url, at=suffix != "csv")


def test_a_column_says_when_rows_were_true(tmp_path: Path, store_url: str) -> None:
    """With --observed-at the newest row of a key wins, wherever it stands in the file."""
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3, 1)]
    data = {"id": [1, 1, 1], "v": [2, 3, 1], "at": pa.array(moments, pa.timestamp("us", "UTC"))}
    path = tmp_path / "late.parquet"
    pyarrow.parquet.write_table(pa.table(data), path)
    assert run(path, "--url", store_url, *user("--observed-at", "at")) == 0
    namespace = namespace_of("user", pa.table(data).schema, ["id"], leave_out=["at"])
    with OnlineStore.open(store_url, [namespace]) as store:
        rows = store.read(namespace, [1])
        assert (rows[0]["v"], rows[0].observed_at("v")) == (3, moments[1])


def test_csv_says_in_which_zone_its_times_are(
    tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times without a zone are refused until one is named; then they are moments."""
    path = tmp_path / "times.csv"
    path.write_text("id,v,at\n1,5,2026-01-02 12:00:00\n")
    assert run(path, "--url", store_url, *user("--observed-at", "at")) == 1
    assert "moments are timestamps with a time zone" in capsys.readouterr().err
    zone = ["--time-zone", "Europe/Berlin"]
    assert run(path, "--url", store_url, *user("--observed-at", "at", *zone)) == 0
    namespace = Namespace("user", int, [Feature("v", int | None)])
    with OnlineStore.open(store_url, [namespace]) as store:
        found = store.read(namespace, [1])[0].observed_at("v")
        assert found == datetime(2026, 1, 2, 11, tzinfo=UTC)
    assert run(path, "--url", store_url, *user("--time-zone", "Nowhere/City")) == 1
    assert "Nowhere/City" in capsys.readouterr().err


def test_rows_that_cannot_be_written_are_dead_letters(tmp_path: Path, store_url: str) -> None:
    """The others are loaded, the letters have the reason, and the exit status is 1."""
    path = tmp_path / "bad.parquet"
    data = pa.table({"id": [1, None, 3], "text": ["a", "b", "x" * 500_000]})
    pyarrow.parquet.write_table(data, path)
    assert run(path, "--url", store_url, *user()) == 1
    lines = (tmp_path / "bad.parquet.dead-letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in lines] == ["InvalidKey", "ItemTooLarge"]
    namespace = namespace_of("user", data.schema, ["id"])
    with OnlineStore.open(store_url, [namespace]) as store:
        assert store.read(namespace, [1])[0]["text"] == "a"


@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_load_goes_on(
    file: Path,
    store_url: str,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After Ctrl-C, the same command loads the rest, under the observed-at of the first time."""
    write, calls = loading._Loader.write, count(1)

    def interrupted(self: Any, rows: Any) -> None:
        if next(calls) > after:
            raise KeyboardInterrupt
        write(self, rows)

    monkeypatch.setattr(loading, "ROWS_PER_BATCH", 500)
    monkeypatch.setattr(loading._Loader, "write", interrupted)
    assert run(file, "--url", store_url, *user()) == 130
    state = json.loads((file.parent / "users.parquet.load-progress.json").read_text())
    assert state["rows"] == after * 500
    monkeypatch.setattr(loading._Loader, "write", write)
    assert run(file, "--url", store_url, *user()) == 0
    assert f"Going on after {after * 500:,} rows" in capsys.readouterr().err
    check(store_url)
    namespace = namespace_of("user", table(1).schema, ["id"])
    with OnlineStore.open(store_url, [namespace]) as store:
        rows = store.read(namespace, [0, ROWS - 1], ["score"])
        assert rows[0].observed_at("score") == rows[1].observed_at("score")


@pytest.mark.slow
def test_a_killed_load_goes_on(file: Path, dynoxide: Dynoxide, fault_proxy: FaultProxy) -> None:
    """SIGTERM in the middle of a real load, then SIGKILL in another: the rest comes afterwards."""
    name = f"load-kill-{next(_names)}"
    create_table(dynoxide.endpoint_url, name)
    slow = dynoxide.url(name).replace(dynoxide.endpoint_url, fault_proxy.endpoint_url)
    cli = "from chalk_online_store.cli import main; main()"
    command = [sys.executable, "-c", cli, "load", str(file), "--yes"]
    command += ["--url", slow, *user("--wcu-per-second", "300")]
    path = file.with_name(f"{file.name}.load-progress.json")
    with fault_proxy.fault(Latency(0.005)):
        for end in (signal.SIGTERM, signal.SIGKILL):
            rows = json.loads(path.read_text())["rows"] if path.exists() else 0
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                deadline = time.monotonic() + 120
                while not path.exists() or json.loads(path.read_text())["rows"] <= rows:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                os.kill(process.pid, end)
                assert process.wait(60) == (130 if end == signal.SIGTERM else -9)
    assert 0 < json.loads(path.read_text())["rows"] < ROWS
    assert run(file, "--url", dynoxide.url(name), *user()) == 0
    check(dynoxide.url(name))


def test_a_load_goes_on_in_the_middle_of_a_batch(
    file: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A load that continues at any row writes the rows after it, and counts each row once."""
    path = file.with_name(f"{file.name}.load-progress.json")
    name = f"user in sqlite:{store_url[9:]}"
    namespace = namespace_of("user", table().schema, ["id"])
    source = Source(input_files([str(file)], None), "user", ["id"], None)
    save_checkpoint(path, Progress(source.fingerprint, name, 1_700_000_000_000_000, 1234))
    assert run(file, "--url", store_url, *user()) == 0
    assert "rows\t3,000\n" in capsys.readouterr().out
    with OnlineStore.open(store_url, [namespace]) as store:
        statuses = store.read(namespace, [1233, 1234], ["score"]).statuses("score")
        assert list(statuses) == ["missing", "hit"]


class _LostRegion:
    """A router whose region for writes is lost after some batches."""

    def __init__(self, batches: int) -> None:
        self._left = batches

    @property
    def written(self) -> str:
        self._left -= 1
        return "eu-west-1" if self._left >= 0 else "us-east-1"

    def may_have_lost_writes(self, region: str) -> bool:
        return region == "eu-west-1"


def test_rows_that_a_lost_region_acknowledged_are_written_again(
    tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a region is lost, its last batches are written again, with one dead letter per row."""
    path = tmp_path / "users.csv"
    path.write_text("id,v\n" + "".join(f"{n},{'x' if n == 3 else n}\n" for n in range(40)))
    namespace = Namespace("user", int, [Feature("v", int)])
    source = Source(input_files([str(path)], None), "user", ["id"], None, namespace)
    order = loading.Order(
        store_url, source, "event", None, tmp_path / "dead.jsonl", tmp_path / "progress.json"
    )
    monkeypatch.setattr(loading, "ROWS_PER_BATCH", 10)
    start, batches = loading._Loader.__init__, []

    def init(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        self._router, self._region = _LostRegion(2), "eu-west-1"

    def bulk_write(self: Any, rows: Any, observed_at: Any, *, is_replay: bool) -> Any:
        batches.append((rows[0]["id"], is_replay))
        return original(self, rows, observed_at, is_replay=is_replay)

    original = BulkWriter.write
    monkeypatch.setattr(loading._Loader, "__init__", init)
    monkeypatch.setattr(BulkWriter, "write", bulk_write)
    progress = Progress({}, "", 1_700_000_000_000_000)
    loading.load(order, progress, lambda progress, report: None)
    again = [(0, True), (10, True), (20, True)]
    assert batches == [(0, False), (10, False), (20, False), *again, (30, False)]
    assert (progress.rows, progress.dead) == (40, 1)
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 1


def test_the_progress_of_another_load_is_refused(
    file: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that has changed, or another table, is not taken for the same."""
    path = file.with_name(f"{file.name}.load-progress.json")
    save_checkpoint(path, Progress({"bytes": 1}, f"user in sqlite:{store_url[9:]}", 0, 10))
    assert run(file, "--url", store_url, *user()) == 1
    assert "the file is not the same" in capsys.readouterr().err
    path.write_text("nonsense")
    assert run(file, "--url", store_url, *user()) == 1
    assert "is no progress of a load" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--namespace", "user", "--key", "nobody"], "no column 'nobody'"),
        (["--namespace", "user"], "Name the columns"),
        ([], "Name the namespace"),
        (["--schema", "tests.crashing:User"], "has no feature"),
        (["--schema", "tests.crashing:Nobody"], "Nobody"),
    ],
)
def test_mistakes_are_one_line(
    file: Path,
    store_url: str,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong is said without a traceback, before anything is written."""
    assert run(file, "--url", store_url, *arguments) == (2 if "Name the" in message else 1)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_nothing_is_written_without_a_yes(
    file: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees the price may still say no."""
    monkeypatch.setattr("typer.confirm", lambda *a, **k: False)
    with pytest.raises(SystemExit) as caught:
        main(["load", str(file), "--url", store_url, *user()])
    assert caught.value.code == 1
    assert not Path(store_url.removeprefix("sqlite:///")).exists()


# --- imports from S3 -----------------------------------------------------------------------


def imported(directory: Path, dynoxide: Dynoxide) -> str:
    """Do what ImportTable does: make the table and put every item; answers its URL."""
    request = json.loads((directory / "import-table.json").read_text())
    parameters = request["TableCreationParameters"]
    parameters["TableName"] = name = f"load-import-{next(_names)}"
    client = local_session().client(
        "dynamodb", endpoint_url=dynoxide.endpoint_url, region_name="us-east-1"
    )
    client.create_table(**parameters)
    for path in sorted((directory / "data").iterdir()):
        with gzip.open(path, "rt") as lines:
            items = [json.loads(line)["Item"] for line in lines]
        for start in range(0, len(items), 25):
            puts: Any = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            client.batch_write_item(RequestItems={name: puts})
    client.close()
    return dynoxide.url(name)


def test_an_import_makes_the_same_table(
    file: Path, tmp_path: Path, dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ImportTable would put gives every value, and can be written to as any other table."""
    directory = tmp_path / "import"
    options = ["--table", "users", "--s3-bucket", "b", "--s3-prefix", "p/"]
    assert run(file, "--import-format", directory, *user(*options)) == 0
    request = json.loads((directory / "import-table.json").read_text())
    assert request["S3BucketSource"] == {"S3Bucket": "b", "S3KeyPrefix": "p/"}
    assert request["TableCreationParameters"]["TableName"] == "users"
    output = capsys.readouterr()
    assert "refused\t0" in output.out
    assert "aws dynamodb import-table" in output.err
    url = imported(directory, dynoxide)
    check(url)
    namespace = namespace_of("user", table(1).schema, ["id"])
    with OnlineStore.open(url, [namespace]) as store:
        store.write(namespace, [{"id": 1, "name": "new"}])
        assert store.read(namespace, [1], ["name", "score"]).to_pylist() == [
            {"name": "new", "score": 1 / 7}
        ]


def test_of_rows_of_one_key_an_import_has_the_newest(tmp_path: Path, dynoxide: Dynoxide) -> None:
    """An import knows no order, so older rows are left out, and bad ones are counted."""
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3, 1, 1)]
    data = pa.table(
        {
            "id": [1, 1, 1, None],
            "v": [2, 3, 1, 0],
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
        }
    )
    pyarrow.parquet.write_table(data, tmp_path / "late.parquet")
    directory = tmp_path / "import"
    options = user("--observed-at", "at")
    assert run(tmp_path / "late.parquet", "--import-format", directory, *options) == 1
    url = imported(directory, dynoxide)
    namespace = namespace_of("user", data.schema, ["id"], leave_out=["at"])
    with OnlineStore.open(url, [namespace]) as store:
        assert store.read(namespace, [1])[0]["v"] == 3


def test_a_directory_with_something_in_it_is_left_alone(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An import is written into an empty directory only."""
    assert run(file, "--import-format", tmp_path, *user()) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_load_on_dynamodb_reports_its_units(
    file: Path, dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary's WCU are the engine's, and the estimate was right."""
    name = f"load-units-{next(_names)}"
    create_table(dynoxide.endpoint_url, name)
    assert run(file, "--url", dynoxide.url(name), *user("--ordering", "arrival")) == 0
    assert "WCU\t3,000\nrequests\t12" in capsys.readouterr().out


def test_the_tables_own_capacity_may_be_the_rate(
    file: Path, dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """--wcu-per-second table takes what is provisioned; a table on demand has nothing to take."""
    name = f"load-rate-{next(_names)}"
    client = local_session().client(
        "dynamodb", endpoint_url=dynoxide.endpoint_url, region_name="us-east-1"
    )
    client.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 2000},
    )
    client.close()
    assert provisioned_wcu(dynoxide.url(name)) == 2000
    options = user("--wcu-per-second", "table", "--ordering", "arrival")
    assert run(file, "--url", dynoxide.url(name), *options) == 0
    assert "3,000 WCU, 2 s at 2000 WCU a second" in capsys.readouterr().err
    other = f"load-rate-{next(_names)}"
    create_table(dynoxide.endpoint_url, other)
    assert run(file, "--url", dynoxide.url(other), *options) == 1
    assert "no provisioned write capacity" in capsys.readouterr().err
    assert run(file, "--url", dynoxide.url(other), *user("--wcu-per-second", "fast")) == 2
