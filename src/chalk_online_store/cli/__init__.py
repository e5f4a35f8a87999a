"""The command line: `chalk-online-store`.

What a command's exit status says, here and in docs/cli.md:

| status | what it says |
|---|---|
| 0 | done, and nothing is wrong |
| 1 | failed, declined, or found something wrong: each command's help says what it looks for |
| 2 | the command line or the URL is wrong; of `provision`, that the table differs |
| 130 | interrupted, by Ctrl-C or SIGTERM |

A reader that closes the pipe, such as `| head`, ends a command without a word, with status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from chalk_online_store.cli.visible import visible_lines
from chalk_online_store.errors import InvalidURL, InvalidValue, MissingDependency, OnlineStoreError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class WrongUsage(InvalidValue):
    """Options that cannot be given, or not together."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on these arguments (the process's own, unless given).

    Where something failed, what, is said without a traceback: only a mistake of ours has one.
    """
    try:
        require("cli", "typer", "rich")
        from chalk_online_store.cli.app import app

        app(arguments, prog_name="chalk-online-store")
    except KeyboardInterrupt:  # While modules are imported. A command handles its own.
        print("Interrupted before the command began. Give it again.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print("chalk-online-store:", visible_lines(message), file=sys.stderr)
        wrong = isinstance(error, WrongUsage | InvalidURL)
        raise SystemExit(WRONG_USAGE if wrong else FAILED) from None


def _message(error: Exception) -> str | None:
    """What went wrong in the world; None for what went wrong in here."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, OnlineStoreError) or type(error).__module__.startswith("botocore."):
        return str(error)
    return None


def require(extra: str, *packages: str) -> None:
    """Refuse, with the way out, where a package of an optional extra is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingDependency(
            f"This command needs {' and '.join(missing)}: "
            f"pip install 'chalk-online-store[{extra}]'."
        )
