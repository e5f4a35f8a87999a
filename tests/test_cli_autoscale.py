"""`autoscale` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store.planning.autoscaling import TargetTracking, simulate
from chalk_online_store.planning.demand import diurnal
from tests.helpers import exit_status

STEADY = ("--peak", "700", "--base", "700", "--days", "1")


def run(*arguments: str | Path) -> int:
    return exit_status("autoscale", *map(str, arguments))


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_steady_load_costs_what_one_reckons(capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 units around the clock for a month, reads and writes by their prices."""
    fixed = ("simulate", "--min", "1000", "--max", "1000", *STEADY)
    assert told(capsys, *fixed)["dollars_a_month"] == pytest.approx(1000 * 730 * 0.00013)
    writes = told(capsys, *fixed, "--of", "write")
    assert writes["dollars_a_month"] == pytest.approx(1000 * 730 * 0.00065)
    assert (writes["throttled_share"], writes["utilisation"]) == (0, pytest.approx(0.7))
    free = told(capsys, "on-demand", *STEADY)
    assert free["dollars_a_month"] == pytest.approx(700 * 730 * 3600 / 1e6 * 0.125)


def test_it_is_the_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    """Options mean what the library means by them."""
    bounds = ("--min", "500", "--max", "5000", "--target", "50", "--scale-in-cooldown", "300")
    found = told(capsys, "simulate", *bounds, "--peak", "2000", "--base", "300", "--days", "2")
    wanted = simulate(diurnal(300, 2000, 2), TargetTracking(500, 5000, 50.0, 300.0, 60.0))
    assert found["throttled_units"] == pytest.approx(wanted.throttled_units)
    assert (found["increases"], found["decreases"]) == (wanted.increases, wanted.decreases)


def test_burst_capacity_need_not_be_counted_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A spike that burst capacity would take in part is throttled wholly without."""
    spike = ("simulate", "--min", "300", "--max", "300", "--peak", "900", "--shape", "spike")
    with_burst, without = (told(capsys, *spike, flag) for flag in ("--burst", "--no-burst"))
    assert without["throttled_units"] > with_burst["throttled_units"] > 0


def test_a_search_keeps_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """What it finds throttles no more; where nothing can, the status is 1."""
    crowd = ("search", "--peak", "3000", "--shape", "flash-crowd", "--days", "1")
    found = told(capsys, *crowd, "--bound", "0.001")
    assert found["throttled_share"] <= 0.001
    setting = found["setting"]
    again = (
        "--min",
        setting["minimum"],
        "--max",
        setting["maximum"],
        "--target",
        setting["target"],
    )
    assert run("simulate", *again, "--peak", "3000", "--shape", "flash-crowd", "--days", "1") == 0
    assert run("search", "--peak", "90000", "--base", "90000", "--days", "1", "--no-burst") == 1


def test_a_search_relies_on_burst_capacity_only_if_told_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The default setting costs what one without burst capacity does, and more than one with it."""
    crowd = ("search", "--peak", "3000", "--shape", "flash-crowd", "--days", "1")
    default, without, with_burst = (
        told(capsys, *crowd, *flags) for flags in ((), ("--no-burst",), ("--burst",))
    )
    assert default == without
    assert default["dollars_a_month"] > with_burst["dollars_a_month"]


def test_a_search_gives_a_range_over_the_alarm_delay(capsys: pytest.CaptureFixture[str]) -> None:
    """The setting is tried with delays of one to ten minutes, and later ones throttle no less."""
    crowd = ("search", "--peak", "3000", "--shape", "flash-crowd", "--days", "1", "--bound", "0.01")
    found = told(capsys, *crowd)
    delays = [each["delay"] for each in found["by_delay"]]
    shares = [each["throttled_share"] for each in found["by_delay"]]
    assert delays == [60, 180, 300, 600]
    assert shares[1] == found["throttled_share"] <= 0.01
    assert shares == sorted(shares)
    assert "after 60 to 600 s" in found["why"]
    assert run(*crowd) == 0
    assert "600.0\t" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["simulate", "search", "on-demand"])
def test_a_region_without_prices_yields_units(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without prices there are units, no dollars, and a line that says so; the status is 0."""
    bounds = ("--min", "1000", "--max", "1000") if command == "simulate" else ()
    assert run(command, *bounds, *STEADY, "--region", "mars-east-1", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["dollars_a_month"] is None
    assert found["peak"] == 700
    assert "No prices for region 'mars-east-1': capacity units only" in err


def test_a_recorded_load_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes of a CSV file."""
    trace = tmp_path / "reads.csv"
    trace.write_text("time,units\n" + "".join(f"{60 * n},{100 + n}\n" for n in range(120)))
    assert told(capsys, "simulate", "--trace", trace, "--min", "400", "--max", "400")["peak"] == 219


@pytest.mark.parametrize("command", ["simulate", "search", "on-demand"])
def test_a_run_is_drawn(command: str, tmp_path: Path) -> None:
    """As an image, for each of them."""
    plot = tmp_path / "run.png"
    bounds = ("--min", "300", "--max", "3000") if command == "simulate" else ()
    shape = ("--shape", "spike", "--minutes", "60", "--noise", "0.05")
    assert run(command, *bounds, "--peak", "2000", "--days", "1", *shape, "--plot", plot) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("on-demand",), 2, "either --trace or --peak"),
        (("simulate", "--min", "9", "--max", "8", *STEADY), 1, "maximum=8"),
        (("on-demand", *STEADY, "--plot", "run.gif"), 2, ".png or .svg"),
        (("on-demand", "--trace", "nowhere.csv"), 1, "nowhere.csv"),
    ],
)
def test_a_mistake_has_no_traceback(
    arguments: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, in one line."""
    assert run(*arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
