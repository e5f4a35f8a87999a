"""Log records have their facts as fields, for who reads logs by machine."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pythonjsonlogger.json import JsonFormatter

from chalk_online_store import DeadLetter, OnlineStore, PersistenceWriter, RowsAbandoned, features
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import ConnectionFailed, RequestRefused, WriteFailed
from chalk_online_store.logs import event
from chalk_online_store.routing.health import RegionState
from chalk_online_store.routing.logs import log_change
from chalk_online_store.routing.router import Router
from chalk_online_store.testing import Dynoxide, Valkey, create_table

SOURCES = Path(__file__).parents[1] / "src" / "chalk_online_store"


@features
class User:
    id: int
    name: str


class Lines(io.StringIO):
    """What was logged, a JSON document a line."""

    def read_events(self) -> dict[str, dict[str, Any]]:
        """The last record of each event."""
        records = map(json.loads, self.getvalue().splitlines())
        return {record["event.name"][len("chalk.online_store.") :]: record for record in records}


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the library logs while a formatter of JSON is set up."""
    found = Lines()
    handler = logging.StreamHandler(found)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("chalk_online_store")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_region_that_changes_says_which_and_how(lines: Lines) -> None:
    """Name, state and reason of a region are fields."""
    router = Router(["us-east-1", "us-west-2"], "us-east-1")
    router.on_change = lambda region: log_change(router, region, read_clocks())
    for second in range(10):
        health = router.health["us-east-1"]
        router.raised(
            "us-east-1", health.generation, "GetItem", ConnectionFailed("gone"), 1.0, second
        )
    record = lines.read_events()["region.state"]
    assert record["cloud.region"] == "us-east-1"
    assert record["chalk.state"] == RegionState.DOWN.value
    assert record["name"] == "chalk_online_store.routing"


def test_a_shared_cache_that_goes_and_comes_says_so(lines: Lines, dynoxide: Dynoxide) -> None:
    """Of an error its class is a field; its text is in the message alone."""
    with Valkey() as server:
        cache = server.url()
    create_table(dynoxide.endpoint_url, "logged", region="us-east-1")
    url = f"dynamodb:///logged?region=us-east-1&endpoint_url={dynoxide.endpoint_url}"
    with OnlineStore.open(f"{url}&shared_cache={cache}", [User]) as store:
        store.write(User, [{"id": 1, "name": "a"}])
    record = lines.read_events()["shared_cache.away"]
    assert record["error.type"] == "ConnectionFailed"
    assert record["levelname"] == "WARNING"


def test_rows_that_are_dropped_say_how_many_of_what(lines: Lines) -> None:
    """Namespace, count and reason are fields; the rows are not."""
    with OnlineStore.open("sqlite://", [User]) as store, PersistenceWriter(store) as writer:
        writer.submit(User, [{"id": 1, "name": 5}])
        writer.flush(10)
    record = lines.read_events()["writer.rows_dropped"]
    assert (record["chalk.namespace"], record["chalk.rows"]) == ("user", 1)
    assert record["chalk.reason"] == "InvalidValue"


def test_dead_letters_that_nobody_takes_say_why(lines: Lines) -> None:
    """The class of what a sink raises is a field."""

    def refuse(letters: Sequence[DeadLetter]) -> None:
        raise OSError("no")

    with OnlineStore.open("sqlite://", [User]) as store:
        writer = PersistenceWriter(store, dead_letters=refuse)
        writer.submit(User, [{"id": 1, "name": 5}])
        with pytest.raises(RowsAbandoned):
            writer.close()
    assert lines.read_events()["writer.dead_letters_failed"]["error.type"] == "OSError"


def test_a_fact_is_what_can_be_written_down(tmp_path: Path) -> None:
    """Exceptions are their class, paths their text, names those of the conventions."""
    said = event("x", error=ValueError("secret"), path=tmp_path, region="us-east-1", rows=3)
    assert said == {
        "event.name": "chalk.online_store.x",
        "error.type": "ValueError",
        "file.path": str(tmp_path),
        "cloud.region": "us-east-1",
        "chalk.rows": 3,
    }


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Everything that the library logs."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id in ("LOG", "logger"):
                    yield path.name, node


def test_everything_that_is_logged_is_an_event() -> None:
    """No record is text alone."""
    logged = [(path, call) for path, call in calls() if call.func.attr != "isEnabledFor"]  # type: ignore[attr-defined]
    assert len(logged) > 15
    for path, call in logged:
        assert "extra" in [keyword.arg for keyword in call.keywords], (path, call.lineno)


def test_a_record_identifies_the_request_that_failed() -> None:
    """Status, code, request id, region and attempt are fields, also if the request is the cause."""
    refused = RequestRefused("no")
    refused.http_status, refused.code, refused.request_id = 400, "ValidationException", "KQNSO5"
    refused.region, refused.attempt = "us-east-1", 2
    facts = {
        "http.response.status_code": 400,
        "chalk.error_code": "ValidationException",
        "aws.request_id": "KQNSO5",
        "cloud.region": "us-east-1",
        "chalk.attempt": 2,
    }
    name = {"event.name": "chalk.online_store.x"}
    assert event("x", error=refused) == name | {"error.type": "RequestRefused"} | facts
    failed = WriteFailed("no", {0: refused})
    failed.__cause__ = refused
    assert event("x", error=failed) == name | {"error.type": "WriteFailed"} | facts
    assert event("x", error=ValueError("secret")) == name | {"error.type": "ValueError"}


def test_every_event_is_documented() -> None:
    """The page on observability lists the name of each."""
    page = (SOURCES.parents[1] / "docs" / "observability.md").read_text()
    named = set[str]()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "event":
                (name, *_) = node.args
                named.add(ast.literal_eval(name))
    assert len(named) > 10
    assert [name for name in sorted(named) if f"`{name}`" not in page] == []


def stderr_of(code: str) -> str:
    """What a process prints to stderr that logs an error and a warning."""
    log = 'chalk_online_store.writer").{}("{} happened", extra={{}})'
    whole = f"""
import logging, chalk_online_store.logs
{code}
logging.getLogger("{log.format("error", "loss")}
logging.getLogger("{log.format("warning", "trouble")}
"""
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", "loss happened\n"),
        ("logging.basicConfig(format='%(message)s')", "loss happened\ntrouble happened\n"),
        ("logging.getLogger().addHandler(logging.NullHandler())", ""),
        ("logging.getLogger('chalk_online_store').addHandler(logging.NullHandler())", ""),
        ("logging.disable(logging.CRITICAL)", ""),
    ],
)
def test_errors_are_printed_if_logging_is_not_configured(code: str, expected: str) -> None:
    """An unconfigured process prints errors and no warnings; any handler replaces that."""
    assert stderr_of(code) == expected
