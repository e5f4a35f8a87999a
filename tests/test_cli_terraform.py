"""`terraform` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chalk_online_store.provisioning.rendered_files import MANIFEST
from chalk_online_store.provisioning.spec import read_spec
from chalk_online_store.provisioning.terraform import render
from tests.helpers import exit_status

TABLE = 'name = "features"\nregions = ["us-east-1", "eu-west-1"]\n'
SCALED = (
    TABLE
    + """
[capacity]
mode = "provisioned"
read = {units = 1000, autoscaling = {min = 500, max = 5000}}
write = {units = 500, autoscaling = {min = 250, max = 2500}}
"""
)


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
        assert set(json.loads(written.pop(MANIFEST))["files"]) == set(written)
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


# --- files of an earlier rendering ---------------------------------------------------------


@pytest.fixture
def scaled(table: Path, tmp_path: Path) -> Path:
    """The directory of an autoscaled table, whose description is on demand by now."""
    table.write_text(SCALED)
    output = tmp_path / "infra"
    assert run(table, "--output", output) == 0
    table.write_text(TABLE)
    return output


def test_a_file_that_is_no_longer_rendered_is_refused(
    scaled: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --prune nothing is written, since Terraform would apply the file that is left."""
    before = {path: path.read_bytes() for path in scaled.iterdir()}
    assert run(table, "--output", scaled) == 1
    assert "no longer rendered: autoscaling.tf" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in scaled.iterdir()} == before


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_file_that_is_no_longer_rendered_is_pruned(
    scaled: Path, table: Path, has_manifest: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """--prune removes it, also if the manifest was lost, and leaves other people's files alone."""
    (scaled / "backend.tf").write_text("terraform {}\n")
    (scaled / "terraform.tfstate").write_text("{}")
    if not has_manifest:
        (scaled / MANIFEST).unlink()
    assert run(table, "--output", scaled, "--prune") == 0
    assert "Removed: autoscaling.tf." in capsys.readouterr().err
    others = {"backend.tf", "terraform.tfstate", MANIFEST}
    assert {path.name for path in scaled.iterdir()} == {*render(read_spec(table)), *others}
    assert run(table, "--output", scaled) == 0


def test_an_edited_file_is_not_pruned(
    scaled: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Edits of a file that would be removed are not lost."""
    with (scaled / "autoscaling.tf").open("a") as file:
        file.write("# by hand\n")
    assert run(table, "--output", scaled, "--prune") == 1
    assert "was edited since" in capsys.readouterr().err
    assert (scaled / "autoscaling.tf").exists()


def test_a_foreign_file_is_not_overwritten(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A main.tf that somebody else wrote is refused, whatever --prune says."""
    (tmp_path / "main.tf").write_text("# ours\n")
    assert run(table, "--output", tmp_path, "--prune") == 1
    assert "was not rendered by this command" in capsys.readouterr().err
    assert (tmp_path / "main.tf").read_text() == "# ours\n"


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": {"../table.toml": ""}}'])
def test_a_damaged_manifest_is_refused(
    scaled: Path, table: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that cannot be read, or names a file elsewhere, removes nothing."""
    (scaled / MANIFEST).write_text(manifest)
    assert run(table, "--output", scaled, "--prune") == 1
    assert MANIFEST in capsys.readouterr().err
    assert table.exists()
