"""`chalk-online-store regions`, run as a user does, on a Global Table of this machine."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chalk_online_store import (
    Feature,
    InvalidURL,
    InvalidValue,
    Namespace,
    OnlineStore,
    OnlineStoreError,
    RegistryError,
)
from chalk_online_store.cli import main
from chalk_online_store.cli import regions as commands
from chalk_online_store.cli.app import app
from chalk_online_store.errors import RegionUnavailable
from chalk_online_store.testing import LocalGlobalTable

EAST, WEST = "us-east-1", "us-west-2"
USER = Namespace("user", int, [Feature("risk", float)])
MORE = Namespace("user", int, [Feature("risk", float), Feature("visits", int)])


@pytest.fixture
def table() -> Iterator[LocalGlobalTable]:
    with LocalGlobalTable() as found:
        yield found


def run(*arguments: object, code: int = 0, answer: str | None = None) -> Result:
    """What a command says, and that it ends with this exit code."""
    result = CliRunner().invoke(app, ["regions", *map(str, arguments)], input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def said(*arguments: object, code: int = 0) -> Any:
    """What a command says as JSON."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def refusal(*arguments: object) -> OnlineStoreError:
    """The error that a command ends with, which `main` prints without a traceback."""
    error = run(*arguments, code=1).exception
    assert isinstance(error, OnlineStoreError)
    return error


# --- status --------------------------------------------------------------------------------


def test_status_tells_every_region_and_measures_replication(table: LocalGlobalTable) -> None:
    """Both regions answer a read, and a heartbeat takes at least the lag from each to each."""
    table.set_lag(0.3)
    found = said("status", "--url", table.url())
    assert [(r["name"], r["ok"], r["state"]) for r in found["regions"]] == [
        (EAST, True, "healthy"),
        (WEST, True, "healthy"),
    ]
    assert [(r["reads"], r["writes"]) for r in found["regions"]] == [(True, True), (False, False)]
    assert {(lag["source"], lag["target"]) for lag in found["lag"]} == {(EAST, WEST), (WEST, EAST)}
    assert all(lag["measured"] >= 0.3 for lag in found["lag"])
    assert found["regions"][0]["for_seconds"] is None


def test_status_for_people(table: LocalGlobalTable) -> None:
    """Without --json there are two tables, and the second one says how its figures came about."""
    lines = run("status", "--url", table.url()).output.splitlines()
    assert lines[0].startswith("region\tstate\tfor\tanswered in")
    assert lines[1].startswith(f"{EAST}\thealthy\t-\t")
    assert lines[3] == "from\tto\tmeasured just now, one item"
    assert len(lines) == 6


