"""Every command there is: explained, with an example that is right, and JSON for what it prints."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from chalk_online_store.cli import main
from chalk_online_store.cli.app import app
from chalk_online_store.cli.options import URL_VARIABLE

# A command is here for a reason, or prints JSON.
WITHOUT_JSON = {
    "registry export": "what it prints is JSON already: a lock file",
    "persist": "it runs until it is stopped, and logs JSON lines",
}

# Options that mean the same are called the same.
NAMES = {"url": "--url", "as_json": "--json", "yes": "--yes", "plot": "--plot"}

EXAMPLE = re.compile(r"^Example: chalk-online-store (.+?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each command below one, by what is typed for it."""
    for name, each in getattr(command, "commands", {}).items():
        yield " ".join((*path, name)), each
        yield from commands(each, (*path, name))


TREE = dict(commands(typer.main.get_command(app)))
LEAVES = {path: each for path, each in TREE.items() if not hasattr(each, "commands")}

every_command = pytest.mark.parametrize("path", TREE)
every_leaf = pytest.mark.parametrize("path", LEAVES)


def test_the_tree_was_walked() -> None:
    """What follows is about all commands: of the first and of the second level."""
    assert {"get", "bench", "registry", "registry list", "provision plan"} <= {*TREE}
    assert len(LEAVES) > 20


@every_command
def test_it_has_help(path: str) -> None:
    """The first paragraph of each help is one line, a sentence, that fits a list of commands."""
    first, *rest = inspect.cleandoc(TREE[path].help).split("\n\n")
    assert first.endswith(".")
    assert "\n" not in first
    assert len(first) <= 100
    assert not any(paragraph.startswith("Example:") for paragraph in rest[:-1])


@every_command
def test_its_options_are_explained(path: str) -> None:
    """Each option and argument says what it is for."""
    params = [each for each in TREE[path].params if each.name != "help"]
    assert [each.name for each in params if not each.help] == []


@every_command
def test_its_options_have_the_usual_names(path: str) -> None:
    """One option is not called differently by two commands; `doctor` takes its URL as it is."""
    for each in TREE[path].params:
        if each.name in NAMES and each.param_type_name == "option":
            assert NAMES[each.name] in each.opts


@every_command
def test_the_url_comes_from_the_environment(path: str) -> None:
    """Wherever there is a --url, the variable stands in for it."""
    for each in TREE[path].params:
        if "--url" in each.opts:
            assert each.envvar == URL_VARIABLE


@every_leaf
def test_it_prints_json(path: str) -> None:
    """Each command that prints data has --json, but for the exceptions above."""
    options = {name for each in TREE[path].params for name in each.opts}
    assert ("--json" in options) is (path not in WITHOUT_JSON)


@every_leaf
def test_its_example_parses(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example of each help is understood as the command itself: every option and value."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").touch()  # `load` looks whether it is there.
    called = []
    command = typer.main.get_command(app)
    leaf = dict(commands(command))[path]
    monkeypatch.setattr(leaf, "callback", lambda **options: called.append(options))
    command.main(example(leaf), prog_name="chalk-online-store", standalone_mode=False)
    assert len(called) == 1


def example(leaf: Any) -> list[str]:
    """The arguments of a command's example."""
    found = EXAMPLE.search(inspect.cleandoc(leaf.help))
    assert found is not None, "an Example: is missing"
    return shlex.split(" ".join(found[1].split()))


@every_command
def test_help_is_shown(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help works, and names the program as it is typed."""
    with pytest.raises(SystemExit) as ended:
        main([*path.split(), "--help"])
    assert ended.value.code == 0
    assert f"Usage: chalk-online-store {path}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("reg", ["registry", "regions"]), ("bloom st", ["status"]), ("get --sch", ["--schema"])],
)
def test_the_shell_completes(
    typed: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the script of --show-completion asks is answered: commands and options."""
    line = f"chalk-online-store {typed}"
    monkeypatch.setenv("_CHALK_ONLINE_STORE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert sorted(capsys.readouterr().out.split()) == sorted(offered)


def test_the_script_for_completion_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--show-completion prints a script for the shell that it runs in."""
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    with pytest.raises(SystemExit) as ended:
        main(["--show-completion"])
    assert ended.value.code == 0
    assert "_CHALK_ONLINE_STORE_COMPLETE=complete_bash" in capsys.readouterr().out


def test_the_command_begins_without_what_few_commands_need() -> None:
    """What is slow to import, or may not be installed, is imported where it is used."""
    heavy = ["boto3", "moto", "pyarrow", "redis", "aiohttp", "matplotlib", "opentelemetry", "feast"]
    code = (
        f"import sys, chalk_online_store.cli.app; print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
