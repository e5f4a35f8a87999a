"""Write docs/licences.md: the licences of what this package, and each extra, installs directly.

They are read from the metadata of what is installed beside the script, which `make licences` has
all extras of. Run it from the repository's root: `python -m scripts.licences`.
"""

from __future__ import annotations

import re
import tomllib
from email.message import Message
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, cast

PAGE = Path("docs/licences.md")
HEAD = """# Licences of dependencies

chalk-online-store is licensed under Apache-2.0 and bundles no other package. The table lists the
packages that it installs, with the licences in their metadata. Their own dependencies are not
listed. `make licences` writes this page.
"""
NAME = re.compile(r"[A-Za-z0-9._-]+")
CLASSIFIER = "License :: OSI Approved :: "
OWN = "chalk-online-store"


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    PAGE.write_text(page(project))
    print(f"Wrote {PAGE}.")


def page(project: dict[str, Any]) -> str:
    """The page, of what `[project]` of pyproject.toml says."""
    parts = {"always": project["dependencies"], **project["optional-dependencies"]}
    rows = [row for part, wanted in parts.items() for row in rows_of(part, wanted)]
    head = "\n| installed | package | licence |\n|---|---|---|\n"
    return HEAD + head + "".join(rows)


def rows_of(part: str, wanted: list[str]) -> list[str]:
    names = [found.group() for text in wanted if (found := NAME.match(text))]
    label = part if part == "always" else f"`[{part}]`"
    return [f"| {label} | {name} | {licence_of(name)} |\n" for name in names if name != OWN]


def licence_of(package: str) -> str:
    """The licence of an installed package: its SPDX expression, else what is nearest to one."""
    found = cast(Message, metadata(package))  # Typed as less than it is.
    return found.get("License-Expression") or by_classifiers(found) or first_line(found)


def by_classifiers(found: Message) -> str:
    named = [text for text in found.get_all("Classifier", []) if text.startswith(CLASSIFIER)]
    return ", ".join(text.removeprefix(CLASSIFIER) for text in named)


def first_line(found: Message) -> str:
    return (found.get("License") or "not stated").splitlines()[0]


if __name__ == "__main__":
    main()
