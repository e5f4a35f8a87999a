"""`chalk-online-store cache simulate`, run as a user does."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chalk_online_store import OnlineStoreError
from chalk_online_store.cli.app import app

SMALL = ("--entities", 500, "--reads", 5000)


def run(*arguments: object) -> Result:
    """What the command says."""
    result = CliRunner().invoke(app, ["cache", "simulate", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refusal(*arguments: object) -> str:
    """The error that the command ends with, which `main` prints."""
    result = CliRunner().invoke(app, ["cache", "simulate", *map(str, arguments)])
    assert isinstance(result.exception, OnlineStoreError), result.output
    return str(result.exception)


def tables(result: Result) -> list[list[list[str]]]:
    """The cells of each table."""
    parts = result.stdout.strip().split("\n\n")
    return [[line.split("\t") for line in part.splitlines()] for part in parts]


def test_four_outcomes_and_a_curve() -> None:
    """Neither, cache, filter and both are shown, and what remains for each size of the cache."""
    outcomes, curve = tables(run(*SMALL))
    assert [row[0] for row in outcomes[1:]] == ["neither", "cache alone", "filter alone", "both"]
    assert outcomes[1] == ["neither", "2,500", "0.0%", *"0000", "0 B", "0.0625"]
    units = [float(row[1].replace(",", "")) for row in outcomes[1:]]
    assert units[0] > max(units[1:3]) > min(units[1:3]) > units[3]
    assert [row[0] for row in curve[1:]] == ["1", "2", "5", "15", "50", "150", "500"]
    assert [len(row) for row in (*outcomes, *curve)] == [9] * 5 + [7] * 8
    # The cache holds a tenth unless stated: that step of the curve is the same simulation.
    assert (curve[5][2], curve[5][5]) == (outcomes[2][1], outcomes[4][1])


def test_a_trace_is_simulated(tmp_path: Path) -> None:
    """A recorded trace is read, with a ttl, and priced; every cell is as computed by hand."""
    path = tmp_path / "reads.csv"
    path.write_text("key,timestamp,present\na,0,1\na,5,1\nb,6,0\nb,7,0\na,70,1\n")
    options = ("--max-size", 5, "--ttl", "1m", "--store-cache-misses", "--price", 1)
    (_, neither, cache, filtered, both), _ = tables(
        run("--trace", path, *options, "--item-bytes", 5000, "--false-positive-rate", 1e-9)
    )
    # Items of 5,000 bytes take a unit, absent ones half of one.
    assert neither == ["neither", "4", "0.0%", *"0000", "0 B", "0.8000"]
    assert cache == ["cache alone", "2.5", "37.5%", *"2100", "15.5 KiB", "0.5000"]
    assert filtered[:7] == ["filter alone", "3", "25.0%", *"0020"]
    assert both[:7] == ["both", "2", "50.0%", *"1020"]


def test_strong_reads() -> None:
    """Strong reads take twice the units, and no cache helps them."""
    outcomes, _ = tables(run(*SMALL, "--consistent", "--groups", 2))
    assert [row[1] for row in outcomes[1:3]] == ["10,000", "10,000"]


def test_on_a_terminal_the_curve_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """People see titles, headings and a bar for each size, within 80 characters."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*SMALL).stdout
    assert "What memory buys" in shown
    assert "5,000 reads, 500 entities, a cache of 50 items" in shown
    assert shown.count("██") >= 7
    assert "\t" not in shown
    assert "…" not in shown


def test_the_price_is_said_to_be_given() -> None:
    """Dollars come with the price that they follow from, and where the default is from."""
    assert "$0.125 for a million read request units (on-demand, us-east-1" in run(*SMALL).stderr
    assert "November" not in run(*SMALL, "--price", 0.25).stderr


def test_refusals(tmp_path: Path) -> None:
    """What makes no sense ends the command with the way out."""
    assert "either --trace or --entities" in refusal()
    assert "either --trace or --entities" in refusal(*SMALL, "--trace", "x.csv")
    assert "none.csv cannot be read" in refusal("--trace", tmp_path / "none.csv")
    assert "not a duration" in refusal(*SMALL, "--ttl", "soon")
    for option in ("--entities", "--reads", "--item-bytes", "--groups", "--max-size"):
        assert "=0: it must be 1 or more" in refusal(*SMALL, option, 0)
    assert "expected_entities=0" in refusal(*SMALL, "--expected-entities", 0)


def test_a_plot_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib the way out is named before anything is simulated."""
    monkeypatch.setattr("chalk_online_store.cli.find_spec", lambda name: None)
    message = refusal(*SMALL, "--plot", tmp_path / "curve.png")
    assert "pip install 'chalk-online-store[plots]'" in message


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_is_written(suffix: str, tmp_path: Path) -> None:
    """The curve is drawn into a file of the kind that its name says."""
    path = tmp_path / f"curve.{suffix}"
    assert str(path) in run(*SMALL, "--plot", path).stderr
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert ".png or .svg" in refusal(*SMALL, "--plot", tmp_path / "curve.pdf")
    assert "cannot be written" in refusal(*SMALL, "--plot", tmp_path / "none" / "curve.png")
