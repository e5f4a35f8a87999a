"""The command line: `chalk-online-store`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from chalk_online_store.errors import MissingDependency, OnlineStoreError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on these arguments (the process's own, unless given).

    Exits with status 1 where something failed: what, is said without a traceback.
    """
    try:
        require("cli", "typer", "rich")
        from chalk_online_store.cli.app import app

        app(arguments)
    except OnlineStoreError as error:
        print("chalk-online-store:", error, file=sys.stderr)
        raise SystemExit(1) from None


def require(extra: str, *packages: str) -> None:
    """Refuse, with the way out, where a package of an optional extra is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingDependency(
            f"This command needs {' and '.join(missing)}: "
            f"pip install 'chalk-online-store[{extra}]'."
        )
