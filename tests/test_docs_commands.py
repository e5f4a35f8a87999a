"""What the documentation shows beside Python is right: every command parses, every file is read.

The Python of each page runs by itself (conftest.py); docs/cli.md's commands run in test_cli_docs.
docs/troubleshooting.md has a cause and a remedy for every exception.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from chalk_online_store import errors
from chalk_online_store.cli.app import app
from chalk_online_store.planning.mix import read_mix
from chalk_online_store.provisioning.spec import read_spec

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS += [ROOT / "examples" / "README.md", ROOT / "benchmarks" / "README.md"]

COMMAND = re.compile(r"^ *(?:\$ )?chalk-online-store ((?:.*\\\n)*.*)", re.MULTILINE)
FENCED = re.compile(r"^``` ?(\w*).*?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
FILE = re.compile(r"[\w-]+\.(?:csv|json|lock|parquet|toml)")


def blocks(text: str, *languages: str) -> Iterator[str]:
    for language, block in FENCED.findall(text):
        if language in languages:
            yield block


def typed() -> Iterator[Any]:
    """The arguments of each command that a page shows, with the page's name."""
    for path in TEXTS:
        text = path.read_text()
        shown = [*blocks(text, "", "bash", "console", "sh", "text"), *INDENTED.findall(text)]
        for command in COMMAND.findall("\n".join(shown)):
            line = command.replace("\\\n", " ").replace("$URL", "sqlite://")
            arguments = shlex.split(line, comments=True)
            yield pytest.param(arguments, id=f"{path.stem}: {' '.join(arguments)}")


TYPED = [*typed()]


def test_commands_are_found() -> None:
    """What follows is about many pages, not about none."""
    assert len(TYPED) > 60
    assert len({str(each.id).partition(":")[0] for each in TYPED}) > 10


@pytest.mark.parametrize("arguments", TYPED)
def test_a_command_is_typed_as_it_is_taken(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are such a command and such options, and their values can be read."""
    monkeypatch.setenv("CHALK_ONLINE_STORE_URL", "sqlite://")
    monkeypatch.chdir(tmp_path)
    for name in filter(FILE.fullmatch, arguments):
        Path(name).touch()
    command: Any = typer.main.get_command(app)
    leaf, called = command, []
    for name in arguments:
        leaf = leaf.commands[name] if hasattr(leaf, "commands") else leaf
    monkeypatch.setattr(leaf, "callback", lambda **options: called.append(options))
    command.main(arguments, prog_name="chalk-online-store", standalone_mode=False)
    assert len(called) == 1


def test_toml_is_read(tmp_path: Path) -> None:
    """Each description of a table, and each mix, has the settings that there are."""
    tables = mixes = 0
    for path in TEXTS:
        for block in blocks(path.read_text(), "toml"):
            file = tmp_path / "shown.toml"
            file.write_text(block)
            shown = tomllib.loads(block)
            if "name" in shown:
                tables += bool(read_spec(file).regions)
            elif "namespace" in shown:
                mixes += bool(read_mix(file).namespaces)
    assert tables >= 2
    assert mixes >= 1


def test_every_exception_has_a_remedy() -> None:
    """docs/troubleshooting.md has one row with cause and remedy per public exception."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    exceptions = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.OnlineStoreError)
    }
    assert sorted(name for name, _, _ in rows) == sorted(exceptions)
    assert [name for name, cause, remedy in rows if not (cause and remedy)] == []
