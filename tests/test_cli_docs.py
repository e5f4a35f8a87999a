"""docs/cli.md: what it shows is what happens, and no command is missing."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store.cli import main
from tests.test_cli_tree import LEAVES

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
BLOCK = re.compile(r"^```(python|console|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(found[1], found[2]) for found in BLOCK.finditer(PAGE.read_text())]
PROGRAM = "chalk-online-store "

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def transcripts(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what it shall print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def typed() -> Iterator[list[str]]:
    """The arguments of every command on the page."""
    for kind, text in BLOCKS:
        lines = text.splitlines() if kind == "sh" else [line for line, _ in transcripts(text)]
        for line in lines:
            if kind != "python" and line.startswith(PROGRAM):
                yield shlex.split(line.removeprefix(PROGRAM))


def test_transcripts_are_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the page, in their order, end well and print what is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CHALK_ONLINE_STORE_URL", "sqlite:///features.db")
    checker, names, run = doctest.OutputChecker(), dict[str, Any](), 0
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, names)
        for command, wanted in transcripts(text) if kind == "console" else ():
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(command.removeprefix(PROGRAM)))
            printed = capsys.readouterr()
            assert ended.value.code in (0, None), (command, printed.err)
            assert checker.check_output(wanted, printed.out, OPTIONS), (command, printed.out)
            run += 1
    assert run > 15


def test_every_command_is_shown() -> None:
    """Each command there is has an example on the page."""
    shown = {" ".join(arguments[:2]) for arguments in typed()} | {each[0] for each in typed()}
    assert {path for path in LEAVES if path not in shown} == set()
