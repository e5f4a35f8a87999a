"""How commands end: what is on standard output, with which status, and never with a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from chalk_online_store import OnlineStore
from chalk_online_store.cli import bloom, main, stores
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import confirm
from chalk_online_store.cli.rows import command as rows
from tests.helpers import exit_status

SCHEMA = """
from chalk_online_store import BloomFilter, OnlineStoreConfig, features

@features(online_store_config=OnlineStoreConfig(bloom_filter=BloomFilter(100)))
class User:
    id: int
    name: str
    risk: float
"""

PROGRAM = "import sys; from chalk_online_store.cli import main; main()"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a schema in it, and files that are not what they are called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ends_app.py").write_text(SCHEMA)
    (tmp_path / "ends_raises.py").write_text("1 / 0")
    (tmp_path / "ends_syntax.py").write_text("def (")
    (tmp_path / "users.csv").write_text("id,name,risk\n1,Ada,0.5\n2,Bob,0.25\n")
    for name in ("bad.parquet", "bad.toml", "bad.db", "bad.lock"):
        (tmp_path / name).write_bytes(b"\xff\xfe this is nothing" * 100)
    return tmp_path


@pytest.fixture
def url(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A store with two users and their filter."""
    found = f"sqlite:///{directory}/features.db"
    run("load", "users.csv", "--schema", "ends_app:User", "--url", found, "--yes")
    run("bloom", "build", "--schema", "ends_app:User", "--url", found, "--wait", "0", "--yes")
    capsys.readouterr()
    return found


def run(*arguments: str) -> int:
    return exit_status(*arguments)


USER = ("--schema", "ends_app:User")


