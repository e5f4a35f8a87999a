"""What commands print on a terminal: texts as they are, without markup and control characters."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import OnlineStore, features
from chalk_online_store.cli import main
from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.terminal import draw_table, make_console, say
from chalk_online_store.cli.visible import visible

CLI = Path(__file__).parents[1] / "src" / "chalk_online_store" / "cli"
HOSTILE = "[/red] [bold]x[/] :smile: \x1b[31m\x1b]0;title\x07 \r\n\t \u202etxt.exe \x9b2J"
RUN = "from chalk_online_store.cli import main; main()"


@features
class Note:
    id: str
    text: str


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with notes that a terminal would obey."""
    url = f"sqlite:///{tmp_path}/notes.db"
    with OnlineStore.open(url, schema=[Note]) as store:
        store.write(Note, [{"id": key, "text": HOSTILE} for key in ("[/a]", "[red]b", HOSTILE)])
    return url


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """The exit status of a command on a pseudo-terminal, and what it sends there."""
    ours, its = pty.openpty()
    command = [sys.executable, "-c", RUN, *arguments]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm", "PYTHONPATH": path()}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # Linux tells so that the other side has closed.
        pass
    os.close(ours)
    return process.wait(), shown.decode()


def path() -> str:
    return os.pathsep.join(filter(None, sys.path))


def obeyed(shown: str) -> list[str]:
    """Control characters that rich does not send for its own styles and line ends."""
    plain = re.sub(r"\x1b\[[0-9;?]*[mhlKAJ]", "", shown).replace("\r\n", "")
    return [c for c in plain if not c.isprintable()]


@pytest.mark.parametrize(
    "arguments",
    [("scan", "note"), ("get", "note", "[/a]", "[red]b", HOSTILE, "[/missing]")],
    ids=["scan", "get"],
)
def test_values_and_keys_are_shown_as_they_are(url: str, arguments: tuple[str, ...]) -> None:
    """Brackets are no markup, and no character of a value reaches the terminal to be obeyed."""
    status, shown = on_a_terminal(*arguments, "--url", url)
    assert status == 0, shown
    assert obeyed(shown) == []
    assert shown.count("[/red] [bold]x[/] :smile: \\u001b[31m") == 4  # One of them as a key.
    assert "\\u202etxt.exe" in shown
    assert '"[/a]"' in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", HOSTILE, "1"),
        ("get", "note", "1", "--feature", HOSTILE),
        ("get", "note", "1", "--schema", HOSTILE),
        ("registry", "drop", HOSTILE),
        ("registry", "rename", HOSTILE, "note.[/x]"),
    ],
    ids=lambda arguments: ascii(arguments)[:40],
)
def test_errors_are_shown_as_they_are(
    url: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that quotes what was given is escaped."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--url", url])
    shown = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert obeyed(shown.replace("\n", "")) == []
    assert "\x1b" not in shown


def test_json_is_exact(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has every character of a value, escaped as JSON does."""
    with pytest.raises(SystemExit) as ended:
        main(["get", "note", HOSTILE, "--url", url, "--json"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == found["features"]["text"]["value"] == HOSTILE


def test_a_table_takes_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Title, headings and cells of a drawn table are shown as they are."""
    console = make_console()
    console.print(draw_table(["[red]h", "n"], [["[/x]", ":smile: \x1b"]], title="[bold]t\n"))
    shown = capsys.readouterr().out
    for text in ("[red]h", "[/x]", ":smile: \\x1b", "[bold]t\\n"):
        assert text in shown


def test_a_progress_bar_takes_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description of a task is shown as it is."""
    console = make_console(stderr=True)
    with console.capture() as captured:
        progress = bars(console=console)
        progress.add_task("[/red] {task.total} \x1b[31m", total=1)
        console.print(progress.get_renderable())
    assert "[/red] {task.total} \\x1b[31m" in captured.get()


def test_lines_of_our_own_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of several lines is printed as such."""
    say("a\nb\t[/c]")
    assert capsys.readouterr().out == "a\nb\\t[/c]\n"


@given(st.text())
def test_visible_text_has_no_control_characters(text: str) -> None:
    """Printable texts stay as they are; others have no character that a terminal obeys."""
    shown = visible(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", shown)
    shown.encode()  # Has no lone surrogates.
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("source", sorted(CLI.rglob("*.py")), ids=lambda each: each.stem)
def test_commands_print_by_one_module(source: Path) -> None:
    """No command prints text by itself, so that none can forget to escape it."""
    allowed: dict[str, Any] = {
        "terminal.py": r"typer\.echo|Console\(",
        "json_output.py": r"typer\.echo",
        "__init__.py": r"print\(",
        "registry.py": r"typer\.echo\(text, nl=False\)",
        "terraform.py": r"typer\.echo\(f\"# \{name\}",
    }
    text = source.read_text()
    found = re.findall(r"typer\.echo.*|(?<![\w.])print\(.*|(?<!\w)Console\(.*|TextColumn\(.*", text)
    other = [
        line
        for line in found
        if not re.match(allowed.get(source.name, "$."), line)
        and not line.startswith('TextColumn("{task.completed')
    ]
    assert other == []