def test_replication_that_has_stopped_is_said(
    table: LocalGlobalTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that does not arrive has no figure: it says in what time it did not."""
    monkeypatch.setattr(commands, "WITHIN", 5)
    table.partition(EAST, WEST)
    output = run("status", "--url", table.url()).output
    assert output.count("not within 5 s") == 2


def test_a_lost_preferred_region_is_an_exit_code(table: LocalGlobalTable) -> None:
    """Scripts learn from status 1 that the first region is away, and people from the state."""
    table.lose(EAST, "refused")
    found = said("status", "--url", table.url(), code=1)
    east, west = found["regions"]
    assert (found["ok"], found["preferred_ok"]) == (True, False)
    assert (east["ok"], east["state"]) == (False, "down")
    assert east["reason"] in {"ConnectionFailed", "RequestTimeout"}
    assert (west["ok"], west["reads"], west["writes"]) == (True, True, True)
    assert {lag["note"] for lag in found["lag"]} == {"not measured: no answer"}
    said("status", "--url", table.url([WEST, EAST]))


def test_a_region_that_swallows_everything_is_down(table: LocalGlobalTable) -> None:
    """A silent region is read until the router calls it down: reads go elsewhere."""
    table.lose(EAST)
    east, west = said("status", "--url", table.url(), "--no-beat", code=1)["regions"]
    assert (east["state"], west["reads"]) == ("down", True)


def test_without_a_beat_nothing_is_written(table: LocalGlobalTable) -> None:
    """--no-beat tells what heartbeats say that are there, and writes none itself."""
    status = ("status", "--url", table.url(), "--no-beat")
    assert [lag["behind"] for lag in said(*status)["lag"]] == [None, None]
    assert [lag["behind"] for lag in said(*status)["lag"]] == [None, None]
    assert "no heartbeat there" in run(*status).output
    run("status", "--url", table.url())
    table.wait_until_replicated()
    found = said(*status)["lag"]
    assert all(lag["behind"] is not None and lag["measured"] is None for lag in found)


def test_one_region_is_enough_for_status(table: LocalGlobalTable) -> None:
    """A URL of one region has no replication, but an answer."""
    found = said("status", "--url", table.url([WEST]))
    assert [r["ok"] for r in found["regions"]] == [True]
    assert found["lag"] == []


def watching(url: str, *options: str, out: int) -> subprocess.Popen[bytes]:
    """A real process, which Ctrl-C can be sent to."""
    arguments = ["regions", "status", "--url", url, "--watch", "--every", "50ms", *options]
    program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where tests run behind a shell.
from chalk_online_store.cli import main
main({arguments!r})
"""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen([sys.executable, "-c", program], stdout=out, env=environment)


def test_watch_on_a_terminal_ends_with_ctrl_c(table: LocalGlobalTable) -> None:
    """The tables are drawn again and again, and Ctrl-C is no failure."""
    ours, theirs = pty.openpty()
    process = watching(table.url(), out=theirs)
    try:
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + 60
        while shown.count(b"measured just now") < 3 and time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        assert shown.count(b"measured just now") >= 3, shown
        process.send_signal(signal.SIGINT)
        while select.select([ours], [], [], 60)[0]:  # So that it can write its last lines.
            try:
                os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed.
                break
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_for_programs_is_a_line_of_json_a_look(table: LocalGlobalTable) -> None:
    """A program reads line by line what --watch --json sees, a lost region as well."""
    process = watching(table.url(), "--json", "--no-beat", out=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["preferred_ok"] is True
        table.lose(EAST, "refused")
        while json.loads(process.stdout.readline())["preferred_ok"]:
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_commands_in_the_documentation(
    table: LocalGlobalTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that docs/failover-operations.md shows does what it is shown for."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt  # As a user does, who has seen enough.

    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=interrupt))
    with OnlineStore.open(table.url(), [USER]) as store:
        store.write(USER, [{"id": 1, "risk": 0.5}])
    table.wait_until_replicated()
    text = (Path(__file__).parents[1] / "docs" / "failover-operations.md").read_text()
    shown = [line for line in text.splitlines() if line.startswith("chalk-online-store regions")]
    assert len(shown) >= 10
    for line in shown:
        run(*shlex.split(line.replace("$URL", table.url()))[2:])


# --- orders --------------------------------------------------------------------------------


def test_drain_adds_to_what_holds_and_release_takes_back(table: LocalGlobalTable) -> None:
    """Orders are added to those that hold, seen by status, and taken back by name or all."""
    url = ("--url", table.url(["us-east-1", "us-west-2"]))
    nothing: dict[str, list[str]] = {"pinned": [], "drained": [], "evacuated": []}
    first = said("drain", EAST, *url)
    assert first == {"before": nothing, "now": {**nothing, "drained": [EAST]}, "not_heard": {}}
    second = said("evacuate", WEST, *url, "--yes")
    assert second["before"] == first["now"]
    assert second["now"] == {**nothing, "drained": [EAST], "evacuated": [WEST]}
    orders = [r["orders"] for r in said("status", *url, "--no-beat")["regions"]]
    assert orders == ["drained", "evacuated"]
    assert said("release", WEST, *url)["now"] == first["now"]
    assert said("pin", WEST, *url)["now"] == {**first["now"], "pinned": [WEST]}
    assert said("release", *url)["now"] == nothing


def test_a_fleet_follows_orders(table: LocalGlobalTable) -> None:
    """A store that looks at its regions asks the pinned one from then on."""
    run("pin", WEST, "--url", table.url())
    with OnlineStore.open(table.url(), [USER]) as store:
        store.health()
        assert {r.name: r.orders for r in store.regions()} == {EAST: "", WEST: "pinned"}
        assert store.read(USER, [1]).report.region == WEST


def test_who_heard_of_orders_is_said(table: LocalGlobalTable) -> None:
    """A lost region did not hear, and hears when the same order is given again."""
    table.lose(EAST, "refused")
    output = run("evacuate", EAST, "--url", table.url(), "--yes").output
    assert "before\t-\t-\t-" in output
    assert f"now\t-\t-\t{EAST}" in output
    assert f"{WEST}\tyes" in output
    assert f"{EAST}\tyes" not in output
    table.restore(EAST)
    again = said("evacuate", EAST, "--url", table.url(), "--yes")
    assert again["before"] == again["now"]
    assert again["not_heard"] == {}


def test_evacuation_asks_first(table: LocalGlobalTable) -> None:
    """Whoever does not confirm has evacuated nothing."""
    run("evacuate", EAST, "--url", table.url(), code=1, answer="n\n")
    orders = [r["orders"] for r in said("status", "--url", table.url(), "--no-beat")["regions"]]
    assert orders == ["", ""]
    run("evacuate", EAST, "--url", table.url(), answer="y\n")


def test_orders_that_cannot_be(table: LocalGlobalTable) -> None:
    """Unknown regions, contradictions and leaving every region are refused, and change nothing."""
    url = ("--url", table.url())
    for wrong in (("pin", "mars"), ("drain", "mars"), ("release", "mars")):
        assert "'mars' is no region of this store" in str(refusal(*wrong, *url))
    assert "one has to serve" in str(refusal("evacuate", EAST, WEST, *url, "--yes"))
    run("evacuate", EAST, *url, "--yes")
    assert "release it first" in str(refusal("drain", EAST, *url))
    assert isinstance(refusal("pin", EAST, *url), InvalidValue)
    assert said("release", WEST, *url)["now"]["evacuated"] == [EAST]


def test_orders_that_nobody_could_hear(table: LocalGlobalTable) -> None:
    """Where no region answers nothing is ordered: what holds is not known."""
    table.lose(EAST, "refused")
    table.lose(WEST, "refused")
    assert isinstance(refusal("drain", EAST, "--url", table.url()), RegionUnavailable)


@pytest.mark.parametrize("command", [["status"], ["pin", EAST], ["home"]])
def test_a_store_without_regions(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite has none, which is said without a traceback."""
    assert isinstance(refusal(*command, "--url", "sqlite://"), InvalidURL)
    with pytest.raises(SystemExit) as ended:
        main(["regions", *command, "--url", "sqlite://"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "region=A,B" in err
    assert "Traceback" not in err


def test_a_time_that_is_none() -> None:
    """--every takes a duration above nothing."""
    assert "--every" in str(refusal("status", "--url", "sqlite://", "--every", "0s"))


# --- home ----------------------------------------------------------------------------------


def homes(url: str) -> dict[str, tuple[str | None, int | None]]:
    """The registry's home and its size as each region has it."""
    return {r["region"]: (r["home"], r["entries"]) for r in said("home", "--url", url)}


def test_home_is_shown_and_moved(table: LocalGlobalTable) -> None:
    """After a move features are registered in the new home, and no longer through the old one."""
    url = table.url()
    assert homes(url) == {EAST: ("", 0), WEST: ("", 0)}
    with OnlineStore.open(url, [USER]) as store:
        store.write(USER, [{"id": 1, "risk": 0.5}])
    table.wait_until_replicated()
    assert homes(url) == {EAST: (EAST, 3), WEST: (EAST, 3)}
    run("home", WEST, "--url", url, code=1, answer="n\n")
    assert homes(url)[WEST] == (EAST, 3)
    assert f"home={WEST}" in run("home", WEST, "--url", url, "--yes").output
    table.wait_until_replicated()
    assert homes(url) == {EAST: (WEST, 3), WEST: (WEST, 3)}
    with (
        OnlineStore.open(url, [MORE]) as old,
        pytest.raises(RegistryError, match=f"home={WEST}"),
    ):
        old.write(MORE, [{"id": 1, "visits": 1}])
    with OnlineStore.open(f"{url}&home={WEST}", [MORE]) as new:
        new.write(MORE, [{"id": 1, "visits": 1}])
    assert homes(url)[WEST] == (WEST, 4)


def test_a_home_that_is_lost_for_good(table: LocalGlobalTable) -> None:
    """The registry moves away from a region that does not answer, with a warning."""
    url = table.url()
    with OnlineStore.open(url, [USER]) as store:
        store.write(USER, [{"id": 1, "risk": 0.5}])
    table.wait_until_replicated()
    table.lose(EAST, "refused")
    assert "may be lost" in run("home", WEST, "--url", url, "--yes").output
    assert homes(url) == {EAST: (None, None), WEST: (WEST, 3)}


def test_a_home_that_has_more_than_the_next_one(table: LocalGlobalTable) -> None:
    """The registry does not move to a region that has not all of it: ids would be given twice."""
    url = table.url()
    with OnlineStore.open(url, [USER]) as store:
        store.write(USER, [{"id": 1, "risk": 0.5}])
        table.wait_until_replicated()
    table.partition(EAST, WEST)
    with OnlineStore.open(url, [MORE]) as store:
        store.write(MORE, [{"id": 1, "visits": 1}])
    assert "1 of the registry's entries" in str(refusal("home", WEST, "--url", url, "--yes"))
    assert homes(url) == {EAST: (EAST, 4), WEST: (EAST, 3)}