@pytest.mark.parametrize(
    "command",
    [
        ("get", "user", "1"),
        ("put", '{"id": 3, "name": "Eve", "risk": 0.1}', *USER),
        ("load", "users.csv", *USER, "--yes"),
        ("load", "users.csv", *USER, "--yes", "--import-format", "import"),
        ("bench", *USER, "--queries", "5", "--entities", "5", "--write"),
        ("bloom", "build", *USER, "--wait", "0", "--yes"),
        ("bloom", "status", *USER),
        ("registry", "list"),
        ("registry", "export"),
        ("registry", "rename", "user.risk", "user.score"),
        ("registry", "drop", "user.risk", "user.name"),
        ("registry", "check", *USER),
        ("cache", "simulate", "--entities", "100", "--reads", "1000"),
        ("autoscale", "simulate", "--min", "5", "--max", "50", "--peak", "40", "--days", "1"),
        ("autoscale", "on-demand", "--peak", "40", "--days", "1"),
        ("demo", "--entities", "2"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_json_alone_is_printed(
    command: tuple[str, ...],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --json standard output is one document; the URL comes from the environment."""
    monkeypatch.setenv("CHALK_ONLINE_STORE_URL", url)
    wanted = () if command[1] == "export" else ("--json",)
    assert run(*command, *wanted) == 0
    json.loads(capsys.readouterr().out)


def test_json_says_what_was_done(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of a load, a filter and a check are those of the table."""
    assert run("bloom", "status", *USER, "--url", url, "--json") == 0
    assert told(capsys)["user"]["entities"] == 2
    assert run("load", "users.csv", *USER, "--url", url, "--yes", "--json") == 0
    loaded = told(capsys)
    assert (loaded["rows"], loaded["written"], loaded["dead_letters"]) == (2, 2, 0)
    assert run("registry", "list", "--prefix", "user.n", "--url", url, "--json") == 0
    (name,) = told(capsys)
    assert (name["name"], name["type"], name["state"]) == ("user.name", "str", "active")
    run("registry", "export", "--url", url, "--output", "registry.lock")
    run("registry", "drop", "user.name", "--url", url)
    capsys.readouterr()
    arguments = ("registry", "check", "--url", url, "--lock", "registry.lock", "--json")
    assert run(*arguments) == 1
    assert "user.name" in {difference["name"] for difference in told(capsys)}


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_environment_gives_way(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What says that no table is meant counts more than a URL in the environment."""
    run("registry", "export", "--url", url, "--output", "registry.lock")
    monkeypatch.setenv("CHALK_ONLINE_STORE_URL", "dynamodb:///nowhere?region=us-east-1")
    assert run("registry", "check", "--lock", "registry.lock", *USER) == 0
    assert run("load", "users.csv", *USER, "--yes", "--import-format", "import") == 0
    capsys.readouterr()
    assert run("registry", "list", "--url", url) == 0
    assert "user.name" in capsys.readouterr().out


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    """What JSON has no number for is null: any parser can read it."""
    print_json({"a": [float("inf"), 1.5], "b": (float("nan"),)})
    assert capsys.readouterr().out == '{"a": [null, 1.5], "b": [null]}\n'


NOBODY = "dynamodb:///features?region=us-east-1&endpoint_url=http://127.0.0.1:9"

ROW = '{"id": 1, "name": "a", "risk": 0.5}'


@pytest.mark.parametrize(
    ("status", "command", "message"),
    [
        (2, "get user 7", "Missing option '--url'"),
        (2, "get user 7 --url x --nope", "No such option"),
        (2, "nope", "No such command"),
        (2, "get user 7 --url http://x", "begins with dynamodb://"),
        (2, "get user 7 --url http://[::1", "cannot be parsed"),
        (2, "get user 7 --url dynamodb:///table?region=us-east-1&endpoint_url=nope", "has no host"),
        (1, "get user 7 --url sqlite:///bad.db", "not a database"),
        (1, "get user 7 --url sqlite:////no/such/features.db", "cannot be opened"),
        (1, f"get user 7 --url {NOBODY}", "127.0.0.1:9"),
        (1, f"registry list --url {NOBODY}", "127.0.0.1:9"),
        (
            1,
            f"load users.csv --schema ends_app:User --yes --url {NOBODY}",
            "registry cannot be read",
        ),
        (1, f"bench --schema ends_app:User --url {NOBODY}", "registry cannot be read"),
        (1, f"bloom build --schema ends_app:User --yes --url {NOBODY}", "Could not connect"),
        (1, "bloom status --schema ends_raises:User --url sqlite://", "ZeroDivisionError"),
        (1, "bloom status --schema ends_syntax:User --url sqlite://", "SyntaxError"),
        (1, "bloom status --schema ends_app:Nobody --url sqlite://", "no attribute 'Nobody'"),
        (1, "registry export --url sqlite:///a.db --output no/such/file", "no/such/file: No such"),
        (1, "registry export --url sqlite:///a.db --output .", ".: Is a directory"),
        (1, "registry import bad.lock --url sqlite:///a.db", "no lock file"),
        (1, "registry check --lock none.lock --url sqlite:///a.db", "none.lock"),
        (2, "registry check --url sqlite:///a.db", "give two of"),
        (1, "load bad.parquet --schema ends_app:User --yes --url sqlite:///a.db", "bad.parquet"),
        (2, "load none.csv --schema ends_app:User --url sqlite:///a.db", "none.csv"),
        (2, "load users.csv --url sqlite:///a.db", "Name the namespace"),
        (
            2,
            "load users.csv --schema ends_app:User --url sqlite:///a.db --wcu-per-second nan",
            "it is a number",
        ),
        (
            2,
            "load users.csv --schema ends_app:User --url sqlite:///a.db --yes --progress no/such",
            "there is no directory",
        ),
        (1, "capacity bad.toml", "bad.toml"),
        (1, "capacity none.toml", "none.toml"),
        (1, "terraform none.toml", "none.toml"),
        (1, "provision plan bad.toml", "bad.toml"),
        (1, "cache simulate --trace bad.parquet", "bad.parquet"),
        (2, "cache simulate", "either --trace or --entities"),
        (2, "autoscale on-demand", "either --trace or --peak"),
        (2, "regions status --url sqlite://", "region=A,B"),
        (2, "demo --engine nope", "--engine takes"),
        (1, f"demo --entities 1 --engine {NOBODY}", "registry cannot be read"),
        (2, "bench --schema ends_app:User --url sqlite:// --plot a.gif", ".png or .svg"),
        (1, "bench --schema ends_app:User --url sqlite:// --feature x", "no feature 'x'"),
    ],
)
@pytest.mark.usefixtures("directory")
def test_a_mistake_has_no_traceback(
    status: int,
    command: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told on standard error, with the status that the documentation has for it."""
    monkeypatch.setattr(stores, "ANSWERS_WITHIN", 3.0)
    monkeypatch.setattr(rows, "ANSWERS_WITHIN", 3.0)
    defaults = OnlineStore.open.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", 3.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert run(*command.split()) == status
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.replace("│", "").split())
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.usefixtures("directory")
def test_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where boto3 finds none, or its configuration is broken, the way out is told."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    arguments = ("get", "user", "1", "--url", "dynamodb:///features?region=us-east-1")
    assert run(*arguments) == 1
    assert "set AWS_ACCESS_KEY_ID" in capsys.readouterr().err
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "bad.toml"))
    assert run(*arguments) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is not passed off as the user's."""
    monkeypatch.setattr(bloom, "table_size", lambda _: 1 / 0)
    monkeypatch.setattr(bloom, "namespace_called", str)
    with pytest.raises(ZeroDivisionError):
        main(["bloom", "build", "--schema", "a:B", "--url", "sqlite://"])


# --- cut short -----------------------------------------------------------------------------


def start(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
    )


@pytest.mark.parametrize("command", [("scan", "user", "--json", "--limit", "0"), ("get", "user")])
def test_a_closed_pipe(
    url: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """`| head` ends a command quietly, also one that has much more to print."""
    lines = "\n".join(
        json.dumps({"id": key, "name": "x" * 200, "risk": 0.5}) for key in range(1500)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(lines))
        run("put", "-", *USER, "--url", url)
    keys = [str(key) for key in range(1500)] if command[0] == "get" else []
    process = start(*command, *keys, "--url", url)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 1
    assert errors == b""
    process.stderr.close()
    process.stdin.close()


def test_ctrl_c(url: str) -> None:
    """A command that waits for its input ends with 130, and prints no traceback."""
    process = start("put", "-", *USER, "--url", url)
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        rows = "\n".join([ROW] * 100) + "\n"
        process.stdin.write(rows.encode())
        process.stdin.flush()
        wait_for_rows(url)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(60) == 130


def wait_for_rows(url: str) -> None:
    """Wait until the first page is written: then the command waits for the next line."""
    for _ in range(1000):
        read = subprocess.run(
            [sys.executable, "-c", PROGRAM, "get", "user", "1", "--url", url, "--json"],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
        )
        if json.loads(read.stdout)["features"]["name"]["value"] == "a":
            return
    raise AssertionError("the rows did not arrive")


def test_ctrl_c_at_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked may interrupt, too: that is no plain no."""

    def interrupted(*_: object, **__: object) -> bool:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise typer.Abort from None

    monkeypatch.setattr(typer, "confirm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        confirm("Go on?", False)


def test_nobody_answers(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a question is answered by --yes alone, which is said."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("load", "users.csv", *USER, "--url", url) == 1
    assert "give --yes" in capsys.readouterr().err
