"""`terraform` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chalk_online_store.provision.spec import read_spec
from chalk_online_store.provision.terraform import render
from tests.helpers import exit_status

TABLE = 'name = "features"\nregions = ["us-east-1", "eu-west-1"]\n'


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    return path


def run(*arguments: str | Path) -> int:
    return exit_status("terraform", *map(str, arguments))


def test_files_are_written(table: Path, tmp_path: Path) -> None:
    """All of them, into a directory that is made, and anew when the description changes."""
    output = tmp_path / "infra" / "features"
    for text in (TABLE, TABLE + 'ttl = "expires"\n'):
        table.write_text(text)
        assert run(table, "--output", output) == 0
        written = {path.name: path.read_text() for path in output.iterdir()}
        assert written == render(read_spec(table))


def test_files_are_printed(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people one after the other, for programs as JSON."""
    assert run(table) == 0
    assert "# main.tf" in capsys.readouterr().out
    assert run(table, "--json") == 0
    assert json.loads(capsys.readouterr().out) == render(read_spec(table))


def test_a_mistake_has_no_traceback(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong file, and a directory that cannot be made, are named."""
    assert run(tmp_path / "nowhere.toml") == 1
    assert run(table, "--output", table / "below") == 1
    error = capsys.readouterr().err
    assert "nowhere.toml cannot be read" in error
    assert "cannot be written" in error
    assert "Traceback" not in error
